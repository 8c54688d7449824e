//! The backends in a Service's EndpointSlices (KEP-752), read as kube-proxy reads them.
//!
//! * **Conditions** (KEP-1672, KEP-1669). Ready, or nothing said of it: takes requests; what `publishNotReadyAddresses`
//!   or a mirrored `Endpoints` object means is in there already. Not ready, serving and terminating: drains, and is the
//!   last resort of its set. Anything else takes nothing and is left out.
//! * **Ports.** A slice knows the target port under the name of the Service's port, and each slice may have another
//!   number: pods of several versions name their ports alike. What is not TCP is another port of that name. A port
//!   without a number would mean every port, which says nothing of where to connect to.
//! * **Addresses.** The first of an endpoint; no meaning is defined for the others. Slices of one family: each pod of a
//!   dual-stack Service is in a slice of either, and would count twice. The family is the first of the Service's own
//!   that has a backend, or else that of the slices' names, so that a Service that changes its family has backends all
//!   the way. FQDN slices have no defined meaning at all.
//! * **Merging.** Each address and port once. An endpoint moves between slices, and both are seen for a while: ready
//!   goes before draining, and then more is known before less, so that the order of slices decides nothing.
//! * **Hints** (KEP-2433, KEP-3015). Handed on as they are, sorted; whether to follow them is the picker's to say.
//!
//! What cannot be used is left out with one sentence for each kind of fault, however many endpoints have it.

use super::{BackendSetContent, Fault, spoken};
use crate::compile::check::quoted;
use crate::compile::pool::key_of;
use crate::compile::{ObjectKey, Reason, Transport};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use weir_proto::limits::{BACKENDS_PER_SET_MAX, HINTS_MAX, NODE_NAME_BYTES_MAX, ZONE_BYTES_MAX};
use weir_proto::push::{Backend, BackendState, UpstreamProtocol};

/// An IP family, which a slice is of as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// A use of the slices of one Service.
pub(super) struct Slices<'a> {
    pub(super) service: &'a ObjectKey,
    /// In the order of their names.
    pub(super) slices: Vec<&'a EndpointSlice>,
    /// The Service's own, the one that matters more first; may be empty.
    pub(super) families: &'a [String],
    /// Of the Service.
    pub(super) port: &'a ServicePort,
    /// What that is of.
    pub(super) transport: Transport,
    /// What it means that there are no backends.
    pub(super) consequence: &'static str,
}

/// What was found under one address. The greater of two is the one to keep.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found<'a> {
    is_ready: bool,
    zone: &'a str,
    node: &'a str,
    hint_zones: Vec<&'a str>,
    hint_nodes: Vec<&'a str>,
}

/// Faults of one kind.
#[derive(Default)]
struct Tally {
    count: usize,
    first: String,
}

/// Everything that was found odd in slices.
#[derive(Default)]
struct Oddities {
    addresses: Tally,
    ports: Tally,
    types: Tally,
    /// Whether some slice has the Service's port, be its number right or wrong.
    has_port: bool,
    /// Whether some endpoint would take requests if it had the port.
    has_endpoint: bool,
    /// What slices say is spoken, where the Service's port says nothing; the first slice that says each.
    app_protocols: BTreeMap<Option<UpstreamProtocol>, (String, ObjectKey)>,
}

