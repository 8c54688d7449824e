//! The cookie's value: a token, sealed so that only proxies of this kind read it and nobody else makes one.
//!
//! Sealed with AES-256-GCM-SIV (RFC 8452) and a random nonce. Not with AES-256-GCM: all proxies seal with one key for
//! hours, and after 2^32 random nonces of 96 bits GCM is past its bound (NIST SP 800-38D, section 8.3), where one
//! repetition gives away the key that authenticates. With SIV a repeated nonce shows that two equal tokens are
//! equal, and nothing else.
//!
//! Without a ring, and for what was sealed before there was one, keys of this process alone serve.

use crate::ring::{DerivedRing, NamedKey, Ring, Use};
use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::AES_256_GCM_SIV;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lb_core::sessions::{TOKEN_BYTES_MAX, Token};
use std::sync::Arc;

/// Domain of the keys below.
const SALT: &[u8] = b"weir session cookies v1";

/// Two of three keys have one name by chance once in some billion rings.
const NAME_BYTES: usize = 4;

const SEALED_BYTES_MAX: usize = NamedKey::<NAME_BYTES>::OVERHEAD + TOKEN_BYTES_MAX;

/// Longest value that is looked at: base64 of the largest token, sealed.
pub(crate) const VALUE_BYTES_MAX: usize = SEALED_BYTES_MAX.div_ceil(3) * 4;

/// Seals and opens the cookies of this process.
#[derive(Debug)]
pub struct Sealer {
    local: DerivedRing<NAME_BYTES>,
    shared: ArcSwapOption<DerivedRing<NAME_BYTES>>,
}

/// The system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness for the keys of session cookies")]
pub struct SealerError;

/// A cookie of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) token: Token,
    /// Otherwise it is to be sealed again before its key is gone.
    pub(crate) is_current_key: bool,
}

/// Why a value is no cookie of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Longer than [`VALUE_BYTES_MAX`]: not looked at.
    #[error("the session cookie is too long")]
    Oversized,
    /// Not of the form that we give values, or sealed by us around something else.
    #[error("the session cookie is malformed")]
    Malformed,
    /// Sealed with a key that is not in the ring any more, or by somebody else.
    #[error("the session cookie is sealed with an unknown key")]
    UnknownKey,
    /// It has the name of a key of ours, which did not seal it.
    #[error("the session cookie is forged")]
    Forged,
}

impl Sealer {
    /// With keys of its own.
    ///
    /// # Errors
    /// [`SealerError`].
    pub fn new() -> Result<Self, SealerError> {
        let local = Ring::random().and_then(|ring| derive(&ring).ok()).ok_or(SealerError)?;
        Ok(Self { local, shared: ArcSwapOption::empty() })
    }

    /// From the next request on. Costs three derivations.
    pub fn use_ring(&self, ring: &Ring) {
        match derive(ring) {
            Ok(keys) => self.shared.store(Some(Arc::new(keys))),
            Err(_) => tracing::error!("no keys of session cookies could be derived; the old ones stay"),
        }
    }

    /// The cookie's value; `None` when the system gives no randomness.
    pub(crate) fn seal(&self, token: &Token) -> Option<String> {
        let shared = self.shared.load();
        let keys = shared.as_deref().unwrap_or(&self.local);
        Some(URL_SAFE_NO_PAD.encode(keys.current().seal(token.to_bytes())?))
    }

    /// Reads a cookie's value. Allocates nothing before its seal is found good.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(&self, value: &[u8]) -> Result<Opened, OpenError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(OpenError::Oversized);
        }
        let mut sealed = [0; VALUE_BYTES_MAX / 4 * 3];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut sealed).map_err(|_| OpenError::Malformed)?;
        let sealed = &mut sealed[..length];
        if length < NamedKey::<NAME_BYTES>::OVERHEAD {
            return Err(OpenError::Malformed);
        }
        let shared = self.shared.load();
        let (key, is_current_key) = match shared.as_deref() {
            Some(keys) => match keys.key_of(sealed) {
                Some(key) => (key, keys.is_current(key)),
                // Sealed here before the ring came.
                None => (self.local.key_of(sealed).ok_or(OpenError::UnknownKey)?, false),
            },
            None => (self.local.key_of(sealed).ok_or(OpenError::UnknownKey)?, true),
        };
        let plain = key.open(sealed).ok_or(OpenError::Forged)?;
        let token = Token::read(plain).map_err(|_| OpenError::Malformed)?;
        Ok(Opened { token, is_current_key })
    }
}

