//! What is kept by host: exact names, wildcards, every host.
//!
//! One precedence for routes and for certificates, the Gateway API's: an exact host, then the longest wildcard, then
//! what takes every host. A star stands for one label or more.

use foldhash::HashMap;
use std::fmt;

/// Values by host.
pub struct HostMap<T> {
    exact: HashMap<Box<str>, T>,
    /// Keys are what follows the star: `.example.com`.
    wildcard: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> HostMap<T> {
    /// The value of a host as configuration writes it, `None` for every host; made where there is none yet.
    pub fn ensure(&mut self, hostname: Option<&str>, make: impl FnOnce() -> T) -> &mut T {
        match hostname {
            None => self.any.get_or_insert_with(make),
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.entry(suffix.into()).or_insert_with(make),
                None => self.exact.entry(name.into()).or_insert_with(make),
            },
        }
    }

    /// The values that a host may have, the most specific first. `host` is lower case and without port. At most one
    /// look-up for each of its labels.
    pub fn matching(&self, host: &str) -> impl Iterator<Item = &T> {
        self.exact.get(host).into_iter().chain(self.wildcards(host)).chain(&self.any)
    }

    fn wildcards(&self, host: &str) -> impl Iterator<Item = &T> {
        let mut rest = if self.wildcard.is_empty() { "" } else { host };
        std::iter::from_fn(move || {
            loop {
                let dot = rest.get(1..)?.find('.')? + 1;
                rest = &rest[dot..];
                if let Some(found) = self.wildcard.get(rest) {
                    return Some(found);
                }
            }
        })
    }
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcard: HashMap::default(), any: None }
    }
}

impl<T: fmt::Debug> fmt::Debug for HostMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exact, wildcard, any } = self;
        f.debug_struct("HostMap").field("exact", exact).field("wildcard", wildcard).field("any", any).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_the_most_specific_host_to_the_least() {
        let mut map = HostMap::default();
        let hosts = [
            None,
            Some("*.example.com"),
            Some("*.deep.example.com"),
            Some("a.deep.example.com"),
            Some("*.com"),
        ];
        for (at, host) in hosts.into_iter().enumerate() {
            assert_eq!(*map.ensure(host, || at), at);
            assert_eq!(*map.ensure(host, || 99), at, "the first stays");
        }
        let cases: [(&str, &[usize]); 7] = [
            ("a.deep.example.com", &[3, 2, 1, 4, 0]),
            ("b.deep.example.com", &[2, 1, 4, 0]),
            ("deep.example.com", &[1, 4, 0]),
            ("example.com", &[4, 0]),
            ("com", &[0]),
            ("", &[0]),
            ("\u{e9}.com", &[0]),
        ];
        for (host, expected) in cases {
            assert_eq!(map.matching(host).copied().collect::<Vec<_>>(), expected, "{host}");
        }
    }
}
