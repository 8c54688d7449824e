//! Message heads: bytes to [`RequestHead`] and [`ResponseHead`], and how the body that follows is framed.

use super::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::failure::Failure;
use crate::message::{BodyLength, RequestHead, ResponseHead, Upgrade};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Version};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

/// How the end of a body is found (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Whether the connection can serve another message after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    Keep,
    Close,
}

/// A request's head with what only its connection needs to know.
#[derive(Debug)]
pub(crate) struct ParsedRequest {
    pub(crate) head: RequestHead,
    pub(crate) framing: Framing,
    pub(crate) persistence: Persistence,
    pub(crate) minor_version: u8,
}

/// A response's head with what only its connection needs to know.
#[derive(Debug)]
pub(crate) struct ParsedResponse {
    pub(crate) head: ResponseHead,
    pub(crate) framing: Framing,
    pub(crate) persistence: Persistence,
}

/// The length of the head at the start of `buf`, with its empty line; `None` while that has not arrived.
/// `line` remembers between calls where the last unfinished line begins.
pub(crate) fn head_end(buf: &[u8], line: &mut usize) -> Result<Option<usize>, &'static str> {
    while let Some(at) = memchr::memchr(b'\n', &buf[*line..]).map(|at| *line + at) {
        if at == *line || buf[at - 1] != b'\r' {
            return Err("A line ends with LF alone; end lines with CR LF.");
        }
        if at - *line == 1 && *line > 0 {
            return Ok(Some(at + 1));
        }
        *line = at + 1;
    }
    Ok(None)
}

/// Parses a whole request head, as found by [`head_end`], of at most so many header fields.
pub(crate) fn request(bytes: &Bytes, headers_max: usize) -> Result<ParsedRequest, Failure> {
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => {
            return Err(Failure::BadRequest("The request's head is incomplete."));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(Failure::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(Failure::VersionUnsupported),
        Err(error) => return Err(Failure::BadRequest(sentence(error))),
    }
    let (Some(method), Some(target), Some(minor_version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Failure::BadRequest("The request line is incomplete."));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Failure::BadRequest("The method is not a token; use a name such as GET."))?;
    if method == Method::CONNECT {
        return Err(Failure::MethodRefused);
    }
    if parsed.headers.len() > headers_max {
        return Err(Failure::TooManyHeaders);
    }
    let mut fields = Fields::default();
    for field in parsed.headers.iter() {
        fields.add(bytes, field).map_err(Failure::BadRequest)?;
    }
    let (target_authority, target) = split_target(bytes, target, &method).map_err(Failure::BadRequest)?;
    let authority = match (target_authority, fields.host.take()) {
        (Some(named), Some(host)) if named.as_str().eq_ignore_ascii_case(host.as_str()) => Some(named),
        (Some(_), Some(_)) => {
            return Err(Failure::BadRequest("The target and the Host header name different hosts."));
        }
        (Some(named), None) if minor_version == 0 => Some(named),
        (None, host) if host.is_some() || minor_version == 0 => host,
        _ => return Err(Failure::BadRequest("The Host header is missing.")),
    };
    fields.check_expectation(minor_version)?;
    let framing = fields.request_framing(minor_version)?;
    let upgrade =
        if minor_version == 1 && framing == Framing::Empty { fields.upgrade() } else { Upgrade::No };
    let persistence = fields.persistence(minor_version);
    let body = match framing {
        Framing::Empty | Framing::UntilClose => BodyLength::Empty,
        Framing::Length(length) => BodyLength::Known(length),
        Framing::Chunked => BodyLength::Unknown,
    };
    let headers = fields.end_to_end();
    let version = if minor_version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let head = RequestHead { version, method, authority, target, headers, body, upgrade };
    Ok(ParsedRequest { head, framing, persistence, minor_version })
}

/// Parses a whole response head, as found by [`head_end`], to a request with `method`.
pub(crate) fn response(bytes: &Bytes, method: &Method) -> Result<ParsedResponse, &'static str> {
    if !bytes.starts_with(b"HTTP/") {
        return Err("it does not begin with a status line");
    }
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots)
    {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("its head is incomplete"),
        Err(error) => return Err(sentence(error)),
    }
    let (Some(code), Some(minor_version)) = (parsed.code, parsed.version) else {
        return Err("its status line is incomplete");
    };
    let status = StatusCode::from_u16(code).map_err(|_| "its status is not between 100 and 999")?;
    let mut fields = Fields::default();
    for field in parsed.headers.iter() {
        fields.add(bytes, field)?;
    }
    if status == StatusCode::SWITCHING_PROTOCOLS && fields.upgrade() == Upgrade::No {
        return Err("it switches to something other than WebSocket");
    }
    let (framing, body) = fields.response_framing(status, method, minor_version)?;
    let persistence = match framing {
        Framing::UntilClose => Persistence::Close,
        _ => fields.persistence(minor_version),
    };
    let head = ResponseHead { status, headers: fields.end_to_end(), body };
    Ok(ParsedResponse { head, framing, persistence })
}

