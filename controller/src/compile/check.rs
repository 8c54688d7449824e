//! Scalars of a specification, read into the types of the wire. Each function states one rule of the schema.

use super::{ObjectKey, Reason, Rejection};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use weir_crds::Duration;
use weir_crds::pool::{
    HOSTNAME_BYTES_MAX, LABEL_BYTES_MAX, LABEL_PREFIX_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX,
    SECRET_KEY_BYTES_MAX,
};

/// Rejections of one pool, in the order of its fields. A check that fails notes why and answers `None`, so that
/// one pass finds everything.
pub(super) struct Check {
    pool: ObjectKey,
    rejections: Vec<Rejection>,
}

impl Check {
    pub(super) fn new(pool: ObjectKey) -> Self {
        Self { pool, rejections: Vec::new() }
    }

    /// How much was refused so far.
    pub(super) fn refused(&self) -> usize {
        self.rejections.len()
    }

    /// `compiled` where nothing was refused.
    pub(super) fn finish<T>(self, compiled: T) -> Result<T, Vec<Rejection>> {
        if self.rejections.is_empty() { Ok(compiled) } else { Err(self.rejections) }
    }

    /// Whether nothing was refused so far.
    pub(super) fn is_clean(&self) -> bool {
        self.rejections.is_empty()
    }

    /// Refuses what a field holds.
    pub(super) fn refuse(
        &mut self,
        field: impl Into<String>,
        value: impl Into<String>,
        rule: impl Into<String>,
    ) {
        self.rejections.push(Rejection {
            pool: self.pool.clone(),
            field: field.into(),
            value: value.into(),
            rule: rule.into(),
            reason: Reason::Invalid,
        });
    }

    /// The length of a list: `min` to `max` entries.
    pub(super) fn count<T>(&mut self, field: &str, list: &[T], (min, max): (usize, usize)) {
        let count = list.len();
        if count < min {
            self.refuse(field, "", format!("is empty: write at least {min}"));
        }
        self.at_most(field, count, max);
    }

