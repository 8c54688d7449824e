//! What changes, ends or goes away while connections are open and requests flow, and costs none of them.

mod away;
mod edits;
mod endings;
mod open;
mod outages;

use std::net::SocketAddr;
use std::time::Duration;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::{client, wait};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);

fn load(server: SocketAddr) -> Load {
    let load = Load::start_paced(server, Clients { kept: 3, fresh: 3 }, PAUSE);
    flow(&load);
    load
}

/// Waits for requests that began and ended from here on, none of which may fail.
fn flow(load: &Load) {
    let before = load.seen().good;
    wait::until("the load should flow", || {
        let seen = load.seen();
        seen.assert_no_failure();
        (seen.good > before + 50).then_some(())
    });
}

/// Waits until requests below a path are answered with this status.
fn wait_for_path(server: SocketAddr, path: &str, status: u16) {
    wait::until(&format!("{server}{path} should answer {status}"), || {
        client::fetch_at(server, path).is_ok_and(|answer| answer.status == status).then_some(())
    });
}
