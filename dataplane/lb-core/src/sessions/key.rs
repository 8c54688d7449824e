//! Names of pools and sessions as numbers, equal on every proxy. Not to be changed: cookies in browsers hold them, and
//! proxies of two versions share a store.

use super::SessionSource;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Names a pool in sessions: the upper half of the hash of `namespace/name`.
#[must_use]
pub fn pool_tag(pool: &str) -> u32 {
    u32::try_from(xxh3_64(pool.as_bytes()) >> 32).expect("the upper half of 64 bits")
}

/// Names a session in its pool's table, by what the client sends: the same value in a header and in a cookie, or in two
/// headers, is two sessions.
///
/// 64 bits that a client could choose to collide with its own other session only: to meet somebody else's, it would
/// have to know their value, with which it is them anyway. Of a million sessions, two meet by chance once in 37
/// million tables.
#[must_use]
pub fn session_key(source: &SessionSource, value: &[u8]) -> u64 {
    let (kind, name): (&[u8], &str) = match source {
        SessionSource::Sealed(cookie) => (b"sealed", &cookie.name),
        SessionSource::SourceIp => (b"address", ""),
        SessionSource::Header(name) => (b"header", name),
        SessionSource::Learnt(name) => (b"cookie", name),
    };
    let mut hash = Xxh3Default::new();
    // Neither a kind nor a name holds a zero, so no two of these are the same bytes.
    for part in [kind, b"\0", name.as_bytes(), b"\0", value] {
        hash.update(part);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_as_they_are_from_version_to_version() {
        assert_eq!(pool_tag("shop/web"), 2_262_068_795);
        assert_eq!(session_key(&SessionSource::SourceIp, b"192.0.2.1"), 12_943_291_325_919_482_262);
    }

    #[test]
    fn one_value_is_another_session_in_another_place() {
        let sources = [
            SessionSource::SourceIp,
            SessionSource::Header("user".into()),
            SessionSource::Header("use".into()),
            SessionSource::Learnt("user".into()),
        ];
        let mut keys: Vec<u64> = sources
            .iter()
            .flat_map(|source| [&b"r"[..], b"ar", b""].map(|v| session_key(source, v)))
            .collect();
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
