//! Replicas with clocks that differ in time and speed, over a network that loses and delays, with pauses and crashes,
//! beside one server that keeps the Lease as an API server does. Seeded: what fails, fails again.

use super::elector::{Action, Elector, Input, Now, Timing};
use super::record::{Record, Revision};
use k8s_openapi::jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

const REPLICAS: usize = 4;
/// Of true time, in microseconds.
const SECOND: u64 = 1_000_000;
const CHAOS: u64 = 600 * SECOND;
const CALM: u64 = 120 * SECOND;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A step of one life of a replica, and what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    replica: usize,
    /// Tells it from the process that crashed before.
    life: u32,
    step: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// The request reaches the server, also when its sender has given it up or has crashed.
    Arrives(Asked),
    /// The answer reaches the replica.
    Answers(Asked),
    /// The wait is over, or the request has timed out.
    Ends(Asked),
}

struct Replica {
    elector: Elector,
    asked: Asked,
    is_waiting: bool,
    /// Speed of its clock, in thousandths of true speed.
    speed: u64,
    wall_offset: i64,
    /// It does not run before.
    frozen_until: u64,
}

struct Simulation {
    random: Random,
    begin: Instant,
    time: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    happened: u64,
    replicas: Vec<Replica>,
    requests: BTreeMap<Asked, Action>,
    answers: BTreeMap<Asked, Input>,
    lease: Option<(Record, u64)>,
    revision: u64,
    server_away_until: u64,
    tenures: u64,
}

