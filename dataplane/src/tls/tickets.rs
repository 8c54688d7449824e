//! Session tickets that every proxy of one kind can open.
//!
//! A client that comes back, to whichever proxy, saves a signature and a round trip if that proxy can open the ticket
//! it was given. The controller shares a ring of three keys for this. From each key a port derives a key of its own
//! (HKDF, RFC 5869) by its number and its TLS policy, so that a session of one port never resumes on another with
//! other rules. Tickets are sealed with the current key (AES-256-GCM, RFC 5116, a random nonce for each) and opened
//! with any of the three. A key seals for one period of rotation and opens for one more, so a ticket is worth nothing
//! after two; and as a controller that is away rotates nothing, the time of issue is sealed in as well.
//!
//! Without a ring, and for what was sealed before there was one, keys of this process alone serve.

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::server::ProducesTickets;
use rustls_pki_types::UnixTime;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use weir_proto::limits::KEY_BYTES;

/// For how long a ticket is worth something, at most.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// How far the clock of the proxy that sealed a ticket may be ahead of ours.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// Largest ticket that is looked at, in bytes. Sessions without client certificates take a few hundred.
pub const TICKET_BYTES_MAX: usize = 16 << 10;

/// Domain of the keys below: another use of the ring takes another salt.
const SALT: &[u8] = b"weir session tickets v1";

/// What every port has in common by now: it changes with the protocol versions, the authentication of clients and
/// whatever else makes one session stricter than another.
const POLICY: &str = "tls1.2-tls1.3 no-client-auth";

const NAME_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const TAG_BYTES: usize = 16;

/// The three keys that proxies share: previous, current, next.
#[derive(Clone, PartialEq, Eq)]
pub struct Ring([[u8; KEY_BYTES]; 3]);

impl Ring {
    /// `None` when one of them is not of [`KEY_BYTES`].
    #[must_use]
    pub fn new(previous: &[u8], current: &[u8], next: &[u8]) -> Option<Self> {
        Some(Self([previous.try_into().ok()?, current.try_into().ok()?, next.try_into().ok()?]))
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring(redacted)")
    }
}

/// Seals and opens the tickets of one port.
#[derive(Debug)]
pub struct PortTickets {
    port: u16,
    local: Arc<dyn ProducesTickets>,
    shared: ArcSwapOption<PortKeys>,
}

impl PortTickets {
    /// `local` serves while there is no ring.
    #[must_use]
    pub fn new(port: u16, local: Arc<dyn ProducesTickets>, ring: Option<&Ring>) -> Arc<Self> {
        let tickets = Self { port, local, shared: ArcSwapOption::empty() };
        if let Some(ring) = ring {
            tickets.use_ring(ring);
        }
        Arc::new(tickets)
    }

    /// From the next handshake on, in every configuration of TLS that holds this. Costs three derivations.
    pub fn use_ring(&self, ring: &Ring) {
        match PortKeys::derive(ring, self.port) {
            Ok(keys) => self.shared.store(Some(Arc::new(keys))),
            // By the library's contract it takes a wrong length, and all of them are constants.
            Err(Unspecified) => {
                tracing::error!(port = self.port, "no ticket keys could be derived; the old ones stay");
            }
        }
    }
}

impl ProducesTickets for PortTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        match &*self.shared.load() {
            Some(keys) => keys.current().seal(plain, UnixTime::now()),
            None => self.local.encrypt(plain),
        }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let shared = self.shared.load();
        let key = shared.as_ref().and_then(|keys| keys.named(ticket.get(..NAME_BYTES)?));
        match key {
            Some(key) => key.open(ticket, UnixTime::now()),
            // Sealed here before the ring came, or by nobody.
            None => self.local.decrypt(ticket),
        }
    }
}

/// Of one port: previous, current, next.
#[derive(Debug)]
struct PortKeys([TicketKey; 3]);

impl PortKeys {
    fn derive(Ring([previous, current, next]): &Ring, port: u16) -> Result<Self, Unspecified> {
        let key = |key| TicketKey::derive(key, port);
        Ok(Self([key(previous)?, key(current)?, key(next)?]))
    }

    fn current(&self) -> &TicketKey {
        &self.0[1]
    }

    /// Names are no secret: they are in every ticket.
    fn named(&self, name: &[u8]) -> Option<&TicketKey> {
        self.0.iter().find(|key| key.name == name)
    }
}

struct TicketKey {
    name: [u8; NAME_BYTES],
    key: RandomizedNonceKey,
}

impl TicketKey {
    fn derive(secret: &[u8; KEY_BYTES], port: u16) -> Result<Self, Unspecified> {
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let port = port.to_be_bytes();
        let mut derived = [0; KEY_BYTES];
        let info = [b"key", &port[..], POLICY.as_bytes()];
        extracted.expand(&info, Bytes(KEY_BYTES))?.fill(&mut derived)?;
        let mut name = [0; NAME_BYTES];
        let info = [b"name", &port[..], POLICY.as_bytes()];
        extracted.expand(&info, Bytes(NAME_BYTES))?.fill(&mut name)?;
        Ok(Self { name, key: RandomizedNonceKey::new(&AES_256_GCM, &derived)? })
    }

