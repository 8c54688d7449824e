//! Whether this process has something to say to proxies, and what it waits for until then.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Not ready until the source has been read once; ready ever after, for proxies that dial later get what is known.
#[derive(Debug)]
pub struct Readiness(Mutex<Option<String>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(Some("the source has not been read yet".to_owned())))
    }
}

impl Readiness {
    /// The source has been read once.
    pub fn ready(&self) {
        *self.state() = None;
    }

    /// What is still waited for, as the rest of a sentence; without effect once ready.
    pub fn waiting(&self, what: String) {
        if let Some(reason) = &mut *self.state() {
            *reason = what;
        }
    }

    /// `None` once ready.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Option<String>> {
        // One value, written at once: nothing can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ready_once_stays_ready() {
        let readiness = Readiness::default();
        assert!(readiness.reason().is_some());
        readiness.waiting("for Services".into());
        assert_eq!(readiness.reason().as_deref(), Some("for Services"));
        readiness.ready();
        readiness.waiting("for Services".into());
        assert_eq!(readiness.reason(), None);
    }
}
