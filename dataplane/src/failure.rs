//! Everything that can go wrong with a request, whose fault it is, and what the client is told.
//!
//! One table maps a failure to a status and a reason code; the code is in the `x-weir-reason` header and in the
//! JSON body of the answer.

use crate::grpc;
use crate::message::ResponseHead;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};

/// Carries the reason code of an answer that Weir made itself.
pub(crate) const REASON_HEADER: HeaderName = HeaderName::from_static("x-weir-reason");

/// Every reason code, in the order of [`Failure::answer`].
pub(crate) const REASONS: [&str; 32] = [
    "bad_request",
    "head_too_large",
    "too_many_headers",
    "uri_too_long",
    "body_too_large",
    "version_unsupported",
    "coding_unsupported",
    "method_refused",
    "method_not_allowed",
    "content_type_refused",
    "protocol_unsupported",
    "expectation_failed",
    "request_slow",
    "misdirected",
    "client_gone",
    "no_route",
    "no_backend",
    "upgrade_unsupported",
    "ip_denied",
    "rate_limited",
    "circuit_open",
    "queue_full",
    "queue_timeout",
    "connection_limit",
    "connect_failed",
    "connect_timeout",
    "backend_tls",
    "backend_closed",
    "backend_invalid",
    "backend_timeout",
    "backend_unwilling",
    "request_timeout",
];

/// Why a request was not answered by a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    // The client's side.
    #[error("{0}")]
    BadRequest(&'static str),
    #[error(
        "The request's line and headers are larger than this listener takes; send fewer or smaller headers."
    )]
    HeadTooLarge,
    #[error("The request has more headers than this listener takes; send fewer.")]
    TooManyHeaders,
    #[error("The path and query are longer than this listener takes; shorten them, or send a body.")]
    UriTooLong,
    #[error("The body is larger than this route takes.")]
    BodyTooLarge,
    #[error("Weir speaks HTTP/1.0, HTTP/1.1 and HTTP/2; use one of them.")]
    VersionUnsupported,
    #[error("The transfer coding is not supported; send the body as chunked or with a Content-Length.")]
    CodingUnsupported,
    #[error("CONNECT is not served here; ask for a resource by its path.")]
    MethodRefused,
    #[error("The route takes other methods, which Allow names.")]
    MethodNotAllowed,
    #[error("The route takes bodies of other types; see Content-Type.")]
    ContentTypeRefused,
    #[error("The only :protocol that CONNECT may name here is websocket.")]
    ProtocolUnsupported,
    #[error("The only expectation that is known is 100-continue; leave the Expect header out.")]
    ExpectationFailed,
    #[error("The request did not arrive in time.")]
    RequestSlow,
    #[error(
        "Requests for this host need a connection of their own: open one with the host's name in the handshake (SNI)."
    )]
    Misdirected,
    #[error("The client went away.")]
    ClientGone,
    // Configuration.
    #[error("No route matches the request's host and path; see `kubectl get lbp` for what is routed.")]
    NoRoute,
    #[error("No backend of the route's backend sets can take a request.")]
    NoBackend,
    #[error("The backend speaks HTTP/2, and has not announced that it takes WebSockets on it (RFC 8441).")]
    UpgradeUnsupported,
    #[error("The rule takes no requests from the client's address.")]
    IpDenied,
    #[error("There are too many requests; ask again after {retry_after_s} s.")]
    RateLimited { retry_after_s: u32 },
    // Limits of the backends.
    #[error("Too many requests to the backends failed: none is sent until they have been tried again.")]
    CircuitOpen { retry_after_s: u32 },
    #[error("Every backend has as many requests as it may have, and no more may wait.")]
    QueueFull,
    #[error("Every backend has as many requests as it may have, and none ended in time.")]
    QueueTimeout,
    #[error("Every backend has as many connections as it may have, and none became free in time.")]
    ConnectionLimit,
    // The backend's side.
    #[error("No connection to a backend could be made.")]
    ConnectFailed,
    #[error("A backend did not accept a connection in time.")]
    ConnectTimeout,
    #[error("No connection to a backend could be secured: {0}.")]
    BackendTls(&'static str),
    #[error("The backend closed the connection before it answered.")]
    BackendClosed,
    #[error("The backend's answer is not valid HTTP: {0}")]
    BackendInvalid(&'static str),
    #[error("The backend did not answer in time.")]
    BackendTimeout,
    /// Only between two attempts.
    #[error("The backend answered with status {0}.")]
    BackendUnwilling(StatusCode),
    #[error("The request took longer than it may take in all.")]
    RequestTimeout,
}

/// What of a request decides how it is told that it failed.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    method: Method,
    /// Of a call of gRPC.
    call: Option<HeaderValue>,
}

