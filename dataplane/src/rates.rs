//! Whether a request may go on: from where it comes, and how many came before it.
//!
//! What the limits say goes to the client in `RateLimit` and `RateLimit-Policy`, as draft-ietf-httpapi-ratelimit-headers-10
//! writes them, and in `Retry-After` where one refuses.

use crate::connection::Peer;
use crate::cookie;
use crate::failure::Failure;
use crate::message::RequestHead;
use crate::snapshot::Front;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use lb_core::rate::{Admission, LimitPolicy, RateKey, Told, Verdict, admit};
use lb_core::route::Route;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Of requests without the header or cookie that a limit counts by: they are one client.
const NOBODY: &[u8] = b"";

/// What limits and the host have to say in the head of a response, whoever answers.
#[derive(Default)]
pub(crate) struct Telling {
    /// Boxed: few requests have any.
    fields: Option<Box<HeaderMap>>,
    /// What the host says of HTTPS.
    pub(crate) front: Option<Arc<Front>>,
}

impl Telling {
    /// Says it, once.
    pub(crate) fn tell(&mut self, headers: &mut HeaderMap) {
        if let Some(fields) = self.fields.take() {
            // A backend may have limits of its own: the fields are lists.
            for (name, value) in &*fields {
                headers.append(name, value.clone());
            }
        }
        if let Some(value) = self.front.take().and_then(|front| front.hsts.clone()) {
            // Of several a client takes the first (RFC 6797, section 8.1).
            headers.insert(STRICT_TRANSPORT_SECURITY, value);
        }
    }
}

/// Lets a request of this route go on, and counts it. `now` is since the process began; who asks is the client, as far as
/// trusted proxies told.
///
/// # Errors
/// [`Failure::IpDenied`] and [`Failure::RateLimited`].
pub(crate) fn check(
    route: &Route,
    head: &RequestHead,
    peer: &Peer,
    now: impl FnOnce() -> Duration,
    telling: &mut Telling,
) -> Result<(), Failure> {
    let_in(route, peer)?;
    if route.limits.is_empty() {
        return Ok(());
    }
    let admission = admit(&route.limits, now(), |key, seed| hash(key, seed, head, peer));
    telling.fields = told(&admission).map(Box::new);
    match admission.refused() {
        None => Ok(()),
        Some((_, wait)) => Err(Failure::RateLimited { retry_after_s: seconds(wait).max(1) }),
    }
}

/// Whether the route takes anything from this client, be it requests, connections or datagrams.
///
/// # Errors
/// [`Failure::IpDenied`].
pub(crate) fn let_in(route: &Route, peer: &Peer) -> Result<(), Failure> {
    match &route.ip_rules {
        Some(rules) if !rules.may_ask(peer.address) => Err(Failure::IpDenied),
        _ => Ok(()),
    }
}

fn hash(key: &RateKey, seed: u64, head: &RequestHead, peer: &Peer) -> u64 {
    let of = |bytes: &[u8]| xxh3_64_with_seed(bytes, seed);
    match key {
        RateKey::Route => 0,
        RateKey::Source { v4_bits, v6_bits } => match peer.address {
            IpAddr::V4(address) => of(&network(address, *v4_bits).octets()),
            IpAddr::V6(address) => of(&network6(address, *v6_bits).octets()),
        },
        RateKey::Header(name) => of(head.headers.get(&**name).map_or(NOBODY, HeaderValue::as_bytes)),
        RateKey::Cookie(name) => of(cookie::first(&head.headers, name).unwrap_or(NOBODY)),
    }
}

fn network(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
}

fn network6(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & mask)
}

/// What the response says of limits; `None`: nothing. Where one refuses, of that one alone.
fn told(admission: &Admission<'_>) -> Option<HeaderMap> {
    let refused = admission.refused().is_some();
    let (mut policies, mut states) = (String::new(), String::new());
    for (limiter, verdict) in admission.said() {
        let is_told = match (refused, verdict.retry_after) {
            (true, refusal) => refusal.is_some(),
            (false, _) => limiter.policy.told == Told::Always,
        };
        if is_told {
            write(&mut policies, &mut states, &limiter.policy, verdict);
        }
    }
    let value = |text: String| HeaderValue::try_from(text).expect("names are tokens, the rest is numbers");
    (!states.is_empty())
        .then(|| HeaderMap::from_iter([(RATE_LIMIT_POLICY, value(policies)), (RATE_LIMIT, value(states))]))
}

fn write(policies: &mut String, states: &mut String, policy: &LimitPolicy, verdict: Verdict) {
    let comma = if states.is_empty() { "" } else { ", " };
    let (name, quota, window) = (&policy.name, policy.requests, seconds(policy.period));
    let _ = write!(policies, "{comma}\"{name}\";q={quota};w={window}");
    let reset = seconds(verdict.retry_after.unwrap_or(verdict.reset));
    let _ = write!(states, "{comma}\"{name}\";r={};t={reset}", verdict.remaining);
}

/// Rounded up: who waits for so long is not refused again for having come too early.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