/// Parses a trailer section that ends with its empty line. Fields that would change the message are dropped.
pub(crate) fn trailers(bytes: &Bytes) -> Result<HeaderMap, &'static str> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let httparse::Status::Complete((_, parsed)) =
        httparse::parse_headers(bytes, &mut slots).map_err(sentence)?
    else {
        return Err("The trailer section is incomplete.");
    };
    let mut fields = Fields::default();
    for field in parsed {
        let _ = fields.add(bytes, field);
    }
    let mut map = fields.end_to_end();
    drop_forbidden_trailers(&mut map);
    Ok(map)
}

/// Header fields, sorted into those that go on and those that are for this connection alone.
#[derive(Default)]
struct Fields {
    map: HeaderMap,
    host: Option<Authority>,
    length: Option<u64>,
    coding: Option<HeaderValue>,
    connection: Vec<HeaderValue>,
    upgrade: Option<HeaderValue>,
    takes_trailers: bool,
}

impl Fields {
    fn add(&mut self, bytes: &Bytes, field: &httparse::Header<'_>) -> Result<(), &'static str> {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "A header's name is not a token.")?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .map_err(|_| "A header's value holds a control character.")?;
        match name {
            // What a backend behind CGI or WSGI reads as framing, whatever we make of it.
            _ if is_disguised(name.as_str()) => {
                return Err("A header's name is Content-Length or Transfer-Encoding with an underscore.");
            }
            header::HOST => {
                if self.host.is_some() {
                    return Err("There are two Host headers; send one.");
                }
                self.host = Some(authority(&bytes.slice_ref(field.value))?);
            }
            header::CONTENT_LENGTH => {
                if self.length.is_some() {
                    return Err("There are two Content-Length headers; send one.");
                }
                self.length =
                    Some(decimal(field.value).ok_or("The Content-Length is not a decimal number.")?);
            }
            header::TRANSFER_ENCODING => {
                if self.coding.is_some() {
                    return Err("There are two Transfer-Encoding headers; send one.");
                }
                self.coding = Some(value);
            }
            header::CONNECTION => self.connection.push(value),
            header::UPGRADE => self.upgrade = Some(value),
            _ if name == "keep-alive" || name == "proxy-connection" => {}
            // The one member of TE that is end to end in effect: gRPC asks for it.
            header::TE => self.takes_trailers |= has_token(&value, "trailers"),
            _ => drop(self.map.append(name, value)),
        }
        Ok(())
    }