fn elector(replica: usize) -> Elector {
    Elector::new(format!("pod-{replica}@127.0.0.1:{replica}").into(), Timing::default())
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let replicas = (0..REPLICAS).map(|replica| Replica {
            elector: elector(replica),
            asked: Asked { replica, life: 0, step: 0 },
            is_waiting: true,
            // Up to a tenth off: far worse than quartz.
            speed: 900 + random.below(201),
            // Up to two hours off.
            wall_offset: i64::try_from(random.below(7_200 * SECOND)).expect("small"),
            frozen_until: 0,
        });
        let replicas = replicas.collect();
        let mut simulation = Self {
            random,
            begin: Instant::now(),
            time: 0,
            queue: BinaryHeap::new(),
            happened: 0,
            replicas,
            requests: BTreeMap::new(),
            answers: BTreeMap::new(),
            lease: None,
            revision: 0,
            server_away_until: 0,
            tenures: 0,
        };
        for replica in 0..REPLICAS {
            simulation.step(replica, Input::Wake);
        }
        simulation
    }

    fn now(&self, replica: usize) -> Now {
        let Replica { speed, wall_offset, .. } = &self.replicas[replica];
        let local = self.time * speed / 1_000;
        let wall = i64::try_from(local).expect("small") + wall_offset;
        Now {
            monotonic: self.begin + Duration::from_micros(local),
            wall: Timestamp::from_microsecond(wall).expect("a time"),
        }
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.happened += 1;
        self.queue.push(Reverse((self.time + delay, self.happened, happening)));
    }

    fn is_calm(&self) -> bool {
        self.time >= CHAOS
    }

    fn loses(&mut self) -> bool {
        !self.is_calm() && self.random.one_in(10)
    }

    /// Mostly milliseconds; at times longer than any time-out, so that a request lands that was given up.
    fn delay(&mut self) -> u64 {
        match self.random.below(20) {
            0 if !self.is_calm() => self.random.below(30 * SECOND),
            1 => self.random.below(SECOND),
            _ => 1_000 + self.random.below(20_000),
        }
    }

    fn step(&mut self, index: usize, input: Input) {
        let now = self.now(index);
        let replica = &mut self.replicas[index];
        let led = replica.elector.leads(now.monotonic);
        let action = replica.elector.step(now, input);
        if !led && replica.elector.leads(now.monotonic) {
            self.tenures += 1;
        }
        replica.asked.step += 1;
        replica.is_waiting = matches!(action, Action::WaitUntil(_));
        let (asked, speed) = (replica.asked, replica.speed);
        let until = match action {
            Action::WaitUntil(time) => time,
            Action::Read | Action::Write(..) => {
                self.requests.insert(asked, action);
                let delay = self.delay();
                if !self.loses() {
                    self.after(delay, Happening::Arrives(asked));
                }
                now.monotonic + Timing::default().request_timeout()
            }
        };
        let local = u64::try_from(until.saturating_duration_since(now.monotonic).as_micros()).expect("small");
        self.after(local * 1_000 / speed + 1, Happening::Ends(asked));
    }

    fn serve(&mut self, action: &Action) -> Input {
        let current = self.lease.as_ref().map(|(_, revision)| Revision(revision.to_string()));
        match action {
            Action::Write(_, over) if *over != current => Input::Conflict,
            Action::Write(record, _) => {
                self.revision += 1;
                self.lease = Some((record.clone(), self.revision));
                Input::Written(Revision(self.revision.to_string()))
            }
            Action::Read | Action::WaitUntil(_) => match (&self.lease, current) {
                (Some((record, _)), Some(revision)) => Input::Found(record.clone(), revision),
                _ => Input::Missing,
            },
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(asked) => self.arrive(asked),
            Happening::Answers(asked) | Happening::Ends(asked) => self.wake(asked, happening),
        }
        self.check();
    }

    fn arrive(&mut self, asked: Asked) {
        let request = self.requests.remove(&asked).expect("it was sent once");
        if self.time < self.server_away_until {
            return;
        }
        let answer = self.serve(&request);
        if !self.loses() {
            self.answers.insert(asked, answer);
            let delay = self.delay();
            self.after(delay, Happening::Answers(asked));
        }
    }

    fn wake(&mut self, asked: Asked, happening: Happening) {
        let replica = &self.replicas[asked.replica];
        if replica.asked != asked {
            return;
        }
        if self.time < replica.frozen_until {
            let wait = replica.frozen_until - self.time;
            return self.after(wait, happening);
        }
        let input = match happening {
            Happening::Answers(_) => self.answers.remove(&asked).expect("it was answered once"),
            _ if replica.is_waiting => Input::Wake,
            _ => Input::Failed,
        };
        self.step(asked.replica, input);
        if !self.is_calm() {
            self.disturb(asked.replica);
        }
    }

    fn disturb(&mut self, index: usize) {
        let length = self.random.below(40 * SECOND);
        match self.random.below(400) {
            0 => self.replicas[index].frozen_until = self.time + length,
            1 => self.server_away_until = self.time + length,
            2 => {
                let replica = &mut self.replicas[index];
                replica.elector = elector(index);
                replica.asked.life += 1;
                self.step(index, Input::Wake);
            }
            _ => {}
        }
    }

    /// Also of those that are frozen: they would believe it as soon as they run.
    fn leading(&self) -> Vec<usize> {
        (0..REPLICAS)
            .filter(|index| self.replicas[*index].elector.leads(self.now(*index).monotonic))
            .collect()
    }

    fn check(&self) {
        let leading = self.leading();
        assert!(leading.len() <= 1, "{leading:?} lead at once, {} us in", self.time);
    }

    fn run_to(&mut self, end: u64) {
        while let Some(Reverse((time, _, happening))) = self.queue.pop() {
            if time > end {
                break;
            }
            self.time = time;
            self.happen(happening);
        }
    }
}

#[test]
fn two_replicas_never_lead_at_once_and_one_does_when_the_network_calms() {
    let mut tenures = 0;
    for seed in 0..60 {
        let mut simulation = Simulation::new(seed);
        simulation.run_to(CHAOS + CALM);
        assert_eq!(simulation.leading().len(), 1, "seed {seed}: nobody leads in calm");
        tenures += simulation.tenures;
    }
    assert!(tenures > 500, "the Lease has to change hands for this to prove anything: {tenures} tenures");
}
