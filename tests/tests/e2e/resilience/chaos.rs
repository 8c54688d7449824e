//! Ten backends under load, three of which go bad in every way.

use super::load::{End, Load, Method, Shown, mixed};
use super::{Site, pool};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ledger::Ledger;
use weir_tests::harness::scripted::{Exchange, Scripted};
use weir_tests::harness::{client, ports, wait};

const GOOD: usize = 7;
/// Of a POST, in bytes: more than one segment.
const BODY_BYTES: usize = 4 << 10;
/// Requests between two changes.
const STRETCH: usize = 200;
const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

/// Where a backend resets its connections.
const RESETS: [fn(&mut Exchange, &Ledger) -> bool; 4] = [
    // Before it reads.
    |exchange, _| {
        exchange.reset_at_close();
        false
    },
    // Once the head is read, the body is not: a request that it does not carry out.
    |exchange, _| {
        exchange.read_head();
        exchange.reset_at_close();
        false
    },
    // In the middle of its answer.
    |exchange, ledger| {
        if let Some(asked) = exchange.read_request() {
            ledger.enter(&asked);
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all");
            exchange.reset_at_close();
        }
        false
    },
    // After its answer.
    |exchange, ledger| {
        if let Some(asked) = exchange.read_request() {
            ledger.enter(&asked);
            exchange.write(WHOLE);
            // Whatever is on its way when the connection is reset is lost: the answer has arrived once another request is
            // there.
            exchange.read_head();
            exchange.reset_at_close();
        }
        false
    },
];

/// What a backend says in place of an answer.
const GARBAGE: [&str; 4] = [
    "220 mail.example ESMTP\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Le",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\nnot a size\r\n",
];

/// A backend that behaves well until it is told otherwise.
struct Turncoat {
    port: u16,
    /// 0: well; past that the number of a way to be bad.
    way: Arc<AtomicUsize>,
    /// Connections that went each way.
    gone: Arc<[AtomicUsize; 5]>,
}

impl Turncoat {
    fn start(ledger: &Ledger, bad: fn(usize, &mut Exchange, &Ledger) -> bool) -> Self {
        let (way, gone) = (Arc::<AtomicUsize>::default(), Arc::<[AtomicUsize; 5]>::default());
        let (ledger, asked, counted) = (ledger.clone(), Arc::clone(&way), Arc::clone(&gone));
        let backend = Scripted::start(move |_, exchange| {
            loop {
                let way = asked.load(Ordering::Relaxed);
                if way > 0 {
                    counted[way].fetch_add(1, Ordering::Relaxed);
                }
                let goes_on = match way {
                    0 => exchange.read_request().is_some_and(|asked| {
                        ledger.enter(&asked);
                        exchange.write(WHOLE);
                        true
                    }),
                    _ => bad(way - 1, exchange, &ledger),
                };
                if !goes_on {
                    return;
                }
            }
        });
        Self { port: backend.port, way, gone }
    }

    /// Goes each way in turn, each for a stretch of the load.
    fn turn(&self, load: &Load) {
        for way in 1..=4 {
            self.way.store(way, Ordering::Relaxed);
            load.flow(STRETCH);
            wait::until("a connection should go this way", || {
                (self.gone[way].load(Ordering::Relaxed) > 0).then_some(())
            });
        }
    }
}

fn garbage(way: usize, exchange: &mut Exchange, ledger: &Ledger) -> bool {
    if let Some(asked) = exchange.read_request() {
        ledger.enter(&asked);
        exchange.write(GARBAGE[way]);
    }
    false
}

#[test]
fn no_idempotent_request_fails_and_no_post_is_carried_out_twice_while_three_of_ten_backends_go_bad() {
    let folder = Folder::new();
    let ledger = Ledger::open(&folder.file("ledger"));
    let serve = || {
        let ledger = ledger.clone();
        Scripted::start(move |_, exchange| ledger.serve(exchange)).port
    };
    let mut backends: Vec<u16> = (0..GOOD).map(|_| serve()).collect();
    let port = ports::free();
    let victim = ledger.start_backend(client::local(port));
    let resetting = Turncoat::start(&ledger, |way, exchange, ledger| RESETS[way](exchange, ledger));
    let talking = Turncoat::start(&ledger, garbage);
    backends.extend([port, resetting.port, talking.port]);
    let site = Site::start(&pool(&backends, &[]));
    let load = Load::start(site.port, &mixed(2, BODY_BYTES));
    load.flow(STRETCH);
    resetting.turn(&load);
    talking.turn(&load);
    victim.kill();
    load.flow(STRETCH);
    judge(&load.stop(), &ledger.executed());
}

fn judge(shown: &[Shown], executed: &BTreeMap<String, usize>) {
    let (mut failed, mut cut) = (0, 0);
    for Shown { id, method, end } in shown {
        let times = executed.get(id).copied().unwrap_or_default();
        match (method, end) {
            (_, End::Good) => assert!(times > 0, "{id} {method:?} was answered by nobody"),
            (_, End::Cut) => cut += 1,
            (Method::Post, End::Refused { status: 502, reason: Some(reason) }) => {
                assert!(["backend_closed", "backend_invalid"].contains(&reason.as_str()), "{id} {reason}");
                failed += 1;
            }
            _ => panic!("{id} {method:?} ended so: {end:?}"),
        }
        assert!(*method == Method::Get || times <= 1, "{id} {method:?} was carried out {times} times");
    }
    let again = executed.values().filter(|times| **times > 1).count();
    assert!(
        failed > 0 && cut > 0 && again > 0,
        "the load met {failed} failures, {cut} cuts, {again} retries"
    );
}
