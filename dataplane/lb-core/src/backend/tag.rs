//! Names of sets and backends as numbers, for sessions. Not to be changed: cookies in browsers hold them.

use xxhash_rust::xxh3::xxh3_64;

/// The upper half of the hash of `namespace/pool/set`.
pub(super) fn of_set(name: &str) -> u32 {
    u32::try_from(xxh3_64(name.as_bytes()) >> 32).expect("the upper half of 64 bits")
}

/// The hash of its id.
pub(super) fn of_backend(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}
