//! That connections to backends are secured, for a crate that knows nothing of TLS.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// How connections to the backends of a set are secured. What that is, is the caller's; equal digests mean the same.
#[derive(Clone)]
pub struct TlsProfile {
    digest: u128,
    settings: Arc<dyn Any + Send + Sync>,
}

impl TlsProfile {
    /// `digest` is of everything that the settings say, equal in every process, and not to be found for other settings.
    #[must_use]
    pub fn new(digest: u128, settings: Arc<dyn Any + Send + Sync>) -> Self {
        Self { digest, settings }
    }

    /// Names the settings.
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// The settings, to whoever made them.
    #[must_use]
    pub fn settings<T: Any>(&self) -> Option<&T> {
        self.settings.downcast_ref()
    }
}

impl PartialEq for TlsProfile {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for TlsProfile {}

impl Hash for TlsProfile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for TlsProfile {
    /// The digest alone: the settings may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsProfile").field(&self.digest).finish()
    }
}
