//! A proxy that has something else than it was sent, without anybody's noticing.

use crate::fixtures::{Pool, backend};
use crate::pair::{Controller, any_port, dial, until};
use crate::scripted::Scripted;
use weir_controller::store::{Completeness, Store};
use weir_dial::{Dialer, Random};
use weir_proto::push::PoolUpdate;
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proxy::config::replica::Replica;

#[tokio::test]
async fn a_divergence_is_found_by_its_digest_counted_and_healed_by_the_whole_pool() {
    let store = Store::new(1);
    let mut pool = Pool::new("ns/shop", 80, vec![backend("a", 1), backend("b", 1)]);
    pool.sets.insert("still".into(), vec![backend("s", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    let controller = Controller::start(any_port(), &store).await;
    let link =
        Dialer::from(dial(controller.address)).dial(&mut Random::default()).await.expect("it is there");
    let mut proxy = Scripted::dial(link.channel(), "proxy", Replica::default()).await;
    proxy.follow(&store).await;
    // What it has been sent is acknowledged: a report that crosses an acknowledgement is not looked at.
    let acked = || store.fleet_counts().acks;
    until("the acknowledgement", || acked() == 1).await;

    let report = proxy.replica.digest_report("ns/shop").expect("settled");
    let mut lost = report.clone();
    lost.sets.iter_mut().find(|set| set.set == "web").expect("there").digest ^= 1;
    proxy.say(FromProxy::DigestReport(lost)).await;
    let message = proxy.hear().await.expect("the stream is open");
    let Some(ToProxy::ConfigChunk(chunk)) = &message.body else { panic!("{message:?} is no snapshot") };
    let update: PoolUpdate = prost::Message::decode(chunk.payload.clone()).expect("one whole chunk");
    let sets: Vec<_> = update.sets.iter().map(|set| (&*set.set, set.backends.len())).collect();
    assert_eq!((sets, update.kept.len()), (vec![("still", 1), ("web", 2)], 0), "the whole pool");
    for reply in proxy.take(message) {
        proxy.say(reply).await;
    }
    until("it is acknowledged", || acked() == 2).await;
    let counts = store.fleet_counts();
    assert_eq!((counts.divergences, counts.snapshot_requests), (1, 0));

    let report = proxy.replica.digest_report("ns/shop").expect("settled");
    proxy.say(FromProxy::DigestReport(report)).await;
    pool.sets.insert("web".into(), vec![backend("a", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    let next = proxy.hear().await.expect("the stream is open").body;
    assert!(matches!(next, Some(ToProxy::BackendDelta(_))), "a change and no snapshot: {next:?}");
    assert_eq!(store.fleet_counts().divergences, 1, "it has what it was sent");
}
