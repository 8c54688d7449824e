//! How a set's backends are chosen and checked, from the wire.

use super::{Rejection, resilience};
use lb_core::backend::{
    Algorithm, ConnectionLimits, Eligibility, KeySource, Locality, ProxyHeaderVersion, SetPolicy, SlowStart,
    Smoothing, TlsProfile,
};
use lb_core::health::{
    ActiveSettings, GraySettings, HttpCheck, HttpVersion, Initial, Kind, PassiveSettings, SetPlan,
    SettingsError, StatusRange, Valid,
};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;
use weir_proto::push;

/// What a set says of itself, but for its name, members and source.
pub(super) fn read(
    set: &push::BackendSet,
    tls: Option<TlsProfile>,
) -> Result<(SetPolicy, SetPlan), Rejection> {
    let refuse =
        |rest: &str, reason: String| Rejection::new(format!("spec.backendSets[{}]{rest}", set.name), reason);
    let algorithm = algorithm(set).map_err(|reason| refuse(".loadBalancing.algorithm", reason))?;
    let key = match (algorithm, &set.consistent_hash) {
        (Algorithm::Maglev { .. }, Some(hash)) => {
            Some(key(hash).map_err(|reason| refuse(".loadBalancing.consistentHash", reason))?)
        }
        _ => None,
    };
    let eligibility = eligibility(set).map_err(|reason| refuse(".loadBalancing", reason))?;
    if set.connect_timeout_ms == 0 {
        let reason = "a connect timeout of 0 would fail every request: set one of 1 ms or more";
        return Err(refuse(".timeouts.connect", reason.to_owned()));
    }
    let proxy_header = proxy_header(set).map_err(|reason| refuse(".proxyProtocol", reason))?;
    let policy = SetPolicy {
        algorithm,
        eligibility,
        key,
        tls,
        proxy_header,
        is_judged: set.passive_check.is_some(),
        connect_timeout: Duration::from_millis(set.connect_timeout_ms),
        connections: ConnectionLimits {
            idle_max: set.idle_connections_max,
            idle_timeout: Duration::from_millis(set.idle_timeout_ms),
            ..ConnectionLimits::default()
        },
        ..SetPolicy::new(algorithm)
    };
    let policy = resilience::read(set, policy)?;
    let active = set.active_check.as_ref().map(|wire| active(wire, &policy)).transpose();
    let passive =
        set.passive_check.as_ref().map(|wire| passive(wire).map_err(|error| error.to_string())).transpose();
    let plan = SetPlan {
        active: active.map_err(|reason| refuse(".healthCheck.active", reason))?,
        passive: passive.map_err(|reason| refuse(".healthCheck.passive", reason))?,
        panic_below_permille: policy
            .eligibility
            .panic_below_percent
            .map_or(0, |percent| u16::from(percent) * 10),
    };
    Ok((policy, plan))
}

fn algorithm(set: &push::BackendSet) -> Result<Algorithm, String> {
    Ok(match set.algorithm() {
        push::Algorithm::RoundRobin => Algorithm::RoundRobin,
        push::Algorithm::LeastRequest => Algorithm::default(),
        push::Algorithm::Random => Algorithm::Random,
        push::Algorithm::LeastConnections => Algorithm::LeastConnections,
        push::Algorithm::LeastResponseTime => Algorithm::LeastResponseTime(Smoothing::default()),
        push::Algorithm::PeakEwma => Algorithm::PeakEwma(Smoothing::default()),
        push::Algorithm::ConsistentHash => {
            let hash = set
                .consistent_hash
                .as_ref()
                .ok_or("ConsistentHash needs consistentHash: say what is hashed")?;
            Algorithm::Maglev {
                load_percent_max: (hash.max_load_percent > 0).then(|| narrow(hash.max_load_percent)),
            }
        }
        push::Algorithm::Unspecified => {
            let number = set.algorithm;
            return Err(format!(
                "algorithm {number} is not known to this proxy: upgrade the proxies, or choose another"
            ));
        }
    })
}

fn key(hash: &push::ConsistentHash) -> Result<KeySource, String> {
    let name = || match hash.name.as_str() {
        "" => Err("name is missing: say which header, cookie or query parameter".to_owned()),
        name => Ok(name.into()),
    };
    Ok(match hash.key() {
        push::HashKey::SourceIp => KeySource::SourceIp,
        push::HashKey::Header => KeySource::Header(name()?),
        push::HashKey::Cookie => KeySource::Cookie(name()?),
        push::HashKey::Query => KeySource::Query(name()?),
        push::HashKey::Host => KeySource::Host,
        push::HashKey::Unspecified => {
            let number = hash.key;
            return Err(format!("key {number} is not known to this proxy: upgrade the proxies"));
        }
    })
}

