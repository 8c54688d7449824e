//! Settings of active checks.

use super::{SettingsError, Valid, length, mix, number, text};
use crate::backend::{ProxyHeaderVersion, TlsProfile};
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

/// No check comes more often: a probe costs the backend a connection.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// No check comes less often.
pub const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// No probe has less time than this.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// No probe has more time than this.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Largest number of probes that a change may need.
pub const THRESHOLD_MAX: u32 = 100;
/// Largest part of the interval that jitter may take away.
pub const JITTER_PERMILLE_MAX: u16 = 500;
/// Header fields that a probe may add.
pub const HEADERS_MAX: usize = 16;
/// Ranges of status codes that may be expected.
pub const STATUS_RANGES_MAX: usize = 16;
/// Longest method, path, host, header field, or service, in bytes.
pub const TEXT_BYTES_MAX: usize = 2048;
/// How much of a response's body a probe reads, so also the longest text to look for, in bytes.
pub const BODY_BYTES_MAX: usize = 4096;

/// How one target is checked. Equal settings for one address are one check, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActiveSettings {
    /// What a probe does.
    pub kind: Kind,
    /// Where probes go; `None` is the backend's own port.
    pub port: Option<NonZeroU16>,
    /// How the connections of probes are secured; `None` is no TLS, save for [`Kind::Tls`], which takes any certificate
    /// then.
    pub tls_profile: Option<TlsProfile>,
    /// Probes begin with a header of the PROXY protocol, which names nobody: backends that wait for one would refuse them
    /// otherwise.
    pub proxy_header: Option<ProxyHeaderVersion>,
    /// From the begin of a probe to the begin of the next.
    ///
    /// A probe that takes longer is not overlapped: the next begins when it ended. So a time-out above the interval is
    /// allowed; it only makes checks of a frozen backend rarer.
    pub interval: Duration,
    /// The same while the last result speaks against the state but too few have; `None` is [`Self::interval`]. HAProxy
    /// calls it `fastinter`, Envoy `unhealthy_edge_interval`.
    pub recheck_interval: Option<Duration>,
    /// Each interval is shortened by a random part of this share of it. Never lengthened, as it is in Envoy: how long a
    /// dead backend stays in is a promise.
    pub jitter_permille: u16,
    /// A probe without a result after this time has failed.
    pub timeout: Duration,
    /// Consecutive passes that turn Down to Up.
    pub healthy_threshold: u32,
    /// Consecutive failures that turn Up to Down.
    pub unhealthy_threshold: u32,
    /// What a backend counts as before its first result.
    pub initial: Initial,
}

/// What a backend counts as before its first result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Initial {
    /// It takes requests: Kubernetes called it ready, and that is worth as much as a probe. HAProxy does so, Envoy waits.
    #[default]
    Up,
    /// It takes none until a probe passed.
    Down,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request, and an answer that is as expected.
    Http(HttpCheck),
    /// A TCP connection is accepted.
    Tcp,
    /// A TLS handshake ends well.
    Tls,
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// The service asked for; empty is the whole server.
        service: Box<str>,
    },
}

/// A request, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// The protocol.
    pub version: HttpVersion,
    /// An HTTP token; not CONNECT.
    pub method: Box<str>,
    /// Path and query, beginning with a slash.
    pub path: Box<str>,
    /// Host or authority; `None` is the backend's address.
    pub host: Option<Box<str>>,
    /// Names and values, in order; not those that frame the message.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Status codes that pass; at least one range.
    pub expected: Vec<StatusRange>,
    /// A text that the first [`BODY_BYTES_MAX`] bytes of the body must have.
    pub body_contains: Option<Box<str>>,
}

/// The protocol of an HTTP probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge where there is no TLS.
    Http2,
}

/// Status codes from `first` to `last`, both included, within 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusRange {
    /// The lowest.
    pub first: u16,
    /// The highest; not below `first`.
    pub last: u16,
}

impl Default for HttpCheck {
    /// `GET /` over HTTP/1.1 with an answer of 2xx or 3xx, as a kubelet's probe has it.
    fn default() -> Self {
        Self {
            version: HttpVersion::Http1,
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            expected: vec![StatusRange { first: 200, last: 399 }],
            body_contains: None,
        }
    }
}

