//! One direction of a stream, as TCP and gRPC give it: ordered and whole, late at random, and at most a window ahead. And
//! as they never give it: with a message that comes before others.

use crate::fixtures::Random;
use std::collections::VecDeque;

/// What is on its way.
pub(super) struct Pipe<T> {
    queue: VecDeque<(u64, usize, T)>,
    /// Of what is in the queue.
    pub(super) bytes: usize,
    /// Of everything that was ever sent.
    pub(super) bytes_sent: usize,
    last_arrival: u64,
    /// Nothing arrives before.
    pub(super) stalled_until: u64,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0, bytes_sent: 0, last_arrival: 0, stalled_until: 0 }
    }
}

impl<T: prost::Message> Pipe<T> {
    /// Gives the moment at which it arrives.
    pub(super) fn send(&mut self, now: u64, latency: u64, message: T) -> u64 {
        let bytes = message.encoded_len();
        let arrival = (now + latency).max(self.last_arrival).max(self.stalled_until);
        self.last_arrival = arrival;
        self.bytes += bytes;
        self.bytes_sent += bytes;
        self.queue.push_back((arrival, bytes, message));
        arrival
    }

    /// The message that was sent last comes before others on their way, at random, of those that may be passed. Gives how
    /// many it passed.
    pub(super) fn overtake(&mut self, may_be_passed: impl Fn(&T) -> bool, random: &mut Random) -> usize {
        let Some(last) = self.queue.pop_back() else { return 0 };
        let ahead = self.queue.iter().rev().take_while(|(.., message)| may_be_passed(message)).count();
        let passed = random.index(ahead + 1);
        let mut next = last.0;
        self.queue.insert(self.queue.len() - passed, last);
        // What it passed is later by one place; when something arrives stays.
        for (arrival, ..) in self.queue.iter_mut().rev().take(passed + 1) {
            std::mem::swap(arrival, &mut next);
        }
        passed
    }

    /// The next message that has arrived.
    pub(super) fn take(&mut self, now: u64) -> Option<T> {
        if now < self.stalled_until || self.queue.front().is_none_or(|(arrival, ..)| *arrival > now) {
            return None;
        }
        let (_, bytes, message) = self.queue.pop_front()?;
        self.bytes -= bytes;
        Some(message)
    }
}