    fn at_most(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.refuse(field, format!("{count} entries"), format!("are too many: use at most {max}"));
        }
    }

    /// Refuses the second of two equal entries of a list.
    pub(super) fn unique<T: Ord>(
        &mut self,
        seen: &mut BTreeSet<T>,
        value: T,
        field: String,
        shown: impl Display,
    ) {
        if !seen.insert(value) {
            self.refuse(field, shown.to_string(), "is there twice: remove one or give it another value");
        }
    }

    /// A DNS label.
    pub(super) fn name(&mut self, field: &str, name: &str) {
        if name.len() > NAME_BYTES_MAX || !is_label(name) {
            let rule =
                "is not a name: use 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit";
            self.refuse(field, quoted(name), rule);
        }
    }

    /// The name of another Kubernetes object.
    pub(super) fn object_name(&mut self, field: &str, name: &str) {
        if !is_object_name(name) {
            let rule = "is not the name of an object: use 1 to 253 of a-z, 0-9, - and .";
            self.refuse(field, quoted(name), rule);
        }
    }

    /// A key of a Secret's data.
    pub(super) fn secret_key(&mut self, field: &str, key: &str) {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if key.is_empty() || key.len() > SECRET_KEY_BYTES_MAX || !key.bytes().all(allowed) {
            let rule = "is not a key of a Secret's data: use 1 to 253 letters, digits, -, _ and .";
            self.refuse(field, quoted(key), rule);
        }
    }

    /// Labels of a Kubernetes object, at most `max`.
    pub(super) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>, max: usize) {
        self.at_most(field, labels.len(), max);
        for (name, value) in labels {
            if is_label_name(name) {
                self.label_value(&format!("{field}.{name}"), value);
            } else {
                self.label_name(field, name);
            }
        }
    }

    /// The name of a label.
    pub(super) fn label_name(&mut self, field: &str, name: &str) {
        if !is_label_name(name) {
            let rule = "is not the name of a label: use 1 to 63 letters, digits, -, _ and ., with or without a \
                        DNS name and a slash in front";
            self.refuse(field, quoted(name), rule);
        }
    }

    /// The value of a label.
    pub(super) fn label_value(&mut self, field: &str, value: &str) {
        if !is_label_value(value) {
            let rule = "is not the value of a label: use up to 63 letters, digits, -, _ and ., starting and \
                        ending with a letter or digit";
            self.refuse(field, quoted(value), rule);
        }
    }

    /// Lower-case hostnames, each once, `*.` in front allowed.
    pub(super) fn hostnames(&mut self, field: &str, hostnames: &[String]) {
        self.count(field, hostnames, (0, weir_crds::pool::HOSTNAMES_MAX));
        let mut seen = BTreeSet::new();
        for (index, hostname) in hostnames.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if self.hostname(&field, hostname) {
                self.unique(&mut seen, hostname.as_str(), field, quoted(hostname));
            }
        }
    }

    /// A lower-case hostname, `*.` in front allowed.
    pub(super) fn hostname(&mut self, field: &str, hostname: &str) -> bool {
        let is_right = is_hostname(hostname);
        if !is_right {
            let rule = "is not a hostname: use lower-case labels of a-z, 0-9 and - joined by dots, with or \
                        without a leading \"*.\", and no port";
            self.refuse(field, quoted(hostname), rule);
        }
        is_right
    }

    /// A TCP port.
    pub(super) fn port(&mut self, field: &str, port: i32) -> Option<u16> {
        let checked = u16::try_from(port).ok().filter(|&port| port > 0);
        if checked.is_none() {
            self.refuse(field, port.to_string(), "is not a port: use 1 to 65535");
        }
        checked
    }

    /// A number from 0 to `max`.
    pub(super) fn number(&mut self, field: &str, number: i32, max: i32) -> Option<u32> {
        self.between(field, number, (0, max))
    }

    /// A number from `min`, which is not negative, to `max`.
    pub(super) fn between(&mut self, field: &str, number: i32, (min, max): (i32, i32)) -> Option<u32> {
        let checked = u32::try_from(number).ok().filter(|_| (min..=max).contains(&number));
        if checked.is_none() {
            self.refuse(field, number.to_string(), format!("is out of range: use {min} to {max}"));
        }
        checked
    }

    /// A token of HTTP (RFC 9110, section 5.6.2).
    pub(super) fn token(&mut self, field: &str, token: &str, bytes_max: usize) {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if token.is_empty() || token.len() > bytes_max || !token.bytes().all(allowed) {
            let rule =
                format!("is not a token of HTTP: use 1 to {bytes_max} letters, digits and !#$%&'*+-.^_`|~");
            self.refuse(field, quoted(token), rule);
        }
    }

    /// What may stand in a header: visible ASCII characters and blanks.
    pub(super) fn header_text(&mut self, field: &str, text: &str, bytes_max: usize) {
        let is_text = (1..=bytes_max).contains(&text.len())
            && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_text {
            let rule =
                format!("is not a header's value: use 1 to {bytes_max} visible ASCII characters and blanks");
            self.refuse(field, quoted(text), rule);
        }
    }

    /// An address in any spelling.
    pub(super) fn address(&mut self, field: &str, address: &str) -> Option<IpAddr> {
        let parsed = address.parse().ok();
        if parsed.is_none() {
            let rule = "is not an IPv4 or IPv6 address: write it without brackets, port or zone";
            self.refuse(field, quoted(address), rule);
        }
        parsed
    }

    /// A path to compare with.
    pub(super) fn path(&mut self, field: &str, path: &str) {
        if let Some(rule) = path_fault(path) {
            self.refuse(field, quoted(path), rule);
        }
    }

    /// A duration from `min` to `max` milliseconds, in milliseconds.
    pub(super) fn within(&mut self, field: &str, duration: Duration, (min, max): (u64, u64)) -> u64 {
        let ms = duration.as_millis();
        if !(min..=max).contains(&ms) {
            let [min, max] = [min, max].map(Duration::from_millis);
            self.refuse(field, duration.to_string(), format!("is out of range: use {min} to {max}"));
        }
        ms
    }

    /// A duration that must not be zero.
    pub(super) fn positive(&mut self, field: &str, duration: Duration) {
        if duration.is_zero() {
            self.refuse(field, "0s", "is no time at all: use more than 0s");
        }
    }
}