    fn request_framing(&self, minor_version: u8) -> Result<Framing, Failure> {
        match (&self.coding, self.length) {
            (Some(_), Some(_)) => Err(Failure::BadRequest(
                "The request has both a Content-Length and a Transfer-Encoding; send one of them.",
            )),
            (Some(_), None) if minor_version == 0 => {
                Err(Failure::BadRequest("HTTP/1.0 has no Transfer-Encoding; send a Content-Length."))
            }
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            (Some(_), None) => Err(Failure::CodingUnsupported),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::Empty),
        }
    }

    fn response_framing(
        &self,
        status: StatusCode,
        method: &Method,
        minor_version: u8,
    ) -> Result<(Framing, BodyLength), &'static str> {
        if self.coding.is_some() && self.length.is_some() {
            return Err("it has both a Content-Length and a Transfer-Encoding");
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            // A body that no reader expects would be taken for the next answer (RFC 9112, section 6.3).
            if self.coding.is_some() || self.length.is_some_and(|length| length > 0) {
                return Err("it announces a body that its status has not");
            }
            return Ok((Framing::Empty, BodyLength::Empty));
        }
        if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok((Framing::Empty, BodyLength::Announced(self.length)));
        }
        match (&self.coding, self.length) {
            (Some(coding), _) if minor_version == 1 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                Ok((Framing::Chunked, BodyLength::Unknown))
            }
            (Some(_), _) => Err("its transfer coding is not chunked"),
            (None, Some(0)) => Ok((Framing::Empty, BodyLength::Known(0))),
            (None, Some(length)) => Ok((Framing::Length(length), BodyLength::Known(length))),
            (None, None) => Ok((Framing::UntilClose, BodyLength::Unknown)),
        }
    }

    /// The only expectation is 100-continue (RFC 9110, section 10.1.1). Another one that a backend reads differently, or
    /// one beside it, leaves it open whether the body is waited for.
    fn check_expectation(&mut self, minor_version: u8) -> Result<(), Failure> {
        if minor_version == 0 {
            // Whoever speaks HTTP/1.0 waits for nothing.
            self.map.remove(header::EXPECT);
        }
        expectation(&self.map)
    }

    fn persistence(&self, minor_version: u8) -> Persistence {
        let named = |token| self.connection.iter().any(|value| has_token(value, token));
        if named("close") || (minor_version == 0 && !named("keep-alive")) {
            Persistence::Close
        } else {
            Persistence::Keep
        }
    }

    /// Only WebSocket: another protocol behind an upgrade (h2c above all) would pass our routes by.
    fn upgrade(&self) -> Upgrade {
        let asked = self.connection.iter().any(|value| has_token(value, "upgrade"))
            && self.upgrade.as_ref().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if asked { Upgrade::WebSocket } else { Upgrade::No }
    }

    /// What goes on to the other side: without the fields that Connection names (RFC 9110, section 7.6.1).
    fn end_to_end(mut self) -> HeaderMap {
        for value in &self.connection {
            for token in tokens(value) {
                if let Ok(name) = HeaderName::from_bytes(token)
                    && !is_end_to_end(&name)
                {
                    self.map.remove(name);
                }
            }
        }
        if self.takes_trailers {
            self.map.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        self.map
    }
}

/// Fields that are end to end whatever Connection says: those that we, or whoever is behind us, decide by. A client that
/// names them means to have them dropped on the way.
fn is_end_to_end(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 9] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::FORWARDED,
        header::SET_COOKIE,
        header::VIA,
    ];
    NAMES.contains(name) || name.as_str().starts_with("x-forwarded-") || name == "x-real-ip"
}

/// Names that are those of fields that frame messages, where a reader takes underscores for hyphens.
const DISGUISED: [&str; 2] = ["content_length", "transfer_encoding"];

/// Whether a name is one of a field that frames messages to some readers alone.
pub(crate) fn is_disguised(name: &str) -> bool {
    DISGUISED.contains(&name)
}

/// Refuses every expectation but one of 100-continue.
pub(crate) fn expectation(headers: &HeaderMap) -> Result<(), Failure> {
    let mut values = headers.get_all(header::EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(()),
        _ => Err(Failure::ExpectationFailed),
    }
}

