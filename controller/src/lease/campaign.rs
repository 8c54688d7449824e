//! The elector beside a real API server: requests, time-outs and the end.

use super::elector::{Action, Elector, Input, Now, Timing};
use super::record::{Record, Revision};
use super::{Holder, Leader};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Names this program in the Lease's managed fields.
const FIELD_MANAGER: &str = "weir-controller";

/// Attempts to release the Lease at the end: a renewal that was under way may come between.
const RELEASE_ATTEMPTS_MAX: usize = 3;

/// Longest time for each of these: an end does not wait for an API server that is away.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a replica campaigns with.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Of the Lease.
    pub namespace: String,
    /// Of the Lease.
    pub lease: String,
    /// Unique among the replicas.
    pub me: Holder,
    /// How patient it is.
    pub timing: Timing,
}

/// Says whether this replica may write.
#[derive(Debug)]
pub struct Leadership {
    me: Holder,
    leader: watch::Sender<Leader>,
    may_write: watch::Sender<bool>,
    campaign: Option<Campaign>,
}

#[derive(Debug)]
struct Campaign {
    api: Api<Lease>,
    lease: String,
    elector: Elector,
    timing: Timing,
    /// The last request failed; said once.
    is_failing: bool,
}

impl Leadership {
    /// For a controller that is the only one: it always leads.
    #[must_use]
    pub fn alone(me: Holder) -> Self {
        let leader = Leader { is_me: true, holder: Some(me.clone()) };
        Self { me, leader: watch::Sender::new(leader), may_write: watch::Sender::new(true), campaign: None }
    }

    /// For one of several replicas. Nobody leads before [`Self::run`].
    #[must_use]
    pub fn campaign(client: Client, candidate: Candidate) -> Self {
        let Candidate { namespace, lease, me, timing } = candidate;
        let campaign = Campaign {
            api: Api::namespaced(client, &namespace),
            lease,
            elector: Elector::new(me.to_string().into(), timing),
            timing,
            is_failing: false,
        };
        Self {
            me,
            leader: watch::Sender::default(),
            may_write: watch::Sender::new(false),
            campaign: Some(campaign),
        }
    }

    /// Who holds the Lease, now and whenever that changes.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Leader> {
        self.leader.subscribe()
    }

    /// [`Leader::is_me`] alone.
    #[must_use]
    pub fn may_write(&self) -> watch::Receiver<bool> {
        self.may_write.subscribe()
    }

    /// Follows the Lease until `shutdown` completes; then stops leading, gives the Lease back if it is this
    /// replica's, and returns. Errors of the API server are logged and tried again for ever.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let Some(mut campaign) = self.campaign.take() else { return shutdown.await };
        let mut action = campaign.elector.step(now(), Input::Wake);
        loop {
            let input = tokio::select! {
                () = &mut shutdown => break,
                input = self.perform(&campaign, action) => input,
            };
            campaign.note(&input);
            let input = match input {
                Ok(input) => input,
                Err(_) => Input::Failed,
            };
            action = campaign.elector.step(now(), input);
            self.publish(&campaign);
        }
        campaign.elector.resign();
        self.publish(&campaign);
        campaign.release().await;
    }

    /// Waits for the answer, and tells everyone when the time to lead passes meanwhile.
    async fn perform(&self, campaign: &Campaign, action: Action) -> Result<Input, RequestError> {
        let mut request = std::pin::pin!(campaign.request(action));
        loop {
            let until = campaign.elector.leads_until().map(Instant::from_std);
            let leads = campaign.elector.leads(Instant::now().into_std());
            tokio::select! {
                input = &mut request => return input,
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if leads => {
                    self.publish(campaign);
                }
            }
        }
    }

    fn publish(&self, campaign: &Campaign) {
        let now = Instant::now().into_std();
        let is_me = campaign.elector.leads(now);
        let holder = campaign.elector.holder(now).and_then(Holder::parse);
        // What must stop stops before anybody is told of another holder.
        self.may_write.send_if_modified(|may| std::mem::replace(may, is_me) != is_me);
        let leader = Leader { is_me, holder: if is_me { Some(self.me.clone()) } else { holder } };
        let changed = self.leader.send_if_modified(|known| {
            let is_new = *known != leader;
            if is_new && known.is_me != is_me {
                let lease = &campaign.lease;
                if is_me {
                    tracing::info!(%lease, "this replica holds the Lease and writes");
                } else {
                    tracing::info!(%lease, "this replica no longer holds the Lease and writes nothing; it serves on");
                }
            }
            known.clone_from(&leader);
            is_new
        });
        if changed && let (false, Some(holder)) = (leader.is_me, &leader.holder) {
            tracing::info!(lease = %campaign.lease, %holder, "another replica holds the Lease");
        }
    }
}

