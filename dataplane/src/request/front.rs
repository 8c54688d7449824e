//! Clients that are to come by HTTPS: sent there, and told to stay.

use super::answers::Ours;
use crate::connection::{Peer, Scheme};
use crate::failure::{Failure, REASON_HEADER};
use crate::forwarding;
use crate::message::RequestHead;
use crate::rates::Telling;
use crate::snapshot::{HttpsRedirect, Listener};
use bytes::Bytes;
use http::header::LOCATION;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// What the answer of a listener with a redirect says in `x-weir-reason`.
pub(super) const REASON: &str = "https_redirect";

/// The port that is not written.
const HTTPS_PORT: u16 = 443;

/// Has the answer tell what the listener says of HTTPS for the request's host, and brings the path into its one form. Where
/// the client is to go elsewhere, what it is answered. What a trusted proxy in front took over HTTPS has come by it.
pub(crate) fn meet(
    listener: &Listener,
    peer: &Peer,
    head: &mut RequestHead,
    telling: &mut Telling,
) -> Result<Option<Ours>, Failure> {
    telling.front = listener.front(&head.host()).map(Arc::clone);
    head.settle_target(listener.limits.uri_bytes_max, listener.paths)?;
    let Some(front) = &telling.front else { return Ok(None) };
    let Some(redirect) = front.redirect else { return Ok(None) };
    if forwarding::scheme(head, peer, listener.client_policy(&front.pool)) == Scheme::Https {
        return Ok(None);
    }
    let location = location(head, redirect)?;
    let reason = HeaderValue::from_static(REASON);
    let headers = HeaderMap::from_iter([(LOCATION, location), (REASON_HEADER, reason)]);
    Ok(Some(Ours { status: redirect.status, headers, body: Bytes::new() }))
}

/// The same host and path, over HTTPS.
fn location(head: &RequestHead, redirect: HttpsRedirect) -> Result<HeaderValue, Failure> {
    let host = head.authority.as_ref().map(Authority::host);
    let host =
        host.ok_or(Failure::BadRequest("The request names no host, so that it cannot be sent to HTTPS."))?;
    let target = head.target.as_str();
    let target = if target.starts_with('/') { target } else { "/" };
    let location = match redirect.port {
        HTTPS_PORT => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).map_err(|_| Failure::BadRequest("The request's target is not a path."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn the_place_has_the_requests_host_and_path_and_the_port_that_is_said() {
        let to = |request: &str, port| {
            let bytes = Bytes::copy_from_slice(request.as_bytes());
            let head = crate::http1::head::request(&bytes, 100).expect("a request").head;
            location(&head, HttpsRedirect { status: StatusCode::PERMANENT_REDIRECT, port })
        };
        for (request, port, expected) in [
            ("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, "https://a.example/a?b=c"),
            ("GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", 443, "https://a.example/"),
            ("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 8443, "https://[::1]:8443/"),
            ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, "https://a.example/"),
            (
                "GET //evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
                443,
                "https://a.example//evil.example/",
            ),
        ] {
            assert_eq!(to(request, port).expect(request), expected);
        }
        assert!(matches!(to("GET / HTTP/1.0\r\n\r\n", 443), Err(Failure::BadRequest(_))));
    }
}
