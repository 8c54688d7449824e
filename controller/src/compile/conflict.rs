//! Two pools that claim one port and host: the older wins, then the smaller name.
//!
//! Hosts are those of listeners and those that rules narrow them to. They overlap where they are the same text, or
//! where both listeners take every host. A wildcard and a host
//! below it do not overlap: the exact host goes first, as among the rules of one pool. One port cannot speak two
//! protocols, whatever the hosts.
//!
//! Hosts that do not overlap share a port, and what it says as a whole ([`PortSetting`]): the first pool that says it is heard.
//!
//! Pools that no proxy can serve both ([`DataPlane::may_share_a_proxy`]) have nothing to fight for.
//!
//! Claims are kept by class, port and host, so that a pool finds who is in its way, and for whom it makes way, at the
//! cost of those alone.

use super::pool::{Claim, PortSetting};
use super::{DataPlane, ObjectKey, Reason, Rejection, Warning};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use weir_crds::LoadBalancerPool;
use weir_proto::push::Protocol;

/// A pool's place in the order in which claims are granted: first the oldest, then the smallest name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// A missing time of creation (a folder) is younger than any and equal to its like.
    age: (bool, Option<i128>),
    /// Whose turn it is.
    pub(super) pool: ObjectKey,
}

/// Claims of any number of pools. What is empty is not kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Claims {
    by_class: BTreeMap<String, BTreeMap<Number, Port>>,
}

/// Of a port: whether it is one of UDP, and which.
type Number = (bool, u16);

fn number(claim: &Claim) -> Number {
    (claim.protocol == Protocol::Udp, claim.port)
}

/// Mostly one claimant for each host; more where pools ask for different proxies of one class, or wait for one another.
#[derive(Debug, Clone, Default, PartialEq)]
struct Port {
    by_protocol: BTreeMap<Protocol, Claimants>,
    by_host: BTreeMap<String, Claimants>,
    of_every_host: Claimants,
    by_setting: BTreeMap<PortSetting, Claimants>,
}

/// Who claims something, the first one first.
type Claimants = BTreeMap<Arc<Turn>, Arc<DataPlane>>;

/// A pool and who serves it.
#[derive(Clone, Copy)]
pub(super) struct Claimant<'a> {
    pub(super) turn: &'a Arc<Turn>,
    pub(super) data_plane: &'a DataPlane,
}

impl Turn {
    pub(super) fn new(key: &ObjectKey, pool: &LoadBalancerPool) -> Self {
        let created = pool.metadata.creation_timestamp.as_ref().map(|time| time.0.as_nanosecond());
        Self { age: (created.is_none(), created), pool: key.clone() }
    }
}

impl Claims {
    /// Whether claims can all be granted: none conflicts with one that is here and whose turn is before.
    ///
    /// # Errors
    /// One rejection for each claim that another pool has.
    pub(super) fn check(&self, of: Claimant<'_>, claims: &[Claim]) -> Result<(), Vec<Rejection>> {
        let mut conflicts: Vec<_> = claims.iter().filter_map(|claim| self.conflict(of, claim)).collect();
        // One protocol of one listener is one conflict, whatever its hosts.
        conflicts.dedup();
        if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
    }

    pub(super) fn insert(&mut self, turn: &Arc<Turn>, data_plane: &Arc<DataPlane>, claims: &[Claim]) {
        for claim in claims {
            let ports = self.by_class.entry(data_plane.class.clone()).or_default();
            let port = ports.entry(number(claim)).or_default();
            let put = |claimants: &mut Claimants| {
                claimants.insert(Arc::clone(turn), Arc::clone(data_plane));
            };
            put(port.by_protocol.entry(claim.protocol).or_default());
            match &claim.hostname {
                Some(host) => put(port.by_host.entry(host.clone()).or_default()),
                None => put(&mut port.of_every_host),
            }
            for setting in &claim.settings {
                put(port.by_setting.entry(*setting).or_default());
            }
        }
    }

    pub(super) fn remove(&mut self, of: Claimant<'_>, claims: &[Claim]) {
        let Some(ports) = self.by_class.get_mut(&of.data_plane.class) else { return };
        for claim in claims {
            let Some(port) = ports.get_mut(&number(claim)) else { continue };
            take(&mut port.by_protocol, &claim.protocol, of.turn);
            match &claim.hostname {
                Some(host) => take(&mut port.by_host, host, of.turn),
                None => {
                    port.of_every_host.remove(of.turn);
                }
            }
            for setting in &claim.settings {
                take(&mut port.by_setting, setting, of.turn);
            }
            if port.by_protocol.is_empty() {
                ports.remove(&number(claim));
            }
        }
        if ports.is_empty() {
            self.by_class.remove(&of.data_plane.class);
        }
    }

