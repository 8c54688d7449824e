//! What this process saw of a backend: requests on it, connections to it, and how long it takes to answer.
//!
//! Counts that have a bound, and those by which somebody decides to sleep, are sequentially consistent: who counts
//! itself in as waiting and then finds no place, and who gives a place back and then finds nobody waiting, cannot both
//! be right. On x86 that costs nothing, for the changes are locked instructions anyway.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What this process saw of a backend. Carried over from version to version by the backend's id.
///
/// Aligned to a pair of cache lines, so that two backends' counters never share one, and small enough that all that a
/// pick reads of a backend is in one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    in_flight: AtomicU32,
    connections: AtomicU32,
    wanted: AtomicU32,
    requests: AtomicU64,
    peak: Signal,
    mean: Signal,
}

impl Live {
    /// Counts a request in, whatever there are; it counts out when the guard drops.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.entered()
    }

    /// Counts a request in where fewer than `max` are there; exact, however many try at once.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>, max: Option<NonZeroU32>) -> Option<InFlight> {
        count_in(&self.in_flight, max).then(|| self.entered())
    }

    fn entered(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Whether so many requests are on it. One load.
    #[must_use]
    pub fn is_full(&self, max: NonZeroU32) -> bool {
        self.in_flight.load(Ordering::SeqCst) >= max.get()
    }

    /// Counts a connection in where fewer than `max` are there; exact, however many try at once. It counts out when
    /// the guard drops.
    #[must_use]
    pub fn try_connect(self: &Arc<Self>, max: Option<NonZeroU32>) -> Option<Connected> {
        count_in(&self.connections, max).then(|| Connected(Arc::clone(self)))
    }

    /// Connections to this backend at the moment, from all workers.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Says that a request waits for a connection, until the guard drops.
    #[must_use]
    pub fn want(self: &Arc<Self>) -> Wanted {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        Wanted(Arc::clone(self))
    }

    /// Requests that wait for a connection to this backend: who holds an idle one gives it up.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Requests on this backend at the moment, from all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests sent to this backend since the process knows it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Its smoothed latency, in which failures count as latency too; `None` before the first answer.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.mean.read().map(|sample| Duration::from_secs_f64(f64::from(sample.micros) / 1e6))
    }

    /// Latency that rises to a peak at once and comes down slowly.
    pub(crate) fn peak(&self) -> &Signal {
        &self.peak
    }

    /// Mean latency.
    pub(crate) fn mean(&self) -> &Signal {
        &self.mean
    }
}

/// A request on a backend.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl InFlight {
    /// The backend's live state: the key by which an outcome is recorded and a backend counts as tried.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection to a backend.
#[derive(Debug)]
pub struct Connected(Arc<Live>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that waits for a connection to a backend.
#[derive(Debug)]
pub struct Wanted(Arc<Live>);

impl Wanted {
    /// The backend's live state.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.0
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One more where there is a place. Without a bound this is one instruction that never tries again.
fn count_in(count: &AtomicU32, max: Option<NonZeroU32>) -> bool {
    let Some(max) = max else {
        count.fetch_add(1, Ordering::SeqCst);
        return true;
    };
    let next = |before| (before < max.get()).then(|| before + 1);
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
}

/// A smoothed latency and when it was last updated, in one word, so that workers can merge what they saw without a
/// lock and a reader never sees the one without the other.
///
/// The upper 36 bits are the time in ticks of 2^20 ns (about a millisecond; they wrap after two years), the lower 28
/// the latency in microseconds as a float of 20 bits of mantissa. All zero: never updated.
#[derive(Debug, Default)]
pub(crate) struct Signal(AtomicU64);

/// One reading of a [`Signal`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) micros: f32,
    tick: u64,
}

const TICK_SHIFT: u32 = 20;
const LATENCY_BITS: u32 = 28;
const TICKS: u64 = (1 << (64 - LATENCY_BITS)) - 1;
/// The bits of a positive f32 that do not fit: no sign, and the last 3 of the mantissa are left out.
const DROPPED_BITS: u32 = 3;
/// What latencies are kept within, in microseconds: more than zero, so that a reading differs from none, and an hour.
const MICROS: (f32, f32) = (0.01, 3.6e9);

/// The time that signals count in. `now` is since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) fn at(now: Duration) -> Self {
        Self(u64::try_from(now.as_nanos() >> TICK_SHIFT).unwrap_or(u64::MAX) & TICKS)
    }
}

