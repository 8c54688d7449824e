//! Backend sets: identity and policy ([`BackendSet`]), who is in it now ([`Membership`]), what happens to each
//! member ([`Live`]).
//!
//! Why a cell inside the snapshot: an endpoint change then swaps one pointer in one set and costs what that set
//! costs, whatever else the proxy serves. A change of policy or of routes makes new cells and goes through the
//! snapshot's own swap, so nobody sees new routes over old sets.
//!
//! Times are a [`Duration`] since the process began, from one clock for all of it.

mod live;
mod membership;
mod secured;
mod tag;

pub use live::{Connected, InFlight, Live, Wanted};
pub(crate) use live::{Decay, Tick};
pub use membership::Membership;
pub use secured::TlsProfile;

use crate::resilience::{Breaker, BreakerSettings, BudgetSettings, Queue, QueueSettings, RetryBudget};
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How a set balances and how it connects. A change of policy makes a new [`BackendSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPolicy {
    /// How a backend is chosen among those that may take a request.
    pub algorithm: Algorithm,
    /// Which backends may take a request.
    pub eligibility: Eligibility,
    /// What of a request [`Algorithm::Maglev`] goes by; without it a request goes to any backend.
    pub key: Option<KeySource>,
    /// Whether what becomes of requests says how healthy the backends are.
    pub is_judged: bool,
    /// Longest time for a TCP connection to be established.
    pub connect_timeout: Duration,
    /// What is spoken to the backends.
    pub protocol: UpstreamProtocol,
    /// `None`: in plaintext.
    pub tls: Option<TlsProfile>,
    /// How backends are told of the client before anything else; `None`: not so. A connection is then one client's.
    pub proxy_header: Option<ProxyHeaderVersion>,
    /// How many connections there are to one backend, and for how long.
    pub connections: ConnectionLimits,
    /// Requests that one backend has at a time from this process; `None` for no bound.
    pub requests_max: Option<NonZeroU32>,
    /// Who finds every backend at that bound, or at that of its connections, waits here.
    pub queue: QueueSettings,
    /// `None`: the circuit never opens.
    pub breaker: Option<BreakerSettings>,
    /// How many retries the set stands.
    pub retry_budget: BudgetSettings,
}

/// What is spoken to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, one exchange at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, or agreed on by ALPN over TLS; many exchanges on a connection.
    Http2,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyHeaderVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How many connections there are to one backend, from the whole process, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Kept open although no request needs them.
    pub warm_min: u32,
    /// Most at a time; `None` for no bound.
    pub max: Option<NonZeroU32>,
    /// Most that are idle; 0 keeps none.
    pub idle_max: u32,
    /// Those that are idle for longer are closed.
    pub idle_timeout: Duration,
    /// Requests at a time on one connection of HTTP/2, where the backend does not say less.
    pub streams_max: NonZeroU32,
}

impl Default for ConnectionLimits {
    /// 100 idle connections for a minute, 100 streams.
    fn default() -> Self {
        Self {
            warm_min: 0,
            max: None,
            idle_max: 100,
            idle_timeout: Duration::from_secs(60),
            streams_max: NonZeroU32::new(100).expect("more than 0"),
        }
    }
}

/// How a backend is chosen within a set. [`crate::balance`] says what each costs and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Each backend in turn, in proportion to its weight ([`crate::balance::Schedule`]).
    RoundRobin,
    /// Any backend, in proportion to its weight.
    Random,
    /// The one with the fewest requests for its weight out of a few that are drawn.
    LeastRequest {
        /// How many are drawn, 2 or more; fewer count as 2.
        choices: u8,
    },
    /// The one with the fewest requests for its weight: out of all in a small set, out of many draws in a large one.
    LeastConnections,
    /// The one with the lowest mean latency times requests on it, to a quarter; candidates as for
    /// [`Algorithm::LeastConnections`].
    LeastResponseTime(Smoothing),
    /// The one of two with the lower peak-sensitive latency times requests on it.
    PeakEwma(Smoothing),
    /// By the request's key, so that few keys move when backends come and go.
    Maglev {
        /// What one backend may have of requests, in percent of its fair share (above 100), before its keys go on to
        /// another one; `None` for no bound.
        load_percent_max: Option<u16>,
    },
}

impl SetPolicy {
    /// By this algorithm, and in all else as a pool has it that says nothing: 3 s to connect, 100 idle connections for a
    /// minute.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            eligibility: Eligibility::default(),
            key: None,
            is_judged: false,
            connect_timeout: Duration::from_secs(3),
            protocol: UpstreamProtocol::default(),
            tls: None,
            proxy_header: None,
            connections: ConnectionLimits::default(),
            requests_max: None,
            queue: QueueSettings { requests_max: 0, timeout: Duration::ZERO },
            breaker: None,
            retry_budget: BudgetSettings::default(),
        }
    }
}

/// What of a request says where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The client's address.
    SourceIp,
    /// The first header field of this name, in lower case.
    Header(Arc<str>),
    /// The cookie of this name.
    Cookie(Arc<str>),
    /// The query parameter of this name.
    Query(Arc<str>),
    /// The request's host.
    Host,
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::LeastRequest { choices: 2 }
    }
}

impl Algorithm {
    /// Consistent hashing with the bound of the paper's example, 1.25 times the mean.
    pub const MAGLEV: Self = Self::Maglev { load_percent_max: Some(125) };

    /// How outcomes become latency. Algorithms that do not look at latency have the default, for what is shown of a
    /// backend.
    #[must_use]
    pub fn smoothing(&self) -> Smoothing {
        match self {
            Self::LeastResponseTime(smoothing) | Self::PeakEwma(smoothing) => *smoothing,
            _ => Smoothing::default(),
        }
    }
}

/// How outcomes become a smoothed latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smoothing {
    /// Time in which an observation's weight falls to 1/e; from 1 ms. 10 s by default, as in Finagle and linkerd.
    pub decay: Duration,
    /// The least latency that a failure counts as, so that failing fast attracts nothing. 1 s by default.
    pub error_penalty: Duration,
}

impl Default for Smoothing {
    fn default() -> Self {
        Self { decay: Duration::from_secs(10), error_penalty: Duration::from_secs(1) }
    }
}

/// Which backends of a set may take a request, beyond their own state and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eligibility {
    /// Whether near backends go first.
    pub locality: Locality,
    /// Where less than this share of a priority level's weight is available, and other levels cannot carry the load,
    /// health is ignored in it: 1 to 100 percent. `None`, the default, never ignores health.
    pub panic_below_percent: Option<u8>,
    /// A priority level takes all requests while its available share times this is 100 percent or more; what is missing
    /// spills over to the next. 140 by default, as Envoy's overprovisioning factor of 1.4.
    pub overprovisioning_percent: u16,
    /// Whether a backend that has become available gets its weight little by little. Not with [`Algorithm::Maglev`]:
    /// each step would move keys.
    pub slow_start: Option<SlowStart>,
}

impl Default for Eligibility {
    fn default() -> Self {
        Self {
            locality: Locality::Off,
            panic_below_percent: None,
            overprovisioning_percent: 140,
            slow_start: None,
        }
    }
}

/// Whether backends near this process go first, within a priority level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locality {
    /// All the same.
    #[default]
    Off,
    /// As much as possible stays in the zone without loading its backends more than others: Envoy's zone aware
    /// routing, with proxies taken to be spread evenly over the zones.
    PreferZone,
    /// Kubernetes' `trafficDistribution` (`PreferSameNode`; `PreferSameZone`, which is `PreferClose`) as its hints say,
    /// by kube-proxy's rules; it overflows as the hinted backends fail.
    Hints,
}

/// A weight that grows over time: Envoy's slow start. The weight is multiplied by
/// `max(weight_min, (time since available / window) ^ (1 / aggression))`, where the time counts from 1 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Until the full weight; more than 0.
    pub window: Duration,
    /// In percent: 100 is linear, more rises faster at first. More than 0.
    pub aggression_percent: u16,
    /// The part of its weight that a backend has at least: 1 to 100 percent, 10 in Envoy.
    pub weight_min_percent: u8,
}

/// Where this process runs; empty where unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Topology zone.
    pub zone: Arc<str>,
    /// Name of the node.
    pub node: Arc<str>,
}

/// A named group of backends that routes send to.
#[derive(Debug)]
pub struct BackendSet {
    /// Unique within the process: the key of state that a worker keeps for this set.
    pub id: u64,
    /// `namespace/pool/set`, for messages.
    pub name: Arc<str>,
    /// Names the set in sessions: equal on every proxy and after a restart.
    pub tag: u32,
    /// Fixed for the life of this value.
    pub policy: SetPolicy,
    /// What all workers share of the set's resilience.
    pub guard: Arc<Guard>,
    current: ArcSwap<Membership>,
}

impl BackendSet {
    /// A set with its first membership. `id` must be unique within the process.
    #[must_use]
    pub fn new(id: u64, name: Arc<str>, policy: SetPolicy, members: Arc<Membership>) -> Self {
        let guard = Guard::new(&policy);
        Self { id, tag: tag::of_set(&name), name, policy, guard, current: ArcSwap::new(members) }
    }

    /// With the circuit, budget and queue of the set whose place this one takes, where their settings are the same.
    #[must_use]
    pub fn following(self, before: &Self) -> Self {
        let guard = before.guard.following(&before.policy, &self.policy);
        Self { guard, ..self }
    }

    /// Who is in the set now. Cheap; hold the guard for one decision, not across an await.
    pub fn members(&self) -> Members {
        self.current.load()
    }

    /// Replaces the membership; requests already on a backend are not touched.
    pub fn replace_members(&self, members: Arc<Membership>) {
        self.current.store(members);
        self.guard.queue.wake_all();
    }

    /// Replaces the membership by one that is made of it. `change` is called again where somebody else replaced it
    /// meanwhile, so that neither change is lost.
    pub fn update_members(&self, change: impl Fn(&Membership) -> Membership) {
        self.current.rcu(|members| change(members));
        self.guard.queue.wake_all();
    }
}

/// Who is in a set, as of one moment.
pub type Members = arc_swap::Guard<Arc<Membership>>;

/// What all workers share of one set's resilience.
#[derive(Debug)]
pub struct Guard {
    /// `None`: the circuit never opens.
    pub breaker: Option<Arc<Breaker>>,
    /// What retries are taken from.
    pub budget: Arc<RetryBudget>,
    /// Requests that wait for a slot.
    pub queue: Arc<Queue>,
}

impl Guard {
    fn new(policy: &SetPolicy) -> Arc<Self> {
        Arc::new(Self {
            breaker: policy.breaker.map(|settings| Arc::new(Breaker::new(settings))),
            budget: Arc::new(RetryBudget::new(policy.retry_budget)),
            queue: Arc::new(Queue::new(policy.queue)),
        })
    }

    fn following(self: &Arc<Self>, before: &SetPolicy, policy: &SetPolicy) -> Arc<Self> {
        let mut next = Self::new(policy);
        let guard = Arc::get_mut(&mut next).expect("nobody else has it yet");
        if before.breaker == policy.breaker {
            guard.breaker.clone_from(&self.breaker);
        }
        if before.retry_budget == policy.retry_budget {
            guard.budget = Arc::clone(&self.budget);
        }
        if before.queue == policy.queue {
            guard.queue = Arc::clone(&self.queue);
        }
        next
    }
}

/// A member of a set.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Stable identity within the set; [`Live`] is carried over by it.
    pub id: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative; 0 takes no new requests.
    pub weight: u32,
    /// 0 goes first; a higher number takes what the lower ones cannot carry.
    pub priority: u32,
    /// Topology zone; empty where unknown.
    pub zone: Arc<str>,
    /// For whom the control plane means it.
    pub hints: Hints,
    /// What the control plane says of it.
    pub state: BackendState,
    /// What health checks and ejection found.
    pub standing: Standing,
    /// What this process saw of it.
    pub live: Arc<Live>,
}

impl Backend {
    /// Names the backend in sessions: equal on every proxy and after a restart, and says nothing of its address.
    #[must_use]
    pub fn tag(&self) -> u64 {
        tag::of_backend(&self.id)
    }

    /// Of weight 1 and ready, nowhere in particular, and never seen before.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>, address: SocketAddr) -> Self {
        Self {
            id: id.into(),
            address,
            weight: 1,
            priority: 0,
            zone: Arc::default(),
            hints: Hints::default(),
            state: BackendState::Ready,
            standing: Standing::default(),
            live: Arc::default(),
        }
    }
}

/// An EndpointSlice's topology hints: zones and nodes whose clients should use a backend. Empty where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones`.
    pub zones: Arc<[Arc<str>]>,
    /// `forNodes`.
    pub nodes: Arc<[Arc<str>]>,
}

/// What the control plane says of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// Takes requests.
    Ready,
    /// Keeps what it has, takes nothing new while another backend is ready.
    Draining,
}

/// What health checks and ejection found of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may take requests.
    pub is_available: bool,
    /// The part of its weight that it keeps, 0 to 1000: 1000 is all, less a gray failure's part, 0 as not available.
    pub weight_permille: u16,
    /// When it became available, for slow start; `None` when that is long ago or does not matter.
    pub available_since: Option<Duration>,
}

impl Default for Standing {
    /// Available for long, at full weight.
    fn default() -> Self {
        Self { is_available: true, weight_permille: 1000, available_since: None }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn backend(id: &str, weight: u32, state: BackendState) -> Backend {
        Backend { weight, state, ..Backend::new(id, ([127, 0, 0, 1], 80).into()) }
    }

    pub(crate) fn policy(algorithm: Algorithm, eligibility: Eligibility) -> SetPolicy {
        SetPolicy { eligibility, ..SetPolicy::new(algorithm) }
    }
}
