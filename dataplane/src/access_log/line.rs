//! A record as a line. Pure; appends to bytes that are there.
//!
//! JSON has what is known and leaves out the rest. The common format is that of NCSA's httpd, and the combined one what
//! Apache made of it, escaped as Apache does: goaccess and fail2ban read them as they are.

use super::Format;
use super::record::{Kind, Record, Via};
use crate::connection::Scheme;
use crate::sessions::SessionResult;
use http::Version;
use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;
use time::UtcDateTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends a line with its end. At most [`super::LINE_BYTES_MAX`] long, while names of the configuration are those of
/// Kubernetes.
pub(super) fn write(format: Format, record: &Record, out: &mut Vec<u8>) {
    match format {
        Format::Json => json(record, out),
        Format::Common => common(record, out),
        Format::Combined => {
            common(record, out);
            out.extend_from_slice(b" \"-\" \"");
            quoted_or_nothing(record.said.user_agent.bytes(), out);
            out.push(b'"');
        }
    }
    out.push(b'\n');
}

/// `%h %l %u %t "%r" %>s %b`.
fn common(record: &Record, out: &mut Vec<u8>) {
    let Moment(at) = Moment::of(record.at);
    let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.as_hms());
    let month = MONTHS[usize::from(u8::from(month)) - 1];
    let client = record.client;
    put(
        out,
        format_args!("{client} - - [{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \""),
    );
    let said = &record.said;
    if said.method.bytes().is_empty() {
        out.push(b'-');
    } else {
        quoted(said.method.bytes(), Spaces::Escaped, out);
        out.push(b' ');
        quoted(said.path.bytes(), Spaces::Escaped, out);
        if let Some(version) = said.version {
            out.push(b' ');
            // Two digits, as it has been since HTTP/1.
            out.extend_from_slice(if version == Version::HTTP_2 { b"HTTP/2.0" } else { protocol(version) });
        }
    }
    put(out, format_args!("\" {} ", record.status()));
    match record.response_bytes {
        0 => out.push(b'-'),
        bytes => put(out, bytes),
    }
}

fn json(record: &Record, out: &mut Vec<u8>) {
    let kind = match record.kind {
        Kind::Request => "request",
        Kind::WebSocket => "websocket",
        Kind::Connection => "connection",
    };
    out.push(b'{');
    let object = &mut Object(out);
    object.value("time", format_args!("\"{}\"", Moment::of(record.at)));
    object.text("kind", kind.as_bytes());
    object.text("pool", record.pool.as_deref().unwrap_or_default().as_bytes());
    match &record.rule {
        Some((name, position)) if name.is_empty() => {
            object.value("rule", format_args!("\"rules[{position}]\""));
        }
        Some((name, _)) => object.text("rule", name.as_bytes()),
        None => {}
    }
    object.value("port", record.port);
    object.value("client", format_args!("\"{}\"", record.client));
    object.value("peer", format_args!("\"{}\"", record.peer));
    asked(record, object);
    outcome(record, object);
    upstream(record, object);
    out.push(b'}');
}

fn asked(record: &Record, object: &mut Object<'_>) {
    let said = &record.said;
    object.text("method", said.method.bytes());
    object.text("host", said.host.bytes());
    object.text("path", said.path.bytes());
    object.text("protocol", said.version.map(protocol).unwrap_or_default());
    if record.kind != Kind::Connection {
        object.text("scheme", if record.scheme == Scheme::Https { b"https" } else { b"http" });
    }
    object.text("tls", record.tls.unwrap_or_default().as_bytes());
    object.text("request_id", said.request_id.bytes());
    object.text("user_agent", said.user_agent.bytes());
}

fn outcome(record: &Record, object: &mut Object<'_>) {
    if record.kind != Kind::Connection {
        object.value("status", record.status());
    }
    if let Some(status) = record.grpc_status {
        object.value("grpc_status", status);
    }
    if let Some(reason) = record.reason {
        object.text("reason", reason.code().as_bytes());
    }
    object.value("request_bytes", record.request_bytes);
    object.value("response_bytes", record.response_bytes);
    object.ms("duration_ms", record.took);
}

fn upstream(record: &Record, object: &mut Object<'_>) {
    if let Some(upstream) = &record.upstream {
        object.value("backend", format_args!("\"{}\"", upstream.backend));
        object.text("set", upstream.set.as_bytes());
        object.value("attempts", record.attempts);
        match upstream.via {
            Via::Nothing => {}
            Via::Kept => object.value("reused", true),
            Via::New(took) => {
                object.value("reused", false);
                object.ms("connect_ms", took);
            }
        }
        if let Some(first_byte) = upstream.first_byte {
            object.ms("first_byte_ms", first_byte);
        }
    }
    let session = match record.session {
        None => return,
        Some(SessionResult::New) => "new",
        Some(SessionResult::Kept) => "kept",
        Some(SessionResult::FailedOver) => "failed_over",
    };
    object.text("session", session.as_bytes());
}

/// A JSON object that was begun, and the members that it is given.
struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    /// What is JSON already.
    fn value(&mut self, name: &str, value: impl Display) {
        let comma = if self.0.ends_with(b"{") { "" } else { "," };
        put(self.0, format_args!("{comma}\"{name}\":{value}"));
    }

    /// Any bytes; nothing where there are none.
    fn text(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.value(name, "\"");
            escape(bytes, self.0);
            self.0.push(b'"');
        }
    }

    /// In milliseconds, to the microsecond.
    fn ms(&mut self, name: &str, time: Duration) {
        let us = time.as_micros();
        self.value(name, format_args!("{}.{:03}", us / 1_000, us % 1_000));
    }
}

/// Escapes what JSON asks for, all control characters, and what some readers take for the end of a line. What is not UTF-8
/// becomes U+FFFD.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if bytes.iter().all(is_plain) {
        out.extend_from_slice(bytes);
        return;
    }
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' | '\\' => put(out, format_args!("\\{character}")),
            '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(character))),
            control if control.is_control() => put(out, format_args!("\\u{:04x}", u32::from(control))),
            other => put(out, other),
        }
    }
}

/// What becomes of spaces between quotation marks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spaces {
    /// They would part words.
    Escaped,
    Kept,
}

/// Visible ASCII as it is, save quotation marks and backslashes; every other byte as `\xHH`.
fn quoted(bytes: &[u8], spaces: Spaces, out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b' ' if spaces == Spaces::Kept => out.push(byte),
            b'!'..=b'~' if !matches!(byte, b'"' | b'\\') => out.push(byte),
            _ => put(out, format_args!("\\x{byte:02x}")),
        }
    }
}

fn quoted_or_nothing(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        out.push(b'-');
    }
    quoted(bytes, Spaces::Kept, out);
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2",
        _ => b"HTTP/1.1",
    }
}

fn put(out: &mut Vec<u8>, what: impl Display) {
    write!(out, "{what}").expect("memory takes all");
}

/// A moment in UTC. As text by RFC 3339, to the millisecond.
struct Moment(UtcDateTime);

impl Moment {
    /// So long after 1970; what is after all years that the library knows is no time that a clock shows.
    fn of(since_1970: Duration) -> Self {
        let nanos = i128::try_from(since_1970.as_nanos()).unwrap_or_default();
        Self(UtcDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(UtcDateTime::UNIX_EPOCH))
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        let (hour, minute, second, ms) = self.0.as_hms_milli();
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

#[cfg(test)]
mod tests;
