//! How a set's backends are chosen, reached and checked, from the specification to the wire.

mod rates;
mod resilience;
mod sessions;
mod upstream;

pub(super) use rates::{check_keys, ip_rules, networks, number_shared, rate_limits};
pub(super) use resilience::{check_fallbacks, retry};
pub(super) use sessions::sessions;
pub(super) use upstream::protocol;

use self::upstream::Upstream;
use super::check::{Check, quoted};
use weir_crds::pool as spec;
use weir_proto::push;

/// Shortest and longest, in milliseconds.
type Range = (u64, u64);

const INTERVAL_MS: Range = (100, 3_600_000);
const TIMEOUT_MS: Range = (10, 300_000);
const WINDOW_MS: Range = (1_000, 600_000);
const EJECTION_MS: Range = (100, 3_600_000);
const SLOW_START_MS: Range = (1, spec::SLOW_START_MAX_S as u64 * 1_000);

/// Header fields that a check's request has anyway, or must not have.
const OWN_HEADERS: &[&str] =
    &["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// What a specification says of one set, checked where it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    balancing: Balancing,
    active: Option<push::ActiveCheck>,
    passive: Option<push::PassiveCheck>,
    upstream: Upstream,
}

#[derive(Debug, Clone, Default)]
struct Balancing {
    algorithm: push::Algorithm,
    consistent_hash: Option<push::ConsistentHash>,
    slow_start: Option<push::SlowStart>,
    locality: push::Locality,
    panic_below_percent: u32,
}

impl Policy {
    /// Of the whole pool.
    pub(super) fn of_pool(spec: &weir_crds::LoadBalancerPoolSpec, check: &mut Check) -> Self {
        let balancing = spec.load_balancing.clone().unwrap_or_default();
        let balancing = self::balancing("spec.loadBalancing", &balancing, check);
        let mut policy = Self { balancing, upstream: Upstream::of_pool(spec, check), ..Self::default() };
        if let Some(health) = &spec.health_check {
            policy.check_as("spec.healthCheck", health, check);
        }
        policy
    }

    /// Of a set, which has its own in place of the pool's.
    pub(super) fn of_set(&self, field: &str, set: &spec::BackendSet, check: &mut Check) -> Self {
        let mut policy = self.clone();
        if let Some(own) = &set.load_balancing {
            policy.balancing = balancing(&format!("{field}.loadBalancing"), own, check);
        }
        if let Some(own) = &set.health_check {
            policy.check_as(&format!("{field}.healthCheck"), own, check);
        }
        policy.upstream = self.upstream.of_set(field, set, check);
        policy
    }

    /// Puts it into a set.
    pub(super) fn put(self, set: &mut push::BackendSet) {
        let Balancing { algorithm, consistent_hash, slow_start, locality, panic_below_percent } =
            self.balancing;
        set.set_algorithm(algorithm);
        set.consistent_hash = consistent_hash;
        set.slow_start = slow_start;
        set.set_locality(locality);
        set.panic_below_percent = panic_below_percent;
        set.active_check = self.active;
        set.passive_check = self.passive;
        self.upstream.put(set);
    }

    fn check_as(&mut self, field: &str, health: &spec::HealthCheck, check: &mut Check) {
        self.active = health.active.as_ref().map(|own| active(&format!("{field}.active"), own, check));
        self.passive = health.passive.as_ref().map(|own| passive(&format!("{field}.passive"), own, check));
    }
}

