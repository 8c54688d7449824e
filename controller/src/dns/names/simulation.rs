//! Names that come and go, a server that fails, forgets and rotates, and whoever compiles beside them. Seeded.

use super::*;
use crate::dns::{Families, REFRESH_DEFAULT};

const SEEDS: u64 = 50;
const STEPS: usize = 400;
const NAMES: u64 = 60;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// What the server has of a name, and since when the name was never without it.
#[derive(Default)]
struct Record {
    addresses: Vec<IpAddr>,
}

struct Simulation {
    random: Random,
    names: Names,
    now: Instant,
    began: Instant,
    wanted: BTreeSet<Lookup>,
    asked: Vec<Lookup>,
    zone: BTreeMap<Lookup, Record>,
    /// What whoever compiles has.
    known: BTreeMap<Lookup, Arc<Resolution>>,
    /// Consecutive answers without an address, by name.
    nothings: BTreeMap<Lookup, u32>,
    is_out: bool,
}

fn lookup(index: u64) -> Lookup {
    Lookup {
        hostname: format!("n{index:03}.").into(),
        families: Families::default(),
        refresh: REFRESH_DEFAULT,
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            random: Random(seed),
            names: Names::new(Reach::Cluster, seed, now, SystemTime::UNIX_EPOCH),
            now,
            began: now,
            wanted: BTreeSet::new(),
            asked: Vec::new(),
            zone: BTreeMap::new(),
            known: BTreeMap::new(),
            nothings: BTreeMap::new(),
            is_out: false,
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0 => {
                let name = lookup(self.random.below(NAMES));
                if !self.wanted.remove(&name) {
                    self.wanted.insert(name);
                }
                self.names.want(self.now, &self.wanted);
            }
            1 => {
                let name = lookup(self.random.below(NAMES));
                let count = self.random.below(4);
                let address =
                    |_| IpAddr::from([10, 0, 0, u8::try_from(self.random.below(6)).expect("small")]);
                self.zone.insert(name, Record { addresses: (0..count).map(address).collect() });
            }
            2 if self.random.below(5) == 0 => self.is_out = !self.is_out,
            3 | 4 => {
                let ahead = Duration::from_millis(self.random.below(8_000));
                self.now =
                    self.names.due().map_or(self.now + ahead, |due| due.max(self.now).min(self.now + ahead));
            }
            _ => self.answer(),
        }
        self.drain();
    }

    /// One of the questions that are under way is answered.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.random.below(self.asked.len() as u64);
        let name = self.asked.swap_remove(usize::try_from(at).expect("small"));
        let addresses = self.zone.get(&name).map(|record| record.addresses.clone()).unwrap_or_default();
        let before = self.known.get(&name).cloned();
        let is_wanted = self.wanted.contains(&name);
        let answer = if self.is_out {
            Answer::Failed("is out".to_owned())
        } else if addresses.is_empty() {
            *self.nothings.entry(name.clone()).or_default() += 1;
            Answer::Nothing { what: What::NoSuchName, ttl: None }
        } else {
            self.nothings.remove(&name);
            let mut rotated = addresses.clone();
            let by = usize::try_from(self.random.below(rotated.len() as u64)).expect("small");
            rotated.rotate_left(by);
            Answer::Addresses { addresses: rotated, ttl: Duration::from_secs(3), found_as: "n.".into() }
        };
        let is_good = matches!(answer, Answer::Addresses { .. });
        let is_failure = matches!(answer, Answer::Failed(_));
        self.names.answered(self.now, &name, answer);
        self.drain();
        if !is_wanted {
            assert!(!self.known.contains_key(&name), "nobody asked for {name:?}");
            return;
        }
        let known = &self.known[&name];
        let had = before.map(|before| before.addresses.clone()).unwrap_or_default();
        if is_good {
            let expected: BTreeSet<_> = addresses.into_iter().collect();
            assert_eq!(known.addresses, expected.into_iter().collect::<Vec<_>>());
            assert_eq!(known.trouble, None);
        } else if is_failure {
            assert_eq!(known.addresses, had, "a failure changes no backend");
        } else {
            let is_kept = known.addresses == had;
            let is_confirmed = self.nothings[&name] >= EMPTY_CONFIRMATIONS;
            assert!(is_kept || is_confirmed && known.addresses.is_empty(), "{known:?}");
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.names.next(self.now) {
            match output {
                Output::Ask(name, _) => {
                    assert!(self.wanted.contains(&name) && !self.asked.contains(&name));
                    self.asked.push(name);
                }
                Output::Tell(name, Some(known)) => {
                    assert!(self.wanted.contains(&name));
                    let before = self.known.insert(name, Arc::clone(&known));
                    assert_ne!(before, Some(known), "nothing is told twice");
                }
                Output::Tell(name, None) => {
                    assert!(!self.wanted.contains(&name));
                    self.nothings.remove(&name);
                    assert!(self.known.remove(&name).is_some(), "only what was told is taken back");
                }
            }
        }
        assert!(self.asked.len() <= LOOKUPS_MAX);
        assert!(self.known.keys().all(|name| self.wanted.contains(name)));
        assert!(self.names.due().is_none_or(|due| due > self.now), "everything is done that is due");
    }

    /// With the server back and nothing changing, all that is wanted is known as it is.
    fn calm_down(&mut self) {
        self.is_out = false;
        let end = self.now + Duration::from_secs(200);
        while self.now < end {
            while !self.asked.is_empty() {
                self.answer();
            }
            self.now = self.names.due().map_or(end, |due| due.max(self.now));
            self.drain();
        }
        for name in &self.wanted {
            let expected: BTreeSet<_> =
                self.zone.get(name).into_iter().flat_map(|record| record.addresses.iter().copied()).collect();
            let known = &self.known[name];
            assert_eq!(known.addresses, expected.iter().copied().collect::<Vec<_>>(), "{name:?}");
            assert_eq!(known.trouble.is_none(), !expected.is_empty());
            assert!(!known.is_open);
        }
        assert!(self.now - self.began < Duration::from_secs(100_000));
    }
}

#[test]
fn whatever_names_and_servers_do_what_is_known_follows_and_no_failure_takes_a_backend() {
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.calm_down();
    }
}
