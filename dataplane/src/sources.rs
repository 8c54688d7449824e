//! How many connections and handshakes clients have, by port and by source, over all workers, without a lock.
//!
//! Counts of sources are kept in a sketch (count-min; Cormode and Muthukrishnan, 2005): [`ROWS`] rows of [`CELLS`] counters,
//! of which a source has one in each row by a keyed hash, and its count is the least of them. So the table has one size
//! however many sources there are, nothing is ever thrown out of it, and a source is never counted too low. One is counted
//! too high only where others of many connections share its cell in every row; who shares it, nobody can choose without the
//! key. Two workers may both take the last place at once: a bound may be passed by as many as there are workers, less one.

use crate::snapshot::ListenerLimits;
use foldhash::quality::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Rows of a sketch.
const ROWS: usize = 4;
/// Counters in each row: with the rows, the size of the table of sources, 16,384 times 4.
const CELLS: usize = 1 << 14;
/// Seconds of handshakes that a source may begin at once.
const HANDSHAKE_BURST_S: u64 = 2;

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The port has as many as it may have.
    Connections,
    /// The source has.
    Source,
    /// The source began as many handshakes as it may.
    Handshakes,
    /// There are as many under way as there may be, of the source or of all.
    HandshakesAtOnce,
}

/// What is counted of all ports, shared by all workers.
#[derive(Debug)]
pub(crate) struct Sources {
    hasher: RandomState,
    /// Connections, and handshakes under way, by keys that differ.
    open: Box<[AtomicU32]>,
    /// Handshakes under way, of the process.
    handshaking: AtomicU32,
    /// When the handshakes that were begun are paid for, in microseconds from `started` (GCRA).
    handshakes: Box<[AtomicU64]>,
    started: Instant,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            open: (0..ROWS * CELLS).map(|_| AtomicU32::new(0)).collect(),
            handshaking: AtomicU32::new(0),
            handshakes: (0..ROWS * CELLS).map(|_| AtomicU64::new(0)).collect(),
            started: Instant::now(),
        }
    }
}

/// Something that counts for as long as this lives: a connection, with its port or with its source, or a handshake.
#[derive(Debug)]
pub(crate) struct Counted {
    sources: Arc<Sources>,
    key: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        for cell in cells(self.key) {
            self.sources.open[cell].fetch_sub(1, Relaxed);
        }
    }
}

/// A handshake that counts for as long as this lives.
#[derive(Debug)]
pub(crate) struct Handshake(Counted);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.sources.handshaking.fetch_sub(1, Relaxed);
    }
}

impl Sources {
    /// Counts a connection in with its port.
    ///
    /// # Errors
    /// [`Refused::Connections`] where the bound is reached; nothing is counted then.
    pub(crate) fn admit(self: &Arc<Self>, port: u16, limits: &ListenerLimits) -> Result<Counted, Refused> {
        self.count(self.hasher.hash_one(port), limits.connections_max).ok_or(Refused::Connections)
    }

    /// Counts a connection in with its source.
    ///
    /// # Errors
    /// [`Refused::Source`] where the bound is reached; nothing is counted then.
    pub(crate) fn admit_source(
        self: &Arc<Self>,
        port: u16,
        address: IpAddr,
        limits: &ListenerLimits,
    ) -> Result<Counted, Refused> {
        let key = self.hasher.hash_one((port, source(address)));
        self.count(key, limits.connections_per_source_max).ok_or(Refused::Source)
    }

    /// Counts a handshake in, with its source and with all.
    ///
    /// # Errors
    /// [`Refused::HandshakesAtOnce`] where a bound is reached; nothing is counted then.
    pub(crate) fn begin_handshake(
        self: &Arc<Self>,
        port: u16,
        address: IpAddr,
        limits: &ListenerLimits,
    ) -> Result<Handshake, Refused> {
        // Another key than that of the source's connections.
        let key = self.hasher.hash_one((port, source(address), "handshake"));
        let of_source = self.count(key, limits.handshakes_at_once_per_source_max);
        let of_source = of_source.ok_or(Refused::HandshakesAtOnce)?;
        let before = self.handshaking.fetch_add(1, Relaxed);
        // Counts itself out again where it is refused.
        let handshake = Handshake(of_source);
        if before < limits.handshakes_at_once_max { Ok(handshake) } else { Err(Refused::HandshakesAtOnce) }
    }

    fn count(self: &Arc<Self>, key: u64, max: u32) -> Option<Counted> {
        let before = cells(key).map(|cell| self.open[cell].fetch_add(1, Relaxed)).min().unwrap_or(0);
        // Counts itself out again where it is refused.
        let counted = Counted { sources: Arc::clone(self), key };
        (before < max).then_some(counted)
    }

    /// Whether a source may begin a handshake now.
    #[must_use]
    pub(crate) fn may_shake_hands(&self, port: u16, address: IpAddr, limits: &ListenerLimits) -> bool {
        self.may_shake_hands_at(self.started.elapsed(), (port, address), limits)
    }