fn balancing(field: &str, own: &spec::LoadBalancing, check: &mut Check) -> Balancing {
    let is_hash = own.algorithm == spec::Algorithm::ConsistentHash;
    match (&own.consistent_hash, is_hash) {
        (None, true) => {
            let rule = "is missing: algorithm ConsistentHash needs to know what to hash";
            check.refuse(format!("{field}.consistentHash"), "", rule);
        }
        (Some(_), false) => {
            let rule = "is for algorithm ConsistentHash only: remove it, or choose that algorithm";
            check.refuse(format!("{field}.consistentHash"), "", rule);
        }
        _ => {}
    }
    if is_hash && own.slow_start.is_some() {
        let rule = "is not for algorithm ConsistentHash, where each of its steps would move keys: remove it";
        check.refuse(format!("{field}.slowStart"), "", rule);
    }
    let percent = |value: Option<u32>| value.unwrap_or_default();
    let slow_start = own.slow_start.as_ref().map(|slow| {
        let field = format!("{field}.slowStart");
        push::SlowStart {
            window_ms: check.within(&format!("{field}.window"), slow.window, SLOW_START_MS),
            min_weight_percent: percent(check.between(
                &format!("{field}.minWeightPercent"),
                slow.min_weight_percent,
                (1, 100),
            )),
        }
    });
    let panic_below = own
        .panic_below_percent
        .map(|value| percent(check.between(&format!("{field}.panicBelowPercent"), value, (1, 100))));
    Balancing {
        algorithm: algorithm(own.algorithm),
        consistent_hash: own
            .consistent_hash
            .as_ref()
            .map(|hash| consistent_hash(&format!("{field}.consistentHash"), hash, check)),
        slow_start,
        locality: match own.locality {
            spec::Locality::None => push::Locality::Off,
            spec::Locality::PreferZone => push::Locality::PreferZone,
            spec::Locality::Hints => push::Locality::Hints,
        },
        panic_below_percent: panic_below.unwrap_or_default(),
    }
}

fn algorithm(algorithm: spec::Algorithm) -> push::Algorithm {
    match algorithm {
        spec::Algorithm::LeastRequest => push::Algorithm::LeastRequest,
        spec::Algorithm::RoundRobin => push::Algorithm::RoundRobin,
        spec::Algorithm::Random => push::Algorithm::Random,
        spec::Algorithm::LeastConnections => push::Algorithm::LeastConnections,
        spec::Algorithm::LeastResponseTime => push::Algorithm::LeastResponseTime,
        spec::Algorithm::PeakEwma => push::Algorithm::PeakEwma,
        spec::Algorithm::ConsistentHash => push::Algorithm::ConsistentHash,
    }
}

fn consistent_hash(field: &str, hash: &spec::ConsistentHash, check: &mut Check) -> push::ConsistentHash {
    let (key, is_named) = match hash.key {
        spec::HashKey::SourceIp => (push::HashKey::SourceIp, false),
        spec::HashKey::Header => (push::HashKey::Header, true),
        spec::HashKey::Cookie => (push::HashKey::Cookie, true),
        spec::HashKey::Query => (push::HashKey::Query, true),
        spec::HashKey::Host => (push::HashKey::Host, false),
    };
    let name_field = format!("{field}.name");
    match (&hash.name, is_named) {
        (None, true) => check.refuse(
            name_field,
            "",
            "is missing: key Header, Cookie or Query needs the name of which one",
        ),
        (Some(name), false) => {
            check.refuse(name_field, quoted(name), "is for key Header, Cookie or Query only: remove it");
        }
        (Some(name), true) => check.token(&name_field, name, spec::KEY_NAME_BYTES_MAX),
        (None, false) => {}
    }
    let load = format!("{field}.maxLoadPercent");
    let max_load_percent = match hash.max_load_percent {
        0 => 0,
        bound if (spec::LOAD_PERCENT_MIN..=spec::LOAD_PERCENT_MAX).contains(&bound) => bound.unsigned_abs(),
        bound => {
            let (min, max) = (spec::LOAD_PERCENT_MIN, spec::LOAD_PERCENT_MAX);
            check.refuse(
                load,
                bound.to_string(),
                format!("is out of range: use {min} to {max}, or 0 for no bound"),
            );
            0
        }
    };
    // Header fields are compared in lower case; cookies and queries as they are.
    let name = hash.name.clone().unwrap_or_default();
    let name = if key == push::HashKey::Header { name.to_ascii_lowercase() } else { name };
    push::ConsistentHash { key: key.into(), name, max_load_percent }
}

