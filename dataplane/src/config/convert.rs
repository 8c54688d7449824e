//! Wire to runtime: the one place where a configuration that came over the wire can turn out wrong.
//!
//! The controller checks the same rules before it sends anything; what fails here fails because controller and
//! proxy are of different versions, or because of what only the proxy can see. The answer is a Nack that names
//! the field in the `LoadBalancerPool`.

mod filters;
mod front;
mod layer4;
mod limits;
mod matches;
mod policy;
mod resilience;
mod rules;
mod sessions;
mod tls;
mod traffic;

pub(super) use filters::TargetSpec;
pub(super) use resilience::FallbackSpec;
pub(super) use rules::RuleSpec;
pub(super) use tls::Certificates;

use crate::listener::{Door, Transport};
use crate::proxied::Proxies;
use crate::snapshot::{HttpsRedirect, ListenerLimits};
use crate::tls::ServerCertificate;
use crate::tls::policies::TlsPolicy;
use http::{HeaderName, HeaderValue};
use lb_core::addresses::ClientPolicy;
use lb_core::backend::{BackendState, SetPolicy};
use lb_core::health::SetPlan;
use lb_core::path::PathPolicy;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tls::Reader;
use weir_proto::limits::{ROUTES_PER_POOL_MAX, routes};
use weir_proto::push;

/// Why a configuration is refused: goes to the controller as a Nack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Rejection {
    /// Where in the `LoadBalancerPool`, for example `spec.listeners[0].port`.
    pub field: String,
    /// One sentence.
    pub reason: String,
}

impl Rejection {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// A backend set without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetSpec {
    pub(super) policy: SetPolicy,
    /// How its members are checked.
    pub(super) health: SetPlan,
    /// Where its members come from; members of another source belong to another configuration.
    pub(super) source: String,
}

/// A pool's configuration, checked.
#[derive(Debug, Clone)]
pub(super) struct PoolSpec {
    pub(super) listeners: Vec<ListenerSpec>,
    pub(super) rules: Vec<RuleSpec>,
    pub(super) sets: BTreeMap<String, SetSpec>,
    /// In place of the answers of sets, by their names. Not in their specifications: a set stays the same while only
    /// what stands in for it is another. No set comes back to itself in this way.
    pub(super) fallbacks: BTreeMap<String, FallbackSpec>,
}

#[derive(Debug, Clone)]
pub(super) struct ListenerSpec {
    /// By which rules name it.
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) protocol: ListenerProtocol,
    /// Empty: every host.
    pub(super) hostnames: Vec<String>,
    /// `None` where the pool says nothing of them.
    pub(super) limits: Option<Arc<ListenerLimits>>,
    /// The same for paths.
    pub(super) paths: Option<PathPolicy>,
    /// Of the pool, in seconds since 1970; what nobody knows is younger than any.
    pub(super) created_s: u64,
    /// `None`: who is connected is the client.
    pub(super) client: Option<Arc<ClientPolicy>>,
    pub(super) redirect: Option<HttpsRedirect>,
    /// As the answers say it.
    pub(super) hsts: Option<HeaderValue>,
    /// `None`: no connection begins with a header of the PROXY protocol.
    pub(super) proxies: Option<Arc<Proxies>>,
}

impl ListenerSpec {
    /// What is bound for it.
    pub(super) fn door(&self) -> Door {
        Door { transport: self.protocol.spoken().transport(), port: self.port }
    }
}

#[derive(Debug, Clone)]
pub(super) enum ListenerProtocol {
    Http,
    Https(ListenerTls),
    Tcp,
    /// Ended here, and then bytes.
    Tls(ListenerTls),
    Passthrough,
    Udp,
}

/// What is spoken on a port, by all pools that share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spoken {
    Http,
    Https,
    Tcp,
    Tls,
    Passthrough,
    Udp,
}

impl Spoken {
    /// What it is sent over.
    pub(super) fn transport(self) -> Transport {
        if self == Self::Udp { Transport::Udp } else { Transport::Tcp }
    }
}

