//! Consistent hash: the same key, the same backend, whichever proxy is asked.

use super::equal;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use weir_tests::harness::client::Connection;
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{ports, wait};

const KEYS: usize = 300;

/// Which backend each key reaches.
fn owners(bind: Ipv4Addr, port: u16) -> BTreeMap<String, String> {
    let mut connection = Connection::open_at((bind, port).into()).expect("serves");
    let keys = (0..KEYS).map(|number| format!("user-{number}"));
    let owner = |key: String| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {key}\r\n\r\n");
        let answer = connection.request(&request).expect("an answer");
        (key, answer.json()["name"].as_str().expect("a name").to_owned())
    };
    keys.map(owner).collect()
}

#[test]
fn a_key_reaches_one_backend_through_every_proxy_and_few_others_move_when_one_leaves() {
    let samples = Samples::start("member", 10);
    let mut pool = PoolText::new("keyed", ports::free(), &samples.equal());
    pool.load_balancing =
        "{ algorithm: ConsistentHash, consistentHash: { key: Header, name: x-user, maxLoadPercent: 0 } }"
            .to_owned();
    let folder = Folder::new();
    folder.write("pool.yaml", &pool.yaml());
    let controller = ControllerCommand::of_folder(folder.path()).start();
    let url = format!("http://127.0.0.1:{}", controller.push);
    let binds = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let proxies = binds.map(|bind| Service::proxy_at(bind, &url, &[]));
    proxies.iter().for_each(Service::wait_until_ready);
    let before = owners(binds[0], pool.port);
    assert_eq!(before, owners(binds[1], pool.port));
    assert_eq!(before, owners(binds[0], pool.port));
    assert!((1..=10).all(|n| before.values().any(|owner| *owner == format!("member-{n}"))), "{before:?}");

    pool.backends = equal(samples.ports[1..].iter().copied());
    folder.write("pool.yaml", &pool.yaml());
    for proxy in &proxies {
        wait::until("member-1 should leave", || (proxy.backends().len() == 9).then_some(()));
    }
    let after = owners(binds[1], pool.port);
    assert_eq!(after, owners(binds[0], pool.port));
    assert!(after.values().all(|owner| owner != "member-1"));
    let moved = before.iter().filter(|(key, owner)| *owner != "member-1" && after[*key] != **owner).count();
    // Maglev moves few beside those of the backend that left; by a remainder it would be nine of ten.
    assert!(moved <= KEYS / 20, "{moved} keys of other backends moved");
}
