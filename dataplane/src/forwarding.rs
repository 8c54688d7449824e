//! What a backend is told of the client: `X-Forwarded-*` and `X-Real-IP`.
//!
//! What a client says of itself in these fields is not believed: no trusted proxies can be named yet, so each
//! field is replaced, and `Forwarded` is dropped.

use crate::connection::{Peer, Scheme};
use crate::message::RequestHead;
use http::header::{FORWARDED, HeaderName, HeaderValue};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Puts the client's address, scheme and host into the request's headers.
pub(crate) fn describe_client(head: &mut RequestHead, peer: &Peer) {
    let headers = &mut head.headers;
    headers.remove(FORWARDED);
    headers.insert(FOR, peer.ip.clone());
    headers.insert(REAL_IP, peer.ip.clone());
    headers.insert(
        PROTO,
        match peer.scheme {
            Scheme::Http => HeaderValue::from_static("http"),
            Scheme::Https => HeaderValue::from_static("https"),
        },
    );
    match &head.authority {
        Some(authority) => {
            let value = HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
            headers.insert(HOST, value);
        }
        None => drop(headers.remove(HOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_client_cannot_speak_for_itself() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a.example:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n\
            Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\r\n";
        let mut head = crate::http1::head::request(&Bytes::from_static(bytes)).expect("a request").head;
        let peer = Peer { port: 80, scheme: Scheme::Http, ip: HeaderValue::from_static("192.0.2.1") };
        describe_client(&mut head, &peer);
        let all = |name: &HeaderName| head.headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(all(&FOR), ["192.0.2.1"]);
        assert_eq!(all(&REAL_IP), ["192.0.2.1"]);
        assert_eq!(all(&PROTO), ["http"]);
        assert_eq!(all(&HOST), ["a.example:81"]);
        assert!(all(&FORWARDED).is_empty());
    }
}
