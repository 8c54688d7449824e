//! What is said of networks: who may ask, whose word on clients counts.
//!
//! Networks nest and never overlap in part, so that "the longest prefix decides" can be worked out once: what is left is a
//! sorted list of disjoint ranges, and a look-up is one binary search in it, whatever was written. A trie of prefixes
//! (`prefix-trie`, `ip_network_table`) would walk up to 128 nodes for IPv6, each somewhere else in memory, and is made for
//! tables that change; ours are made once.

use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// A value for each network, the longest prefix that covers an address being the one that counts.
///
/// IPv4 and IPv6 are apart: `::/0` says nothing of an IPv4 address. An IPv4-mapped network (`::ffff:10.0.0.0/104`) is the
/// IPv4 network that it maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpTable<V> {
    v4: Ranges<V>,
    v6: Ranges<V>,
}

/// First address of each range, ascending, and what holds from there to the next one.
type Ranges<V> = Box<[(u128, Option<V>)]>;

/// A network: its first and last address, and what is said of it.
type Span<V> = (u128, u128, V);

impl<V: Copy + PartialEq> IpTable<V> {
    /// Of two equal networks the later one counts. Twice as many ranges as networks, and one more, at most.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, V)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, value) in networks {
            match unmapped(network) {
                IpNet::V4(net) => {
                    v4.push((u32::from(net.network()).into(), u32::from(net.broadcast()).into(), value));
                }
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), value)),
            }
        }
        Self { v4: ranges(v4), v6: ranges(v6) }
    }

    /// What is said of an address; `None` where no network covers it. A binary search.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<V> {
        let (ranges, address) = match address.to_canonical() {
            IpAddr::V4(address) => (&self.v4, u32::from(address).into()),
            IpAddr::V6(address) => (&self.v6, u128::from(address)),
        };
        let above = ranges.partition_point(|(first, _)| *first <= address);
        ranges.get(above.checked_sub(1)?)?.1
    }
}

/// The IPv4 network of an IPv4-mapped one.
fn unmapped(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(net) if net.prefix_len() >= 96 => match net.network().to_ipv4_mapped() {
            Some(address) => {
                IpNet::V4(Ipv4Net::new(address, net.prefix_len() - 96).expect("96 to 128, less 96"))
            }
            None => network,
        },
        _ => network,
    }
}

fn ranges<V: Copy + PartialEq>(mut spans: Vec<Span<V>>) -> Ranges<V> {
    // A network comes before those inside of it; the sort is stable, so that the later of two equal ones stays behind.
    spans.sort_by_key(|(first, last, _)| (*first, u128::MAX - last));
    let mut made: Vec<(u128, Option<V>)> = Vec::new();
    let mut begin = |first: u128, value: Option<V>| match made.last_mut() {
        Some(last) if last.0 == first => last.1 = value,
        Some(last) if last.1 == value => {}
        _ => made.push((first, value)),
    };
    // Networks around the one that is looked at, the innermost last.
    let mut around: Vec<(u128, V)> = Vec::new();
    let leave =
        |around: &mut Vec<(u128, V)>, before: Option<u128>, begin: &mut dyn FnMut(u128, Option<V>)| {
            while let Some((last, _)) = around.last().copied() {
                if before.is_some_and(|before| last >= before) {
                    return;
                }
                around.pop();
                if let Some(next) = last.checked_add(1) {
                    begin(next, around.last().map(|(_, value)| *value));
                }
            }
        };
    for (first, last, value) in spans {
        leave(&mut around, Some(first), &mut begin);
        around.push((last, value));
        begin(first, Some(value));
    }
    leave(&mut around, None, &mut begin);
    made.into()
}

/// Which addresses may ask.
///
/// The longest prefix that covers an address decides; of an allowed and a denied network that are equal, the denied one.
/// Without one that covers it, an address may ask where nothing is listed as allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpRules {
    listed: IpTable<Listed>,
    /// Those that are allowed, then those that are denied, as they were written.
    networks: Box<[IpNet]>,
    otherwise: bool,
}

