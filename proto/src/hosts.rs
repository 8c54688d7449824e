//! Hostnames of listeners and rules, as both ends read them.

/// Whether a wildcard stands for a host, or for all that another wildcard stands for. Not for itself.
#[must_use]
pub fn covers(wildcard: &str, host: &str) -> bool {
    wildcard.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
}
