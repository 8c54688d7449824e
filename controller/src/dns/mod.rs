//! Names that backends have in DNS, and what they resolve to.
//!
//! ```text
//! compiled sets -> names wanted -> names (pure: when, and what is served) -> lookups -> resolutions -> compile
//! ```
//!
//! **What is served** when an answer is not a list of addresses:
//!
//! * The server fails (SERVFAIL, REFUSED, no answer): the last good addresses serve on, for ever, with a warning that
//!   says since when. Envoy does the same. HAProxy lets go of them after `hold`, which turns an outage of DNS into one
//!   of everything that DNS was ever asked for.
//! * The server says that there is nothing (NXDOMAIN, or no address): that is an answer and is respected, as Envoy does
//!   and as HAProxy does after `hold nx`; but only when it was given [`EMPTY_CONFIRMATIONS`] times in a row. A zone that
//!   is being reloaded, and one of several servers that does not have it yet, say so for a moment too.
//! * Nothing was ever learned of a name since this process began: what was there before stays, with the proxies that
//!   have it and in the set that had another source, for [`SETTLE_MAX`]. So neither a restart nor an edit empties a set
//!   for the time that a lookup takes.
//!
//! **Which addresses.** Sorted, so that a server that rotates its answers changes nothing; at most
//! [`ADDRESSES_MAX`]; of the first family that has one. Who answers for a name is often not who wrote the pool.
//! So an answer never makes the proxies speak to what only their own machine reaches: see [`Reach`].
//!
//! **Not here.** Which names a pool may use. Whoever may write a pool may write any address into it as well, so that a
//! rule about names (those of the cluster's API, those of Services elsewhere, which need a ReferenceGrant when referred
//! to as objects) would be passed by writing the address. What proxies may reach is for a NetworkPolicy to say.

mod address;
mod names;
mod resolver;
mod task;

pub use address::Reach;
pub use names::{Answer, EMPTY_CONFIRMATIONS, FIRST_ANSWER_MAX, LOOKUPS_MAX, Names, Output, SETTLE_MAX};
pub use resolver::{LOOKUP_TIMEOUT, Servers};
pub use task::{Answered, Client, Ending, Lookups, Meters, NEWS_MAX, client};

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Names that are looked up, the first ones by their text. Of the others a warning says so.
pub const DNS_NAMES_MAX: usize = 1000;
/// Addresses of a name that are used, the smallest ones.
pub const ADDRESSES_MAX: usize = 256;
/// Bounds of a refresh, where nothing else is written.
pub const REFRESH_DEFAULT: Refresh = Refresh { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// One name and how it is looked up. Sets that want the same share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lookup {
    /// In lower case; with a dot at its end it is absolute, else search domains apply.
    pub hostname: Arc<str>,
    /// Which addresses.
    pub families: Families,
    /// How often.
    pub refresh: Refresh,
}

/// Families of addresses in the order of preference: the first that a name has an address of is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Families {
    /// A, or else AAAA.
    #[default]
    Ipv4ThenIpv6,
    /// AAAA, or else A.
    Ipv6ThenIpv4,
    /// A alone.
    Ipv4,
    /// AAAA alone.
    Ipv6,
}

/// Within what time a name is looked up again, whatever the TTL of its answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refresh {
    /// At the earliest.
    pub min: Duration,
    /// At the latest, but for up to a tenth that spreads names over time.
    pub max: Duration,
}

/// Names that are wanted.
pub type Wanted = Arc<BTreeSet<Lookup>>;

/// What is known of a name. Two that are equal compile to the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// In order, each once, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
    /// How many more there are than may be used.
    pub excess: usize,
    /// Addresses of the answer that are never used, in order.
    pub forbidden: Vec<IpAddr>,
    /// Nothing was learned yet, and something may still be: what was there before stays.
    pub is_open: bool,
    /// Why `addresses` are not those of a good answer to the last question.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What the last answer was.
    pub what: What,
    /// Since when, to the second.
    pub since: SystemTime,
}

/// What an answer was that has no addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// NXDOMAIN.
    NoSuchName,
    /// The name is there and has no address of the families.
    NoAddress,
    /// The server, or the way to it; as a sentence goes on after "the DNS server".
    Failed(String),
    /// Not asked, since there are more than [`DNS_NAMES_MAX`].
    TooMany,
    /// No answer yet.
    Unanswered,
}

impl Families {
    /// Which are asked for, in their order.
    #[must_use]
    pub const fn in_order(self) -> &'static [Family] {
        match self {
            Self::Ipv4ThenIpv6 => &[Family::V4, Family::V6],
            Self::Ipv6ThenIpv4 => &[Family::V6, Family::V4],
            Self::Ipv4 => &[Family::V4],
            Self::Ipv6 => &[Family::V6],
        }
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4ThenIpv6 => "IPv4 or IPv6",
            Self::Ipv6ThenIpv4 => "IPv6 or IPv4",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// Why a text cannot be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// It is an address.
    #[error("is an IP address and no name: write it under static")]
    Address,
    /// It is not a name.
    #[error(
        "is not a name in DNS: use lower-case labels of a-z, 0-9, - and _, of at most 63 characters each and 253 together, \
         joined by dots, with or without a dot at the end"
    )]
    Name,
}

/// Checks a name that is to be looked up.
///
/// # Errors
/// Where it is an address, or no name at all.
pub fn check_hostname(hostname: &str) -> Result<(), HostnameError> {
    if hostname.parse::<IpAddr>().is_ok() || is_numeric(hostname) {
        return Err(HostnameError::Address);
    }
    let name = hostname.strip_suffix('.').unwrap_or(hostname);
    let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
        bytes.len() <= 63 && is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().all(allowed)
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    if is_name { Ok(()) } else { Err(HostnameError::Name) }
}

/// What libraries read as an IPv4 address in one of its older spellings: no name ends in a label of digits alone.
fn is_numeric(hostname: &str) -> bool {
    let name = hostname.strip_suffix('.').unwrap_or(hostname);
    let last = name.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_addresses_are_told_from_them() {
        let (label, long) = ("a".repeat(63), format!("{}a", "abcd.".repeat(50)));
        for good in [
            "a",
            "db.example.com",
            "db.example.com.",
            "my_db",
            "_x.a",
            "1.a",
            "xn--bcher-kva.example",
            &label,
            &long,
        ] {
            assert_eq!(check_hostname(good), Ok(()), "{good}");
        }
        for address in ["10.0.0.1", "10.0.0.1.", "::1", "fe80::1", "1", "10.1", "a.1", "2130706433"] {
            assert_eq!(check_hostname(address), Err(HostnameError::Address), "{address}");
        }
        let (longer, too_long) = ("a".repeat(64), format!("{}abcd", "abcd.".repeat(50)));
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "a-.b",
            "A.example",
            "a b",
            "a:80",
            "é",
            "*.a",
            "[::1]",
            &longer,
            &too_long,
        ] {
            assert_eq!(check_hostname(bad), Err(HostnameError::Name), "{bad}");
        }
    }
}