    /// What the listeners of granted claims say in vain: another pool says it before, for all that share the port.
    pub(super) fn overruled(&self, of: Claimant<'_>, claims: &[Claim]) -> Vec<Warning> {
        let of_claim = |claim: &Claim| -> Vec<Warning> {
            let Some(port) = self.port(of, claim) else { return Vec::new() };
            let overruled = |setting: &PortSetting| {
                let winner = first_before(port.by_setting.get(setting)?, of)?;
                let rule = format!(
                    "does not hold: pools share port {}, and what LoadBalancerPool {winner} says of it, which is older or has the smaller name, holds for all",
                    claim.port
                );
                let field = format!("{}.{}", claim.listener, setting.field());
                let pool = of.turn.pool.clone();
                Some(Warning { pool, field, value: String::new(), rule, reason: Reason::Overruled })
            };
            claim.settings.iter().filter_map(overruled).collect()
        };
        // What a listener says is in each of its claims.
        let overruled: BTreeSet<_> = claims.iter().flat_map(of_claim).collect();
        overruled.into_iter().collect()
    }

    /// Adds the turns after this one for which it makes a difference whether these claims are granted to it.
    pub(super) fn add_rivals(&self, of: Claimant<'_>, claims: &[Claim], rivals: &mut BTreeSet<Arc<Turn>>) {
        let mut add = |claimants: &Claimants| {
            let after = claimants.range::<Turn, _>((Bound::Excluded(&**of.turn), Bound::Unbounded));
            let after = after.filter(|(_, theirs)| theirs.may_share_a_proxy(of.data_plane));
            rivals.extend(after.map(|(turn, _)| Arc::clone(turn)));
        };
        for claim in claims {
            let Some(port) = self.port(of, claim) else { continue };
            port.other_speakers(claim).for_each(&mut add);
            port.of_host(claim).into_iter().for_each(&mut add);
            claim.settings.iter().filter_map(|setting| port.by_setting.get(setting)).for_each(&mut add);
        }
    }

    fn port(&self, of: Claimant<'_>, claim: &Claim) -> Option<&Port> {
        self.by_class.get(&of.data_plane.class)?.get(&number(claim))
    }

    fn conflict(&self, of: Claimant<'_>, claim: &Claim) -> Option<Rejection> {
        let port = self.port(of, claim)?;
        let rival = |claimants: &Claimants| first_before(claimants, of);
        let rejection = |field: String, value: String, rule: String| Rejection {
            pool: of.turn.pool.clone(),
            field,
            value,
            rule,
            reason: Reason::Conflicted,
        };
        if let Some(winner) = port.other_speakers(claim).find_map(rival) {
            let rule = format!(
                "speaks another protocol in LoadBalancerPool {winner}, which is older or has the smaller name: use another port"
            );
            return Some(rejection(format!("{}.port", claim.listener), claim.port.to_string(), rule));
        }
        let winner = port.of_host(claim).and_then(rival)?;
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

impl Port {
    /// Who speaks something else than a claim.
    fn other_speakers(&self, claim: &Claim) -> impl Iterator<Item = &Claimants> {
        let protocol = claim.protocol;
        self.by_protocol.iter().filter(move |(theirs, _)| **theirs != protocol).map(|(_, speakers)| speakers)
    }

    fn of_host(&self, claim: &Claim) -> Option<&Claimants> {
        match &claim.hostname {
            Some(host) => self.by_host.get(host),
            None => Some(&self.of_every_host),
        }
    }
}

/// The first of those whose turn is before, and which a proxy could serve too.
fn first_before(claimants: &Claimants, of: Claimant<'_>) -> Option<ObjectKey> {
    let mut before = claimants.range::<Turn, _>(..&**of.turn);
    let rival = before.find(|(_, theirs)| theirs.may_share_a_proxy(of.data_plane));
    rival.map(|(turn, _)| turn.pool.clone())
}

fn take<K: Ord>(of: &mut BTreeMap<K, Claimants>, key: &K, turn: &Arc<Turn>) {
    let Some(claimants) = of.get_mut(key) else { return };
    claimants.remove(turn);
    if claimants.is_empty() {
        of.remove(key);
    }
}
