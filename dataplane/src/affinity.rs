//! What of a request says to which backend it belongs.

use crate::connection::Peer;
use crate::cookie;
use crate::message::RequestHead;
use lb_core::backend::KeySource;
use xxhash_rust::xxh3::xxh3_64;

/// The hash of what the source names, equal on every proxy; `None` where the request does not have it, as a connection of
/// layer 4, without a head, has nothing but its client's address.
pub(crate) fn key(source: &KeySource, head: Option<&RequestHead>, peer: &Peer) -> Option<u64> {
    match (source, head) {
        (KeySource::SourceIp, _) => Some(xxh3_64(peer.ip.as_bytes())),
        (_, None) => None,
        (KeySource::Host, Some(head)) => head.authority.as_ref().map(|_| xxh3_64(head.host().as_bytes())),
        (KeySource::Header(name), Some(head)) => {
            head.headers.get(&**name).map(|value| xxh3_64(value.as_bytes()))
        }
        (KeySource::Cookie(name), Some(head)) => cookie::first(&head.headers, name).map(xxh3_64),
        (KeySource::Query(name), Some(head)) => query(head, name).map(|value| xxh3_64(value.as_bytes())),
    }
}

/// The first parameter of this name, as it was sent.
fn query<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    let query = head.target.query()?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{BodyLength, Upgrade};
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use std::net::IpAddr;

    fn head(target: &str, fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        RequestHead {
            version: http::Version::HTTP_11,
            method: Method::GET,
            authority: Some("Shop.example:8080".parse().expect("an authority")),
            target: target.parse().expect("a target"),
            headers,
            body: BodyLength::Empty,
            upgrade: Upgrade::No,
        }
    }

    fn peer(ip: &str) -> Peer {
        Peer::at(80, ip.parse::<IpAddr>().expect("an address"))
    }

    fn hash(source: &KeySource, head: &RequestHead) -> Option<u64> {
        key(source, Some(head), &peer("192.0.2.1"))
    }

    #[test]
    fn a_client_is_its_address() {
        let of = |ip| key(&KeySource::SourceIp, Some(&head("/", &[])), &peer(ip));
        assert_eq!(of("192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), key(&KeySource::SourceIp, None, &peer("192.0.2.1")));
        assert_eq!(key(&KeySource::Host, None, &peer("192.0.2.1")), None);
    }

    #[test]
    fn values_are_found_by_name_and_nothing_else_counts() {
        let value = |text: &str| Some(xxh3_64(text.as_bytes()));
        let shop = head(
            "/a?x=1&user=7&user=8&users=9",
            &[("x-user", "anna"), ("cookie", "a=1; user=\"b\""), ("cookie", "id=5")],
        );
        assert_eq!(hash(&KeySource::Header("x-user".into()), &shop), value("anna"));
        assert_eq!(hash(&KeySource::Header("x-none".into()), &shop), None);
        assert_eq!(hash(&KeySource::Cookie("user".into()), &shop), value("b"));
        assert_eq!(hash(&KeySource::Cookie("id".into()), &shop), value("5"));
        assert_eq!(hash(&KeySource::Cookie("use".into()), &shop), None);
        assert_eq!(hash(&KeySource::Query("user".into()), &shop), value("7"));
        assert_eq!(hash(&KeySource::Query("use".into()), &shop), None);
        assert_eq!(hash(&KeySource::Query("x".into()), &head("/a", &[])), None);
        assert_eq!(hash(&KeySource::Host, &shop), value("shop.example"));
    }
}
