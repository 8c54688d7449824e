//! Rate limits and IP rules, from the specification to the wire.

use super::super::check::{Check, quoted};
use ipnet::IpNet;
use std::collections::BTreeSet;
use weir_crds::pool as spec;
use weir_proto::digest::shared_limit;
use weir_proto::limits::RATE_PERIOD_MS;
use weir_proto::push;
use weir_proto::push::rate_limit::{Algorithm, Key};

/// Networks in CIDR notation, as they are called everywhere.
pub(in super::super) fn networks(
    field: &str,
    networks: &[String],
    max: usize,
    check: &mut Check,
) -> Vec<String> {
    check.count(field, networks, (0, max));
    let mut compiled = Vec::new();
    for (index, text) in networks.iter().enumerate() {
        match text.parse::<IpNet>() {
            Ok(network) if network.addr() == network.network() => compiled.push(network.to_string()),
            Ok(network) => {
                let rule = format!(
                    "has bits set behind its prefix: write {} for the network, or {} for the address",
                    network.trunc(),
                    IpNet::from(network.addr())
                );
                check.refuse(format!("{field}[{index}]"), quoted(text), rule);
            }
            Err(_) => {
                let rule = "is not a network: write it like 10.0.0.0/8, 192.0.2.1/32 or 2001:db8::/32";
                check.refuse(format!("{field}[{index}]"), quoted(text), rule);
            }
        }
    }
    compiled
}

/// From where requests may come.
pub(in super::super) fn ip_rules(field: &str, own: &spec::IpRules, check: &mut Check) -> push::IpRules {
    push::IpRules {
        allow: networks(&format!("{field}.allow"), &own.allow, spec::IP_NETWORKS_MAX, check),
        deny: networks(&format!("{field}.deny"), &own.deny, spec::IP_NETWORKS_MAX, check),
    }
}

/// The limits of one list. `scope` tells them from those of other lists of the pool.
pub(in super::super) fn rate_limits(
    field: &str,
    scope: &str,
    own: &[spec::RateLimit],
    check: &mut Check,
) -> Vec<push::RateLimit> {
    check.count(field, own, (0, spec::RATE_LIMITS_MAX));
    let mut names = BTreeSet::new();
    let mut compiled = Vec::new();
    for (index, limit) in own.iter().enumerate() {
        let field = format!("{field}[{index}]");
        check.name(&format!("{field}.name"), &limit.name);
        check.unique(&mut names, limit.name.as_str(), format!("{field}.name"), quoted(&limit.name));
        compiled.extend(rate_limit(&field, scope, limit, check));
    }
    compiled
}

/// `None` where something of it is wrong.
fn rate_limit(
    field: &str,
    scope: &str,
    limit: &spec::RateLimit,
    check: &mut Check,
) -> Option<push::RateLimit> {
    let own = limit.key.clone().unwrap_or_default();
    let key = key(&format!("{field}.key"), &own, check);
    let requests = check.between(&format!("{field}.requests"), limit.requests, (1, spec::RATE_REQUESTS_MAX));
    let burst = limit.burst.map_or(requests, |burst| {
        check.between(&format!("{field}.burst"), burst, (1, spec::RATE_REQUESTS_MAX))
    });
    let algorithm = match limit.algorithm {
        spec::RateLimitAlgorithm::TokenBucket => Algorithm::TokenBucketBurst(burst?),
        spec::RateLimitAlgorithm::SlidingWindow => {
            if let Some(burst) = limit.burst {
                let rule = "is for algorithm TokenBucket only: remove it";
                check.refuse(format!("{field}.burst"), burst.to_string(), rule);
            }
            Algorithm::SlidingWindow(push::SlidingWindow {})
        }
    };
    let has_one = own.kind == spec::RateLimitKeyType::Route;
    let keys_max = match limit.max_keys {
        Some(keys) if has_one => {
            let rule = "is not for key type Route, which has one bucket: remove it";
            check.refuse(format!("{field}.maxKeys"), keys.to_string(), rule);
            None
        }
        None if has_one => Some(0),
        keys => {
            let keys = keys.unwrap_or(spec::RATE_KEYS_DEFAULT);
            check.between(&format!("{field}.maxKeys"), keys, spec::RATE_KEYS_RANGE)
        }
    };
    Some(push::RateLimit {
        id: format!("{scope}/{}", limit.name),
        name: limit.name.clone(),
        key: Some(key?),
        algorithm: Some(algorithm),
        requests: requests?,
        period_ms: check.within(&format!("{field}.period"), limit.period, RATE_PERIOD_MS),
        keys_max: keys_max?,
        always_told: limit.response_headers == spec::RateLimitHeaders::Always,
        // Its number comes when the rules are whole.
        shared: u64::from(limit.scope == spec::RateLimitScope::Cluster),
    })
}

fn key(field: &str, own: &spec::RateLimitKey, check: &mut Check) -> Option<Key> {
    use spec::RateLimitKeyType::{Cookie, Header, Route, SourceIp};
    let name = match (own.kind, &own.name) {
        (Header | Cookie, None) => {
            let rule = "is missing: say which header or cookie";
            check.refuse(format!("{field}.name"), "", rule);
            return None;
        }
        (Header | Cookie, Some(name)) => {
            check.token(&format!("{field}.name"), name, spec::RATE_NAME_BYTES_MAX);
            name.as_str()
        }
        (_, None) => "",
        (_, Some(name)) => {
            let rule = "is for key type Header and Cookie only: remove it";
            check.refuse(format!("{field}.name"), quoted(name), rule);
            return None;
        }
    };
    let prefixes = [
        ("ipv4PrefixLength", own.ipv4_prefix_length, 32, 32),
        ("ipv6PrefixLength", own.ipv6_prefix_length, 64, 128),
    ];
    let mut bits = [0; 2];
    for ((name, length, default, max), bits) in prefixes.into_iter().zip(&mut bits) {
        match length {
            Some(_) if own.kind != SourceIp => {
                check.refuse(field, name, "is for key type SourceIP only: remove it");
                return None;
            }
            length => {
                *bits = check.between(&format!("{field}.{name}"), length.unwrap_or(default), (1, max))?;
            }
        }
    }
    let [v4_bits, v6_bits] = bits;
    Some(match own.kind {
        SourceIp => Key::Source(push::SourceKey { v4_bits, v6_bits }),
        // Header fields are compared in lower case; cookies as they are.
        Header => Key::Header(name.to_ascii_lowercase()),
        Cookie => Key::Cookie(name.to_owned()),
        Route => Key::Route(push::RouteKey {}),
    })
}

