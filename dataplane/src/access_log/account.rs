//! What is gathered of a request on its way, and what a worker does with it at the end.

use super::record::{Kind, Reason, Record, Upstream, Via};
use super::said::Said;
use super::writer::{Batch, Desk};
use super::{Format, Which, line};
use crate::connection::Peer;
use crate::grpc;
use crate::message::ResponseHead;
use crate::sessions::SessionResult;
use crate::tunnel::Ended;
use http::HeaderMap;
use lb_core::balance::Rng;
use lb_core::route::Route;
use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A worker's part of the access log, where there is one.
#[derive(Debug, Default)]
pub(crate) struct AccessLog(Option<Rc<Recorder>>);

impl AccessLog {
    pub(crate) fn new(desk: Option<Desk>) -> Self {
        Self(desk.map(|desk| Rc::new(Recorder::new(desk))))
    }

    /// Whether anything is logged.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the account of a request whose head is there; `None` where it is not logged. What was `said` is asked for
    /// only where it is.
    pub(crate) fn open(&self, peer: &Peer, said: impl FnOnce() -> Said) -> Option<Box<Account>> {
        self.open_of(Kind::Request, peer, said)
    }

    /// The same for a connection of layer 4.
    pub(crate) fn open_connection(&self, peer: &Peer, said: impl FnOnce() -> Said) -> Option<Box<Account>> {
        self.open_of(Kind::Connection, peer, said)
    }

    fn open_of(&self, kind: Kind, peer: &Peer, said: impl FnOnce() -> Said) -> Option<Box<Account>> {
        let recorder = self.0.as_ref()?;
        let is_logged = recorder.takes(kind);
        is_logged.then(|| Box::new(Account::new(Rc::clone(recorder), kind, peer, said())))
    }

    /// Hands over what there is, where the writer has room for it.
    pub(crate) fn flush(&self) {
        if let Some(recorder) = &self.0 {
            recorder.hand_over(&mut recorder.pending.borrow_mut());
        }
    }
}

/// Gathers lines.
#[derive(Debug)]
struct Recorder {
    desk: Desk,
    pending: RefCell<Batch>,
    /// Seeded by the system, so that no client can tell which requests are logged.
    random: RefCell<Rng>,
}

impl Recorder {
    fn new(desk: Desk) -> Self {
        let random = Rng::new(RandomState::new().hash_one(()));
        Self { desk, pending: RefCell::default(), random: RefCell::new(random) }
    }

    fn takes(&self, kind: Kind) -> bool {
        let has_place = kind != Kind::Connection || self.desk.format == Format::Json;
        has_place && self.desk.share.takes(self.random.borrow_mut().below(1_000_000))
    }

    fn write(&self, record: &Record) {
        if self.desk.which == Which::Failures && !record.is_failure() {
            return;
        }
        let mut pending = self.pending.borrow_mut();
        if pending.is_full() && !self.hand_over(&mut pending) {
            self.desk.counts.dropped_more(1);
            return;
        }
        line::write(self.desk.format, record, &mut pending.bytes);
        pending.records += 1;
    }

    /// `false` where the writer has no room: then the batch stays.
    fn hand_over(&self, pending: &mut Batch) -> bool {
        pending.records == 0 || self.desk.take(pending)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let pending = self.pending.get_mut();
        if pending.records > 0 && !self.desk.take(pending) {
            self.desk.counts.dropped_more(pending.records.into());
        }
    }
}

/// What is known of a request, of a WebSocket or of a connection so far. Written when it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    recorder: Rc<Recorder>,
    began: Instant,
    record: RefCell<Record>,
}

impl Account {
    fn new(recorder: Rc<Recorder>, kind: Kind, peer: &Peer, said: Said) -> Self {
        let record = Record {
            kind,
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            took: Duration::ZERO,
            port: peer.port,
            peer: peer.ends().from,
            client: peer.address,
            scheme: peer.scheme,
            tls: peer.secured.as_ref().map(|secured| secured.version),
            said,
            pool: None,
            rule: None,
            status: None,
            grpc_status: None,
            // Until somebody tells of its end.
            reason: Some(Reason::CUT),
            request_bytes: 0,
            response_bytes: 0,
            attempts: 0,
            upstream: None,
            session: None,
        };
        Self { recorder, began: Instant::now(), record: RefCell::new(record) }
    }

    /// Where the request is routed to.
    pub(crate) fn routed(&self, route: &Route) {
        let mut record = self.record.borrow_mut();
        record.pool = Some(Arc::clone(&route.pool));
        record.rule = Some((Arc::clone(&route.written.name), route.rule));
    }

    /// Who the client is, as far as trusted proxies told.
    pub(crate) fn asked_by(&self, client: &Peer) {
        let mut record = self.record.borrow_mut();
        (record.client, record.scheme) = (client.address, client.scheme);
    }

    /// Some of the request came.
    pub(crate) fn came(&self, bytes: usize) {
        self.record.borrow_mut().request_bytes += bytes as u64;
    }

    /// An attempt on this backend, which was reached in this way.
    pub(crate) fn tries(&self, backend: SocketAddr, set: &Arc<str>, via: Via) {
        let mut record = self.record.borrow_mut();
        record.attempts += 1;
        record.upstream = Some(Upstream { backend, set: Arc::clone(set), via, first_byte: None });
    }

    /// This backend has answered, so long after its attempt began. With a hedge it need not be the one that was tried last.
    pub(crate) fn answered_by(&self, backend: SocketAddr, set: &Arc<str>, via: Via, after: Duration) {
        let set = Arc::clone(set);
        self.record.borrow_mut().upstream = Some(Upstream { backend, set, via, first_byte: Some(after) });
    }

    /// What became of its session.
    pub(crate) fn session(&self, result: Option<SessionResult>) {
        self.record.borrow_mut().session = result;
    }

    /// The head that the client gets.
    pub(crate) fn answered(&self, head: &ResponseHead) {
        let mut record = self.record.borrow_mut();
        record.status = Some(head.status);
        record.grpc_status = grpc::status_of(&head.headers);
    }

    /// Some of the response went.
    pub(crate) fn went(&self, bytes: usize) {
        self.record.borrow_mut().response_bytes += bytes as u64;
    }

    /// The trailers that the client gets.
    pub(crate) fn trailed(&self, trailers: &HeaderMap) {
        let mut record = self.record.borrow_mut();
        record.grpc_status = grpc::status_of(trailers).or(record.grpc_status);
    }

    /// It came to its end.
    pub(crate) fn end(self: Box<Self>, reason: Option<Reason>) {
        self.record.borrow_mut().reason = reason;
    }

    /// It goes on as a WebSocket.
    pub(crate) fn upgraded(&self) {
        self.record.borrow_mut().kind = Kind::WebSocket;
    }

    /// What it carried both ways came to its end, after so many bytes to the backend and to the client.
    pub(crate) fn carried(self: Box<Self>, ended: Ended, [up, down]: [u64; 2]) {
        let mut record = self.record.borrow_mut();
        record.request_bytes += up;
        record.response_bytes += down;
        drop(record);
        self.end(Reason::of_end(ended));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let record = self.record.get_mut();
        record.took = self.began.elapsed();
        self.recorder.write(record);
    }
}

#[cfg(test)]
mod tests;
