use super::*;
use crate::backend::{InFlight, Live};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

const ONE: Option<NonZeroU32> = NonZeroU32::new(1);
/// A wake that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(20);

fn queue(requests_max: u32) -> Queue {
    Queue::new(QueueSettings { requests_max, timeout: Duration::from_secs(1) })
}

/// A place whose first wake has been taken.
fn settled(queue: &Queue) -> Waiting<'_> {
    let mut waiting = queue.join().expect("there is a place");
    assert!(is_woken(&mut waiting), "the first comes at once");
    waiting
}

fn is_woken(waiting: &mut Waiting<'_>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(waiting.woken()).poll(&mut context) == Poll::Ready(())
}

#[test]
fn as_many_wait_as_there_are_places_and_not_one_more() {
    for requests_max in [0, 1, 3] {
        let queue = queue(requests_max);
        let mut all: Vec<_> = (0..requests_max).map(|_| queue.join().expect("there is a place")).collect();
        assert!(queue.join().is_none(), "one past {requests_max}");
        assert_eq!((queue.len(), queue.is_empty()), (requests_max, requests_max == 0));
        if all.pop().is_some() {
            assert_eq!(queue.len(), requests_max - 1);
            assert!(queue.join().is_some(), "the place that was given back");
        }
        drop(all);
        assert!(queue.is_empty());
    }
}

#[test]
fn who_waits_longest_is_woken_first() {
    let queue = queue(9);
    let mut all: Vec<_> = (0..3).map(|_| settled(&queue)).collect();
    for first in 0..3 {
        queue.wake_one();
        let woken: Vec<bool> = all.iter_mut().map(is_woken).collect();
        let wanted: Vec<bool> = (0..3).map(|at| at == first).collect();
        assert_eq!(woken, wanted);
    }
    queue.wake_one();
    assert!(is_woken(&mut all[0]), "who was woken and waits again is behind the others");
}

#[test]
fn each_wake_wakes_another_one_however_late_they_look() {
    let queue = queue(9);
    let mut all: Vec<_> = (0..3).map(|_| settled(&queue)).collect();
    queue.wake_one();
    queue.wake_one();
    assert_eq!(all.iter_mut().map(is_woken).collect::<Vec<_>>(), [true, true, false]);
    assert!(!all.iter_mut().any(is_woken));
}

#[test]
fn a_slot_that_becomes_free_between_the_last_try_and_the_wait_is_not_missed() {
    let queue = queue(9);
    // Before the place is taken nobody waits, and nobody is woken.
    queue.wake_one();
    let mut waiting = queue.join().expect("there is a place");
    assert!(is_woken(&mut waiting), "the first try in the queue comes at once");
    assert!(!is_woken(&mut waiting), "and is the only one");
    // After that try, before it sleeps.
    queue.wake_one();
    assert!(is_woken(&mut waiting));
    assert!(!is_woken(&mut waiting));
}

#[test]
fn a_wake_of_a_place_that_is_dropped_goes_on_to_the_next() {
    let queue = queue(9);
    let (first, mut second, mut third) = (settled(&queue), settled(&queue), settled(&queue));
    queue.wake_one();
    assert!(!is_woken(&mut second), "it is for the first");
    drop(first);
    assert!(is_woken(&mut second));
    assert!(!is_woken(&mut third));
}

#[test]
fn who_was_woken_and_gives_up_passes_the_wake_on_and_who_was_served_does_not() {
    let queue = queue(9);
    let mut all: Vec<_> = (0..4).map(|_| settled(&queue)).collect();
    queue.wake_one();
    let mut first = all.remove(0);
    assert!(is_woken(&mut first));
    drop(first);
    assert_eq!(all.iter_mut().map(is_woken).collect::<Vec<_>>(), [true, false, false]);
    all.remove(0).served();
    assert!(!all.iter_mut().any(is_woken));
    // Who waits again has tried: it owes nothing.
    queue.wake_one();
    assert!(is_woken(&mut all[0]) && !is_woken(&mut all[0]));
    drop(all.remove(0));
    assert!(!is_woken(&mut all[0]));
}

#[test]
fn a_wake_of_a_wait_that_is_dropped_is_there_for_the_next_wait() {
    let queue = queue(9);
    let (mut first, mut second) = (settled(&queue), settled(&queue));
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut wait = pin!(first.woken());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        queue.wake_one();
    }
    assert!(!is_woken(&mut second));
    assert!(is_woken(&mut first));
}

#[test]
fn a_change_of_members_wakes_everybody_once() {
    let queue = queue(9);
    queue.wake_all();
    let mut all: Vec<_> = (0..3).map(|_| settled(&queue)).collect();
    queue.wake_all();
    assert!(all.iter_mut().all(is_woken));
    assert!(!all.iter_mut().any(is_woken));
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a wake as a task does. Panics where none comes.
#[expect(clippy::disallowed_methods, reason = "a thread of a test stands for a task")]
fn sleep_until_woken(waiting: &mut Waiting<'_>) {
    let began = std::time::Instant::now();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut wait = pin!(waiting.woken());
    while wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        std::thread::park_timeout(PATIENCE);
        assert!(began.elapsed() < PATIENCE, "a wake was lost");
    }
}

/// One request: a slot at once or after waiting for it. Every fifth one gives up in the queue, before or after a wake.
fn request(live: &Arc<Live>, queue: &Queue, nth: u32) -> Option<InFlight> {
    if queue.is_empty()
        && let Some(entered) = live.try_enter(ONE)
    {
        return Some(entered);
    }
    let mut waiting = queue.join().expect("there is a place for each thread");
    let patience = if nth.is_multiple_of(5) { nth % 3 } else { u32::MAX };
    for _ in 0..patience {
        sleep_until_woken(&mut waiting);
        if let Some(entered) = live.try_enter(ONE) {
            waiting.served();
            return Some(entered);
        }
    }
    if patience > 0 {
        sleep_until_woken(&mut waiting);
    }
    None
}

#[test]
fn no_thread_sleeps_for_ever_while_a_slot_is_free() {
    let (live, queue) = (Arc::<Live>::default(), queue(4));
    #[expect(clippy::disallowed_methods, reason = "a test of what threads do at once")]
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (live, queue) = (&live, &queue);
            scope.spawn(move || {
                for nth in 0..5_000 {
                    let entered = request(live, queue, nth + worker);
                    assert!(live.in_flight() <= 1);
                    if let Some(entered) = entered {
                        std::thread::yield_now();
                        drop(entered);
                        queue.wake_one();
                    }
                }
            });
        }
    });
    assert_eq!((live.in_flight(), queue.len()), (0, 0));
}
