//! What people and controllers of the cluster edit, and what goes wrong.

use super::api::{Pool, Service, State};
use super::controller::{Controller, holder};
use super::proxy::CONTESTED_PORT;
use super::simulation::{Event, Simulation};
use super::{CONTROLLERS, MILLISECOND, PROXIES, SECOND};
use std::net::Ipv4Addr;

/// A pool and a Service that always have a ready backend.
pub(super) const CORE: &str = "core";
/// Its port is taken at some proxies, some of the time.
pub(super) const CONTESTED: &str = "contested";
/// Two pools that are wrong at times, or want the same host.
pub(super) const ODD: [&str; 2] = ["odd-0", "odd-1"];
const FAT: &str = "fat";
const FAT_ENDPOINTS: usize = 700;
const PLAIN: [&str; 4] = ["plain-0", "plain-1", "plain-2", "plain-3"];
const SERVICES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
const PORTS: [u16; 3] = [21_001, 21_002, 21_003];

const EDIT_EVERY: u64 = 250 * MILLISECOND;
const DISTURB_EVERY: u64 = 900 * MILLISECOND;

/// For how long others wait for a holder that is silent ([`weir_controller::lease::LEASE_DURATION`]).
const LEASE: u64 = 15 * SECOND;

/// What there is before anything runs.
pub(super) fn found(sim: &mut Simulation) {
    for name in SERVICES.into_iter().chain([CORE]) {
        make_service(sim, name, 3);
    }
    let pool = |sim: &mut Simulation, name: &str, sets: [(&str, &str); 2]| {
        let sets = sets.map(|(set, service)| (set.to_owned(), service.to_owned())).into();
        make_pool(sim, name, PORTS[0], sets);
    };
    pool(sim, CORE, [("web", CORE), ("api", "s0")]);
    pool(sim, CONTESTED, [("web", "s1"), ("api", "s2")]);
    for (index, name) in PLAIN.into_iter().chain(ODD).enumerate() {
        pool(sim, name, [("web", SERVICES[index]), ("api", SERVICES[(index + 1) % SERVICES.len()])]);
    }
    if sim.mode.is_fat {
        make_service(sim, FAT, FAT_ENDPOINTS);
        pool(sim, FAT, [("web", FAT), ("api", CORE)]);
    }
}

fn make_service(sim: &mut Simulation, name: &str, endpoints: usize) {
    let service = Service { is_there: true, ..Service::default() };
    sim.api.services.insert(name.to_owned(), service);
    let slice = slice(name, 0);
    for _ in 0..endpoints {
        let ip = sim.api.new_address();
        sim.api.put_endpoint(sim.time, name, &slice, ip, Some(State::Ready));
    }
    sim.api.put_service(sim.time, name);
    sim.api.put_slice(sim.time, name, &slice);
}

fn make_pool(sim: &mut Simulation, name: &str, port: u16, sets: std::collections::BTreeMap<String, String>) {
    let pool = Pool {
        port,
        host: format!("{name}.example"),
        weight: 1,
        sets,
        is_invalid: false,
        generation: 0,
        changed_at: 0,
        status: None,
    };
    sim.api.pools.insert(name.to_owned(), pool);
    sim.api.put_pool(sim.time, name);
}

fn slice(service: &str, number: u64) -> String {
    format!("{service}-{number}")
}

fn one_of<T: Copy>(sim: &mut Simulation, choices: &[T]) -> T {
    choices[sim.random.index(choices.len())]
}

/// One edit, and the next one after a while.
pub(super) fn edit(sim: &mut Simulation) {
    if sim.is_calm() {
        return;
    }
    let delay = sim.random.below(2 * EDIT_EVERY);
    sim.after(delay, Event::Edit);
    match sim.random.below(20) {
        0 => edit_service(sim),
        1 | 2 => edit_plain(sim),
        3 => come_and_go(sim),
        4 => edit_odd(sim),
        5 => {
            let port = one_of(sim, &[PORTS[0], PORTS[1], CONTESTED_PORT]);
            change(sim, CONTESTED, |pool| pool.port = port);
        }
        6 => {
            let (weight, port) = (1 + u32::try_from(sim.random.below(3)).expect("few"), one_of(sim, &PORTS));
            change(sim, CORE, |pool| (pool.weight, pool.port) = (weight, port));
        }
        7 if sim.mode.is_fat => edit_fat(sim),
        8 => move_endpoint(sim),
        _ => edit_endpoint(sim),
    }
    sim.announce();
}

