//! What a backend is told of the client: `X-Forwarded-*`, `X-Real-IP`, and `Forwarded` where it is asked for.
//!
//! What a client says of itself in these fields is not believed: they are dropped, all of the family and `Forwarded`, and
//! ours are put in their place. The word of trusted proxies counts ([`claims`]), as far back as the first address that is
//! not one of theirs; what stands before it in the chain is that client's own claim, and ends here too. A backend behind
//! CGI or WSGI reads `X_Forwarded_For` as the same field, and some merge trailers into the headers: both are dropped as
//! well.

mod claims;

use crate::connection::{Peer, Scheme};
use crate::failure::Failure;
use crate::message::{Frame, RequestBody, RequestHead};
use claims::Told;
use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use http::uri::Authority;
use lb_core::addresses::ClientPolicy;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How the names of all fields begin that proxies describe clients in.
const FAMILY: &str = "x-forwarded-";

/// Puts the client's address, scheme and host into the request's headers, and nothing of what it claims there. Who the
/// client is, where trusted proxies said that it is another than who is connected.
pub(crate) fn describe_client(
    head: &mut RequestHead,
    peer: &Peer,
    policy: Option<&ClientPolicy>,
) -> Option<Peer> {
    let Some(policy) = policy else {
        drop_claims(&mut head.headers);
        describe(head, peer, peer.ip.clone(), None);
        return None;
    };
    let told = claims::read(&head.headers, peer.address, policy);
    drop_claims(&mut head.headers);
    let scheme = told.scheme.unwrap_or(peer.scheme);
    let address = told.chain.client();
    let ip = if address == peer.address { peer.ip.clone() } else { value(&address.to_string()) };
    let client = Peer {
        port: peer.port,
        scheme,
        address,
        // What proxies say in headers has no port.
        from_port: if address == peer.address { peer.from_port } else { 0 },
        to: peer.to,
        ip,
        limits: Arc::clone(&peer.limits),
        secured: peer.secured.clone(),
    };
    let mut chain = String::new();
    for hop in &told.chain.addresses {
        let comma = if chain.is_empty() { "" } else { ", " };
        let _ = write!(chain, "{comma}{hop}");
    }
    if policy.sends_forwarded {
        head.headers.insert(FORWARDED, forwarded(&told, scheme, head.authority.as_ref()));
    }
    describe(head, &client, value(&chain), told.host);
    Some(client)
}

/// The client's address alone, before the request was described: as [`describe_client`] would find it.
pub(crate) fn client_address(head: &RequestHead, peer: &Peer, policy: Option<&ClientPolicy>) -> IpAddr {
    policy.map_or(peer.address, |policy| claims::read(&head.headers, peer.address, policy).chain.client())
}

/// How the client asked, as far as trusted proxies told.
pub(crate) fn scheme(head: &RequestHead, peer: &Peer, policy: Option<&ClientPolicy>) -> Scheme {
    let told = policy.and_then(|policy| claims::read(&head.headers, peer.address, policy).scheme);
    told.unwrap_or(peer.scheme)
}

fn describe(head: &mut RequestHead, client: &Peer, chain: HeaderValue, host: Option<HeaderValue>) {
    let headers = &mut head.headers;
    headers.insert(FOR, chain);
    headers.insert(REAL_IP, client.ip.clone());
    headers.insert(PROTO, HeaderValue::from_static(name(client.scheme)));
    let own = || head.authority.as_ref().map(|authority| value(authority.as_str()));
    if let Some(host) = host.or_else(own) {
        headers.insert(HOST, host);
    }
    // Who is connected has shown it, whomever it speaks for.
    if let Some(secured) = &client.secured {
        secured.describe(headers);
    }
}

/// RFC 7239, section 4: what is known of the client's own request stands in its element.
fn forwarded(told: &Told, scheme: Scheme, authority: Option<&Authority>) -> HeaderValue {
    let mut text = String::new();
    for (at, hop) in told.chain.addresses.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = match hop {
            IpAddr::V4(hop) => write!(text, "{comma}for={hop}"),
            IpAddr::V6(hop) => write!(text, "{comma}for=\"[{hop}]\""),
        };
        if at == 0 {
            let told = told.host.as_ref().and_then(|host| host.to_str().ok());
            if let Some(host) = told.or(authority.map(Authority::as_str)) {
                let _ = write!(text, ";host=\"{host}\"");
            }
            let _ = write!(text, ";proto={}", name(scheme));
        }
    }
    value(&text)
}

