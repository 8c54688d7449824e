use super::*;
use crate::backend::InFlight;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

const ONE: Option<NonZeroU32> = NonZeroU32::new(1);
/// A wake that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(20);

fn queue(requests_max: u32) -> Queue {
    Queue::new(QueueSettings { requests_max, timeout: Duration::from_secs(1) })
}

/// A request that waits, as a task does.
struct Sleeper<'a>(Pin<Box<dyn Future<Output = Waiting<'a>> + 'a>>);

impl<'a> Sleeper<'a> {
    fn of(mut waiting: Waiting<'a>) -> Self {
        let mut sleeper = Self(Box::pin(async move {
            waiting.woken().await;
            waiting
        }));
        assert!(sleeper.woken().is_none(), "it sleeps");
        sleeper
    }

    fn woken(&mut self) -> Option<Waiting<'a>> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(waiting) => Some(waiting),
            Poll::Pending => None,
        }
    }
}

/// Requests that tried in vain and sleep, in this order.
fn asleep(queue: &Queue, count: usize) -> Vec<Sleeper<'_>> {
    let place = |first: bool| {
        let mut waiting = queue.join().expect("there is a place");
        assert!(!first || is_woken(&mut waiting), "the first tries once more");
        Sleeper::of(waiting)
    };
    (0..count).map(|nth| place(nth == 0)).collect()
}

/// Which of them are woken; those that are, are awake from now on.
fn awake<'a>(sleepers: &mut Vec<Sleeper<'a>>) -> Vec<(usize, Waiting<'a>)> {
    let mut awake = Vec::new();
    for nth in (0..sleepers.len()).rev() {
        if let Some(waiting) = sleepers[nth].woken() {
            drop(sleepers.remove(nth));
            awake.insert(0, (nth, waiting));
        }
    }
    awake
}

