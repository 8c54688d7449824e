//! One pool's configuration: listeners, rules, and where the backends of each set come from.

use super::authorities;
use super::certificates::Certificates;
use super::check::{Check, quoted};
use super::layer4;
use super::limits;
use super::policy::{self, Policy};
use super::rules::{check_routes, rules};
use super::sources::{self, SetSource};
use super::{DEFAULT_NAMESPACE, DataPlane, ObjectKey, Objects, Rejection, Warning, client_address, front};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use weir_crds::pool as spec;
use weir_crds::{LoadBalancerPool, LoadBalancerPoolSpec};
use weir_proto::hosts::covers;
use weir_proto::limits::POOL_UPDATE_BYTES_MAX;
use weir_proto::push::{self, PoolConfig};

/// What a specification says, read once: all of it is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// For the wire, but for the protocols of the sets: they are in `sources`, and in what those lead to.
    pub config: PoolConfig,
    /// Which proxies serve it.
    pub data_plane: DataPlane,
    /// Where the backends of each set of `config` come from, by the set's name.
    pub sources: BTreeMap<String, SetSource>,
    /// Ports and hosts that the specification asks for, whether or not the listener could be compiled.
    pub claims: Vec<Claim>,
    /// What could not be resolved, with the field of the pool that points to it.
    pub warnings: Vec<Warning>,
    /// Whether a certificate was left out whose Secret is missing or broken.
    pub lacks_certificate: bool,
}

/// A port and host that a pool asks for: those of its listeners, and those that its rules narrow a listener to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Of the listener, for messages: `spec.listeners[0]`.
    pub listener: String,
    /// What names the host, for messages: the listener, or `spec.rules[0]`.
    pub field: String,
    /// Of TCP, or of UDP where that is spoken.
    pub port: u16,
    /// What is spoken there.
    pub protocol: push::Protocol,
    /// `None` for every host.
    pub hostname: Option<String>,
    /// What the listener says for all that share the port.
    pub settings: Vec<PortSetting>,
}

/// What holds for a port as a whole: where pools share one, the first of them that says it is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSetting {
    /// `limits`
    Limits,
    /// `paths`
    Paths,
    /// `proxyProtocol`
    ProxyProtocol,
}

impl PortSetting {
    /// The field of a listener.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Paths => "paths",
            Self::ProxyProtocol => "proxyProtocol",
        }
    }

    fn all_of(listener: &spec::Listener) -> Vec<Self> {
        let said = [
            (Self::Limits, listener.limits.is_some()),
            (Self::Paths, listener.paths.is_some()),
            (Self::ProxyProtocol, listener.proxy_protocol.is_some()),
        ];
        said.into_iter().filter_map(|(setting, is_said)| is_said.then_some(setting)).collect()
    }
}

/// Compiles a pool. `previous` is what it compiled to before: certificates are taken from there while their
/// Secret is missing or broken, or out of date by now, `now_s` seconds after 1970.
///
/// # Errors
/// Everything in the specification that is against a rule; its author can fix it.
pub fn plan(
    key: &ObjectKey,
    pool: &LoadBalancerPool,
    objects: &Objects,
    previous: Option<&PoolConfig>,
    now_s: i64,
) -> Result<Plan, Vec<Rejection>> {
    let mut check = Check::new(key.clone());
    let mut certificates = Certificates::new(key, objects, previous, now_s);
    let (mut listeners, claims) = listeners(&pool.spec, &mut check, &mut certificates);
    let created = pool.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    let is_of_port =
        |own: &push::Listener| own.limits.is_some() || own.paths.is_some() || own.proxy_protocol.is_some();
    for listener in listeners.iter_mut().filter(|own| is_of_port(own)) {
        listener.created_s = created.and_then(|second| u64::try_from(second).ok()).unwrap_or_default();
    }
    let sources = sources::planned(key, &pool.spec, &mut check);
    let mut rules = rules(&pool.spec, &mut check);
    policy::number_shared(&key.to_string(), &mut rules, &mut check);
    let backend_sets = backend_sets(key, &pool.spec, &mut check, &mut certificates);
    check_routes(&pool.spec, &mut check);
    let data_plane = DataPlane::new(key, pool.spec.data_plane.as_ref(), &mut check);
    let config = PoolConfig { pool: key.to_string(), listeners, rules, backend_sets };
    let bytes = config.encoded_len();
    if bytes > POOL_UPDATE_BYTES_MAX {
        let rule =
            format!("are more than a proxy takes: use fewer certificates, at most {POOL_UPDATE_BYTES_MAX}");
        check.refuse("spec", format!("{bytes} bytes of configuration"), rule);
    }
    let lacks_certificate = certificates.lacks_any();
    let warnings = certificates.into_warnings();
    check.finish(Plan { config, data_plane, sources, claims, warnings, lacks_certificate })
}

