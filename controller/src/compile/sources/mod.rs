//! Where the backends of a set come from, one file for each kind of source, and what a set holds.
//!
//! Apart from the pool's configuration, so that an EndpointSlice event compiles its own sets and nothing else.

mod dns;
mod plan;
mod pods;
mod remote;
mod service;
mod slices;
mod written;

pub use dns::DnsSource;
pub(crate) use plan::selectors_of;
pub(super) use plan::{named, planned};
pub use pods::PodsSource;
pub use remote::RemoteSource;
pub use service::ServiceSource;
pub use written::StaticSource;

use super::check::quoted;
use super::{ObjectKey, Objects, Reason, RemoteService, Selector, Warning};
use crate::dns::Lookup;
use k8s_openapi::api::core::v1::ServicePort;
use weir_proto::digest;
use weir_proto::push::{Backend, UpstreamProtocol};

/// Values of `appProtocol` that mean HTTP/1.1.
const HTTP1: [&str; 3] = ["http", "ws", "kubernetes.io/ws"];
/// Values of `appProtocol` that mean HTTP/2 with prior knowledge (KEP-3726), which gRPC needs.
const HTTP2: [&str; 3] = ["kubernetes.io/h2c", "h2c", "grpc"];

/// Where the backends of a set come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SetSource {
    /// The endpoints of a Service.
    Service(ServiceSource),
    /// Pods with certain labels.
    Pods(PodsSource),
    /// Written in the pool.
    Static(StaticSource),
    /// The addresses of a name in DNS.
    Dns(DnsSource),
}

/// What a set's backends follow: where something changes there, the set is compiled again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A Service, or one of its EndpointSlices.
    Service(ObjectKey),
    /// A name in DNS, by what is asked for.
    Name(Lookup),
    /// The pods that a selector takes.
    Pods(Selector),
    /// A Service in another cluster, or one of its EndpointSlices.
    Remote(RemoteService),
}

impl SetSource {
    /// What its backends follow as the pool says it.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        let (own, others) = match self {
            Self::Service(source) => {
                (Some(Origin::Service(source.service.clone())), source.clusters.as_slice())
            }
            Self::Pods(source) => (Some(Origin::Pods(source.selector.clone())), [].as_slice()),
            Self::Static(_) => (None, [].as_slice()),
            Self::Dns(source) => (Some(Origin::Name(source.lookup.clone())), [].as_slice()),
        };
        own.into_iter().chain(others.iter().map(|other| Origin::Remote(other.remote.clone())))
    }

    /// Compiles what a set of this pool holds now, and what is to be said of it.
    #[must_use]
    pub fn resolve(&self, pool: &ObjectKey, objects: &Objects) -> Resolved {
        match self {
            Self::Service(source) => source.resolve(pool, objects),
            Self::Pods(source) => source.resolve(pool, objects),
            Self::Static(source) => source.resolve(),
            Self::Dns(source) => source.resolve(pool, objects),
        }
    }
}

impl Origin {
    /// Where what permits its use is written, as far as it needs that.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Service(service) => Some(&service.namespace),
            Self::Name(_) => None,
            // Always the pool's own, which permits itself.
            Self::Pods(_) => None,
            // By the credentials that the pool has for it.
            Self::Remote(_) => None,
        }
    }
}

/// A port of a Service, or of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortName {
    /// Of a Service: `spec.ports[].port`.
    Number(u16),
    /// Of a Service: `spec.ports[].name`.
    Name(String),
}

/// What a set holds. Two of one digest hold the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackendSetContent {
    /// [`weir_proto::digest::set`] of `backends`.
    pub digest: u64,
    /// In the order of their ids, each once.
    pub backends: Vec<Backend>,
}

impl BackendSetContent {
    /// Contents of these backends, whose ids differ.
    #[must_use]
    pub fn new(mut backends: Vec<Backend>) -> Self {
        backends.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Self { digest: digest::set(&backends), backends }
    }
}

/// What a source resolves to.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Who is in the set.
    pub content: BackendSetContent,
    /// What they are spoken to in: as the set says, or else the Service's port, or else its slices.
    pub protocol: UpstreamProtocol,
    /// Why the set is empty where its source could not be resolved, what of its endpoints cannot be used, or that its
    /// backends expect another protocol.
    pub warnings: Vec<Warning>,
    /// The name that the backends follow beside [`SetSource::origins`]: that of a Service of type ExternalName.
    pub name: Option<Lookup>,
    /// Nothing is known of a name yet, so that `content` is empty for want of an answer: what was there before stays.
    pub is_open: bool,
}

/// What it means for requests that a set has no backends.
const EMPTY: &str = "the set is empty, its requests are answered 503";

/// What is wrong with what a set's source points to.
pub(super) struct Fault {
    /// Empty for the source as a whole.
    pub(super) subfield: &'static str,
    pub(super) value: String,
    pub(super) rule: String,
    pub(super) reason: Reason,
}

impl Fault {
    /// Something says that a port's pods speak what they are not spoken to in (KEP-3726).
    pub(super) fn unspoken(port: &ServicePort, protocol: &str, said_by: &str) -> Self {
        let rule = format!(
            "has appProtocol {} in {said_by}, and backends are spoken to in HTTP/1.1 without TLS: use a port that speaks \
             it, or say the protocol of the backend set if this one does",
            quoted(protocol)
        );
        Self { subfield: "port", value: port.port.to_string(), rule, reason: Reason::UnsupportedProtocol }
    }

    fn warning(self, pool: &ObjectKey, field: &str) -> Warning {
        let field = match self.subfield {
            "" => field.to_owned(),
            subfield => format!("{field}.{subfield}"),
        };
        Warning { pool: pool.clone(), field, value: self.value, rule: self.rule, reason: self.reason }
    }
}

/// What backends are spoken to in, by its name in `appProtocol`; `None` where they cannot be.
pub(super) fn spoken(protocol: &str) -> Option<UpstreamProtocol> {
    if HTTP1.contains(&protocol) {
        return Some(UpstreamProtocol::Http1);
    }
    HTTP2.contains(&protocol).then_some(UpstreamProtocol::Http2)
}
