//! Answers of filters: redirects, fixed ones, refusals.

use super::Site;
use weir_tests::harness::client::Connection;

#[test]
fn a_redirect_leads_to_where_it_says_and_needs_no_backend() {
    let rule = |path: &str, redirect: &str| {
        format!(
            "{{ matches: [{{ path: {{ value: {path} }} }}], filters: [{{ type: RequestRedirect, requestRedirect: {{ {redirect} }} }}] }}"
        )
    };
    let rules = [
        rule("/a", "scheme: https"),
        rule("/b", "hostname: other.example, port: 80, statusCode: 301"),
        rule("/c", "path: { type: ReplacePrefixMatch, replacePrefixMatch: /d }, statusCode: 308"),
        rule("/e", "path: { type: ReplaceFullPath, replaceFullPath: / }, statusCode: 303"),
        rule("/f", "scheme: https, port: 8443, statusCode: 307"),
    ];
    let site = Site::start("", &rules.each_ref().map(String::as_str));
    let own = format!("http://shop.example:{}", site.port);
    for (asked, status, location) in [
        ("/a/x?y=1", 302, "https://shop.example/a/x?y=1".to_owned()),
        ("/b", 301, "http://other.example/b".to_owned()),
        ("/c/x?y", 308, format!("{own}/d/x?y")),
        ("/e/x", 303, format!("{own}/")),
        ("/f", 307, "https://shop.example:8443/f".to_owned()),
    ] {
        let answer = site.get(asked, &[]);
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{asked}");
    }
}

#[test]
fn a_fixed_answer_is_given_here_and_a_body_does_not_cost_the_connection() {
    let site = Site::start(
        "",
        &[
            "{ filters: [{ type: DirectResponse, directResponse: { status: 404, contentType: text/html, body: '<p>none</p>' } }] }",
        ],
    );
    let answer = site.get("/x", &[]);
    assert_eq!((answer.status, answer.content().as_str()), (404, "<p>none</p>"));
    assert_eq!(answer.header("content-type").as_deref(), Some("text/html"));
    let mut connection = Connection::open(site.port).expect("serves");
    for _ in 0..3 {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(connection.request(post).expect("the same connection").status, 404);
    }
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    connection.send(head.as_bytes()).expect("the same connection");
    let answer = connection.read_head().expect("a head");
    assert_eq!(answer.header("content-length"), Some("11"));
}

#[test]
fn what_a_rule_does_not_take_is_refused_with_what_it_does() {
    let site = Site::start(
        "",
        &[
            "{ filters: [{ type: RequestValidation, requestValidation: { methods: [GET, POST], contentTypes: [application/json, 'image/*'] } }], backendSets: [{ name: first }] }",
        ],
    );
    let refused = site.ask("DELETE", "/", &[], "");
    assert_eq!((refused.status, refused.header("allow").as_deref()), (405, Some("GET, POST")));
    assert_eq!(refused.header("x-weir-reason").as_deref(), Some("method_not_allowed"));
    for (content_type, status) in [
        ("application/json; charset=utf-8", 200),
        ("image/png", 200),
        ("text/plain", 415),
        ("application/jsonp", 415),
    ] {
        let answer = site.ask("POST", "/", &[("content-type", content_type)], "{}");
        assert_eq!(answer.status, status, "{content_type}");
    }
    let refused = site.ask("POST", "/", &[], "{}");
    assert_eq!(refused.header("x-weir-reason").as_deref(), Some("content_type_refused"), "without a type");
    assert_eq!(site.get("/", &[("content-type", "text/plain")]).status, 200, "without a body");
}
