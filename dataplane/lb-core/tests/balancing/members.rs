//! Who is in the set and how healthy they are, put together as the proxy does it: members that stay keep what is known
//! of them, health hears of members a little later, and a membership is made anew where a standing changes or a slow
//! start goes on.

use super::rules;
use super::settings::{REQUEST_TIMEOUT, Settings};
use super::world::{Behaviour, Event, Met, REPLICAS, Spec, World, number_of};
use lb_core::backend::{Backend, BackendState, Hints, Membership, Standing};
use lb_core::health::{
    self, DownReason, Event as HealthEvent, Initial, Moment, Reason, SetHealth, Start, UpReason,
};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

impl World {
    pub(crate) fn join(&mut self, number: usize) {
        if !self.specs.contains_key(&number) {
            let spec = self.spec();
            self.specs.insert(number, spec);
            self.apply();
        }
    }

    pub(crate) fn join_all(&mut self) {
        for number in 0..REPLICAS {
            if !self.specs.contains_key(&number) && self.below(4) > 0 {
                let spec = self.spec();
                self.specs.insert(number, spec);
            }
        }
        self.apply();
    }

    pub(crate) fn leave(&mut self, number: usize) {
        if self.specs.remove(&number).is_some() {
            self.apply();
        }
    }

    pub(crate) fn leave_all(&mut self) {
        self.specs.clear();
        self.apply();
    }

    pub(crate) fn alter(&mut self, number: usize, change: impl FnOnce(&mut Spec)) {
        if let Some(spec) = self.specs.get_mut(&number) {
            change(spec);
            self.apply();
        }
    }

    fn spec(&mut self) -> Spec {
        let name = |at: usize| -> Arc<str> { ["a", "b", ""][at].into() };
        let zone = name(self.below(3));
        let hints = Hints {
            zones: [name(self.below(2))].into(),
            nodes: if self.below(2) == 0 { ["n".into()].into() } else { ["m".into()].into() },
        };
        let state = if self.below(8) == 0 { BackendState::Draining } else { BackendState::Ready };
        let priority = u32::from(self.below(3) == 0);
        Spec { weight: self.weight(), priority, state, joined: self.now, zone, hints }
    }

    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        let by_health = self.health.wakes_at().map(|at| at.since(Moment::START));
        self.next_change.into_iter().chain(by_health).min()
    }

    /// The control plane's members become the set's.
    pub(crate) fn apply(&mut self) {
        let old = Arc::clone(&self.set.members());
        let is_first = self.version == 0;
        let is_checked = self.settings.policy.is_judged || self.settings.plan.active.is_some();
        let is_down = self.settings.plan.active.as_ref().is_some_and(|a| a.initial == Initial::Down);
        let available_since = (!is_down && !is_first).then_some(self.now);
        let newcomer = Standing { is_available: !is_down, available_since, ..Standing::default() };
        let backend = |(number, spec): (&usize, &Spec)| {
            let known = old.backends().iter().find(|known| number_of(&known.id) == *number);
            let port = 8000 + u16::try_from(*number).expect("few");
            Backend {
                id: known.map_or_else(|| format!("b{number}").into(), |known| Arc::clone(&known.id)),
                address: ([10, 0, 0, 1], port).into(),
                weight: spec.weight,
                priority: spec.priority,
                zone: Arc::clone(&spec.zone),
                hints: spec.hints.clone(),
                state: spec.state,
                standing: match known.map(|known| known.standing) {
                    Some(standing) if is_checked => standing,
                    Some(Standing { available_since, .. }) => {
                        Standing { available_since, ..Standing::default() }
                    }
                    None => newcomer,
                },
                live: known.map(|known| Arc::clone(&known.live)).unwrap_or_default(),
            }
        };
        let backends: Vec<Backend> = self.specs.iter().map(backend).collect();
        self.version += 1;
        let Settings { policy, place, .. } = &self.settings;
        let members = Arc::new(Membership::build(self.version, backends, policy, place, self.now));
        let left = old.backends().iter().filter(|old| !self.specs.contains_key(&number_of(&old.id)));
        self.gone.extend(left.map(|left| (Arc::downgrade(&left.live), Arc::downgrade(&left.id))));
        self.lives.retain(|number, _| self.specs.contains_key(number));
        for backend in members.backends() {
            self.lives.entry(number_of(&backend.id)).or_insert_with(|| Arc::downgrade(&backend.live));
        }
        self.set.replace_members(members);
        if self.settings.is_kept() && !std::mem::replace(&mut self.order_waits, true) {
            let after = self.milliseconds(0, 4);
            self.schedule(after, Event::Order);
        }
    }

    pub(crate) fn follow_order(&mut self) {
        self.order_waits = false;
        let members = Arc::clone(&self.set.members());
        let backends = members.backends().iter().map(|backend| (Arc::clone(&backend.id), backend.address));
        self.health.replace_set(self.moment(), self.set.id, self.settings.plan.clone(), backends);
        self.put_in_force();
        self.step();
    }

    pub(crate) fn step(&mut self) {
        let steps = self.health.step(self.moment());
        for probe in steps.abandon {
            self.running.remove(&probe);
        }
        for start in steps.start {
            self.probe(&start);
        }
        for (_, steps) in steps.sets {
            for change in &steps.changes {
                (self.now, format!("{change:?}")).hash(&mut self.history);
                self.met.extend(match change.event {
                    HealthEvent::Down(DownReason::Ejected(_)) => Some(Met::Ejected),
                    HealthEvent::Down(DownReason::ChecksFail(_)) => Some(Met::ChecksFail),
                    HealthEvent::Up(UpReason::Needed) => Some(Met::EndedEarly),
                    HealthEvent::Up(_) => None,
                });
            }
            if steps.is_changed {
                self.put_in_force();
            }
        }
        if self.next_change.is_some_and(|at| at <= self.now) {
            self.put_in_force();
        }
        rules::check_health(self);
    }

    fn put_in_force(&mut self) {
        let known = self.health.set(self.set.id);
        self.version += 1;
        let (version, now) = (self.version, self.now);
        let Settings { policy, place, .. } = &self.settings;
        self.set.update_members(|members| {
            members.with_standings(version, policy, place, now, |backend| {
                let found = known.and_then(|known: &SetHealth| known.standing(&backend.id));
                found.map_or(backend.standing, |found| self.standing(found))
            })
        });
        self.next_change = self.set.members().next_change();
    }

    fn standing(&self, found: health::Standing) -> Standing {
        let window = self.settings.policy.eligibility.slow_start.map(|slow| slow.window);
        let starts = found.available_since.zip(window);
        let is_starting = starts.is_some_and(|(since, window)| self.moment().since(since) < window);
        Standing {
            is_available: found.is_available,
            weight_permille: if is_starting { 1000 } else { found.weight_permille },
            available_since: found.available_since.map(|at| at.since(Moment::START)),
        }
    }

    fn probe(&mut self, start: &Start) {
        let number = usize::from(start.key.address().port() - 8000);
        let quick = self.milliseconds(1, 10);
        let refused = health::Outcome::Fail { reason: Reason::Refused };
        let (after, outcome) = match self.replicas[number].acts(self.now) {
            Behaviour::Frozen => (REQUEST_TIMEOUT, refused),
            Behaviour::Refusing => (quick, refused),
            Behaviour::Slow => (start.key.settings().timeout / 2, health::Outcome::Pass { latency: quick }),
            _ => (quick, health::Outcome::Pass { latency: quick }),
        };
        (self.now, number).hash(&mut self.history);
        self.running.insert(start.probe);
        self.schedule(after, Event::Probed { probe: start.probe, outcome });
    }
}