/// Refuses more buckets than a proxy should keep for one pool.
pub(in super::super) fn check_keys(rules: &[push::Rule], check: &mut Check) {
    let mut seen = BTreeSet::new();
    let limits = rules.iter().flat_map(|rule| &rule.rate_limits).filter(|limit| seen.insert(&limit.id));
    let keys: u64 = limits.map(|limit| u64::from(limit.keys_max)).sum();
    if keys > spec::RATE_KEYS_OF_POOL_MAX {
        let rule = format!(
            "are too many for the limits of one pool: lower maxKeys, to at most {} together",
            spec::RATE_KEYS_OF_POOL_MAX
        );
        check.refuse("spec.rules", format!("{keys} maxKeys"), rule);
    }
}

/// Gives the limits that proxies have together their numbers, and refuses more of them than one pool may have.
pub(in super::super) fn number_shared(pool: &str, rules: &mut [push::Rule], check: &mut Check) {
    let mut numbers = BTreeSet::new();
    for limit in rules.iter_mut().flat_map(|rule| &mut rule.rate_limits).filter(|limit| limit.shared != 0) {
        limit.shared = shared_limit(pool, limit);
        numbers.insert(limit.shared);
    }
    if numbers.len() > spec::RATE_SHARED_OF_POOL_MAX {
        let rule = format!(
            "are too many for one pool: use at most {}, or scope Local",
            spec::RATE_SHARED_OF_POOL_MAX
        );
        check.refuse("spec.rules", format!("{} limits of scope Cluster", numbers.len()), rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::ObjectKey;

    fn refusals(read: impl FnOnce(&mut Check)) -> Vec<String> {
        let mut check = Check::new(ObjectKey::new("ns", "p"));
        read(&mut check);
        let refused = check.finish(()).err().unwrap_or_default();
        refused.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_network_with_bits_behind_its_prefix_could_mean_two_things() {
        let read = |text: &str| {
            refusals(|check| {
                networks("f", &[text.to_owned()], 1, check);
            })
        };
        for right in
            ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "::ffff:10.0.0.0/104"]
        {
            assert_eq!(read(right), [""; 0], "{right}");
        }
        let refused = read("10.0.0.1/8");
        assert!(refused[0].contains("write 10.0.0.0/8 for the network, or 10.0.0.1/32"), "{refused:?}");
        for wrong in ["", "10.0.0.1", "10.0.0.0/33", "10/8", "a/8", "10.0.0.0/8 "] {
            assert!(read(wrong)[0].contains("is not a network"), "{wrong}");
        }
        let two = vec!["10.0.0.0/8".to_owned(); 2];
        assert!(!refusals(|check| drop(networks("f", &two, 1, check))).is_empty());
    }

    #[test]
    fn limits_that_rules_share_are_counted_once_against_what_a_pool_may_keep() {
        let rule = |id: &str, keys_max| push::Rule {
            rate_limits: vec![push::RateLimit { id: id.into(), keys_max, ..push::RateLimit::default() }],
            ..push::Rule::default()
        };
        let shared = vec![rule("pool/a", 1_000_000); 8];
        assert_eq!(refusals(|check| check_keys(&shared, check)), [""; 0]);
        let ids = ["a", "b", "c", "d"];
        let most: Vec<_> = ids.iter().map(|id| rule(id, 1_000_000)).collect();
        assert_eq!(refusals(|check| check_keys(&most, check)), [""; 0]);
        let more: Vec<_> = most.into_iter().chain([rule("e", 100)]).collect();
        assert!(refusals(|check| check_keys(&more, check))[0].contains("4000100 maxKeys"));
    }

    #[test]
    fn limits_of_the_cluster_have_a_number_each_and_a_pool_has_so_many() {
        let rule = |id: &str, shared| push::Rule {
            rate_limits: vec![push::RateLimit { id: id.into(), shared, ..push::RateLimit::default() }],
            ..push::Rule::default()
        };
        let mut rules = vec![rule("pool/a", 1), rule("pool/a", 1), rule("pool/b", 1), rule("pool/c", 0)];
        assert_eq!(refusals(|check| number_shared("ns/p", &mut rules, check)), [""; 0]);
        let [a, again, b, local] = [0, 1, 2, 3].map(|at: usize| rules[at].rate_limits[0].shared);
        assert!(a == again && a != b && a > 1 && local == 0, "rules that share a limit count it together");
        let many = |count: usize| (0..count).map(|n| rule(&n.to_string(), 1)).collect::<Vec<_>>();
        let most = spec::RATE_SHARED_OF_POOL_MAX;
        assert_eq!(refusals(|check| number_shared("ns/p", &mut many(most), check)), [""; 0]);
        let refused = refusals(|check| number_shared("ns/p", &mut many(most + 1), check));
        assert!(refused[0].contains("65 limits of scope Cluster"), "{refused:?}");
    }
}
