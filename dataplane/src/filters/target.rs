//! Other hosts and paths: for the backend, or for the client.

use crate::connection::{Peer, Scheme};
use crate::failure::Failure;
use crate::message::RequestHead;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use lb_core::route::{PathChange, Redirect, Rewrite};
use std::fmt::Write as _;

/// Makes the request one for another host or path. The match took `prefix_bytes` of its path. Its query stays.
///
/// # Errors
/// [`Failure::UriTooLong`] where the new target is none, which only its length can make it.
pub(crate) fn rewrite(head: &mut RequestHead, rewrite: &Rewrite, prefix_bytes: usize) -> Result<(), Failure> {
    if let Some(change) = &rewrite.path
        && head.target != "*"
    {
        let target = target(head, change, prefix_bytes);
        head.target = PathAndQuery::try_from(target).map_err(|_| Failure::UriTooLong)?;
    }
    if let Some(hostname) = &rewrite.hostname {
        head.authority = Authority::try_from(&**hostname).ok();
    }
    Ok(())
}

/// Status and headers of a redirect. The host is the one that was asked for, and so is the port, unless the filter says
/// one, or a scheme: then it is that scheme's.
pub(crate) fn redirect(
    head: &RequestHead,
    peer: &Peer,
    redirect: &Redirect,
    prefix_bytes: usize,
) -> (StatusCode, HeaderMap) {
    let own = match peer.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let scheme = redirect.scheme.as_deref().unwrap_or(own);
    let asked = head.authority.as_ref();
    let mut location = String::new();
    // HTTP/1.0 without Host: the client knows where it is.
    if let Some(host) = redirect.hostname.as_deref().or(asked.map(Authority::host)) {
        let asked_port = || asked.and_then(Authority::port_u16).filter(|_| redirect.scheme.is_none());
        let usual = if scheme == "http" { 80 } else { 443 };
        let port = redirect.port.or_else(asked_port).filter(|port| *port != usual);
        let _ = write!(location, "{scheme}://{host}");
        let _ = port.map(|port| write!(location, ":{port}"));
    }
    match &redirect.path {
        Some(change) => location.push_str(&target(head, change, prefix_bytes)),
        None if head.target == "*" => location.push('/'),
        None => location.push_str(head.target.as_str()),
    }
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
    let location = HeaderValue::try_from(location).ok();
    (status, HeaderMap::from_iter(location.map(|location| (LOCATION, location))))
}

/// The new path, with the query that came.
fn target(head: &RequestHead, change: &PathChange, prefix_bytes: usize) -> String {
    let mut target = change.path(head.path(), prefix_bytes);
    if let Some(query) = head.target.query() {
        target.push('?');
        target.push_str(query);
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn head(request: &'static str) -> RequestHead {
        crate::http1::head::request(&Bytes::from_static(request.as_bytes()), 100).expect("a request").head
    }

    fn location(request: &'static str, filter: &Redirect) -> String {
        let peer = Peer::at(8080, [192, 0, 2, 1]);
        let (status, headers) = redirect(&head(request), &peer, filter, 4);
        assert_eq!(status, filter.status);
        headers[LOCATION].to_str().expect("text").to_owned()
    }

    const ASKED: &str = "GET /old/x?a=1 HTTP/1.1\r\nHost: a.org:8080\r\n\r\n";

    #[test]
    fn what_a_redirect_does_not_say_is_as_it_was_asked() {
        let none = Redirect { scheme: None, hostname: None, port: None, path: None, status: 302 };
        let prefix = Some(PathChange::Prefix("/new".into()));
        for (filter, want) in [
            (Redirect { scheme: Some("https".into()), ..none.clone() }, "https://a.org/old/x?a=1"),
            (Redirect { hostname: Some("b.org".into()), ..none.clone() }, "http://b.org:8080/old/x?a=1"),
            (Redirect { port: Some(80), status: 301, ..none.clone() }, "http://a.org/old/x?a=1"),
            (
                Redirect { scheme: Some("https".into()), port: Some(8443), status: 308, ..none.clone() },
                "https://a.org:8443/old/x?a=1",
            ),
            (Redirect { path: prefix.clone(), ..none.clone() }, "http://a.org:8080/new/x?a=1"),
            (Redirect { path: Some(PathChange::Full("/".into())), ..none.clone() }, "http://a.org:8080/?a=1"),
        ] {
            assert_eq!(location(ASKED, &filter), want);
        }
        let filter = Redirect { path: prefix, ..none };
        assert_eq!(location("GET /old/x HTTP/1.0\r\n\r\n", &filter), "/new/x");
    }

    #[test]
    fn a_rewrite_changes_host_and_path_and_no_query() {
        let mut head = head(ASKED);
        let change = Rewrite { hostname: Some("b.org".into()), path: Some(PathChange::Prefix("".into())) };
        rewrite(&mut head, &change, 4).expect("a target");
        assert_eq!((head.target.as_str(), head.host().as_ref()), ("/x?a=1", "b.org"));
        let change = Rewrite { hostname: None, path: Some(PathChange::Full("/all".into())) };
        rewrite(&mut head, &change, 0).expect("a target");
        assert_eq!((head.target.as_str(), head.host().as_ref()), ("/all?a=1", "b.org"));
    }
}
