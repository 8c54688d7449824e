//! What a client said of a request, as far as it is logged: bounded, and without what may be a secret.

use crate::message::RequestHead;
use http::header::{HeaderMap, HeaderName, USER_AGENT};
use http::request::Parts;
use http::uri::Authority;
use http::{Uri, Version};

/// Most bytes of each text; the rest is cut off.
pub(super) const METHOD_BYTES_MAX: usize = 32;
pub(super) const HOST_BYTES_MAX: usize = 255;
pub(super) const PATH_BYTES_MAX: usize = 1_024;
pub(super) const REQUEST_ID_BYTES_MAX: usize = 128;
pub(super) const USER_AGENT_BYTES_MAX: usize = 256;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a client said. Copied, so that a record keeps no buffer alive; what is not known is empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(super) method: Text,
    /// Without port, in lower case where the host of a request is.
    pub(super) host: Text,
    /// Without the query, as it came.
    pub(super) path: Text,
    pub(super) version: Option<Version>,
    pub(super) request_id: Text,
    pub(super) user_agent: Text,
}

/// Bytes of a client, cut to a limit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Text(Box<[u8]>);

impl Text {
    pub(super) fn of(bytes: &[u8], bytes_max: usize) -> Self {
        Self(bytes[..bytes.len().min(bytes_max)].into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Said {
    pub(crate) fn of(head: &RequestHead) -> Self {
        Self {
            method: Text::of(head.method.as_str().as_bytes(), METHOD_BYTES_MAX),
            host: Text::of(head.host().as_bytes(), HOST_BYTES_MAX),
            path: Text::of(head.target.path().as_bytes(), PATH_BYTES_MAX),
            version: Some(head.version),
            ..Self::of_fields(&head.headers)
        }
    }

    /// Of a head of HTTP/2 that was not looked at.
    pub(crate) fn of_parts(parts: &Parts) -> Self {
        let host = parts.uri.authority().map_or("", Authority::host);
        Self {
            method: Text::of(parts.method.as_str().as_bytes(), METHOD_BYTES_MAX),
            host: Text::of(host.as_bytes(), HOST_BYTES_MAX),
            path: Text::of(Uri::path(&parts.uri).as_bytes(), PATH_BYTES_MAX),
            version: Some(parts.version),
            ..Self::of_fields(&parts.headers)
        }
    }

    /// Of bytes that are no head of HTTP/1: a method and a path where they begin with those.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let mut words = line.split(|&byte| byte == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next());
        let is_method = method.len() <= METHOD_BYTES_MAX && method.iter().all(u8::is_ascii_uppercase);
        let Some(target) = target.filter(|target| is_method && target.starts_with(b"/")) else {
            return Self::default();
        };
        let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        Self {
            method: Text::of(method, METHOD_BYTES_MAX),
            path: Text::of(path, PATH_BYTES_MAX),
            ..Self::default()
        }
    }

    /// Of a connection of layer 4, whose client asked for this host.
    pub(crate) fn of_name(name: &str) -> Self {
        Self { host: Text::of(name.as_bytes(), HOST_BYTES_MAX), ..Self::default() }
    }

    fn of_fields(headers: &HeaderMap) -> Self {
        let field = |name: &HeaderName, bytes_max| {
            headers.get(name).map(|value| Text::of(value.as_bytes(), bytes_max)).unwrap_or_default()
        };
        Self {
            request_id: field(&REQUEST_ID, REQUEST_ID_BYTES_MAX),
            user_agent: field(&USER_AGENT, USER_AGENT_BYTES_MAX),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn said(request: &str) -> Said {
        let bytes = Bytes::copy_from_slice(request.as_bytes());
        Said::of(&crate::http1::head::request(&bytes, 100).expect("a request").head)
    }

    #[test]
    fn of_a_request_there_is_no_query_no_cookie_and_no_authorization() {
        let said = said(
            "GET /a/b?token=secret HTTP/1.1\r\nHost: A.example:81\r\nCookie: secret=1\r\nAuthorization: Basic \
             secret\r\nReferer: /?secret\r\nUser-Agent: curl/8\r\nX-Request-ID: 7\r\n\r\n",
        );
        assert_eq!(
            (said.method.bytes(), said.host.bytes(), said.path.bytes()),
            (&b"GET"[..], &b"a.example"[..], &b"/a/b"[..])
        );
        assert_eq!((said.request_id.bytes(), said.user_agent.bytes()), (&b"7"[..], &b"curl/8"[..]));
        assert_eq!(said.version, Some(Version::HTTP_11));
        assert!(!format!("{said:?}").contains("secret"));
    }

    #[test]
    fn each_text_is_cut_at_its_limit() {
        let of = |path: usize, agent: usize| {
            said(&format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\nUser-Agent: {}\r\n\r\n",
                "p".repeat(path - 1),
                "u".repeat(agent)
            ))
        };
        let at = of(PATH_BYTES_MAX, USER_AGENT_BYTES_MAX);
        assert_eq!((at.path.bytes().len(), at.user_agent.bytes().len()), (1_024, 256));
        assert_eq!(of(PATH_BYTES_MAX + 1, USER_AGENT_BYTES_MAX + 1), at);
    }

    #[test]
    fn of_what_is_no_head_there_is_a_method_and_a_path_or_nothing() {
        for (bytes, method, path) in [
            (&b"GET /a?secret HTTP/1.1\r\nA : b\r\n\r\n"[..], "GET", "/a"),
            (b"GET /a#secret", "GET", "/a"),
            (b"POST /a\nHost: b", "POST", "/a"),
            (b"GET http://user:secret@a/b HTTP/1.1\r\n", "", ""),
            (b"secret /a HTTP/1.1\r\n", "", ""),
            (b"SECRET", "", ""),
            (b"\x16\x03\x01\x02\0\x01", "", ""),
            (b"", "", ""),
        ] {
            let said = Said::of_bytes(bytes);
            let shown = (said.method.bytes(), said.path.bytes());
            assert_eq!(shown, (method.as_bytes(), path.as_bytes()), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
