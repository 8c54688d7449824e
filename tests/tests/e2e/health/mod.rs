//! Which backends take requests: health checks, ejection, priorities and keys, with real processes.

mod ejection;
mod keys;
mod membership;
mod sharing;
mod stopped;

use weir_tests::harness::client::Connection;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{BackendView, Samples, Service};
use weir_tests::harness::{client, wait};

/// Active checks as quick as a busy test machine allows, for what is not about their times.
const QUICK_CHECKS: &str = "{ active: { http: { path: /health }, interval: 100ms } }";

/// `weir run` over a folder with one pool.
struct Site {
    folder: Folder,
    weir: Service,
    port: u16,
}

impl Site {
    fn start(pool: &PoolText) -> Self {
        let folder = Folder::new();
        folder.write("pool.yaml", &pool.yaml());
        let weir = Service::standalone(folder.path(), &[]);
        Self { folder, weir, port: pool.port }
    }

    fn edit(&self, pool: &PoolText) {
        self.folder.write("pool.yaml", &pool.yaml());
    }

    fn backend(&self, port: u16) -> BackendView {
        self.weir.backends().remove(&port).expect("the set has it")
    }

    /// Waits until this backend takes requests, or takes none.
    fn wait_for(&self, port: u16, is_available: bool) {
        wait::until(&format!("{port} should be available: {is_available}"), || {
            let backends = self.weir.backends();
            (backends.get(&port)?.is_available == Some(is_available)).then_some(())
        });
    }

    /// Sends requests one after the other and returns their statuses.
    fn statuses(&self, count: usize) -> Vec<u16> {
        let mut connection = Connection::open(self.port).expect("serves");
        (0..count).map(|_| connection.get("/").expect("an answer").status).collect()
    }

    /// Waits until requests are refused since no backend is there.
    fn wait_for_no_backend(&self) {
        wait::until("requests should be answered 503", || {
            let answer = client::fetch(self.port, "/").ok()?;
            (answer.status == 503 && answer.json()["reason"] == "no_backend").then_some(())
        });
    }
}

/// Sample backends, each a process of its own.
fn members(count: usize) -> Vec<Samples> {
    (1..=count).map(|number| Samples::start(&format!("member-{number}"), 1)).collect()
}

/// All of them with weight 1.
fn equal(ports: impl IntoIterator<Item = u16>) -> Vec<(u16, u32)> {
    ports.into_iter().map(|port| (port, 1)).collect()
}