    fn may_shake_hands_at(
        &self,
        now: Duration,
        (port, address): (u16, IpAddr),
        limits: &ListenerLimits,
    ) -> bool {
        let source = self.hasher.hash_one((port, source(address)));
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let interval = 1_000_000 / u64::from(limits.handshakes_per_source_max.max(1));
        let paid = cells(source).map(|cell| self.handshakes[cell].load(Relaxed)).min().unwrap_or(0).max(now);
        if paid + interval > now + HANDSHAKE_BURST_S * 1_000_000 {
            return false;
        }
        for cell in cells(source) {
            self.handshakes[cell].fetch_max(paid + interval, Relaxed);
        }
        true
    }
}

/// A counter in each row.
fn cells(hash: u64) -> impl Iterator<Item = usize> {
    (0..ROWS).map(move |row| {
        let bits = usize::try_from((hash >> (row * 16)) & 0xffff).expect("16 bits");
        row * CELLS + bits % CELLS
    })
}

/// A client of IPv6 has a network of its own, of 64 bits at least.
fn source(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: u32, per_source: u32, handshakes: u32) -> ListenerLimits {
        ListenerLimits {
            connections_max: connections,
            connections_per_source_max: per_source,
            handshakes_per_source_max: handshakes,
            ..ListenerLimits::default()
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_source_has_as_many_connections_as_it_may_and_one_more_is_refused() {
        let (sources, limits) = (Arc::new(Sources::default()), limits(100, 3, 1));
        let mut held: Vec<_> = (0..3)
            .map(|_| sources.admit_source(80, address("192.0.2.1"), &limits).expect("within"))
            .collect();
        assert_eq!(
            sources.admit_source(80, address("192.0.2.1"), &limits).expect_err("past it"),
            Refused::Source
        );
        assert_eq!(
            sources.admit_source(80, address("::ffff:192.0.2.1"), &limits).expect_err("the same one"),
            Refused::Source
        );
        assert!(sources.admit_source(80, address("192.0.2.2"), &limits).is_ok(), "another one");
        assert!(sources.admit_source(81, address("192.0.2.1"), &limits).is_ok(), "another port");
        held.pop();
        assert!(sources.admit_source(80, address("192.0.2.1"), &limits).is_ok(), "one has ended");
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let (sources, limits) = (Arc::new(Sources::default()), limits(100, 1, 1));
        let _held = sources.admit_source(80, address("2001:db8::1"), &limits).expect("within");
        assert_eq!(
            sources.admit_source(80, address("2001:db8::2"), &limits).expect_err("past it"),
            Refused::Source
        );
        assert!(sources.admit_source(80, address("2001:db8:0:1::1"), &limits).is_ok());
    }

    #[test]
    fn a_port_has_as_many_connections_as_it_may_and_one_more_is_refused() {
        let (sources, limits) = (Arc::new(Sources::default()), limits(2, 100, 1));
        let admit = || sources.admit(80, &limits);
        let held = (admit().expect("within"), admit().expect("within"));
        assert_eq!(admit().expect_err("past it"), Refused::Connections);
        assert!(sources.admit(81, &limits).is_ok(), "another port");
        drop(held);
        assert!(admit().is_ok());
    }

    #[test]
    fn ten_thousand_sources_do_not_count_for_one_another() {
        let (sources, limits) = (Arc::new(Sources::default()), limits(1_000_000, 16, 1));
        let all = (0..10_000u32).flat_map(|n| [n; 3]);
        let held: Vec<_> = all
            .map(|n| {
                sources
                    .admit_source(80, IpAddr::from((0x0a00_0000 + n).to_be_bytes()), &limits)
                    .expect("few of each")
            })
            .collect();
        drop(held);
        assert!(sources.open.iter().all(|cell| cell.load(Relaxed) == 0), "all are counted out");
    }

    #[test]
    fn handshakes_of_a_source_come_in_bursts_of_two_seconds_and_then_at_its_rate() {
        let (sources, limits) = (Sources::default(), limits(1, 1, 10));
        let ask =
            |ms| sources.may_shake_hands_at(Duration::from_millis(ms), (443, address("192.0.2.1")), &limits);
        assert_eq!((0..21).filter(|_| ask(0)).count(), 20);
        assert!(!ask(99));
        assert!(ask(100));
        assert!(!ask(100));
        assert!(
            sources.may_shake_hands_at(Duration::ZERO, (443, address("192.0.2.2")), &limits),
            "another one"
        );
    }

    #[test]
    fn handshakes_at_once_are_bounded_for_a_source_and_for_the_process() {
        let sources = Arc::new(Sources::default());
        let limits = ListenerLimits {
            handshakes_at_once_max: 3,
            handshakes_at_once_per_source_max: 2,
            ..ListenerLimits::default()
        };
        let begin = |text: &str| sources.begin_handshake(443, address(text), &limits);
        let held = (begin("192.0.2.1").expect("one"), begin("192.0.2.1").expect("two"));
        assert_eq!(begin("192.0.2.1").expect_err("past the source's"), Refused::HandshakesAtOnce);
        let other = begin("192.0.2.2").expect("the third of all");
        assert_eq!(begin("192.0.2.3").expect_err("past the process's"), Refused::HandshakesAtOnce);
        drop(held);
        assert!(begin("192.0.2.1").is_ok() && begin("192.0.2.3").is_ok(), "two have ended");
        drop(other);
        assert!(sources.open.iter().all(|cell| cell.load(Relaxed) == 0), "all are counted out");
        assert_eq!(sources.handshaking.load(Relaxed), 0);
    }
}