impl Asked {
    pub(crate) fn new(method: &Method, headers: &HeaderMap) -> Self {
        Self { method: method.clone(), call: grpc::content_type(headers).cloned() }
    }
}

impl Failure {
    /// The one table: status and reason code of each failure.
    pub(crate) fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large"),
            Self::TooManyHeaders => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri_too_long"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::VersionUnsupported => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "version_unsupported"),
            Self::CodingUnsupported => (StatusCode::NOT_IMPLEMENTED, "coding_unsupported"),
            Self::MethodRefused => (StatusCode::METHOD_NOT_ALLOWED, "method_refused"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::ContentTypeRefused => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type_refused"),
            Self::ProtocolUnsupported => (StatusCode::NOT_IMPLEMENTED, "protocol_unsupported"),
            Self::ExpectationFailed => (StatusCode::EXPECTATION_FAILED, "expectation_failed"),
            Self::RequestSlow => (StatusCode::REQUEST_TIMEOUT, "request_slow"),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected"),
            // Never sent: there is nobody to send it to. nginx's number in logs.
            Self::ClientGone => (StatusCode::BAD_REQUEST, "client_gone"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no_route"),
            Self::NoBackend => (StatusCode::SERVICE_UNAVAILABLE, "no_backend"),
            Self::UpgradeUnsupported => (StatusCode::NOT_IMPLEMENTED, "upgrade_unsupported"),
            Self::IpDenied => (StatusCode::FORBIDDEN, "ip_denied"),
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::CircuitOpen { .. } => (StatusCode::SERVICE_UNAVAILABLE, "circuit_open"),
            Self::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
            Self::QueueTimeout => (StatusCode::SERVICE_UNAVAILABLE, "queue_timeout"),
            Self::ConnectionLimit => (StatusCode::SERVICE_UNAVAILABLE, "connection_limit"),
            Self::ConnectFailed => (StatusCode::BAD_GATEWAY, "connect_failed"),
            Self::ConnectTimeout => (StatusCode::GATEWAY_TIMEOUT, "connect_timeout"),
            Self::BackendTls(_) => (StatusCode::BAD_GATEWAY, "backend_tls"),
            Self::BackendClosed => (StatusCode::BAD_GATEWAY, "backend_closed"),
            Self::BackendInvalid(_) => (StatusCode::BAD_GATEWAY, "backend_invalid"),
            Self::BackendTimeout => (StatusCode::GATEWAY_TIMEOUT, "backend_timeout"),
            Self::BackendUnwilling(_) => (StatusCode::BAD_GATEWAY, "backend_unwilling"),
            Self::RequestTimeout => (StatusCode::GATEWAY_TIMEOUT, "request_timeout"),
        }
    }

