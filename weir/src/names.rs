//! Flags of who looks names up.

use std::net::{IpAddr, SocketAddr};
use weir_controller::dns::{self, Client, Lookups, Meters, Reach, Servers};
use weir_controller::store::random_epoch;

/// The port of DNS.
const PORT: u16 = 53;

/// Who is asked for names.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DnsArgs {
    /// DNS server in place of those in /etc/resolv.conf, whose search domains stay; can be given several times
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = server)]
    dns_server: Vec<SocketAddr>,
}

impl DnsArgs {
    /// The two ends of looking names up; nothing is asked before the second one runs.
    #[must_use]
    pub fn client(&self, reach: Reach, meters: Meters) -> (Client, Lookups) {
        dns::client(Servers(self.dns_server.clone()), reach, random_epoch(), meters)
    }
}

fn server(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let alone = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)).ok();
    let parsed = with_port.or_else(alone).filter(|server| server.port() > 0);
    parsed.ok_or_else(|| {
        "write an IP address, with or without a port: 10.96.0.10, 10.96.0.10:53 or [::1]:53".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        for (text, address) in [
            ("10.96.0.10", "10.96.0.10:53"),
            ("10.96.0.10:5353", "10.96.0.10:5353"),
            ("::1", "[::1]:53"),
            ("[::1]:5353", "[::1]:5353"),
        ] {
            assert_eq!(server(text).map(|server| server.to_string()), Ok(address.to_owned()), "{text}");
        }
        for bad in ["", "dns.example.com", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:", "[::1]"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
