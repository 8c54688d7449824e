//! The endpoints of a port of a Service.

use super::dns::Named;
use super::slices::{Slices, is_tcp};
use super::{BackendSetContent, Fault, PortName, Resolved, spoken};
use crate::compile::check::quoted;
use crate::compile::references::{Target, is_permitted, not_permitted};
use crate::compile::{ObjectKey, Objects, Reason};
use crate::dns::check_hostname;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
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
}

impl ServiceSource {
    pub(super) fn resolve(&self, pool: &ObjectKey, objects: &Objects) -> Resolved {
        let mut external = None;
        let (content, said, faults) = match service_port(pool, &self.service, &self.port, objects) {
            Ok(Found::Endpoints(families, port)) => of_port(&self.service, families, port, objects),
            Ok(Found::External(name)) => {
                let resolved = name.resolve("name", &quoted(&self.service.name), objects);
                let faults = name.unspoken().into_iter().chain(resolved.faults).collect();
                external = Some((name.lookup, resolved.is_open));
                (resolved.content, name.said, faults)
            }
            Err(fault) => (BackendSetContent::default(), None, vec![fault]),
        };
        // Whoever writes the protocol down knows better than what speaks of it otherwise.
        let is_written = self.protocol.is_some();
        let faults =
            faults.into_iter().filter(|fault| !is_written || fault.reason != Reason::UnsupportedProtocol);
        Resolved {
            content,
            protocol: self.protocol.or(said).unwrap_or(UpstreamProtocol::Http1),
            warnings: faults.map(|fault| fault.warning(pool, &self.field)).collect(),
            is_open: external.as_ref().is_some_and(|(_, is_open)| *is_open),
            name: external.map(|(lookup, _)| lookup),
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

fn service_port<'a>(
    pool: &ObjectKey,
    key: &ObjectKey,
    port: &PortName,
    objects: &'a Objects,
) -> Result<Found<'a>, Fault> {
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
    if let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName")) {
        return external(key, spec, port)
            .map(Found::External)
            .map_err(|(subfield, value, rule)| unresolved(subfield, value, rule));
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
        Some(found) => Ok(Found::Endpoints(families(service), found)),
    }
}

/// A Service of type ExternalName (which needs no ports) at one of its ports, or at a number.
fn external<'a>(
    key: &ObjectKey,
    spec: &'a ServiceSpec,
    port: &PortName,
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
    let found = ports.iter().filter(|port| is_tcp(port.protocol.as_deref())).find(|candidate| match port {
        PortName::Number(number) => candidate.port == i32::from(*number),
        PortName::Name(name) => candidate.name.as_deref() == Some(name),
    });
    let number = |found: &ServicePort| u16::try_from(found.port).ok().filter(|number| *number > 0);
    let port = match port {
        PortName::Number(number) => *number,
        PortName::Name(name) => found.and_then(number).ok_or_else(|| {
            let rule = format!(
                "is not the name of a TCP port of Service {key}, which is of type ExternalName: use a number, or one of {}",
                spelled(ports)
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
