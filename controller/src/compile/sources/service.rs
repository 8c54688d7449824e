//! The endpoints of a port of a Service.

use super::dns::Named;
use super::remote::{RemoteSource, join};
use super::slices::Slices;
use super::{BackendSetContent, EMPTY, Fault, PortName, Resolved, spoken};
use crate::compile::check::quoted;
use crate::compile::references::{Target, is_permitted, not_permitted};
use crate::compile::{ObjectKey, Objects, Reason, Transport};
use crate::dns::check_hostname;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use weir_crds::pool as spec;
use weir_proto::push::UpstreamProtocol;

/// Ports of a Service that a sentence spells out.
const PORTS_SPELLED_MAX: usize = 16;

/// A use of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSource {
    /// In the pool, for messages: `spec.backendSets[0].service`.
    pub field: String,
    /// Of the pool's namespace, or of one that has to permit it.
    pub service: ObjectKey,
    /// Of the Service.
    pub port: PortName,
    /// What backends are spoken to in, whatever the Service and its slices say.
    pub protocol: Option<UpstreamProtocol>,
    /// What the port is of.
    pub transport: Transport,
    /// Of the backends of this cluster.
    pub priority: u32,
    /// Other clusters that have the Service.
    pub clusters: Vec<RemoteSource>,
}

impl ServiceSource {
    pub(super) fn resolve(&self, pool: &ObjectKey, objects: &Objects) -> Resolved {
        let mut external = None;
        let found = self.service_port(pool, objects);
        let is_found = found.is_ok();
        let (mut content, mut said, faults) = match found {
            Ok(Found::Endpoints(families, port)) => {
                let slices = objects.slices_of(&self.service).collect();
                let service = &self.service;
                let (transport, consequence) = (self.transport, self.consequence());
                of_port(&Slices { service, slices, families, port, transport, consequence })
            }
            Ok(Found::External(name)) => {
                let resolved = name.resolve("name", &quoted(&self.service.name), objects);
                let faults = name.unspoken().into_iter().chain(resolved.faults).collect();
                external = Some((name.lookup, resolved.is_open));
                (resolved.content, name.said, faults)
            }
            Err(fault) => (BackendSetContent::default(), None, vec![fault]),
        };
        let mut warnings: Vec<_> = faults.into_iter().map(|fault| fault.warning(pool, &self.field)).collect();
        if self.priority > 0 {
            content.backends.iter_mut().for_each(|backend| backend.priority = self.priority);
            content = BackendSetContent::new(content.backends);
        }
        if !self.clusters.is_empty() {
            // The Service here says what is spoken, and those elsewhere only while there is none.
            let known = is_found.then_some(said.unwrap_or(UpstreamProtocol::Http1));
            let joined = join(self, pool, objects, content, self.protocol.or(known));
            (content, said) = (joined.content, joined.said);
            warnings.extend(joined.warnings);
        }
        // Whoever writes the protocol down knows better than what speaks of it otherwise.
        let is_written = self.protocol.is_some();
        warnings.retain(|warning| !is_written || warning.reason != Reason::UnsupportedProtocol);
        Resolved {
            content,
            protocol: self.protocol.or(said).unwrap_or(UpstreamProtocol::Http1),
            warnings,
            is_open: external.as_ref().is_some_and(|(_, is_open)| *is_open),
            name: external.map(|(lookup, _)| lookup),
        }
    }

    fn consequence(&self) -> &'static str {
        if self.clusters.is_empty() { EMPTY } else { "the set has no backends of this cluster" }
    }

    fn service_port<'a>(&self, pool: &ObjectKey, objects: &'a Objects) -> Result<Found<'a>, Fault> {
        let (key, port) = (&self.service, &self.port);
        let consequence = self.consequence();
        let fault = |subfield, value, rule: String, reason| Fault {
            subfield,
            value,
            rule: format!("{rule} ({consequence})"),
            reason,
        };
        let unresolved = |subfield, value, rule| fault(subfield, value, rule, Reason::BackendNotFound);
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
        if let Some(spec) = external_spec(service) {
            return external(key, spec, port, self.transport)
                .map(Found::External)
                .map_err(|(subfield, value, rule)| unresolved(subfield, value, rule));
        }
        match port_of(key, service, port, self.transport) {
            Ok(found) => Ok(Found::Endpoints(families(service), found)),
            Err((value, rule)) => Err(unresolved("port", value, rule)),
        }
    }
}

/// What a Service has behind its port.
enum Found<'a> {
    /// Endpoints, in families of its own.
    Endpoints(&'a [String], &'a ServicePort),
    /// A name in DNS.
    External(Named<'a>),
}

