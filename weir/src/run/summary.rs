//! What `weir run` prints once it serves: what listens where.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use weir_controller::store::{Fleet, Pool, Reach, Store};
use weir_proto::push::Protocol;

/// Where the process listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) bind: IpAddr,
    pub(super) admin: SocketAddr,
}

/// Waits until the proxy has applied or refused every pool, then prints.
///
/// Read from the proxy's acknowledgements, so that a line means that the port answers.
pub(super) async fn print_once_served(store: Arc<Store>, addresses: Addresses) {
    let changes = store.observe_fleet(Reach::Own);
    store.loaded().await;
    loop {
        if let Some(text) = summary(&store, addresses) {
            // With standard output closed there is nobody left to tell.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            return;
        }
        changes.changed().await;
    }
}

/// `None` while the proxy has not spoken of every pool.
fn summary(store: &Store, addresses: Addresses) -> Option<String> {
    let (pools, fleet) = (store.pools(), store.fleet());
    if fleet.proxies.is_empty() {
        return None;
    }
    let mut text = String::new();
    for pool in pools.values() {
        for line in lines(pool, &fleet, addresses.bind)? {
            let _ = writeln!(text, "  {line}");
        }
    }
    let _ = writeln!(text, "  http://{:<21} administration, /metrics", addresses.admin.to_string());
    Some(format!("Weir serves:\n{text}"))
}

fn lines(pool: &Pool, fleet: &Fleet, bind: IpAddr) -> Option<Vec<String>> {
    let applied = fleet.pools.get(&pool.name)?.values().next()?;
    if let Some(refusal) = &applied.refusal {
        return Some(vec![format!("{} is not served: {}: {}", pool.name, refusal.field, refusal.reason)]);
    }
    applied.version.as_ref()?;
    let listeners = pool.contents.config.listeners.iter().map(|listener| {
        let scheme = match listener.protocol() {
            Protocol::Https => "https",
            Protocol::Tcp => "tcp",
            Protocol::Tls | Protocol::TlsPassthrough => "tls",
            Protocol::Udp => "udp",
            Protocol::Http | Protocol::Unspecified => "http",
        };
        let port = u16::try_from(listener.port).unwrap_or_default();
        let address = SocketAddr::new(bind, port).to_string();
        let url = format!("{scheme}://{address}");
        format!("{url:<28} {} of LoadBalancerPool {}", listener.name, pool.name)
    });
    Some(listeners.collect())
}
