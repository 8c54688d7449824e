//! A proxy that starts from what it kept on disk, and the controller that comes back.

use crate::fixtures::{Pool, backend};
use crate::pair::{Controller, Proxy, any_port, dial, free_port, ids, until};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use weir_controller::store::{Completeness, Store};
use weir_proto::limits::BACKENDS_PER_SET_MAX;
use weir_proxy::config::disk::{FILE, StateOptions};
use weir_proxy::readiness::Phase;

fn options(folder: &tempfile::TempDir, grace: Duration) -> StateOptions {
    StateOptions { folder: folder.path().join("state"), key_file: None, grace }
}

fn start(controller: SocketAddr, state: &StateOptions) -> Proxy {
    Proxy::start_with(Ipv4Addr::LOCALHOST, dial(controller), Some(state))
}

/// Nobody listens there.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// Until the file has this text in it and not that one.
async fn kept(state: &StateOptions, there: &str, gone: &str) {
    until("the configuration is kept", || {
        let file = std::fs::read(state.folder.join(FILE)).unwrap_or_default();
        let text = String::from_utf8_lossy(&file);
        text.contains(there) && !text.contains(gone)
    })
    .await;
}

/// Passes bytes on to a controller and counts those that come from it.
async fn counted(controller: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind(any_port()).await.expect("a free port");
    let (address, bytes) = (listener.local_addr().expect("bound"), Arc::<AtomicU64>::default());
    let count = Arc::clone(&bytes);
    tokio::spawn(async move {
        while let Ok((proxy, _)) = listener.accept().await {
            let controller = TcpStream::connect(controller).await.expect("it listens");
            let (mut said, mut tells) = proxy.into_split();
            let (mut answers, mut asks) = controller.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut said, &mut asks).await });
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut some = vec![0; 64 << 10];
                while let Ok(n @ 1..) = answers.read(&mut some).await {
                    count.fetch_add(n as u64, Ordering::Relaxed);
                    if tells.write_all(&some[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, bytes)
}

#[tokio::test]
async fn a_proxy_without_a_controller_restores_20_000_backends_and_then_gets_only_what_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = options(&folder, Duration::ZERO);
    let (large_port, small_port) = (free_port(), free_port());
    let many = (0..BACKENDS_PER_SET_MAX).map(|n| backend(&format!("b{n:05}"), 1)).collect();
    let large = Pool::new("ns/large", large_port, many);
    let mut small = Pool::new("ns/small", small_port, vec![backend("old-one", 1)]);
    let first = Store::new(1);
    first.replace_all([large.contents(), small.contents()], Completeness::All);
    let controller = Controller::start(any_port(), &first).await;
    let (relay, whole) = counted(controller.address).await;
    let proxy = start(relay, &state);
    proxy.ready().await;
    assert_eq!(proxy.status.restored_from(), None);
    kept(&state, "old-one", "nothing").await;
    kept(&state, "b19999", "nothing").await;
    proxy.stop().await;
    controller.stop().await;
    let whole = whole.load(Ordering::Relaxed);

    let second = Store::new(2);
    small.sets.insert("web".into(), vec![backend("new-one", 1)]);
    second.replace_all([large.contents(), small.contents()], Completeness::All);
    let begun = Instant::now();
    let address = nobody();
    let (relay, resumed) = counted(address).await;
    let proxy = start(address, &state);
    proxy.ready().await;
    let took = begun.elapsed();
    assert!(proxy.status.restored_from().is_some() && !proxy.status.is_in_step());
    let count = proxy.backends(large_port, "/").map(|ids| ids.len());
    assert_eq!((count, proxy.backends(small_port, "/")), (Some(20_000), ids(&["old-one"])));
    assert_eq!(proxy.status.state_writes(), 0, "nothing changed");
    println!("20,000 backends were restored and served after {took:?}");
    proxy.stop().await;

    let _controller = Controller::start(address, &second).await;
    let proxy = start(relay, &state);
    until("in step", || proxy.status.is_in_step()).await;
    until("the new backend", || proxy.backends(small_port, "/") == ids(&["new-one"])).await;
    let resumed = resumed.load(Ordering::Relaxed);
    println!("whole: {whole} bytes from the controller; resumed: {resumed}");
    assert!(resumed < whole / 100, "{resumed} bytes of {whole} came again");
    assert_eq!((proxy.status.snapshot_requests(), proxy.status.restored_from()), (0, None));
    kept(&state, "new-one", "old-one").await;
}

#[tokio::test]
async fn a_restored_proxy_serves_at_once_and_is_ready_when_a_controller_came_or_none_did_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let hours = options(&folder, Duration::from_secs(3600));
    let port = free_port();
    let pool = Pool::new("ns/shop", port, vec![backend("a", 1)]);
    let store = Store::new(1);
    store.replace_all([pool.contents()], Completeness::All);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = start(controller.address, &hours);
    proxy.ready().await;
    kept(&hours, "ns/shop", "nothing").await;
    proxy.stop().await;
    let address = controller.stop().await;

    let proxy = start(address, &hours);
    until("it serves", || proxy.backends(port, "/") == ids(&["a"])).await;
    assert_eq!(proxy.readiness.phase(), Phase::Starting, "a controller may come yet");
    let before = proxy.current.load_full();
    let _controller = Controller::start(address, &store).await;
    proxy.ready().await;
    assert!(proxy.status.is_in_step());
    let after = proxy.current.load_full();
    assert!(Arc::ptr_eq(&before.listeners[&port], &after.listeners[&port]), "what is equal is not touched");
    proxy.stop().await;

    let proxy = start(nobody(), &options(&folder, Duration::from_millis(1)));
    proxy.ready().await;
    assert_eq!(proxy.backends(port, "/"), ids(&["a"]));
}

