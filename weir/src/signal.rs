//! SIGTERM and SIGINT: the first asks for a graceful end, the second ends at once.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after the second signal, that of a shell for a process ended by SIGINT.
const EXIT_FORCED: i32 = 130;

/// The two signals that end a process. Created before any work starts, so that an early signal is not lost.
#[derive(Debug)]
pub struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// Takes over both signals.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal's name. Cancellation safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process on the next signal, whatever it is doing.
    pub async fn force_on_next(&mut self) -> ! {
        let name = self.next().await;
        tracing::warn!("{name} again: ending at once, requests in flight are cut");
        std::process::exit(EXIT_FORCED)
    }
}
