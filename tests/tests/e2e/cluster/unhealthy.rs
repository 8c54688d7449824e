//! What a status and its Events say of backends that a proxy keeps requests from; the proxy is a stream by hand.

use super::{condition, static_pool};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use weir_dial::{Credentials, Dialer, Random, Target};
use weir_proto::push::proxy_message::Body;
use weir_proto::push::push_client::PushClient;
use weir_proto::push::{BackendHealth, ControllerMessage, Hello, ProxyMessage};
use weir_tests::harness::cluster::{Cluster, Namespace};
use weir_tests::harness::controller::ControllerCommand;
use weir_tests::harness::{client, ports, wait};

/// Its stream lasts as long as it.
struct Voice {
    says: mpsc::Sender<ProxyMessage>,
    _hears: tonic::Streaming<ControllerMessage>,
    _runtime: Runtime,
}

impl Voice {
    fn at(push: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let target = Target::new(&format!("http://{}", client::local(push)), Credentials::default());
        let mut dialer = Dialer::from(target.expect("a URL"));
        let (says, receiver) = mpsc::channel(8);
        let hello = Hello { proxy_id: "proxy-0".into(), ..Hello::default() };
        says.try_send(ProxyMessage { body: Some(Body::Hello(hello)) }).expect("room");
        let hears = runtime.block_on(async {
            let link = dialer.dial(&mut Random::default()).await.expect("it is there");
            let said = futures_util::stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|message| (message, receiver))
            });
            let connected = PushClient::new(link.channel()).connect(link.request(said)).await;
            let mut hears = connected.expect("a stream").into_inner();
            // Welcome: from here on the controller knows what it expects of us.
            hears.message().await.expect("a stream").expect("a message");
            hears
        });
        Self { says, _hears: hears, _runtime: runtime }
    }

    /// Of a backend on 127.0.0.1.
    fn finds(&self, pool: &str, port: u16, available: bool) {
        let reason = if available { String::new() } else { "answered 500, and must 200 to 299".into() };
        let (pool, set, backend) = (pool.into(), "web".into(), client::local(port).to_string());
        let health = BackendHealth { pool, set, backend, available, reason };
        let message = ProxyMessage { body: Some(Body::BackendHealth(health)) };
        self.says.blocking_send(message).expect("the stream is open");
    }
}

/// Message and related field of the Events with this reason.
fn events(namespace: &Namespace<'_>, reason: &str) -> Vec<(String, String)> {
    let events = namespace.get(&["events"]);
    let items = events["items"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let with_reason = items.iter().filter(|event| event["reason"] == reason);
    with_reason.map(|event| (text(&event["message"]), text(&event["related"]["fieldPath"]))).collect()
}

#[test]
fn backends_that_go_down_and_come_up_are_in_the_status_and_in_an_event_each() {
    let visit = Cluster::shared();
    let namespace = visit.namespace("unhealthy");
    let command = ControllerCommand::of_cluster(&visit.admin_kubeconfig());
    let controller = command.in_namespace(&namespace).watching(&namespace).start();
    let pool = format!("{}/shop", namespace.name);
    namespace.apply(&static_pool("shop", ports::free(), &[1, 2, 3]));
    let shows = |unhealthy: u64, reason: &str| {
        wait::patiently(&format!("{unhealthy} backends should be unhealthy"), || {
            let object = namespace.get(&["lbp", "shop"]);
            let is_so = object["status"]["endpoints"]["unhealthy"] == unhealthy
                && condition(&object, "Degraded")["reason"] == reason;
            is_so.then_some(object)
        })
    };
    shows(0, "AsSpecified");

    let voice = Voice::at(controller.push);
    voice.finds(&pool, 1, false);
    let object = shows(1, "BackendsUnhealthy");
    assert_eq!(object["status"]["summary"]["ready"], "2/3");
    let message = condition(&object, "Degraded")["message"].as_str().unwrap_or_default();
    assert!(
        message.ends_with("web/127.0.0.1:1 at 1 of 1 proxies: answered 500, and must 200 to 299"),
        "{message}"
    );
    voice.finds(&pool, 2, false);
    voice.finds(&pool, 3, false);
    let object = shows(3, "Unhealthy");
    assert_eq!(condition(&object, "EndpointsReady")["reason"], "Unhealthy");
    for port in 1..=3 {
        voice.finds(&pool, port, true);
    }
    shows(0, "AsSpecified");

    for reason in ["BackendDown", "BackendUp"] {
        let mut told = wait::patiently("the Events", || {
            let told = events(&namespace, reason);
            (told.len() == 3).then_some(told)
        });
        told.sort();
        for (port, (message, field)) in (1..).zip(told) {
            let backend = format!("127.0.0.1:{port}");
            assert!(message.starts_with(&format!("{backend} of backend set web takes ")), "{message}");
            assert_eq!(field, format!("spec.backendSets{{web}}.backends{{{backend}}}"));
        }
    }
}
