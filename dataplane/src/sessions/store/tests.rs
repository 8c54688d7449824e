//! Against a real `redis-server`, which each test starts on a port of its own.

use super::*;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);
const A: Choice = Choice { set: 0xdead_beef, backend: 0x0123_4567_89ab_cdef };
const B: Choice = Choice { set: 2, backend: 20 };

/// A server that ends with the test.
pub(in super::super) struct Server(Child);

impl Server {
    pub(in super::super) fn start(port: u16, flags: &[&str]) -> Self {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(flags).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("redis-server is installed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(in super::super) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn key(session: u64) -> StoredKey {
    StoredKey { pool: 7, session }
}

/// A store whose task runs beside the test.
pub(in super::super) fn open(url: &str) -> Store {
    let (store, owner) = Store::open(StoreAddress::read(url).expect("a URL"));
    tokio::spawn(owner);
    store
}

pub(in super::super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

async fn until_up(store: &Store) {
    until("the store is up", async || store.is_up()).await;
}

/// Asked again where a slow machine made the store too slow to be asked.
async fn found(store: &Store, session: u64, want: Option<Choice>) {
    until("the store says so", async || store.is_up() && store.find(key(session)).await == want).await;
}

#[tokio::test]
async fn what_one_proxy_puts_another_finds_until_it_is_removed() {
    let port = free_port();
    let _server = Server::start(port, &[]);
    let url = format!("redis://127.0.0.1:{port}");
    let (one, two) = (open(&url), open(&url));
    until_up(&one).await;
    until_up(&two).await;
    one.put(key(1), A, HOUR);
    found(&two, 1, Some(A)).await;
    found(&two, 2, None).await;
    one.put(key(1), B, HOUR);
    found(&two, 1, Some(B)).await;
    two.remove(key(1));
    found(&one, 1, None).await;
}

#[tokio::test]
async fn a_session_ends_by_itself_unless_it_is_used() {
    let port = free_port();
    let _server = Server::start(port, &[]);
    let store = open(&format!("redis://127.0.0.1:{port}"));
    until_up(&store).await;
    store.put(key(1), A, Duration::from_secs(3));
    store.put(key(2), B, Duration::from_secs(3));
    store.refresh(key(2), HOUR);
    found(&store, 1, Some(A)).await;
    found(&store, 1, None).await;
    found(&store, 2, Some(B)).await;
}

#[tokio::test]
async fn a_store_that_goes_costs_one_wait_and_serves_again_when_it_is_back() {
    let port = free_port();
    let server = Server::start(port, &[]);
    let store = open(&format!("redis://127.0.0.1:{port}"));
    until_up(&store).await;
    drop(server);
    until("it is known to be away", async || {
        store.find(key(1)).await;
        !store.is_up()
    })
    .await;
    let (begun, errors) = (Instant::now(), store.errors());
    for _ in 0..1000 {
        assert_eq!(store.find(key(1)).await, None);
    }
    assert!(begun.elapsed() < LOOKUP_TIMEOUT * 100, "nobody waits for a store that is away");
    store.put(key(1), A, HOUR);
    assert!(store.errors() > errors, "a write that is lost is counted");
    let _server = Server::start(port, &[]);
    until_up(&store).await;
    store.put(key(1), B, HOUR);
    found(&store, 1, Some(B)).await;
}

#[tokio::test]
async fn a_store_that_accepts_and_says_nothing_is_away() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    for url in [format!("redis://127.0.0.1:{port}"), format!("rediss://127.0.0.1:{port}")] {
        let store = open(&url);
        until("it is given up", async || store.errors() > 0).await;
        assert!(!store.is_up());
    }
}

#[tokio::test]
async fn a_password_opens_the_store_and_a_wrong_one_does_not() {
    let port = free_port();
    let _server = Server::start(port, &["--requirepass", "swordfish"]);
    let right = open(&format!("redis://:swordfish@127.0.0.1:{port}/3"));
    until_up(&right).await;
    right.put(key(1), A, HOUR);
    found(&right, 1, Some(A)).await;
    let wrong = open(&format!("redis://:tunafish@127.0.0.1:{port}"));
    until("it is refused", async || wrong.errors() > 1).await;
    assert!(!wrong.is_up());
}

#[tokio::test]
async fn a_store_that_is_full_refuses_writes_and_goes_on_answering() {
    let port = free_port();
    let _server = Server::start(port, &["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let store = open(&format!("redis://127.0.0.1:{port}"));
    until_up(&store).await;
    store.put(key(1), A, HOUR);
    until("the refusal is counted", async || store.errors() > 0).await;
    found(&store, 1, None).await;
    assert!(store.is_up());
}

#[tokio::test]
async fn the_queue_holds_so_many_writes_and_one_more_is_dropped() {
    let address = StoreAddress::read("redis://127.0.0.1:1").expect("a URL");
    // Nobody runs the task, so nothing leaves the queue.
    let (store, _owner) = Store::open(address);
    store.state.is_up.store(true, Ordering::Relaxed);
    (0..WAITING_MAX as u64).for_each(|session| store.put(key(session), A, HOUR));
    assert_eq!(store.errors(), 0);
    store.put(key(0), A, HOUR);
    assert_eq!(store.errors(), 1);
    assert_eq!((store.find(key(0)).await, store.errors()), (None, 2), "nor is it asked");
}

#[tokio::test]
async fn a_request_waits_for_an_answer_once_and_no_longer_than_it_may() {
    let (store, _owner) = Store::open(StoreAddress::read("redis://127.0.0.1:1").expect("a URL"));
    store.state.is_up.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    assert_eq!(store.find(key(1)).await, None);
    let waited = begun.elapsed();
    assert!(waited >= LOOKUP_TIMEOUT && waited < DEADLINE, "{waited:?}");
    assert!(!store.is_up(), "the next one does not wait");
    assert_eq!(store.errors(), 1);
}

#[test]
fn a_url_is_never_shown_and_one_of_another_kind_is_refused() {
    let address = StoreAddress::read("rediss://weir:swordfish@redis.example:6380/2").expect("a URL");
    assert_eq!(format!("{address:?}"), "StoreAddress(redis.example:6380)");
    for url in [
        "",
        "redis",
        "http://:swordfish@host",
        "redis://:swordfish@",
        "redis://:swordfish@host:port",
        "unix:///run/redis",
    ] {
        let refused = StoreAddress::read(url).expect_err(url);
        assert!(!format!("{refused} {refused:?}").contains("swordfish"), "{refused}");
    }
}

#[test]
fn keys_and_values_in_the_store_never_change() {
    let key = StoredKey { pool: 0xab, session: 0xcd };
    assert_eq!(key.to_string(), "weir:s:000000ab:00000000000000cd");
    assert_eq!(to_bytes(A), [0xde, 0xad, 0xbe, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert_eq!(of_bytes(&to_bytes(A)), Some(A));
    assert_eq!((of_bytes(b"elevenbytes"), of_bytes(b"thirteen byte")), (None, None));
}
