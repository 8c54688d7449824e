//! The API server: what is true, in which order it came to be, and who holds the Lease.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use weir_controller::cluster::{Item, Kind};
use weir_controller::compile::ObjectKey;
use weir_controller::lease::{Action, Input, Record, Revision};
use weir_crds::LoadBalancerPoolStatus;

pub(super) const NAMESPACE: &str = "ns";

/// Where backends listen, whatever the Service's port.
const TARGET_PORT: u16 = 8080;

/// An endpoint as its EndpointSlice tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// Serving and terminating.
    Draining,
    /// Takes nothing: the same as not there.
    NotReady,
}

/// A Service with its EndpointSlices.
#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    /// The Service itself; its slices may be there without it.
    pub(super) is_there: bool,
    /// By name.
    pub(super) slices: BTreeMap<String, BTreeMap<Ipv4Addr, State>>,
    /// The last change of either.
    pub(super) changed_at: u64,
}

/// A `LoadBalancerPool`.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) port: u16,
    pub(super) host: String,
    /// Names another path or weight: an edit of the rules alone.
    pub(super) weight: u32,
    /// Set to Service.
    pub(super) sets: BTreeMap<String, String>,
    /// The specification is refused by the compile step.
    pub(super) is_invalid: bool,
    pub(super) generation: i64,
    pub(super) changed_at: u64,
    pub(super) status: Option<LoadBalancerPoolStatus>,
}

/// One change, as a watch tells it; `None` for an object that is gone.
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) key: ObjectKey,
    pub(super) item: Option<Item>,
}

#[derive(Default)]
pub(super) struct Api {
    pub(super) pools: BTreeMap<String, Pool>,
    pub(super) services: BTreeMap<String, Service>,
    /// When an address last left all slices, or was said to take nothing.
    pub(super) removed_at: BTreeMap<SocketAddr, u64>,
    /// When a pool was deleted that is not there.
    pub(super) gone_at: BTreeMap<String, u64>,
    /// What there is, as watches list it.
    objects: BTreeMap<(Kind, ObjectKey), Item>,
    /// A change's position is its resourceVersion.
    pub(super) log: Vec<Change>,
    pub(super) lease: Option<(Record, u64)>,
    lease_revision: u64,
    next_address: u32,
    pub(super) away_until: u64,
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

pub(super) fn address(ip: Ipv4Addr) -> SocketAddr {
    (ip, TARGET_PORT).into()
}

impl Api {
    /// An address that was never given before.
    pub(super) fn new_address(&mut self) -> Ipv4Addr {
        self.next_address += 1;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + self.next_address)
    }

    /// Everything of a kind, and the version up to which that holds.
    pub(super) fn list(&self, kind: Kind) -> (Vec<Item>, usize) {
        let of_kind = self.objects.iter().filter(|((of, _), _)| *of == kind);
        (of_kind.map(|(_, item)| item.clone()).collect(), self.log.len())
    }

    /// Whether one of these changes took an object of a kind away that is still gone.
    pub(super) fn has_lost(&self, kind: Kind, changes: Range<usize>) -> bool {
        let mut lost = self.log[changes].iter().filter(|change| change.kind == kind && change.item.is_none());
        lost.any(|change| !self.objects.contains_key(&(kind, change.key.clone())))
    }

    /// Members of a set as they should be served, with whether they are ready.
    pub(super) fn members(&self, service: &str) -> BTreeMap<SocketAddr, bool> {
        let service = self.services.get(service).filter(|service| service.is_there);
        let endpoints = service.into_iter().flat_map(|service| service.slices.values().flatten());
        let usable = endpoints.filter(|(_, state)| **state != State::NotReady);
        usable.map(|(ip, state)| (address(*ip), *state == State::Ready)).collect()
    }

    /// Writes a pool down, as it is in `pools` now.
    pub(super) fn put_pool(&mut self, now: u64, name: &str) {
        let Some(pool) = self.pools.get_mut(name) else {
            self.gone_at.insert(name.to_owned(), now);
            return self.log(Kind::LoadBalancerPool, name, None);
        };
        self.gone_at.remove(name);
        pool.changed_at = now;
        pool.generation += 1;
        self.tell_pool(name);
    }

    /// As a replica writes it.
    pub(super) fn put_status(&mut self, name: &str, status: LoadBalancerPoolStatus) {
        if let Some(pool) = self.pools.get_mut(name) {
            pool.status = Some(status);
            self.tell_pool(name);
        }
    }

