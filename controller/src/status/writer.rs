//! Writes each pool's status to the API server, and the Events, while this process is the one that writes.
//!
//! By server-side apply, as the owner of exactly the fields that it writes: conditions of other types and whatever
//! else other managers add are theirs. What a status is compared with is what the watch shows, or what was written
//! over that and is not shown yet; so a write of ours brings one event of the watch and no further write.

use super::agenda::{Agenda, Decision, Sight};
use super::compute::{compute, condition};
use super::events::{self, News};
use super::outages::{Told, outages};
use super::{Board, Verdict, expiry, reason};
use crate::compile::ObjectKey;
use crate::store::{FleetObserver, Reach, Store};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Recorder, Reporter};
use serde_json::json;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_crds::{LoadBalancerPool, LoadBalancerPoolStatus};

/// Owner of the fields of the status, and reporter of the Events.
pub const FIELD_MANAGER: &str = "weir-controller";
/// Statuses that are being written at one time.
pub const CONCURRENT_WRITES_MAX: usize = 8;
/// How long a write may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time until a pool with certificates is looked at again.
const LOOK_AGAIN_MAX_S: i64 = 86_400;

/// Follows verdicts and proxies, and writes what they come to.
pub struct Writer {
    client: Client,
    recorder: Recorder,
    board: Arc<Board>,
    store: Arc<Store>,
    fleet: FleetObserver,
    agenda: Agenda,
    /// What was written last to each pool.
    written: BTreeMap<ObjectKey, Written>,
    /// Of each pool that this process wrote to.
    told: BTreeMap<ObjectKey, Told>,
    writes: JoinSet<Ended>,
    /// `None` while another process writes.
    leads_since: Option<Instant>,
}

struct Written {
    uid: Option<String>,
    status: LoadBalancerPoolStatus,
    /// What the watch showed then. Once it shows anything else, that is the truth.
    over: Option<LoadBalancerPoolStatus>,
}

/// One status on its way to the API server.
struct Order {
    key: ObjectKey,
    uid: Option<String>,
    status: LoadBalancerPoolStatus,
    news: Vec<News>,
    told: Told,
}

struct Ended {
    key: ObjectKey,
    told: Told,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    /// There is no such object any more.
    Gone,
    Failed,
}

impl Writer {
    /// Writes while `may_write` says so, until `shutdown` completes or nobody can say any more who may write. On
    /// becoming the one that writes, it looks at every pool.
    pub async fn run(
        client: Client,
        board: Arc<Board>,
        store: Arc<Store>,
        mut may_write: watch::Receiver<bool>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut writer = Self::new(client, board, store);
        tokio::pin!(shutdown);
        writer.lead(*may_write.borrow_and_update());
        loop {
            writer.look_at_due();
            let wake_at = writer.wake_at();
            tokio::select! {
                () = &mut shutdown => return,
                changed = may_write.changed() => match changed {
                    Ok(()) => writer.lead(*may_write.borrow_and_update()),
                    Err(_) => return,
                },
                () = writer.board.changed() => writer.hear_of_verdicts(),
                () = writer.fleet.changed() => writer.hear_of_proxies(),
                Some(ended) = writer.writes.join_next() => writer.end(ended),
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
        }
    }

    fn new(client: Client, board: Arc<Board>, store: Arc<Store>) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), Reporter::from(FIELD_MANAGER)),
            client,
            fleet: store.observe_fleet(Reach::All),
            board,
            store,
            agenda: Agenda::default(),
            written: BTreeMap::new(),
            told: BTreeMap::new(),
            writes: JoinSet::new(),
            leads_since: None,
        }
    }

    fn lead(&mut self, may_write: bool) {
        if may_write == self.leads_since.is_some() {
            return;
        }
        self.agenda.clear();
        self.written.clear();
        self.told.clear();
        self.writes.abort_all();
        self.leads_since = may_write.then(Instant::now);
        if may_write {
            tracing::info!("this controller writes the status of pools");
            self.touch_all();
        } else {
            tracing::info!("another controller writes the status of pools");
        }
    }

    fn touch_all(&mut self) {
        let now = Instant::now().into_std();
        for key in self.board.keys() {
            self.agenda.touch(&key, now);
        }
    }

    fn hear_of_verdicts(&mut self) {
        let changed = self.board.take();
        self.touch(changed);
    }

    fn hear_of_proxies(&mut self) {
        let changed = self.fleet.take();
        let key =
            |name: &Arc<str>| name.split_once('/').map(|(namespace, name)| ObjectKey::new(namespace, name));
        self.touch(changed.iter().filter_map(key));
    }

    fn touch(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        if self.leads_since.is_none() {
            return;
        }
        let now = Instant::now().into_std();
        keys.into_iter().for_each(|key| self.agenda.touch(&key, now));
    }

    /// When there will be something to look at, and room for what may come of it.
    fn wake_at(&self) -> Option<Instant> {
        let has_room = self.writes.len() < CONCURRENT_WRITES_MAX;
        self.agenda.next_at().filter(|_| has_room).map(Instant::from_std)
    }

    fn look_at_due(&mut self) {
        let Some(leads_since) = self.leads_since else { return };
        let now = Instant::now();
        while self.writes.len() < CONCURRENT_WRITES_MAX
            && let Some(key) = self.agenda.take_due(now.into_std())
        {
            match self.board.verdict(&key) {
                Some(verdict) => self.look(&key, &verdict, leads_since, now),
                None => {
                    self.agenda.forget(&key);
                    self.written.remove(&key);
                    self.told.remove(&key);
                }
            }
        }
    }

    fn look(&mut self, key: &ObjectKey, verdict: &Verdict, leads_since: Instant, now: Instant) {
        let summary = self.store.summary(&key.to_string(), Reach::All);
        let shown = self.shown(key, verdict);
        let clock = Timestamp::now();
        let status = compute(verdict, &summary, shown.as_ref(), clock);
        let sight = Sight {
            desired: &status,
            shown: shown.as_ref(),
            summary: &summary,
            config_digest: verdict.serving.as_ref().map(|serving| serving.config_digest),
            leads_since: leads_since.into_std(),
        };
        match self.agenda.decide(key, sight, now.into_std()) {
            Decision::Write => {}
            Decision::Later(_) => return,
            Decision::Nothing => {
                // Whoever wrote that has told of these backends.
                let told = || outages(None, verdict, &summary, shown.as_ref()).1;
                self.told.entry(key.clone()).or_insert_with(told);
                if let Some(at) = changes_at(verdict, clock, now) {
                    self.agenda.look_again(key, at);
                }
                return;
            }
        }
        let uid = verdict.uid.clone();
        let written = Written { uid: uid.clone(), status: status.clone(), over: verdict.shown.clone() };
        self.written.insert(key.clone(), written);
        let mut news = events::news(shown.as_ref(), &status);
        let (of_backends, told) = outages(self.told.get(key), verdict, &summary, shown.as_ref());
        news.extend(of_backends);
        let order = Order { key: key.clone(), uid, status, news, told };
        self.writes.spawn(order.carry_out(self.client.clone(), self.recorder.clone()));
    }

    /// Our part of what the object shows, or of what it is about to show.
    fn shown(&self, key: &ObjectKey, verdict: &Verdict) -> Option<LoadBalancerPoolStatus> {
        let written = self.written.get(key);
        match written.filter(|written| written.uid == verdict.uid && written.over == verdict.shown) {
            Some(written) => Some(written.status.clone()),
            None => verdict.shown.as_ref().map(ours),
        }
    }

    fn end(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Ended { key, told, outcome }) => {
                if outcome == Outcome::Good {
                    self.told.insert(key.clone(), told);
                } else {
                    self.written.remove(&key);
                }
                let is_over = outcome != Outcome::Failed;
                self.agenda.written(&key, is_over, Instant::now().into_std());
            }
            // Of a time when this process was the one that writes.
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(%error, "a write of a status broke off");
                self.agenda.clear();
                self.written.clear();
                self.touch_all();
            }
        }
    }
}

