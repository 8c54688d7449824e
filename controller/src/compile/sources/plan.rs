//! What a specification says of its sets' sources.

use super::service::ServiceSource;
use super::{PortName, SetSource, dns, written};
use crate::compile::ObjectKey;
use crate::compile::check::{Check, quoted};
use crate::compile::policy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use weir_crds::LoadBalancerPoolSpec;
use weir_crds::pool as spec;
use weir_proto::push::UpstreamProtocol;

/// Reads the source of each set, by the set's name; without those that are wrong.
pub(in crate::compile) fn planned(
    key: &ObjectKey,
    spec: &LoadBalancerPoolSpec,
    check: &mut Check,
) -> BTreeMap<String, SetSource> {
    check.count("spec.backendSets", &spec.backend_sets, (1, spec::BACKEND_SETS_MAX));
    let (mut names, mut compiled) = (BTreeSet::new(), BTreeMap::new());
    for (index, set) in spec.backend_sets.iter().enumerate() {
        let field = format!("spec.backendSets[{index}]");
        check.name(&format!("{field}.name"), &set.name);
        check.unique(&mut names, &set.name, format!("{field}.name"), quoted(&set.name));
        let source = of_set(key, &field, set, check);
        compiled.extend(source.map(|source| (set.name.clone(), source)));
    }
    compiled
}

fn of_set(key: &ObjectKey, field: &str, set: &spec::BackendSet, check: &mut Check) -> Option<SetSource> {
    let protocol = set.protocol.map(policy::protocol);
    let kinds = [
        ("service", set.service.is_some()),
        ("static", set.static_backends.is_some()),
        ("dns", set.dns.is_some()),
    ];
    let all = kinds.map(|(kind, _)| kind).join(", ");
    let written: Vec<_> = kinds.iter().filter(|(_, is_written)| *is_written).map(|(kind, _)| *kind).collect();
    match written[..] {
        [] => check.refuse(field, "", format!("has no backends: write exactly one of {all}")),
        [_] => {}
        _ => check.refuse(field, "", format!("has {}: write exactly one of {all}", written.join(" and "))),
    }
    if written.len() != 1 {
        return None;
    }
    if let Some(service) = &set.service {
        return of_service(key, &format!("{field}.service"), service, protocol, check)
            .map(SetSource::Service);
    }
    if let Some(name) = &set.dns {
        return dns::plan(&format!("{field}.dns"), name, protocol, check).map(SetSource::Dns);
    }
    let addresses = set.static_backends.as_ref()?;
    written::plan(&format!("{field}.static.backends"), addresses, protocol, check).map(SetSource::Static)
}

fn of_service(
    key: &ObjectKey,
    field: &str,
    service: &spec::ServiceSource,
    protocol: Option<UpstreamProtocol>,
    check: &mut Check,
) -> Option<ServiceSource> {
    check.object_name(&format!("{field}.name"), &service.name);
    if let Some(namespace) = &service.namespace {
        check.name(&format!("{field}.namespace"), namespace);
    }
    let port_field = format!("{field}.port");
    let port = match &service.port {
        IntOrString::Int(number) => PortName::Number(check.port(&port_field, *number)?),
        IntOrString::String(name) => {
            check.name(&port_field, name);
            PortName::Name(name.clone())
        }
    };
    Some(ServiceSource { field: field.to_owned(), service: service_key(key, service), port, protocol })
}

fn service_key(pool: &ObjectKey, service: &spec::ServiceSource) -> ObjectKey {
    let namespace = service.namespace.as_deref().unwrap_or(&pool.namespace);
    ObjectKey::new(namespace, service.name.as_str())
}

/// Where a set's members come from: written addresses are part of the specification, endpoints are not.
pub(in crate::compile) fn named(key: &ObjectKey, set: &spec::BackendSet) -> String {
    match (&set.service, &set.static_backends, &set.dns) {
        (Some(service), ..) => {
            let port = match &service.port {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name.clone(),
            };
            format!("service {}:{port}", service_key(key, service))
        }
        (None, Some(written), _) => {
            let address = |backend: &spec::StaticBackend| {
                format!("{}:{}*{}p{}", backend.address, backend.port, backend.weight, backend.priority)
            };
            format!("static {}", written.backends.iter().map(address).collect::<Vec<_>>().join(" "))
        }
        (None, None, Some(name)) => format!("dns {}:{}", name.hostname, name.port),
        (None, None, None) => String::new(),
    }
}
