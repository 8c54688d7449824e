//! What proxies are sent, for `weir explain`: each pool as the message of the push protocol, without what is secret in it.

use crate::store::{Pool, Store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use std::ops::Bound;
use std::sync::Arc;
use weir_proto::push::{BackendSetContent, PoolConfig, PoolUpdate};

/// A page ends after the pool with which it has so many bytes, encoded.
pub const PAGE_BYTES_ENOUGH: usize = 4 << 20;

/// Pools of which `update` is a `PoolUpdate` in Base64, in the order of their names. Others run between two of them.
pub(super) async fn page(replica: &str, store: &Arc<Store>, after: Option<&str>) -> Value {
    let all = store.pools();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = all.range::<str, _>((from, Bound::Unbounded)).peekable();
    let (mut pools, mut bytes, mut last) = (Vec::new(), 0, None);
    while bytes < PAGE_BYTES_ENOUGH
        && let Some((name, pool)) = rest.next()
    {
        let update = STANDARD.encode(update(pool).encode_to_vec());
        bytes += update.len();
        let data_plane = &pool.contents.data_plane;
        pools.push(json!({ "name": &**name, "class": data_plane.class, "update": update }));
        last = Some(name);
        tokio::task::yield_now().await;
    }
    let next = last.filter(|_| rest.peek().is_some());
    json!({ "replica": replica, "pools": pools, "next": next.map(|name| &**name) })
}

fn update(pool: &Pool) -> PoolUpdate {
    let sets = pool.contents.sets.iter().map(|(set, content)| BackendSetContent {
        set: set.clone(),
        digest: content.digest,
        backends: content.backends.clone(),
    });
    PoolUpdate {
        config: Some(without_secrets((*pool.contents.config).clone())),
        // Of what it says without secrets, nobody has a digest.
        config_digest: 0,
        sets: sets.collect(),
        kept: Vec::new(),
    }
}

/// Private keys are taken out, and health checks, whose headers may prove who asks.
fn without_secrets(mut config: PoolConfig) -> PoolConfig {
    let listeners = config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut());
    for certificate in listeners.flat_map(|tls| &mut tls.certificates) {
        certificate.key_pem.clear();
    }
    for set in &mut config.backend_sets {
        set.active_check = None;
        if let Some(certificate) = set.tls.as_mut().and_then(|tls| tls.client_certificate.as_mut()) {
            certificate.key_pem.clear();
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Completeness, Contents};
    use std::collections::BTreeMap;
    use weir_proto::push;

    const SECRET: &str = "not for anybody";

    fn config(name: &str) -> PoolConfig {
        let secret = || push::Certificate {
            source: "ns/secret".into(),
            chain_pem: b"chain".to_vec(),
            key_pem: SECRET.as_bytes().to_vec(),
        };
        let check = push::HttpCheck {
            headers: vec![push::HeaderField { name: "authorization".into(), value: SECRET.into() }],
            ..push::HttpCheck::default()
        };
        let check = push::ActiveCheck {
            kind: Some(push::active_check::Kind::Http(check)),
            ..push::ActiveCheck::default()
        };
        let tls = push::Tls { certificates: vec![secret()], ..push::Tls::default() };
        let backend_tls =
            push::BackendTls { client_certificate: Some(secret()), ..push::BackendTls::default() };
        PoolConfig {
            pool: name.into(),
            listeners: vec![push::Listener { tls: Some(tls), ..push::Listener::default() }],
            backend_sets: vec![push::BackendSet {
                name: "web".into(),
                active_check: Some(check),
                tls: Some(backend_tls),
                ..push::BackendSet::default()
            }],
            ..PoolConfig::default()
        }
    }

    fn store(pools: impl Iterator<Item = PoolConfig>) -> Arc<Store> {
        let store = Store::new(1);
        let contents = |config: PoolConfig| {
            let name = config.pool.clone();
            let sets = BTreeMap::from([("web".to_owned(), Arc::default())]);
            (name, Contents { config: Arc::new(config), sets, ..Contents::default() })
        };
        store.replace_all(pools.map(contents), Completeness::All);
        store
    }

    fn read(pool: &Value) -> PoolUpdate {
        let bytes = STANDARD.decode(pool["update"].as_str().expect("text")).expect("Base64");
        PoolUpdate::decode(&*bytes).expect("a message")
    }

    #[tokio::test]
    async fn a_pool_is_told_without_keys_and_what_checks_send() {
        let page = page("r", &store([config("ns/a")].into_iter()), None).await;
        let pool = &page["pools"][0];
        assert_eq!(
            (&pool["name"], &pool["class"], &page["next"]),
            (&json!("ns/a"), &json!("default"), &Value::Null)
        );
        let update = read(pool);
        let bytes = update.encode_to_vec();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{update:?}");
        let config = update.config.expect("one");
        assert_eq!(
            config.listeners[0].tls.as_ref().map(|tls| &*tls.certificates[0].chain_pem),
            Some(&b"chain"[..])
        );
        assert_eq!((config.backend_sets.len(), update.sets.len()), (1, 1));
    }

    #[tokio::test]
    async fn pages_end_when_they_are_large_and_the_next_goes_on() {
        let large = |name: &str| {
            let source = "x".repeat(PAGE_BYTES_ENOUGH / 2);
            let set = push::BackendSet { name: "web".into(), source, ..push::BackendSet::default() };
            PoolConfig { pool: name.into(), backend_sets: vec![set], ..PoolConfig::default() }
        };
        let store = store(["ns/a", "ns/b", "ns/c"].into_iter().map(large));
        let names = |page: &Value| -> Vec<String> {
            let pools = page["pools"].as_array().expect("a list").iter();
            pools.map(|pool| pool["name"].as_str().expect("text").to_owned()).collect()
        };
        let first = page("r", &store, None).await;
        assert_eq!(
            (names(&first), &first["next"]),
            (vec!["ns/a".to_owned(), "ns/b".to_owned()], &json!("ns/b"))
        );
        let second = page("r", &store, Some("ns/b")).await;
        assert_eq!((names(&second), &second["next"]), (vec!["ns/c".to_owned()], &Value::Null));
    }
}
