//! What is special about gRPC: a call's status is in trailers and not in the status of HTTP, and its deadline in a header.
//!
//! After `PROTOCOL-HTTP2` in the folder `doc` of <https://github.com/grpc/grpc>.

use crate::failure::Failure;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::time::Duration;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How the content types of calls begin: `application/grpc`, `application/grpc+proto`, `application/grpc-web`.
const CONTENT: &[u8] = b"application/grpc";

/// The last of the status codes (UNAUTHENTICATED).
const STATUS_MAX: u8 = 16;

/// Most digits of a `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The content type of a call; `None` where the request is none.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&HeaderValue> {
    let is_call = |kind: &&HeaderValue| {
        kind.as_bytes().get(..CONTENT.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(CONTENT))
    };
    headers.get(CONTENT_TYPE).filter(is_call)
}

/// How long a call may take at most, as its client says; `None` without a word of it, or one that is none.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    content_type(headers)?;
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The status of a call, from trailers or from headers that are both; `None` where there is none that gRPC knows.
pub(crate) fn status_of(fields: &HeaderMap) -> Option<u8> {
    let status = fields.get(STATUS)?.to_str().ok()?.parse().ok()?;
    (status <= STATUS_MAX).then_some(status)
}

/// Turns the headers of an answer of ours into those of a call's answer that has nothing else ("Trailers-Only").
pub(crate) fn tell(failure: Failure, content_type: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(STATUS, status(failure).into());
    let message = HeaderValue::try_from(encoded(&failure.to_string()));
    headers.insert(MESSAGE, message.expect("percent-encoded text is visible ASCII and spaces"));
}

/// As clients map what they get from a server that knows no gRPC
/// (`http-grpc-status-mapping` in the same folder), save where more is known: what took too long is a deadline, and what was
/// too much for a limit a resource.
fn status(failure: Failure) -> u16 {
    const UNKNOWN: u16 = 2;
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match failure {
        Failure::RequestSlow | Failure::BackendTimeout | Failure::RequestTimeout => DEADLINE_EXCEEDED,
        Failure::QueueFull | Failure::QueueTimeout | Failure::ConnectionLimit => RESOURCE_EXHAUSTED,
        other => match other.answer().0.as_u16() {
            400 => INTERNAL,
            401 => UNAUTHENTICATED,
            403 => PERMISSION_DENIED,
            404 | 405 | 501 => UNIMPLEMENTED,
            413 | 414 | 429 | 431 => RESOURCE_EXHAUSTED,
            502..=504 => UNAVAILABLE,
            _ => UNKNOWN,
        },
    }
}

/// Visible ASCII and spaces as they are, save `%`; every other byte as `%XX`.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes all"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str, timeout: &str) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a value");
        HeaderMap::from_iter([(CONTENT_TYPE, value(kind)), (TIMEOUT, value(timeout))])
    }

    #[test]
    fn a_call_is_told_by_its_content_type() {
        for (kind, is_call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=x", true),
            ("application/grpc-web+proto", true),
            ("application/json", false),
            ("application/grp", false),
        ] {
            assert_eq!(content_type(&headers(kind, "1S")).is_some(), is_call, "{kind}");
            assert_eq!(timeout(&headers(kind, "1S")).is_some(), is_call, "{kind}");
        }
        assert!(content_type(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_status_is_one_that_grpc_knows() {
        for (text, wanted) in [("0", Some(0)), ("16", Some(16)), ("17", None), ("-1", None), ("x", None)] {
            let fields = HeaderMap::from_iter([(STATUS, HeaderValue::from_static(text))]);
            assert_eq!(status_of(&fields), wanted, "{text}");
        }
        assert_eq!(status_of(&HeaderMap::new()), None);
    }

    #[test]
    fn time_outs_are_read_up_to_eight_digits_and_nothing_else_is() {
        for (text, wanted) in [
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("0S", Some(Duration::ZERO)),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("8n", Some(Duration::from_nanos(8))),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(timeout(&headers("application/grpc", text)), wanted, "{text}");
        }
    }

    #[test]
    fn failures_are_told_in_statuses_of_grpc() {
        for (failure, wanted) in [
            (Failure::BadRequest(""), 13),
            (Failure::NoRoute, 12),
            (Failure::HeadTooLarge, 8),
            (Failure::QueueFull, 8),
            (Failure::NoBackend, 14),
            (Failure::CircuitOpen { retry_after_s: 1 }, 14),
            (Failure::ConnectFailed, 14),
            (Failure::ConnectTimeout, 14),
            (Failure::BackendClosed, 14),
            (Failure::BackendTimeout, 4),
            (Failure::RequestTimeout, 4),
            (Failure::ExpectationFailed, 2),
        ] {
            assert_eq!(status(failure), wanted, "{failure:?}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(encoded("100 % of \"it\"\n\u{fc}~"), "100 %25 of \"it\"%0A%C3%BC~");
    }
}
