//! The table of matches: every kind, and who goes before whom.

use super::pattern::tests::pattern;
use super::*;
use crate::addresses::IpTable;
use crate::backend::{Algorithm, Membership, SetPolicy};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::net::IpAddr;

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn regex(text: &str) -> PathMatch {
    PathMatch::Pattern(pattern(text))
}

/// What a match asks beside the path, written short: `GET`, `h:name=value`, `q:name=value`, `c:name=value`, `s:network`, and
/// `~` in place of `=` for an expression.
fn conditions(text: &str) -> Option<Arc<Conditions>> {
    let mut made = Conditions::default();
    for word in text.split_whitespace() {
        let field = |rest: &str| {
            let at = rest.find(['=', '~']).expect("a name and a value");
            let (name, value) = (&rest[..at], &rest[at + 1..]);
            let value = match rest.as_bytes()[at] {
                b'=' => ValueMatch::Exact(value.into()),
                _ => ValueMatch::Pattern(pattern(value)),
            };
            (name.to_owned(), value)
        };
        match word.split_once(':') {
            None => made.method = Some(word.parse().expect("a method")),
            Some(("h", rest)) => {
                let (name, value) = field(rest);
                made.headers.push(FieldMatch { name: name.parse().expect("a name"), value });
            }
            Some((kind @ ("q" | "c"), rest)) => {
                let (name, value) = field(rest);
                let fields = if kind == "q" { &mut made.query } else { &mut made.cookies };
                fields.push(FieldMatch { name: name.into(), value });
            }
            Some((_, network)) => {
                let network = network.parse().expect("a network");
                made.sources = Some(Arc::new(IpTable::new([(network, ())])));
            }
        }
    }
    (!text.is_empty()).then(|| Arc::new(made))
}

/// A request, written short: method, target with query, then `h:name=value` and `c:name=value`, and `s:address`.
struct Asked {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    cookies: Vec<(String, String)>,
    source: IpAddr,
}

impl Asked {
    fn new(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let method = words.next().expect("a method").parse().expect("a method");
        let target = words.next().expect("a target");
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut asked = Self {
            method,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: HeaderMap::new(),
            cookies: Vec::new(),
            source: [192, 0, 2, 1].into(),
        };
        for word in words {
            let (kind, rest) = word.split_once(':').expect("a kind");
            if kind == "s" {
                asked.source = rest.parse().expect("an address");
                continue;
            }
            let (name, value) = rest.split_once('=').expect("a value");
            if kind == "h" {
                let name: HeaderName = name.parse().expect("a name");
                asked.headers.append(name, HeaderValue::from_str(value).expect("a value"));
            } else {
                asked.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        asked
    }
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
        self.cookies.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_bytes())
    }

    fn source(&self, _pool: &Arc<str>) -> IpAddr {
        self.source
    }
}

/// Of one pool; the rule of each is its position.
fn table(routes: &[(Option<&str>, PathMatch, &str)]) -> RouteTable {
    let route = |rule: usize| Arc::new(Route::new(rule as u64, "ns/pool".into(), rule, Vec::new()));
    let made: Vec<_> = routes
        .iter()
        .enumerate()
        .map(|(rule, (host, path, text))| {
            (*host, RouteMatch { path: path.clone(), conditions: conditions(text) }, route(rule))
        })
        .collect();
    let mut parts = RouteParts::default();
    parts.put("ns/pool", made.iter().map(|(host, wanted, route)| (*host, wanted, route)));
    parts.table().clone()
}

fn rule(table: &RouteTable, host: &str, asked: &str) -> Option<usize> {
    let asked = Asked::new(asked);
    table.find(host, &asked.path, &asked).map(|found| found.route.rule)
}

#[test]
fn the_most_specific_host_then_path_wins() {
    let table = table(&[
        (None, prefix("/"), ""),
        (Some("*.example.com"), prefix("/"), ""),
        (Some("*.deep.example.com"), prefix("/"), ""),
        (Some("shop.example.com"), prefix("/api"), ""),
        (Some("shop.example.com"), prefix("/api/v2/"), ""),
        (Some("shop.example.com"), exact("/api/v2/ping"), ""),
    ]);
    let cases = [
        ("other.org", "/x", Some(0)),
        ("example.com", "/", Some(0)),
        ("a.example.com", "/", Some(1)),
        ("a.b.example.com", "/", Some(1)),
        ("a.deep.example.com", "/", Some(2)),
        ("shop.example.com", "/api", Some(3)),
        ("shop.example.com", "/api/", Some(3)),
        ("shop.example.com", "/api/v1", Some(3)),
        ("shop.example.com", "/api/v2", Some(4)),
        ("shop.example.com", "/api/v2/ping", Some(5)),
        ("shop.example.com", "/api/v2/ping/", Some(4)),
        ("shop.example.com", "/api/v2/pinger", Some(4)),
        ("shop.example.com", "/apis", Some(1)),
        ("", "/", Some(0)),
        (".", "/", Some(0)),
    ];
    for (host, path, want) in cases {
        let found = table.find(host, path, &PathAlone::default());
        assert_eq!(found.map(|found| found.route.rule), want, "{host}{path}");
    }
}

