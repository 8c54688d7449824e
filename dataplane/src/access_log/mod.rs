//! The access log: a line for each request, and for each connection of layer 4, at its end.
//!
//! ```text
//! worker: Account -> Record -> line -> batch -> (bounded channel) -> writer, a thread of its own -> file or stdout
//! ```
//!
//! Off by default, and then a request looks at one `Option`. Nothing here waits: a batch that the writer has no room for
//! stays with its worker until it is full itself, and what comes after that is dropped and counted. A full disk or a pipe
//! that nobody reads delays the writer alone.
//!
//! Why no `tracing`: its lines would be made and written on the worker's thread.
//!
//! What a client says is bounded and escaped (`said`, `line`). Of headers there are `user-agent` and `x-request-id`, and of
//! the target there is the path: a query, a cookie or an authorization may be a secret, and there is no flag for them.

mod account;
mod line;
mod output;
mod record;
mod said;
mod writer;

pub(crate) use account::{AccessLog, Account};
pub(crate) use record::{Reason, Via};
pub(crate) use said::Said;
pub(crate) use writer::{Desk, Writing, start};

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most bytes of lines that a worker gathers, and hands over at once.
pub const BATCH_BYTES_MAX: usize = 64 << 10;

/// Most lines of the same.
pub const BATCH_RECORDS_MAX: u32 = 512;

/// Longest line, in bytes: every text at its limit, and every byte of it escaped.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// Batches of all workers that wait for the writer. What comes past it, and past a batch with each worker, is dropped.
pub const BATCHES_WAITING_MAX: usize = 64;

/// How long the end of the process waits for the writer.
pub const LAST_WRITE_LIMIT: Duration = Duration::from_secs(1);

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// NCSA common log. It has no place for connections of layer 4.
    Common,
    /// The same with referer, which is always `-`, and user agent.
    Combined,
}

/// What is logged of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// What has the reason of a failure, or a status from 500.
    Failures,
}

/// The part of requests that is logged, in millionths: 1 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// Every request.
    pub const ALL: Self = Self(Self::MILLION);

    const MILLION: u32 = 1_000_000;

    /// `None` for what is not from 0.000001 to 1. Rounded to millionths.
    #[must_use]
    pub fn of(part: f64) -> Option<Self> {
        let millionths = (part * f64::from(Self::MILLION)).round();
        let is_part = part <= 1.0 && millionths >= 1.0;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is from 1 to a million"
        )]
        is_part.then_some(Self(millionths as u32))
    }

    /// Whether one of the requests is, by a number below a million that was drawn.
    fn takes(self, drawn: usize) -> bool {
        drawn < self.0 as usize
    }
}

/// Where and how it is written.
#[derive(Debug, Clone)]
pub struct AccessLogOptions {
    /// How lines look.
    pub format: Format,
    /// The file that lines are appended to, made where it is missing; `None` for standard output.
    pub file: Option<PathBuf>,
    /// A part of requests alone.
    pub share: Share,
    /// All of these, or failures alone.
    pub which: Which,
}

/// Why there is no access log; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be made or written.
    #[error("cannot open the access log {path}: choose another file with --access-log-file")]
    Open {
        /// As asked for.
        path: PathBuf,
        /// Why, as the system said it.
        source: io::Error,
    },
    /// Standard output is closed, or the system gives no thread or no signal.
    #[error("cannot start the writer of the access log")]
    Start(#[source] io::Error),
}

/// What became of lines.
#[derive(Debug, Default)]
pub struct Counts {
    records: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// Lines that were written.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Lines that were not, since nobody took them in time or the file took none.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn wrote(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    fn dropped_more(&self, records: u64) {
        self.dropped.fetch_add(records, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_from_a_millionth_to_the_whole() {
        for (part, share) in [
            (1.0, Some(Share::ALL)),
            (0.01, Some(Share(10_000))),
            (0.000_001, Some(Share(1))),
            (0.000_000_4, None),
            (0.0, None),
            (-0.5, None),
            (1.000_001, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            assert_eq!(Share::of(part), share, "{part}");
        }
        let hundredth = Share::of(0.01).expect("a part");
        assert!(hundredth.takes(0) && hundredth.takes(9_999) && !hundredth.takes(10_000));
        assert!(Share::ALL.takes(999_999));
    }
}