    fn tell_pool(&mut self, name: &str) {
        let pool = &self.pools[name];
        let set = |(set, service): (&String, &String)| json!({ "name": set, "service": { "name": service, "port": 80 } });
        let rules: Vec<Value> = pool
            .sets
            .keys()
            .map(|set| {
                let path = json!({ "path": { "type": "PathPrefix", "value": format!("/{set}") } });
                json!({ "matches": [path], "backendSets": [{ "name": set, "weight": pool.weight }] })
            })
            .collect();
        let port = if pool.is_invalid { 70_000 } else { i64::from(pool.port) };
        let spec = json!({
            "listeners": [{ "name": "l", "port": port, "protocol": "HTTP", "hostnames": [pool.host] }],
            "backendSets": pool.sets.iter().map(set).collect::<Vec<_>>(),
            "rules": rules,
        });
        let object = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "LoadBalancerPool",
            "metadata": { "namespace": NAMESPACE, "name": name, "uid": name, "generation": pool.generation },
            "spec": spec,
        });
        let mut object: weir_crds::LoadBalancerPool = serde_json::from_value(object).expect("a pool");
        object.status.clone_from(&pool.status);
        self.log(Kind::LoadBalancerPool, name, Some(Item::Pool(Arc::new(object))));
    }

    /// Writes a Service down, as it is in `services` now.
    pub(super) fn put_service(&mut self, now: u64, name: &str) {
        let service = self.services.get_mut(name).expect("it was made before");
        service.changed_at = now;
        let object = json!({
            "metadata": { "namespace": NAMESPACE, "name": name },
            "spec": { "ports": [{ "name": "http", "port": 80 }] },
        });
        let item = service
            .is_there
            .then(|| Item::Service(serde_json::from_value(object).map(Arc::new).expect("a Service")));
        self.log(Kind::Service, name, item);
    }

    /// Puts an endpoint into a slice, changes it there, or takes it out.
    pub(super) fn put_endpoint(
        &mut self,
        now: u64,
        service: &str,
        slice: &str,
        ip: Ipv4Addr,
        state: Option<State>,
    ) {
        let slices = &mut self.services.get_mut(service).expect("it was made before").slices;
        let endpoints = slices.entry(slice.to_owned()).or_default();
        match state {
            Some(state) => drop(endpoints.insert(ip, state)),
            None => drop(endpoints.remove(&ip)),
        }
        match state {
            Some(State::Ready | State::Draining) => drop(self.removed_at.remove(&address(ip))),
            Some(State::NotReady) | None => {
                self.removed_at.entry(address(ip)).or_insert(now);
            }
        }
    }

    /// Writes a slice down, as it is in its Service now.
    pub(super) fn put_slice(&mut self, now: u64, service: &str, slice: &str) {
        let of = self.services.get_mut(service).expect("it was made before");
        of.changed_at = now;
        let Some(endpoints) = of.slices.get(slice) else { return self.log(Kind::EndpointSlice, slice, None) };
        let endpoint = |(ip, state): (&Ipv4Addr, &State)| {
            let (ready, serving) = (*state == State::Ready, *state != State::NotReady);
            let conditions =
                json!({ "ready": ready, "serving": serving, "terminating": *state == State::Draining });
            json!({ "addresses": [ip.to_string()], "conditions": conditions })
        };
        let object = json!({
            "metadata": {
                "namespace": NAMESPACE, "name": slice, "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": TARGET_PORT }],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        });
        let slice_object = serde_json::from_value(object).map(Arc::new).expect("an EndpointSlice");
        self.log(Kind::EndpointSlice, slice, Some(Item::Slice(slice_object)));
    }

    fn log(&mut self, kind: Kind, name: &str, item: Option<Item>) {
        let key = key(name);
        match &item {
            Some(item) => drop(self.objects.insert((kind, key.clone()), item.clone())),
            None => drop(self.objects.remove(&(kind, key.clone()))),
        }
        self.log.push(Change { kind, key, item });
    }

    /// Reads or writes the Lease, over a revision as an API server does.
    pub(super) fn serve_lease(&mut self, action: &Action) -> Input {
        let current = self.lease.as_ref().map(|(_, revision)| Revision(revision.to_string()));
        match action {
            Action::Write(_, over) if *over != current => Input::Conflict,
            Action::Write(record, _) => {
                self.lease_revision += 1;
                self.lease = Some((record.clone(), self.lease_revision));
                Input::Written(Revision(self.lease_revision.to_string()))
            }
            Action::Read | Action::WaitUntil(_) => match (&self.lease, current) {
                (Some((record, _)), Some(revision)) => Input::Found(record.clone(), revision),
                _ => Input::Missing,
            },
        }
    }
}