fn active(field: &str, own: &spec::ActiveCheck, check: &mut Check) -> push::ActiveCheck {
    use push::active_check::Kind;
    let kinds = [
        own.http.as_ref().map(|http| Kind::Http(self::http(&format!("{field}.http"), http, check))),
        own.tcp.as_ref().map(|_| Kind::Tcp(push::TcpCheck {})),
        own.tls.as_ref().map(|_| Kind::Tls(push::TlsCheck {})),
        own.grpc.as_ref().map(|grpc| {
            Kind::Grpc(push::GrpcCheck {
                service: grpc_service(&format!("{field}.grpc.service"), grpc, check),
            })
        }),
    ];
    let mut kinds = kinds.into_iter().flatten();
    let kind = kinds.next();
    if kind.is_none() || kinds.next().is_some() {
        check.refuse(field, "", "must have exactly one of http, tcp, tls and grpc");
    }
    let mut threshold = |name: &str, value: i32| {
        check.between(&format!("{field}.{name}"), value, (1, spec::THRESHOLD_MAX)).unwrap_or_default()
    };
    let healthy_threshold = threshold("healthyThreshold", own.healthy_threshold);
    let unhealthy_threshold = threshold("unhealthyThreshold", own.unhealthy_threshold);
    push::ActiveCheck {
        kind,
        port: own.port.and_then(|port| check.port(&format!("{field}.port"), port)).map_or(0, u32::from),
        interval_ms: check.within(&format!("{field}.interval"), own.interval, INTERVAL_MS),
        timeout_ms: check.within(&format!("{field}.timeout"), own.timeout, TIMEOUT_MS),
        healthy_threshold,
        unhealthy_threshold,
        initially_down: own.initial == spec::InitialState::Down,
    }
}

fn grpc_service(field: &str, own: &spec::GrpcCheck, check: &mut Check) -> String {
    let Some(service) = &own.service else { return String::new() };
    let is_name = (1..=spec::HOSTNAME_BYTES_MAX).contains(&service.len())
        && service.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        let rule = "is not the name of a gRPC service: use 1 to 253 visible ASCII characters, or leave it out to \
                    ask for the whole server";
        check.refuse(field, quoted(service), rule);
    }
    service.clone()
}

fn http(field: &str, own: &spec::HttpCheck, check: &mut Check) -> push::HttpCheck {
    check.token(&format!("{field}.method"), &own.method, 32);
    if own.method == "CONNECT" {
        check.refuse(
            format!("{field}.method"),
            "\"CONNECT\"",
            "asks for a tunnel and not for an answer: use another method",
        );
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    let is_path =
        own.path.starts_with('/') && own.path.len() <= spec::PATH_BYTES_MAX && own.path.bytes().all(allowed);
    if !is_path {
        let rule = "is not a path: start it with a slash, percent-encode blanks, # and what is not ASCII, and use at most 1024 characters";
        check.refuse(format!("{field}.path"), quoted(&own.path), rule);
    }
    if let Some(host) =
        own.host.as_ref().filter(|host| host.len() > spec::HOSTNAME_BYTES_MAX || !is_host(host))
    {
        let rule = "is not a host: write a name or an address, with or without a port";
        check.refuse(format!("{field}.host"), quoted(host), rule);
    }
    let body_contains = own.body_contains.clone().unwrap_or_default();
    if own.body_contains.is_some() && !(1..=spec::BODY_BYTES_MAX).contains(&body_contains.len()) {
        let rule = format!("must have 1 to {} bytes", spec::BODY_BYTES_MAX);
        check.refuse(format!("{field}.bodyContains"), format!("{} bytes", body_contains.len()), rule);
    }
    if own.method == "HEAD" && own.body_contains.is_some() {
        let rule =
            "is of no use with method HEAD, whose answer has no body: use another method, or remove it";
        check.refuse(format!("{field}.bodyContains"), quoted(&body_contains), rule);
    }
    push::HttpCheck {
        version: match own.version {
            spec::HttpVersion::Http1 => push::HttpVersion::HttpVersion1,
            spec::HttpVersion::Http2 => push::HttpVersion::HttpVersion2,
        }
        .into(),
        method: own.method.clone(),
        path: own.path.clone(),
        host: own.host.clone().unwrap_or_default(),
        headers: headers(&format!("{field}.headers"), &own.headers, check),
        expected: expected(&format!("{field}.expectedStatuses"), &own.expected_statuses, check),
        body_contains,
    }
}

/// A name or an address (IPv6 in brackets), with or without a port.
fn is_host(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest),
        _ => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    !host.is_empty() && host.bytes().all(allowed) && is_port
}