/// When time alone brings something to say of a pool: a certificate that comes nearer to its end. A day later at most, for
/// clocks are set.
fn changes_at(verdict: &Verdict, clock: Timestamp, now: Instant) -> Option<std::time::Instant> {
    let at_s = expiry::changes_at_s(&verdict.serving.as_ref()?.validities, clock)?;
    let wait_s = at_s.saturating_sub(clock.as_second()).clamp(1, LOOK_AGAIN_MAX_S);
    Some((now + Duration::from_secs(wait_s.unsigned_abs())).into_std())
}

/// Without conditions that are not ours, in our order.
fn ours(shown: &LoadBalancerPoolStatus) -> LoadBalancerPoolStatus {
    let conditions = reason::TYPES.iter().filter_map(|kind| condition(shown, kind).cloned());
    LoadBalancerPoolStatus { conditions: conditions.collect(), ..shown.clone() }
}

impl Order {
    async fn carry_out(mut self, client: Client, recorder: Recorder) -> Ended {
        let written = tokio::time::timeout(WRITE_TIMEOUT, self.write(client)).await;
        let outcome = match written {
            Ok(Ok(())) => {
                tokio::time::timeout(WRITE_TIMEOUT, self.publish(&recorder)).await.unwrap_or_default();
                Outcome::Good
            }
            Ok(Err(error)) if code(&error) == Some(404) => Outcome::Gone,
            Ok(Err(error)) => {
                let right = "patch on loadbalancerpools/status of weir.dev";
                tracing::warn!(pool = %self.key, "cannot write the status of a pool: {}", why(&error, right));
                // What was let in under another definition and has a field of another type takes no status from anybody: the
                // API server cannot read it either. Events it has all the same, and one that is repeated counts up.
                self.news.retain(|news| news.reason == events::REJECTED);
                tokio::time::timeout(WRITE_TIMEOUT, self.publish(&recorder)).await.unwrap_or_default();
                Outcome::Failed
            }
            Err(_) => {
                tracing::warn!(pool = %self.key, "cannot write the status of a pool: no answer in 10 s");
                Outcome::Failed
            }
        };
        Ended { key: self.key, told: self.told, outcome }
    }

    async fn write(&self, client: Client) -> Result<(), kube::Error> {
        // Not as a LoadBalancerPool: one that cannot be read as such has a status too.
        let resource = ApiResource::erase::<LoadBalancerPool>(&());
        let pools: Api<DynamicObject> = Api::namespaced_with(client, &self.key.namespace, &resource);
        let object = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": self.key.name, "namespace": self.key.namespace, "uid": self.uid},
            "status": self.status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        pools.patch_status(&self.key.name, &params, &Patch::Apply(&object)).await.map(drop)
    }

    async fn publish(&self, recorder: &Recorder) {
        let reference = events::reference(&self.key, self.uid.as_deref());
        for news in &self.news {
            if let Err(error) = recorder.publish(&news.event(&reference), &reference).await {
                let right = "create and patch on events of events.k8s.io";
                tracing::warn!(pool = %self.key, event = news.reason, "cannot publish an Event: {}", why(&error, right));
            }
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn why(error: &kube::Error, right: &str) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("the API server forbids it: allow the controller's ServiceAccount to {right}")
        }
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
