//! Headers and targets that backends and clients see in place of those that came.

use super::Site;

#[test]
fn headers_are_set_added_and_removed_both_ways() {
    let site = Site::start(
        "",
        &["{ filters: [
            { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Set, value: ours }], add: [{ name: X-Add, value: ours }], remove: [X-Remove] } },
            { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: Cache-Control, value: public }], add: [{ name: X-Add, value: ours }], remove: [Content-Type] } }],
          backendSets: [{ name: first }] }"],
    );
    let answer = site.get(
        "/",
        &[("x-set", "theirs"), ("x-set", "too"), ("x-add", "theirs"), ("x-remove", "1"), ("x-stay", "1")],
    );
    for (name, value) in
        [("x-set", Some("ours")), ("x-add", Some("theirs, ours")), ("x-remove", None), ("x-stay", Some("1"))]
    {
        assert_eq!(answer.seen(name).as_deref(), value, "{name}");
    }
    for (name, value) in [("cache-control", Some("public")), ("x-add", Some("ours")), ("content-type", None)]
    {
        assert_eq!(answer.header(name).as_deref(), value, "{name}");
    }
}

#[test]
fn an_answer_of_ours_has_the_headers_of_its_rule_too() {
    let site = Site::start(
        "",
        &[
            "{ ipRules: { deny: [127.0.0.0/8] }, filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: X-Ours, value: '1' }] } }], backendSets: [{ name: first }] }",
        ],
    );
    let answer = site.get("/", &[]);
    assert_eq!((answer.status, answer.header("x-ours").as_deref()), (403, Some("1")));
}

#[test]
fn paths_and_hosts_are_rewritten_and_the_backend_learns_what_was_asked_for() {
    let rewrite = |value: &str, prefix: &str| {
        format!(
            "{{ matches: [{{ path: {{ value: {value} }} }}], filters: [{{ type: URLRewrite, urlRewrite: {{ hostname: inner.example, path: {{ type: ReplacePrefixMatch, replacePrefixMatch: {prefix} }} }} }}], backendSets: [{{ name: first }}] }}"
        )
    };
    let full = "{ matches: [{ path: { type: Exact, value: /all } }], filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /one } } }], backendSets: [{ name: first }] }";
    let (foo, bar) = (rewrite("/foo", "/xyz"), rewrite("/bar/", "''"));
    let site = Site::start("", &[&foo, &bar, full]);
    for (asked, want) in [
        ("/foo/a?b=%2F", "/xyz/a?b=%2F"),
        ("/foo", "/xyz"),
        ("/foo/", "/xyz/"),
        ("/foo/../foo/a", "/xyz/a"),
        ("/bar/a", "/a"),
        ("/bar", "/"),
        ("/all?x", "/one?x"),
    ] {
        assert_eq!(site.get(asked, &[]).asked(), want, "{asked}");
    }
    let answer = site.get("/foo/a", &[]);
    let host = format!("shop.example:{}", site.port);
    assert_eq!(
        (answer.seen("host").as_deref(), answer.seen("x-forwarded-host")),
        (Some("inner.example"), Some(host))
    );
}
