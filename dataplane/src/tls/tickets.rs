//! Session tickets that every proxy of one kind can open.
//!
//! A client that comes back, to whichever proxy, saves a signature and a round trip if that proxy can open the ticket
//! it was given. From the ring that proxies share ([`crate::ring`]) each TLS policy of a port derives keys of its
//! own, by the port's number, the versions and the authorities of clients: a session never resumes where other rules hold, and
//! what another authority vouched for counts no more. Tickets are sealed with
//! AES-256-GCM (RFC 5116). A key opens tickets for one period of rotation after the one in which it seals, so a ticket is
//! worth nothing after two; and as a controller that is away rotates nothing, the time of issue is sealed in as well.
//!
//! Without a ring, and for what was sealed before there was one, keys of this process alone serve.

use super::policies::PolicyId;
use crate::ring::{CLOCK_SKEW_MAX, DerivedRing, NamedKey, Use};
use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::AES_256_GCM;
use aws_lc_rs::error::Unspecified;
use rustls::server::ProducesTickets;
use rustls_pki_types::UnixTime;
use std::sync::Arc;
use std::time::Duration;

pub use crate::ring::Ring;

/// For how long a ticket is worth something, at most.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Largest ticket that is looked at, in bytes. Sessions without client certificates take a few hundred.
pub const TICKET_BYTES_MAX: usize = 16 << 10;

/// Domain of the keys below.
const SALT: &[u8] = b"weir session tickets v1";

const NAME_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// Seals and opens the tickets of one port and policy.
#[derive(Debug)]
pub struct PortTickets {
    port: u16,
    policy: PolicyId,
    local: Arc<dyn ProducesTickets>,
    shared: ArcSwapOption<DerivedRing<NAME_BYTES>>,
}

impl PortTickets {
    /// `local` serves while there is no ring.
    #[must_use]
    pub fn new(
        port: u16,
        policy: PolicyId,
        local: Arc<dyn ProducesTickets>,
        ring: Option<&Ring>,
    ) -> Arc<Self> {
        let tickets = Self { port, policy, local, shared: ArcSwapOption::empty() };
        if let Some(ring) = ring {
            tickets.use_ring(ring);
        }
        Arc::new(tickets)
    }

    /// From the next handshake on, in every configuration of TLS that holds this. Costs three derivations.
    pub fn use_ring(&self, ring: &Ring) {
        let port = self.port.to_be_bytes();
        let of = Use { salt: SALT, bound_to: &[&port, &self.policy.0], algorithm: &AES_256_GCM };
        match DerivedRing::derive(ring, of) {
            Ok(keys) => self.shared.store(Some(Arc::new(keys))),
            // By the library's contract it takes a wrong length, and all of them are constants.
            Err(Unspecified) => {
                tracing::error!(port = self.port, "no ticket keys could be derived; the old ones stay");
            }
        }
    }
}

impl ProducesTickets for PortTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        match &*self.shared.load() {
            Some(keys) => seal(keys.current(), plain, UnixTime::now()),
            None => self.local.encrypt(plain),
        }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let shared = self.shared.load();
        match shared.as_ref().and_then(|keys| keys.key_of(ticket)) {
            Some(key) => open(key, ticket, UnixTime::now()),
            // Sealed here before the ring came, or by nobody.
            None => self.local.decrypt(ticket),
        }
    }
}

/// Seals the time of issue in seconds, then what is in the ticket.
fn seal(key: &NamedKey<NAME_BYTES>, plain: &[u8], now: UnixTime) -> Option<Vec<u8>> {
    key.seal([&now.as_secs().to_be_bytes()[..], plain].concat())
}

fn open(key: &NamedKey<NAME_BYTES>, ticket: &[u8], now: UnixTime) -> Option<Vec<u8>> {
    let mut ticket = ticket.to_vec();
    let (issued, plain) = key.open(&mut ticket)?.split_first_chunk::<TIME_BYTES>()?;
    is_fresh(u64::from_be_bytes(*issued), now.as_secs()).then(|| plain.to_vec())
}

