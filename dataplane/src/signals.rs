//! SIGTERM and SIGINT as states of a shutdown: the first asks to end, the second insists.

use crate::proxy::Stop;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Watches for signals for the life of the process.
///
/// # Errors
/// When the system does not let us handle a signal.
pub fn stop_on_signals() -> io::Result<watch::Receiver<Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(Stop::No);
    tokio::spawn(async move {
        for stop in [Stop::Gently, Stop::Now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(stop);
        }
    });
    Ok(receiver)
}
