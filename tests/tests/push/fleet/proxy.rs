//! A proxy: what it holds, converts and serves is production code; its process and its network are simulated.

use lb_core::backend::BackendState;
use lb_core::balance::{PickRequest, Picker, Rng};
use lb_core::route::{PathAlone, Route};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use weir_proxy::config::Applier;
use weir_proxy::config::client::Follower;
use weir_proxy::config::disk::{State, StateOptions, Writer};
use weir_proxy::listener::Sockets;
use weir_proxy::readiness::{Phase, Readiness};
use weir_proxy::snapshot::Current;

/// A port that is taken at some proxies, some of the time.
pub(super) const CONTESTED_PORT: u16 = 21_666;

/// Holds the addresses of one simulation while it runs.
const GUARD_PORT: u16 = 21_999;

static BLOCKS: AtomicU32 = AtomicU32::new(0);

/// Loopback addresses of which no other simulation of this machine uses one. All of one length, for they are part of
/// messages whose bytes are counted.
pub(super) struct Addresses {
    block: u32,
    _guard: TcpListener,
}

impl Addresses {
    pub(super) fn take() -> Self {
        for _ in 0..10_000 {
            let block = (std::process::id() * 97 + BLOCKS.fetch_add(1, Ordering::Relaxed)) % 10_000;
            let guard = TcpListener::bind((Self::address_in(block, 99), GUARD_PORT));
            if let Ok(guard) = guard {
                return Self { block, _guard: guard };
            }
        }
        panic!("no loopback addresses are free");
    }

    pub(super) fn of(&self, proxy: usize) -> IpAddr {
        Self::address_in(self.block, proxy).into()
    }

    fn address_in(block: u32, host: usize) -> Ipv4Addr {
        let byte = |number: u32| u8::try_from(100 + number % 100).expect("below 200");
        Ipv4Addr::new(127, byte(block / 100), byte(block), byte(u32::try_from(host).expect("few")))
    }
}

pub(super) struct Proxy {
    pub(super) name: String,
    address: IpAddr,
    /// Grows with each process.
    pub(super) life: u64,
    pub(super) frozen_until: u64,
    pub(super) troubled_until: u64,
    pub(super) follower: Follower,
    pub(super) current: Current,
    readiness: Arc<Readiness>,
    pub(super) stream: Option<u64>,
    /// A wake-up that is in the queue.
    pub(super) wake_at: Option<u64>,
    pickers: BTreeMap<u64, Picker>,
    folder: Option<TempDir>,
    writer: Option<Writer>,
    contested: Option<TcpListener>,
    /// This process has served the core set with a backend.
    pub(super) has_core: bool,
}

fn options(folder: &TempDir) -> StateOptions {
    let grace = std::time::Duration::from_secs(5);
    StateOptions { folder: folder.path().join("state"), key_file: None, grace }
}

impl Proxy {
    pub(super) fn new(index: usize, addresses: &Addresses, keeps: bool) -> Self {
        let folder = keeps
            .then(|| tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder"));
        let address = addresses.of(index);
        let (follower, writer, current, readiness) = start(address, folder.as_ref());
        Self {
            name: format!("proxy-{index:02}"),
            address,
            life: 0,
            frozen_until: 0,
            troubled_until: 0,
            follower,
            current,
            readiness,
            stream: None,
            wake_at: None,
            pickers: BTreeMap::new(),
            folder,
            writer,
            contested: None,
            has_core: false,
        }
    }

    /// Everything that is to be kept reaches the disk now, if it has one.
    pub(super) fn keep(&mut self) {
        if let Some(writer) = &mut self.writer {
            self.follower.hand_over();
            writer.write();
        }
    }

    /// Another process in its place, with what is on its disk.
    pub(super) fn restart(&mut self) {
        self.life += 1;
        // The lock on the folder goes with who holds it.
        self.writer = None;
        self.has_core = false;
        self.pickers.clear();
        self.wake_at = None;
        (self.follower, self.writer, self.current, self.readiness) =
            start(self.address, self.folder.as_ref());
    }

    /// Somebody else takes the contested port, or gives it back.
    pub(super) fn contest(&mut self, is_taken: bool) {
        self.contested = match (is_taken, self.contested.take()) {
            (true, None) => TcpListener::bind((self.address, CONTESTED_PORT)).ok(),
            (true, taken) => taken,
            (false, _) => None,
        };
    }

    pub(super) fn is_ready(&self) -> bool {
        self.readiness.phase() == Phase::Ready
    }

    /// The route that a request takes.
    pub(super) fn route(&self, port: u16, host: &str, set: &str) -> Option<Arc<Route>> {
        let snapshot = self.current.load();
        snapshot
            .listeners
            .get(&port)?
            .routes
            .find(host, &format!("/{set}"), &PathAlone::default())
            .map(|found| Arc::clone(found.route))
    }

    /// Members of a route's set, with whether they are ready.
    pub(super) fn members(route: &Route) -> BTreeMap<SocketAddr, bool> {
        let members = route.sets[0].set.members();
        let backends = members.backends().iter();
        backends.map(|backend| (backend.address, backend.state == BackendState::Ready)).collect()
    }

    /// The backend of one request.
    pub(super) fn pick(&mut self, route: &Route, seed: u64) -> Option<SocketAddr> {
        let set = &route.sets[0].set;
        let picker = self.pickers.entry(set.id).or_insert_with(|| Picker::new(set.policy.algorithm, seed));
        let members = set.members();
        picker
            .pick(&members, &PickRequest::default(), &mut Rng::new(seed))
            .backend()
            .map(|backend| backend.address)
    }
}

fn start(address: IpAddr, folder: Option<&TempDir>) -> (Follower, Option<Writer>, Current, Arc<Readiness>) {
    let (current, readiness) = (Current::default(), Arc::<Readiness>::default());
    let applier = Applier::new(Arc::clone(&current), Sockets::new(address, Vec::new()));
    let state =
        folder.map(|folder| State::open(&options(folder), applier.status()).expect("the folder is free"));
    let (state, writer) = state.unzip();
    (Follower::new(applier, state, Arc::clone(&readiness)), writer, current, readiness)
}
