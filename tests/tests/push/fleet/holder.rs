//! Who holds the Lease, what the others tell it, and the status that it alone writes.

use super::controller::{Telling, holder};
use super::simulation::{Asked, Event, Simulation};
use super::{CONTROLLERS, MILLISECOND, SECOND};
use std::sync::Arc;
use weir_controller::lease::{Action, Input, Now, Timing};
use weir_controller::replicas::{REPORT_INTERVAL, Report};
use weir_controller::status::compute;
use weir_controller::store::Reach;
use weir_proto::push::ReplicaMessage;

pub(super) const STATUS_EVERY: u64 = SECOND;

/// From one replica to another. Without a message, the end.
pub(super) struct Mail {
    to: usize,
    to_life: u64,
    telling: u64,
    from: Arc<str>,
    message: Option<ReplicaMessage>,
}

impl Simulation {
    fn lease_now(&self) -> Now {
        let (seconds, micros) = (self.time / SECOND, self.time % SECOND);
        let wall = format!("2026-01-01T00:{:02}:{:02}.{micros:06}Z", seconds / 60, seconds % 60);
        Now { monotonic: self.now(), wall: wall.parse().expect("a time") }
    }

    pub(super) fn step_lease(&mut self, index: usize, input: Input) {
        let now = self.lease_now();
        let controller = &mut self.controllers[index];
        let led = controller.leads(now.monotonic);
        let action = controller.elector.step(now, input);
        let leads = controller.leads(now.monotonic);
        controller.step += 1;
        controller.is_waiting = matches!(action, Action::WaitUntil(_));
        let asked = Asked { controller: index, life: controller.life, step: controller.step };
        if leads && !led {
            self.counts.tenures += 1;
            self.note(format_args!("controller-{index} holds the Lease"));
        }
        let until = match action {
            Action::WaitUntil(until) => until,
            Action::Read | Action::Write(..) => {
                self.lease_requests.insert(asked, action);
                let delay = self.latency();
                self.after(delay, Event::LeaseArrives(asked));
                now.monotonic + Timing::default().request_timeout()
            }
        };
        let until = self.since_begin(until).max(self.time + 1);
        self.at(until, Event::LeaseEnds(asked));
        self.check_leaders();
    }

    pub(super) fn on_lease_request(&mut self, asked: Asked) {
        let Some(action) = self.lease_requests.remove(&asked) else { return };
        if self.time < self.api.away_until {
            return;
        }
        let answer = self.api.serve_lease(&action);
        self.lease_answers.insert(asked, answer);
        let delay = self.latency();
        self.after(delay, Event::LeaseAnswers(asked));
    }

    pub(super) fn on_lease(&mut self, asked: Asked, event: Event) {
        let controller = &self.controllers[asked.controller];
        let current = Asked { controller: asked.controller, life: controller.life, step: controller.step };
        if current != asked || controller.is_down(self.time) {
            return;
        }
        let (frozen_until, is_waiting) = (controller.frozen_until, controller.is_waiting);
        if self.postponed(frozen_until, event) {
            return;
        }
        let input = match event {
            Event::LeaseAnswers(_) => self.lease_answers.remove(&asked).expect("answered once"),
            _ if is_waiting => Input::Wake,
            _ => Input::Failed,
        };
        self.step_lease(asked.controller, input);
    }

    pub(super) fn on_tell(&mut self, index: usize, life: u64) {
        let (now, event) = (self.now(), Event::Tell { controller: index, life });
        if !self.acts(index, life, event) {
            return;
        }
        self.after(u64::try_from(REPORT_INTERVAL.as_micros()).expect("short"), event);
        let id = self.id();
        let controller = &mut self.controllers[index];
        let name = controller.elector.holder(now).filter(|_| !controller.leads(now));
        let to = (0..CONTROLLERS).find(|to| *to != index && name == Some(&*holder(*to).to_string()));
        if controller.telling.as_ref().map(|telling| telling.to) != to {
            let report = Report::begin(&controller.store, &controller.name);
            let old = controller.telling.take();
            let telling = to.map(|to| Telling { id, to, to_life: self.controllers[to].life, report });
            self.controllers[index].telling = telling;
            if let Some(old) = old {
                self.post(&holder(index).name, &old, None);
            }
        }
        let Some(mut telling) = self.controllers[index].telling.take() else { return };
        let is_there = self.controllers[telling.to].life == telling.to_life
            && !self.controllers[telling.to].is_down(self.time);
        if !is_there {
            return;
        }
        while let Some(message) = telling.report.next_message() {
            self.post(&holder(index).name, &telling, Some(message));
        }
        self.controllers[index].telling = Some(telling);
    }

    pub(super) fn post(&mut self, from: &Arc<str>, telling: &Telling, message: Option<ReplicaMessage>) {
        let id = self.id();
        let from = Arc::clone(from);
        let mail = Mail { to: telling.to, to_life: telling.to_life, telling: telling.id, from, message };
        self.mail.insert(id, mail);
        // Of one length, so that they stay in their order.
        self.after(10 * MILLISECOND, Event::Told(telling.id));
    }

    pub(super) fn on_told(&mut self, telling: u64) {
        let now = self.now();
        // In their order: those that a freeze held up may wake in another.
        let of_it = self.mail.iter().find(|(_, mail)| mail.telling == telling);
        let (id, mail) = of_it.map(|(id, mail)| (*id, mail)).expect("one for each event");
        let until = self.controllers[mail.to].frozen_until;
        if self.postponed(until, Event::Told(telling)) {
            return;
        }
        let Mail { to, to_life, telling, from, message } = self.mail.remove(&id).expect("looked up above");
        let controller = &mut self.controllers[to];
        if controller.life != to_life || controller.is_down(self.time) {
            return;
        }
        match message {
            Some(message) => controller.hear(telling, &from, message, now),
            None => drop(controller.entries.remove(&telling)),
        }
    }

    pub(super) fn on_status(&mut self, index: usize, life: u64) {
        let (now, event) = (self.now(), Event::Status { controller: index, life });
        if !self.acts(index, life, event) {
            return;
        }
        self.after(STATUS_EVERY, event);
        let controller = &self.controllers[index];
        if !controller.leads(now) || controller.loaded_at.is_none() || self.time < self.api.away_until {
            return;
        }
        let mut written = Vec::new();
        for key in controller.board.keys() {
            let Some(pool) = self.api.pools.get(&key.name) else { continue };
            let Some(verdict) = controller.board.verdict(&key) else { continue };
            let summary = controller.store.summary(&key.to_string(), Reach::All);
            let wall = self.lease_now().wall;
            let status = compute(&verdict, &summary, pool.status.as_ref(), wall);
            if pool.status.as_ref() != Some(&status) {
                written.push((key.name, status));
            }
        }
        for (name, status) in written {
            self.api.put_status(&name, status);
        }
        self.announce();
    }
}