fn change(sim: &mut Simulation, name: &str, edit: impl FnOnce(&mut Pool)) {
    if let Some(pool) = sim.api.pools.get_mut(name) {
        edit(pool);
        sim.api.put_pool(sim.time, name);
        sim.note(format_args!("pool {name} is edited"));
    }
}

/// A Service goes, or comes back; its slices stay.
fn edit_service(sim: &mut Simulation) {
    let name = one_of(sim, &SERVICES);
    turn_service(sim, name);
}

pub(super) fn turn_service(sim: &mut Simulation, name: &str) {
    let service = sim.api.services.get_mut(name).expect("made at the begin");
    service.is_there = !service.is_there;
    let is_there = service.is_there;
    sim.api.put_service(sim.time, name);
    sim.note(format_args!("Service {name} is there: {is_there}"));
}

fn edit_plain(sim: &mut Simulation) {
    let name = one_of(sim, &PLAIN);
    let (set, service) = (one_of(sim, &["web", "api", "extra"]), one_of(sim, &SERVICES));
    let (what, port) = (sim.random.below(4), one_of(sim, &PORTS));
    change(sim, name, |pool| match what {
        0 => pool.port = port,
        1 => pool.weight = 1 + pool.weight % 3,
        2 => drop(pool.sets.insert(set.to_owned(), service.to_owned())),
        _ if pool.sets.len() > 1 => drop(pool.sets.remove(set)),
        _ => pool.weight += 1,
    });
}

/// Another pool of the same name may come back.
fn come_and_go(sim: &mut Simulation) {
    let name = one_of(sim, &[PLAIN[2], PLAIN[3], CONTESTED]);
    if sim.api.pools.remove(name).is_some() {
        sim.api.put_pool(sim.time, name);
        sim.note(format_args!("pool {name} is gone"));
    } else {
        let (port, service) = (one_of(sim, &PORTS), one_of(sim, &SERVICES));
        let sets = [("web", service), ("api", CORE)].map(|(set, of)| (set.to_owned(), of.to_owned()));
        make_pool(sim, name, port, sets.into());
        sim.note(format_args!("pool {name} comes"));
    }
}

fn edit_odd(sim: &mut Simulation) {
    let name = one_of(sim, &ODD);
    let what = sim.random.below(3);
    change(sim, name, |pool| match what {
        0 => pool.is_invalid = !pool.is_invalid,
        1 => pool.host = "odd.example".to_owned(),
        _ => pool.host = format!("{name}.example"),
    });
}

/// More at once than a delta holds.
fn edit_fat(sim: &mut Simulation) {
    let slice = slice(FAT, 0);
    let old: Vec<Ipv4Addr> = sim.api.services[FAT].slices[&slice].keys().copied().collect();
    for ip in old {
        sim.api.put_endpoint(sim.time, FAT, &slice, ip, None);
    }
    for _ in 0..FAT_ENDPOINTS {
        let ip = sim.api.new_address();
        sim.api.put_endpoint(sim.time, FAT, &slice, ip, Some(State::Ready));
    }
    sim.api.put_slice(sim.time, FAT, &slice);
    sim.note(format_args!("every endpoint of {FAT} is another"));
    // While the chunks are on their way.
    for _ in 0..3 {
        let delay = sim.random.below(200 * MILLISECOND);
        sim.after(delay, Event::EditFat);
    }
}

/// One more endpoint of the fat Service.
pub(super) fn edit_fat_slightly(sim: &mut Simulation) {
    let (ip, slice) = (sim.api.new_address(), slice(FAT, 1));
    sim.api.put_endpoint(sim.time, FAT, &slice, ip, Some(State::Ready));
    sim.api.put_slice(sim.time, FAT, &slice);
    sim.announce();
}