impl HttpCheck {
    /// Whether an answer with this status may pass.
    #[must_use]
    pub fn expects(&self, status: u16) -> bool {
        self.expected.iter().any(|range| (range.first..=range.last).contains(&status))
    }

    fn validate(&self) -> Result<(), SettingsError> {
        text("method", &self.method, "an HTTP token other than CONNECT", is_method(&self.method))?;
        text("path", &self.path, "a slash, and then what a URL may have there", is_path(&self.path))?;
        if let Some(host) = &self.host {
            text("host", host, "a name or an address, with or without a port", is_host(host))?;
        }
        number("headers", self.headers.len() as u64, 0..=HEADERS_MAX as u64)?;
        for (name, value) in &self.headers {
            text(
                "headers.name",
                name,
                "an HTTP token that frames no message and names no host",
                is_header(name),
            )?;
            text("headers.value", value, "visible characters, blanks and tabs", is_value(value))?;
        }
        number("expected", self.expected.len() as u64, 1..=STATUS_RANGES_MAX as u64)?;
        for range in &self.expected {
            number("expected.first", range.first, 200..=599)?;
            number("expected.last", range.last, u64::from(range.first)..=599)?;
        }
        if let Some(body) = &self.body_contains {
            number("bodyContains", body.len() as u64, 1..=BODY_BYTES_MAX as u64)?;
            mix("method and bodyContains", "the answer to HEAD has no body", &*self.method != "HEAD")?;
        }
        Ok(())
    }
}

impl Default for ActiveSettings {
    /// A TCP check every second, out after 3 failures, in after 2 passes: a dead backend is out in 4 s at most.
    fn default() -> Self {
        Self {
            kind: Kind::Tcp,
            port: None,
            tls_profile: None,
            proxy_header: None,
            interval: Duration::from_secs(1),
            recheck_interval: None,
            jitter_permille: 100,
            timeout: Duration::from_secs(1),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            initial: Initial::Up,
        }
    }
}

impl ActiveSettings {
    /// Refuses what cannot work, with the first rule that is broken.
    ///
    /// # Errors
    ///
    /// The field, its value and the rule.
    pub fn validate(self) -> Result<Valid<Self>, SettingsError> {
        length("interval", self.interval, INTERVAL_MIN..=INTERVAL_MAX)?;
        if let Some(recheck) = self.recheck_interval {
            length("recheckInterval", recheck, INTERVAL_MIN..=self.interval)?;
        }
        length("timeout", self.timeout, TIMEOUT_MIN..=TIMEOUT_MAX)?;
        number("jitterPermille", self.jitter_permille, 0..=JITTER_PERMILLE_MAX.into())?;
        number("healthyThreshold", self.healthy_threshold, 1..=THRESHOLD_MAX.into())?;
        number("unhealthyThreshold", self.unhealthy_threshold, 1..=THRESHOLD_MAX.into())?;
        match &self.kind {
            Kind::Http(check) => check.validate()?,
            Kind::Grpc { service } => {
                text("service", service, "at most 2048 bytes without control characters", is_text(service))?;
            }
            Kind::Tcp => {
                let rule = "a TCP check speaks no TLS; choose the kind TLS";
                mix("kind and tlsProfile", rule, self.tls_profile.is_none())?;
            }
            Kind::Tls => {}
        }
        Ok(Valid(Arc::new(self)))
    }

    /// Longest time from the moment at which a backend dies to the moment at which it is Down, as long as no probe has
    /// to wait for others.
    #[must_use]
    pub fn detection_max(&self) -> Duration {
        let again = self.recheck_interval.unwrap_or(self.interval).max(self.timeout);
        self.interval.max(self.timeout) + again * (self.unhealthy_threshold - 1) + self.timeout
    }

    /// Longest time from the moment at which a backend is well again to the moment at which it is Up, where a probe
    /// that passes takes no time.
    #[must_use]
    pub fn recovery_max(&self) -> Duration {
        let again = self.recheck_interval.unwrap_or(self.interval);
        self.interval.max(self.timeout) + again * (self.healthy_threshold - 1)
    }
}

impl Valid<ActiveSettings> {
    /// The same where the port is already in the address.
    pub(in crate::health) fn without_port(self) -> Self {
        if self.port.is_none() {
            return self;
        }
        Self(Arc::new(ActiveSettings { port: None, ..(*self.0).clone() }))
    }

