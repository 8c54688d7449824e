//! Which answers of DNS are used.

use std::net::{IpAddr, Ipv6Addr};

/// Where EC2 has its instance metadata over IPv6; that of IPv4 is link-local.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// From where backends are reached, which decides what an answer may be.
///
/// An address that means something else on each machine means the proxy's own when a proxy connects to it: its
/// administration, its sidecars, the credentials that a cloud hands out under a link-local address. Whoever answers for
/// a name could choose it (compare CVE-2021-25737, and ExternalName in CVE-2021-25740).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Proxies of a cluster: neither loopback nor link-local addresses.
    Cluster,
    /// A proxy on the machine of whom it serves: loopback addresses too.
    Machine,
}

impl Reach {
    /// Whether a backend may have this address.
    #[must_use]
    pub fn permits(self, address: IpAddr) -> bool {
        let never = match address {
            // 0.0.0.0/8 is this network: Linux connects to itself.
            IpAddr::V4(v4) => {
                v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local()
            }
            IpAddr::V6(v6) => {
                v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() || v6 == METADATA_V6
            }
        };
        !never && (self == Self::Machine || !address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_never_lead_to_what_only_the_proxy_s_machine_reaches() {
        let permitted = |reach: Reach, address: &str| reach.permits(address.parse().expect("an address"));
        for address in ["10.0.0.1", "192.168.0.1", "8.8.8.8", "100.64.0.1", "fd00::1", "2001:db8::1"] {
            assert!(permitted(Reach::Cluster, address) && permitted(Reach::Machine, address), "{address}");
        }
        for address in ["127.0.0.1", "127.8.9.1", "::1"] {
            assert!(!permitted(Reach::Cluster, address) && permitted(Reach::Machine, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "169.254.169.254",
            "169.254.0.1",
            "::",
            "ff02::1",
            "fe80::1",
            "fd00:ec2::254",
        ] {
            assert!(!permitted(Reach::Cluster, address) && !permitted(Reach::Machine, address), "{address}");
        }
    }
}
