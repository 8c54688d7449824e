//! TLS of a port as it is put together: keys of tickets by policy, and what handshakes are answered from.

use crate::config::ports::Port;
use crate::tls::policies::PolicyId;
use crate::tls::tickets::{PortTickets, Ring};
use crate::tls::{self, Termination, TicketError, Within};
use rustls::server::ProducesTickets;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// TLS of one port. The ticket keys stay while the port does, so that sessions outlive a renewed certificate.
#[derive(Debug, Default)]
pub(super) struct PortTls {
    pub(super) tickets: BTreeMap<PolicyId, Arc<PortTickets>>,
    /// Of the certificates that the port had then, and for what was in it.
    made: Option<(Within, Arc<Termination>)>,
}

impl PortTls {
    /// Makes the keys of a policy; those that are there stay.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(super) fn prepare(
        &mut self,
        port: u16,
        policy: PolicyId,
        ring: Option<&Ring>,
    ) -> Result<(), TicketError> {
        if let Entry::Vacant(place) = self.tickets.entry(policy) {
            place.insert(PortTickets::new(port, policy, tls::local_tickets()?, ring));
        }
        Ok(())
    }

    /// Of everything that the port has now; the very same where no certificate and no policy came or went.
    pub(super) fn config(&mut self, port: &mut Port, within: Within) -> Arc<Termination> {
        let is_old = port.take_are_certificates_new();
        let made = self.made.take().filter(|(before, _)| !is_old && *before == within);
        let (_, made) = made.unwrap_or_else(|| {
            // Those of policies that are gone go with them.
            let used: BTreeSet<_> = port.certificates().map(|own| own.policy.id()).collect();
            self.tickets.retain(|policy, _| used.contains(policy));
            let tickets = |policy| {
                let tickets = self.tickets.get(&policy).map(Arc::clone);
                tickets.map(|tickets| tickets as Arc<dyn ProducesTickets>)
            };
            (within, Arc::new(Termination::new(port.certificates(), within, tickets)))
        });
        self.made = Some((within, Arc::clone(&made)));
        made
    }
}
