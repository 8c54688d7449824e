//! The backends of one set: of a port of a Service, or written in the pool.
//!
//! Apart from the pool's configuration, so that an EndpointSlice event compiles its own sets and nothing else.

use super::check::{Check, quoted};
use super::references::{Target, is_permitted, not_permitted};
use super::slices::{Slices, is_tcp};
use super::{ObjectKey, Objects, Reason, Warning};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use weir_crds::pool as spec;
use weir_proto::digest;
use weir_proto::push::{Backend, BackendState, UpstreamProtocol};

/// Values of `appProtocol` that mean HTTP/1.1.
const HTTP1: [&str; 3] = ["http", "ws", "kubernetes.io/ws"];
/// Values of `appProtocol` that mean HTTP/2 with prior knowledge (KEP-3726), which gRPC needs.
const HTTP2: [&str; 3] = ["kubernetes.io/h2c", "h2c", "grpc"];

/// Ports of a Service that a sentence spells out.
const PORTS_SPELLED_MAX: usize = 16;

/// Where the backends of a set come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SetSource {
    /// The endpoints of a Service.
    Service {
        /// In the pool, for messages: `spec.backendSets[0].service`.
        field: String,
        /// Of the pool's namespace, or of one that has to permit it.
        service: ObjectKey,
        /// Of the Service.
        port: PortName,
        /// What backends are spoken to in, whatever the Service and its slices say.
        protocol: Option<UpstreamProtocol>,
    },
    /// Written in the pool.
    Static {
        /// In the order of their ids.
        backends: Vec<Backend>,
        /// What they are spoken to in.
        protocol: UpstreamProtocol,
    },
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortName {
    /// `spec.ports[].port`.
    Number(u16),
    /// `spec.ports[].name`.
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
}

/// Compiles what a set holds now, and what is to be said of it.
#[must_use]
pub fn resolve(pool: &ObjectKey, source: &SetSource, objects: &Objects) -> Resolved {
    match source {
        SetSource::Static { backends, protocol } => Resolved {
            content: BackendSetContent::new(backends.clone()),
            protocol: *protocol,
            warnings: Vec::new(),
        },
        SetSource::Service { field, service, port, protocol } => {
            let (content, said, faults) = match service_port(pool, service, port, objects) {
                Ok((families, port)) => of_port(service, families, port, objects),
                Err(fault) => (BackendSetContent::default(), None, vec![fault]),
            };
            // Whoever writes the protocol down knows better than what speaks of it otherwise.
            let is_written = protocol.is_some();
            let faults =
                faults.into_iter().filter(|fault| !is_written || fault.reason != Reason::UnsupportedProtocol);
            Resolved {
                content,
                protocol: protocol.or(said).unwrap_or(UpstreamProtocol::Http1),
                warnings: faults.map(|fault| fault.warning(pool, field)).collect(),
            }
        }
    }
}

fn of_port(
    service: &ObjectKey,
    families: &[String],
    port: &ServicePort,
    objects: &Objects,
) -> (BackendSetContent, Option<UpstreamProtocol>, Vec<Fault>) {
    let slices = Slices { service, slices: objects.slices_of(service).collect(), families, port };
    let (content, said, mut faults) = slices.read();
    let Some(protocol) = port.app_protocol.as_deref() else { return (content, said, faults) };
    let spoken = spoken(protocol);
    if spoken.is_none() {
        faults.push(Fault::unspoken(port, protocol, "its Service"));
    }
    (content, spoken, faults)
}

/// What is wrong with what a set's source points to.
pub(super) struct Fault {
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
        Warning {
            pool: pool.clone(),
            field: format!("{field}.{}", self.subfield),
            value: self.value,
            rule: self.rule,
            reason: self.reason,
        }
    }
}