    /// Appends what the settings say, the same in every process: each field in order, texts with their length.
    pub(in crate::health) fn encode(&self, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match &self.kind {
            Kind::Tcp => put(b"tcp"),
            Kind::Tls => put(b"tls"),
            Kind::Grpc { service } => {
                put(b"grpc");
                put(service.as_bytes());
            }
            Kind::Http(check) => {
                put(if check.version == HttpVersion::Http1 { b"http1" } else { b"http2" });
                put(check.method.as_bytes());
                put(check.path.as_bytes());
                put(check.host.as_deref().unwrap_or_default().as_bytes());
                put(&(check.headers.len() as u64).to_le_bytes());
                for (name, value) in &check.headers {
                    put(name.as_bytes());
                    put(value.as_bytes());
                }
                put(&(check.expected.len() as u64).to_le_bytes());
                for range in &check.expected {
                    put(&range.first.to_le_bytes());
                    put(&range.last.to_le_bytes());
                }
                put(check.body_contains.as_deref().unwrap_or_default().as_bytes());
            }
        }
        put(&self.port.map_or(0, NonZeroU16::get).to_le_bytes());
        match &self.tls_profile {
            Some(profile) => put(&profile.digest().to_le_bytes()),
            None => put(b""),
        }
        let recheck = self.recheck_interval.unwrap_or(self.interval);
        for length in [self.interval, recheck, self.timeout] {
            put(&length.as_nanos().to_le_bytes());
        }
        put(&self.jitter_permille.to_le_bytes());
        put(&self.healthy_threshold.to_le_bytes());
        put(&self.unhealthy_threshold.to_le_bytes());
        put(&[u8::from(self.initial == Initial::Up)]);
        // Last, and nothing where there is none: an older proxy knows the same target by the same name.
        match self.proxy_header {
            None => {}
            Some(ProxyHeaderVersion::V1) => put(b"proxy1"),
            Some(ProxyHeaderVersion::V2) => put(b"proxy2"),
        }
    }
}

/// Header fields that a probe writes itself, or must not have.
const OWN_HEADERS: &[&str] =
    &["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// RFC 9110, 5.6.2.
fn is_token(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !value.is_empty() && value.len() <= TEXT_BYTES_MAX && value.bytes().all(allowed)
}

fn is_method(value: &str) -> bool {
    is_token(value) && value != "CONNECT"
}

fn is_header(name: &str) -> bool {
    is_token(name) && !OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// RFC 3986, 3.3 and 3.4.
fn is_path(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte);
    value.starts_with('/') && value.len() <= TEXT_BYTES_MAX && value.bytes().all(allowed)
}

/// A name or an address (IPv6 in brackets), with or without a port. RFC 3986, 3.2.2.
fn is_host(value: &str) -> bool {
    let (host, rest) = match value.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, rest)) if address.parse::<Ipv6Addr>().is_ok() => ("v6", rest),
        _ => value.split_at(value.find(':').unwrap_or(value.len())),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    !host.is_empty() && value.len() <= TEXT_BYTES_MAX && host.bytes().all(allowed) && is_port
}

fn is_value(value: &str) -> bool {
    value.len() <= TEXT_BYTES_MAX
        && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t')
}

