//! Small random numbers from a seed, so that every decision can be replayed.

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014). Eight bytes of
/// state, about a nanosecond for a number, every seed is good. Not for secrets.
#[derive(Debug, Clone, Default)]
pub struct Rng(u64);

/// The golden ratio as a fraction of 2^64: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The sequence of this seed. Workers take different seeds.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Less than `count`, each number as likely as the next to within `count / 2^32`; 0 where `count` is 0.
    ///
    /// A multiplication instead of a division (Lemire, "Fast Random Integer Generation in an Interval", 2019), without
    /// the rejection that would make it exact: for 10,000 backends the error is 2 parts in a million.
    pub fn below(&mut self, count: usize) -> usize {
        scale(self.bits(), count)
    }
}

/// Spreads the bits of a number over all 64 (SplitMix64's finaliser, a bijection).
#[must_use]
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The upper 32 bits as a position below `count`, which is at most 2^32.
#[must_use]
pub(super) fn scale(bits: u64, count: usize) -> usize {
    usize::try_from(((bits >> 32) * count as u64) >> 32).expect("less than the count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        // Published with the reference code's ports: rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
        let mut rng = Rng::new(1_234_567);
        let first: Vec<u64> = (0..5).map(|_| rng.bits()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn positions_are_below_the_count() {
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| rng.below(3) < 3));
        assert_eq!((rng.below(1), rng.below(0)), (0, 0));
    }
}
