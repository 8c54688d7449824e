//! Who the client is, from where it may come and how often, from the wire.

use super::{Rejection, duration, token, within};
use ipnet::IpNet;
use lb_core::addresses::{Claims, ClientPolicy, HOPS_MAX, IpRules, IpTable, TrustedProxies};
use lb_core::rate::{Algorithm, LIMITS_MAX, LimitPolicy, RateKey, Scope, Told};
use std::collections::BTreeSet;
use std::sync::Arc;
use weir_proto::limits::RATE_PERIOD_MS;
use weir_proto::push;
use weir_proto::push::rate_limit::{Algorithm as WireAlgorithm, Key};

/// Networks of trusted proxies.
const TRUSTED_MAX: usize = 64;
/// Allowed and denied networks, each.
const IP_NETWORKS_MAX: usize = 1_000;
const REQUESTS: (u32, u32) = (1, 1_000_000);
const KEYS: (u32, u32) = (100, 1_000_000);
const NAME_BYTES_MAX: usize = 256;

/// Of one listener.
pub(super) fn client(field: &str, wire: &push::ClientAddress) -> Result<ClientPolicy, Rejection> {
    let networks = networks(&format!("{field}.trustedCIDRs"), &wire.trusted_networks, TRUSTED_MAX)?;
    let hops = match wire.trusted_hops {
        0 => None,
        hops => Some(within(field, ".numTrustedHops", hops as usize, (1, HOPS_MAX))?),
    };
    let table = || IpTable::new(networks.iter().map(|network| (*network, ())));
    Ok(ClientPolicy {
        trusted: TrustedProxies { networks: (!networks.is_empty()).then(table), hops },
        claims: if wire.from_forwarded { Claims::Forwarded } else { Claims::XForwarded },
        sends_forwarded: wire.send_forwarded,
    })
}

/// Those of rules, where rules that say the same share one.
#[derive(Debug, Default)]
pub(super) struct IpRulesRead<'a>(Vec<(&'a push::IpRules, Arc<IpRules>)>);

impl<'a> IpRulesRead<'a> {
    pub(super) fn read(&mut self, field: &str, wire: &'a push::IpRules) -> Result<Arc<IpRules>, Rejection> {
        if let Some((_, made)) = self.0.iter().find(|(read, _)| *read == wire) {
            return Ok(Arc::clone(made));
        }
        let allow = networks(&format!("{field}.allow"), &wire.allow, IP_NETWORKS_MAX)?;
        let deny = networks(&format!("{field}.deny"), &wire.deny, IP_NETWORKS_MAX)?;
        let made = Arc::new(IpRules::new(&allow, &deny));
        self.0.push((wire, Arc::clone(&made)));
        Ok(made)
    }
}

pub(super) fn networks(field: &str, wire: &[String], max: usize) -> Result<Vec<IpNet>, Rejection> {
    if wire.len() > max {
        let reason = format!("{} networks are too many: use at most {max}", wire.len());
        return Err(Rejection::new(field, reason));
    }
    let read = |(nth, text): (usize, &String)| {
        let network = text.parse::<IpNet>();
        network.map_err(|_| {
            let reason = format!("{text:?} is not a network: write it like 10.0.0.0/8 or 2001:db8::/32");
            Rejection::new(format!("{field}[{nth}]"), reason)
        })
    };
    wire.iter().enumerate().map(read).collect()
}

/// The limits of one rule.
pub(super) fn limits(field: &str, wire: &[push::RateLimit]) -> Result<Vec<LimitPolicy>, Rejection> {
    if wire.len() > LIMITS_MAX {
        let reason = format!("{} limits are too many: use at most {LIMITS_MAX}", wire.len());
        return Err(Rejection::new(field, reason));
    }
    let mut ids = BTreeSet::new();
    let mut limits = Vec::with_capacity(wire.len());
    for (nth, wire) in wire.iter().enumerate() {
        let field = format!("{field}[{nth}]");
        if !ids.insert(&wire.id) {
            let reason = format!("{:?} is the name of two limits: give each its own", wire.name);
            return Err(Rejection::new(format!("{field}.name"), reason));
        }
        limits.push(limit(&field, wire)?);
    }
    Ok(limits)
}

