//! Weir's own processes, started the way a person starts them and waited for until they serve.

use crate::harness::controller::ControllerCommand;
use crate::harness::process::Process;
use crate::harness::{binaries, client, ports, wait};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

/// Says whether the process runs.
pub const LIVE: &str = "/livez";
/// Says whether it has its first complete snapshot.
pub const READY: &str = "/readyz";

/// Sample backends in a process of their own.
#[derive(Debug)]
pub struct Samples {
    /// The process.
    pub process: Process,
    /// Their ports, in order; the names are NAME-1, NAME-2 and so on (NAME for one alone).
    pub ports: Vec<u16>,
}

impl Samples {
    /// Starts `count` backends and waits until each answers.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn start(name: &str, count: usize) -> Self {
        Self::start_on(name, (0..count).map(|_| ports::free()).collect())
    }

    /// As [`Self::start`], on these ports: those of backends that have ended, above all.
    ///
    /// # Panics
    /// When they do not come up.
    #[must_use]
    pub fn start_on(name: &str, ports: Vec<u16>) -> Self {
        let mut command = Command::new(binaries::path("weir"));
        command.args(["demo-backend", "--name", name]);
        for port in &ports {
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
        }
        let process = Process::start(&mut command);
        for &port in &ports {
            wait_for_status(port, "/health", 200);
        }
        Self { process, ports }
    }

    /// All of them with weight 1, for a [`super::manifest::PoolText`].
    #[must_use]
    pub fn equal(&self) -> Vec<(u16, u32)> {
        self.ports.iter().map(|&port| (port, 1)).collect()
    }
}

/// A process with an administration port.
#[derive(Debug)]
pub struct Service {
    /// The process.
    pub process: Process,
    /// Port of 127.0.0.1 for administration.
    pub admin: u16,
}

impl Service {
    /// `weir run FOLDER` with one worker, ready. It keeps no keys unless a flag says where: tests leave nothing with who
    /// runs them.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn standalone(folder: &Path, flags: &[&str]) -> Self {
        Self::standalone_of(1, folder, flags)
    }

    /// The same with so many workers.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn standalone_of(workers: usize, folder: &Path, flags: &[&str]) -> Self {
        let admin = ports::free();
        let mut command = Command::new(binaries::path("weir"));
        command.env_remove("HOME").env_remove("XDG_STATE_HOME");
        command.arg("run").arg(folder).args(["--workers", &workers.to_string()]);
        command.args(["--admin", &client::local(admin).to_string()]);
        let process = Process::start(command.args(flags));
        let service = Self { process, admin };
        service.wait_until_ready();
        service
    }

    /// `weir-proxy` with one worker that dials a controller's port. Not waited for.
    #[must_use]
    pub fn proxy(controller: u16) -> Self {
        Self::proxy_of(&format!("http://127.0.0.1:{controller}"), &[])
    }

    /// The same for any URL, with more flags.
    #[must_use]
    pub fn proxy_of(url: &str, flags: &[String]) -> Self {
        Self::proxy_at(Ipv4Addr::LOCALHOST, url, flags)
    }

    /// The same with its listeners on another address than 127.0.0.1.
    #[must_use]
    pub fn proxy_at(bind: Ipv4Addr, url: &str, flags: &[String]) -> Self {
        let admin = ports::free();
        let mut command = Command::new(binaries::path("weir-proxy"));
        command.args(["--workers", "1", "--bind", &bind.to_string()]);
        command.args(["--admin", &client::local(admin).to_string()]);
        command.args(["--controller", url]).args(flags);
        Self { process: Process::start(&mut command), admin }
    }

    /// What a proxy says of the backends of its only set, by port.
    ///
    /// # Panics
    /// When it does not answer, or has another number of sets.
    #[must_use]
    pub fn backends(&self) -> BTreeMap<u16, BackendView> {
        let answer = client::fetch(self.admin, "/api/v1/backends").expect("administration answers");
        let view = answer.json();
        let pools = view["pools"].as_array().expect("a list");
        assert!(
            pools.len() == 1 && pools[0]["sets"].as_array().is_some_and(|sets| sets.len() == 1),
            "{view}"
        );
        let backends = pools[0]["sets"][0]["backends"].as_array().expect("a list").iter();
        backends.map(BackendView::read).collect()
    }

    /// The value of a metric without labels.
    ///
    /// # Panics
    /// When it is not exposed, or no number.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let text = client::fetch(self.admin, "/metrics").expect("administration answers").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no metric {name}:\n{text}"));
        // A gauge has a fraction, also where it counts.
        let whole = value.strip_suffix(".0").unwrap_or(value);
        whole.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }

    /// The value of a metric with this label, as in `limit="source"`.
    ///
    /// # Panics
    /// When it is not exposed, or no number.
    #[must_use]
    pub fn metric_of(&self, name: &str, label: &str) -> u64 {
        self.metric(&format!("{name}{{{label}}}"))
    }

    /// Waits until it has its configuration.
    ///
    /// # Panics
    /// At the deadline.
    pub fn wait_until_ready(&self) {
        wait_for_status(self.admin, READY, 200);
    }
}

/// What a proxy's administration says of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendView {
    /// Requests that it was given by this proxy.
    pub requests: u64,
    /// Whether it takes requests; `None` before its health is kept.
    pub is_available: Option<bool>,
    /// Why it takes none, by checks or by its ejection.
    pub why_not: Option<String>,
    /// What checks say: Unknown, Up or Down. Empty without checks.
    pub state: String,
    /// Of the failed check that took it down.
    pub reason: Option<String>,
    /// This proxy checks it.
    pub is_checked_here: bool,
}

impl BackendView {
    fn read(backend: &serde_json::Value) -> (u16, Self) {
        let (health, check) = (&backend["health"], &backend["health"]["check"]);
        let address = backend["address"].as_str().and_then(|address| address.parse::<SocketAddr>().ok());
        let view = Self {
            requests: backend["requests"].as_u64().expect("a count"),
            is_available: health["available"].as_bool(),
            why_not: health["reason"].as_str().map(str::to_owned),
            state: check["state"].as_str().unwrap_or_default().to_owned(),
            reason: check["reason"].as_str().map(str::to_owned),
            is_checked_here: check["here"] == true,
        };
        (address.expect("an address with a port").port(), view)
    }
}

/// `weir-controller --folder` on a port of 127.0.0.1. Not waited for.
#[must_use]
pub fn controller(folder: &Path, port: u16) -> Process {
    ControllerCommand::of_folder(folder).listening(port).start().service.process
}

/// Waits until a port of 127.0.0.1 answers with this status.
///
/// # Panics
/// At the deadline.
pub fn wait_for_status(port: u16, path: &str, status: u16) {
    wait::until(&format!("127.0.0.1:{port}{path} should answer {status}"), || {
        client::fetch(port, path).is_ok_and(|answer| answer.status == status).then_some(())
    });
}

/// Waits until the named sample backend answers a request to `path`.
///
/// # Panics
/// At the deadline.
pub fn wait_for_backend(port: u16, path: &str, name: &str) {
    wait::until(&format!("127.0.0.1:{port}{path} should be answered by {name}"), || {
        let answer = client::fetch(port, path).ok().filter(|answer| answer.status == 200)?;
        (answer.json()["name"] == name).then_some(())
    });
}

/// Whether nobody listens on a port of 127.0.0.1.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(client::local(port)).is_ok()
}
