//! What is asked about, as people write it: a request, a connection of layer 4, or a flow of datagrams.

use super::value;
use crate::layer4;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Uri};
use lb_core::route::parameter;
use rustls_pki_types::DnsName;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// Bytes of all that is asked; what a listener takes of a head is less by default.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;

/// A request that is asked about, or a connection or flow whose bytes nobody reads. It is one that could be sent, whatever a
/// listener makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub(super) scheme: UrlScheme,
    pub(super) authority: String,
    /// `None` at layer 4, and only there.
    pub(super) sent: Option<Sent>,
    pub(super) source: IpAddr,
    /// `None`: the URL says it.
    pub(super) port: Option<u16>,
    url_port: Option<u16>,
}

/// What a client writes in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    method: Method,
    /// Path and query.
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// How a client speaks, as the URL begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlScheme {
    Http,
    Https,
    Tcp,
    Tls,
    Udp,
}

/// What is asked about, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Request,
    Connection,
    Flow,
}

/// What is of requests, and of nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfRequests {
    /// GET and the others.
    Method,
    /// A field of the head.
    Header,
    /// A path or a query.
    Path,
}

/// Why nothing can be asked so. Values of headers are not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// It has blanks, say.
    #[error("{0:?} is not a method: write it as clients send it, like GET")]
    Method(String),
    /// Not a URL.
    #[error("{0:?} is not a URL: write it like http://shop.example/path?query, with spaces as %20")]
    Url(String),
    /// Not a URL of layer 4.
    #[error("{0:?} is not a URL: write it like tcp://cache.example:6379")]
    BareUrl(String),
    /// Without a scheme, or with another one.
    #[error(
        "{0:?} does not begin with http://, https://, tcp://, tls:// or udp://: write which one the client speaks"
    )]
    Scheme(String),
    /// At layer 4 there is no usual one.
    #[error("{0:?} has no port: write it behind the host, like tcp://cache.example:6379, or say --port")]
    NoPort(String),
    /// Nothing of what is sent is read there.
    #[error("what is sent over {0}:// is not read, and has no {1}: leave it out, or ask http:// or https://")]
    OfRequests(&'static str, OfRequests),
    /// No name that a handshake may have.
    #[error(
        "{0:?} is not a name that clients ask for in a handshake (SNI): write one like db.example, without a dot at its end"
    )]
    ServerName(String),
    /// A password has no place in it.
    #[error("the URL names a user: leave it out, or send it with -H 'Authorization: ...'")]
    User,
    /// No `Name: value`.
    #[error("header {0:?} is not of the form 'Name: value'")]
    Header(String),
    /// A name that is no token.
    #[error("{0:?} is not a name of a header: use letters, digits and !#$%&'*+-.^_`|~")]
    HeaderName(String),
    /// A line break, say.
    #[error("the value of header {0} has characters that no header may have")]
    HeaderValue(HeaderName),
    /// `Host` is no host.
    #[error("{0:?} in the header Host is not a host, or a host and a port")]
    Host(String),
    /// No address.
    #[error("{0:?} is not an address: write an IPv4 or IPv6 address without a port, like 192.0.2.7")]
    Source(String),
    /// No port.
    #[error("{0:?} is not a port: choose one of 1 to 65535")]
    Port(String),
    /// Past [`QUESTION_BYTES_MAX`].
    #[error("what is asked has more than {QUESTION_BYTES_MAX} bytes")]
    TooLong,
    /// A query without it.
    #[error("the parameter url is missing: ask like ?url=http%3A%2F%2Fshop.example%2F")]
    NoUrl,
}

impl fmt::Display for OfRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "method",
            Self::Header => "headers",
            Self::Path => "path",
        })
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Connection => "connection",
            Self::Flow => "flow",
        })
    }
}

impl UrlScheme {
    const ALL: [Self; 5] = [Self::Http, Self::Https, Self::Tcp, Self::Tls, Self::Udp];

    /// That of a URL, in whatever case.
    fn of(url: &str) -> Option<Self> {
        let (name, _) = url.split_once("://")?;
        Self::ALL.into_iter().find(|own| own.name().eq_ignore_ascii_case(name))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }

    pub(super) fn noun(self) -> Noun {
        match self {
            Self::Http | Self::Https => Noun::Request,
            Self::Tcp | Self::Tls => Noun::Connection,
            Self::Udp => Noun::Flow,
        }
    }

    /// `None` at layer 4.
    pub(super) fn usual_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Tcp | Self::Tls | Self::Udp => None,
        }
    }
}