    /// `name | nonce | sealed(time of issue in seconds | plain) | tag`.
    fn seal(&self, plain: &[u8], now: UnixTime) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(TIME_BYTES + plain.len() + TAG_BYTES);
        body.extend_from_slice(&now.as_secs().to_be_bytes());
        body.extend_from_slice(plain);
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.name), &mut body).ok()?;
        Some([&self.name[..], nonce.as_ref(), &body].concat())
    }

    fn open(&self, ticket: &[u8], now: UnixTime) -> Option<Vec<u8>> {
        let (nonce, body) = ticket.get(NAME_BYTES..)?.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(self.name), &mut body).ok()?;
        let (issued, plain) = opened.split_first_chunk::<TIME_BYTES>()?;
        is_fresh(u64::from_be_bytes(*issued), now.as_secs()).then(|| plain.to_vec())
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(redacted)")
    }
}

fn is_fresh(issued: u64, now: u64) -> bool {
    let is_future = issued.saturating_sub(now) > CLOCK_SKEW_MAX.as_secs();
    !is_future && now.saturating_sub(issued) <= TICKET_LIFETIME.as_secs()
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::local_tickets;

    fn ring(keys: [u8; 3]) -> Ring {
        Ring(keys.map(|key| [key; KEY_BYTES]))
    }

    fn port(port: u16, ring: Option<&Ring>) -> Arc<PortTickets> {
        PortTickets::new(port, local_tickets().expect("randomness"), ring)
    }

    fn sealed(tickets: &PortTickets) -> Vec<u8> {
        tickets.encrypt(b"session").expect("sealed")
    }

    fn opens(tickets: &PortTickets, ticket: &[u8]) -> bool {
        tickets.decrypt(ticket).is_some_and(|plain| plain == b"session")
    }

    #[test]
    fn a_ticket_opens_on_every_proxy_for_one_rotation_before_and_after() {
        let ticket = sealed(&port(443, Some(&ring([1, 2, 3]))));
        assert!(opens(&port(443, Some(&ring([1, 2, 3]))), &ticket));
        assert!(opens(&port(443, Some(&ring([2, 3, 4]))), &ticket), "one rotation later");
        assert!(
            opens(&port(443, Some(&ring([0, 1, 2]))), &ticket),
            "at a proxy that has not heard of it yet"
        );
        assert!(!opens(&port(443, Some(&ring([3, 4, 5]))), &ticket), "two rotations later");
    }

    #[test]
    fn a_ticket_of_one_port_is_worth_nothing_on_another() {
        let ring = ring([1, 2, 3]);
        assert!(!opens(&port(8443, Some(&ring)), &sealed(&port(443, Some(&ring)))));
    }

    #[test]
    fn without_a_ring_only_this_process_opens_and_it_goes_on_to_when_one_comes() {
        let (here, elsewhere) = (port(443, None), port(443, None));
        let ticket = sealed(&here);
        assert!(opens(&here, &ticket) && !opens(&elsewhere, &ticket));
        here.use_ring(&ring([1, 2, 3]));
        assert!(opens(&here, &ticket), "sealed before the ring came");
        assert!(opens(&port(443, Some(&ring([1, 2, 3]))), &sealed(&here)));
    }

    #[test]
    fn a_ticket_that_was_touched_or_cut_does_not_open() {
        let tickets = port(443, Some(&ring([1, 2, 3])));
        let ticket = sealed(&tickets);
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(tickets.decrypt(&touched), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut to {at}");
        }
        assert_eq!(tickets.decrypt(&vec![0; TICKET_BYTES_MAX + 1]), None);
        let largest = TICKET_BYTES_MAX - NAME_BYTES - NONCE_LEN - TIME_BYTES - TAG_BYTES;
        let seal = |bytes| tickets.encrypt(&vec![7; bytes]).expect("sealed");
        assert!(tickets.decrypt(&seal(largest)).is_some());
        assert!(tickets.decrypt(&seal(largest + 1)).is_none());
    }

    #[test]
    fn a_ticket_ages_although_nobody_rotates() {
        let (issued, lifetime) = (1_000_000, TICKET_LIFETIME.as_secs());
        assert!(is_fresh(issued, issued) && is_fresh(issued, issued + lifetime));
        assert!(!is_fresh(issued, issued + lifetime + 1));
        let skew = CLOCK_SKEW_MAX.as_secs();
        assert!(is_fresh(issued, issued - skew) && !is_fresh(issued, issued - skew - 1));
    }

    #[test]
    fn keys_are_not_shown_and_have_one_length() {
        assert_eq!(format!("{:?}", ring([104, 104, 104])), "Ring(redacted)");
        let (good, short) = ([0; KEY_BYTES], [0; KEY_BYTES - 1]);
        assert!(Ring::new(&good, &good, &good).is_some());
        assert!(Ring::new(&good, &short, &good).is_none());
    }
}
