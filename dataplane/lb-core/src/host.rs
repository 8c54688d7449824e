//! What is kept by host: exact names, wildcards, every host.
//!
//! One precedence for routes and for certificates, the Gateway API's: an exact host, then the longest wildcard, then
//! what takes every host. A star stands for one label or more.
//!
//! A clone shares everything with its original, and a change of a host copies the few hosts beside it and a pointer for
//! each shard: so a reader keeps its own while a writer goes on, and an edit among 1,000 hosts takes some microseconds.
//! One more level would keep that flat, and would cost each request a step of memory.

use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;

/// Names for each shard, on average at most: few, since a request walks along them, and a change copies them.
const SHARD_NAMES: usize = 1;

/// Values by host.
#[derive(Clone)]
pub struct HostMap<T> {
    exact: Shards<T>,
    /// Names are what follows the star: `.example.com`.
    wildcard: Shards<T>,
    any: Option<T>,
}

impl<T> HostMap<T> {
    /// The value of a host as configuration writes it, `None` for every host.
    #[must_use]
    pub fn get(&self, hostname: Option<&str>) -> Option<&T> {
        match hostname {
            None => self.any.as_ref(),
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.get(suffix),
                None => self.exact.get(name),
            },
        }
    }

    /// The values that a host may have, the most specific first. `host` is lower case and without port. At most one
    /// look-up for each of its labels.
    pub fn matching(&self, host: &str) -> impl Iterator<Item = &T> {
        self.exact.get(host).into_iter().chain(self.wildcards(host)).chain(&self.any)
    }

    /// As [`Self::matching`], with the hosts as configuration writes them.
    pub fn matching_named(&self, host: &str) -> impl Iterator<Item = (Option<Arc<str>>, &T)> {
        let exact = self.exact.get(host).map(|value| (Some(host.into()), value));
        let wildcards = suffixes(host).filter_map(|suffix| {
            self.wildcard.get(suffix).map(|value| (Some(format!("*{suffix}").into()), value))
        });
        exact.into_iter().chain(wildcards).chain(self.any.iter().map(|value| (None, value)))
    }

    /// Every host that has a value, exact names first, each kind in its order, and every host last.
    #[must_use]
    pub fn names(&self) -> Vec<Option<Arc<str>>> {
        let sorted = |shards: &Shards<T>, star: &str| {
            let entries = shards.shards.iter().flat_map(|shard| shard.iter());
            let mut names: Vec<_> =
                entries.map(|entry| Some(format!("{star}{}", entry.name).into())).collect();
            names.sort_unstable();
            names
        };
        let mut names = sorted(&self.exact, "");
        names.extend(sorted(&self.wildcard, "*"));
        names.extend(self.any.as_ref().map(|_| None));
        names
    }

    fn wildcards(&self, host: &str) -> impl Iterator<Item = &T> {
        let host = if self.wildcard.len == 0 { "" } else { host };
        suffixes(host).filter_map(|suffix| self.wildcard.get(suffix))
    }
}

/// What stars may stand before in a host, the longest first: for `a.b.c`, `.b.c` and `.c`.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    let mut rest = host;
    std::iter::from_fn(move || {
        let dot = rest.get(1..)?.find('.')? + 1;
        rest = &rest[dot..];
        Some(rest)
    })
}

impl<T: Clone> HostMap<T> {
    /// The value of a host, made where there is none yet.
    pub fn ensure(&mut self, hostname: Option<&str>, make: impl FnOnce() -> T) -> &mut T {
        match hostname {
            None => self.any.get_or_insert_with(make),
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.ensure(suffix, make),
                None => self.exact.ensure(name, make),
            },
        }
    }

    /// Without effect where the host has no value.
    pub fn remove(&mut self, hostname: Option<&str>) {
        match hostname {
            None => self.any = None,
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.remove(suffix),
                None => self.exact.remove(name),
            },
        }
    }
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: Shards::default(), wildcard: Shards::default(), any: None }
    }
}

impl<T: fmt::Debug> fmt::Debug for HostMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exact, wildcard, any } = self;
        f.debug_struct("HostMap").field("exact", exact).field("wildcard", wildcard).field("any", any).finish()
    }
}

/// Seeded by the process, like the maps of std, so that who configures cannot choose what collides. No order comes of it.
#[allow(clippy::disallowed_types, reason = "the alias of a map that is used elsewhere has the same one")]
type Hasher = foldhash::fast::RandomState;

/// A hash table in parts that clones share: a hash finds the part, and a short walk along hashes the name in it.
#[derive(Clone)]
struct Shards<T> {
    hasher: Hasher,
    /// A power of two of them; none while there never was a name.
    shards: Arc<[Arc<[Entry<T>]>]>,
    len: usize,
}