/// The key of an object: its namespace, or the default one, and its name.
#[must_use]
pub fn key_of(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectKey {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    ObjectKey::new(namespace.unwrap_or(DEFAULT_NAMESPACE), metadata.name.as_deref().unwrap_or_default())
}

/// The Secrets that a pool's listeners, the TLS and the other clusters of its sets name, whether or not it may use them.
pub(super) fn secrets_of(key: &ObjectKey, pool: &LoadBalancerPool) -> BTreeSet<ObjectKey> {
    let references = pool.spec.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let references = references.flat_map(|tls| &tls.certificate_refs);
    let references = references.chain(authorities::references(&pool.spec));
    let secrets = references.map(|reference| {
        let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
        ObjectKey::new(namespace, reference.name.as_str())
    });
    let services = pool.spec.backend_sets.iter().filter_map(|set| set.service.as_ref());
    let kubeconfigs = services
        .flat_map(|service| &service.clusters)
        .map(|other| ObjectKey::new(key.namespace.as_str(), other.kubeconfig_ref.name.as_str()));
    secrets.chain(kubeconfigs).collect()
}

fn listeners(
    spec: &LoadBalancerPoolSpec,
    check: &mut Check,
    certificates: &mut Certificates<'_>,
) -> (Vec<push::Listener>, Vec<Claim>) {
    check.count("spec.listeners", &spec.listeners, (1, spec::LISTENERS_MAX));
    let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let (mut compiled, mut claims) = (Vec::new(), Vec::new());
    for (index, listener) in spec.listeners.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        check.name(&format!("{field}.name"), &listener.name);
        check.unique(&mut names, &listener.name, format!("{field}.name"), quoted(&listener.name));
        check.hostnames(&format!("{field}.hostnames"), &listener.hostnames);
        check_tls(&field, listener, check);
        layer4::check_listener(&field, listener, check);
        let Some(port) = check.port(&format!("{field}.port"), listener.port) else { continue };
        let is_of_datagrams = listener.protocol == spec::Protocol::Udp;
        check.unique(&mut ports, (port, is_of_datagrams), format!("{field}.port"), port);
        claims.extend(claims_of(&field, listener, port, &spec.rules));
        let limits = listener.limits.as_ref();
        let limits = limits.map(|own| limits::of_listener(&format!("{field}.limits"), own, check));
        let client_address = listener.client_address.as_ref();
        let client_address =
            client_address.map(|own| client_address::compile(&format!("{field}.clientAddress"), own, check));
        let made = compile_listener(&field, listener, port, certificates);
        if let Some(listener) = front::compile(&field, listener, check, made) {
            compiled.push(push::Listener { limits, client_address, ..listener });
        }
    }
    (compiled, claims)
}