fn eligibility(set: &push::BackendSet) -> Result<Eligibility, String> {
    let locality = match set.locality() {
        push::Locality::Off | push::Locality::Unspecified if set.locality <= push::Locality::Off as i32 => {
            Locality::Off
        }
        push::Locality::PreferZone => Locality::PreferZone,
        push::Locality::Hints => Locality::Hints,
        push::Locality::Off | push::Locality::Unspecified => {
            let number = set.locality;
            return Err(format!("locality {number} is not known to this proxy: upgrade the proxies"));
        }
    };
    let slow_start = match &set.slow_start {
        Some(slow) if slow.window_ms == 0 => {
            return Err("slowStart.window is 0: leave slowStart out".to_owned());
        }
        Some(slow) => Some(SlowStart {
            window: Duration::from_millis(slow.window_ms),
            aggression_percent: 100,
            weight_min_percent: percent(slow.min_weight_percent).max(1),
        }),
        None => None,
    };
    let panic_below_percent = (set.panic_below_percent > 0).then(|| percent(set.panic_below_percent));
    Ok(Eligibility { locality, panic_below_percent, slow_start, ..Eligibility::default() })
}

fn proxy_header(set: &push::BackendSet) -> Result<Option<ProxyHeaderVersion>, String> {
    match push::ProxyProtocolVersion::try_from(set.proxy_protocol) {
        Ok(push::ProxyProtocolVersion::Unspecified) => Ok(None),
        Ok(push::ProxyProtocolVersion::ProxyProtocolVersion1) => Ok(Some(ProxyHeaderVersion::V1)),
        Ok(push::ProxyProtocolVersion::ProxyProtocolVersion2) => Ok(Some(ProxyHeaderVersion::V2)),
        Err(_) => {
            let number = set.proxy_protocol;
            Err(format!(
                "version {number} is not known to this proxy: upgrade the proxies, or choose another"
            ))
        }
    }
}

/// Those of a set of this policy.
fn active(wire: &push::ActiveCheck, policy: &SetPolicy) -> Result<Valid<ActiveSettings>, String> {
    use push::active_check::Kind as Wire;
    let kind = match &wire.kind {
        Some(Wire::Http(http)) => Kind::Http(self::http(http)?),
        Some(Wire::Tcp(_)) => Kind::Tcp,
        Some(Wire::Tls(_)) => Kind::Tls,
        Some(Wire::Grpc(grpc)) => Kind::Grpc { service: grpc.service.as_str().into() },
        None => {
            return Err(
                "the kind of check is not known to this proxy: upgrade the proxies, or choose another".into(),
            );
        }
    };
    let port = match wire.port {
        0 => None,
        port => {
            let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
            Some(number.ok_or_else(|| format!("port {port} is not a port: choose one of 1 to 65535"))?)
        }
    };
    // What asks whether a port is open asks no more, whatever is spoken there.
    let tls_profile = if kind == Kind::Tcp { None } else { policy.tls.clone() };
    let settings = ActiveSettings {
        kind,
        tls_profile,
        proxy_header: policy.proxy_header,
        port,
        interval: Duration::from_millis(wire.interval_ms),
        timeout: Duration::from_millis(wire.timeout_ms),
        healthy_threshold: wire.healthy_threshold,
        unhealthy_threshold: wire.unhealthy_threshold,
        initial: if wire.initially_down { Initial::Down } else { Initial::Up },
        ..ActiveSettings::default()
    };
    settings.validate().map_err(|error| error.to_string())
}