fn edit_endpoint(sim: &mut Simulation) {
    let mut services = vec![CORE, CORE];
    services.extend(SERVICES);
    if sim.mode.is_fat {
        services.push(FAT);
    }
    let service = one_of(sim, &services);
    let slice = slice(service, sim.random.below(2));
    let of = &sim.api.services[service];
    let known: Vec<(Ipv4Addr, State)> =
        of.slices.get(&slice).into_iter().flatten().map(|(ip, state)| (*ip, *state)).collect();
    let ready = of.slices.values().flat_map(|slice| slice.values()).filter(|state| **state == State::Ready);
    let is_last = service == CORE && ready.count() < 2;
    if known.is_empty() || is_last || sim.random.below(5) < 2 {
        let ip = sim.api.new_address();
        sim.api.put_endpoint(sim.time, service, &slice, ip, Some(State::Ready));
        sim.note(format_args!("{service} gets {ip}"));
    } else {
        let (ip, _) = one_of(sim, &known);
        let state =
            one_of(sim, &[None, None, Some(State::NotReady), Some(State::Draining), Some(State::Ready)]);
        sim.api.put_endpoint(sim.time, service, &slice, ip, state);
        sim.note(format_args!("{service}: {ip} is {state:?}"));
    }
    sim.api.put_slice(sim.time, service, &slice);
}

/// From one slice to another: the watch tells it in two steps, in either order.
fn move_endpoint(sim: &mut Simulation) {
    let service = one_of(sim, &SERVICES);
    let (from, to) = (slice(service, 0), slice(service, 1));
    let first = sim.api.services[service].slices.get(&from).and_then(|of| of.iter().next());
    let Some((ip, state)) = first.map(|(ip, state)| (*ip, *state)) else { return };
    sim.api.put_endpoint(sim.time, service, &from, ip, None);
    sim.api.put_endpoint(sim.time, service, &to, ip, Some(state));
    let mut order = [from, to];
    if sim.random.one_in(2) {
        order.reverse();
    }
    order.iter().for_each(|slice| sim.api.put_slice(sim.time, service, slice));
    sim.note(format_args!("{service}: {ip} moves"));
}

/// Something goes wrong, and the next thing after a while.
pub(super) fn disturb(sim: &mut Simulation) {
    if sim.is_calm() {
        return;
    }
    let delay = sim.random.below(2 * DISTURB_EVERY);
    sim.after(delay, Event::Disturb);
    let proxy = sim.random.index(PROXIES);
    let controller = sim.random.index(CONTROLLERS);
    let until = sim.time + 50 * MILLISECOND + sim.random.below(4 * SECOND);
    let stream = sim.proxies[proxy].stream;
    match (sim.random.below(16), stream) {
        (0..3, Some(stream)) => sim.cut(stream),
        (3..5, Some(stream)) => sim.stall(stream, until),
        (5, Some(stream)) => sim.end(stream),
        (6..8, _) => pause_watch(sim, controller, until),
        (8, _) => {
            let (watch, lists_again) = (sim.random.index(4), sim.random.one_in(2));
            break_watch(sim, controller, Break { watch, until, lists_again });
        }
        (9, _) => {
            let until = if sim.random.one_in(4) { until + 12 * SECOND } else { until };
            freeze(sim, controller, until);
        }
        (10, _) => crash(sim, controller, until),
        (11, _) => {
            let frozen = &mut sim.proxies[proxy];
            (frozen.frozen_until, frozen.troubled_until) = (until, until);
            sim.note(format_args!("proxy {proxy} freezes until {until}"));
        }
        (12, _) => restart_proxy(sim, proxy, until),
        (13, _) => leave(sim, until),
        (14, _) => {
            let is_taken = sim.random.one_in(2);
            sim.proxies[proxy].contest(is_taken);
            sim.note(format_args!("proxy {proxy}: the contested port is taken: {is_taken}"));
        }
        _ => sim.proxies[proxy].keep(),
    }
}

/// Once in every run, whatever else goes wrong: the holder of the Lease ends, or does not run for longer than others wait
/// for it and believes to hold it until it runs again.
pub(super) fn depose(sim: &mut Simulation) {
    if sim.is_calm() {
        return;
    }
    let now = sim.now();
    let Some(holder) = sim.controllers.iter().position(|controller| controller.leads(now)) else {
        return sim.after(SECOND, Event::Depose);
    };
    let until = sim.time + 50 * MILLISECOND + sim.random.below(4 * SECOND);
    if sim.random.one_in(2) {
        crash(sim, holder, until);
    } else {
        freeze(sim, holder, until + LEASE);
    }
}

fn freeze(sim: &mut Simulation, index: usize, until: u64) {
    let controller = &mut sim.controllers[index];
    controller.frozen_until = controller.frozen_until.max(until);
    controller.troubled_until = controller.troubled_until.max(until);
    sim.note(format_args!("controller-{index} freezes until {until}"));
}