fn headers(field: &str, own: &[spec::CheckHeader], check: &mut Check) -> Vec<push::HeaderField> {
    check.count(field, own, (0, spec::CHECK_HEADERS_MAX));
    for (index, header) in own.iter().enumerate() {
        let field = format!("{field}[{index}]");
        check.token(&format!("{field}.name"), &header.name, 256);
        if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(&header.name)) {
            check.refuse(
                format!("{field}.name"),
                quoted(&header.name),
                "is a field that a check writes itself: remove it",
            );
        }
        let is_value = header.value.len() <= spec::HEADER_VALUE_BYTES_MAX
            && header.value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_value {
            let rule = "is not a header's value: use up to 2048 visible ASCII characters and blanks";
            check.refuse(format!("{field}.value"), quoted(&header.value), rule);
        }
    }
    let field = |header: &spec::CheckHeader| push::HeaderField {
        name: header.name.to_ascii_lowercase(),
        value: header.value.clone(),
    };
    own.iter().map(field).collect()
}

fn expected(field: &str, own: &[String], check: &mut Check) -> Vec<push::StatusRange> {
    check.count(field, own, (0, spec::STATUS_RANGES_MAX));
    if own.is_empty() {
        return vec![push::StatusRange { first: 200, last: 399 }];
    }
    let mut ranges = Vec::new();
    for (index, text) in own.iter().enumerate() {
        match status_range(text) {
            Some(range) => ranges.push(range),
            None => {
                let rule = "is not a status code or a range of them: write 200 or 200-399, within 200 to 599, the lower first";
                check.refuse(format!("{field}[{index}]"), quoted(text), rule);
            }
        }
    }
    ranges
}

fn status_range(text: &str) -> Option<push::StatusRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| {
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|code| is_code && (200..=599).contains(code))
    };
    let (first, last) = (code(first)?, code(last)?);
    (first <= last).then_some(push::StatusRange { first, last })
}

fn passive(field: &str, own: &spec::PassiveCheck, check: &mut Check) -> push::PassiveCheck {
    let base_ejection_ms = check.within(&format!("{field}.baseEjection"), own.base_ejection, EJECTION_MS);
    let max_ejection_ms = check.within(&format!("{field}.maxEjection"), own.max_ejection, EJECTION_MS);
    let in_range = |ms: u64| (EJECTION_MS.0..=EJECTION_MS.1).contains(&ms);
    if max_ejection_ms < base_ejection_ms && in_range(base_ejection_ms) && in_range(max_ejection_ms) {
        let rule = "is shorter than baseEjection: make it as long at least";
        check.refuse(format!("{field}.maxEjection"), own.max_ejection.to_string(), rule);
    }
    let window_ms = check.within(&format!("{field}.window"), own.window, WINDOW_MS);
    let mut number = |name: &str, value: i32, bounds: (i32, i32)| {
        check.between(&format!("{field}.{name}"), value, bounds).unwrap_or_default()
    };
    let passive = push::PassiveCheck {
        window_ms,
        min_requests: number("minRequests", own.min_requests, (1, spec::OUTCOMES_MAX)),
        max_failure_percent: number("maxFailurePercent", own.max_failure_percent, (11, 100)),
        consecutive_failures: number(
            "consecutiveFailures",
            own.consecutive_failures,
            (0, spec::THRESHOLD_MAX),
        ),
        consecutive_connect_failures: number(
            "consecutiveConnectFailures",
            own.consecutive_connect_failures,
            (0, spec::THRESHOLD_MAX),
        ),
        base_ejection_ms,
        max_ejection_ms,
        max_ejected_percent: number("maxEjectedPercent", own.max_ejected_percent, (0, 100)),
        min_available: number("minAvailable", own.min_available, (0, spec::AVAILABLE_MIN_MAX)),
        gray_failures: own.gray_failures,
    };
    let judges = passive.max_failure_percent < 100
        || passive.consecutive_failures > 0
        || passive.consecutive_connect_failures > 0
        || passive.gray_failures;
    if !judges {
        check.refuse(field, "", "has everything switched off: leave it out, or switch something on");
    }
    passive
}
