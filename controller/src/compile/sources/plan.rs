//! What a specification says of its sets' sources.

use super::pods::PodsSource;
use super::remote::RemoteSource;
use super::service::ServiceSource;
use super::{PortName, SetSource, dns, written};
use crate::compile::ObjectKey;
use crate::compile::check::{Check, quoted};
use crate::compile::{RemoteService, Selector, Transport, layer4, policy, pool};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use weir_crds::pool as spec;
use weir_crds::{LoadBalancerPool, LoadBalancerPoolSpec};
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
        let protocol = set.protocol.map(policy::protocol);
        // Whatever a Service says of its port: nothing is read of what goes there.
        let protocol =
            protocol.or_else(|| layer4::is_alone(spec, &set.name).then_some(UpstreamProtocol::Http1));
        let transport =
            if layer4::is_of_datagrams(spec, &set.name) { Transport::Udp } else { Transport::Tcp };
        let source = of_set(key, &field, set, (protocol, transport), check);
        compiled.extend(source.map(|source| (set.name.clone(), source)));
    }
    compiled
}

fn of_set(
    key: &ObjectKey,
    field: &str,
    set: &spec::BackendSet,
    (protocol, transport): (Option<UpstreamProtocol>, Transport),
    check: &mut Check,
) -> Option<SetSource> {
    let kinds = [
        ("service", set.service.is_some()),
        ("endpointSelector", set.endpoint_selector.is_some()),
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
        return of_service(key, &format!("{field}.service"), service, (protocol, transport), check)
            .map(SetSource::Service);
    }
    if let Some(name) = &set.dns {
        return dns::plan(&format!("{field}.dns"), name, protocol, check).map(SetSource::Dns);
    }
    if let Some(selector) = &set.endpoint_selector {
        return of_pods(key, &format!("{field}.endpointSelector"), selector, (protocol, transport), check)
            .map(SetSource::Pods);
    }
    let addresses = set.static_backends.as_ref()?;
    written::plan(&format!("{field}.static.backends"), addresses, protocol, check).map(SetSource::Static)
}

fn of_service(
    key: &ObjectKey,
    field: &str,
    service: &spec::ServiceSource,
    (protocol, transport): (Option<UpstreamProtocol>, Transport),
    check: &mut Check,
) -> Option<ServiceSource> {
    check.object_name(&format!("{field}.name"), &service.name);
    if let Some(namespace) = &service.namespace {
        check.name(&format!("{field}.namespace"), namespace);
    }
    let port = port(&format!("{field}.port"), &service.port, check);
    let priority = check.number(&format!("{field}.priority"), service.priority, spec::PRIORITY_MAX);
    let clusters = clusters(key, &format!("{field}.clusters"), service, check);
    let service = service_key(key, service);
    let (field, port, priority) = (field.to_owned(), port?, priority?);
    Some(ServiceSource { field, service, port, protocol, transport, priority, clusters })
}

fn clusters(
    key: &ObjectKey,
    field: &str,
    service: &spec::ServiceSource,
    check: &mut Check,
) -> Vec<RemoteSource> {
    check.count(field, &service.clusters, (0, spec::CLUSTERS_MAX));
    let (mut names, mut clusters) = (BTreeSet::new(), Vec::new());
    for (index, other) in service.clusters.iter().enumerate() {
        let field = format!("{field}[{index}]");
        check.name(&format!("{field}.name"), &other.name);
        check.unique(&mut names, &other.name, format!("{field}.name"), quoted(&other.name));
        check.object_name(&format!("{field}.kubeconfigRef.name"), &other.kubeconfig_ref.name);
        check.secret_key(&format!("{field}.kubeconfigRef.key"), &other.kubeconfig_ref.key);
        if let Some(namespace) = &other.namespace {
            check.name(&format!("{field}.namespace"), namespace);
        }
        let priority = check.number(&format!("{field}.priority"), other.priority, spec::PRIORITY_MAX);
        let remote = RemoteService::of(key, service, other);
        clusters.extend(priority.map(|priority| RemoteSource {
            field,
            name: other.name.clone(),
            remote,
            priority,
        }));
    }
    clusters
}

fn of_pods(
    key: &ObjectKey,
    field: &str,
    selector: &spec::EndpointSelector,
    (protocol, transport): (Option<UpstreamProtocol>, Transport),
    check: &mut Check,
) -> Option<PodsSource> {
    let port = port(&format!("{field}.port"), &selector.port, check);
    let selector = Selector::read(&key.namespace, field, selector, check)?;
    let protocol = protocol.unwrap_or(UpstreamProtocol::Http1);
    Some(PodsSource { field: field.to_owned(), selector, port: port?, transport, protocol })
}

fn port(field: &str, port: &IntOrString, check: &mut Check) -> Option<PortName> {
    match port {
        IntOrString::Int(number) => check.port(field, *number).map(PortName::Number),
        IntOrString::String(name) => {
            check.name(field, name);
            Some(PortName::Name(name.clone()))
        }
    }
}

/// The selectors that a pool names, each once. Those are to be watched; one that is not right is none.
pub(crate) fn selectors_of(pool: &LoadBalancerPool) -> BTreeSet<Selector> {
    let key = pool::key_of(&pool.metadata);
    let written = pool.spec.backend_sets.iter().filter_map(|set| set.endpoint_selector.as_ref());
    let read = |written| Selector::read(&key.namespace, "", written, &mut Check::new(key.clone()));
    written.take(spec::BACKEND_SETS_MAX).filter_map(read).collect()
}

fn service_key(pool: &ObjectKey, service: &spec::ServiceSource) -> ObjectKey {
    let namespace = service.namespace.as_deref().unwrap_or(&pool.namespace);
    ObjectKey::new(namespace, service.name.as_str())
}

/// Where a set's members come from: written addresses are part of the specification, endpoints are not.
pub(in crate::compile) fn named(key: &ObjectKey, set: &spec::BackendSet) -> String {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    match (&set.service, &set.endpoint_selector, &set.static_backends, &set.dns) {
        (Some(service), ..) => {
            let own = format!("service {}:{}", service_key(key, service), port(&service.port));
            let own = if service.priority == 0 { own } else { format!("{own}p{}", service.priority) };
            let other = |other: &spec::OtherCluster| {
                let there = RemoteService::of(key, service, other).service;
                format!(" {}={}p{}", other.name, there.namespace, other.priority)
            };
            own + &service.clusters.iter().map(other).collect::<String>()
        }
        (None, Some(selector), ..) => {
            // Where it is wrong, so is the pool, and this goes nowhere.
            let query = Selector::of(&key.namespace, selector).query();
            format!("pods {}:{query}:{}", key.namespace, port(&selector.port))
        }
        (None, None, Some(written), _) => {
            let address = |backend: &spec::StaticBackend| {
                format!("{}:{}*{}p{}", backend.address, backend.port, backend.weight, backend.priority)
            };
            format!("static {}", written.backends.iter().map(address).collect::<Vec<_>>().join(" "))
        }
        (None, None, None, Some(name)) => format!("dns {}:{}", name.hostname, name.port),
        (None, None, None, None) => String::new(),
    }
}
