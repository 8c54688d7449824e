//! Digests that are equal on every replica and after a restart.
//!
//! XXH3-64 over canonical bytes: neither side trusts a digest for security, only to find an accident.

use crate::push::{Backend, PoolConfig, RateLimit};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

/// Digest of a pool's configuration.
///
/// prost encodes fields in the order of their numbers and the message holds no map, so equal values give equal
/// bytes.
#[must_use]
pub fn config(config: &PoolConfig) -> u64 {
    xxh3_64(&config.encode_to_vec())
}

/// Digest of one backend, 0 never standing for "none": add and subtract it from a set's digest.
#[must_use]
pub fn backend(backend: &Backend) -> u64 {
    xxh3_64(&backend.encode_to_vec())
}

/// Order-free digest of a whole set: the wrapping sum of its backends' digests; 0 for an empty set.
#[must_use]
pub fn set<'a>(backends: impl IntoIterator<Item = &'a Backend>) -> u64 {
    backends.into_iter().fold(0, |sum, b| sum.wrapping_add(backend(b)))
}

/// The number by which proxies know a limit of a pool that they have together: another one where anything of it is
/// different, never 0. What the limit's own number says does not count.
#[must_use]
pub fn shared_limit(pool: &str, limit: &RateLimit) -> u64 {
    let numbered = RateLimit { shared: 0, ..limit.clone() };
    xxh3_64(&[pool.as_bytes(), &[0], &numbered.encode_to_vec()].concat()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, weight: u32) -> Backend {
        Backend { id: id.into(), address: "10.0.0.1:80".into(), weight, ..Backend::default() }
    }

    #[test]
    fn set_digest_does_not_depend_on_order_and_sees_every_change() {
        let (a, b) = (member("a", 1), member("b", 1));
        assert_eq!(set([&a, &b]), set([&b, &a]));
        assert_ne!(set([&a, &b]), set([&a]));
        assert_ne!(set([&a, &b]), set([&a, &member("b", 2)]));
        assert_eq!(set([&a, &b]).wrapping_sub(backend(&b)), set([&a]));
        assert_eq!(set([]), 0);
    }

    #[test]
    fn every_field_of_a_backend_counts() {
        let plain = member("a", 1);
        let changed = [
            Backend { id: "b".into(), ..plain.clone() },
            Backend { address: "10.0.0.2:80".into(), ..plain.clone() },
            Backend { weight: 2, ..plain.clone() },
            Backend { zone: "x".into(), ..plain.clone() },
            Backend { state: 1, ..plain.clone() },
            Backend { node: "x".into(), ..plain.clone() },
            Backend { hint_zones: vec!["x".into()], ..plain.clone() },
            Backend { hint_zones: vec!["x".into(), "y".into()], ..plain.clone() },
            Backend { hint_nodes: vec!["x".into()], ..plain.clone() },
            Backend { priority: 1, ..plain.clone() },
            plain,
        ];
        let digests: std::collections::BTreeSet<_> = changed.iter().map(backend).collect();
        assert_eq!(digests.len(), changed.len());
    }

    #[test]
    fn digests_are_the_same_in_every_process() {
        // Two replicas of different builds must agree: a changed value here is a protocol change.
        assert_eq!(set([&member("a", 1)]), 0x9df1_d762_1034_3591);
    }

    #[test]
    fn a_limit_has_its_number_whatever_that_says_and_another_one_where_it_differs() {
        let limit = RateLimit { id: "pool/a".into(), requests: 5, ..RateLimit::default() };
        let number = shared_limit("ns/p", &limit);
        assert_eq!(shared_limit("ns/p", &RateLimit { shared: number, ..limit.clone() }), number);
        assert_ne!(shared_limit("ns/q", &limit), number);
        assert_ne!(shared_limit("ns/p", &RateLimit { requests: 6, ..limit }), number);
    }
}
