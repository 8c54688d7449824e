//! Three keys, and what each kind of proxy gets of them.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use std::fmt;
use weir_proto::limits::KEY_BYTES;
use weir_proto::push::KeyRing;

use crate::identity::Identity;

/// Domain of what is derived here (RFC 5869, section 3.1).
const SALT: &[u8] = b"weir key ring v1";

/// A secret. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

/// The system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness for keys")]
pub struct RandomError;

impl Key {
    /// # Errors
    /// [`RandomError`].
    pub fn random() -> Result<Self, RandomError> {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| RandomError)?;
        Ok(Self(key))
    }

    /// `None` if it is not of [`KEY_BYTES`].
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn derive(&self, scope: &str) -> Vec<u8> {
        let mut derived = vec![0; KEY_BYTES];
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(&self.0);
        let info = [scope.as_bytes()];
        let expanded = extracted.expand(&info, Derived).and_then(|okm| okm.fill(&mut derived));
        expanded.expect("HKDF-SHA256 gives up to 8,160 bytes");
        derived
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// The keys of all proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Opens what was sealed before the last rotation.
    pub previous: Key,
    /// Seals and opens.
    pub current: Key,
    /// Becomes current at the next rotation.
    pub next: Key,
}

impl Ring {
    /// # Errors
    /// [`RandomError`].
    pub fn random() -> Result<Self, RandomError> {
        Ok(Self { previous: Key::random()?, current: Key::random()?, next: Key::random()? })
    }

    /// What proxies of one scope get: nobody of another can compute it, nor the ring from it.
    #[must_use]
    pub fn for_scope(&self, scope: &str) -> KeyRing {
        KeyRing {
            previous: self.previous.derive(scope),
            current: self.current.derive(scope),
            next: self.next.derive(scope),
        }
    }
}

/// Proxies of one scope open one another's tickets: pods of one ServiceAccount, which could read each other's
/// volumes anyway.
#[must_use]
pub fn scope(identity: &Identity) -> String {
    match identity {
        Identity::Trusted => "trusted".to_owned(),
        Identity::Pod(pod) => format!("pods {}/{}", pod.namespace, pod.service_account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scope_gets_is_its_own_and_moves_up_with_a_rotation() {
        let ring = Ring::random().expect("randomness");
        let next = Key::random().expect("randomness");
        let later = Ring { previous: ring.current.clone(), current: ring.next.clone(), next };
        let (before, after) = (ring.for_scope("pods edge/weir"), later.for_scope("pods edge/weir"));
        assert_eq!((&before.current, &before.next), (&after.previous, &after.current));
        assert!([&before.previous, &before.current, &before.next].iter().all(|key| key.len() == KEY_BYTES));
        let other = ring.for_scope("pods team/sidecar");
        assert_ne!(before.current, other.current);
        assert_ne!(before.current, ring.current.bytes());
        assert_eq!(before, ring.for_scope("pods edge/weir"), "the same on every replica");
    }

    #[test]
    fn keys_are_not_shown() {
        let key = Key::read(&[104; KEY_BYTES]).expect("of the length");
        let ring = Ring { previous: key.clone(), current: key.clone(), next: key };
        assert!(!format!("{ring:?}").contains("104"), "{ring:?}");
        assert!(Key::read(&[0; KEY_BYTES + 1]).is_none() && Key::read(&[]).is_none());
    }
}