/// Why a request said nothing of the Lease.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the API server did not answer in time")]
    TimedOut,
    #[error("{0}")]
    Api(#[source] Box<kube::Error>),
    #[error("the API server's answer has no resourceVersion")]
    NoRevision,
}

impl Campaign {
    async fn request(&self, action: Action) -> Result<Input, RequestError> {
        let limit = self.timing.request_timeout();
        match action {
            Action::WaitUntil(time) => {
                tokio::time::sleep_until(Instant::from_std(time)).await;
                Ok(Input::Wake)
            }
            Action::Read => in_time(limit, self.read()).await,
            Action::Write(record, over) => in_time(limit, self.write(record, over)).await,
        }
    }

    async fn read(&self) -> Result<Input, RequestError> {
        match self.api.get_opt(&self.lease).await {
            Ok(Some(lease)) => Ok(Input::Found(Record::read(&lease), revision(&lease)?)),
            Ok(None) => Ok(Input::Missing),
            Err(error) => Err(RequestError::Api(Box::new(error))),
        }
    }

    async fn write(&self, record: Record, over: Option<Revision>) -> Result<Input, RequestError> {
        let is_new = over.is_none();
        let lease = record.write(&self.lease, over);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = if is_new {
            self.api.create(&params, &lease).await
        } else {
            self.api.replace(&self.lease, &params, &lease).await
        };
        match written {
            Ok(lease) => Ok(Input::Written(revision(&lease)?)),
            // Gone since it was read is as much a conflict as changed: the next reading says which.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Input::Conflict),
            Err(error) => Err(RequestError::Api(Box::new(error))),
        }
    }

    /// So that the next replica need not wait for the end of the duration.
    async fn release(&self) {
        for _ in 0..RELEASE_ATTEMPTS_MAX {
            let Ok(Input::Found(record, revision)) = in_time(RELEASE_TIMEOUT, self.read()).await else {
                return;
            };
            let Some(released) = self.elector.released(&record) else { return };
            match in_time(RELEASE_TIMEOUT, self.write(released, Some(revision))).await {
                Ok(Input::Conflict) => {}
                Ok(_) => return tracing::info!(lease = %self.lease, "the Lease is released"),
                Err(error) => {
                    return tracing::warn!(lease = %self.lease, %error, "the Lease could not be released and expires");
                }
            }
        }
    }

    fn note(&mut self, outcome: &Result<Input, RequestError>) {
        let lease = &self.lease;
        match outcome {
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!(%lease, %error, "no word of the Lease; trying again");
            }
            Ok(input) if *input != Input::Wake && std::mem::take(&mut self.is_failing) => {
                tracing::info!(%lease, "the API server answers again about the Lease");
            }
            _ => {}
        }
    }
}

fn revision(lease: &Lease) -> Result<Revision, RequestError> {
    lease.metadata.resource_version.clone().map(Revision).ok_or(RequestError::NoRevision)
}

async fn in_time(
    limit: Duration,
    request: impl Future<Output = Result<Input, RequestError>>,
) -> Result<Input, RequestError> {
    tokio::time::timeout(limit, request).await.unwrap_or(Err(RequestError::TimedOut))
}

fn now() -> Now {
    Now { monotonic: Instant::now().into_std(), wall: Timestamp::now() }
}