fn pause_watch(sim: &mut Simulation, index: usize, until: u64) {
    let watch = sim.random.index(4);
    let controller = &mut sim.controllers[index];
    let paused = &mut controller.watches[watch].paused_until;
    *paused = (*paused).max(until);
    controller.troubled_until = controller.troubled_until.max(until);
    sim.note(format_args!("controller-{index}: watch {watch} pauses until {until}"));
}

/// The API server is not there.
pub(super) fn leave(sim: &mut Simulation, until: u64) {
    sim.api.away_until = until;
    for controller in &mut sim.controllers {
        controller.troubled_until = controller.troubled_until.max(until);
    }
    sim.note(format_args!("the API server is away until {until}"));
}

/// What becomes of a watch that ends with an error.
pub(super) struct Break {
    pub(super) watch: usize,
    /// Hears nothing before.
    pub(super) until: u64,
    /// Does not go on where it was.
    pub(super) lists_again: bool,
}

/// For how long the replica may keep what a list misses is known when that list has been read
/// ([`Controller::read`]), and not yet: the API server may be away before, or the watch break again.
pub(super) fn break_watch(sim: &mut Simulation, index: usize, what: Break) {
    let (Break { watch, until, lists_again }, now) = (what, sim.now());
    let controller = &mut sim.controllers[index];
    if controller.is_down(sim.time) {
        return;
    }
    controller.troubled_until = controller.troubled_until.max(until);
    let broken = &mut controller.watches[watch];
    broken.paused_until = broken.paused_until.max(until);
    broken.restart(lists_again);
    controller.lose(watch, now);
    sim.note(format_args!("controller-{index}: watch {watch} breaks, lists again: {lists_again}"));
    sim.wake_watch(index, watch);
}

fn crash(sim: &mut Simulation, index: usize, until: u64) {
    sim.counts.crashes += 1;
    sim.note(format_args!("controller-{index} crashes until {until}"));
    let of_it = sim.streams.iter().filter(|(_, stream)| stream.controller == index && !stream.is_cut);
    for stream in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
        sim.end(stream);
    }
    sim.streams.retain(|_, stream| stream.controller != index);
    sim.counts.resends += sim.controllers[index].resends();
    let (life, epoch) = (sim.controllers[index].life + 1, 1 + sim.random.below(1 << 40));
    // Its connections break, so that what it told counts no more.
    let name = holder(index).name;
    if let Some(telling) = sim.controllers[index].telling.take() {
        sim.post(&name, &telling, None);
    }
    sim.controllers[index] = Controller::new(index, life, epoch);
    sim.controllers[index].down_until = until;
    let delay = until - sim.time;
    sim.after(delay, Event::Start { controller: index, life });
}

fn restart_proxy(sim: &mut Simulation, index: usize, until: u64) {
    if let Some(stream) = sim.proxies[index].stream.take() {
        sim.cut(stream);
    }
    if sim.random.one_in(2) {
        sim.proxies[index].keep();
    }
    sim.proxies[index].restart();
    let proxy = &mut sim.proxies[index];
    (proxy.frozen_until, proxy.troubled_until) = (until, until);
    let life = proxy.life;
    sim.note(format_args!("proxy {index} restarts until {until}"));
    let delay = until - sim.time;
    sim.after(delay, Event::Dial { proxy: index, life });
}

/// Nothing goes wrong any more, and every object is right.
pub(super) fn calm(sim: &mut Simulation) {
    for name in ODD {
        change(sim, name, |pool| {
            pool.is_invalid = false;
            pool.host = format!("{name}.example");
        });
    }
    sim.proxies.iter_mut().for_each(|proxy| proxy.contest(false));
    sim.note(format_args!("calm"));
    sim.announce();
}

/// One backend of a Service that a pool uses comes, and nothing else changes. Gives the pools that use it.
pub(super) fn edit_once(sim: &mut Simulation) -> Vec<String> {
    let (ip, slice) = (sim.api.new_address(), slice(CORE, 0));
    sim.api.put_endpoint(sim.time, CORE, &slice, ip, Some(State::Ready));
    sim.api.put_slice(sim.time, CORE, &slice);
    sim.announce();
    let uses = |pool: &Pool| pool.sets.values().any(|service| service == CORE);
    sim.api.pools.iter().filter(|(_, pool)| uses(pool)).map(|(name, _)| name.clone()).collect()
}