fn derive(ring: &Ring) -> Result<DerivedRing<NAME_BYTES>, aws_lc_rs::error::Unspecified> {
    DerivedRing::derive(ring, Use { salt: SALT, bound_to: &[], algorithm: &AES_256_GCM_SIV })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::sessions::Choice;
    use proptest::prelude::*;
    use std::time::Duration;
    use weir_proto::limits::KEY_BYTES;

    fn ring(keys: [u8; 3]) -> Ring {
        let [previous, current, next] = keys.map(|key| [key; KEY_BYTES]);
        Ring::new(&previous, &current, &next).expect("of the length")
    }

    fn sealer(keys: Option<[u8; 3]>) -> Sealer {
        let sealer = Sealer::new().expect("randomness");
        keys.into_iter().for_each(|keys| sealer.use_ring(&ring(keys)));
        sealer
    }

    fn token(choices: u32) -> Token {
        let choices = (0..choices).map(|set| Choice { set, backend: 0xfeed_0000 }).collect();
        Token { pool: 7, issued: Duration::from_secs(1_800_000_000), choices }
    }

    #[test]
    fn a_cookie_opens_on_every_proxy_for_one_rotation_before_and_after() {
        let value = sealer(Some([1, 2, 3])).seal(&token(1)).expect("sealed");
        let opened = |keys| sealer(Some(keys)).open(value.as_bytes());
        let good = |is_current_key| Ok(Opened { token: token(1), is_current_key });
        assert_eq!(opened([1, 2, 3]), good(true));
        assert_eq!(opened([2, 3, 4]), good(false), "one rotation later");
        assert_eq!(opened([0, 1, 2]), good(false), "at a proxy that has not heard of it yet");
        assert_eq!(opened([3, 4, 5]), Err(OpenError::UnknownKey), "two rotations later");
    }

    #[test]
    fn without_a_ring_only_this_process_opens_and_it_goes_on_to_when_one_comes() {
        let (here, elsewhere) = (sealer(None), sealer(None));
        let value = here.seal(&token(1)).expect("sealed");
        let opened = |sealer: &Sealer| sealer.open(value.as_bytes()).map(|opened| opened.is_current_key);
        assert_eq!((opened(&here), opened(&elsewhere)), (Ok(true), Err(OpenError::UnknownKey)));
        here.use_ring(&ring([1, 2, 3]));
        assert_eq!(opened(&here), Ok(false), "sealed before the ring came");
        let value = here.seal(&token(1)).expect("sealed");
        assert!(sealer(Some([1, 2, 3])).open(value.as_bytes()).is_ok());
    }

    #[test]
    fn a_cookie_that_was_touched_or_cut_does_not_open() {
        let sealer = sealer(Some([1, 2, 3]));
        let value = sealer.seal(&token(8)).expect("sealed").into_bytes();
        for at in 0..value.len() {
            let mut touched = value.clone();
            touched[at] = if touched[at] == b'A' { b'B' } else { b'A' };
            let refused = sealer.open(&touched).expect_err("touched");
            let named = if at < 5 { refused == OpenError::UnknownKey } else { true };
            // The last letter carries bits that must be zero.
            assert!(named && refused != OpenError::Oversized, "letter {at}: {refused}");
            assert!(sealer.open(&value[..at]).is_err(), "cut to {at}");
        }
        let mut forged = value.clone();
        forged[40] = if forged[40] == b'A' { b'B' } else { b'A' };
        assert_eq!(sealer.open(&forged), Err(OpenError::Forged));
        assert_eq!(sealer.open(b""), Err(OpenError::Malformed));
        assert_eq!(sealer.open(b"not base64!"), Err(OpenError::Malformed));
    }

    #[test]
    fn a_value_of_the_greatest_length_is_looked_at_and_one_past_it_is_not() {
        let sealer = sealer(Some([1, 2, 3]));
        assert!(sealer.seal(&token(8)).expect("sealed").len() <= VALUE_BYTES_MAX);
        assert_eq!(sealer.open(&[b'A'; VALUE_BYTES_MAX]), Err(OpenError::UnknownKey));
        assert_eq!(sealer.open(&[b'A'; VALUE_BYTES_MAX + 1]), Err(OpenError::Oversized));
    }

    #[test]
    fn what_is_sealed_says_nothing_and_is_another_text_each_time() {
        let sealer = sealer(Some([1, 2, 3]));
        let [one, two] = [(); 2].map(|()| sealer.seal(&token(1)).expect("sealed"));
        assert_ne!(one, two);
        let raw = URL_SAFE_NO_PAD.decode(&one).expect("base64");
        assert!(!raw.windows(4).any(|window| window == 0xfeed_0000u32.to_be_bytes()));
    }

    #[test]
    fn what_else_was_sealed_with_the_same_key_is_no_token() {
        let keys = derive(&ring([1, 2, 3])).expect("lengths are right");
        let value = URL_SAFE_NO_PAD.encode(keys.current().seal(b"another thing".to_vec()).expect("sealed"));
        assert_eq!(sealer(Some([1, 2, 3])).open(value.as_bytes()), Err(OpenError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_and_nothing_panics(value in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(sealer(Some([1, 2, 3])).open(&value).is_err());
        }
    }
}
