//! What backends carried out, by the id that each request has: it tells when one was carried out twice.

use crate::harness::process::Process;
use crate::harness::scripted::{Asked, Exchange};
use crate::harness::{binaries, wait};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// Header of a request's id.
pub const ID_HEADER: &str = "x-id";

/// A file with a line for each request that was carried out: a process that is killed takes none of them with it.
/// Clones write to the same one, and so may other processes.
#[derive(Debug, Clone)]
pub struct Ledger {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Ledger {
    /// Opens it, or begins it.
    ///
    /// # Panics
    /// When the folder cannot be written to.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path).expect("a writable folder");
        Self { path: path.to_owned(), file: Arc::new(Mutex::new(file)) }
    }

    /// Enters a request, which is carried out by that.
    ///
    /// # Panics
    /// When the request has no id, or the disk is full.
    pub fn enter(&self, asked: &Asked) {
        let id = asked.header(ID_HEADER).expect("an id");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{id}\n").as_bytes()).expect("room on the disk");
    }

    /// How often each request was carried out.
    ///
    /// # Panics
    /// When the file is gone.
    #[must_use]
    pub fn executed(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(&self.path).expect("the ledger is there");
        let mut executed = BTreeMap::new();
        for id in text.lines() {
            *executed.entry(id.to_owned()).or_default() += 1;
        }
        executed
    }

    /// A well-behaved backend in a process of its own, once it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_backend(&self, address: SocketAddr) -> Process {
        let mut command = Command::new(binaries::path("ledger-backend"));
        let process = Process::start(command.arg(address.to_string()).arg(&self.path));
        wait::until("the backend should listen", || TcpStream::connect(address).ok());
        process
    }

    /// A well-behaved backend: enters each request and answers it.
    pub fn serve(&self, exchange: &mut Exchange) {
        while let Some(asked) = exchange.read_request() {
            self.enter(&asked);
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
    }
}
