//! The addresses of a name in DNS: written in the pool, or in a Service of type ExternalName.
//!
//! What was looked up is among the objects ([`Objects::names`]), so that this is as pure as the rest. An
//! ExternalName Service is for the pool to use as any other is, by a ReferenceGrant where it is elsewhere; what
//! answers may be used is decided where they come in ([`crate::dns::Reach`]).

use super::{BackendSetContent, Fault, Resolved, spoken};
use crate::compile::check::{Check, quoted};
use crate::compile::{ObjectKey, Objects, Reason};
use crate::dns::{
    ADDRESSES_MAX, DNS_NAMES_MAX, Families, HostnameError, Lookup, REFRESH_DEFAULT, Refresh, Resolution,
    Trouble, What, check_hostname,
};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::jiff::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weir_crds::pool as spec;
use weir_proto::push::{Backend, BackendState, UpstreamProtocol};

/// Milliseconds that a refresh may be.
const REFRESH_RANGE_MS: (u64, u64) = (1_000, 3_600_000);
/// Addresses that a sentence spells out.
const ADDRESSES_SPELLED_MAX: usize = 4;

/// A name that a pool says.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsSource {
    /// In the pool, for messages: `spec.backendSets[0].dns`.
    pub field: String,
    /// What is asked for.
    pub lookup: Lookup,
    /// Of every backend.
    pub port: u16,
    /// What backends are spoken to in.
    pub protocol: UpstreamProtocol,
}

/// A name with the port at which its addresses are used.
pub(super) struct Named<'a> {
    pub(super) lookup: Lookup,
    port: u16,
    /// What is spoken, as far as a Service says it.
    pub(super) said: Option<UpstreamProtocol>,
    /// Which port says something that is not spoken.
    unspoken: Option<&'a ServicePort>,
}

/// What a name stands for.
pub(super) struct Found {
    pub(super) content: BackendSetContent,
    pub(super) faults: Vec<Fault>,
    /// Nothing is known yet.
    pub(super) is_open: bool,
}

impl DnsSource {
    pub(super) fn resolve(&self, pool: &ObjectKey, objects: &Objects) -> Resolved {
        let named = Named { lookup: self.lookup.clone(), port: self.port, said: None, unspoken: None };
        let found = named.resolve("hostname", &quoted(&self.lookup.hostname), objects);
        Resolved {
            content: found.content,
            protocol: self.protocol,
            warnings: found.faults.into_iter().map(|fault| fault.warning(pool, &self.field)).collect(),
            name: None,
            is_open: found.is_open,
        }
    }
}

impl<'a> Named<'a> {
    /// `said_by` is the Service's port, where it lists that.
    pub(super) fn of_service(hostname: Arc<str>, port: u16, said_by: Option<&'a ServicePort>) -> Self {
        let lookup = Lookup { hostname, families: Families::default(), refresh: REFRESH_DEFAULT };
        let protocol = said_by.and_then(|port| port.app_protocol.as_deref());
        let said = protocol.and_then(spoken);
        Self { lookup, port, said, unspoken: said_by.filter(|_| protocol.is_some() && said.is_none()) }
    }

    pub(super) fn unspoken(&self) -> Option<Fault> {
        let port = self.unspoken?;
        let protocol = port.app_protocol.as_deref()?;
        Some(Fault::unspoken(port, protocol, "its Service"))
    }

    /// Sentences are about `subfield`, which holds `value`.
    pub(super) fn resolve(&self, subfield: &'static str, value: &str, objects: &Objects) -> Found {
        let Some(resolution) = objects.names.get(&self.lookup) else {
            return Found { content: BackendSetContent::default(), faults: Vec::new(), is_open: true };
        };
        let backend = |ip: &std::net::IpAddr| {
            let address = SocketAddr::new(*ip, self.port).to_string();
            let (id, state) = (address.clone(), BackendState::Ready.into());
            Backend { id, address, weight: 1, state, ..Backend::default() }
        };
        let content = BackendSetContent::new(resolution.addresses.iter().map(backend).collect());
        let fault = |(rule, reason)| Fault { subfield, value: value.to_owned(), rule, reason };
        let faults = self.sentences(resolution).into_iter().map(fault).collect();
        Found { content, faults, is_open: resolution.is_open }
    }

