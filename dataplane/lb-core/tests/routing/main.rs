//! The table of routes against the words of the Gateway API, over generated routes and requests.
//!
//! The naive matcher reads every match of every pool for each request and sorts those that hold, as HTTPRouteRule's
//! documentation says it; it shares nothing with the table but the types of its input. Names and values are few, so that
//! matches meet.

mod naive;

use http::{HeaderMap, HeaderValue, Method};
use ipnet::IpNet;
use lb_core::addresses::IpTable;
use lb_core::balance::Rng;
use lb_core::route::{
    Conditions, FieldMatch, Fit, PathMatch, Pattern, Request, Route, RouteMatch, RouteParts, RouteTable,
    ValueMatch,
};
use naive::Naive;
use regex_automata::dfa::{StartKind, dense};
use regex_automata::util::syntax;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const HOSTS: [&str; 6] = ["", "a.org", "b.a.org", "*.org", "*.a.org", "c.b.a.org"];
const ASKED_HOSTS: [&str; 6] = ["a.org", "b.a.org", "c.b.a.org", "d.org", "org", "x"];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b", "/a%20b"];
const ASKED_PATHS: [&str; 11] =
    ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/a/b/cd", "/b/x", "/c", "/a%20b", "/a/b/"];
const PATH_PATTERNS: [&str; 5] = ["/a.*", "/[ab]", "/a/b/?c?", "/.", "(/[a-z]+)+"];
const METHODS: [&str; 3] = ["GET", "POST", "PURGE"];
const NAMES: [&str; 3] = ["x", "y", "z"];
const VALUES: [&str; 4] = ["1", "2", "one two", ""];
const VALUE_PATTERNS: [&str; 4] = ["[0-9]", "1|2", "one.*", ".*"];
const NETWORKS: [&str; 4] = ["192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "2001:db8::/32"];
const ADDRESSES: [&str; 4] = ["192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"];

/// What a match is, in words.
#[derive(Debug, Clone, Default)]
struct Wanted {
    pool: usize,
    rule: usize,
    /// Empty: every host.
    host: &'static str,
    path: Option<(Kind, &'static str)>,
    method: Option<&'static str>,
    headers: Vec<Field>,
    query: Vec<Field>,
    cookies: Vec<Field>,
    networks: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Pattern,
    Prefix,
}

/// Name, whether the value is an expression, and the value.
type Field = (&'static str, bool, &'static str);

/// What is asked, in words.
#[derive(Debug)]
struct Asked {
    host: &'static str,
    path: &'static str,
    method: Method,
    headers: HeaderMap,
    query: Option<String>,
    cookies: Vec<(&'static str, &'static str)>,
    source: IpAddr,
}

impl Request for Asked {
    fn method(&self) -> &Method {
        &self.method
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        self.cookies.iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_bytes())
    }

    /// What a pool makes of the client is the pool's to say: of `ns/1` it is another network.
    fn source(&self, pool: &Arc<str>) -> IpAddr {
        if **pool == *"ns/1" { [203, 0, 113, 1].into() } else { self.source }
    }
}

fn one<T: Copy>(random: &mut Rng, of: &[T]) -> T {
    of[random.below(of.len())]
}

fn is(random: &mut Rng, percent: usize) -> bool {
    random.below(100) < percent
}

fn fields(random: &mut Rng, percent: usize) -> Vec<Field> {
    let names: Vec<_> = NAMES.into_iter().filter(|_| is(random, percent)).collect();
    let field = |name| {
        let is_pattern = is(random, 30);
        (name, is_pattern, one(random, if is_pattern { &VALUE_PATTERNS } else { &VALUES }))
    };
    names.into_iter().map(field).collect()
}

fn wanted(random: &mut Rng, pool: usize, rule: usize, hosts: &[&'static str]) -> Wanted {
    let path = match random.below(10) {
        0..3 => (Kind::Exact, one(random, &PATHS)),
        3..5 => (Kind::Pattern, one(random, &PATH_PATTERNS)),
        _ => (Kind::Prefix, one(random, &PATHS)),
    };
    Wanted {
        pool,
        rule,
        host: one(random, hosts),
        path: Some(path),
        method: is(random, 30).then(|| one(random, &METHODS)),
        headers: fields(random, 20),
        query: fields(random, 15),
        cookies: fields(random, 15),
        networks: if is(random, 20) { vec![one(random, &NETWORKS); 1] } else { Vec::new() },
    }
}

fn asked(random: &mut Rng) -> Asked {
    let mut headers = HeaderMap::new();
    for _ in 0..random.below(4) {
        headers.append(one(random, &NAMES), HeaderValue::from_static(one(random, &VALUES)));
    }
    let pair =
        |random: &mut Rng| format!("{}={}", one(random, &NAMES), one(random, &VALUES).replace(' ', "%20"));
    let pairs: Vec<_> = (0..random.below(4)).map(|_| pair(random)).collect();
    Asked {
        host: one(random, &ASKED_HOSTS),
        path: one(random, &ASKED_PATHS),
        method: one(random, &METHODS).parse().expect("a method"),
        headers,
        query: (!pairs.is_empty()).then(|| pairs.join("&")),
        cookies: (0..random.below(3)).map(|_| (one(random, &NAMES), one(random, &VALUES))).collect(),
        source: one(random, &ADDRESSES).parse().expect("an address"),
    }
}

fn pattern(text: &'static str) -> Arc<Pattern> {
    let table = dense::Builder::new()
        .configure(dense::Config::new().start_kind(StartKind::Anchored))
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build(&format!(r"^(?:{text})\z"))
        .expect("a small expression");
    Arc::new(Pattern::new(text.into(), table))
}

/// Every expression, compiled both ways once.
struct Patterns {
    tables: BTreeMap<&'static str, Arc<Pattern>>,
    naive: Naive,
}

impl Patterns {
    fn new() -> Self {
        let texts = || PATH_PATTERNS.into_iter().chain(VALUE_PATTERNS);
        Self { tables: texts().map(|text| (text, pattern(text))).collect(), naive: Naive::new(texts()) }
    }

    fn value(&self, is_pattern: bool, text: &str) -> ValueMatch {
        if is_pattern {
            ValueMatch::Pattern(Arc::clone(&self.tables[text]))
        } else {
            ValueMatch::Exact(text.into())
        }
    }

    /// As the table takes it.
    fn made(&self, wanted: &Wanted) -> RouteMatch {
        let others = |fields: &[Field]| -> Vec<FieldMatch<Arc<str>>> {
            let field = |(name, is_pattern, text): &Field| FieldMatch {
                name: (*name).into(),
                value: self.value(*is_pattern, text),
            };
            fields.iter().map(field).collect()
        };
        let networks = wanted.networks.iter().map(|text| (text.parse::<IpNet>().expect("a network"), ()));
        let headers = wanted.headers.iter().map(|(name, is_pattern, text)| FieldMatch {
            name: name.parse().expect("a name"),
            value: self.value(*is_pattern, text),
        });
        let conditions = Conditions {
            method: wanted.method.map(|method| method.parse().expect("a method")),
            headers: headers.collect(),
            query: others(&wanted.query),
            cookies: others(&wanted.cookies),
            sources: (!wanted.networks.is_empty()).then(|| Arc::new(IpTable::new(networks))),
        };
        let path = match wanted.path.expect("a path") {
            (Kind::Exact, path) => PathMatch::Exact(path.into()),
            (Kind::Pattern, text) => PathMatch::Pattern(Arc::clone(&self.tables[text])),
            (Kind::Prefix, path) => PathMatch::Prefix(path.into()),
        };
        RouteMatch { path, conditions: Some(Arc::new(conditions)) }
    }
}

/// Compares over one generated world; returns how many requests had a route.
fn compare(patterns: &Patterns, seed: u64, matches: usize, hosts: &[&'static str], requests: usize) -> usize {
    let random = &mut Rng::new(seed);
    let pools = 1 + random.below(3);
    let all: Vec<Wanted> = (0..pools)
        .flat_map(|pool| (0..matches).map(move |rule| (pool, rule)))
        .map(|(pool, rule)| wanted(random, pool, rule, hosts))
        .collect();
    let mut parts = RouteParts::default();
    for pool in 0..pools {
        let name: Arc<str> = format!("ns/{pool}").into();
        let of_pool: Vec<_> = all
            .iter()
            .filter(|wanted| wanted.pool == pool)
            .map(|wanted| (wanted, patterns.made(wanted)))
            .map(|(wanted, made)| {
                let host = Some(wanted.host).filter(|host| !host.is_empty());
                (host, made, Arc::new(Route::new(0, Arc::clone(&name), wanted.rule, Vec::new())))
            })
            .collect();
        parts.put(&name, of_pool.iter().map(|(host, made, route)| (*host, made, route)));
    }
    let mut found = 0;
    for _ in 0..requests {
        let asked = asked(random);
        let want =
            patterns.naive.find(&all, &asked).map(|wanted| (format!("ns/{}", wanted.pool), wanted.rule));
        let has = parts.table().find(asked.host, asked.path, &asked);
        let has = has.map(|found| (found.route.pool.to_string(), found.route.rule));
        assert_eq!(has, want, "seed {seed}: {asked:?} of {all:#?}");
        explained(parts.table(), &asked, want.as_ref(), &format!("seed {seed}: {asked:?} of {all:#?}"));
        found += usize::from(want.is_some());
    }
    found
}

/// What is told of a request is where it goes: the first match of the explanation that holds is the one that is found.
fn explained(table: &RouteTable, asked: &Asked, want: Option<&(String, usize)>, case: &str) {
    let considered = table.considered(asked.host, asked.path, asked);
    let first = considered.iter().find(|one| matches!(one.fit, Fit::Holds));
    let told = first.map(|one| (one.route.pool.to_string(), one.route.rule));
    assert_eq!(told.as_ref(), want, "{case}");
    for one in &considered {
        let holds = one
            .conditions
            .is_none_or(|asks| asks.each().all(|condition| condition.holds(asked, &one.route.pool)));
        match one.fit {
            Fit::Holds => assert!(holds, "{one:?} of {case}"),
            Fit::Lacks(condition) => assert!(!condition.holds(asked, &one.route.pool), "{one:?} of {case}"),
            Fit::OtherPath => {}
        }
    }
}

#[test]
fn the_table_finds_what_the_words_of_the_gateway_api_say() {
    let patterns = Patterns::new();
    let worlds = (0..400).zip((1..=12).cycle());
    let found: usize = worlds.map(|(seed, matches)| compare(&patterns, seed, matches, &HOSTS, 40)).sum();
    assert!((2_000..14_000).contains(&found), "requests with and without a route: {found} of 16000");
}

#[test]
fn so_it_does_with_many_matches_of_one_host() {
    let patterns = Patterns::new();
    let found: usize = (1_000..1_020).map(|seed| compare(&patterns, seed, 100, &HOSTS[..1], 60)).sum();
    assert!(found > 600, "{found} of 1200");
}