fn check_tls(field: &str, listener: &spec::Listener, check: &mut Check) {
    match (listener.protocol, &listener.tls) {
        (spec::Protocol::Http | spec::Protocol::Tcp | spec::Protocol::Udp, None) => {}
        (spec::Protocol::Tcp | spec::Protocol::Udp, Some(_)) => {
            let rule = format!("is not for protocol {}: remove it", layer4::name(listener.protocol));
            check.refuse(format!("{field}.tls"), "", rule);
        }
        (spec::Protocol::Http, Some(_)) => {
            let rule = "is not for protocol HTTP: remove it or set protocol to HTTPS";
            check.refuse(format!("{field}.tls"), "", rule);
        }
        (spec::Protocol::Https, None) => {
            let rule = "is missing: protocol HTTPS needs tls.certificateRefs";
            check.refuse(format!("{field}.tls"), "", rule);
        }
        (spec::Protocol::Tls, None) => {
            let rule = "is missing: protocol TLS needs tls.certificateRefs, or tls.mode Passthrough";
            check.refuse(format!("{field}.tls"), "", rule);
        }
        (_, Some(tls)) if tls.mode == Some(spec::TlsMode::Passthrough) => {
            layer4::check_passthrough(&format!("{field}.tls"), listener, tls, check);
        }
        (spec::Protocol::Https | spec::Protocol::Tls, Some(tls)) => {
            let refs = format!("{field}.tls.certificateRefs");
            check.count(&refs, &tls.certificate_refs, (1, spec::CERTIFICATES_MAX));
            authorities::check_references(&refs, &tls.certificate_refs, check);
            let is_modern = tls.cipher_policy == Some(spec::CipherPolicy::Modern);
            if is_modern && tls.min_version == Some(spec::TlsVersion::V1_2) {
                let rule =
                    "is not for cipherPolicy Modern, which is TLS 1.3 alone: remove it or set it to 1.3";
                check.refuse(format!("{field}.tls.minVersion"), "1.2", rule);
            }
            if let Some(own) = &tls.client_validation {
                authorities::check_clients(&format!("{field}.tls.clientValidation"), own, check);
            }
        }
    }
}

/// Each host once: requests for the host of a rule are that rule's, also where the listener takes every host.
fn claims_of(field: &str, listener: &spec::Listener, port: u16, rules: &[spec::Rule]) -> Vec<Claim> {
    let claim = |of: &str, hostname: Option<&str>| Claim {
        listener: field.to_owned(),
        field: of.to_owned(),
        port,
        protocol: protocol(listener),
        hostname: hostname.map(ToOwned::to_owned),
        settings: PortSetting::all_of(listener),
    };
    let hosts = &listener.hostnames;
    let mut claims: Vec<_> = hosts.iter().map(|host| claim(field, Some(host))).collect();
    if hosts.is_empty() {
        claims.push(claim(field, None));
    }
    let mut claimed: BTreeSet<&str> = hosts.iter().map(String::as_str).collect();
    let serving = rules.iter().enumerate().filter(|(_, rule)| layer4::serves(rule, listener));
    for (index, rule) in serving {
        for host in &rule.hostnames {
            let is_served = hosts.is_empty() || hosts.iter().any(|listener| covers(listener, host));
            if is_served && claimed.insert(host) {
                claims.push(claim(&format!("spec.rules[{index}]"), Some(host)));
            }
        }
    }
    claims
}

/// `None` where protocol HTTPS is left without a certificate, or without authorities to verify clients by.
fn compile_listener(
    field: &str,
    listener: &spec::Listener,
    port: u16,
    certificates: &mut Certificates<'_>,
) -> Option<push::Listener> {
    let tls = match &listener.tls {
        None => None,
        Some(_) if layer4::passes_tls_on(listener) => None,
        Some(tls) => {
            let pairs = certificates.of(&format!("{field}.tls.certificateRefs"), tls);
            let own = tls.client_validation.as_ref();
            let clients = own.map(|own| {
                authorities::of_clients(&format!("{field}.tls.clientValidation"), own, certificates)
            });
            if pairs.is_empty() || clients == Some(None) {
                return None;
            }
            Some(push::Tls { client_validation: clients.flatten(), ..tls_of(tls, pairs) })
        }
    };
    Some(push::Listener {
        name: listener.name.clone(),
        port: port.into(),
        protocol: protocol(listener).into(),
        hostnames: listener.hostnames.clone(),
        tls,
        paths: listener.paths.as_ref().map(limits::paths),
        ..push::Listener::default()
    })
}