#[derive(Clone)]
struct Entry<T> {
    hash: u64,
    name: Arc<str>,
    value: T,
}

impl<T> Entry<T> {
    fn is_of(&self, hash: u64, name: &str) -> bool {
        self.hash == hash && *self.name == *name
    }
}

impl<T> Shards<T> {
    fn get(&self, name: &str) -> Option<&T> {
        let hash = self.hasher.hash_one(name);
        let shard = self.shards.get(position(hash, self.shards.len()))?;
        shard.iter().find(|entry| entry.is_of(hash, name)).map(|entry| &entry.value)
    }
}

impl<T: Clone> Shards<T> {
    fn ensure(&mut self, name: &str, make: impl FnOnce() -> T) -> &mut T {
        let hash = self.hasher.hash_one(name);
        let is_new = self.get(name).is_none();
        if is_new {
            self.len += 1;
            if self.len > SHARD_NAMES * self.shards.len() {
                self.grow();
            }
        }
        let at = position(hash, self.shards.len());
        let shard = &mut Arc::make_mut(&mut self.shards)[at];
        if is_new {
            let entry = Entry { hash, name: name.into(), value: make() };
            *shard = shard.iter().cloned().chain([entry]).collect();
        }
        let mut entries = Arc::make_mut(shard).iter_mut();
        let entry = entries.find(|entry| entry.is_of(hash, name));
        &mut entry.expect("it was there, or was put there above").value
    }

    fn remove(&mut self, name: &str) {
        let hash = self.hasher.hash_one(name);
        if self.get(name).is_none() {
            return;
        }
        let at = position(hash, self.shards.len());
        let shard = &mut Arc::make_mut(&mut self.shards)[at];
        *shard = shard.iter().filter(|entry| !entry.is_of(hash, name)).cloned().collect();
        self.len -= 1;
    }

    /// Twice as many shards. Looks at every name, and so seldom that it is little for each.
    fn grow(&mut self) {
        let mut shards = vec![Vec::new(); (2 * self.shards.len()).max(1)];
        for entry in self.shards.iter().flat_map(|shard| shard.iter()) {
            let at = position(entry.hash, shards.len());
            shards[at].push(entry.clone());
        }
        self.shards = shards.into_iter().map(Arc::from).collect();
    }
}

/// Of a hash, among a power of two of shards.
fn position(hash: u64, shards: usize) -> usize {
    // Cut off on purpose: what is left are more bits than there are shards.
    #[allow(clippy::cast_possible_truncation, reason = "only some bits are of use")]
    let bits = (hash >> 32) as usize;
    bits & shards.wrapping_sub(1)
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self { hasher: Hasher::default(), shards: Arc::new([]), len: 0 }
    }
}

impl<T: fmt::Debug> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.shards.iter().flat_map(|shard| shard.iter()).map(|entry| (&entry.name, &entry.value)),
            )
            .finish()
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
            let named = map.matching_named(host).map(|(name, value)| (name, *value));
            let expected = expected.iter().map(|&at| (hosts[at].map(Into::into), at));
            assert!(named.eq(expected), "{host}");
        }
        let order = [Some("a.deep.example.com"), Some("*.com"), Some("*.deep.example.com")];
        let order = order.into_iter().chain([Some("*.example.com"), None]).map(|name| name.map(Into::into));
        assert_eq!(map.names(), order.collect::<Vec<Option<Arc<str>>>>());
    }

    #[test]
    fn a_clone_keeps_what_it_has_and_shares_what_is_the_same() {
        let mut map = HostMap::default();
        let name = |at: usize| format!("host-{at}.example.com");
        for at in 0..1000 {
            map.ensure(Some(&name(at)), || at);
        }
        let before = map.clone();
        *map.ensure(Some(&name(7)), || 0) = 1007;
        map.remove(Some(&name(8)));
        map.remove(Some("nobody"));
        map.ensure(Some("new"), || 2000);
        for at in 0..1000 {
            assert_eq!(before.get(Some(&name(at))), Some(&at));
            let now = match at {
                7 => Some(&1007),
                8 => None,
                _ => Some(&at),
            };
            assert_eq!(map.get(Some(&name(at))), now);
        }
        assert_eq!((before.get(Some("new")), map.get(Some("new")), map.exact.len), (None, Some(&2000), 1000));
        let pairs = || map.exact.shards.iter().zip(before.exact.shards.iter());
        assert!(pairs().len() >= 1000 / SHARD_NAMES);
        let copied = pairs().filter(|(now, before)| !Arc::ptr_eq(now, before)).count();
        assert!((1..=3).contains(&copied), "{copied}");
    }
}
