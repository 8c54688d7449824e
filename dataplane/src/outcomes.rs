//! What came of requests, as one worker collects it: for the pickers that go by latency, and for the health of
//! backends that are judged by their requests.
//!
//! A request writes to its own worker's memory only. What was collected is handed on [`MERGE_AFTER`] its first outcome, so
//! that a worker without requests does not wake.

use crate::failure::Failure;
use foldhash::HashMap;
use http::HeaderMap;
use http::StatusCode;
use http::header::RETRY_AFTER;
use lb_core::backend::{Algorithm, BackendSet, Live};
use lb_core::balance::{Outcome, OutcomeKind, Recorder};
use lb_core::health::Batch;
use lb_core::resilience::Breaker;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// From a worker's first outcome to the moment at which its outcomes steer anything.
pub(crate) const MERGE_AFTER: Duration = Duration::from_millis(10);

/// Batches on their way to the health of a process. A worker that finds no room keeps what it has, and adds to it.
pub(crate) const BATCHES_MAX: usize = 64;

/// What one worker saw of the sets that are judged, by set and backend.
pub(crate) type Judged = Vec<((u64, Arc<str>), Batch)>;

/// One worker's outcomes.
#[derive(Debug)]
pub(crate) struct Outcomes {
    started: Instant,
    recorder: RefCell<Recorder>,
    judged: RefCell<HashMap<(u64, Arc<str>), Batch>>,
    circuits: RefCell<HashMap<u64, Tally>>,
    to_health: mpsc::Sender<Judged>,
    begun: Notify,
}

/// What one worker saw of a set that has a circuit.
#[derive(Debug)]
struct Tally {
    breaker: Arc<Breaker>,
    successes: u32,
    failures: u32,
}

impl Outcomes {
    /// `started` is the process's zero of time.
    pub(crate) fn new(started: Instant, to_health: mpsc::Sender<Judged>) -> Self {
        Self {
            started,
            recorder: RefCell::default(),
            judged: RefCell::default(),
            circuits: RefCell::default(),
            to_health,
            begun: Notify::new(),
        }
    }

    /// Since the process began.
    pub(crate) fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Files what came of a request. Costs nothing where nobody looks at it.
    /// `backend` is its id, where its set is judged.
    pub(crate) fn record(
        &self,
        set: &BackendSet,
        live: &Arc<Live>,
        backend: Option<&Arc<str>>,
        outcome: Outcome,
    ) {
        let steers = matches!(set.policy.algorithm, Algorithm::LeastResponseTime(_) | Algorithm::PeakEwma(_));
        if steers {
            self.recorder.borrow_mut().record(live, set.policy.algorithm.smoothing(), outcome);
        }
        let judged = backend.filter(|_| outcome.kind != OutcomeKind::Abandoned);
        if let Some(backend) = judged {
            let mut judged = self.judged.borrow_mut();
            judged.entry((set.id, Arc::clone(backend))).or_default().merge(&batch(outcome));
        }
        let circuit = set.guard.breaker.as_ref().filter(|_| outcome.kind != OutcomeKind::Abandoned);
        if let Some(breaker) = circuit {
            let mut circuits = self.circuits.borrow_mut();
            let new = || Tally { breaker: Arc::clone(breaker), successes: 0, failures: 0 };
            let tally = circuits.entry(set.id).or_insert_with(new);
            let count = if is_failure(outcome.kind) { &mut tally.failures } else { &mut tally.successes };
            *count += 1;
        }
        if steers || judged.is_some() || circuit.is_some() {
            self.begun.notify_one();
        }
    }

    /// Hands on what was collected, for as long as it is polled.
    pub(crate) async fn merge(&self) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(MERGE_AFTER).await;
            let now = self.since_start(Instant::now());
            self.recorder.borrow_mut().merge(now);
            for (_, Tally { breaker, successes, failures }) in self.circuits.borrow_mut().drain() {
                breaker.record(now, successes, failures);
            }
            let mut judged = self.judged.borrow_mut();
            if judged.is_empty() {
                continue;
            }
            match self.to_health.try_reserve() {
                Ok(permit) => permit.send(judged.drain().collect()),
                // What is not taken now is taken with what comes.
                Err(_) => self.begun.notify_one(),
            }
        }
    }
}

/// Whether it speaks against the backend, and its set.
pub(crate) fn is_failure(kind: OutcomeKind) -> bool {
    match kind {
        OutcomeKind::Error | OutcomeKind::Timeout | OutcomeKind::ConnectFailure => true,
        // The backend works, and says that it has enough to do.
        OutcomeKind::Success | OutcomeKind::TooManyRequests { .. } | OutcomeKind::Abandoned => false,
    }
}

