//! Two counts over a sliding window, without a lock.

/// Two counts over a sliding window.
#[derive(Debug, Default)]
pub struct Tally {}
