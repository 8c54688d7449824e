//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(5);

/// Time for anything that takes milliseconds on an idle machine. Only a failing test waits this long.
pub const GENEROUS: Duration = Duration::from_secs(15);

/// Pause between two looks at what takes seconds: each look may start a process.
const SLOW_POLL: Duration = Duration::from_millis(50);

/// Time for anything that takes seconds on an idle machine: what a cluster does. Only a failing test waits this long.
pub const PATIENT: Duration = Duration::from_secs(90);

/// Looks until there is something to see, and returns it.
///
/// # Panics
/// With `what` once [`GENEROUS`] has passed.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_until(what, GENEROUS, POLL, look)
}

/// As [`until`], for a state that a cluster comes to: with more time, and fewer looks.
///
/// # Panics
/// With `what` once [`PATIENT`] has passed.
pub fn patiently<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_until(what, PATIENT, SLOW_POLL, look)
}

/// As [`patiently`], for who has more to say than `what`: `None` once [`PATIENT`] has passed.
pub fn patiently_or_not<T>(look: impl FnMut() -> Option<T>) -> Option<T> {
    look_for(PATIENT, SLOW_POLL, look)
}

fn look_until<T>(what: &str, limit: Duration, pause: Duration, look: impl FnMut() -> Option<T>) -> T {
    look_for(limit, pause, look).unwrap_or_else(|| panic!("waited {} s in vain: {what}", limit.as_secs()))
}

fn look_for<T>(limit: Duration, pause: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if started.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(pause);
    }
}