impl Slices<'_> {
    /// The backends, what they speak as far as slices say it, and what of the slices cannot be used.
    pub(super) fn read(&self) -> (BackendSetContent, Option<UpstreamProtocol>, Vec<Fault>) {
        let mut oddities = Oddities::default();
        let mut tried = Vec::new();
        let found = self.slices.iter().filter_map(|slice| {
            let family = Family::of(&slice.address_type);
            if family.is_none() {
                oddities.types.add(|| {
                    format!("{} is of type {}", key_of(&slice.metadata), quoted(&slice.address_type))
                });
            }
            family
        });
        let found: Vec<_> = found.collect();
        let stated = self.families.iter().filter_map(|family| Family::of(family));
        let mut backends = Vec::new();
        for family in stated.chain(found) {
            if backends.is_empty() && !tried.contains(&family) {
                tried.push(family);
                backends = self.of_family(family, &mut oddities);
            }
        }
        let mut faults = self.faults(&oddities, backends.is_empty());
        faults.extend(
            cut(&mut backends)
                .map(|rule| Fault { reason: Reason::LimitReached, ..self.about_endpoints(rule) }),
        );
        (BackendSetContent::new(backends), oddities.spoken(), faults)
    }

    fn of_family(&self, family: Family, oddities: &mut Oddities) -> Vec<Backend> {
        let mut merged: BTreeMap<SocketAddr, Found<'_>> = BTreeMap::new();
        let slices = self.slices.iter().filter(|slice| Family::of(&slice.address_type) == Some(family));
        for slice in slices {
            let ports = self.target_ports(slice, oddities);
            for endpoint in &slice.endpoints {
                let Some(state) = state(endpoint) else { continue };
                oddities.has_endpoint = true;
                let Some(ip) = family.address(endpoint) else {
                    oddities.addresses.add(|| {
                        let address = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
                        format!("in EndpointSlice {} {} is", key_of(&slice.metadata), quoted(address))
                    });
                    continue;
                };
                for &port in &ports {
                    let found = Found::new(endpoint, state);
                    let address = SocketAddr::new(ip, port);
                    if merged.get(&address).is_none_or(|there| *there < found) {
                        merged.insert(address, found);
                    }
                }
            }
        }
        merged.into_iter().map(|(address, found)| found.backend(address)).collect()
    }

    /// Numbers under the name of the Service's port.
    fn target_ports(&self, slice: &EndpointSlice, oddities: &mut Oddities) -> Vec<u16> {
        let name = self.port.name.as_deref().unwrap_or_default();
        let named = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == name
                && Transport::of(port.protocol.as_deref()) == Some(self.transport)
        });
        let mut numbers = Vec::new();
        for port in named {
            oddities.has_port = true;
            if let Some(protocol) = app_protocol(self.port, port) {
                let said = || (protocol.to_owned(), key_of(&slice.metadata));
                oddities.app_protocols.entry(spoken(protocol)).or_insert_with(said);
            }
            match port.port.map(u16::try_from) {
                Some(Ok(number)) if number > 0 => numbers.push(number),
                _ => oddities.ports.add(|| {
                    let number =
                        port.port.map_or_else(|| "no number".to_owned(), |number| number.to_string());
                    format!("EndpointSlice {} has {number}", key_of(&slice.metadata))
                }),
            }
        }
        numbers
    }

    fn faults(&self, oddities: &Oddities, is_empty: bool) -> Vec<Fault> {
        let Oddities { addresses, ports, types, .. } = oddities;
        let mut faults = Vec::new();
        let spoken = oddities.spoken();
        let unspoken = oddities.app_protocols.iter().filter(|(said, _)| **said != spoken || said.is_none());
        for (_, (protocol, slice)) in unspoken {
            faults.push(Fault::unspoken(self.port, protocol, &format!("EndpointSlice {slice}")));
        }
        if types.count > 0 {
            faults.push(self.about_endpoints(format!(
                "has EndpointSlices without IP addresses ({}, of which {}), which are ignored: use IPv4 or IPv6",
                types.count, types.first
            )));
        }
        if addresses.count > 0 {
            faults.push(self.about_endpoints(format!(
                "has endpoints that cannot be used ({}): {} not an address of the slice's type; correct it, the others serve",
                addresses.count, addresses.first
            )));
        }
        if ports.count > 0 {
            faults.push(self.about_port(format!(
                "is in EndpointSlices that cannot be used ({}): {}, which is not a port; use 1 to 65535, the others serve",
                ports.count, ports.first
            ), Reason::InvalidEndpoints));
        }
        if is_empty && oddities.has_endpoint && !oddities.has_port {
            let name = quoted(self.port.name.as_deref().unwrap_or_default());
            faults.push(self.about_port(format!(
                "is a port of Service {} that none of its endpoints has under the name {name}: give the pods or the \
                 EndpointSlices a {} port of that name ({})",
                self.service, self.transport, self.consequence
            ), Reason::BackendNotFound));
        }
        faults
    }

    fn about_endpoints(&self, rule: String) -> Fault {
        Fault { subfield: "name", value: quoted(&self.service.name), rule, reason: Reason::InvalidEndpoints }
    }

    fn about_port(&self, rule: String, reason: Reason) -> Fault {
        Fault { subfield: "port", value: self.port.port.to_string(), rule, reason }
    }
}

impl Oddities {
    /// HTTP/2 where slices say that and nothing else, for a set is spoken to in one protocol.
    fn spoken(&self) -> Option<UpstreamProtocol> {
        let mut said = self.app_protocols.keys();
        match (said.next(), said.next()) {
            (Some(only), None) => *only,
            (None, _) => None,
            (Some(_), Some(_)) => Some(UpstreamProtocol::Http1),
        }
    }
}