impl Question {
    /// Of a URL, with a method (GET unless it is said) and headers like `Name: value`, `Host` among them where it is not the
    /// URL's; layer 4 has neither. What is asked about comes from `source`, to `port` where the URL does not say the port that
    /// is listened on.
    ///
    /// # Errors
    /// [`QuestionError`] where a part is not what it should be.
    pub fn new(
        method: Option<&str>,
        url: &str,
        headers: &[String],
        source: IpAddr,
        port: Option<u16>,
    ) -> Result<Self, QuestionError> {
        let bytes = method.map_or(0, str::len) + url.len() + headers.iter().map(String::len).sum::<usize>();
        if bytes > QUESTION_BYTES_MAX {
            return Err(QuestionError::TooLong);
        }
        let scheme = UrlScheme::of(url).ok_or_else(|| QuestionError::Scheme(url.to_owned()))?;
        let is_bare = scheme.usual_port().is_none();
        let wrong = || match is_bare {
            true => QuestionError::BareUrl(url.to_owned()),
            false => QuestionError::Url(url.to_owned()),
        };
        let read: Uri = url.parse().map_err(|_| wrong())?;
        let own = read.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        if own.as_str().contains('@') {
            return Err(QuestionError::User);
        }
        let has_port = own.as_str().len() > own.host().len();
        if has_port && own.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong());
        }
        let target = read.path_and_query().map_or("/", |target| target.as_str());
        let mut question = Self {
            scheme,
            authority: own.to_string(),
            sent: None,
            source: source.to_canonical(),
            port,
            url_port: own.port_u16(),
        };
        if is_bare {
            question.check_bare(method, target, headers)?;
            question.said_port().ok_or_else(|| QuestionError::NoPort(url.to_owned()))?;
            return Ok(question);
        }
        let method = method.unwrap_or("GET");
        let parsed = Method::from_bytes(method.as_bytes());
        let method = parsed.map_err(|_| QuestionError::Method(method.to_owned()))?;
        let mut sent = Sent { method, target: target.to_owned(), headers: Vec::new() };
        for header in headers {
            sent.add(header, &mut question.authority)?;
        }
        question.sent = Some(sent);
        Ok(question)
    }

    /// What is of requests has no place in a question of layer 4.
    fn check_bare(
        &self,
        method: Option<&str>,
        target: &str,
        headers: &[String],
    ) -> Result<(), QuestionError> {
        let given = [
            (OfRequests::Method, method.is_some()),
            (OfRequests::Header, !headers.is_empty()),
            (OfRequests::Path, target != "/"),
        ];
        if let Some((what, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(QuestionError::OfRequests(self.scheme.name(), what));
        }
        match self.server_name() {
            Some(name) if DnsName::try_from(name.as_str()).is_err() || name.ends_with('.') => {
                Err(QuestionError::ServerName(name))
            }
            _ => Ok(()),
        }
    }

    /// The question that a query asks: `url`, and where they are not as [`Self::new`] has them by default `method`,
    /// `header` any number of times, `source` (127.0.0.1) and `port`.
    ///
    /// # Errors
    /// [`QuestionError`], as there.
    pub fn from_query(query: &str) -> Result<Self, QuestionError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |name: &str| parameter(query, name).map(|value| text(&value));
        let headers = query.split('&').filter_map(|pair| parameter(pair, "header"));
        let headers: Vec<_> = headers.map(|value| text(&value)).collect();
        let source = one("source").unwrap_or_else(|| "127.0.0.1".to_owned());
        let source = source.parse().map_err(|_| QuestionError::Source(source))?;
        let port = |text: String| match text.parse() {
            Ok(0) | Err(_) => Err(QuestionError::Port(text)),
            Ok(port) => Ok(port),
        };
        let port = one("port").map(port).transpose()?;
        let url = one("url").ok_or(QuestionError::NoUrl)?;
        Self::new(one("method").as_deref(), &url, &headers, source, port)
    }

    /// The query that [`Self::from_query`] reads as this question.
    #[must_use]
    pub fn to_query(&self) -> String {
        let url_port = self.url_port.map(|port| format!(":{port}")).unwrap_or_default();
        let target = self.sent.as_ref().map_or("", |sent| &sent.target);
        let url = format!("{}://{}{url_port}{target}", self.scheme.name(), self.host());
        let mut query = format!("url={}", encoded(&url));
        if let Some(Sent { method, headers, .. }) = &self.sent {
            let _ = write!(query, "&method={}", encoded(method.as_str()));
            let _ = write!(query, "&header={}", encoded(&format!("host: {}", self.authority)));
            for (name, value) in headers {
                let value = value.to_str().unwrap_or_default();
                let _ = write!(query, "&header={}", encoded(&format!("{name}: {value}")));
            }
        }
        let _ = write!(query, "&source={}", encoded(&self.source.to_string()));
        if let Some(port) = self.port {
            let _ = write!(query, "&port={port}");
        }
        query
    }

    /// Without the port.
    fn host(&self) -> String {
        self.authority.parse::<Authority>().map(|own| own.host().to_owned()).unwrap_or_default()
    }

    /// The name that a client asks for in its handshake: a host that is no address, of a connection of TLS.
    fn server_name(&self) -> Option<String> {
        let host = self.host();
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
        let is_named = self.scheme == UrlScheme::Tls && address.parse::<IpAddr>().is_err();
        is_named.then_some(host)
    }

    /// The host that routes of layer 4 know it by.
    pub(super) fn routed_host(&self) -> String {
        layer4::host(self.server_name().as_deref())
    }

    /// The port that is asked for in words; `None`: the usual one of the scheme.
    pub(super) fn said_port(&self) -> Option<u16> {
        self.port.or(self.url_port)
    }

    pub(super) fn told(&self) -> value::Request {
        let request = value::Request {
            scheme: self.scheme.name().to_owned(),
            authority: self.authority.clone(),
            source: self.source.to_string(),
            ..value::Request::default()
        };
        match &self.sent {
            None => request,
            Some(sent) => value::Request {
                method: sent.method.to_string(),
                target: sent.target.clone(),
                headers: sent.headers.iter().map(|(name, _)| name.to_string()).collect(),
                ..request
            },
        }
    }
}