fn limit(field: &str, wire: &push::RateLimit) -> Result<LimitPolicy, Rejection> {
    let name = |name: &str| token(field, ".key.name", name, NAME_BYTES_MAX);
    let unknown = |rest: &str| {
        let reason = "it is not known to this proxy: upgrade the proxies, or choose another";
        Rejection::new(format!("{field}.{rest}"), reason)
    };
    let key = match wire.key.as_ref().ok_or_else(|| unknown("key.type"))? {
        Key::Route(_) => RateKey::Route,
        Key::Source(bits) => RateKey::Source {
            v4_bits: within(field, ".key.ipv4PrefixLength", bits.v4_bits, (1, 32))?,
            v6_bits: within(field, ".key.ipv6PrefixLength", bits.v6_bits, (1, 128))?,
        },
        Key::Header(header) => RateKey::Header(name(&header.to_ascii_lowercase())?),
        Key::Cookie(cookie) => RateKey::Cookie(name(cookie)?),
    };
    let algorithm = match wire.algorithm.as_ref().ok_or_else(|| unknown("algorithm"))? {
        WireAlgorithm::TokenBucketBurst(burst) => {
            Algorithm::TokenBucket { burst: within(field, ".burst", *burst, REQUESTS)? }
        }
        WireAlgorithm::SlidingWindow(_) => Algorithm::SlidingWindow,
    };
    let keys_max = match key {
        RateKey::Route => 1,
        _ => within(field, ".maxKeys", wire.keys_max, KEYS)?,
    };
    Ok(LimitPolicy {
        id: wire.id.as_str().into(),
        // It goes into a header's string.
        name: token(field, ".name", &wire.name, NAME_BYTES_MAX)?,
        key,
        algorithm,
        requests: within(field, ".requests", wire.requests, REQUESTS)?,
        period: duration(field, ".period", wire.period_ms, RATE_PERIOD_MS)?,
        scope: match wire.shared {
            0 => Scope::Local,
            number => Scope::Cluster(number),
        },
        keys_max,
        told: if wire.always_told { Told::Always } else { Told::WhenRefused },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wire(key: Key) -> push::RateLimit {
        push::RateLimit {
            id: "rules/0/l".into(),
            name: "l".into(),
            key: Some(key),
            algorithm: Some(WireAlgorithm::TokenBucketBurst(7)),
            requests: 5,
            period_ms: 60_000,
            keys_max: 100,
            always_told: true,
            shared: 42,
        }
    }

    #[test]
    fn a_limit_is_what_it_says() {
        let made = limits("f", &[wire(Key::Header("X-User".into()))]).expect("right");
        let expected = LimitPolicy {
            id: "rules/0/l".into(),
            name: "l".into(),
            key: RateKey::Header("x-user".into()),
            algorithm: Algorithm::TokenBucket { burst: 7 },
            requests: 5,
            period: Duration::from_secs(60),
            scope: Scope::Cluster(42),
            keys_max: 100,
            told: Told::Always,
        };
        assert_eq!(made, [expected]);
        let source = push::SourceKey { v4_bits: 24, v6_bits: 48 };
        for (key, made) in [
            (Key::Route(push::RouteKey {}), RateKey::Route),
            (Key::Source(source), RateKey::Source { v4_bits: 24, v6_bits: 48 }),
            (Key::Cookie("Id".into()), RateKey::Cookie("Id".into())),
        ] {
            assert_eq!(limits("f", &[wire(key)]).expect("right")[0].key, made);
        }
    }

    #[test]
    fn a_wrong_limit_is_refused_with_its_field() {
        let right = || wire(Key::Header("x-user".into()));
        let source = |v4_bits, v6_bits| wire(Key::Source(push::SourceKey { v4_bits, v6_bits }));
        for (wrong, field) in [
            (push::RateLimit { requests: 0, ..right() }, "f[0].requests"),
            (push::RateLimit { requests: 1_000_001, ..right() }, "f[0].requests"),
            (push::RateLimit { period_ms: 999, ..right() }, "f[0].period"),
            (push::RateLimit { period_ms: 86_400_001, ..right() }, "f[0].period"),
            (push::RateLimit { keys_max: 99, ..right() }, "f[0].maxKeys"),
            (push::RateLimit { keys_max: 1_000_001, ..right() }, "f[0].maxKeys"),
            (push::RateLimit { key: None, ..right() }, "f[0].key.type"),
            (push::RateLimit { algorithm: None, ..right() }, "f[0].algorithm"),
            (
                push::RateLimit { algorithm: Some(WireAlgorithm::TokenBucketBurst(0)), ..right() },
                "f[0].burst",
            ),
            (push::RateLimit { name: "a\"b".into(), ..right() }, "f[0].name"),
            (wire(Key::Header("a b".into())), "f[0].key.name"),
            (source(0, 64), "f[0].key.ipv4PrefixLength"),
            (source(33, 64), "f[0].key.ipv4PrefixLength"),
            (source(32, 129), "f[0].key.ipv6PrefixLength"),
        ] {
            let refused = limits("f", &[wrong]).expect_err(field);
            assert_eq!(refused.field, field);
        }
        assert_eq!(limits("f", &[right(), right()]).expect_err("twice").field, "f[1].name");
        let many = |count: usize| -> Vec<_> {
            (0..count).map(|at| push::RateLimit { id: at.to_string(), ..right() }).collect()
        };
        assert!(limits("f", &many(LIMITS_MAX)).is_ok());
        assert_eq!(limits("f", &many(LIMITS_MAX + 1)).expect_err("too many").field, "f");
    }

    #[test]
    fn networks_are_read_and_shared() {
        let (ours, theirs) = (vec!["10.0.0.0/8".to_owned()], vec!["2001:db8::/32".to_owned()]);
        let wire = push::IpRules { allow: ours.clone(), deny: theirs };
        let mut read = IpRulesRead::default();
        let first = read.read("f", &wire).expect("right");
        assert!(first.may_ask("10.0.0.1".parse().expect("an address")));
        assert!(!first.may_ask("2001:db8::1".parse().expect("an address")));
        let again = wire.clone();
        assert!(Arc::ptr_eq(&first, &read.read("f", &again).expect("right")));
        let wrong = push::IpRules { deny: vec!["10.0.0.1/33".into()], ..push::IpRules::default() };
        let refused = IpRulesRead::default().read("f", &wrong).expect_err("no network");
        assert_eq!(refused.field, "f.deny[0]");
        for (count, is_right) in [(IP_NETWORKS_MAX, true), (IP_NETWORKS_MAX + 1, false)] {
            let wire = push::IpRules { allow: vec![ours[0].clone(); count], ..push::IpRules::default() };
            assert_eq!(IpRulesRead::default().read("f", &wire).is_ok(), is_right, "{count}");
        }
    }

    #[test]
    fn whose_word_counts_is_read() {
        let wire = |networks: &[&str], trusted_hops| push::ClientAddress {
            trusted_networks: networks.iter().map(|network| (*network).to_owned()).collect(),
            trusted_hops,
            from_forwarded: true,
            send_forwarded: true,
        };
        let made = client("f", &wire(&["10.0.0.0/8"], 2)).expect("right");
        assert_eq!(
            (made.claims, made.sends_forwarded, made.trusted.hops),
            (Claims::Forwarded, true, Some(2))
        );
        assert!(made.trusted.trusts([10, 0, 0, 1].into()) && !made.trusted.trusts([11, 0, 0, 1].into()));
        let nobody = client("f", &wire(&[], 0)).expect("right").trusted;
        assert_eq!(nobody, TrustedProxies::default());
        assert!(!nobody.trusts([10, 0, 0, 1].into()));
        assert_eq!(client("f", &wire(&["x"], 0)).expect_err("no network").field, "f.trustedCIDRs[0]");
        assert_eq!(client("f", &wire(&[], 33)).expect_err("too many").field, "f.numTrustedHops");
    }
}
