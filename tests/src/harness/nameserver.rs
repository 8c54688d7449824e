//! A DNS server that says what a test wants, over UDP and TCP (RFC 1035). Written by hand, byte by byte, so that nothing
//! of what it answers comes from the library that is asked.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// Attempts to find a port that is free for both protocols.
const PORTS_TRIED: usize = 100;
/// How long "there is nothing" holds, in seconds.
const NEGATIVE_TTL_S: u32 = 1;

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;

/// What the server says of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// These addresses, to who asks for their family.
    Addresses(Vec<IpAddr>, u32),
    /// The same, over TCP alone: over UDP the answer is cut.
    LongAddresses(Vec<IpAddr>, u32),
    /// An alias, and in the same answer the addresses of its target; each with a TTL.
    Alias(String, u32, Vec<IpAddr>, u32),
    /// SERVFAIL.
    Failure,
    /// Not a word.
    Silence,
}

/// A running server, until the process ends.
#[derive(Debug)]
pub struct NameServer {
    /// On 127.0.0.1, the same port for UDP and TCP.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, Says>,
    asked: BTreeMap<String, usize>,
    over_tcp: usize,
}

impl NameServer {
    /// Starts it. It knows no name.
    ///
    /// # Panics
    /// When the system has no port.
    #[must_use]
    pub fn start() -> Self {
        let (tcp, udp) = (0..PORTS_TRIED).find_map(|_| bind()).expect("a port that is free for UDP and TCP");
        let address = udp.local_addr().expect("bound");
        let state = Arc::<Mutex<State>>::default();
        let of_udp = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut bytes) {
                if let Some(answer) = answer(&of_udp, &bytes[..length], Transport::Udp) {
                    // Whoever went away needs no answer.
                    let _ = udp.send_to(&answer, client);
                }
            }
        });
        let of_tcp = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                let state = Arc::clone(&of_tcp);
                std::thread::spawn(move || converse(&state, stream));
            }
        });
        Self { address, state }
    }

    /// For `--dns-server`.
    #[must_use]
    pub fn flags(&self) -> [String; 2] {
        ["--dns-server".to_owned(), self.address.to_string()]
    }

    /// From now on the server says this of a name, which is written without a dot at its end.
    pub fn say(&self, name: &str, says: Says) {
        self.state().names.insert(name.to_owned(), says);
    }

    /// The same for addresses.
    ///
    /// # Panics
    /// Where one is none.
    pub fn resolve(&self, name: &str, addresses: &[&str], ttl_s: u32) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        self.say(name, Says::Addresses(addresses, ttl_s));
    }

    /// From now on there is no such name.
    pub fn forget(&self, name: &str) {
        self.state().names.remove(name);
    }

    /// How often a name was asked for.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.state().asked.get(name).copied().unwrap_or_default()
    }

    /// How many questions came over TCP.
    #[must_use]
    pub fn asked_over_tcp(&self) -> usize {
        self.state().over_tcp
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

fn bind() -> Option<(TcpListener, UdpSocket)> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
    Some((tcp, udp))
}

fn converse(state: &Mutex<State>, mut stream: TcpStream) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        let Some(answer) = answer(state, &question, Transport::Tcp) else { return };
        let length = u16::try_from(answer.len()).expect("the answers of tests are short");
        if stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).is_err() {
            return;
        }
    }
}

fn answer(state: &Mutex<State>, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let (name, end) = name_at(bytes, 12)?;
    let kind = u16::from_be_bytes([*bytes.get(end)?, *bytes.get(end + 1)?]);
    let question = &bytes[12..end + 4];
    let says = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.asked.entry(name.clone()).or_default() += 1;
        state.over_tcp += usize::from(transport == Transport::Tcp);
        state.names.get(&name).cloned()
    };
    let of_kind = |addresses: Vec<IpAddr>, owner: &[u8], ttl: u32| -> Vec<Vec<u8>> {
        let matching = addresses.into_iter().filter(|address| address.is_ipv4() == (kind == A));
        matching
            .filter(|_| [A, AAAA].contains(&kind))
            .map(|address| of_address(owner, address, ttl))
            .collect()
    };
    // The name of the question, by reference.
    let asked: &[u8] = &[0xc0, 12];
    let (code, is_cut, answers) = match says {
        None => (3, false, Vec::new()),
        Some(Says::Failure) => (2, false, Vec::new()),
        Some(Says::Silence) => return None,
        Some(Says::Addresses(addresses, ttl)) => (0, false, of_kind(addresses, asked, ttl)),
        Some(Says::LongAddresses(..)) if transport == Transport::Udp => (0, true, Vec::new()),
        Some(Says::LongAddresses(addresses, ttl)) => (0, false, of_kind(addresses, asked, ttl)),
        Some(Says::Alias(target, alias_ttl, addresses, ttl)) => {
            let target = labels(&target);
            let mut answers = vec![record(asked, CNAME, alias_ttl, &target)];
            answers.extend(of_kind(addresses, &target, ttl));
            (0, false, answers)
        }
    };
    let authority = if answers.is_empty() && !is_cut && code != 2 { vec![soa()] } else { Vec::new() };
    let flags = [0x81 | if is_cut { 2 } else { 0 }, 0x80 | code];
    let count = |records: &[Vec<u8>]| u16::try_from(records.len()).expect("few").to_be_bytes();
    let counts = [[0, 1], count(&answers), count(&authority), [0, 0]].concat();
    Some([&bytes[..2], &flags, &counts, question, &answers.concat(), &authority.concat()].concat())
}

/// A name in full, and where it ends.
fn name_at(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn record(owner: &[u8], kind: u16, ttl: u32, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    [owner, &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length, content].concat()
}

fn of_address(owner: &[u8], address: IpAddr, ttl: u32) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => record(owner, A, ttl, &v4.octets()),
        IpAddr::V6(v6) => record(owner, AAAA, ttl, &v6.octets()),
    }
}

/// Of the root: who it is of says nothing here, only how long it holds.
fn soa() -> Vec<u8> {
    let numbers = [1, 1, 1, 1, NEGATIVE_TTL_S].map(u32::to_be_bytes).concat();
    record(&[0], SOA, NEGATIVE_TTL_S, &[&[0, 0][..], &numbers].concat())
}