#[test]
fn every_kind_of_condition_holds_for_what_it_names_and_for_nothing_else() {
    type Case = (&'static str, &'static [&'static str], &'static [&'static str]);
    let cases: [Case; 9] = [
        ("GET", &["GET /"], &["POST /", "HEAD /"]),
        (
            "h:x-tenant=a",
            &["GET / h:x-tenant=a", "GET / h:x-tenant=b h:X-Tenant=a"],
            &["GET /", "GET / h:x-tenant=A"],
        ),
        ("h:x-tenant~[a-c]+", &["GET / h:x-tenant=abc"], &["GET /", "GET / h:x-tenant=abcd"]),
        (
            "q:user=a",
            &["GET /?user=a", "GET /?x=1&user=a&user=b", "GET /?us%65r=%61"],
            &["GET /", "GET /?user=b&user=a"],
        ),
        ("q:user~[0-9]+", &["GET /?user=12"], &["GET /?user=", "GET /?user=1x"]),
        ("c:beta=1", &["GET / c:beta=1", "GET / c:a=b c:beta=1"], &["GET /", "GET / c:beta=2 c:beta=1"]),
        ("c:beta~1|2", &["GET / c:beta=2"], &["GET / c:beta=3"]),
        (
            "s:198.51.100.0/24",
            &["GET / s:198.51.100.7", "GET / s:::ffff:198.51.100.7"],
            &["GET /", "GET / s:::1"],
        ),
        (
            "POST h:a=1 h:b=2 q:c=3",
            &["POST /?c=3 h:a=1 h:b=2"],
            &["POST /?c=3 h:a=1", "GET /?c=3 h:a=1 h:b=2", "POST / h:a=1 h:b=2"],
        ),
    ];
    for (text, holds, fails) in cases {
        let table = table(&[(None, prefix("/"), text)]);
        holds.iter().for_each(|asked| assert_eq!(rule(&table, "h", asked), Some(0), "{text}: {asked}"));
        fails.iter().for_each(|asked| assert_eq!(rule(&table, "h", asked), None, "{text}: {asked}"));
    }
}

/// Each line goes before those below it, though it was added after them, for a request that all of them are for.
#[test]
fn what_is_more_specific_goes_first_in_the_order_of_the_gateway_api() {
    let order: Vec<(Option<&str>, PathMatch, &str)> = vec![
        (Some("a.b.org"), exact("/x/y"), "GET h:a=1"),
        (Some("a.b.org"), exact("/x/y"), ""),
        (Some("a.b.org"), regex("/x/[a-z]+"), "GET"),
        (Some("a.b.org"), regex("/x/[a-z]+"), ""),
        (Some("a.b.org"), regex("/x/.*"), "GET h:a=1 q:b=2 c:d=3"),
        (Some("a.b.org"), prefix("/x/y"), "GET"),
        (Some("a.b.org"), prefix("/x"), "GET h:a=1 h:e=1 q:b=2 c:d=3 s:192.0.2.0/24"),
        (Some("a.b.org"), prefix("/x"), "GET h:a=1 q:b=2 q:f=2"),
        (Some("a.b.org"), prefix("/x"), "GET h:a=1 q:b=2 c:d=3"),
        (Some("a.b.org"), prefix("/x"), "GET h:a=1 q:b=2"),
        (Some("a.b.org"), prefix("/x"), "GET"),
        (Some("a.b.org"), prefix("/x"), "h:a=1 h:e=1"),
        (Some("a.b.org"), prefix("/x"), "h:a=1 q:b=2 q:f=2"),
        (Some("a.b.org"), prefix("/x"), "h:a=1"),
        (Some("a.b.org"), prefix("/x"), "q:b=2 q:f=2"),
        (Some("a.b.org"), prefix("/x"), "q:b=2 c:d=3 c:g=3"),
        (Some("a.b.org"), prefix("/x"), "q:b=2 c:d=3"),
        (Some("a.b.org"), prefix("/x"), "c:d=3 c:g=3"),
        (Some("a.b.org"), prefix("/x"), "c:d=3 s:192.0.2.0/24"),
        (Some("a.b.org"), prefix("/x"), "c:d=3"),
        (Some("a.b.org"), prefix("/x"), "s:192.0.2.0/24"),
        (Some("a.b.org"), prefix("/x"), ""),
        (Some("a.b.org"), prefix("/"), "GET h:a=1"),
        (Some("a.b.org"), prefix("/"), ""),
        (Some("*.b.org"), exact("/x/y"), "GET h:a=1"),
        (Some("*.org"), exact("/x/y"), "GET h:a=1"),
        (None, exact("/x/y"), "GET h:a=1"),
    ];
    let asked = "GET /x/y?b=2&f=2 h:a=1 h:e=1 c:d=3 c:g=3";
    for from in 0..order.len() {
        let mut backwards = order[from..].to_vec();
        backwards.reverse();
        assert_eq!(rule(&table(&backwards), "a.b.org", asked), Some(backwards.len() - 1), "line {from}");
    }
}

/// Of two matches that hold, the first goes before the second for this reason.
#[test]
fn what_puts_one_match_before_another_is_told() {
    use Precedence::{
        Cookies, ExactPath, Expression, Headers, Host, LongerExpression, LongerPrefix, Match, Method, Pool,
        QueryParameters, Rule, Source,
    };
    let (host, path) = (Some("a.b.org"), || prefix("/x"));
    type Of = (Option<&'static str>, PathMatch, &'static str);
    let cases: [(Of, Of, Precedence); 13] = [
        ((host, path(), ""), (Some("*.b.org"), exact("/x/y"), "GET"), Host),
        ((Some("*.b.org"), path(), ""), (None, exact("/x/y"), "GET"), Host),
        ((host, exact("/x/y"), ""), (host, regex("/x/y"), "GET"), ExactPath),
        ((host, regex("/x/.*"), ""), (host, prefix("/x/y"), "GET"), Expression),
        ((host, regex("/x/[a-z]"), ""), (host, regex("/x/.*"), "GET"), LongerExpression),
        ((host, prefix("/x/y"), ""), (host, path(), "GET"), LongerPrefix),
        ((host, path(), "GET"), (host, path(), "h:a=1"), Method),
        ((host, path(), "h:a=1"), (host, path(), "q:b=2"), Headers),
        ((host, path(), "q:b=2"), (host, path(), "c:d=3"), QueryParameters),
        ((host, path(), "c:d=3"), (host, path(), "s:192.0.2.0/24"), Cookies),
        ((host, path(), "s:192.0.2.0/24"), (host, path(), ""), Source),
        ((host, path(), "GET h:a=1"), (host, path(), "GET h:a~.*"), Rule),
        ((host, regex("/x/."), "h:a=1"), (host, regex("/x/y"), ""), Headers),
    ];
    let asked = Asked::new("GET /x/y?b=2 h:a=1 c:d=3");
    for (first, second, want) in cases {
        // The rule that is written later comes first by what it asks, save where the order decides.
        let rules = if want == Rule { [first, second] } else { [second, first] };
        let table = table(&rules);
        let considered = table.considered("a.b.org", &asked.path, &asked);
        let holding: Vec<_> = considered.iter().filter(|one| matches!(one.fit, Fit::Holds)).collect();
        assert_eq!(holding[0].goes_before(holding[1]), want, "{rules:?}");
    }
    let route = Arc::new(Route {
        written: Written {
            matches: [path(), prefix("/x/")].map(RouteMatch::by_path).into(),
            ..Written::default()
        },
        ..Route::new(0, "ns/pool".into(), 0, Vec::new())
    });
    let wanted = |text: &str| RouteMatch { path: path(), conditions: conditions(text) };
    let (one, other) = (wanted("h:a=1"), wanted("h:a~1"));
    let mut parts = RouteParts::default();
    parts.put("ns/pool", [(None, &one, &route), (None, &other, &route), (None, &wanted(""), &route)]);
    let considered = parts.table().considered("h", "/x", &asked);
    assert_eq!(considered[0].goes_before(&considered[1]), Match);
    assert_eq!(considered.iter().map(Considered::position).collect::<Vec<_>>(), [None, None, Some(0)]);
    let younger = Arc::new(Route::new(0, "ns/q".into(), 0, Vec::new()));
    parts.put("ns/q", [(None, &one, &younger)]);
    let considered = parts.table().considered("h", "/x", &asked);
    let of_younger = considered.iter().find(|one| Arc::ptr_eq(one.route, &younger)).expect("it is there");
    assert_eq!(considered[0].goes_before(of_younger), Pool);
    let said = [Host, Match].map(|precedence| precedence.to_string());
    assert_eq!(said, ["its host is more specific", "it comes first in its rule"]);
}

#[test]
fn what_does_not_hold_is_told_with_its_first_condition_and_in_the_order_of_precedence() {
    let table = table(&[
        (Some("a.org"), exact("/x"), "POST h:v=2"),
        (Some("a.org"), regex("/x/.*"), ""),
        (Some("a.org"), prefix("/x"), "h:v=1 c:beta=1"),
        (Some("a.org"), prefix("/x"), "s:198.51.100.0/24"),
        (Some("a.org"), prefix("/longer"), ""),
        (None, prefix("/"), ""),
        (Some("b.org"), prefix("/"), ""),
    ]);
    let asked = Asked::new("GET /x h:v=1");
    let considered = table.considered("a.org", "/x", &asked);
    let told: Vec<_> = considered
        .iter()
        .map(|one| {
            let fit = match one.fit {
                Fit::Holds => "holds",
                Fit::OtherPath => "path",
                Fit::Lacks(Condition::Method(_)) => "method",
                Fit::Lacks(Condition::Cookie(_)) => "cookie",
                Fit::Lacks(Condition::Source(_)) => "source",
                Fit::Lacks(_) => "another",
            };
            (one.route.rule, fit)
        })
        .collect();
    let want = [(0, "method"), (1, "path"), (4, "path"), (2, "cookie"), (3, "source"), (5, "holds")];
    assert_eq!(told, want);
    let hosts: Vec<_> = table.hostnames().into_iter().map(|host| host.map(|host| host.to_string())).collect();
    assert_eq!(hosts, [Some("a.org".to_owned()), Some("b.org".to_owned()), None]);
}

#[test]
fn of_equals_the_pool_of_the_smaller_name_goes_first_and_within_it_what_was_added_first() {
    let route = |pool: &str, rule: usize| Arc::new(Route::new(0, pool.into(), rule, Vec::new()));
    let wanted = |text: &str| RouteMatch { path: prefix("/"), conditions: conditions(text) };
    let mut parts = RouteParts::default();
    for pool in ["ns/b", "ns/a"] {
        let of_pool =
            [("h:y=1", 0), ("h:x=1", 1), ("h:x=1", 2)].map(|(text, rule)| (wanted(text), route(pool, rule)));
        parts.put(pool, of_pool.iter().map(|(wanted, route)| (None, wanted, route)));
    }
    let asked = Asked::new("GET / h:x=1");
    let found = parts.table().find("h", "/", &asked).expect("a route");
    assert_eq!((&*found.route.pool, found.route.rule), ("ns/a", 1));
}

#[test]
fn what_does_not_hold_hides_nothing_behind_it() {
    let table = table(&[
        (Some("a.org"), exact("/x/y"), "POST"),
        (Some("a.org"), regex("/x/.*"), "h:v=2"),
        (Some("a.org"), prefix("/x/y"), "h:v=1"),
        (Some("a.org"), prefix("/x"), "q:v=1"),
        (Some("a.org"), prefix("/"), "PUT"),
        (Some("*.org"), prefix("/x"), "c:v=1"),
        (None, prefix("/"), ""),
    ]);
    for (asked, want) in [
        ("POST /x/y h:v=2", 0),
        ("GET /x/y h:v=2", 1),
        ("GET /x/y h:v=1", 2),
        ("GET /x/y?v=1", 3),
        ("PUT /x/y", 4),
        ("GET /x/y c:v=1", 5),
        ("GET /x/y", 6),
    ] {
        assert_eq!(rule(&table, "a.org", asked), Some(want), "{asked}");
    }
}

#[test]
fn among_many_matches_of_one_path_the_first_that_holds_is_found_by_any_of_its_values() {
    let mut routes: Vec<(Option<&str>, PathMatch, String)> = Vec::new();
    for at in 0..300 {
        let text = match at % 6 {
            0 => format!("h:x-tenant=t{at}"),
            1 => format!("q:tenant=t{at}"),
            2 => format!("c:tenant=t{at}"),
            3 => format!("GET h:x-tenant=t{} h:x-version=2", at - 3),
            4 => format!("M{at}"),
            _ => format!("h:x-tenant~t{at}[a-z]?"),
        };
        routes.push((None, prefix("/"), text));
    }
    let routes: Vec<_> =
        routes.iter().map(|(host, path, text)| (*host, path.clone(), text.as_str())).collect();
    let table = table(&routes);
    for (asked, want) in [
        ("GET / h:x-tenant=t294", Some(294)),
        ("GET / h:x-tenant=t294 h:x-version=2", Some(297)),
        ("POST / h:x-tenant=t294 h:x-version=2", Some(294)),
        ("GET / h:x-tenant=none h:x-tenant=t6", Some(6)),
        ("GET /?tenant=t7", Some(7)),
        ("GET /?tenant=t7 h:x-tenant=t6", Some(6)),
        ("GET / c:tenant=t8", Some(8)),
        ("M10 /", Some(10)),
        ("GET / h:x-tenant=t299", Some(299)),
        ("GET / h:x-tenant=t299x", Some(299)),
        ("GET /", None),
    ] {
        assert_eq!(rule(&table, "h", asked), want, "{asked}");
    }
}

#[test]
fn what_a_prefix_took_of_the_path_is_known() {
    let table = table(&[
        (None, prefix("/"), "GET"),
        (None, prefix("/a/b/"), ""),
        (None, exact("/e"), ""),
        (None, regex("/r[0-9]"), ""),
    ]);
    for (path, want) in [("/a/b/c", 4), ("/a/b/", 4), ("/a/b", 4), ("/x", 0), ("/e", 2), ("/r1", 3)] {
        let found = table.find("h", path, &PathAlone::default()).expect("a route");
        assert_eq!(found.prefix_bytes, want, "{path}");
    }
}

#[test]
fn what_stands_in_for_a_set_is_found_for_those_that_stand_in_too() {
    let set = |id: u64| {
        let members = Arc::new(Membership::new(id, Vec::new()));
        let policy = SetPolicy::new(Algorithm::RoundRobin);
        Arc::new(BackendSet::new(id, format!("ns/pool/{id}").into(), policy, members))
    };
    let [first, second, third] = [1, 2, 3].map(set);
    let with = |set: &Arc<BackendSet>, fallback: Option<&Arc<BackendSet>>| WeightedSet {
        fallback: fallback.map(|set| Fallback::Set(Arc::clone(set))),
        ..WeightedSet::new(Arc::clone(set), 0)
    };
    let mut route = Route::new(1, "ns/pool".into(), 0, vec![with(&first, Some(&second))]);
    route.fallbacks = vec![with(&second, Some(&third)), with(&third, None)];
    let after = |set: &BackendSet| match route.fallback_of(set) {
        Some(Fallback::Set(next)) => Some(next.id),
        _ => None,
    };
    assert_eq!([&first, &second, &third].map(|set| after(set)), [Some(2), Some(3), None]);
    assert!(route.fallback_of(&set(4)).is_none(), "a set of another route");
}

#[test]
fn nothing_matches_nothing() {
    assert_eq!(rule(&table(&[]), "a", "GET /"), None);
    assert_eq!(rule(&table(&[(Some("b"), prefix("/"), "")]), "a", "GET /"), None);
    assert_eq!(rule(&table(&[(None, exact("/only"), "")]), "a", "GET /"), None);
    assert_eq!(rule(&table(&[(None, prefix("/a"), "")]), "a", "OPTIONS *"), None);
}

#[test]
fn the_first_of_two_equal_matches_stays() {
    let table = table(&[(None, prefix("/a"), ""), (None, prefix("/a/"), "")]);
    assert_eq!(rule(&table, "h", "GET /a/b"), Some(0));
}

#[test]
fn paths_that_are_not_ascii_or_all_slashes_are_matched_without_a_panic() {
    let table = table(&[(None, prefix("/ab"), ""), (None, prefix("/"), ""), (None, regex("/x+"), "")]);
    for path in ["/\u{e9}\u{e9}\u{e9}", "/a\u{e9}", &"/".repeat(9000), ""] {
        let found = table.find("h", path, &PathAlone::default());
        assert_eq!(found.map(|found| found.route.rule), Some(1), "{path}");
    }
}