fn tls_of(own: &spec::ListenerTls, certificates: Vec<push::Certificate>) -> push::Tls {
    let is_modern = own.cipher_policy == Some(spec::CipherPolicy::Modern);
    let min_version = match own.min_version {
        Some(spec::TlsVersion::V1_3) => push::TlsVersion::TlsVersion13,
        None if is_modern => push::TlsVersion::TlsVersion13,
        Some(spec::TlsVersion::V1_2) | None => push::TlsVersion::TlsVersion12,
    };
    let cipher_policy = if is_modern { push::CipherPolicy::Modern } else { push::CipherPolicy::Intermediate };
    push::Tls {
        certificates,
        min_version: min_version.into(),
        cipher_policy: cipher_policy.into(),
        client_validation: None,
    }
}

fn protocol(listener: &spec::Listener) -> push::Protocol {
    match listener.protocol {
        spec::Protocol::Http => push::Protocol::Http,
        spec::Protocol::Https => push::Protocol::Https,
        spec::Protocol::Tcp => push::Protocol::Tcp,
        spec::Protocol::Tls if layer4::passes_tls_on(listener) => push::Protocol::TlsPassthrough,
        spec::Protocol::Tls => push::Protocol::Tls,
        spec::Protocol::Udp => push::Protocol::Udp,
    }
}

fn backend_sets(
    key: &ObjectKey,
    spec: &LoadBalancerPoolSpec,
    check: &mut Check,
    certificates: &mut Certificates<'_>,
) -> Vec<push::BackendSet> {
    let connect = spec.timeouts.clone().unwrap_or_default().connect;
    check.positive("spec.timeouts.connect", connect);
    let policy = Policy::of_pool(spec, check);
    let mut compiled = Vec::new();
    for (index, set) in spec.backend_sets.iter().enumerate() {
        let own = policy.of_set(&format!("spec.backendSets[{index}]"), set, check);
        let tls = set.tls.as_ref().map(|tls| {
            authorities::of_set(&format!("spec.backendSets[{index}].tls"), tls, check, certificates)
        });
        let proxy_protocol = match set.proxy_protocol {
            None => push::ProxyProtocolVersion::Unspecified,
            Some(spec::ProxyProtocolVersion::V1) => push::ProxyProtocolVersion::ProxyProtocolVersion1,
            Some(spec::ProxyProtocolVersion::V2) => push::ProxyProtocolVersion::ProxyProtocolVersion2,
        };
        if set.proxy_protocol.is_some()
            && set.connection_pool.as_ref().is_some_and(|own| own.min_warm_per_backend != 0)
        {
            let rule =
                "is not for a set with proxyProtocol, where each connection is one client's: remove it";
            check.refuse(format!("spec.backendSets[{index}].connectionPool.minWarmPerBackend"), "", rule);
        }
        let mut set = push::BackendSet {
            name: set.name.clone(),
            connect_timeout_ms: connect.as_millis(),
            source: sources::named(key, set),
            tls,
            proxy_protocol: proxy_protocol.into(),
            ..push::BackendSet::default()
        };
        own.put(&mut set);
        if let Some(connections) = set.connections.as_mut().filter(|_| set.proxy_protocol != 0) {
            connections.warm_min = 0;
        }
        compiled.push(set);
    }
    policy::check_fallbacks(spec, &compiled, check);
    layer4::keep_none_warm(spec, &mut compiled, check);
    layer4::balance_by_source(spec, &mut compiled);
    compiled
}