#[tokio::test]
async fn a_pool_that_went_while_the_proxy_was_away_goes_with_the_first_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = options(&folder, Duration::ZERO);
    let (stays, goes) = (free_port(), free_port());
    let pools = [("ns/stays", stays), ("ns/goes", goes)]
        .map(|(name, port)| Pool::new(name, port, vec![backend("a", 1)]).contents());
    let store = Store::new(1);
    store.replace_all(pools.clone(), Completeness::All);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = start(controller.address, &state);
    proxy.ready().await;
    kept(&state, "ns/goes", "nothing").await;
    proxy.stop().await;
    let address = controller.stop().await;

    let proxy = start(address, &state);
    proxy.ready().await;
    assert_eq!(proxy.backends(goes, "/"), ids(&["a"]));
    let store = Store::new(2);
    let [stayed, _] = pools;
    store.replace_all([stayed], Completeness::All);
    let _controller = Controller::start(address, &store).await;
    until("it is gone", || proxy.backends(goes, "/").is_none()).await;
    assert_eq!(proxy.backends(stays, "/"), ids(&["a"]));
    kept(&state, "ns/stays", "ns/goes").await;
}

#[tokio::test]
async fn a_refused_configuration_is_not_what_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = options(&folder, Duration::ZERO);
    let port = free_port();
    let mut pool = Pool::new("ns/shop", port, vec![backend("good", 1)]);
    let store = Store::new(1);
    store.replace_all([pool.contents()], Completeness::All);
    let controller = Controller::start(any_port(), &store).await;
    let proxy = start(controller.address, &state);
    proxy.ready().await;
    kept(&state, "good", "nothing").await;
    pool.path = "no slash".into();
    pool.sets.insert("web".into(), vec![backend("fresh", 1)]);
    store.replace_all([pool.contents()], Completeness::All);
    until("the refusal", || proxy.status.nacks() > 0).await;
    // Its backends moved on, as they do at the proxy.
    kept(&state, "fresh", "no slash").await;
    proxy.stop().await;
    controller.stop().await;
    let proxy = start(nobody(), &state);
    proxy.ready().await;
    assert_eq!(proxy.backends(port, "/"), ids(&["fresh"]));
}