    fn sentences(&self, resolution: &Resolution) -> Vec<(String, Reason)> {
        let mut said = Vec::new();
        if let Some(trouble) = &resolution.trouble {
            said.push((self.about(trouble, resolution), Reason::NameNotResolved));
        }
        let name = &self.lookup.hostname;
        if !resolution.forbidden.is_empty() {
            let count = resolution.forbidden.len();
            let first = resolution.forbidden.iter().take(ADDRESSES_SPELLED_MAX).map(ToString::to_string);
            said.push((
                format!(
                    "resolves ({name}) to addresses that are never used ({count}: {}), since they lead each proxy to its own \
                     machine or to nobody in particular: correct the name's records; the others serve",
                    first.collect::<Vec<_>>().join(", ")
                ),
                Reason::InvalidEndpoints,
            ));
        }
        if resolution.excess > 0 {
            let count = resolution.addresses.len() + resolution.excess;
            said.push((
                format!(
                    "resolves ({name}) to {count} addresses, more than the {ADDRESSES_MAX} that a name may have, of which \
                     smaller ones go first: divide them among several names"
                ),
                Reason::InvalidEndpoints,
            ));
        }
        said
    }

    fn about(&self, trouble: &Trouble, resolution: &Resolution) -> String {
        let name = &self.lookup.hostname;
        let (what, advice) = match &trouble.what {
            What::NoSuchName => (
                "the DNS server knows no such name (NXDOMAIN)".to_owned(),
                "correct the name, or create its record",
            ),
            What::NoAddress => (
                format!("the name has no {} address", self.lookup.families),
                "create its record, or correct families",
            ),
            What::Failed(how) => (format!("the DNS server {how}"), "see to the server, or to the way there"),
            What::TooMany => (
                format!(
                    "there are more than {DNS_NAMES_MAX} names to look up, of which this is past the last"
                ),
                "use fewer names",
            ),
            What::Unanswered => {
                ("there is no answer yet".to_owned(), "see whether the DNS server can be reached")
            }
        };
        let since = Timestamp::try_from(trouble.since).map(|since| since.to_string()).unwrap_or_default();
        let consequence = match resolution.addresses.len() {
            0 if resolution.is_open => "what was there before serves on for a moment".to_owned(),
            0 if !resolution.forbidden.is_empty() => "nothing serves".to_owned(),
            0 => "the set is empty, its requests are answered 503".to_owned(),
            count => format!("the last good answer serves on, {count} of its addresses"),
        };
        format!("does not resolve ({name}), since {since}: {what}; {advice} ({consequence})")
    }
}

/// Reads what a set says of a name; `None` where that is wrong.
pub(super) fn plan(
    field: &str,
    source: &spec::DnsSource,
    protocol: Option<UpstreamProtocol>,
    check: &mut Check,
) -> Option<DnsSource> {
    let hostname = match check_hostname(&source.hostname) {
        Ok(()) => Some(source.hostname.as_str().into()),
        Err(error @ (HostnameError::Address | HostnameError::Name)) => {
            check.refuse(format!("{field}.hostname"), quoted(&source.hostname), error.to_string());
            None
        }
    };
    let port = check.port(&format!("{field}.port"), source.port);
    let families = families(&format!("{field}.families"), source.families.as_deref(), check);
    let mut bound = |name: &str, written: Option<weir_crds::Duration>| {
        let ms = written.map(|written| check.within(&format!("{field}.{name}"), written, REFRESH_RANGE_MS));
        ms.map(Duration::from_millis)
    };
    let (min, max) = (bound("minRefresh", source.min_refresh), bound("maxRefresh", source.max_refresh));
    let shortest = min.unwrap_or(REFRESH_DEFAULT.min);
    let refresh = Refresh { min: shortest, max: max.unwrap_or(REFRESH_DEFAULT.max.max(shortest)) };
    if refresh.min > refresh.max {
        let shown = source.min_refresh.map(|min| min.to_string()).unwrap_or_default();
        check.refuse(format!("{field}.minRefresh"), shown, "is longer than maxRefresh: swap them");
        return None;
    }
    let lookup = Lookup { hostname: hostname?, families: families?, refresh };
    let protocol = protocol.unwrap_or(UpstreamProtocol::Http1);
    Some(DnsSource { field: field.to_owned(), lookup, port: port?, protocol })
}

fn families(field: &str, written: Option<&[spec::IpFamily]>, check: &mut Check) -> Option<Families> {
    use spec::IpFamily::{IPv4, IPv6};
    match written {
        None | Some([IPv4, IPv6]) => Some(Families::Ipv4ThenIpv6),
        Some([IPv6, IPv4]) => Some(Families::Ipv6ThenIpv4),
        Some([IPv4]) => Some(Families::Ipv4),
        Some([IPv6]) => Some(Families::Ipv6),
        Some(_) => {
            check.refuse(field, "", "is not a list of families: write IPv4, IPv6 or both, each once");
            None
        }
    }
}
