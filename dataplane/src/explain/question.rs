//! A request that is asked about, as people write it.

use super::value;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Uri};
use lb_core::route::parameter;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Bytes of all that is asked; what a listener takes of a head is less by default.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;

/// A request that is asked about. It is one that could be written on the wire, whatever a listener makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub(super) method: Method,
    pub(super) is_https: bool,
    pub(super) authority: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) source: IpAddr,
    /// `None`: the URL says it.
    pub(super) port: Option<u16>,
    url_port: Option<u16>,
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
    /// Without a scheme, or with another one.
    #[error("{0:?} does not begin with http:// or https://: write which one the client speaks")]
    Scheme(String),
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

impl Question {
    /// Of a method, a URL, and headers like `Name: value`, `Host` among them where it is not the URL's. The connection comes
    /// from `source`, to `port` where the URL does not say the port that is listened on.
    ///
    /// # Errors
    /// [`QuestionError`] where a part is not what it should be.
    pub fn new(
        method: &str,
        url: &str,
        headers: &[String],
        source: IpAddr,
        port: Option<u16>,
    ) -> Result<Self, QuestionError> {
        let bytes = method.len() + url.len() + headers.iter().map(String::len).sum::<usize>();
        if bytes > QUESTION_BYTES_MAX {
            return Err(QuestionError::TooLong);
        }
        let parsed = Method::from_bytes(method.as_bytes());
        let parsed = parsed.map_err(|_| QuestionError::Method(method.to_owned()))?;
        let lower = url.get(..8).unwrap_or(url).to_ascii_lowercase();
        let is_https = lower.starts_with("https://");
        if !is_https && !lower.starts_with("http://") {
            return Err(QuestionError::Scheme(url.to_owned()));
        }
        let wrong = || QuestionError::Url(url.to_owned());
        let read: Uri = url.parse().map_err(|_| wrong())?;
        let own = read.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        if own.as_str().contains('@') {
            return Err(QuestionError::User);
        }
        let has_port = own.as_str().len() > own.host().len();
        if has_port && own.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong());
        }
        let mut question = Self {
            method: parsed,
            is_https,
            authority: own.to_string(),
            target: read.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: Vec::new(),
            source: source.to_canonical(),
            port,
            url_port: own.port_u16(),
        };
        for header in headers {
            question.add(header)?;
        }
        Ok(question)
    }

    fn add(&mut self, header: &str) -> Result<(), QuestionError> {
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
            host.clone_into(&mut self.authority);
            return Ok(());
        }
        Err(QuestionError::Host(host.to_owned()))
    }

    /// The question that a query asks: `url`, and where they are not as [`Self::new`] has them by default `method` (GET),
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
        Self::new(&one("method").unwrap_or_else(|| "GET".to_owned()), &url, &headers, source, port)
    }

    /// The query that [`Self::from_query`] reads as this question.
    #[must_use]
    pub fn to_query(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        let url_port = self.url_port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = self.authority.parse::<Authority>().map(|own| own.host().to_owned()).unwrap_or_default();
        let url = format!("{scheme}://{host}{url_port}{}", self.target);
        let mut query = format!("method={}&url={}", encoded(self.method.as_str()), encoded(&url));
        let _ = write!(query, "&header={}", encoded(&format!("host: {}", self.authority)));
        for (name, value) in &self.headers {
            let value = value.to_str().unwrap_or_default();
            let _ = write!(query, "&header={}", encoded(&format!("{name}: {value}")));
        }
        let _ = write!(query, "&source={}", encoded(&self.source.to_string()));
        if let Some(port) = self.port {
            let _ = write!(query, "&port={port}");
        }
        query
    }

    /// The port that is asked for in words; `None`: the usual one of the scheme.
    pub(super) fn said_port(&self) -> Option<u16> {
        self.port.or(self.url_port)
    }

    pub(super) fn usual_port(&self) -> u16 {
        if self.is_https { 443 } else { 80 }
    }

    /// As a client would write it.
    pub(super) fn head(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.authority);
        let mut bytes = std::mem::take(&mut text).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    pub(super) fn told(&self) -> value::Request {
        value::Request {
            method: self.method.to_string(),
            scheme: if self.is_https { "https" } else { "http" }.to_owned(),
            authority: self.authority.clone(),
            target: self.target.clone(),
            headers: self.headers.iter().map(|(name, _)| name.to_string()).collect(),
            source: self.source.to_string(),
        }
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
        Question::new("GET", url, &headers, [192, 0, 2, 1].into(), None)
    }

    #[test]
    fn a_url_is_taken_apart_and_a_host_header_takes_the_place_of_its_host() {
        let question = ask("http://Shop.example:8080/a%20b?x=1#part", &["X-A: 1:2", "x-a:3"]).expect("good");
        assert_eq!((&*question.authority, &*question.target), ("Shop.example:8080", "/a%20b?x=1"));
        assert_eq!(question.said_port(), Some(8080));
        let head = String::from_utf8(question.head()).expect("text");
        assert_eq!(head, "GET /a%20b?x=1 HTTP/1.1\r\nHost: Shop.example:8080\r\nx-a: 1:2\r\nx-a: 3\r\n\r\n");
        let other = ask("https://127.0.0.1", &["Host: shop.example"]).expect("good");
        assert_eq!((&*other.authority, &*other.target, other.usual_port()), ("shop.example", "/", 443));
    }

    #[test]
    fn what_cannot_be_asked_is_told_with_the_part_that_is_wrong_and_no_secret() {
        for (url, headers, want) in [
            ("shop.example/a", &[][..], "does not begin with http://"),
            ("ftp://shop.example/a", &[], "does not begin with http://"),
            ("http://", &[], "is not a URL"),
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
        let method = Question::new("GE T", "http://a/", &[], [127, 0, 0, 1].into(), None);
        assert!(matches!(method, Err(QuestionError::Method(_))));
        let long = |bytes: usize| ask("http://a/", &[&format!("x: {}", "a".repeat(bytes - 15))]);
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
            let question = Question::new("PURGE", url, &headers, [192, 0, 2, 7].into(), port).expect("good");
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