/// Takes away what is no trailer: fields that frame or route a message, say who asks, or change how it is read (RFC 9110,
/// section 6.5.1). Some readers merge trailers into the headers.
pub(crate) fn drop_forbidden_trailers(fields: &mut HeaderMap) {
    const NAMES: [HeaderName; 30] = [
        header::AGE,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::EXPIRES,
        header::HOST,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::RETRY_AFTER,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::WWW_AUTHENTICATE,
    ];
    if fields.is_empty() {
        return;
    }
    for name in &NAMES {
        fields.remove(name);
    }
    for name in DISGUISED {
        fields.remove(name);
    }
}

fn split_target(
    bytes: &Bytes,
    target: &str,
    method: &Method,
) -> Result<(Option<Authority>, PathAndQuery), &'static str> {
    const NOT_A_TARGET: &str = "The request's target is not a path; begin it with a slash.";
    if target.bytes().any(|b| b == b'#') {
        return Err("The request's target has a fragment; leave out '#' and what follows.");
    }
    if target.starts_with('/') || (target == "*" && *method == Method::OPTIONS) {
        let target =
            PathAndQuery::from_maybe_shared(bytes.slice_ref(target.as_bytes())).map_err(|_| NOT_A_TARGET)?;
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(NOT_A_TARGET)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(NOT_A_TARGET);
    }
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (named, path) = rest.split_at(path_at);
    let named = authority(&bytes.slice_ref(named.as_bytes()))?;
    let path = match path.as_bytes().first() {
        None => PathAndQuery::from_static("/"),
        Some(b'/') => {
            PathAndQuery::from_maybe_shared(bytes.slice_ref(path.as_bytes())).map_err(|_| NOT_A_TARGET)?
        }
        Some(_) => PathAndQuery::try_from(format!("/{path}")).map_err(|_| NOT_A_TARGET)?,
    };
    Ok((Some(named), path))
}

/// A host with an optional port and nothing else (RFC 9110, section 7.2).
pub(crate) fn authority(bytes: &Bytes) -> Result<Authority, &'static str> {
    const RULE: &str = "The host is not a name or address with an optional port.";
    let (host, port) = match bytes.first() {
        Some(b'[') => {
            let end = memchr::memchr(b']', bytes).ok_or(RULE)?;
            (&bytes[..=end], &bytes[end + 1..])
        }
        _ => bytes.split_at(memchr::memchr(b':', bytes).unwrap_or(bytes.len())),
    };
    // Stricter than RFC 3986, which allows sub-delims and percent-encoding: no name in use has them, and readers differ.
    let named = match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        name => name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b)),
    };
    let numbered = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5 && decimal(digits).is_some_and(|port| (1..=0xffff).contains(&port))
        }
        _ => false,
    };
    if host.is_empty() || !named || !numbered {
        return Err(RULE);
    }
    Authority::from_maybe_shared(bytes.clone()).map_err(|_| RULE)
}

/// Digits only: no sign, no space, no list. At most `i64::MAX`: readers that count in signed numbers would wrap.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let value = bytes.iter().try_fold(0u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })?;
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
}

fn sentence(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => {
            "A header's name holds a character that is not allowed, or a line is folded."
        }
        httparse::Error::HeaderValue => "A header's value holds a control character.",
        httparse::Error::NewLine => "A line does not end with CR LF.",
        httparse::Error::Status => "The status line is malformed.",
        httparse::Error::Token => {
            "The request line is malformed: send METHOD, one space, target, one space, HTTP/1.1."
        }
        httparse::Error::TooManyHeaders => "There are more than 100 header fields.",
        httparse::Error::Version => "The version is not HTTP/1.0 or HTTP/1.1.",
    }
}

/// True when a head that has not ended is already too large.
pub(crate) fn is_too_large(buffered: usize) -> bool {
    buffered > HEAD_BYTES_MAX
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
