//! Waiting for a state, with a deadline.

use std::time::{Duration, Instant};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(5);

/// Time for anything that takes milliseconds on an idle machine. Only a failing test waits this long.
pub const GENEROUS: Duration = Duration::from_secs(15);

/// Looks until there is something to see, and returns it.
///
/// # Panics
/// With `what` once [`GENEROUS`] has passed.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < GENEROUS, "waited {} s in vain: {what}", GENEROUS.as_secs());
        std::thread::sleep(POLL);
    }
}