fn of_port(slices: &Slices<'_>) -> (BackendSetContent, Option<UpstreamProtocol>, Vec<Fault>) {
    let (content, said, mut faults) = slices.read();
    let port = slices.port;
    let Some(protocol) = port.app_protocol.as_deref() else { return (content, said, faults) };
    let spoken = spoken(protocol);
    if spoken.is_none() {
        faults.push(Fault::unspoken(port, protocol, "its Service"));
    }
    (content, spoken, faults)
}

/// The endpoints of a Service of another cluster, what they speak, and what is wrong with them.
pub(super) fn elsewhere(
    key: &ObjectKey,
    service: &Service,
    slices: Vec<&EndpointSlice>,
    (port, of): (&PortName, Transport),
    consequence: &'static str,
) -> (BackendSetContent, Option<UpstreamProtocol>, Vec<Fault>) {
    let fault = |subfield, value, rule: &str| {
        let rule = format!("{rule} ({consequence})");
        let fault = Fault { subfield, value, rule, reason: Reason::BackendNotFound };
        (BackendSetContent::default(), None, vec![fault])
    };
    if external_spec(service).is_some() {
        let rule = "is a Service of type ExternalName, which is not followed in other clusters: name what it names \
                    with dns";
        return fault("name", quoted(&key.name), rule);
    }
    match port_of(key, service, port, of) {
        Ok(port) => {
            let families = families(service);
            of_port(&Slices { service: key, slices, families, port, transport: of, consequence })
        }
        Err((value, rule)) => fault("port", value, &rule),
    }
}

fn external_spec(service: &Service) -> Option<&ServiceSpec> {
    service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"))
}

/// The port that is meant, or what is there instead and why that is wrong.
fn port_of<'a>(
    key: &ObjectKey,
    service: &'a Service,
    port: &PortName,
    of: Transport,
) -> Result<&'a ServicePort, (String, String)> {
    let shown = match port {
        PortName::Number(number) => number.to_string(),
        PortName::Name(name) => quoted(name),
    };
    let ports = ports(service);
    let is_meant = |candidate: &&ServicePort| match port {
        PortName::Number(number) => {
            candidate.port == i32::from(*number) && Transport::of(candidate.protocol.as_deref()) == Some(of)
        }
        PortName::Name(name) => candidate.name.as_deref() == Some(name),
    };
    match ports.iter().find(is_meant) {
        None => {
            let rule = format!("is not a {of} port of Service {key}: use one of {}", spelled(ports, of));
            Err((shown, rule))
        }
        Some(found) if Transport::of(found.protocol.as_deref()) != Some(of) => {
            let rule = format!("is not a {of} port of Service {key}: use one with protocol {of}");
            Err((shown, rule))
        }
        Some(found) => Ok(found),
    }
}

/// A Service of type ExternalName (which needs no ports) at one of its ports, or at a number.
fn external<'a>(
    key: &ObjectKey,
    spec: &'a ServiceSpec,
    port: &PortName,
    of: Transport,
) -> Result<Named<'a>, (&'static str, String, String)> {
    let named = spec.external_name.as_deref().unwrap_or_default();
    // As the cluster's DNS has it: the target of a CNAME, to which no search domain applies.
    let hostname = format!("{}.", named.strip_suffix('.').unwrap_or(named).to_ascii_lowercase());
    if let Err(error) = check_hostname(&hostname) {
        let rule =
            format!("is a Service of type ExternalName, and its spec.externalName {} {error}", quoted(named));
        return Err(("name", quoted(&key.name), rule));
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let found =
        ports.iter().filter(|port| Transport::of(port.protocol.as_deref()) == Some(of)).find(|candidate| {
            match port {
                PortName::Number(number) => candidate.port == i32::from(*number),
                PortName::Name(name) => candidate.name.as_deref() == Some(name),
            }
        });
    let number = |found: &ServicePort| u16::try_from(found.port).ok().filter(|number| *number > 0);
    let port = match port {
        PortName::Number(number) => *number,
        PortName::Name(name) => found.and_then(number).ok_or_else(|| {
            let rule = format!(
                "is not the name of a {of} port of Service {key}, which is of type ExternalName: use a number, or one of {}",
                spelled(ports, of)
            );
            ("port", quoted(name), rule)
        })?,
    };
    Ok(Named::of_service(hostname.into(), port, found))
}

fn families(service: &Service) -> &[String] {
    service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default()
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn spelled(ports: &[ServicePort], of: Transport) -> String {
    let spelled: Vec<_> = ports
        .iter()
        .filter(|port| Transport::of(port.protocol.as_deref()) == Some(of))
        .take(PORTS_SPELLED_MAX)
        .map(|port| match port.name.as_deref().filter(|name| name.len() <= spec::NAME_BYTES_MAX) {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    if spelled.is_empty() { "its ports, of which it has none".to_owned() } else { spelled.join(", ") }
}
