//! The same pair over TLS: what each end proves to the other, and for how long.

use crate::fixtures::{Pool, backend};
use crate::pair::{Controller, Proxy, any_port, free_port, ids, serves_and_follows, until};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weir_controller::push::{Files, Security};
use weir_controller::store::{Completeness, Store};
use weir_dial::{ClientFiles, Credentials, Target};
use weir_proxy::readiness::Phase;
use weir_tests::harness::authority::{Authority, KeyPairFiles, replace};
use weir_tests::harness::folder::Folder;

const NAME: &str = "controller.example";

/// An authority with a folder of what it signed.
struct Keys {
    authority: Authority,
    folder: Folder,
}

impl Keys {
    fn new() -> Self {
        let keys = Self { authority: Authority::new(), folder: Folder::new() };
        replace(&keys.folder.file("ca.crt"), &keys.authority.certificate());
        keys
    }

    fn mutual(&self) -> Security {
        let KeyPairFiles { certificate, key } =
            self.authority.issue("controller", &[NAME]).write(self.folder.path(), "controller");
        let files = Files { certificate, key, client_ca: Some(self.folder.file("ca.crt")) };
        Security::tls(files).expect("good files")
    }

    fn target(&self, address: SocketAddr, client: Option<KeyPairFiles>) -> Target {
        let client = client.map(|KeyPairFiles { certificate, key }| ClientFiles { certificate, key });
        let (ca, name) = (Some(self.folder.file("ca.crt")), Some(NAME.to_owned()));
        let credentials = Credentials { ca, name, token: None, client };
        Target::new(&format!("https://{address}"), credentials).expect("good flags")
    }

    fn client(&self) -> KeyPairFiles {
        self.authority.issue("proxy", &["proxy"]).write(self.folder.path(), "proxy")
    }
}

#[tokio::test]
async fn a_pool_is_served_over_mutual_tls_follows_its_backends_and_goes() {
    let (store, keys) = (Store::new(1), Keys::new());
    let controller = Controller::start_secured(any_port(), &store, keys.mutual()).await;
    let proxy = Proxy::start(keys.target(controller.address, Some(keys.client())));
    serves_and_follows(&store, &proxy).await;
    drop(proxy);
    controller.stop().await;
}

#[tokio::test]
async fn a_proxy_without_a_good_certificate_sees_nothing_and_one_that_gets_it_is_served() {
    let (store, keys) = (Store::new(1), Keys::new());
    let port = free_port();
    store.replace_all([Pool::new("ns/shop", port, vec![backend("a", 1)]).contents()], Completeness::All);
    let controller = Controller::start_secured(any_port(), &store, keys.mutual()).await;
    let files = Authority::new().issue("proxy", &["proxy"]).write(keys.folder.path(), "proxy");
    let refused = Proxy::start(keys.target(controller.address, Some(files)));
    let nameless = Proxy::start(keys.target(controller.address, None));
    let good = Proxy::start(keys.target(
        controller.address,
        Some(keys.authority.issue("good", &["good"]).write(keys.folder.path(), "good")),
    ));
    good.ready().await;
    for proxy in [&refused, &nameless] {
        assert_eq!((proxy.status.connects(), proxy.status.pool_count()), (0, 0));
        assert_eq!(proxy.readiness.phase(), Phase::Starting);
    }
    drop(nameless);
    drop(good);
    // The files are read at each dial: the next one brings what is in them then.
    keys.client();
    refused.ready().await;
    assert_eq!(refused.backends(port, "/"), ids(&["a"]));
}

#[tokio::test]
async fn a_stream_ends_at_its_age_and_the_proxy_dials_again_at_once_with_nothing_sent_twice() {
    let (store, keys) = (Store::new(1), Keys::new());
    let port = free_port();
    store.replace_all([Pool::new("ns/shop", port, vec![backend("a", 1)]).contents()], Completeness::All);
    let security = keys.mutual().with_stream_age_max(Duration::from_millis(100));
    let controller = Controller::start_secured(any_port(), &store, security).await;
    let proxy = Proxy::start(keys.target(controller.address, Some(keys.client())));
    proxy.ready().await;
    let before = proxy.current.load_full();
    until("several streams", || {
        assert!(proxy.status.is_in_step(), "the end of a stream by age is no loss");
        proxy.status.connects() >= 5
    })
    .await;
    assert!(Arc::ptr_eq(&before, &proxy.current.load_full()), "nothing was configured again");
    assert_eq!(proxy.status.snapshot_requests(), 0);
    assert_eq!(proxy.backends(port, "/"), ids(&["a"]));
}

#[tokio::test]
async fn a_proxy_whose_certificate_is_no_longer_accepted_loses_the_stream_at_its_age_and_serves_on() {
    let (store, keys) = (Store::new(1), Keys::new());
    let port = free_port();
    let mut pool = Pool::new("ns/shop", port, vec![backend("a", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    let security = keys.mutual().with_stream_age_max(Duration::from_millis(100));
    let controller = Controller::start_secured(any_port(), &store, security).await;
    let proxy = Proxy::start(keys.target(controller.address, Some(keys.client())));
    proxy.ready().await;
    keys.authority.issue_expired("proxy", &["proxy"]).write(keys.folder.path(), "proxy");
    until("the loss", || !proxy.status.is_in_step()).await;
    pool.sets.insert("web".into(), vec![backend("b", 2)]);
    store.replace_all([pool.contents()], Completeness::All);
    assert_eq!(proxy.backends(port, "/"), ids(&["a"]), "it serves what it had");
    keys.client();
    until("the change, once its certificate is good again", || proxy.backends(port, "/") == ids(&["b"]))
        .await;
}