/// Looks once, and drops the wait.
fn is_woken(waiting: &mut Waiting<'_>) -> bool {
    pin!(waiting.woken()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

fn numbers(awake: &[(usize, Waiting<'_>)]) -> Vec<usize> {
    awake.iter().map(|(nth, _)| *nth).collect()
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
fn who_has_slept_longest_is_woken_first_and_sleeps_again_behind_the_others() {
    let queue = queue(9);
    let mut all = asleep(&queue, 3);
    queue.wake_one();
    let mut woken = awake(&mut all);
    assert_eq!(numbers(&woken), [0]);
    let (_, first) = woken.remove(0);
    all.push(Sleeper::of(first));
    for nth in 0..3 {
        queue.wake_one();
        let woken = awake(&mut all);
        assert_eq!(numbers(&woken), [0], "the {nth}th after that");
        woken.into_iter().for_each(|(_, waiting)| waiting.served());
    }
    assert!(all.is_empty());
}

#[test]
fn each_wake_is_for_another_one_however_late_they_look_or_come() {
    let queue = queue(9);
    let mut all = asleep(&queue, 3);
    queue.wake_one();
    queue.wake_one();
    let woken = awake(&mut all);
    assert_eq!(numbers(&woken), [0, 1]);
    // Two awake and one asleep: a wake for that one, and two more for who sleeps next.
    (0..3).for_each(|_| queue.wake_one());
    let third = awake(&mut all);
    assert_eq!(numbers(&third), [0]);
    let mut late: Vec<_> = (0..3).map(|_| queue.join().expect("there is a place")).collect();
    late.iter_mut().for_each(|waiting| assert!(is_woken(waiting), "nobody sleeps"));
    assert_eq!(late.iter_mut().map(is_woken).collect::<Vec<_>>(), [true, true, false]);
    drop((woken, third));
}

#[test]
fn a_slot_that_becomes_free_between_the_last_try_and_the_wait_is_not_missed() {
    let queue = queue(9);
    // Before the place is taken nobody waits, and nobody is woken.
    queue.wake_one();
    let mut waiting = queue.join().expect("there is a place");
    assert!(is_woken(&mut waiting), "it tries once more");
    assert!(!is_woken(&mut waiting), "and only once");
    // After that try, before it sleeps.
    queue.wake_one();
    assert!(is_woken(&mut waiting));
    assert!(!is_woken(&mut waiting));
}

#[test]
fn who_comes_while_others_sleep_does_not_try_before_them() {
    let queue = queue(9);
    let mut all = asleep(&queue, 1);
    let mut late = queue.join().expect("there is a place");
    queue.wake_one();
    assert!(!is_woken(&mut late), "the wake is for who sleeps");
    assert_eq!(numbers(&awake(&mut all)), [0]);
}

#[test]
fn a_wake_of_a_place_that_is_dropped_goes_on_to_the_next() {
    let queue = queue(9);
    let mut all = asleep(&queue, 3);
    queue.wake_one();
    drop(all.remove(0));
    assert_eq!((queue.len(), numbers(&awake(&mut all))), (2, vec![0]));
}

#[test]
fn who_was_woken_and_gives_up_passes_the_wake_on_and_who_was_served_does_not() {
    let queue = queue(9);
    let mut all = asleep(&queue, 4);
    queue.wake_one();
    drop(awake(&mut all));
    let woken = awake(&mut all);
    assert_eq!(numbers(&woken), [0], "the second of four");
    woken.into_iter().for_each(|(_, waiting)| waiting.served());
    assert!(awake(&mut all).is_empty());
    // Who waits again has tried: it owes nothing.
    queue.wake_one();
    let (_, third) = awake(&mut all).remove(0);
    drop(Sleeper::of(third));
    assert!(awake(&mut all).is_empty());
}

#[test]
fn a_change_wakes_everybody_once() {
    let queue = queue(9);
    queue.wake_all();
    let mut all = asleep(&queue, 3);
    queue.wake_all();
    let woken = awake(&mut all);
    assert_eq!(numbers(&woken), [0, 1, 2]);
    for (_, mut waiting) in woken {
        assert!(!is_woken(&mut waiting));
    }
}

#[test]
fn who_joins_after_a_change_tries_until_somebody_has_tried_in_vain() {
    let queue = queue(9);
    let mut all = asleep(&queue, 2);
    queue.wake_all();
    let mut late = queue.join().expect("there is a place");
    assert!(is_woken(&mut late), "more may be free than is for those that were woken");
    let mut woken = awake(&mut all);
    let (_, first) = woken.remove(0);
    let first = Sleeper::of(first);
    let mut later = queue.join().expect("there is a place");
    assert!(!is_woken(&mut later), "nothing is: the first has tried");
    drop((first, late, woken));
}

#[test]
fn what_a_backend_frees_wakes_one_and_everybody_where_its_connections_are_wanted() {
    let (live, queue) = (Arc::<Live>::default(), queue(9));
    queue.freed(&live);
    let mut all = asleep(&queue, 4);
    queue.freed(&live);
    let (nth, first) = awake(&mut all).remove(0);
    first.served();
    assert_eq!((nth, awake(&mut all).len()), (0, 0));
    let wanted = live.want();
    queue.freed(&live);
    assert_eq!(numbers(&awake(&mut all)), [0, 1, 2]);
    drop(wanted);
}

#[test]
fn who_lacks_a_connection_wakes_the_others_once_and_wants_one_while_it_waits() {
    let (live, queue) = (Arc::<Live>::default(), queue(9));
    let mut all = asleep(&queue, 3);
    queue.freed(&live);
    let (_, mut first) = awake(&mut all).remove(0);
    first.lacks(&live);
    let others = awake(&mut all);
    assert_eq!((live.wanted(), numbers(&others)), (1, vec![0, 1]));
    first.lacks(&live);
    let mut first = Sleeper::of(first);
    all.extend(others.into_iter().map(|(_, waiting)| Sleeper::of(waiting)));
    assert_eq!((live.wanted(), awake(&mut all).len()), (1, 0), "only once");
    queue.freed(&live);
    let woken = first.woken().expect("everybody is");
    let others = awake(&mut all);
    assert_eq!(numbers(&others), [0, 1]);
    let mut late = queue.join().expect("there is a place");
    assert!(is_woken(&mut late), "it may have what the first one lacks");
    woken.served();
    assert_eq!(live.wanted(), 0);
    let sleeper = Sleeper::of(late);
    assert!(!is_woken(&mut queue.join().expect("there is a place")), "nobody lacks anything");
    drop(sleeper);
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
