//! Explanations over manifests: what is told of each stage.

mod layer4;

use super::*;
use clap::Parser;
use weir_proxy::explain::{Answerer, QuestionError};

const POOL: &str = "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: { name: shop, namespace: default }
spec:
  listeners:
    - { name: http, port: 8080, protocol: HTTP, hostnames: [\"*.example\", plain.test] }
    - { name: proxied, port: 8081, protocol: HTTP, clientAddress: { trustedCIDRs: [10.0.0.0/8] } }
  timeouts: { request: 30s }
  rules:
    - name: beta
      hostnames: [shop.example]
      matches:
        - { path: { value: /api }, headers: [{ name: X-Beta, value: \"yes\" }] }
        - { path: { type: RegularExpression, value: \"/v[0-9]+/.*\" }, method: GET }
      backendSets: [{ name: web }]
    - name: api
      hostnames: [shop.example]
      matches: [{ path: { value: /api } }]
      ipRules: { deny: [203.0.113.0/24] }
      rateLimits: [{ name: each, requests: 5, period: 1s }]
      filters:
        - { type: CORS, cors: { allowOrigins: [\"https://a.test\"], allowMethods: [GET] } }
        - { type: RequestValidation, requestValidation: { methods: [GET, POST, OPTIONS], contentTypes: [application/json] } }
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Stage, value: prod }], remove: [X-Debug] } }
        - { type: URLRewrite, urlRewrite: { hostname: inner.test, path: { type: ReplacePrefixMatch, replacePrefixMatch: /v1 } } }
        - { type: RequestMirror, requestMirror: { backendSet: shadow, percent: 10 } }
        - { type: ResponseHeaderModifier, responseHeaderModifier: { add: [{ name: X-By, value: weir }] } }
      backendSets: [{ name: web }]
    - name: moved
      matches: [{ path: { value: /old } }]
      filters:
        - { type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new }, statusCode: 301 } }
    - name: robots
      matches: [{ path: { type: Exact, value: /robots.txt } }]
      filters: [{ type: DirectResponse, directResponse: { body: hello } }]
    - name: split
      matches: [{ path: { value: /split } }]
      backendSets:
        - { name: web, weight: 3 }
        - { name: hashed, weight: 1, matches: [{ type: Header, name: X-Canary }] }
    - name: hashed
      matches: [{ path: { value: /hashed } }]
      backendSets: [{ name: hashed }]
    - name: sessions
      matches: [{ path: { value: /cookie } }]
      sessionPersistence: { type: Cookie }
      backendSets: [{ name: shadow }]
    - name: sticky
      matches: [{ path: { value: /sticky } }]
      sessionPersistence: { type: Header, sessionName: X-User }
      backendSets: [{ name: web }]
    - name: empty
      matches: [{ path: { value: /empty } }]
      backendSets: [{ name: none }]
    - name: rescued
      matches: [{ path: { value: /rescued } }]
      backendSets: [{ name: none, weight: 1 }, { name: one, weight: 0 }]
    - name: office
      hostnames: [plain.test]
      matches: [{ sourceIPs: [198.51.100.0/24] }]
      backendSets: [{ name: one }]
  backendSets:
    - { name: web, loadBalancing: { algorithm: RoundRobin }, static: { backends: [{ address: 10.0.0.1, port: 80, weight: 3 }, { address: 10.0.0.2, port: 80 }] } }
    - { name: hashed, loadBalancing: { algorithm: ConsistentHash, consistentHash: { key: Header, name: X-User } }, static: { backends: [{ address: 10.0.1.1, port: 80 }, { address: 10.0.1.2, port: 80 }, { address: 10.0.1.3, port: 80 }] } }
    - { name: shadow, static: { backends: [{ address: 10.0.2.1, port: 80 }, { address: 10.0.2.2, port: 80, priority: 1 }] } }
    - { name: one, static: { backends: [{ address: 10.0.3.1, port: 80 }] } }
    - { name: none, static: { backends: [] } }
";

/// A pool beside it on one of its ports.
const SECURE: &str = "---
apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: { name: secure, namespace: default }
spec:
  listeners: [{ name: http, port: 8080, protocol: HTTP, hostnames: [secure.test], httpsRedirect: {} }]
  rules: [{ backendSets: [{ name: web }] }]
  backendSets: [{ name: web, static: { backends: [{ address: 10.0.4.1, port: 80 }] } }]
";

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    explain: Args,
}

fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
    Command::try_parse_from([&["explain"], flags].concat()).map(|command| command.explain)
}

/// The shop's word on a request, asked as on the command line.
fn explained(flags: &[&str]) -> Explanation {
    over(POOL, flags).0
}

fn over(text: &str, flags: &[&str]) -> (Explanation, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("pool.yaml"), text).expect("writable");
    let path = folder.path().to_str().expect("text");
    let args = parse(&[flags, &["-f", path]].concat()).expect("good flags");
    let pools = source::of_manifests(&args.of.folder).expect("manifests");
    let question = args.question().expect("a question");
    source::explained(pools, args.class.as_deref(), args.zone.as_deref().unwrap_or_default(), &question)
}

#[test]
fn the_shop_is_as_it_should_be() {
    let (_, remarks) = over(POOL, &["http://shop.example:8080/"]);
    assert_eq!(remarks, [""; 0]);
}

#[test]
fn a_route_is_told_with_its_match_its_conditions_and_those_that_came_near() {
    let told = explained(&["http://shop.example:8080/api/x", "-H", "X-Beta: yes"]);
    let route = told.route.as_ref().expect("a route");
    assert_eq!(
        (&*route.pool, route.rule.as_deref(), &*route.field, route.hostname.as_deref()),
        ("default/shop", Some("beta"), "spec.rules[0].matches[0]", Some("shop.example"))
    );
    assert_eq!((&*route.path_type, &*route.path, route.conditions.len()), ("PathPrefix", "/api", 1));
    assert!(route.conditions[0].holds && route.conditions[0].name.as_deref() == Some("x-beta"));
    let near: Vec<_> = told.passed_over.iter().map(|one| (&*one.of.field, one.holds, &*one.why)).collect();
    assert_eq!(near, [("spec.rules[1].matches[0]", true, "the other goes first: it asks for more headers")]);
    let listener = told.listener.expect("a listener");
    assert_eq!(
        (listener.port, listener.name.as_deref(), listener.field.as_deref()),
        (8080, Some("http"), Some("spec.listeners[0]"))
    );

    let told = explained(&["http://shop.example:8080/api/x", "-H", "X-Beta: no"]);
    assert_eq!(told.route.expect("a route").rule.as_deref(), Some("api"));
    let near = &told.passed_over[0];
    assert_eq!((near.holds, &*near.of.field), (false, "spec.rules[0].matches[0]"));
    assert_eq!(near.why, "it asks for header x-beta \"yes\", and it has another value");

    let told = explained(&["POST", "http://shop.example:8080/v2/api"]);
    assert!(!told.answered && told.route.is_none());
    assert_eq!((told.answer.status, told.answer.reason.as_deref()), (Some(404), Some("no_route")));
    assert_eq!(told.passed_over[0].why, "it asks for method GET, and this is POST");
    assert!(told.passed_over.len() > 1, "the nearest of other paths, too");

    let told = explained(&["http://plain.test:8080/", "--source", "198.51.100.9"]);
    assert_eq!(told.backend.expect("decided").address, "10.0.3.1:80");
    let told = explained(&["http://plain.test:8080/"]);
    assert_eq!(told.passed_over[0].why, "it is for clients of other networks than that of 127.0.0.1");
}

#[test]
fn what_nobody_answers_is_told_with_what_there_is() {
    for (flags, want) in [
        (&["http://shop.example:9/"][..], "no listener has port 9; ports that are listened on: 8080, 8081"),
        (&["http://shop.example/"], "no listener has port 80: say which one is meant, with --port"),
        (&["https://shop.example:8080/"], "port 8080 speaks HTTP without TLS, and the URL says https://"),
        (
            &["http://nobody.test:8080/"],
            "no listener on port 8080 is for host \"nobody.test\"; hosts there: ",
        ),
        (&["http://a.example:8080/%2e%2e/%2e%2e"], "path"),
        (&["http://shop.example:8080/rescued"], "No backend of the route's backend sets"),
        (&["http://shop.example:8080/empty"], "No backend of the route's backend sets can take a request."),
    ] {
        let told = explained(flags);
        assert!(!told.answered && told.answer.by == Answerer::Nobody, "{flags:?}: {:?}", told.answer);
        assert!(told.answer.detail.contains(want), "{flags:?}: {}", told.answer.detail);
    }
    let told = explained(&["http://shop.example:8080/empty"]);
    assert_eq!((told.answer.status, told.route.is_some()), (Some(503), true));
    let one = POOL.replace("    - { name: proxied", "    #");
    let told = over(&one, &["http://shop.example/api"]).0;
    let why = told.listener.expect("a listener").why;
    assert_eq!(why, "no listener has port 80, and this one alone speaks HTTP");
}

#[test]
fn answers_of_listeners_and_filters_are_told_as_clients_see_them() {
    type Case<'a> = (&'a [&'a str], Answerer, u16, Option<&'a str>, Option<&'a str>);
    let cases: [Case<'_>; 7] = [
        (
            &["http://secure.test:8080/a?b=c"],
            Answerer::Listener,
            308,
            Some("https_redirect"),
            Some("https://secure.test/a?b=c"),
        ),
        (&["http://a.example:8080/old/x"], Answerer::Route, 301, None, Some("http://a.example:8080/new/x")),
        (&["http://a.example:8080/robots.txt"], Answerer::Route, 200, None, None),
        (&["PATCH", "http://shop.example:8080/api"], Answerer::Route, 405, Some("method_not_allowed"), None),
        (
            &[
                "POST",
                "http://shop.example:8080/api",
                "-H",
                "Content-Length: 3",
                "-H",
                "Content-Type: text/plain",
            ],
            Answerer::Route,
            415,
            Some("content_type_refused"),
            None,
        ),
        (
            &["http://shop.example:8080/api", "--source", "203.0.113.7"],
            Answerer::Route,
            403,
            Some("ip_denied"),
            None,
        ),
        (
            &[
                "OPTIONS",
                "http://shop.example:8080/api",
                "-H",
                "Origin: https://a.test",
                "-H",
                "Access-Control-Request-Method: GET",
            ],
            Answerer::Route,
            204,
            None,
            None,
        ),
    ];
    for (flags, by, status, reason, location) in cases {
        let told = over(&format!("{POOL}{SECURE}"), flags).0;
        let answer = &told.answer;
        assert!(told.answered, "{flags:?}: {answer:?}");
        assert_eq!(
            (answer.by, answer.status, answer.reason.as_deref(), answer.location.as_deref()),
            (by, Some(status), reason, location),
            "{flags:?}"
        );
        assert!(told.backend.is_none() && told.sets.is_empty(), "{flags:?}");
    }
}

#[test]
fn what_is_done_to_a_request_is_told_in_order() {
    let told = explained(&[
        "http://shop.example:8080/api//users/./7?q=1",
        "-H",
        "X-Debug: 1",
        "-H",
        "X-Forwarded-For: 6.6.6.6",
        "--source",
        "192.0.2.9",
    ]);
    let path = told.path.expect("a path");
    assert_eq!((&*path.asked, &*path.read), ("/api//users/./7", "/api/users/7"));
    let filters: Vec<_> =
        told.filters.iter().map(|filter| (&*filter.kind, filter.effects.join("; "))).collect();
    let want = [
        ("CORS", "the request names no Origin, so that no origin is told of"),
        ("RequestValidation", "takes method and body"),
        ("RequestHeaderModifier", "sets x-stage: prod; removes x-debug"),
        ("URLRewrite", "path /api/users/7 becomes /v1/users/7; host becomes inner.test"),
        ("RequestMirror", "copies 10 in 100 to shadow"),
        ("ResponseHeaderModifier", "adds x-by: weir"),
    ];
    assert_eq!(filters, want.map(|(kind, effects)| (kind, effects.to_owned())));
    let upstream = told.upstream.expect("a backend is asked");
    assert_eq!((&*upstream.host, &*upstream.target), ("inner.test", "/v1/users/7?q=1"));
    let set: Vec<_> =
        upstream.headers_set.iter().map(|header| format!("{}: {}", header.name, header.value)).collect();
    for header in ["x-forwarded-for: 192.0.2.9", "x-stage: prod", "x-forwarded-host: shop.example:8080"] {
        assert!(set.iter().any(|own| own == header), "{header} in {set:?}");
    }
    assert_eq!(upstream.headers_removed, ["x-debug"]);
    assert_eq!(told.guards.ip_rules_allow, Some(true));
    let limit = &told.guards.rate_limits[0];
    assert_eq!((&*limit.name, limit.requests, limit.period_ms), ("each", 5, 1_000));
    assert_eq!(told.timeouts.expect("some").request_ms, Some(30_000));
    assert_eq!(told.retry.expect("some").statuses, [502, 503, 504]);
}

#[test]
fn who_the_client_is_trusted_proxies_say() {
    let told = explained(&[
        "http://shop.example:8081/old",
        "--source",
        "10.1.2.3",
        "-H",
        "X-Forwarded-For: 198.51.100.7",
    ]);
    let client = told.client.expect("a client");
    assert_eq!((&*client.address, client.is_told_by_proxies), ("198.51.100.7", true));
    let told = explained(&[
        "http://shop.example:8081/old",
        "--source",
        "192.0.2.1",
        "-H",
        "X-Forwarded-For: 198.51.100.7",
    ]);
    assert_eq!(told.client.expect("a client").address, "192.0.2.1");
}

#[test]
fn sets_and_backends_have_their_shares_and_the_one_that_is_decided_is_named() {
    let told = explained(&["http://a.example:8080/split"]);
    let shares: Vec<_> = told.sets.iter().map(|set| (&*set.name, set.share)).collect();
    assert_eq!(shares, [("web", 0.75), ("hashed", 0.25)]);
    let parts: Vec<_> = told.sets[0].backends.iter().map(|backend| backend.probability).collect();
    assert_eq!(parts, [0.75, 0.25]);
    assert!(told.backend.is_none() && told.answer.by == Answerer::Backend);

    let told = explained(&["http://a.example:8080/split", "-H", "X-Canary: 1", "-H", "X-User: anna"]);
    let shares: Vec<_> = told.sets.iter().map(|set| (set.share, &*set.why)).collect();
    let want =
        [(0.0, "the request belongs to another set"), (1.0, "the request has what its matches ask for")];
    assert_eq!(shares, want);
    let by_match = told.backend.expect("by hash");
    let told = explained(&["http://a.example:8080/hashed", "-H", "X-User: anna"]);
    let by_hash = told.backend.expect("by hash");
    assert_eq!((&by_hash.address, &*by_hash.decided_by), (&by_match.address, "hash"));
    let users = (0..20).map(|user| {
        let told = explained(&["http://a.example:8080/hashed", "-H", &format!("X-User: {user}")]);
        told.backend.expect("by hash").address
    });
    assert_eq!(users.collect::<std::collections::BTreeSet<_>>().len(), 3, "keys are spread");
    let told = explained(&["http://a.example:8080/hashed"]);
    assert!(told.backend.is_none());
    assert_eq!(
        told.answer.detail,
        "the request has no header x-user to take a hash of: it may go to any backend"
    );

    let told = explained(&["http://a.example:8080/cookie", "-H", "Cookie: a=b"]);
    let session = told.session.as_ref().expect("sessions");
    assert_eq!(
        (&*session.by, &*session.state),
        ("cookie", "it begins with the answer, which sets the cookie")
    );
    let backend = told.backend.expect("decided");
    assert_eq!((&*backend.address, &*backend.why), ("10.0.2.1:80", "the others are in reserve"));
    let told = explained(&["http://a.example:8080/sticky", "-H", "X-User: anna"]);
    assert_eq!(told.backend.expect("decided").decided_by, "session_start");
    let told = explained(&["http://a.example:8080/sticky"]);
    assert!(told.backend.is_none());
    assert!(told.answer.detail.contains("RoundRobin chooses anew"), "{}", told.answer.detail);
}

#[test]
fn pools_of_other_classes_are_left_out_where_one_is_said() {
    let edge = POOL
        .replace("name: shop, namespace", "name: edge, namespace")
        .replace("spec:\n", "spec:\n  dataPlane: { className: edge }\n");
    let both = format!("{POOL}---\n{edge}");
    let (_, remarks) = over(&both, &["http://a.example:8080/hashed"]);
    assert!(
        remarks.iter().any(|remark| remark.contains("default, edge; say one with --class")),
        "{remarks:?}"
    );
    let (told, remarks) = over(&both, &["http://a.example:8080/hashed", "--class", "edge"]);
    assert_eq!((told.route.expect("a route").pool.as_str(), remarks.len()), ("default/edge", 0));
    let (told, remarks) = over(&both, &["http://a.example:8080/hashed", "--class", "none"]);
    assert!(!told.answered && remarks[0].contains("there are default, edge"), "{remarks:?}");
}

#[test]
fn flags_that_ask_for_nothing_or_for_several_things_are_refused() {
    let url = "http://a.example/";
    for flags in [
        &[url][..],
        &["-f", "x"],
        &["GET", url, "more", "-f", "x"],
        &[url, "-f", "x", "--controller", "127.0.0.1:1"],
        &[url, "--proxy", "127.0.0.1:1", "--controller", "127.0.0.1:1"],
        &[url, "--proxy", "127.0.0.1:1", "--class", "a"],
        &[url, "-f", "x", "--port", "0"],
        &[url, "-f", "x", "--source", "nowhere"],
        &[url, "-f", "x", "-o", "yaml"],
    ] {
        assert!(parse(flags).is_err(), "{flags:?}");
    }
    let args = parse(&["purge", url, "-f", "x", "-f", "y"]).expect("good flags");
    assert_eq!(args.of.folder.len(), 2);
    let bad = parse(&["shop.example", "-f", "x"]).expect("clap takes any text").question();
    let Err(Failure::Usage(error)) = bad else { panic!("no URL") };
    assert!(matches!(error.downcast_ref(), Some(QuestionError::Scheme(_))));
    <Command as clap::CommandFactory>::command().debug_assert();
}