fn service_port<'a>(
    pool: &ObjectKey,
    key: &ObjectKey,
    port: &PortName,
    objects: &'a Objects,
) -> Result<(&'a [String], &'a ServicePort), Fault> {
    let fault = |subfield, value, rule: String, reason| Fault {
        subfield,
        value,
        rule: format!("{rule} (the set is empty, its requests are answered 503)"),
        reason,
    };
    let unresolved = |subfield, value, rule: String| fault(subfield, value, rule, Reason::BackendNotFound);
    if !is_permitted(&pool.namespace, Target::Service, key, objects) {
        let rule = not_permitted(&pool.namespace, Target::Service, key);
        return Err(fault("namespace", quoted(&key.namespace), rule, Reason::RefNotPermitted));
    }
    let Some(service) = objects.services.get(key) else {
        let rule = format!(
            "is not the name of a Service in namespace {:?}: create it or correct the name",
            key.namespace
        );
        return Err(unresolved("name", quoted(&key.name), rule));
    };
    if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let rule = "is a Service of type ExternalName, which has no endpoints: use one that selects pods";
        return Err(unresolved("name", quoted(&key.name), rule.to_owned()));
    }
    let shown = match port {
        PortName::Number(number) => number.to_string(),
        PortName::Name(name) => quoted(name),
    };
    let ports = ports(service);
    let is_meant = |candidate: &&ServicePort| match port {
        PortName::Number(number) => {
            candidate.port == i32::from(*number) && is_tcp(candidate.protocol.as_deref())
        }
        PortName::Name(name) => candidate.name.as_deref() == Some(name),
    };
    match ports.iter().find(is_meant) {
        None => {
            let rule = format!("is not a TCP port of Service {key}: use one of {}", spelled(ports));
            Err(unresolved("port", shown, rule))
        }
        Some(found) if !is_tcp(found.protocol.as_deref()) => {
            let rule = format!("is not a TCP port of Service {key}: use one with protocol TCP");
            Err(unresolved("port", shown, rule))
        }
        Some(found) => Ok((families(service), found)),
    }
}

fn families(service: &Service) -> &[String] {
    service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default()
}

/// What backends are spoken to in, by its name in `appProtocol`; `None` where they cannot be.
pub(super) fn spoken(protocol: &str) -> Option<UpstreamProtocol> {
    if HTTP1.contains(&protocol) {
        return Some(UpstreamProtocol::Http1);
    }
    HTTP2.contains(&protocol).then_some(UpstreamProtocol::Http2)
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn spelled(ports: &[ServicePort]) -> String {
    let spelled: Vec<_> = ports
        .iter()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .take(PORTS_SPELLED_MAX)
        .map(|port| match port.name.as_deref().filter(|name| name.len() <= spec::NAME_BYTES_MAX) {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    if spelled.is_empty() { "its ports, of which it has none".to_owned() } else { spelled.join(", ") }
}

/// Reads a set's addresses; `None` where one of them is wrong.
pub(super) fn static_backends(
    field: &str,
    source: &spec::StaticSource,
    protocol: Option<UpstreamProtocol>,
    check: &mut Check,
) -> Option<SetSource> {
    check.count(field, &source.backends, (0, spec::STATIC_BACKENDS_MAX));
    let (mut addresses, mut compiled) = (BTreeSet::new(), Vec::new());
    for (index, entry) in source.backends.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if let Some(name) = &entry.name {
            check.name(&format!("{field}.name"), name);
        }
        let ip = check.address(&format!("{field}.address"), &entry.address);
        let port = check.port(&format!("{field}.port"), entry.port);
        let weight = check.number(&format!("{field}.weight"), entry.weight, spec::BACKEND_WEIGHT_MAX);
        let priority = check.number(&format!("{field}.priority"), entry.priority, spec::PRIORITY_MAX);
        if let (Some(ip), Some(port), Some(weight), Some(priority)) = (ip, port, weight, priority) {
            let address = SocketAddr::new(ip, port);
            check.unique(&mut addresses, address, format!("{field}.address"), address);
            compiled.push(Backend {
                id: address.to_string(),
                address: address.to_string(),
                weight,
                priority,
                state: BackendState::Ready.into(),
                ..Backend::default()
            });
        }
    }
    let is_whole = compiled.len() == source.backends.len();
    compiled.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let protocol = protocol.unwrap_or(UpstreamProtocol::Http1);
    is_whole.then_some(SetSource::Static { backends: compiled, protocol })
}