fn is_fresh(issued: u64, now: u64) -> bool {
    let is_future = issued.saturating_sub(now) > CLOCK_SKEW_MAX.as_secs();
    !is_future && now.saturating_sub(issued) <= TICKET_LIFETIME.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::local_tickets;
    use crate::tls::policies::id_of;
    use weir_proto::limits::KEY_BYTES;
    use weir_proto::push;

    fn ring(keys: [u8; 3]) -> Ring {
        let [previous, current, next] = keys.map(|key| [key; KEY_BYTES]);
        Ring::new(&previous, &current, &next).expect("of the length")
    }

    fn of_policy(port: u16, tls: &push::Tls, ring: Option<&Ring>) -> Arc<PortTickets> {
        PortTickets::new(port, id_of(tls), local_tickets().expect("randomness"), ring)
    }

    fn port(port: u16, ring: Option<&Ring>) -> Arc<PortTickets> {
        of_policy(port, &push::Tls::default(), ring)
    }

    fn sealed(tickets: &PortTickets) -> Vec<u8> {
        tickets.encrypt(b"session").expect("sealed")
    }

    fn opens(tickets: &PortTickets, ticket: &[u8]) -> bool {
        tickets.decrypt(ticket).is_some_and(|plain| plain == b"session")
    }

    #[test]
    fn a_ticket_opens_on_every_proxy_for_one_rotation_before_and_after() {
        let ticket = sealed(&port(443, Some(&ring([1, 2, 3]))));
        assert!(opens(&port(443, Some(&ring([1, 2, 3]))), &ticket));
        assert!(opens(&port(443, Some(&ring([2, 3, 4]))), &ticket), "one rotation later");
        assert!(
            opens(&port(443, Some(&ring([0, 1, 2]))), &ticket),
            "at a proxy that has not heard of it yet"
        );
        assert!(!opens(&port(443, Some(&ring([3, 4, 5]))), &ticket), "two rotations later");
    }

    #[test]
    fn a_ticket_of_one_port_is_worth_nothing_on_another() {
        let ring = ring([1, 2, 3]);
        assert!(!opens(&port(8443, Some(&ring)), &sealed(&port(443, Some(&ring)))));
    }

    #[test]
    fn a_ticket_is_worth_nothing_under_another_policy_or_authority() {
        let ring = ring([1, 2, 3]);
        let asking = |pem: &[u8], mode: push::ClientValidationMode| {
            let authority = push::Authority { source: "ns/ca".into(), certificates_pem: pem.to_vec() };
            let validation = push::ClientValidation {
                authorities: vec![authority],
                mode: mode.into(),
                ..push::ClientValidation::default()
            };
            push::Tls { client_validation: Some(validation), ..push::Tls::default() }
        };
        let mut strict = push::Tls::default();
        strict.set_min_version(push::TlsVersion::TlsVersion13);
        let policies = [
            push::Tls::default(),
            strict,
            asking(b"a", push::ClientValidationMode::Required),
            asking(b"a", push::ClientValidationMode::Optional),
            asking(b"b", push::ClientValidationMode::Required),
        ];
        let tickets = policies.each_ref().map(|tls| of_policy(443, tls, Some(&ring)));
        for (at, sealer) in tickets.iter().enumerate() {
            let ticket = sealed(sealer);
            let opening: Vec<_> =
                (0..tickets.len()).filter(|&other| opens(&tickets[other], &ticket)).collect();
            assert_eq!(opening, [at]);
        }
    }

    #[test]
    fn without_a_ring_only_this_process_opens_and_it_goes_on_to_when_one_comes() {
        let (here, elsewhere) = (port(443, None), port(443, None));
        let ticket = sealed(&here);
        assert!(opens(&here, &ticket) && !opens(&elsewhere, &ticket));
        here.use_ring(&ring([1, 2, 3]));
        assert!(opens(&here, &ticket), "sealed before the ring came");
        assert!(opens(&port(443, Some(&ring([1, 2, 3]))), &sealed(&here)));
    }

    #[test]
    fn a_ticket_that_was_touched_or_cut_does_not_open() {
        let tickets = port(443, Some(&ring([1, 2, 3])));
        let ticket = sealed(&tickets);
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(tickets.decrypt(&touched), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut to {at}");
        }
        assert_eq!(tickets.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
        let largest = TICKET_BYTES_MAX - NamedKey::<NAME_BYTES>::OVERHEAD - TIME_BYTES;
        let seal = |bytes| tickets.encrypt(&vec![7; bytes]).expect("sealed");
        assert!(tickets.decrypt(&seal(largest)).is_some());
        assert!(tickets.decrypt(&seal(largest + 1)).is_none());
    }

    #[test]
    fn a_ticket_ages_although_nobody_rotates() {
        let (issued, lifetime) = (1_000_000, TICKET_LIFETIME.as_secs());
        assert!(is_fresh(issued, issued) && is_fresh(issued, issued + lifetime));
        assert!(!is_fresh(issued, issued + lifetime + 1));
        let skew = CLOCK_SKEW_MAX.as_secs();
        assert!(is_fresh(issued, issued - skew) && !is_fresh(issued, issued - skew - 1));
    }
}