    /// The answer's head and JSON body. A call of gRPC has the status in its headers, and no body.
    pub(crate) fn response(self, asked: &Asked) -> (ResponseHead, Bytes) {
        let (mut status, reason) = self.answer();
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(REASON_HEADER, HeaderValue::from_static(reason));
        let mut body = Bytes::new();
        if let Some(content_type) = &asked.call {
            grpc::tell(self, content_type.clone(), &mut headers);
            status = StatusCode::OK;
        } else {
            let json = serde_json::json!({
                "status": status.as_u16(),
                "reason": reason,
                "message": self.to_string(),
            });
            body = Bytes::from(format!("{json}\n"));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Self::CircuitOpen { retry_after_s } | Self::RateLimited { retry_after_s } = self {
            headers.insert(RETRY_AFTER, retry_after_s.into());
        }
        ResponseHead::of_ours(status, headers, body, &asked.method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BodyLength;

    #[test]
    fn an_answer_names_its_reason_in_header_and_body() {
        let (head, body) = Failure::NoBackend.response(&Asked::default());
        assert_eq!(head.status, 503);
        assert_eq!(head.headers[&REASON_HEADER], "no_backend");
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(json["reason"], "no_backend");
        assert_eq!(json["status"], 503);
        assert!(json["message"].as_str().is_some_and(|m| m.ends_with('.')));
        assert_eq!(head.body, BodyLength::Known(body.len() as u64));
    }

    #[test]
    fn a_call_of_grpc_is_told_in_its_own_way() {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"))];
        let asked = Asked::new(&Method::POST, &HeaderMap::from_iter(headers));
        let (head, body) = Failure::NoBackend.response(&asked);
        assert_eq!((head.status.as_u16(), body.len(), head.body), (200, 0, BodyLength::Known(0)));
        let header = |name: &str| head.headers[name].to_str().expect("text");
        assert_eq!(header("content-type"), "application/grpc+proto");
        assert_eq!((header("grpc-status"), header("x-weir-reason")), ("14", "no_backend"));
        assert_eq!(header("grpc-message"), Failure::NoBackend.to_string());
    }

    #[test]
    fn an_answer_to_head_announces_its_body_and_has_none() {
        let asked = Asked::new(&Method::HEAD, &HeaderMap::new());
        let (head, body) = Failure::NoBackend.response(&asked);
        let (_, told) = Failure::NoBackend.response(&Asked::default());
        assert_eq!((head.body, body.len()), (BodyLength::Announced(Some(told.len() as u64)), 0));
    }

    #[test]
    fn every_reason_is_in_the_documentation_with_its_status() {
        let page = include_str!("../../docs/failures.md");
        let all = [
            Failure::BadRequest(""),
            Failure::HeadTooLarge,
            Failure::TooManyHeaders,
            Failure::UriTooLong,
            Failure::BodyTooLarge,
            Failure::VersionUnsupported,
            Failure::CodingUnsupported,
            Failure::MethodRefused,
            Failure::MethodNotAllowed,
            Failure::ContentTypeRefused,
            Failure::ProtocolUnsupported,
            Failure::ExpectationFailed,
            Failure::RequestSlow,
            Failure::Misdirected,
            Failure::NoRoute,
            Failure::NoBackend,
            Failure::UpgradeUnsupported,
            Failure::IpDenied,
            Failure::RateLimited { retry_after_s: 1 },
            Failure::CircuitOpen { retry_after_s: 1 },
            Failure::QueueFull,
            Failure::QueueTimeout,
            Failure::ConnectionLimit,
            Failure::ConnectFailed,
            Failure::ConnectTimeout,
            Failure::BackendTls(""),
            Failure::BackendClosed,
            Failure::BackendInvalid(""),
            Failure::BackendTimeout,
            Failure::BackendUnwilling(StatusCode::BAD_GATEWAY),
            Failure::RequestTimeout,
        ];
        for failure in all {
            let (status, reason) = failure.answer();
            let row = format!("| {} | `{reason}` |", status.as_u16());
            assert!(page.contains(&row), "docs/failures.md has no row {row}");
            assert!(REASONS.contains(&reason), "{reason} is not counted");
        }
        // That of a client who is gone is told to nobody, and counted.
        assert_eq!(REASONS.len(), all.len() + 1);
        assert_eq!(page.matches("| `").count(), all.len(), "docs/failures.md has a row for nothing");
    }
}