/// What is said of a network. As small as the bare word: a range of it costs as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    may_ask: bool,
    /// Its position among the networks.
    network: u32,
}

/// What rules say of a client, and by which of their networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// Whether it may ask.
    pub may_ask: bool,
    /// The network that decides, as it was written: one that is allowed or denied, as `may_ask` says. `None` where none
    /// covers the client.
    pub network: Option<IpNet>,
}

impl IpRules {
    /// Of the networks that are allowed and denied, 2^32 at most.
    #[must_use]
    pub fn new(allowed: &[IpNet], denied: &[IpNet]) -> Self {
        let networks: Box<[IpNet]> = allowed.iter().chain(denied).copied().collect();
        let listed = networks.iter().zip(0..).map(|(network, at)| {
            let may_ask = (at as usize) < allowed.len();
            (*network, Listed { may_ask, network: at })
        });
        Self { listed: IpTable::new(listed), otherwise: allowed.is_empty(), networks }
    }

    /// Whether this client may ask. A binary search.
    #[must_use]
    pub fn may_ask(&self, address: IpAddr) -> bool {
        self.ruling(address).may_ask
    }

    /// The same, with what decides it.
    #[must_use]
    pub fn ruling(&self, address: IpAddr) -> Ruling {
        let listed = self.listed.find(address);
        Ruling {
            may_ask: listed.map_or(self.otherwise, |listed| listed.may_ask),
            network: listed.map(|listed| self.networks[listed.network as usize]),
        }
    }
}

/// Whose word on clients counts: proxies in front of this one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    /// Their networks; `None`: wherever they are.
    pub networks: Option<IpTable<()>>,
    /// How many there are in front, at most; `None`: as many as the networks have.
    pub hops: Option<usize>,
}

/// Where proxies say of whom they were asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Claims {
    /// `X-Forwarded-For`, with `-Proto` and `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Who the client is on one listener of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientPolicy {
    /// Whose word counts.
    pub trusted: TrustedProxies,
    /// Where it is read.
    pub claims: Claims,
    /// Backends are sent `Forwarded` beside the others.
    pub sends_forwarded: bool,
}

/// A chain of proxies no longer than this is followed.
pub const HOPS_MAX: usize = 32;

/// Where the word of proxies led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The client first, then the trusted proxies in between, then who is connected. At least one, at most
    /// [`HOPS_MAX`] and one.
    pub addresses: Vec<IpAddr>,
}

impl Chain {
    /// The first of them.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.addresses[0]
    }
}

impl TrustedProxies {
    /// Whether this address's word counts at all.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        match &self.networks {
            None => self.hops.is_some(),
            Some(networks) => networks.find(address).is_some(),
        }
    }

    /// Follows what proxies say of whom they were asked by, from the nearest one on: `claims` are the entries of the
    /// header from its end, `None` for what is no address. The first address whose word does not count is the client.
    ///
    /// Nothing is believed that no trusted proxy said. Where the word ends early (no more entries, or one that is no
    /// address), the client is the last that was known; but where only hops are counted and there are fewer entries than
    /// those, somebody came by another way, and the client is who is connected.
    #[must_use]
    pub fn follow(&self, connected: IpAddr, claims: impl Iterator<Item = Option<IpAddr>>) -> Chain {
        let mut addresses = vec![connected.to_canonical()];
        let hops = self.hops.unwrap_or(HOPS_MAX).min(HOPS_MAX);
        let mut claims = claims.take(hops);
        loop {
            let speaker = *addresses.last().expect("it begins with one");
            if addresses.len() > hops || !self.trusts(speaker) {
                break;
            }
            match claims.next() {
                Some(Some(address)) => addresses.push(address.to_canonical()),
                Some(None) | None if self.networks.is_none() => {
                    addresses.truncate(1);
                    break;
                }
                Some(None) | None => break,
            }
        }
        addresses.reverse();
        Chain { addresses }
    }
}

#[cfg(test)]
mod tests;