fn batch(outcome: Outcome) -> Batch {
    let none = Batch::default();
    match outcome.kind {
        OutcomeKind::Success => Batch { successes: 1, latency_sum: outcome.latency, ..none },
        // The backend works, and says that it has enough to do.
        OutcomeKind::TooManyRequests { .. } => Batch { successes: 1, latency_sum: outcome.latency, ..none },
        OutcomeKind::Error => Batch { errors: 1, ..none },
        OutcomeKind::Timeout => Batch { timeouts: 1, ..none },
        OutcomeKind::ConnectFailure => Batch { connect_failures: 1, ..none },
        OutcomeKind::Abandoned => none,
    }
}

/// What an answer's head says of its backend. A failure is a 5xx other than 501 and 505, which are about the request.
pub(crate) fn of_answer(status: StatusCode, headers: &HeaderMap) -> OutcomeKind {
    let retry_after = || {
        let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS => OutcomeKind::TooManyRequests { retry_after: retry_after() },
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => OutcomeKind::Success,
        status if status.is_server_error() => OutcomeKind::Error,
        _ => OutcomeKind::Success,
    }
}

/// What a failed exchange says of its backend; `None` where it says nothing, or nothing new.
pub(crate) fn of_failure(failure: Failure, is_answered: bool) -> Option<OutcomeKind> {
    match failure {
        Failure::BackendClosed | Failure::BackendInvalid(_) => Some(OutcomeKind::Error),
        Failure::BackendTimeout if is_answered => Some(OutcomeKind::Error),
        Failure::BackendTimeout => Some(OutcomeKind::Timeout),
        Failure::ConnectFailed | Failure::ConnectTimeout | Failure::BackendTls(_) => {
            Some(OutcomeKind::ConnectFailure)
        }
        Failure::ClientGone if !is_answered => Some(OutcomeKind::Abandoned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use lb_core::backend::{SetPolicy, Smoothing};

    #[test]
    fn an_answer_is_the_backends_failure_where_the_request_is_not_to_blame() {
        let plain = HeaderMap::new();
        for (status, kind) in [
            (200, OutcomeKind::Success),
            (304, OutcomeKind::Success),
            (404, OutcomeKind::Success),
            (500, OutcomeKind::Error),
            (501, OutcomeKind::Success),
            (502, OutcomeKind::Error),
            (505, OutcomeKind::Success),
            (599, OutcomeKind::Error),
            (429, OutcomeKind::TooManyRequests { retry_after: None }),
        ] {
            assert_eq!(of_answer(StatusCode::from_u16(status).expect("a status"), &plain), kind, "{status}");
        }
        let wait = |value: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            of_answer(StatusCode::TOO_MANY_REQUESTS, &headers)
        };
        let seconds =
            |seconds| OutcomeKind::TooManyRequests { retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(wait("7"), seconds(7));
        assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), OutcomeKind::TooManyRequests { retry_after: None });
    }

    fn set(algorithm: Algorithm) -> BackendSet {
        let policy = SetPolicy { is_judged: true, ..SetPolicy::new(algorithm) };
        BackendSet::new(7, "ns/pool/web".into(), policy, Arc::default())
    }

    #[tokio::test]
    async fn outcomes_reach_the_pickers_that_go_by_latency_and_the_health_of_sets_that_are_judged() {
        let (sender, mut judged) = mpsc::channel(1);
        let outcomes = Outcomes::new(Instant::now(), sender);
        let (by_latency, by_turns) = (Arc::<Live>::default(), Arc::<Live>::default());
        let smoothing = Smoothing::default();
        let (fast, failed) = (MERGE_AFTER, Outcome { latency: MERGE_AFTER, kind: OutcomeKind::Error });
        let good = Outcome { latency: fast, kind: OutcomeKind::Success };
        let backend: Arc<str> = "a".into();
        outcomes.record(&set(Algorithm::PeakEwma(smoothing)), &by_latency, None, good);
        for outcome in [good, failed] {
            outcomes.record(&set(Algorithm::RoundRobin), &by_turns, Some(&backend), outcome);
        }
        let merged = tokio::select! {
            () = outcomes.merge() => None,
            merged = judged.recv() => merged,
        };
        let expected = Batch { successes: 1, errors: 1, latency_sum: fast, ..Batch::default() };
        assert_eq!(merged, Some(vec![((7, backend), expected)]));
        assert!(by_latency.latency().is_some() && by_turns.latency().is_none());
    }
}
