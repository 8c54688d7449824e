use super::*;
use crate::access_log::LINE_BYTES_MAX;
use crate::access_log::record::{Reason, Upstream};
use crate::access_log::said::{
    HOST_BYTES_MAX, METHOD_BYTES_MAX, PATH_BYTES_MAX, REQUEST_ID_BYTES_MAX, Said, Text, USER_AGENT_BYTES_MAX,
};
use http::StatusCode;
use serde_json::{Value, json};

fn text(bytes: &[u8]) -> Text {
    Text::of(bytes, usize::MAX)
}

/// 2026-11-22 11:35:18.007.
const AT: Duration = Duration::from_millis(1_795_347_318_007);

/// A request that a backend answered.
fn answered() -> Record {
    Record {
        kind: Kind::Request,
        at: AT,
        took: Duration::from_micros(12_345),
        port: 443,
        peer: ([10, 0, 0, 9], 4_711).into(),
        client: [192, 0, 2, 7].into(),
        scheme: Scheme::Https,
        tls: Some("TLSv1.3"),
        said: Said {
            method: text(b"POST"),
            host: text(b"shop.example"),
            path: text(b"/cart"),
            version: Some(Version::HTTP_2),
            request_id: text(b"7f"),
            user_agent: text(b"curl/8.5"),
        },
        pool: Some("default/shop".into()),
        rule: Some(("api".into(), 0)),
        status: Some(StatusCode::CREATED),
        grpc_status: None,
        reason: None,
        request_bytes: 12,
        response_bytes: 345,
        attempts: 2,
        upstream: Some(Upstream {
            backend: ([10, 1, 0, 1], 8_080).into(),
            set: "default/shop/web".into(),
            via: Via::New(Duration::from_micros(250)),
            first_byte: Some(Duration::from_millis(11)),
        }),
        session: Some(SessionResult::Kept),
    }
}

/// A request that was refused before anything was known of it.
fn refused() -> Record {
    Record {
        took: Duration::ZERO,
        scheme: Scheme::Http,
        tls: None,
        said: Said::default(),
        pool: None,
        rule: None,
        status: Some(StatusCode::BAD_REQUEST),
        reason: Some(Reason::Failure("bad_request")),
        request_bytes: 0,
        response_bytes: 0,
        attempts: 0,
        upstream: None,
        session: None,
        ..answered()
    }
}

fn line(format: Format, record: &Record) -> String {
    let mut out = Vec::new();
    write(format, record, &mut out);
    let line = String::from_utf8(out).expect("text");
    let line = line.strip_suffix('\n').expect("an end").to_owned();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    line
}

fn object(record: &Record) -> Value {
    serde_json::from_str(&line(Format::Json, record)).expect("JSON")
}

#[test]
fn json_tells_all_that_is_known_with_its_unit() {
    let expected = json!({
        "time": "2026-11-22T11:35:18.007Z", "kind": "request", "pool": "default/shop", "rule": "api", "port": 443,
        "client": "192.0.2.7", "peer": "10.0.0.9:4711", "method": "POST", "host": "shop.example", "path": "/cart",
        "protocol": "HTTP/2", "scheme": "https", "tls": "TLSv1.3", "request_id": "7f", "user_agent": "curl/8.5",
        "status": 201, "request_bytes": 12, "response_bytes": 345, "duration_ms": 12.345,
        "backend": "10.1.0.1:8080", "set": "default/shop/web", "attempts": 2, "reused": false, "connect_ms": 0.25,
        "first_byte_ms": 11.0, "session": "kept",
    });
    assert_eq!(object(&answered()), expected);
    let expected = json!({
        "time": "2026-11-22T11:35:18.007Z", "kind": "request", "port": 443, "client": "192.0.2.7",
        "peer": "10.0.0.9:4711", "scheme": "http", "status": 400, "reason": "bad_request", "request_bytes": 0,
        "response_bytes": 0, "duration_ms": 0.0,
    });
    assert_eq!(object(&refused()), expected);
}

#[test]
fn what_differs_by_kind_and_connection_is_told() {
    let mut record = answered();
    record.rule = Some(("".into(), 3));
    record.grpc_status = Some(14);
    record.status = None;
    record.upstream.as_mut().expect("there").via = Via::Kept;
    let told = object(&record);
    assert_eq!((&told["rule"], &told["grpc_status"]), (&json!("rules[3]"), &json!(14)));
    assert_eq!((&told["reused"], told.get("connect_ms")), (&json!(true), None));
    // Nothing was sent.
    assert_eq!(told["status"], 499);
    record.kind = Kind::Connection;
    let told = object(&record);
    assert_eq!((&told["kind"], told.get("status"), told.get("scheme")), (&json!("connection"), None, None));
}