fn is_text(value: &str) -> bool {
    value.len() <= TEXT_BYTES_MAX && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut ActiveSettings, bool);
    type HttpChange<'a> = &'a dyn Fn(&mut HttpCheck);

    fn refusal(change: impl FnOnce(&mut ActiveSettings)) -> String {
        let mut settings = ActiveSettings::default();
        change(&mut settings);
        settings.validate().map_or_else(|error| error.to_string(), |_| "taken".to_owned())
    }

    fn http_refusal(change: impl FnOnce(&mut HttpCheck)) -> String {
        let mut check = HttpCheck::default();
        change(&mut check);
        refusal(|settings| settings.kind = Kind::Http(check))
    }

    #[test]
    fn the_defaults_are_taken_and_a_dead_backend_is_out_in_under_five_seconds() {
        let settings = ActiveSettings::default().validate().expect("defaults");
        assert!(settings.detection_max() < Duration::from_secs(5));
        assert_eq!(settings.detection_max(), Duration::from_secs(4));
        assert_eq!(http_refusal(|_| ()), "taken");
    }

    #[test]
    fn limits_are_taken_and_one_past_them_is_refused() {
        let past = Duration::from_nanos(1);
        let rows: [(Change<'_>, &str); 8] = [
            (&|s, bad| s.interval = if bad { INTERVAL_MIN - past } else { INTERVAL_MIN }, "interval"),
            (&|s, bad| s.interval = if bad { INTERVAL_MAX + past } else { INTERVAL_MAX }, "interval"),
            (&|s, bad| s.timeout = if bad { TIMEOUT_MIN - past } else { TIMEOUT_MIN }, "timeout"),
            (&|s, bad| s.timeout = if bad { TIMEOUT_MAX + past } else { TIMEOUT_MAX }, "timeout"),
            (&|s, bad| s.healthy_threshold = if bad { 0 } else { 1 }, "healthyThreshold"),
            (&|s, bad| s.unhealthy_threshold = if bad { 101 } else { 100 }, "unhealthyThreshold"),
            (&|s, bad| s.jitter_permille = if bad { 501 } else { 500 }, "jitterPermille"),
            (
                &|s, bad| s.recheck_interval = Some(if bad { s.interval + past } else { s.interval }),
                "recheckInterval",
            ),
        ];
        for (change, field) in rows {
            assert_eq!(refusal(|settings| change(settings, false)), "taken", "{field}");
            let refused = refusal(|settings| change(settings, true));
            assert!(refused.starts_with(&format!("{field} is ")), "{refused}");
        }
    }

    #[test]
    fn what_could_not_be_sent_or_matched_is_refused() {
        let rows: [(&str, HttpChange<'_>); 9] = [
            ("method is \"CONNECT\"", &|check| check.method = "CONNECT".into()),
            ("path is \"health\"", &|check| check.path = "health".into()),
            ("path is \"/a b\"", &|check| check.path = "/a b".into()),
            ("host is \"a/b\"", &|check| check.host = Some("a/b".into())),
            ("headers.name is \"Host\"", &|check| check.headers = vec![("Host".into(), "a".into())]),
            ("headers.value is \"a\\r\\nb: c\"", &|check| {
                check.headers = vec![("x".into(), "a\r\nb: c".into())];
            }),
            ("expected is 0", &|check| check.expected.clear()),
            ("expected.last is 200, and must be from 204 to 599", &|check| {
                check.expected = vec![StatusRange { first: 204, last: 200 }];
            }),
            ("bodyContains is 0", &|check| check.body_contains = Some("".into())),
        ];
        for (begin, change) in rows {
            let refused = http_refusal(change);
            assert!(refused.starts_with(begin), "{refused}");
        }
    }

    #[test]
    fn texts_and_lists_are_taken_at_their_limits_and_refused_one_past_them() {
        let text = |length: usize| -> Box<str> { format!("/{}", "a".repeat(length - 1)).into() };
        for (past, is_taken) in [(0, true), (1, false)] {
            assert_eq!(http_refusal(|check| check.path = text(TEXT_BYTES_MAX + past)) == "taken", is_taken);
            let body = Some(text(BODY_BYTES_MAX + past));
            assert_eq!(http_refusal(|check| check.body_contains = body) == "taken", is_taken);
            let service = text(TEXT_BYTES_MAX + past);
            assert_eq!(refusal(|s| s.kind = Kind::Grpc { service }) == "taken", is_taken);
            let ranges = vec![StatusRange { first: 200, last: 599 }; STATUS_RANGES_MAX + past];
            assert_eq!(http_refusal(|check| check.expected = ranges) == "taken", is_taken);
        }
        let header = || ("x".into(), "y".into());
        assert_eq!(http_refusal(|check| check.headers = vec![header(); HEADERS_MAX]), "taken");
        assert_ne!(http_refusal(|check| check.headers = vec![header(); HEADERS_MAX + 1]), "taken");
    }

    #[test]
    fn fields_that_are_wrong_together_are_refused() {
        let head = http_refusal(|check| {
            check.method = "HEAD".into();
            check.body_contains = Some("ok".into());
        });
        assert_eq!(head, "method and bodyContains: the answer to HEAD has no body");
        let tcp = refusal(|settings| settings.tls_profile = Some(TlsProfile::new(1, Arc::new(()))));
        assert_eq!(tcp, "kind and tlsProfile: a TCP check speaks no TLS; choose the kind TLS");
    }
}
