//! The backends of one set, from a Service's EndpointSlices or from addresses in the pool.
//!
//! Apart from the pool's configuration, so that an EndpointSlice event compiles its own sets and nothing else.

use super::check::Check;
use super::{ObjectKey, Objects, Reason, Warning};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use weir_crds::pool as spec;
use weir_proto::digest;
use weir_proto::push::{Backend, BackendState};

/// Values of `appProtocol` that say what backends are spoken to in.
const SPOKEN: [&str; 3] = ["http", "ws", "kubernetes.io/ws"];

/// Where the backends of a set come from.
#[derive(Debug, Clone, PartialEq)]
pub enum SetSource {
    /// The endpoints of a Service.
    Service {
        /// In the pool, for messages: `spec.backendSets[0].service`.
        field: String,
        /// Of the pool's namespace.
        service: ObjectKey,
        /// Of the Service.
        port: PortName,
    },
    /// Written in the pool, in the order of their ids.
    Static(Vec<Backend>),
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

/// Compiles what a set holds now, and what is to be said of it: why it is empty where its source could not be
/// resolved, or that its backends expect another protocol.
#[must_use]
pub fn content(
    pool: &ObjectKey,
    source: &SetSource,
    objects: &Objects,
) -> (BackendSetContent, Option<Warning>) {
    match source {
        SetSource::Static(backends) => (BackendSetContent::new(backends.clone()), None),
        SetSource::Service { field, service, port } => match service_port(service, port, objects) {
            Ok((families, port)) => {
                let slices: Vec<_> = objects.slices_of(service).collect();
                (from_slices(&slices, families, port), unspoken(port).map(|fault| fault.warning(pool, field)))
            }
            Err(fault) => (BackendSetContent::default(), Some(fault.warning(pool, field))),
        },
    }
}

/// Backends of a Service's slices of one address family: each pod of a dual-stack Service is in a slice of either,
/// and would count twice. The family is the first of `families` (the Service's own order, or else that of the slices'
/// names) that has a backend.
#[must_use]
pub fn from_slices(slices: &[&EndpointSlice], families: &[String], port: &ServicePort) -> BackendSetContent {
    let found = slices.iter().map(|slice| &slice.address_type);
    let mut tried = BTreeSet::new();
    let contents =
        families.iter().chain(found).filter(|family| tried.insert(family.as_str())).map(|family| {
            of_one_family(slices.iter().copied().filter(|slice| slice.address_type == *family), port)
        });
    contents.into_iter().find(|content| !content.backends.is_empty()).unwrap_or_default()
}

/// Merged, each address and port once, ready before draining where two slices disagree (an endpoint moves between
/// slices, and both are seen for a while).
fn of_one_family<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
) -> BackendSetContent {
    let mut backends: BTreeMap<String, Backend> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<u16> = slice_ports(slice, port).collect();
        for (endpoint, ip) in
            slice.endpoints.iter().filter_map(|endpoint| Some((endpoint, first_ip(endpoint)?)))
        {
            let Some(state) = state(endpoint) else { continue };
            for &port in &ports {
                let compiled = backend(SocketAddr::new(ip, port), 1, endpoint.zone.as_deref(), state);
                let is_better =
                    |there: &Backend| there.state() != BackendState::Ready && state == BackendState::Ready;
                if backends.get(&compiled.id).is_none_or(is_better) {
                    backends.insert(compiled.id.clone(), compiled);
                }
            }
        }
    }
    BackendSetContent::new(backends.into_values().collect())
}

/// What is wrong with what a set's source points to.
struct Fault {
    subfield: &'static str,
    value: String,
    rule: String,
    reason: Reason,
}

impl Fault {
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
    key: &ObjectKey,
    port: &PortName,
    objects: &'a Objects,
) -> Result<(&'a [String], &'a ServicePort), Fault> {
    let unresolved = |subfield, value, rule: String| Fault {
        subfield,
        value,
        rule: format!("{rule} (the set is empty, its requests are answered 503)"),
        reason: Reason::BackendNotFound,
    };
    let name = || format!("{:?}", key.name);
    let Some(service) = objects.services.get(key) else {
        let rule = "is not the name of a Service in this namespace: create it or correct the name";
        return Err(unresolved("name", name(), rule.to_owned()));
    };
    if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let rule = "is a Service of type ExternalName, which has no endpoints: use one that selects pods";
        return Err(unresolved("name", name(), rule.to_owned()));
    }
    let shown = match port {
        PortName::Number(number) => number.to_string(),
        PortName::Name(name) => format!("{name:?}"),
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

/// What a port says that its pods speak, where that is not the HTTP/1.1 that they get (KEP-3726).
fn unspoken(port: &ServicePort) -> Option<Fault> {
    let protocol = port.app_protocol.as_deref().filter(|protocol| !SPOKEN.contains(protocol))?;
    let rule = format!(
        "has appProtocol {protocol:?} in its Service, and backends are spoken to in HTTP/1.1 without TLS: use a port \
         that speaks it, or set appProtocol to http if this one does"
    );
    Some(Fault { subfield: "port", value: port.port.to_string(), rule, reason: Reason::UnsupportedProtocol })
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn spelled(ports: &[ServicePort]) -> String {
    let spelled: Vec<_> = ports
        .iter()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    if spelled.is_empty() { "its ports, of which it has none".to_owned() } else { spelled.join(", ") }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// The slice knows the target port under the name of the Service's port; each slice may have another number.
fn slice_ports<'a>(slice: &'a EndpointSlice, port: &'a ServicePort) -> impl Iterator<Item = u16> + 'a {
    let name = port.name.as_deref().unwrap_or_default();
    let ports = slice.ports.iter().flatten();
    ports
        .filter(move |candidate| candidate.name.as_deref().unwrap_or_default() == name)
        .filter(|candidate| is_tcp(candidate.protocol.as_deref()))
        .filter_map(|candidate| u16::try_from(candidate.port?).ok())
        .filter(|&port| port > 0)
}

/// No meaning is defined for the addresses after the first. An FQDN is not an address here.
fn first_ip(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

/// `None` for an endpoint that takes nothing. Absent conditions read as the API documents them.
fn state(endpoint: &Endpoint) -> Option<BackendState> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let is_ready = conditions.ready.unwrap_or(true);
    let is_serving = conditions.serving.unwrap_or(is_ready);
    if is_ready {
        Some(BackendState::Ready)
    } else if is_serving && conditions.terminating.unwrap_or(false) {
        Some(BackendState::Draining)
    } else {
        None
    }
}

fn backend(address: SocketAddr, weight: u32, zone: Option<&str>, state: BackendState) -> Backend {
    let address = address.to_string();
    Backend {
        id: address.clone(),
        address,
        weight,
        zone: zone.unwrap_or_default().to_owned(),
        state: state.into(),
    }
}

/// Reads a set's addresses; `None` where one of them is wrong.
pub(super) fn static_backends(
    field: &str,
    source: &spec::StaticSource,
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
        if let (Some(ip), Some(port), Some(weight)) = (ip, port, weight) {
            let address = SocketAddr::new(ip, port);
            check.unique(&mut addresses, address, format!("{field}.address"), address);
            compiled.push(backend(address, weight, None, BackendState::Ready));
        }
    }
    let is_whole = compiled.len() == source.backends.len();
    compiled.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    is_whole.then_some(SetSource::Static(compiled))
}
