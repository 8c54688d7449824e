//! What a backend is told of the client: `X-Forwarded-*` and `X-Real-IP`.
//!
//! What a client says of itself in these fields is not believed: no trusted proxies can be named yet, so they are
//! dropped, all of the family and `Forwarded`, and ours are put in their place. A backend behind CGI or WSGI reads
//! `X_Forwarded_For` as the same field, and some merge trailers into the headers: both are dropped as well.

use crate::connection::{Peer, Scheme};
use crate::failure::Failure;
use crate::message::{Frame, RequestBody, RequestHead};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How the names of all fields begin that proxies describe clients in.
const FAMILY: &str = "x-forwarded-";

/// Puts the client's address, scheme and host into the request's headers, and nothing of what it claims there.
pub(crate) fn describe_client(head: &mut RequestHead, peer: &Peer) {
    let headers = &mut head.headers;
    drop_claims(headers);
    headers.insert(FOR, peer.ip.clone());
    headers.insert(REAL_IP, peer.ip.clone());
    headers.insert(
        PROTO,
        match peer.scheme {
            Scheme::Http => HeaderValue::from_static("http"),
            Scheme::Https => HeaderValue::from_static("https"),
        },
    );
    if let Some(authority) = &head.authority {
        let value = HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII");
        headers.insert(HOST, value);
    }
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
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    fn described(bytes: &'static [u8]) -> HeaderMap {
        let mut head = crate::http1::head::request(&Bytes::from_static(bytes), 100).expect("a request").head;
        let peer = Peer {
            port: 80,
            scheme: Scheme::Http,
            ip: HeaderValue::from_static("192.0.2.1"),
            limits: Arc::default(),
        };
        describe_client(&mut head, &peer);
        head.headers
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
