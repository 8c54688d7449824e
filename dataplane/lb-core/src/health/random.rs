//! Parts of times by chance, and hashes that every process computes alike.

use crate::balance::mix;
use std::time::Duration;

/// FNV-1a, finished with [`mix`]. Equal in every process, version and machine, which the hashes of `std` and foldhash
/// do not promise. Not proof against who looks for collisions.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    mix(bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// `length` times `random / 2^64`: from nothing up to, and without, `length`.
pub(super) fn part_of(length: Duration, random: u64) -> Duration {
    let nanoseconds = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanoseconds) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(part).expect("64 bits times 64 bits, less 64"))
}

/// `length` times `permille / 1000`.
pub(super) fn permille_of(length: Duration, permille: u16) -> Duration {
    length.saturating_mul(u32::from(permille)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_reach_from_nothing_to_almost_all() {
        let second = Duration::from_secs(1);
        assert_eq!(part_of(second, 0), Duration::ZERO);
        assert_eq!(part_of(second, u64::MAX), Duration::from_nanos(999_999_999));
        assert_eq!(part_of(second, 1 << 63), Duration::from_millis(500));
        assert_eq!(permille_of(second, 100), Duration::from_millis(100));
    }

    #[test]
    fn hashes_never_change_between_versions() {
        assert_eq!(stable_hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(stable_hash(b"weir"), 18_102_364_656_296_629_561);
    }
}
