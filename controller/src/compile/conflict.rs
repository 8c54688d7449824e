//! Two pools that claim one port and host: the older wins, then the smaller name.
//!
//! Hosts are those of listeners and those that rules narrow them to. They overlap where they are the same text, or
//! where both listeners take every host. A wildcard and a host
//! below it do not overlap: the exact host goes first, as among the rules of one pool. One port cannot speak two
//! protocols, whatever the hosts.

use super::pool::Claim;
use super::{ObjectKey, Reason, Rejection};
use std::collections::BTreeMap;
use weir_proto::push::Protocol;

/// Claims of the pools that won so far.
#[derive(Default)]
pub(super) struct Claims<'a> {
    by_port: BTreeMap<u16, Port<'a>>,
}

struct Port<'a> {
    protocol: Protocol,
    first: &'a ObjectKey,
    hosts: BTreeMap<Option<&'a str>, &'a ObjectKey>,
}

impl<'a> Claims<'a> {
    /// Grants all claims of a pool, or none where one of them conflicts.
    ///
    /// # Errors
    /// One rejection for each claim that another pool has.
    pub(super) fn grant(&mut self, pool: &'a ObjectKey, claims: &'a [Claim]) -> Result<(), Vec<Rejection>> {
        let mut conflicts: Vec<_> = claims.iter().filter_map(|claim| self.conflict(pool, claim)).collect();
        // One protocol of one listener is one conflict, whatever its hosts.
        conflicts.dedup();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        for claim in claims {
            let port = self.by_port.entry(claim.port).or_insert_with(|| Port {
                protocol: claim.protocol,
                first: pool,
                hosts: BTreeMap::new(),
            });
            port.hosts.insert(claim.hostname.as_deref(), pool);
        }
        Ok(())
    }

    fn conflict(&self, pool: &ObjectKey, claim: &Claim) -> Option<Rejection> {
        let port = self.by_port.get(&claim.port)?;
        let rejection = |field: String, value: String, rule: String| Rejection {
            pool: pool.clone(),
            field,
            value,
            rule,
            reason: Reason::Conflicted,
        };
        if port.protocol != claim.protocol {
            let rule = format!(
                "speaks another protocol in LoadBalancerPool {}, which is older or has the smaller name: use another port",
                port.first
            );
            return Some(rejection(format!("{}.port", claim.listener), claim.port.to_string(), rule));
        }
        let winner = port.hosts.get(&claim.hostname.as_deref())?;
        let claimed = format!(
            "is claimed on port {} by LoadBalancerPool {winner}, which is older or has the smaller name: use another port or hostname",
            claim.port
        );
        let host = match &claim.hostname {
            Some(hostname) => format!("{hostname:?}"),
            None => "every host".to_owned(),
        };
        Some(rejection(format!("{}.hostnames", claim.field), host, claimed))
    }
}