impl Sent {
    /// Adds a header, or makes it the host.
    fn add(&mut self, header: &str, authority: &mut String) -> Result<(), QuestionError> {
        let (name, value) = header.split_once(':').ok_or_else(|| {
            // What stands there may be a secret without its name.
            QuestionError::Header(header.chars().take(20).collect())
        })?;
        let parsed = HeaderName::from_bytes(name.trim().as_bytes());
        let name = parsed.map_err(|_| QuestionError::HeaderName(name.to_owned()))?;
        let value = HeaderValue::from_str(value.trim());
        let value = value.map_err(|_| QuestionError::HeaderValue(name.clone()))?;
        if name != HOST {
            self.headers.push((name, value));
            return Ok(());
        }
        let host = value.to_str().unwrap_or_default();
        let parsed: Result<Authority, _> = host.parse();
        if parsed.is_ok_and(|host| !host.host().is_empty() && !host.as_str().contains('@')) {
            host.clone_into(authority);
            return Ok(());
        }
        Err(QuestionError::Host(host.to_owned()))
    }

    /// As a client would write it who asks this host.
    pub(super) fn head(&self, authority: &str) -> Vec<u8> {
        let Self { method, target, headers } = self;
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// Percent-encoded, but for what stands for itself everywhere.
fn encoded(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            made.push(char::from(byte));
        } else {
            let _ = write!(made, "%{byte:02X}");
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str, headers: &[&str]) -> Result<Question, QuestionError> {
        let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
        Question::new(None, url, &headers, [192, 0, 2, 1].into(), None)
    }

    fn sent(question: &Question) -> &Sent {
        question.sent.as_ref().expect("a request")
    }

    #[test]
    fn a_url_is_taken_apart_and_a_host_header_takes_the_place_of_its_host() {
        let question = ask("http://Shop.example:8080/a%20b?x=1#part", &["X-A: 1:2", "x-a:3"]).expect("good");
        assert_eq!((&*question.authority, &*sent(&question).target), ("Shop.example:8080", "/a%20b?x=1"));
        assert_eq!(question.said_port(), Some(8080));
        let head = String::from_utf8(sent(&question).head(&question.authority)).expect("text");
        assert_eq!(head, "GET /a%20b?x=1 HTTP/1.1\r\nHost: Shop.example:8080\r\nx-a: 1:2\r\nx-a: 3\r\n\r\n");
        let other = ask("https://127.0.0.1", &["Host: shop.example"]).expect("good");
        assert_eq!((&*other.authority, &*sent(&other).target), ("shop.example", "/"));
        assert_eq!((other.said_port(), other.scheme.usual_port()), (None, Some(443)));
    }

    #[test]
    fn a_name_is_asked_for_over_tls_alone_and_an_address_is_none() {
        for (url, host) in [
            ("tls://Db.Example:5432", "db.example"),
            ("TLS://db.example:5432/", "db.example"),
            ("tls://192.0.2.1:5432", ""),
            ("tls://[2001:db8::1]:5432", ""),
            ("tcp://db.example:5432", ""),
            ("udp://db.example:53", ""),
        ] {
            let question = ask(url, &[]).expect(url);
            assert_eq!(question.routed_host(), host, "{url}");
            assert!(question.sent.is_none() && question.said_port().is_some(), "{url}");
        }
    }

    #[test]
    fn a_port_may_be_said_beside_a_url_of_layer_4_and_has_to_be_said_somewhere() {
        let ask = |url, port| Question::new(None, url, &[], [192, 0, 2, 1].into(), port);
        assert_eq!(ask("tcp://a", Some(6379)).map(|question| question.said_port()), Ok(Some(6379)));
        assert_eq!(ask("tcp://a:1", Some(2)).map(|question| question.said_port()), Ok(Some(2)));
        assert_eq!(ask("tcp://a", None), Err(QuestionError::NoPort("tcp://a".into())));
    }

    #[test]
    fn what_cannot_be_asked_is_told_with_the_part_that_is_wrong_and_no_secret() {
        for (url, headers, want) in [
            ("shop.example/a", &[][..], "does not begin with http://"),
            ("ftp://shop.example/a", &[], "does not begin with http://"),
            ("://a", &[], "does not begin with http://, https://, tcp://, tls:// or udp://"),
            ("http://", &[], "is not a URL"),
            ("tcp://", &[], "is not a URL: write it like tcp://"),
            ("tcp://a:0", &[], "is not a URL: write it like tcp://"),
            ("udp://u@a:53", &[], "names a user"),
            ("tcp://a:1/b", &[], "over tcp:// is not read, and has no path: leave it out"),
            ("udp://a:1?b", &[], "over udp:// is not read, and has no path: leave it out"),
            ("tls://a:1", &["X-A: secret"], "over tls:// is not read, and has no headers: leave it out"),
            ("tls://a", &[], "\"tls://a\" has no port: write it behind the host"),
            ("tls://a.example.:1", &[], "is not a name that clients ask for in a handshake"),
            ("tls://a..b:1", &[], "is not a name that clients ask for in a handshake"),
            ("http:///a", &[], "is not a URL"),
            ("http://shop example/", &[], "is not a URL"),
            ("http://shop.example:0/", &[], "is not a URL"),
            ("http://shop.example:70000/", &[], "is not a URL"),
            ("http://u:p@shop.example/", &[], "names a user"),
            ("http://a/", &["secret-without-a-name-that-is-long"], "header \"secret-without-a-nam\" is not"),
            ("http://a/", &["a b: 1"], "is not a name of a header"),
            ("http://a/", &["a: secret\r\nb: 2"], "the value of header a has"),
            ("http://a/", &["Host: a b"], "is not a host"),
        ] {
            let said = ask(url, headers).expect_err(url).to_string();
            assert!(said.contains(want), "{url} {headers:?}: {said}");
        }
        let of = |method, url| Question::new(Some(method), url, &[], [127, 0, 0, 1].into(), None);
        assert_eq!(of("GE T", "http://a/"), Err(QuestionError::Method("GE T".into())));
        assert_eq!(of("GET", "tcp://a:1"), Err(QuestionError::OfRequests("tcp", OfRequests::Method)));
        let long = |bytes: usize| ask("http://a/", &[&format!("x: {}", "a".repeat(bytes - 12))]);
        assert!(long(QUESTION_BYTES_MAX).is_ok());
        assert_eq!(long(QUESTION_BYTES_MAX + 1), Err(QuestionError::TooLong));
    }

    #[test]
    fn a_question_is_the_same_after_a_query() {
        let headers = ["Cookie: a=b; c=\"d e\"".to_owned(), "x-a: 100%".to_owned()];
        for (url, port) in [
            ("http://shop.example/a?b=c&d=%20", None),
            ("https://[2001:db8::1]:8443/", Some(9)),
            ("https://shop.example:8443/", None),
        ] {
            let question =
                Question::new(Some("PURGE"), url, &headers, [192, 0, 2, 7].into(), port).expect("good");
            assert_eq!(Question::from_query(&question.to_query()), Ok(question));
        }
        for (url, port) in
            [("tcp://a.example:1", None), ("tls://[2001:db8::1]:2", Some(3)), ("udp://a.example", Some(53))]
        {
            let question = Question::new(None, url, &[], [192, 0, 2, 7].into(), port).expect("good");
            assert_eq!(Question::from_query(&question.to_query()), Ok(question));
        }
        let other = ask("http://127.0.0.1:8080/", &["Host: shop.example"]).expect("good");
        assert_eq!(Question::from_query(&other.to_query()), Ok(other));
        for (query, want) in [
            ("", QuestionError::NoUrl),
            ("url=http://a/&source=here", QuestionError::Source("here".into())),
            ("url=http://a/&port=0", QuestionError::Port("0".into())),
        ] {
            assert_eq!(Question::from_query(query), Err(want), "{query}");
        }
    }
}
