//! What is told of health over the stream to the controller, and heard: between the task that keeps health and the one
//! that follows the stream.
//!
//! What is to be said is conflated: the newest word on each target and each backend, so that a stream that is slow or
//! away costs what there is to know. A new stream begins with everything.

use lb_core::health::{Moment, News, ProxyId, Reason, Remote, Say, State, TargetId};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use weir_proto::limits::HEALTH_REPORTS_MAX;
use weir_proto::push::proxy_message::Body as ToController;
use weir_proto::push::{BackendHealth, FailureKind, HealthNews, HealthSaid, TargetHealth, TargetState};

/// News that wait for the task that keeps health; the stream waits with one past it.
const HEARD_MAX: usize = 64;

/// Longest wait of a stream for the word on each backend.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What arrives over the stream.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A new stream, whose controller passes on what is said; nothing was said on it yet. To be answered once the word
    /// on each backend waits.
    Stream(oneshot::Sender<()>),
    /// What others found.
    News(HealthNews),
}

/// The stream's side and what waits for it.
#[derive(Debug)]
pub(crate) struct Exchange {
    id: ProxyId,
    waiting: Mutex<Waiting>,
    notify: Notify,
    heard: mpsc::Sender<Heard>,
}

#[derive(Debug, Default)]
struct Waiting {
    reports: BTreeMap<u64, TargetHealth>,
    is_alive: bool,
    /// By set and backend.
    backends: BTreeMap<(String, String), BackendHealth>,
}