fn name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("addresses and authorities are visible ASCII")
}

/// A request's body, whose trailers claim nothing.
pub(crate) struct Disclaimed<'a, B>(pub(crate) &'a mut B);

impl<B: RequestBody> RequestBody for Disclaimed<'_, B> {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let mut frame = self.0.next().await?;
        if let Some(Frame::Trailers(fields)) = &mut frame {
            drop_claims(fields);
        }
        Ok(frame)
    }

    fn has_ended(&self) -> bool {
        self.0.has_ended()
    }
}

fn drop_claims(fields: &mut HeaderMap) {
    while let Some(claim) = fields.keys().find(|name| is_claim(name)).cloned() {
        fields.remove(claim);
    }
}

/// Whether a field says who the client is, underscores read as hyphens.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is = |what: &str, name: &[u8]| {
        let read = name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte });
        read.eq(what.bytes())
    };
    match name.first() {
        Some(b'x') => {
            name.get(..FAMILY.len()).is_some_and(|begin| is(FAMILY, begin)) || is("x-real-ip", name)
        }
        Some(b'f') => name == b"forwarded",
        Some(b'c') => is("client-cert", name) || is("client-cert-chain", name),
        _ => false,
    }
}

/// The fields of a request that trusted proxies sent: what a backend is told is one chain, which ends with who is connected,
/// and another proxy reads the same out of each of the two ways in which it is told.
#[cfg(fuzzing)]
pub fn fuzz(fields: &[u8]) {
    use lb_core::addresses::{Claims, HOPS_MAX, TrustedProxies};
    let Some((&hops, fields)) = fields.split_first() else { return };
    let bytes = [b"GET / HTTP/1.1\r\nHost: weir.example\r\n", fields, b"\r\n\r\n"].concat();
    let connected = IpAddr::from([192, 0, 2, 1]);
    let peer = Peer::at(80, connected);
    let hops_of = |hops| TrustedProxies { networks: None, hops: Some(hops) };
    for claims in [Claims::XForwarded, Claims::Forwarded] {
        let Ok(mut parsed) = crate::http1::head::request(&bytes::Bytes::copy_from_slice(&bytes), 100) else {
            return;
        };
        let policy = ClientPolicy { trusted: hops_of(usize::from(hops)), claims, sends_forwarded: true };
        let client = describe_client(&mut parsed.head, &peer, Some(&policy)).expect("a policy");
        let headers = &parsed.head.headers;
        for name in [&FOR, &PROTO, &HOST, &REAL_IP, &FORWARDED] {
            assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
        }
        let written = headers[FOR].as_bytes().split(|&byte| byte == b',').count();
        if written > HOPS_MAX {
            continue;
        }
        let next = |claims| {
            let policy = ClientPolicy { trusted: hops_of(written), claims, sends_forwarded: false };
            claims::read(headers, [198, 51, 100, 1].into(), &policy)
        };
        let (plain, standard) = (next(Claims::XForwarded), next(Claims::Forwarded));
        assert_eq!(plain, standard, "the two ways say different things");
        let addresses = &plain.chain.addresses;
        assert_eq!((addresses.len(), addresses[written - 1]), (written + 1, connected));
        assert_eq!((plain.chain.client(), plain.scheme), (client.address, Some(client.scheme)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn described(bytes: &'static [u8]) -> HeaderMap {
        let mut head = crate::http1::head::request(&Bytes::from_static(bytes), 100).expect("a request").head;
        assert!(describe_client(&mut head, &peer(), None).is_none());
        head.headers
    }

    fn peer() -> Peer {
        Peer::at(80, [192, 0, 2, 1])
    }

    #[test]
    fn a_client_cannot_speak_for_itself() {
        let headers = described(
            b"GET / HTTP/1.1\r\nHost: a.example:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n\
            Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\
            X-Forwarded-Port: 443\r\n\r\n",
        );
        let all = |name: &HeaderName| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(all(&FOR), ["192.0.2.1"]);
        assert_eq!(all(&REAL_IP), ["192.0.2.1"]);
        assert_eq!(all(&PROTO), ["http"]);
        assert_eq!(all(&HOST), ["a.example:81"]);
        assert_eq!(headers.len(), 4, "{headers:?}");
    }

    #[test]
    fn an_underscore_does_not_smuggle_a_claim_and_other_fields_pass() {
        let headers = described(
            b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\n\
            x_real-ip: 6.6.6.6\r\nX_FORWARDED_PROTO: https\r\nX_Request_Id: 1\r\nX-Forwarded: 1\r\n\
            Forwarded-By: b\r\nX-Real-IP-Hash: c\r\n\r\n",
        );
        let mut passed: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        passed.retain(|name| ![FOR, PROTO, HOST, REAL_IP].iter().any(|ours| ours == name));
        passed.sort_unstable();
        assert_eq!(passed, ["forwarded-by", "x-forwarded", "x-real-ip-hash", "x_request_id"]);
        assert_eq!(headers.get_all(FOR).iter().count(), 1);
    }

    /// What the backend is told of a request that a trusted proxy sent, and who the client is.
    fn told(policy: &ClientPolicy, fields: &str) -> (String, Vec<String>) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: weir.example\r\n{fields}\r\n");
        let mut head = crate::http1::head::request(&Bytes::from(bytes), 100).expect("a request").head;
        let client = describe_client(&mut head, &peer(), Some(policy)).expect("a policy");
        let shown = head.headers.iter().map(|(name, value)| {
            assert_eq!(head.headers.get_all(name).iter().count(), 1, "{name}");
            format!("{name}: {}", value.to_str().expect("text"))
        });
        (client.address.to_string(), shown.collect())
    }

    fn trusting(networks: &[&str]) -> ClientPolicy {
        let networks = networks.iter().map(|network| (network.parse().expect("a network"), ()));
        let trusted = lb_core::addresses::TrustedProxies {
            networks: Some(lb_core::addresses::IpTable::new(networks)),
            hops: None,
        };
        ClientPolicy { trusted, ..ClientPolicy::default() }
    }

    #[test]
    fn the_word_of_a_trusted_proxy_is_passed_on_without_the_clients_own() {
        let ours = trusting(&["192.0.2.0/24", "10.0.0.0/8"]);
        let (client, headers) = told(
            &ours,
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 198.51.100.7, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: shop.example\r\nForwarded: for=7.7.7.7\r\nX-Real-IP: 8.8.8.8\r\nX-Forwarded-Port: 9\r\n",
        );
        assert_eq!(client, "198.51.100.7");
        let expected = [
            "x-forwarded-for: 198.51.100.7, 10.0.0.1, 192.0.2.1",
            "x-real-ip: 198.51.100.7",
            "x-forwarded-proto: https",
            "x-forwarded-host: shop.example",
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn nobody_else_is_believed_though_others_are_trusted() {
        let (client, headers) = told(
            &trusting(&["10.0.0.0/8"]),
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n",
        );
        assert_eq!(client, "192.0.2.1");
        let expected = [
            "x-forwarded-for: 192.0.2.1",
            "x-real-ip: 192.0.2.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: weir.example",
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn forwarded_is_written_where_it_is_asked_for() {
        let policy = ClientPolicy { sends_forwarded: true, ..trusting(&["192.0.2.0/24"]) };
        for (fields, expected) in [
            ("", "for=192.0.2.1;host=\"weir.example\";proto=http"),
            ("Forwarded: for=6.6.6.6\r\n", "for=192.0.2.1;host=\"weir.example\";proto=http"),
            (
                "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example:8443\r\n",
                "for=\"[2001:db8::1]\";host=\"a.example:8443\";proto=https, for=192.0.2.1",
            ),
        ] {
            let (_, headers) = told(&policy, fields);
            assert_eq!(headers[0], format!("forwarded: {expected}"), "{fields}");
        }
    }

    /// A body of one piece and trailers.
    struct Script(Vec<Frame>);

    impl RequestBody for Script {
        async fn next(&mut self) -> Result<Option<Frame>, Failure> {
            Ok(self.0.pop())
        }

        fn has_ended(&self) -> bool {
            self.0.is_empty()
        }
    }

    #[test]
    fn trailers_claim_nothing() {
        let fields = ["x-forwarded-for", "x_real_ip", "forwarded", "x-sum"];
        let fields = fields.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")));
        let mut body = Script(vec![Frame::Trailers(fields.into_iter().collect())]);
        let mut disclaimed = Disclaimed(&mut body);
        let next = crate::wire::poll_once(disclaimed.next());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let Some(Ok(Some(Frame::Trailers(left)))) = runtime.block_on(next) else { panic!("trailers") };
        assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }
}
