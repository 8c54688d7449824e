//! What a change costs the controller, from the objects to the store: by the number of pools, before and after edits.
//!
//! Each pool has a host, a certificate, two routes and a Service of ten endpoints of its own, and all share one port.
//! One thread, all else quiet. Of several changes, each of another pool, the median counts. That a figure does not grow
//! with the number of pools is what it is for.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_controller::compile::{ObjectKey, Objects, Origin, Touched, World, world};
use weir_controller::store::{Completeness, Store};

const POOLS: [usize; 3] = [10, 100, 1000];
const CHANGES: usize = 200;
const ENDPOINTS: usize = 10;

fn main() {
    let secrets = [secret(), secret()];
    for pools in POOLS {
        let mut bench = Bench::new(pools, &secrets);
        let slice = bench.median(Bench::change_slice);
        println!("figure compile.slice.{pools} {slice:.1} us");
        let edit = bench.median(Bench::edit_route);
        println!("figure compile.edit.{pools} {edit:.1} us");
        let rotation = bench.median(|bench, at| bench.rotate_secret(at, &secrets[at % 2]));
        println!("figure compile.secret.{pools} {rotation:.1} us");
        let slice = bench.median(Bench::change_slice);
        println!("figure compile.slice-after.{pools} {slice:.1} us");
        let whole = bench.whole();
        println!("figure compile.world.{pools} {whole:.1} us");
    }
}

struct Bench {
    objects: Objects,
    world: World,
    store: Arc<Store>,
    pools: usize,
    /// So that no object is ever what it was before.
    changes: usize,
}

impl Bench {
    fn new(pools: usize, secrets: &[Arc<Secret>; 2]) -> Self {
        let mut objects = Objects::default();
        for at in 0..pools {
            objects.pools.insert(key("pool", at), pool(at, 0));
            objects.services.insert(key("web", at), Arc::new(service(at)));
            objects.insert_slice(key("slice", at), slice(at, 0));
            objects.secrets.insert(key("tls", at), Arc::clone(&secrets[1]));
        }
        let (world, store) = (world(&objects, None), Store::new(1));
        assert_eq!(world.serving_count(), pools);
        assert_eq!(world.warnings().count(), 0);
        store.apply(&world, Completeness::All, Instant::now());
        Self { objects, world, store, pools, changes: 0 }
    }

    /// In microseconds, of one change to each of several pools in turn.
    fn median(&mut self, mut change: impl FnMut(&mut Self, usize) -> Duration) -> f64 {
        let mut times: Vec<_> = (0..CHANGES).map(|at| change(self, at)).collect();
        times.sort_unstable();
        times[CHANGES / 2].as_secs_f64() * 1e6
    }

    fn change_slice(&mut self, at: usize) -> Duration {
        let at = self.next(at);
        self.objects.insert_slice(key("slice", at), slice(at, self.changes));
        let touched = Touched { origins: [Origin::Service(key("web", at))].into(), ..Touched::default() };
        self.follow(&touched)
    }

    fn edit_route(&mut self, at: usize) -> Duration {
        let at = self.next(at);
        self.objects.pools.insert(key("pool", at), pool(at, self.changes));
        self.follow(&Touched { pools: [key("pool", at)].into(), ..Touched::default() })
    }

    fn rotate_secret(&mut self, at: usize, secret: &Arc<Secret>) -> Duration {
        let at = at / 2 % self.pools;
        self.objects.secrets.insert(key("tls", at), Arc::clone(secret));
        self.follow(&Touched { secrets: [key("tls", at)].into(), ..Touched::default() })
    }

    fn next(&mut self, at: usize) -> usize {
        self.changes += 1;
        at * 7 % self.pools
    }

    /// One pool changes, and no more than that.
    fn follow(&mut self, touched: &Touched) -> Duration {
        let begun = Instant::now();
        let changed = self.world.update(&self.objects, touched);
        let outcome = self.store.apply_update(&self.world, &changed, Completeness::All, begun);
        let took = begun.elapsed();
        assert_eq!((changed.len(), outcome.changed, outcome.removed), (1, 1, 0));
        took
    }

    /// What compiling everything costs, in microseconds: what a change cost before worlds followed changes.
    fn whole(&self) -> f64 {
        let begun = Instant::now();
        let whole = black_box(world(&self.objects, Some(&self.world)));
        self.store.apply(&whole, Completeness::All, begun);
        begun.elapsed().as_secs_f64() * 1e6
    }
}

fn key(kind: &str, at: usize) -> ObjectKey {
    ObjectKey::new("shop", format!("{kind}-{at:05}"))
}

fn object<T: DeserializeOwned>(key: &ObjectKey, rest: Value) -> T {
    let mut object = rest;
    let metadata = &mut object["metadata"];
    metadata["namespace"] = json!(key.namespace);
    metadata["name"] = json!(key.name);
    serde_json::from_value(object).expect("the object is right")
}

fn pool(at: usize, edit: usize) -> Arc<weir_crds::LoadBalancerPool> {
    Arc::new(object(
        &key("pool", at),
        json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "LoadBalancerPool", "metadata": {},
            "spec": {
                "listeners": [{
                    "name": "https", "port": 443, "protocol": "HTTPS",
                    "hostnames": [format!("host-{at}.example.com")],
                    "tls": { "certificateRefs": [{ "name": key("tls", at).name }] },
                }],
                "rules": [
                    { "matches": [{ "path": { "value": format!("/edit-{edit}") } }], "backendSets": [{ "name": "web" }] },
                    { "backendSets": [{ "name": "web" }] },
                ],
                "backendSets": [{ "name": "web", "service": { "name": key("web", at).name, "port": 80 } }],
            },
        }),
    ))
}

fn service(at: usize) -> k8s_openapi::api::core::v1::Service {
    let spec = json!({ "ports": [{ "name": "http", "port": 80 }] });
    object(&key("web", at), json!({ "metadata": {}, "spec": spec }))
}

fn slice(at: usize, change: usize) -> Arc<EndpointSlice> {
    let address = |index: usize| format!("10.{}.{}.{index}", change / 250 % 250, change % 250);
    let endpoints: Vec<_> = (0..ENDPOINTS).map(|index| json!({ "addresses": [address(index)] })).collect();
    Arc::new(object(
        &key("slice", at),
        json!({
            "metadata": { "labels": { "kubernetes.io/service-name": key("web", at).name } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }], "endpoints": endpoints,
        }),
    ))
}

fn secret() -> Arc<Secret> {
    let made = rcgen::generate_simple_self_signed(["example.com".to_owned()]).expect("a certificate");
    let data = [("tls.crt", made.cert.pem()), ("tls.key", made.signing_key.serialize_pem())];
    let data = data.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes())));
    Arc::new(Secret {
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    })
}
