//! Keys that proxies of one kind share, and what is sealed with them.
//!
//! The controller shares a ring of three keys: previous, current, next. Each use of the ring derives keys of its own from
//! them (HKDF, RFC 5869), so that what is sealed for one use opens for no other. Everything is sealed with the current
//! key and opened with any of the three: a key seals for one period of rotation and opens for one more.
//!
//! What is sealed is `name | nonce | sealed | tag`. The name says which key to take; it is derived as the key is, no secret,
//! and authenticated. The nonce is random.

use aws_lc_rs::aead::{Aad, Algorithm, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use std::fmt;
use std::time::Duration;
use weir_proto::limits::KEY_BYTES;

/// How far the clock of the proxy that sealed something may be ahead of ours.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

const TAG_BYTES: usize = 16;

/// The three keys that proxies share: previous, current, next.
#[derive(Clone, PartialEq, Eq)]
pub struct Ring([[u8; KEY_BYTES]; 3]);

impl Ring {
    /// `None` when one of them is not of [`KEY_BYTES`].
    #[must_use]
    pub fn new(previous: &[u8], current: &[u8], next: &[u8]) -> Option<Self> {
        Some(Self([previous.try_into().ok()?, current.try_into().ok()?, next.try_into().ok()?]))
    }

    /// A ring of this process alone; `None` when the system gives no randomness.
    #[must_use]
    pub(crate) fn random() -> Option<Self> {
        let mut keys = [[0; KEY_BYTES]; 3];
        keys.iter_mut().try_for_each(|key| rand::fill(key)).ok()?;
        Some(Self(keys))
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring(redacted)")
    }
}

/// One use of the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use<'a> {
    /// Domain of the derived keys (RFC 5869, section 3.1): another use takes another salt.
    pub(crate) salt: &'static [u8],
    /// What the keys are bound to within the use.
    pub(crate) bound_to: &'a [&'a [u8]],
    /// What seals; takes keys of [`KEY_BYTES`].
    pub(crate) algorithm: &'static Algorithm,
}

/// Three keys of one use, whose names take `NAME` bytes.
#[derive(Debug)]
pub(crate) struct DerivedRing<const NAME: usize>([NamedKey<NAME>; 3]);

impl<const NAME: usize> DerivedRing<NAME> {
    /// Costs three derivations. By the library's contract it fails where a length is wrong, and all of them are constants.
    pub(crate) fn derive(Ring([previous, current, next]): &Ring, of: Use<'_>) -> Result<Self, Unspecified> {
        let key = |key| NamedKey::derive(key, of);
        Ok(Self([key(previous)?, key(current)?, key(next)?]))
    }

    pub(crate) fn current(&self) -> &NamedKey<NAME> {
        &self.0[1]
    }

    /// The key that this was sealed with, by its name alone.
    pub(crate) fn key_of(&self, sealed: &[u8]) -> Option<&NamedKey<NAME>> {
        let name = sealed.first_chunk()?;
        self.0.iter().find(|key| key.name == *name)
    }

    /// Whether this is sealed with the current key, if it is with any.
    pub(crate) fn is_current(&self, key: &NamedKey<NAME>) -> bool {
        key.name == self.current().name
    }
}

/// A key with the name that it is found by.
pub(crate) struct NamedKey<const NAME: usize> {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl<const NAME: usize> NamedKey<NAME> {
    /// Bytes that sealing adds.
    pub(crate) const OVERHEAD: usize = NAME + NONCE_LEN + TAG_BYTES;

    fn derive(secret: &[u8; KEY_BYTES], of: Use<'_>) -> Result<Self, Unspecified> {
        let extracted = Salt::new(HKDF_SHA256, of.salt).extract(secret);
        let expand = |what: &'static [u8], out: &mut [u8]| {
            let info: Vec<&[u8]> = [what].into_iter().chain(of.bound_to.iter().copied()).collect();
            extracted.expand(&info, Bytes(out.len()))?.fill(out)
        };
        let (mut derived, mut name) = ([0; KEY_BYTES], [0; NAME]);
        expand(b"key", &mut derived)?;
        expand(b"name", &mut name)?;
        Ok(Self { name, key: RandomizedNonceKey::new(of.algorithm, &derived)? })
    }

    /// Seals in place of what is in `plain`; `None` when the system gives no randomness.
    pub(crate) fn seal(&self, mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.name), &mut plain).ok()?;
        Some([&self.name[..], nonce.as_ref(), &plain].concat())
    }

    /// Opens in place; `None` for what this key never sealed.
    pub(crate) fn open<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (nonce, body) = sealed.get_mut(NAME..)?.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.key.open_in_place(nonce, Aad::from(self.name), body).ok()
    }
}

impl<const NAME: usize> fmt::Debug for NamedKey<NAME> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamedKey(redacted)")
    }
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::aead::AES_256_GCM;

    fn ring(keys: [u8; 3]) -> Ring {
        Ring(keys.map(|key| [key; KEY_BYTES]))
    }

    fn derived(salt: &'static [u8], bound_to: &[&[u8]]) -> DerivedRing<4> {
        let of = Use { salt, bound_to, algorithm: &AES_256_GCM };
        DerivedRing::derive(&ring([1, 2, 3]), of).expect("lengths are right")
    }

    #[test]
    fn what_is_sealed_for_one_use_opens_for_no_other() {
        let sealed = derived(b"one", &[b"80"]).current().seal(b"plain".to_vec()).expect("randomness");
        assert_eq!(sealed.len(), 5 + NamedKey::<4>::OVERHEAD);
        let opens = |keys: &DerivedRing<4>| {
            let by_name = keys.key_of(&sealed).is_some();
            let by_key = keys.current().open(&mut sealed.clone()).is_some();
            (by_name, by_key)
        };
        assert_eq!(opens(&derived(b"one", &[b"80"])), (true, true));
        assert_eq!(opens(&derived(b"one", &[b"81"])), (false, false));
        assert_eq!(opens(&derived(b"two", &[b"80"])), (false, false));
    }

    #[test]
    fn keys_are_not_shown_and_have_one_length() {
        assert_eq!(format!("{:?}", ring([104, 104, 104])), "Ring(redacted)");
        assert!(!format!("{:?}", derived(b"one", &[])).contains("104"));
        let (good, short) = ([0; KEY_BYTES], [0; KEY_BYTES - 1]);
        assert!(Ring::new(&good, &good, &good).is_some());
        assert!(Ring::new(&good, &short, &good).is_none());
    }

    #[test]
    fn rings_of_two_processes_are_not_the_same() {
        assert!(Ring::random().is_some() && Ring::random() != Ring::random());
    }
}
