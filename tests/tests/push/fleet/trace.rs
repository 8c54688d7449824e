//! What happened, for who looks into a seed that failed; and one number for all of it.

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::hash::{DefaultHasher, Hasher as _};

/// Happenings that a failure shows.
const SHOWN: usize = 50;

#[derive(Debug, Default)]
pub(super) struct Trace {
    last: VecDeque<String>,
    hasher: DefaultHasher,
}

impl Trace {
    pub(super) fn note(&mut self, time: u64, what: Arguments<'_>) {
        let line = format!("{:>10.6} {what}", std::time::Duration::from_micros(time).as_secs_f64());
        self.hasher.write(line.as_bytes());
        if self.last.len() >= SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// A moment at which something happened, without a word.
    pub(super) fn mix(&mut self, time: u64) {
        self.hasher.write_u64(time);
    }

    /// Of everything noted.
    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// The last happenings, one a line.
    pub(super) fn tail(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}
