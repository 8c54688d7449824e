//! Many proxies in one process, as far as a controller can tell: each has its own connection, keeps its own copy of every
//! pool and acknowledges each change, by the proxy's own code. None of them serves requests.
//!
//! `light-proxies CONTROLLER COUNT POOL SET` writes a line for each of these, times in ns since 1970:
//!
//! ```text
//! synced TIME                      all are in step, each on a stream that the last `synced` did not know
//! all ADDRESSES TIME               all have exactly these backends in that set, the last one since TIME
//! received BYTES MESSAGES          so far, all together: the answer to each line on standard input
//! ```

use prost::Message as _;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_stream::wrappers::ReceiverStream;
use weir_dial::{Backoff, Credentials, Dialer, Random, Target};
use weir_proto::limits::MESSAGE_BYTES_MAX;
use weir_proto::push::proxy_message::Body;
use weir_proto::push::push_client::PushClient;
use weir_proto::push::{Hello, ProxyMessage};
use weir_proxy::config::replica::{Event, Replica};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Messages on their way to the controller, of each proxy.
const OUTBOUND_BUFFER: usize = 64;

/// What all of them together have come to.
struct Tally {
    count: usize,
    pool: String,
    set: String,
    /// Proxies by what they have in the watched set.
    holding: BTreeMap<String, usize>,
    synced: usize,
    bytes: u64,
    messages: u64,
}

struct Proxy {
    replica: Replica,
    holds: String,
    tally: Arc<Mutex<Tally>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [controller, count, pool, set] = &arguments[..] else {
        panic!("usage: light-proxies CONTROLLER COUNT POOL SET");
    };
    let tally = Arc::new(Mutex::new(Tally {
        count: count.parse().expect("COUNT is a number"),
        pool: pool.clone(),
        set: set.clone(),
        holding: BTreeMap::new(),
        synced: 0,
        bytes: 0,
        messages: 0,
    }));
    let target = Target::new(controller, Credentials::default()).expect("CONTROLLER is a URL");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for thread in 0..threads {
        let (tally, target) = (Arc::clone(&tally), target.clone());
        std::thread::spawn(move || follow(thread, threads, &tally, &target));
    }
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        let Tally { bytes, messages, .. } = *lock(&tally);
        say(&format!("received {bytes} {messages}"));
    }
}

/// Every proxy of one thread, of so many.
fn follow(thread: usize, threads: usize, tally: &Arc<Mutex<Tally>>, target: &Target) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let count = lock(tally).count;
    LocalSet::new().block_on(&runtime, async {
        for number in (thread..count).step_by(threads) {
            let proxy = Proxy { replica: Replica::default(), holds: String::new(), tally: Arc::clone(tally) };
            tokio::task::spawn_local(proxy.run(format!("light-{number}"), target.clone().into()));
        }
        std::future::pending::<()>().await;
    });
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    async fn run(mut self, name: String, mut dialer: Dialer) {
        let (mut random, mut backoff) = (Random::default(), Backoff::default());
        loop {
            let mut is_synced = false;
            // Whatever ended it: dial again.
            let _ = self.stream(&name, &mut dialer, &mut random, &mut is_synced).await;
            if is_synced {
                lock(&self.tally).synced -= 1;
                backoff.reset();
            }
            dialer.failed();
            tokio::time::sleep(backoff.wait(&mut random)).await;
        }
    }

    async fn stream(
        &mut self,
        name: &str,
        dialer: &mut Dialer,
        random: &mut Random,
        is_synced: &mut bool,
    ) -> Option<()> {
        let link = dialer.dial(random).await.ok()?;
        let mut client = PushClient::new(link.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (outbound, receiver) = mpsc::channel(OUTBOUND_BUFFER);
        // It checks no backends: nothing to share.
        let hello = Hello { capabilities: Vec::new(), ..self.replica.begin_stream(name) };
        outbound.send(ProxyMessage { body: Some(Body::Hello(hello)) }).await.ok()?;
        let mut inbound =
            client.connect(link.request(ReceiverStream::new(receiver))).await.ok()?.into_inner();
        let mut received = None;
        loop {
            // As a proxy does: one chunk given back for all that have arrived.
            let message = tokio::select! {
                biased;
                message = inbound.message() => message.ok()??,
                () = std::future::ready(()), if received.is_some() => {
                    outbound.send(ProxyMessage { body: received.take() }).await.ok()?;
                    continue;
                }
            };
            {
                let mut tally = lock(&self.tally);
                tally.bytes += message.encoded_len() as u64;
                tally.messages += 1;
            }
            for event in self.replica.on_message(message).ok()? {
                if matches!(event, Event::Synced) && !std::mem::replace(is_synced, true) {
                    lock(&self.tally).synced();
                }
                match self.on_event(event) {
                    Some(chunk @ Body::ChunkReceived(_)) => received = Some(chunk),
                    Some(body) => outbound.send(ProxyMessage { body: Some(body) }).await.ok()?,
                    None => {}
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Option<Body> {
        match event {
            Event::Reply(reply) => Some(reply),
            Event::Configured { pool, .. } => {
                let answer = self.replica.accepted(&pool);
                self.look_at(&pool);
                answer
            }
            Event::BackendsChanged { pool, .. } => {
                self.look_at(&pool);
                self.replica.ack(&pool)
            }
            Event::Removed { .. }
            | Event::Welcomed { .. }
            | Event::Synced
            | Event::Keys(_)
            | Event::Health(_)
            | Event::Shares(_) => None,
        }
    }

    fn look_at(&mut self, pool: &str) {
        let mut tally = lock(&self.tally);
        if tally.pool != pool {
            return;
        }
        let backends = self.replica.backends(pool, &tally.set);
        let now = backends.map(|backend| backend.address.as_str()).collect::<Vec<_>>().join(",");
        if now != self.holds {
            tally.moved(&self.holds, &now);
            self.holds.clone_from(&now);
        }
    }
}

impl Tally {
    fn moved(&mut self, from: &str, to: &str) {
        if let Some(holders) = self.holding.get_mut(from) {
            *holders -= 1;
        }
        self.holding.retain(|_, holders| *holders > 0);
        let holders = self.holding.entry(to.to_owned()).or_default();
        *holders += 1;
        if *holders == self.count {
            say(&format!("all {to} {}", nanoseconds()));
        }
    }

    fn synced(&mut self) {
        self.synced += 1;
        if self.synced == self.count {
            say(&format!("synced {}", nanoseconds()));
        }
    }
}

fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody reads what this program writes");
}
