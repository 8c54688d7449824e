//! What this proxy has of limits that proxies have together, and what is asked of it.
//!
//! [`Holdings`] decides, and is pure; [`run`] is the task that brings it the time and the stream's messages, through an
//! [`Exchange`]. The request path sees nothing of this but a share that changes under its limiters.

mod exchange;
mod holdings;

pub use exchange::{Exchange, Heard};
pub use holdings::{FIRST_WORD, Holdings, Keeps, LEAVING_PART, Standing, UNTOLD_PART};

use crate::snapshot::Current;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Longest wait of a proxy that ends for the word that its shares are free.
pub const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Keeps shares for as long as it is polled. `started` is the process's zero of time.
pub async fn run(
    current: Current,
    started: Instant,
    exchange: std::sync::Arc<Exchange>,
    mut heard: mpsc::Receiver<Heard>,
) {
    let mut holdings = Holdings::default();
    let mut leaving = None;
    loop {
        let now = started.elapsed();
        holdings.keep(&current.load().limiters, now);
        holdings.expire(now);
        if let Some(demand) = holdings.demand(now) {
            exchange.say(demand);
        }
        exchange.show(holdings.standing());
        let due = holdings.due().map(|due| tokio::time::Instant::from_std(started + due));
        let word = tokio::select! {
            word = heard.recv() => word,
            () = at(due) => Some(Heard::Look),
        };
        let now = started.elapsed();
        match word {
            Some(Heard::Look) => {}
            Some(Heard::Stream { gives_shares }) => holdings.begin_stream(gives_shares, now),
            Some(Heard::Shares(shares)) => {
                if holdings.hear(&shares, now).is_last() {
                    // Whoever waits has what it waits for.
                    drop(leaving.take());
                }
            }
            Some(Heard::Leave(keeps, done)) => {
                if let Some(demand) = holdings.leave(keeps, now) {
                    exchange.say(demand);
                    leaving = Some(done);
                }
            }
            // Nobody speaks any more: the process ends.
            None => return std::future::pending().await,
        }
    }
}

async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