impl Exchange {
    /// With where the other side hears what comes.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Heard>) {
        let (heard, receiver) = mpsc::channel(HEARD_MAX);
        let id = ProxyId(weir_dial::Random::default().number().max(1));
        (Self { id, waiting: Mutex::default(), notify: Notify::new(), heard }, receiver)
    }

    /// Of this process, never 0.
    pub(crate) fn id(&self) -> ProxyId {
        self.id
    }

    /// A stream has begun. All that waits is forgotten and said again; when this returns, the word on each backend waits,
    /// so that it goes out before the first acknowledgement: who counts a proxy as current knows what it thinks of its
    /// backends.
    pub(crate) async fn begin(&self) {
        *self.waiting() = Waiting::default();
        let (said, waits) = oneshot::channel();
        // With nobody there to hear, the process ends.
        if self.heard.send(Heard::Stream(said)).await.is_ok() {
            let _ = timeout(BEGIN_TIMEOUT, waits).await;
        }
    }

    /// What the stream brought.
    pub(crate) async fn hear(&self, news: HealthNews) {
        let _ = self.heard.send(Heard::News(news)).await;
    }

    /// Returns when there may be something to say. Cancellation safe.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// The next message for the controller.
    pub(crate) fn next(&self) -> Option<ToController> {
        let mut waiting = self.waiting();
        if let Some((_, backend)) = waiting.backends.pop_first() {
            return Some(ToController::BackendHealth(backend));
        }
        let mut reports = Vec::new();
        while reports.len() < HEALTH_REPORTS_MAX
            && let Some((_, report)) = waiting.reports.pop_first()
        {
            reports.push(report);
        }
        // It stands for all reports, so it goes with the last.
        let alive = waiting.reports.is_empty() && std::mem::take(&mut waiting.is_alive);
        (alive || !reports.is_empty()).then_some(ToController::HealthSaid(HealthSaid { reports, alive }))
    }

    /// A word for the other proxies.
    pub(super) fn say(&self, say: Say) {
        let mut waiting = self.waiting();
        match say {
            Say::Alive => waiting.is_alive = true,
            Say::Report(remote) => drop(waiting.reports.insert(remote.target.0, told(&remote))),
        }
        self.notify.notify_one();
    }

    /// A word for status: a backend of `namespace/pool/set` takes requests, or does not and why.
    pub(super) fn say_backend(&self, set: &str, backend: &str, down: Option<String>) {
        let Some((pool, name)) = set.rsplit_once('/') else { return };
        let said = BackendHealth {
            pool: pool.to_owned(),
            set: name.to_owned(),
            backend: backend.to_owned(),
            available: down.is_none(),
            reason: down.unwrap_or_default(),
        };
        self.waiting().backends.insert((set.to_owned(), backend.to_owned()), said);
        self.notify.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics between two writes that belong together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came, in the order in which it counts. What this proxy does not know is left out: a later one of the others will.
pub(super) fn news(wire: &HealthNews, now: Moment) -> Vec<News> {
    let at = |age_ms: u64| now.earlier_by(Duration::from_millis(age_ms));
    let proxies =
        wire.proxies.iter().map(|proxies| News::Proxies(proxies.ids.iter().copied().map(ProxyId).collect()));
    let gone = wire.gone.iter().map(|proxy| News::Gone(ProxyId(*proxy)));
    let reports = wire.reports.iter().map(|report| {
        let state = match report.state() {
            TargetState::Up => State::Up,
            TargetState::Down => State::Down,
            TargetState::Unspecified => State::Unknown,
        };
        News::Report(Remote {
            proxy: ProxyId(report.proxy),
            target: TargetId(report.target),
            state,
            reason: reason(report).filter(|_| state == State::Down),
            at: at(report.age_ms),
        })
    });
    let alive =
        wire.alive.iter().map(|alive| News::Alive { proxy: ProxyId(alive.proxy), at: at(alive.age_ms) });
    proxies.chain(gone).chain(reports).chain(alive).collect()
}

fn told(remote: &Remote) -> TargetHealth {
    let state = match remote.state {
        State::Up => TargetState::Up,
        State::Down => TargetState::Down,
        State::Unknown => TargetState::Unspecified,
    };
    let (failure, status) = remote.reason.map_or((FailureKind::Unspecified, 0), failure);
    TargetHealth {
        proxy: remote.proxy.0,
        target: remote.target.0,
        state: state.into(),
        failure: failure.into(),
        status: status.into(),
        age_ms: 0,
    }
}

fn failure(reason: Reason) -> (FailureKind, u16) {
    let kind = match reason {
        Reason::TimedOut => FailureKind::TimedOut,
        Reason::Refused => FailureKind::Refused,
        Reason::Unreachable => FailureKind::Unreachable,
        Reason::Closed => FailureKind::Closed,
        Reason::Tls => FailureKind::Tls,
        Reason::Protocol => FailureKind::Protocol,
        Reason::Status(status) => return (FailureKind::Status, status),
        Reason::Body => FailureKind::Body,
        Reason::NotServing => FailureKind::NotServing,
    };
    (kind, 0)
}

fn reason(report: &TargetHealth) -> Option<Reason> {
    Some(match report.failure() {
        FailureKind::Unspecified => return None,
        FailureKind::TimedOut => Reason::TimedOut,
        FailureKind::Refused => Reason::Refused,
        FailureKind::Unreachable => Reason::Unreachable,
        FailureKind::Closed => Reason::Closed,
        FailureKind::Tls => Reason::Tls,
        FailureKind::Protocol => Reason::Protocol,
        FailureKind::Status => Reason::Status(u16::try_from(report.status).ok()?),
        FailureKind::Body => Reason::Body,
        FailureKind::NotServing => Reason::NotServing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(target: u64, state: State, reason: Option<Reason>) -> Remote {
        Remote { proxy: ProxyId(7), target: TargetId(target), state, reason, at: Moment::START }
    }

    #[test]
    fn a_report_is_heard_as_it_was_said_with_its_age() {
        let now = Moment::after_start(Duration::from_secs(9));
        for why in [
            Reason::TimedOut,
            Reason::Refused,
            Reason::Unreachable,
            Reason::Closed,
            Reason::Tls,
            Reason::Protocol,
            Reason::Status(503),
            Reason::Body,
            Reason::NotServing,
        ] {
            let said = TargetHealth { age_ms: 2_000, ..told(&remote(5, State::Down, Some(why))) };
            let wire = HealthNews { reports: vec![said], ..HealthNews::default() };
            let at = Moment::after_start(Duration::from_secs(7));
            let heard = Remote { at, ..remote(5, State::Down, Some(why)) };
            assert_eq!(news(&wire, now), [News::Report(heard)]);
        }
        let wire =
            HealthNews { reports: vec![told(&remote(5, State::Unknown, None))], ..HealthNews::default() };
        let taken_back = Remote { at: now, ..remote(5, State::Unknown, None) };
        assert_eq!(news(&wire, now), [News::Report(taken_back)]);
    }

    #[tokio::test]
    async fn what_waits_is_the_newest_of_each_and_a_sign_of_life_comes_last() {
        let (exchange, mut heard) = Exchange::new();
        exchange.say(Say::Alive);
        for target in 0..=HEALTH_REPORTS_MAX as u64 {
            exchange.say(Say::Report(remote(target, State::Up, None)));
            exchange.say(Say::Report(remote(target, State::Down, Some(Reason::Refused))));
        }
        exchange.say_backend("ns/pool/set", "10.0.0.1:80", Some("checks fail".into()));
        exchange.say_backend("ns/pool/set", "10.0.0.1:80", None);
        let Some(ToController::BackendHealth(backend)) = exchange.next() else { panic!("status first") };
        assert_eq!((&*backend.pool, &*backend.set, backend.available), ("ns/pool", "set", true));
        let mut seen = 0;
        loop {
            let Some(ToController::HealthSaid(HealthSaid { reports, alive })) = exchange.next() else {
                panic!("the last has the sign of life")
            };
            assert!(reports.iter().all(|report| report.state() == TargetState::Down));
            seen += reports.len();
            if alive {
                break;
            }
        }
        assert_eq!((seen, exchange.next()), (HEALTH_REPORTS_MAX + 1, None));
        exchange.say(Say::Alive);
        let answer = async {
            let Some(Heard::Stream(done)) = heard.recv().await else { panic!("a new stream") };
            exchange.say_backend("ns/pool/set", "10.0.0.1:80", Some("checks fail".into()));
            done.send(()).expect("it waits");
        };
        tokio::join!(exchange.begin(), answer);
        let Some(ToController::BackendHealth(backend)) = exchange.next() else { panic!("what is true now") };
        assert!(!backend.available);
        assert_eq!(exchange.next(), None, "a new stream begins anew");
    }
}
