//! Matching as the Gateway API's documentation has it (HTTPRouteRule, HTTPRouteMatch), word by word and slowly.

use super::{Asked, Field, Kind, Wanted};
use lb_core::route::Request as _;
use regex_automata::meta::Regex;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Expressions by what they are written as, of the regex crate's own engine.
pub(super) struct Naive(BTreeMap<&'static str, Regex>);

impl Naive {
    pub(super) fn new(texts: impl Iterator<Item = &'static str>) -> Self {
        let regex = |text| Regex::new(&format!(r"\A(?:{text})\z")).expect("as they are written");
        Self(texts.map(|text| (text, regex(text))).collect())
    }

    /// The match that a request has.
    pub(super) fn find<'a>(&self, all: &'a [Wanted], asked: &Asked) -> Option<&'a Wanted> {
        all.iter().filter(|wanted| self.holds(wanted, asked)).min_by_key(|wanted| precedence(wanted))
    }

    fn holds(&self, wanted: &Wanted, asked: &Asked) -> bool {
        let (kind, path) = wanted.path.expect("a path");
        let source = asked.source(&format!("ns/{}", wanted.pool).into());
        host(wanted.host, asked.host)
            && match kind {
                Kind::Exact => path == asked.path,
                Kind::Pattern => self.matches(path, asked.path.as_bytes()),
                Kind::Prefix => prefix(path, asked.path),
            }
            && wanted.method.is_none_or(|method| method == asked.method.as_str())
            && wanted.headers.iter().all(|field| {
                asked
                    .headers
                    .iter()
                    .any(|(name, value)| name.as_str() == field.0 && self.says(field, value.as_bytes()))
            })
            && wanted.query.iter().all(|field| {
                let pairs = asked.query.iter().flat_map(|query| query.split('&'));
                let mut pairs = pairs.map(|pair| pair.split_once('=').expect("as they are made"));
                let first = pairs.find(|(name, _)| *name == field.0);
                first.is_some_and(|(_, value)| self.says(field, value.replace("%20", " ").as_bytes()))
            })
            && wanted.cookies.iter().all(|field| {
                let first = asked.cookies.iter().find(|(name, _)| *name == field.0);
                first.is_some_and(|(_, value)| self.says(field, value.as_bytes()))
            })
            && (wanted.networks.is_empty() || wanted.networks.iter().any(|network| contains(network, source)))
    }

    fn says(&self, (_, is_pattern, text): &Field, value: &[u8]) -> bool {
        if *is_pattern { self.matches(text, value) } else { text.as_bytes() == value }
    }

    fn matches(&self, text: &str, value: &[u8]) -> bool {
        self.0[text].is_match(value)
    }
}

/// "a wildcard label matches one or more labels"
fn host(wanted: &str, asked: &str) -> bool {
    match wanted.strip_prefix('*') {
        Some(suffix) => asked.ends_with(suffix) && asked.len() > suffix.len(),
        None => wanted.is_empty() || wanted == asked,
    }
}

/// "Matching is done on a path element by element basis"; "a trailing slash is ignored".
fn prefix(wanted: &str, asked: &str) -> bool {
    let wanted: Vec<_> = wanted.split('/').filter(|element| !element.is_empty()).collect();
    let asked: Vec<_> = asked.split('/').skip(1).collect();
    asked.starts_with(&wanted)
}

fn contains(network: &str, address: IpAddr) -> bool {
    network.parse::<ipnet::IpNet>().expect("a network").contains(&address)
}

/// "precedence must be given to the match having: ..., continuing on ties".
fn precedence(wanted: &Wanted) -> impl Ord + use<> {
    let (kind, path) = wanted.path.expect("a path");
    let host = match wanted.host.strip_prefix('*') {
        None if wanted.host.is_empty() => (2, Reverse(0)),
        None => (0, Reverse(wanted.host.len())),
        Some(suffix) => (1, Reverse(suffix.len())),
    };
    let path = match kind {
        Kind::Exact => (0, Reverse(0)),
        Kind::Pattern => (1, Reverse(path.len())),
        // One at the end is no more.
        Kind::Prefix => (2, Reverse(path.trim_end_matches('/').len())),
    };
    let Wanted { method, headers, query, cookies, networks, pool, rule, .. } = wanted;
    let most = Reverse((method.is_some(), headers.len(), query.len(), cookies.len(), !networks.is_empty()));
    (host, path, most, *pool, *rule)
}