impl ListenerProtocol {
    pub(super) fn spoken(&self) -> Spoken {
        match self {
            Self::Http => Spoken::Http,
            Self::Https(_) => Spoken::Https,
            Self::Tcp => Spoken::Tcp,
            Self::Tls(_) => Spoken::Tls,
            Self::Passthrough => Spoken::Passthrough,
            Self::Udp => Spoken::Udp,
        }
    }

    /// What TLS is ended with, where it is.
    pub(super) fn tls(&self) -> Option<&ListenerTls> {
        match self {
            Self::Https(tls) | Self::Tls(tls) => Some(tls),
            Self::Http | Self::Tcp | Self::Passthrough | Self::Udp => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct ListenerTls {
    /// At least one.
    pub(super) certificates: Vec<Arc<ServerCertificate>>,
    pub(super) policy: Arc<TlsPolicy>,
}

/// A backend but for its [`lb_core::backend::Live`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendSpec {
    pub(super) address: SocketAddr,
    pub(super) state: BackendState,
}

/// Checks a configuration. Certificates that are in `known` are taken from there; all that are used are in the
/// second result.
pub(super) fn pool(
    config: &push::PoolConfig,
    known: &Certificates,
) -> Result<(PoolSpec, Certificates), Rejection> {
    let mut certificates = Reader::new(known);
    let sets = sets(&config.backend_sets, &mut certificates)?;
    let mut listeners: Vec<ListenerSpec> = Vec::new();
    let mut spoken = BTreeMap::new();
    for (index, wire) in config.listeners.iter().enumerate() {
        let listener = listener(index, wire, &mut certificates)?;
        let own = listener.protocol.spoken();
        if *spoken.entry(listener.door()).or_insert(own) != own {
            return Err(Rejection::new(
                format!("spec.listeners[{index}].protocol"),
                format!(
                    "port {} has another protocol in a listener before: one port speaks one",
                    listener.port
                ),
            ));
        }
        listeners.push(listener);
    }
    let pool: Arc<str> = config.pool.as_str().into();
    let mut shared = rules::Shared::default();
    let rules = config.rules.iter().enumerate();
    let rules = rules.map(|(index, wire)| rules::rule(index, wire, &sets, &pool, &mut shared));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    check_routes(&listeners, &rules)?;
    layer4::check(&listeners, &rules)?;
    let fallbacks = resilience::fallbacks(&config.backend_sets, &sets)?;
    Ok((PoolSpec { listeners, rules, sets, fallbacks }, certificates.used))
}

/// Counted before any is made.
fn check_routes(listeners: &[ListenerSpec], rules: &[RuleSpec]) -> Result<(), Rejection> {
    let of_listener = |listener: &ListenerSpec| {
        let rules = rules.iter().filter(|rule| rule.serves(listener));
        let rules: Vec<_> = rules.map(|rule| (rule.hostnames.as_slice(), rule.matches.len())).collect();
        routes(&[listener.hostnames.as_slice()], &rules)
    };
    match listeners.iter().map(of_listener).fold(0, usize::saturating_add) {
        0..=ROUTES_PER_POOL_MAX => Ok(()),
        count => {
            let reason = format!(
                "{count} routes are too many, one for each listener, hostname and match: use at most {ROUTES_PER_POOL_MAX}"
            );
            Err(Rejection::new("spec.rules", reason))
        }
    }
}

fn sets(
    wire: &[push::BackendSet],
    certificates: &mut Reader<'_>,
) -> Result<BTreeMap<String, SetSpec>, Rejection> {
    let mut sets = BTreeMap::new();
    for set in wire {
        let field = |rest: &str| format!("spec.backendSets[{}]{rest}", set.name);
        if set.name.is_empty() {
            return Err(Rejection::new("spec.backendSets", "a backend set has no name: give it one"));
        }
        let (policy, health) = policy::read(set, certificates.profile(set)?)?;
        let spec = SetSpec { policy, health, source: set.source.clone() };
        if sets.insert(set.name.clone(), spec).is_some() {
            return Err(Rejection::new(
                field(""),
                "the name is taken by another set of this pool: names are unique",
            ));
        }
    }
    Ok(sets)
}

fn listener(
    index: usize,
    wire: &push::Listener,
    certificates: &mut Reader<'_>,
) -> Result<ListenerSpec, Rejection> {
    let field = |rest: &str| format!("spec.listeners[{index}].{rest}");
    let port = u16::try_from(wire.port).ok().filter(|port| *port > 0).ok_or_else(|| {
        Rejection::new(field("port"), format!("{} is not a port: choose one of 1 to 65535", wire.port))
    })?;
    for hostname in &wire.hostnames {
        check_hostname(hostname).map_err(|reason| Rejection::new(field("hostnames"), reason))?;
    }
    let protocol = match wire.protocol() {
        push::Protocol::Http => {
            if wire.tls.is_some() {
                let reason = "an HTTP listener has no certificates: choose HTTPS, or leave tls out";
                return Err(Rejection::new(field("tls"), reason));
            }
            ListenerProtocol::Http
        }
        push::Protocol::Https => ListenerProtocol::Https(terminated(&field("tls"), wire, certificates)?),
        push::Protocol::Tls => ListenerProtocol::Tls(terminated(&field("tls"), wire, certificates)?),
        push::Protocol::TlsPassthrough => {
            if wire.tls.is_some() {
                let reason = "TLS that is passed on has no certificates here: leave them out";
                return Err(Rejection::new(field("tls"), reason));
            }
            ListenerProtocol::Passthrough
        }
        bare @ (push::Protocol::Tcp | push::Protocol::Udp) => {
            if wire.tls.is_some() || !wire.hostnames.is_empty() {
                let reason = "a listener of TCP or UDP has neither certificates nor hosts: leave tls and hostnames out";
                return Err(Rejection::new(field("protocol"), reason));
            }
            if bare == push::Protocol::Udp { ListenerProtocol::Udp } else { ListenerProtocol::Tcp }
        }
        push::Protocol::Unspecified => {
            let reason = format!(
                "protocol {} is not known to this proxy: upgrade the proxies, or choose another",
                wire.protocol
            );
            return Err(Rejection::new(field("protocol"), reason));
        }
    };
    let bounds = match &wire.limits {
        Some(wire) => Some(Arc::new(limits::read(&field("limits"), wire)?)),
        None => None,
    };
    let paths = wire.paths.as_ref().map(limits::paths);
    let created_s = if wire.created_s == 0 { u64::MAX } else { wire.created_s };
    let client = wire.client_address.as_ref().map(|wire| traffic::client(&field("clientAddress"), wire));
    let redirect = wire.https_redirect.as_ref();
    let redirect = redirect.map(|wire| front::redirect(&field("httpsRedirect"), wire));
    let hsts = wire.hsts.as_ref().map(|wire| front::hsts(&field("hsts"), wire));
    let proxies = wire.proxy_protocol.as_ref();
    let proxies = proxies.map(|wire| front::proxies(&field("proxyProtocol"), wire));
    Ok(ListenerSpec {
        name: wire.name.as_str().into(),
        port,
        protocol,
        hostnames: wire.hostnames.clone(),
        limits: bounds,
        paths,
        created_s,
        client: client.transpose()?.map(Arc::new),
        redirect: redirect.transpose()?,
        hsts: hsts.transpose()?,
        proxies: proxies.transpose()?.map(Arc::new),
    })
}

/// How a listener ends TLS.
fn terminated(
    field: &str,
    wire: &push::Listener,
    certificates: &mut Reader<'_>,
) -> Result<ListenerTls, Rejection> {
    let tls = wire.tls.as_ref().filter(|tls| !tls.certificates.is_empty()).ok_or_else(|| {
        let reason = format!(
            "an {} listener needs a certificate: name a Secret of type kubernetes.io/tls",
            if wire.protocol() == push::Protocol::Tls { "TLS" } else { "HTTPS" }
        );
        Rejection::new(format!("{field}.certificateRefs"), reason)
    })?;
    let mut pairs = Vec::new();
    for (nth, wire) in tls.certificates.iter().enumerate() {
        let certificate = certificates
            .pair(wire)
            .map_err(|error| Rejection::new(format!("{field}.certificateRefs[{nth}]"), error.to_string()))?;
        pairs.push(certificate);
    }
    let policy = certificates.policy(field, tls)?;
    Ok(ListenerTls { certificates: pairs, policy })
}

fn check_hostname(hostname: &str) -> Result<(), String> {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    if name.is_empty() || name.contains('*') {
        return Err(format!(
            "hostname {hostname:?}: a star may only stand for the first label, as in \"*.example.com\""
        ));
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("hostname {hostname:?} has capital letters: hosts are compared in lower case"));
    }
    Ok(())
}

/// A value within these bounds, both included, which fit into the type that is asked for.
fn within<W, T>(field: &str, rest: &str, value: W, (min, max): (W, W)) -> Result<T, Rejection>
where
    W: PartialOrd + Display + Copy + TryInto<T>,
{
    let checked = Some(value).filter(|value| (min..=max).contains(value));
    checked.and_then(|value| value.try_into().ok()).ok_or_else(|| {
        let reason = format!("{value} is out of range: use {min} to {max}");
        Rejection::new(format!("{field}{rest}"), reason)
    })
}

/// A length of time in milliseconds, within these bounds, both included.
fn duration(field: &str, rest: &str, ms: u64, (min, max): (u64, u64)) -> Result<Duration, Rejection> {
    if (min..=max).contains(&ms) {
        return Ok(Duration::from_millis(ms));
    }
    let reason = format!("{ms} ms is out of range: use {min} to {max} ms");
    Err(Rejection::new(format!("{field}{rest}"), reason))
}

/// Visible ASCII and blanks, in 1 to `bytes_max` bytes: what may stand in a header.
fn header_text(field: &str, rest: &str, text: &str, bytes_max: usize) -> Result<Arc<str>, Rejection> {
    let is_text = (1..=bytes_max).contains(&text.len())
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let reason = || {
        format!("{text:?} is not a header's value: use 1 to {bytes_max} visible ASCII characters and blanks")
    };
    is_text.then(|| text.into()).ok_or_else(|| Rejection::new(format!("{field}{rest}"), reason()))
}

/// A token of HTTP (RFC 9110, section 5.6.2), as the names of headers and cookies are.
fn token(field: &str, rest: &str, text: &str, bytes_max: usize) -> Result<Arc<str>, Rejection> {
    let is_token = text.len() <= bytes_max && HeaderName::from_bytes(text.as_bytes()).is_ok();
    let reason = || {
        format!("{text:?} is not a token of HTTP: use 1 to {bytes_max} letters, digits and !#$%&'*+-.^_`|~")
    };
    is_token.then(|| text.into()).ok_or_else(|| Rejection::new(format!("{field}{rest}"), reason()))
}

/// Checks a backend of a set.
pub(super) fn backend(set: &str, wire: &push::Backend) -> Result<BackendSpec, Rejection> {
    let field = || format!("spec.backendSets[{set}]");
    let address = wire.address.parse().map_err(|_| {
        let reason = format!(
            "backend {:?} has address {:?}, which is not IP:port: the backend is left out",
            wire.id, wire.address
        );
        Rejection::new(field(), reason)
    })?;
    let state = match wire.state() {
        push::BackendState::Ready => BackendState::Ready,
        push::BackendState::Draining => BackendState::Draining,
        push::BackendState::Unspecified => {
            let reason = format!(
                "backend {:?} is in state {}, which this proxy does not know: the backend is left out",
                wire.id, wire.state
            );
            return Err(Rejection::new(field(), reason));
        }
    };
    Ok(BackendSpec { address, state })
}

#[cfg(test)]
mod tests;