impl Sample {
    /// Milliseconds since the update, near enough; 0 where another worker's update is ahead of this one's clock.
    fn age_ticks(self, now: Tick) -> f32 {
        let age = now.0.wrapping_sub(self.tick) & TICKS;
        if age > TICKS / 2 { 0.0 } else { age as f32 }
    }

    /// What is left of a weight of 1 since the update.
    pub(crate) fn weight(self, now: Tick, decay: Decay) -> f32 {
        let age = self.age_ticks(now);
        if age == 0.0 { 1.0 } else { faded(age * decay.per_tick) }
    }
}

/// `e^-x` for `x` of 0 and above, to 2 parts in 10,000: enough for an estimate, and a third of what the exact function
/// costs in a pick. `2^(whole + part)`: the whole goes to the float's exponent, the part through a polynomial that is
/// exact at both of its ends.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within an f32's exponents")]
fn faded(x: f32) -> f32 {
    // Past this the result is nothing, and still a normal float.
    let power = -(x * std::f32::consts::LOG2_E).min(120.0);
    let whole = power as i32 - 1;
    let part = power - whole as f32;
    let fraction = 1.0 + part * (0.695_833_54 + part * (0.226_067_16 + part * 0.078_099_3));
    fraction * f32::from_bits(((whole + 127) as u32) << 23)
}

/// The time in which 1/e of a weight is left, prepared for the request path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Decay {
    per_tick: f32,
}

impl Decay {
    /// A time of less than a tick (a millisecond) counts as a tick.
    pub(crate) fn over(time: Duration) -> Self {
        let ticks = time.as_secs_f32() * 1e9 / (1u32 << TICK_SHIFT) as f32;
        Self { per_tick: 1.0 / ticks.max(1.0) }
    }
}

impl Signal {
    pub(crate) fn read(&self) -> Option<Sample> {
        unpack(self.0.load(Ordering::Relaxed))
    }

    /// Replaces the latency by what `next` makes of the last one. Workers that update at once follow one another.
    pub(crate) fn update(&self, now: Tick, next: impl Fn(Option<Sample>) -> f32) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let after = pack(next(unpack(before)), now);
            match self.0.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => before = other,
            }
        }
    }
}

fn unpack(word: u64) -> Option<Sample> {
    let bits = u32::try_from(word & ((1 << LATENCY_BITS) - 1)).expect("28 bits");
    (word != 0).then(|| Sample { micros: f32::from_bits(bits << DROPPED_BITS), tick: word >> LATENCY_BITS })
}