fn http(wire: &push::HttpCheck) -> Result<HttpCheck, String> {
    let version = match wire.version() {
        push::HttpVersion::HttpVersion1 => HttpVersion::Http1,
        push::HttpVersion::HttpVersion2 => HttpVersion::Http2,
        push::HttpVersion::Unspecified => {
            let number = wire.version;
            return Err(format!("http.version {number} is not known to this proxy: upgrade the proxies"));
        }
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    let headers = wire.headers.iter().map(|field| (field.name.as_str().into(), field.value.as_str().into()));
    let range =
        |range: &push::StatusRange| StatusRange { first: narrow(range.first), last: narrow(range.last) };
    Ok(HttpCheck {
        version,
        method: wire.method.as_str().into(),
        path: wire.path.as_str().into(),
        host: text(&wire.host),
        headers: headers.collect(),
        expected: wire.expected.iter().map(range).collect(),
        body_contains: text(&wire.body_contains),
    })
}

fn passive(wire: &push::PassiveCheck) -> Result<Valid<PassiveSettings>, SettingsError> {
    let permille = |percent: u32| narrow(percent.saturating_mul(10));
    PassiveSettings {
        window: Duration::from_millis(wire.window_ms),
        outcomes_min: wire.min_requests,
        failure_share_permille: (wire.max_failure_percent < 100).then(|| permille(wire.max_failure_percent)),
        consecutive_failures: NonZeroU32::new(wire.consecutive_failures),
        consecutive_connect_failures: NonZeroU32::new(wire.consecutive_connect_failures),
        ejection_base: Duration::from_millis(wire.base_ejection_ms),
        ejection_max: Duration::from_millis(wire.max_ejection_ms),
        ejected_share_max_permille: permille(wire.max_ejected_percent),
        available_min: wire.min_available,
        gray: wire.gray_failures.then(GraySettings::default),
        ..PassiveSettings::default()
    }
    .validate()
}

/// What is too large is refused further on, where its range is known.
fn narrow(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// 0 to 100.
fn percent(number: u32) -> u8 {
    u8::try_from(number.min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use push::active_check::Kind as Wire;

    fn set(algorithm: push::Algorithm) -> push::BackendSet {
        let mut set = push::BackendSet { connect_timeout_ms: 1, ..push::BackendSet::default() };
        set.set_algorithm(algorithm);
        set
    }

    #[test]
    fn each_algorithm_is_what_its_name_says() {
        for (wire, algorithm) in [
            (push::Algorithm::RoundRobin, Algorithm::RoundRobin),
            (push::Algorithm::LeastRequest, Algorithm::LeastRequest { choices: 2 }),
            (push::Algorithm::Random, Algorithm::Random),
            (push::Algorithm::LeastConnections, Algorithm::LeastConnections),
            (push::Algorithm::LeastResponseTime, Algorithm::LeastResponseTime(Smoothing::default())),
            (push::Algorithm::PeakEwma, Algorithm::PeakEwma(Smoothing::default())),
        ] {
            assert_eq!(
                read(&set(wire), None).map(|(policy, _)| (policy.algorithm, policy.key)),
                Ok((algorithm, None))
            );
        }
        let hashed = |key: push::HashKey, name: &str, max_load_percent| {
            let mut hash = push::ConsistentHash {
                name: name.into(),
                max_load_percent,
                ..push::ConsistentHash::default()
            };
            hash.set_key(key);
            let set =
                push::BackendSet { consistent_hash: Some(hash), ..set(push::Algorithm::ConsistentHash) };
            read(&set, None)
                .map(|(policy, _)| (policy.algorithm, policy.key))
                .map_err(|refused| refused.to_string())
        };
        let bounded = Algorithm::Maglev { load_percent_max: Some(125) };
        for (key, name, source) in [
            (push::HashKey::SourceIp, "", KeySource::SourceIp),
            (push::HashKey::Header, "x-user", KeySource::Header("x-user".into())),
            (push::HashKey::Cookie, "id", KeySource::Cookie("id".into())),
            (push::HashKey::Query, "q", KeySource::Query("q".into())),
            (push::HashKey::Host, "", KeySource::Host),
        ] {
            assert_eq!(hashed(key, name, 125), Ok((bounded, Some(source))));
        }
        let unbounded = Algorithm::Maglev { load_percent_max: None };
        assert_eq!(hashed(push::HashKey::Host, "", 0), Ok((unbounded, Some(KeySource::Host))));
        assert!(
            hashed(push::HashKey::Cookie, "", 0).is_err_and(|refused| refused.contains("name is missing"))
        );
        assert!(read(&set(push::Algorithm::ConsistentHash), None).is_err(), "of what");
    }

    #[test]
    fn each_kind_of_check_is_what_its_name_says() {
        let checked = |kind: Option<Wire>| {
            let check = push::ActiveCheck {
                kind,
                port: 8081,
                interval_ms: 2_000,
                timeout_ms: 500,
                healthy_threshold: 4,
                unhealthy_threshold: 5,
                initially_down: true,
            };
            let set = push::BackendSet { active_check: Some(check), ..set(push::Algorithm::Random) };
            read(&set, None).map(|(_, plan)| plan.active.expect("asked for"))
        };
        let http = push::HttpCheck {
            version: push::HttpVersion::HttpVersion2.into(),
            method: "POST".into(),
            path: "/ready".into(),
            host: "a".into(),
            headers: vec![push::HeaderField { name: "x-a".into(), value: "b".into() }],
            expected: vec![push::StatusRange { first: 204, last: 205 }],
            body_contains: "ok".into(),
        };
        let check = HttpCheck {
            version: HttpVersion::Http2,
            method: "POST".into(),
            path: "/ready".into(),
            host: Some("a".into()),
            headers: vec![("x-a".into(), "b".into())],
            expected: vec![StatusRange { first: 204, last: 205 }],
            body_contains: Some("ok".into()),
        };
        for (wire, kind) in [
            (Wire::Http(http), Kind::Http(check)),
            (Wire::Tcp(push::TcpCheck {}), Kind::Tcp),
            (Wire::Tls(push::TlsCheck {}), Kind::Tls),
            (Wire::Grpc(push::GrpcCheck { service: "s".into() }), Kind::Grpc { service: "s".into() }),
        ] {
            let settings = checked(Some(wire)).expect("valid");
            let expected = ActiveSettings {
                kind,
                port: NonZeroU16::new(8081),
                interval: Duration::from_secs(2),
                timeout: Duration::from_millis(500),
                healthy_threshold: 4,
                unhealthy_threshold: 5,
                initial: Initial::Down,
                ..ActiveSettings::default()
            };
            assert_eq!(*settings, expected);
        }
        assert!(checked(None).is_err_and(|refused| refused.reason.contains("upgrade the proxies")));
    }
}
