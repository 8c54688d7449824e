//! What is known of backends' health, for who asks: administration.

use lb_core::health::{Moment, Outcome, Standing, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for the task that keeps health.
pub(crate) const QUESTIONS_MAX: usize = 16;

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of each backend, by its set's number and its id.
pub(super) type Findings = BTreeMap<(u64, Arc<str>), Finding>;

pub(super) type Question = oneshot::Sender<Findings>;

/// Asks the task that keeps health.
#[derive(Debug, Clone)]
pub struct View(mpsc::Sender<Question>);

/// What is known of one backend's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it takes requests.
    pub is_available: bool,
    /// Why it ceased to, where checks or ejection took it out.
    pub reason: Option<String>,
    /// Part of its weight that it keeps, in thousandths.
    pub weight_permille: u16,
    /// Of its active checks; `None` without such.
    pub check: Option<Check>,
}

/// What active checks say of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Unknown, Up or Down.
    pub state: String,
    /// Of the failure that took it down.
    pub reason: Option<String>,
    /// Time since the last probe of this proxy.
    pub last_ago: Option<Duration>,
    /// What that probe took, where it passed.
    pub latency: Option<Duration>,
    /// This proxy asks by itself, and does not rely on others.
    pub is_checked_here: bool,
}

impl View {
    /// The view, and where its questions arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
        (Self(sender), receiver)
    }

    /// What is known now; nothing where nobody answers in time.
    pub async fn findings(&self) -> BTreeMap<(u64, Arc<str>), Finding> {
        let (answer, answered) = oneshot::channel();
        let ask = async {
            self.0.send(answer).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ANSWER_TIMEOUT, ask).await.ok().flatten().unwrap_or_default()
    }
}

impl Finding {
    pub(super) fn new(standing: Standing, status: Option<Status>, now: Moment) -> Self {
        let check = status.map(|status| Check {
            state: format!("{:?}", status.state),
            reason: status.reason.map(|reason| reason.to_string()),
            last_ago: status.last.map(|probe| now.since(probe.at)),
            latency: match status.last.map(|probe| probe.outcome) {
                Some(Outcome::Pass { latency }) => Some(latency),
                _ => None,
            },
            is_checked_here: status.is_checked_here,
        });
        let Standing { is_available, weight_permille, .. } = standing;
        Self { is_available, reason: None, weight_permille, check }
    }
}
