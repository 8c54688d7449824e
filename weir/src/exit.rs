//! Exit codes, the same for every subcommand.

use std::io::Write as _;
use std::process::ExitCode;
use weir_proxy::proxy::Ended;

/// All went as asked.
pub const GOOD: u8 = 0;
/// It was understood and did not work: a problem in a manifest, a port that is taken.
pub const FAILED: u8 = 1;
/// The command line asks for something that does not exist: an unknown flag, a folder that is not there.
/// clap ends with the same code.
pub const USAGE: u8 = 2;

/// The drain ended at its limit, and what was still in flight was cut.
pub const CUT: u8 = 3;

/// A second signal cut what was in flight; what a shell reports of a process that SIGINT ended.
pub const FORCED: u8 = 130;

/// Why a subcommand ended before its work was done.
#[derive(Debug)]
pub enum Failure {
    /// Ends with [`USAGE`].
    Usage(anyhow::Error),
    /// Ends with [`FAILED`].
    Failed(anyhow::Error),
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => USAGE,
            Self::Failed(_) => FAILED,
        })
    }

    /// What went wrong with its causes, on one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (Self::Usage(error) | Self::Failed(error)) = self;
        weir_dial::with_causes(error.as_ref())
    }
}

/// The exit code of a proxy that was asked to end.
#[must_use]
pub fn of_proxy(ended: Ended) -> ExitCode {
    ExitCode::from(match ended {
        Ended::Drained => GOOD,
        Ended::Cut => CUT,
        Ended::Forced => FORCED,
    })
}

/// The end of a process: its exit code, after a sentence on standard error where it failed. `name` is what the
/// command is called.
#[must_use]
pub fn end(name: &str, ended: Result<ExitCode, Failure>) -> ExitCode {
    ended.unwrap_or_else(|failure| {
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "{name}: {}", failure.sentence());
        failure.code()
    })
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
