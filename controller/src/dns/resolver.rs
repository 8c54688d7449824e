//! One lookup: what a name is in `/etc/hosts`, or else at the DNS servers.
//!
//! The library speaks UDP and TCP (for answers that are truncated), goes from server to server and follows CNAMEs.
//! Search domains are ours, for the library takes what the last of them said: were one server out for a moment while the
//! name is looked up where it is, and the name unknown in the next domain, then "there is no such name" would be what
//! we hear.

use super::names::Answer;
use super::{Family, Lookup, What};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest time that a lookup takes, all search domains, servers and attempts together.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that one attempt takes; less where `resolv.conf` says so.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Search domains that are tried.
const SEARCH_MAX: usize = 32;
/// How long an entry of `/etc/hosts` holds, which says nothing of that.
const HOSTS_TTL: Duration = Duration::from_secs(5);

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// DNS servers in place of those of `/etc/resolv.conf`; empty: those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers(pub Vec<SocketAddr>);

/// Reads what the system says of names, and again when that changed.
pub(super) struct System {
    servers: Servers,
    read: Option<(Stamp, Arc<Sources>)>,
}

/// When the system's files were written, and how long they are.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// Everything that a lookup needs.
pub(super) struct Sources {
    /// Or why there is none.
    resolver: Result<TokioResolver, String>,
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
}

impl System {
    pub(super) fn new(servers: Servers) -> Self {
        Self { servers, read: None }
    }

    /// As the files say now. Costs two calls of `stat` where they say the same.
    pub(super) fn sources(&mut self) -> Arc<Sources> {
        let stamp = [RESOLV_CONF, HOSTS].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        });
        match &self.read {
            Some((read, sources)) if *read == stamp => Arc::clone(sources),
            _ => {
                let text = std::fs::read(RESOLV_CONF).unwrap_or_default();
                let hosts = Hosts::from_system().unwrap_or_default();
                let sources = Arc::new(Sources::new(&self.servers, &text, hosts));
                self.read = Some((stamp, Arc::clone(&sources)));
                sources
            }
        }
    }
}

impl Sources {
    fn new(servers: &Servers, resolv_conf: &[u8], hosts: Hosts) -> Self {
        // Without a server in it, it is refused whole, search domains too.
        let text =
            [resolv_conf, if servers.0.is_empty() { b"" } else { b"\nnameserver 127.0.0.1\n" }].concat();
        let (config, mut options) = match system_conf::parse_resolv_conf(&text) {
            Ok((config, options)) => (config, options),
            // As the resolver of the C library: a server on this machine.
            Err(error) => {
                tracing::warn!(
                    "{RESOLV_CONF} cannot be used, so that {} is asked for names: {error}",
                    local()
                );
                (ResolverConfig::from_name_servers(vec![server(local())]), ResolverOpts::default())
            }
        };
        let search: Vec<_> = config.search().iter().take(SEARCH_MAX).cloned().collect();
        let name_servers = match servers.0.as_slice() {
            [] => config.name_servers().to_vec(),
            written => written.iter().copied().map(server).collect(),
        };
        // When to ask again is decided elsewhere; hosts are looked up here; and the TTL of a chain is the least of it.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.preserve_intermediates = true;
        options.timeout = options.timeout.min(ATTEMPT_TIMEOUT);
        let ndots = options.ndots;
        let config = ResolverConfig::from_parts(None, Vec::new(), name_servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| format!("cannot be set up: {error}"));
        Self { resolver, hosts, search, ndots }
    }

    /// Looks a name up. `found_as` is the absolute name that it was found as before.
    pub(super) async fn look_up(&self, lookup: &Lookup, found_as: Option<&str>) -> Answer {
        match tokio::time::timeout(LOOKUP_TIMEOUT, self.search(lookup, found_as)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Failed(format!("did not answer within {} s", LOOKUP_TIMEOUT.as_secs())),
        }
    }

    /// Candidates in the order of resolv.conf(5). As there, one that fails does not end the search; but where nothing
    /// is found then, it is not known that there is nothing. Nor is anything else taken while the one that the name was
    /// found as fails: that would be another name.
    async fn search(&self, lookup: &Lookup, found_as: Option<&str>) -> Answer {
        let Ok(name) = Name::from_str(&lookup.hostname) else {
            return Answer::Failed("was not asked, since this is not a name".to_owned());
        };
        let mut nothing = None;
        let mut failure = None;
        for candidate in self.candidates(&name) {
            let answer = self.ask(&candidate, lookup).await;
            match answer {
                Answer::Addresses { .. } => return answer,
                // That the name is there says more than that another is not.
                Answer::Nothing { what: What::NoAddress, .. } => nothing = Some(answer),
                Answer::Nothing { .. } => nothing = nothing.or(Some(answer)),
                Answer::Failed(_) if found_as == Some(candidate.to_ascii().as_str()) => return answer,
                Answer::Failed(_) => failure = failure.or(Some(answer)),
            }
        }
        failure.or(nothing).expect("a name is a candidate itself")
    }

    fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if name.is_fqdn() {
            return vec![absolute];
        }
        let searched = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
        let mut candidates: Vec<_> = searched.collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let at = if dots >= self.ndots { 0 } else { candidates.len() };
        candidates.insert(at, absolute);
        candidates
    }

    async fn ask(&self, name: &Name, lookup: &Lookup) -> Answer {
        let mut nothing = None;
        for family in lookup.families.in_order() {
            let kind = match family {
                Family::V4 => RecordType::A,
                Family::V6 => RecordType::AAAA,
            };
            if let Some(entry) = self.hosts.lookup_static_host(&Query::query(name.clone(), kind)) {
                let addresses = entry.answers().iter().filter_map(|record| address(&record.data)).collect();
                return Answer::Addresses { addresses, ttl: HOSTS_TTL, found_as: name.to_ascii().into() };
            }
            match self.ask_for(name, kind).await {
                answer @ Answer::Nothing { what: What::NoAddress, .. } => {
                    nothing = Some(shorter(nothing, answer));
                }
                answer => return answer,
            }
        }
        nothing.expect("there is a family")
    }

    async fn ask_for(&self, name: &Name, kind: RecordType) -> Answer {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(why) => return Answer::Failed(why.clone()),
        };
        // A cache of no room may still hold what came a moment ago.
        resolver.clear_cache();
        match resolver.lookup(name.clone(), kind).await {
            Ok(found) => {
                let addresses: Vec<_> = found
                    .answers()
                    .iter()
                    .filter(|record| record.record_type() == kind)
                    .filter_map(|record| address(&record.data))
                    .collect();
                let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
                let ttl = Duration::from_secs(ttl.into());
                if addresses.is_empty() {
                    return Answer::Nothing { what: What::NoAddress, ttl: Some(ttl) };
                }
                Answer::Addresses { addresses, ttl, found_as: name.to_ascii().into() }
            }
            Err(error) => without_addresses(&error),
        }
    }
}

/// Of two families without an address: how long that holds.
fn shorter(before: Option<Answer>, now: Answer) -> Answer {
    match (before, now) {
        (Some(Answer::Nothing { ttl: Some(a), .. }), Answer::Nothing { what, ttl: Some(b) }) => {
            Answer::Nothing { what, ttl: Some(a.min(b)) }
        }
        (_, now) => now,
    }
}

fn without_addresses(error: &NetError) -> Answer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { ns: Some(_), soa: None, .. })) => {
            Answer::Failed("only names other servers: use one that resolves names itself".to_owned())
        }
        NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, negative_ttl, .. })) => {
            let ttl = negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            match *response_code {
                ResponseCode::NXDomain => Answer::Nothing { what: What::NoSuchName, ttl },
                ResponseCode::NoError => Answer::Nothing { what: What::NoAddress, ttl },
                code => Answer::Failed(format!("answers {}", spelled(code))),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Answer::Failed(format!("answers {}", spelled(*code))),
        NetError::Timeout => Answer::Failed("does not answer".to_owned()),
        NetError::NoConnections => Answer::Failed("cannot be reached".to_owned()),
        NetError::Io(error) => Answer::Failed(format!("cannot be reached: {}", error.kind())),
        other => Answer::Failed(format!("gave no answer that can be used: {other}")),
    }
}

/// Codes as tools and books write them.
fn spelled(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => format!("with code {}", u16::from(other)),
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 53).into()
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(resolv_conf: &str, hostname: &str) -> Vec<String> {
        let sources = Sources::new(&Servers::default(), resolv_conf.as_bytes(), Hosts::default());
        let name = Name::from_str(hostname).expect("a name");
        sources.candidates(&name).iter().map(Name::to_ascii).collect()
    }

    #[tokio::test]
    async fn search_domains_go_as_resolv_conf_says() {
        let pod = "nameserver 10.96.0.10\nsearch weir.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
        assert_eq!(candidates(pod, "db.example.com."), ["db.example.com."]);
        assert_eq!(
            candidates(pod, "db.example.com"),
            [
                "db.example.com.weir.svc.cluster.local.",
                "db.example.com.svc.cluster.local.",
                "db.example.com."
            ]
        );
        assert_eq!(candidates(pod, "a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        let laptop = "nameserver 192.168.1.1\nsearch lan\n";
        assert_eq!(candidates(laptop, "nas"), ["nas.lan.", "nas."]);
        assert_eq!(candidates(laptop, "nas.example"), ["nas.example.", "nas.example.lan."]);
        assert_eq!(candidates("", "nas"), ["nas."]);
    }
}