impl Family {
    fn of(address_type: &str) -> Option<Self> {
        match address_type {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    fn address(self, endpoint: &Endpoint) -> Option<IpAddr> {
        let first = endpoint.addresses.first()?;
        match self {
            Self::V4 => first.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Self::V6 => first.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    }
}

impl<'a> Found<'a> {
    fn new(endpoint: &'a Endpoint, state: BackendState) -> Self {
        let hints = endpoint.hints.as_ref();
        let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
        Self {
            is_ready: state == BackendState::Ready,
            zone: bounded(endpoint.zone.as_deref(), ZONE_BYTES_MAX),
            node: bounded(endpoint.node_name.as_deref(), NODE_NAME_BYTES_MAX),
            hint_zones: sorted(zones.iter().map(|zone| bounded(Some(&zone.name), ZONE_BYTES_MAX))),
            hint_nodes: sorted(nodes.iter().map(|node| bounded(Some(&node.name), NODE_NAME_BYTES_MAX))),
        }
    }

    /// A pod has no hints: they are made for all endpoints of a Service together.
    pub(super) fn of_pod(state: BackendState, zone: &'a str, node: &'a str) -> Self {
        Self {
            is_ready: state == BackendState::Ready,
            zone: bounded(Some(zone), ZONE_BYTES_MAX),
            node: bounded(Some(node), NODE_NAME_BYTES_MAX),
            hint_zones: Vec::new(),
            hint_nodes: Vec::new(),
        }
    }

    pub(super) fn backend(self, address: SocketAddr) -> Backend {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let state = if self.is_ready { BackendState::Ready } else { BackendState::Draining };
        let address = address.to_string();
        Backend {
            id: address.clone(),
            address,
            weight: 1,
            zone: self.zone.to_owned(),
            state: state.into(),
            node: self.node.to_owned(),
            hint_zones: owned(self.hint_zones),
            hint_nodes: owned(self.hint_nodes),
            priority: 0,
        }
    }
}

/// Leaves as many as a set may have: ready ones first, then by priority and id, so that few change when one more comes. Says so where
/// some were left out.
pub(super) fn cut(backends: &mut Vec<Backend>) -> Option<String> {
    let count = backends.len();
    if count <= BACKENDS_PER_SET_MAX {
        return None;
    }
    let order = |backend: &Backend| backend.state() != BackendState::Ready;
    backends.sort_unstable_by(|a, b| {
        order(a).cmp(&order(b)).then(a.priority.cmp(&b.priority)).then_with(|| a.id.cmp(&b.id))
    });
    backends.truncate(BACKENDS_PER_SET_MAX);
    Some(format!(
        "has {count} endpoints, more than the {BACKENDS_PER_SET_MAX} that a set takes, of which ready ones and then \
         smaller addresses go first: divide it into several"
    ))
}

impl Tally {
    fn add(&mut self, describe: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = describe();
        }
        self.count += 1;
    }
}

/// The protocol that a slice's port names. Where the Service's port names one, that is the one that counts: its author
/// is the one who says what the Service is.
fn app_protocol<'a>(service: &ServicePort, slice: &'a EndpointPort) -> Option<&'a str> {
    slice.app_protocol.as_deref().filter(|_| service.app_protocol.is_none())
}

/// `None` for an endpoint that takes nothing. What is not said reads as the API documents it.
fn state(endpoint: &Endpoint) -> Option<BackendState> {
    let conditions = endpoint.conditions.as_ref();
    let said = |condition: Option<bool>, otherwise| condition.unwrap_or(otherwise);
    let is_ready = said(conditions.and_then(|conditions| conditions.ready), true);
    let is_serving = said(conditions.and_then(|conditions| conditions.serving), true);
    let is_terminating = said(conditions.and_then(|conditions| conditions.terminating), false);
    match (is_ready, is_serving && is_terminating) {
        (true, _) => Some(BackendState::Ready),
        (false, true) => Some(BackendState::Draining),
        (false, false) => None,
    }
}

/// A name that is longer than any real one is no name: it would only be carried to every proxy.
fn bounded(name: Option<&str>, bytes_max: usize) -> &str {
    name.filter(|name| name.len() <= bytes_max).unwrap_or_default()
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(HINTS_MAX);
    names
}
