//! Two pools that claim one port and host: the older wins, then the smaller name.
//!
//! Hosts are those of listeners and those that rules narrow them to. They overlap where they are the same text, or
//! where both listeners take every host. A wildcard and a host
//! below it do not overlap: the exact host goes first, as among the rules of one pool. One port cannot speak two
//! protocols, whatever the hosts.
//!
//! Pools that no proxy can serve both ([`DataPlane::may_share_a_proxy`]) have nothing to fight for.

use super::pool::Claim;
use super::{DataPlane, ObjectKey, Reason, Rejection};
use std::collections::BTreeMap;
use weir_proto::push::Protocol;

/// Claims of the pools that won so far.
#[derive(Default)]
pub(super) struct Claims<'a> {
    /// By class and port.
    ports: BTreeMap<(&'a str, u16), Port<'a>>,
}

/// Mostly one claimant for each host; more where pools ask for different proxies of one class.
#[derive(Default)]
struct Port<'a> {
    by_protocol: BTreeMap<Protocol, Vec<Claimant<'a>>>,
    by_host: BTreeMap<Option<&'a str>, Vec<Claimant<'a>>>,
}

/// A pool and who serves it.
#[derive(Clone, Copy)]
pub(super) struct Claimant<'a> {
    pub(super) pool: &'a ObjectKey,
    pub(super) data_plane: &'a DataPlane,
}

impl<'a> Claims<'a> {
    /// Grants all claims of a pool, or none where one of them conflicts.
    ///
    /// # Errors
    /// One rejection for each claim that another pool has.
    pub(super) fn grant(&mut self, of: Claimant<'a>, claims: &'a [Claim]) -> Result<(), Vec<Rejection>> {
        let mut conflicts: Vec<_> = claims.iter().filter_map(|claim| self.conflict(of, claim)).collect();
        // One protocol of one listener is one conflict, whatever its hosts.
        conflicts.dedup();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        for claim in claims {
            let port = self.ports.entry((of.data_plane.class.as_str(), claim.port)).or_default();
            let speakers = port.by_protocol.entry(claim.protocol).or_default();
            if speakers.last().is_none_or(|last| last.pool != of.pool) {
                speakers.push(of);
            }
            port.by_host.entry(claim.hostname.as_deref()).or_default().push(of);
        }
        Ok(())
    }

    fn conflict(&self, of: Claimant<'_>, claim: &Claim) -> Option<Rejection> {
        let port = self.ports.get(&(of.data_plane.class.as_str(), claim.port))?;
        let rival = |there: &&Claimant<'_>| there.data_plane.may_share_a_proxy(of.data_plane);
        let rejection = |field: String, value: String, rule: String| Rejection {
            pool: of.pool.clone(),
            field,
            value,
            rule,
            reason: Reason::Conflicted,
        };
        let others = port.by_protocol.iter().filter(|(protocol, _)| **protocol != claim.protocol);
        if let Some(winner) = others.flat_map(|(_, speakers)| speakers).find(rival) {
            let rule = format!(
                "speaks another protocol in LoadBalancerPool {}, which is older or has the smaller name: use another port",
                winner.pool
            );
            return Some(rejection(format!("{}.port", claim.listener), claim.port.to_string(), rule));
        }
        let winner = port.by_host.get(&claim.hostname.as_deref())?.iter().find(rival)?;
        let claimed = format!(
            "is claimed on port {} by LoadBalancerPool {}, which is older or has the smaller name: use another port or hostname",
            claim.port, winner.pool
        );
        let host = match &claim.hostname {
            Some(hostname) => format!("{hostname:?}"),
            None => "every host".to_owned(),
        };
        Some(rejection(format!("{}.hostnames", claim.field), host, claimed))
    }
}