#[test]
fn the_common_format_is_that_of_ncsa_and_the_combined_one_that_of_apache() {
    let common = r#"192.0.2.7 - - [22/Nov/2026:11:35:18 +0000] "POST /cart HTTP/2.0" 201 345"#;
    assert_eq!(line(Format::Common, &answered()), common);
    assert_eq!(line(Format::Combined, &answered()), format!(r#"{common} "-" "curl/8.5""#));
    let common = r#"192.0.2.7 - - [22/Nov/2026:11:35:18 +0000] "-" 400 -"#;
    assert_eq!(line(Format::Common, &refused()), common);
    assert_eq!(line(Format::Combined, &refused()), format!(r#"{common} "-" "-""#));
    let mut record = answered();
    record.client = "2001:db8::1".parse().expect("an address");
    record.said.version = Some(Version::HTTP_10);
    record.status = None;
    let common = r#"2001:db8::1 - - [22/Nov/2026:11:35:18 +0000] "POST /cart HTTP/1.0" 499 345"#;
    assert_eq!(line(Format::Common, &record), common);
}

#[test]
fn nothing_that_a_client_says_begins_a_line_or_ends_a_text() {
    let forged = b"/\r\n\x00\x1b[31m\x7f\xc2\x85\xe2\x80\xa8\xff\\x\" 200 1";
    let mut record = answered();
    record.said.path = text(forged);
    record.said.user_agent = text(forged);
    let json = line(Format::Json, &record);
    assert_eq!(json.lines().count(), 1);
    assert!(json.contains(r#"/\u000d\u000a\u0000\u001b[31m\u007f\u0085\u2028"#), "{json}");
    let told = object(&record);
    assert_eq!(told["path"], "/\r\n\0\u{1b}[31m\u{7f}\u{85}\u{2028}\u{fffd}\\x\" 200 1");
    let common = line(Format::Common, &record);
    let escaped = r#"/\x0d\x0a\x00\x1b[31m\x7f\xc2\x85\xe2\x80\xa8\xff\x5cx\x22\x20200\x201"#;
    assert!(common.ends_with(&format!(r#""POST {escaped} HTTP/2.0" 201 345"#)), "{common}");
    let combined = line(Format::Combined, &record);
    assert_eq!(combined.matches('"').count(), 6, "{combined}");
    assert!(combined.ends_with(&format!(r#" "-" "{}""#, escaped.replace(r"\x20", " "))), "{combined}");
}

#[test]
fn the_longest_line_is_as_long_as_it_may_be() {
    let most = |count| text(&vec![0x1f; count]);
    let name = |count| "n".repeat(count).into();
    let record = Record {
        said: Said {
            method: most(METHOD_BYTES_MAX),
            host: most(HOST_BYTES_MAX),
            path: most(PATH_BYTES_MAX),
            version: Some(Version::HTTP_2),
            request_id: most(REQUEST_ID_BYTES_MAX),
            user_agent: most(USER_AGENT_BYTES_MAX),
        },
        // A namespace, a pool, a set and a rule have names of 63, 253, 253 and 253 bytes at most.
        pool: Some(name(63 + 1 + 253)),
        rule: Some((name(253), usize::MAX)),
        took: Duration::MAX,
        request_bytes: u64::MAX,
        response_bytes: u64::MAX,
        reason: Some(Reason::Failure("content_type_refused")),
        grpc_status: Some(u8::MAX),
        attempts: u32::MAX,
        peer: (std::net::Ipv6Addr::from([0xff; 16]), u16::MAX).into(),
        client: std::net::Ipv6Addr::from([0xff; 16]).into(),
        upstream: Some(Upstream {
            backend: (std::net::Ipv6Addr::from([0xff; 16]), u16::MAX).into(),
            set: name(63 + 253 + 253 + 2),
            via: Via::New(Duration::MAX),
            first_byte: Some(Duration::MAX),
        }),
        session: Some(SessionResult::FailedOver),
        ..answered()
    };
    for format in [Format::Json, Format::Common, Format::Combined] {
        let bytes = line(format, &record).len();
        assert!(bytes < LINE_BYTES_MAX, "{format:?}: {bytes}");
    }
}

#[test]
fn moments_are_those_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399, "2000-02-28T23:59:59.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        (1_735_689_600, "2025-01-01T00:00:00.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(Moment::of(Duration::from_secs(seconds)).to_string(), text);
    }
    assert_eq!(Moment::of(AT).0.millisecond(), 7);
}