/// Text as it appears in sentences. What is longer than any name is wrong by its beginning already.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(HOSTNAME_BYTES_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A DNS label of any length: what names within a pool and parts of hostnames are made of.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

/// A DNS subdomain: what Kubernetes calls objects.
pub(crate) fn is_object_name(text: &str) -> bool {
    text.len() <= HOSTNAME_BYTES_MAX && text.split('.').all(is_label)
}

/// With or without a DNS subdomain and a slash in front.
fn is_label_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_prefix = |prefix: &str| prefix.len() <= LABEL_PREFIX_BYTES_MAX && prefix.split('.').all(is_label);
    prefix.is_none_or(is_prefix) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_BYTES_MAX
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_hostname(text: &str) -> bool {
    text.len() <= HOSTNAME_BYTES_MAX && text.strip_prefix("*.").unwrap_or(text).split('.').all(is_label)
}

fn path_fault(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("is not a path: start it with a slash");
    }
    if path.len() > PATH_BYTES_MAX {
        return Some("is too long: use at most 1024 characters");
    }
    if !is_encoded(path.as_bytes()) {
        return Some("has a character that a path cannot have: percent-encode it, and leave out ? and #");
    }
    if path.contains("//") {
        return Some("has an empty segment (//): remove a slash");
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Some("has a segment . or ..: write the path that it stands for");
    }
    let upper = path.to_ascii_uppercase();
    upper.contains("%2F").then_some("has an encoded slash (%2F): it can never match, remove it")
}

fn is_encoded(path: &[u8]) -> bool {
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
            (b'%', _) => return false,
            _ if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte) => tail,
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_those_of_the_gateway_api() {
        for good in ["a", "example.com", "*.example.com", "1.2.3.4", "a-b.c", "*.a"] {
            assert!(is_hostname(good), "{good}");
        }
        let long = format!("{}.com", "a".repeat(250));
        for bad in
            ["", "*", "A.com", "*.", ".a", "a.", "a..b", "-a", "a-", "a_b", "a*.b", "*.*.a", "a:80", &long]
        {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        let long = "a".repeat(63);
        for good in
            ["a", "A", "a-B_c.9", "weir.dev/class", "a/b", &long, &format!("{}/{long}", "b".repeat(253))]
        {
            assert!(is_label_name(good), "{good}");
        }
        let (longer, prefix) = ("a".repeat(64), format!("{}/a", "b".repeat(254)));
        for bad in
            ["", "/", "a/", "/a", "a/b/c", "-a", "a-", "a b", "é", "A.com/b", "a..b/c", &longer, &prefix]
        {
            assert!(!is_label_name(bad), "{bad}");
        }
        for good in ["", "a", "A-b_c.9", &long] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["-a", "a.", "a/b", "é", " ", &longer] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }

    #[test]
    fn paths_that_two_readers_could_read_differently_are_refused() {
        for good in ["/", "/a", "/a/", "/a.b/..c", "/%20", "/a:b@c~d", "/-/!$&'()*+,;="] {
            assert_eq!(path_fault(good), None, "{good}");
        }
        for bad in [
            "", "a", "//", "/a//b", "/.", "/a/../b", "/a/..", "/%2f", "/%2F", "/%", "/%2", "/%zz", "/a b",
            "/é", "/a?b", "/a#b",
        ] {
            assert!(path_fault(bad).is_some(), "{bad}");
        }
        assert_eq!(path_fault(&format!("/{}", "a".repeat(1023))), None);
        assert!(path_fault(&format!("/{}", "a".repeat(1024))).is_some());
    }
}