fn pack(micros: f32, now: Tick) -> u64 {
    let bits = micros.clamp(MICROS.0, MICROS.1).to_bits() >> DROPPED_BITS;
    (now.0 << LATENCY_BITS) | u64::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Tick {
        Tick::at(Duration::from_millis(ms))
    }

    #[test]
    fn a_request_counts_in_and_out() {
        let live = Arc::<Live>::default();
        let first = live.enter();
        let second = live.enter();
        assert_eq!(live.in_flight(), 2);
        drop(first);
        drop(second);
        assert_eq!((live.in_flight(), live.requests()), (0, 2));
    }

    #[test]
    fn all_of_a_backend_is_in_one_pair_of_cache_lines() {
        assert_eq!(size_of::<Live>(), 128);
    }

    #[test]
    fn requests_and_connections_are_counted_to_their_bound_and_not_past_it() {
        let live = Arc::<Live>::default();
        let two = NonZeroU32::new(2);
        let mut requests: Vec<_> = (0..3).map_while(|_| live.try_enter(two)).collect();
        let connections: Vec<_> = (0..3).map_while(|_| live.try_connect(two)).collect();
        assert_eq!((requests.len(), live.in_flight(), live.requests()), (2, 2, 2));
        assert_eq!((connections.len(), live.connections()), (2, 2));
        assert!(live.is_full(two.unwrap()) && !live.is_full(NonZeroU32::new(3).unwrap()));
        requests.pop();
        requests.extend(live.try_enter(two));
        assert!(live.try_enter(two).is_none(), "the place that was given back is taken");
        let past = (live.try_enter(None), live.try_connect(None));
        assert!(past.0.is_some() && past.1.is_some(), "without a bound there is always a place");
        drop((requests, connections, past));
        assert_eq!((live.in_flight(), live.connections()), (0, 0));
    }

    #[test]
    fn who_waits_for_a_connection_is_counted() {
        let live = Arc::<Live>::default();
        let (one, other) = (live.want(), live.want());
        assert_eq!(live.wanted(), 2);
        drop(one);
        assert_eq!(live.wanted(), 1);
        drop(other);
        assert_eq!(live.wanted(), 0);
    }

    #[test]
    fn workers_that_enter_at_once_never_pass_the_bound() {
        let live = Arc::<Live>::default();
        let max = NonZeroU32::new(3).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test of what threads do at once")]
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let entered = (live.try_enter(Some(max)), live.try_connect(Some(max)));
                        assert!(live.in_flight() <= 3 && live.connections() <= 3);
                        drop(entered);
                    }
                });
            }
        });
        assert_eq!((live.in_flight(), live.connections()), (0, 0));
    }

    #[test]
    fn a_signal_keeps_latency_and_time_to_a_part_in_a_million() {
        let signal = Signal::default();
        assert_eq!(signal.read(), None);
        for micros in [0.02, 1.0, 12_345.678, 3.5e9] {
            signal.update(at_ms(77_000), |_| micros);
            let sample = signal.read().expect("updated");
            assert!((sample.micros / micros - 1.0).abs() < 2e-6, "{micros} became {}", sample.micros);
            assert_eq!(sample.tick, at_ms(77_000).0);
        }
    }

    #[test]
    fn a_latency_of_zero_or_beyond_all_measure_is_still_a_reading() {
        let signal = Signal::default();
        for micros in [0.0, -1.0, f32::INFINITY] {
            signal.update(at_ms(0), |_| micros);
            let sample = signal.read().expect("updated");
            assert!(sample.micros > 0.0 && sample.micros <= MICROS.1);
        }
    }

    #[test]
    fn fading_is_exponential_to_two_parts_in_ten_thousand() {
        for step in 0..4000u16 {
            let x = f32::from(step) / 50.0;
            assert!((faded(x) / (-x).exp() - 1.0).abs() < 2e-4, "{x}: {} for {}", faded(x), (-x).exp());
        }
        assert!(faded(1e9) < 1e-35);
    }

    #[test]
    fn weight_decays_to_a_third_in_the_time_constant_and_never_grows() {
        let decay = Decay::over(Duration::from_secs(10));
        let sample = Sample { micros: 1.0, tick: at_ms(1000).0 };
        assert!((sample.weight(at_ms(11_000), decay) - 1.0 / std::f32::consts::E).abs() < 1e-3);
        assert!((sample.weight(at_ms(1000), decay) - 1.0).abs() < f32::EPSILON);
        assert!((sample.weight(at_ms(900), decay) - 1.0).abs() < f32::EPSILON, "another clock was ahead");
        assert!(sample.weight(at_ms(86_400_000), decay) < 2e-3);
    }
}
