//! A proxy that reads nothing any more: what it costs, whom it delays, and how it comes back.

use crate::fixtures::{Pool, backend};
use crate::scripted::{Line, Scripted};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weir_controller::push::COALESCE_MAX;
use weir_controller::store::{Completeness, Store};
use weir_proto::limits::{STREAM_WINDOW_BYTES, STUCK_STREAM_TIMEOUT};
use weir_proto::push::controller_message::Body as ToProxy;
use weir_proto::push::{Backend, PoolUpdate};
use weir_proxy::config::replica::Replica;

/// Several hundred backends with long names, all of one weight: a change of it is a delta of about 100 KiB.
fn heavy(weight: u32) -> Vec<Backend> {
    let member = |n| Backend { weight, ..backend(&format!("{n:0200}"), 1) };
    (0..450).map(member).collect()
}

fn put(store: &Store, pool: &mut Pool, weight: u32) {
    pool.sets.insert("web".into(), heavy(weight));
    store.replace_all([pool.contents()], Completeness::All);
}

fn proxies(store: &Store) -> Vec<Arc<str>> {
    store.fleet().proxies
}

/// The time is tokio's and stands still while anybody has something to do.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_reads_nothing_costs_its_window_delays_nobody_and_resumes() {
    let store = Store::new(1);
    let mut pool = Pool::new("ns/shop", 80, Vec::new());
    pool.sets.insert("still".into(), heavy(1));
    put(&store, &mut pool, 1);
    let (good_line, bad_line) = (Line::to(&store), Line::to(&store));
    let mut good = Scripted::dial(good_line.channel.clone(), "good", Replica::default()).await;
    let mut bad = Scripted::dial(bad_line.channel.clone(), "bad", Replica::default()).await;
    good.follow(&store).await;
    bad.follow(&store).await;

    let begun = Instant::now();
    let (mut sent_bytes, changes) = (0, 100);
    for weight in 2..2 + changes {
        put(&store, &mut pool, weight);
        let changed_at = Instant::now();
        good.follow(&store).await;
        assert!(changed_at.elapsed() <= COALESCE_MAX, "{weight}: {:?}", changed_at.elapsed());
        sent_bytes += heavy(weight).iter().map(Backend::encoded_len).sum::<usize>();
    }
    let window = usize::try_from(STREAM_WINDOW_BYTES).expect("small");
    assert!(sent_bytes > 5 * window, "{sent_bytes} bytes would show nothing");

    let mut polls = tokio::time::interval(Duration::from_millis(100));
    while proxies(&store).len() > 1 {
        assert!(begun.elapsed() < STUCK_STREAM_TIMEOUT + Duration::from_secs(1), "it is not closed in time");
        polls.tick().await;
    }
    assert!(begun.elapsed() >= STUCK_STREAM_TIMEOUT, "{:?} is too early", begun.elapsed());
    assert_eq!(proxies(&store), [Arc::from("good")]);

    // What waited for it, on its way and at the controller, is the window and the few messages around it.
    let (mut bytes, mut largest) = (0, 0);
    while let Some(message) = bad.hear().await {
        bytes += message.encoded_len();
        largest = largest.max(message.encoded_len());
        bad.take(message);
    }
    assert!(bytes > window / 2, "only {bytes} bytes waited, which is no test of the limit");
    assert!(bytes <= window + 4 * largest, "{bytes} bytes waited, of messages of {largest} at most");

    let mut bad = Scripted::dial(bad_line.channel.clone(), "bad", bad.replica).await;
    let mut payload = Vec::new();
    while !bad.is_synced {
        let message = bad.hear().await.expect("the stream is open");
        if let Some(ToProxy::ConfigChunk(chunk)) = &message.body {
            payload.extend_from_slice(&chunk.payload);
        }
        for reply in bad.take(message) {
            bad.say(reply).await;
        }
    }
    let update = PoolUpdate::decode(&*payload).expect("one whole update");
    let names = update.sets.iter().map(|set| &*set.set).collect::<Vec<_>>();
    assert_eq!((names, update.kept.len()), (vec!["web"], 1), "only what changed");
    assert_eq!(bad.replica.state("ns/shop"), good.replica.state("ns/shop"));
}
