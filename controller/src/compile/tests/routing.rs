//! What a rule says of matches and filters: what it compiles to, and what is refused with field and value.

use super::*;
use weir_proto::limits::PATTERNS_PER_POOL_MAX;
use weir_proto::push::filters::Target;
use weir_proto::push::{self, Rule};

fn pool(rules: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: l, \
         port: 80, protocol: HTTP}}], backendSets: [{{name: web, static: {{backends: []}}}}], rules: [{rules}]}}"
    )
}

fn compiled(rules: &str) -> Result<Vec<Rule>, Vec<String>> {
    let world = world(&objects(&pool(rules)), None);
    match world.pools.get(&key("shop")) {
        Some(pool) => Ok(pool.config.rules.clone()),
        None => Err(shown(world.rejections.values().flatten())),
    }
}

fn rule(rule: &str) -> Rule {
    compiled(rule).unwrap_or_else(|refused| panic!("{rule}: {refused:?}")).remove(0)
}

fn of_match(text: &str) -> String {
    format!("{{matches: [{{{text}}}], backendSets: [{{name: web}}]}}")
}

fn of_filter(text: &str) -> String {
    format!("{{filters: [{{{text}}}], backendSets: [{{name: web}}]}}")
}

#[test]
fn a_match_compiles_to_all_that_it_asks() {
    let path = |text: &str| rule(&of_match(text)).paths.remove(0);
    let any = path("");
    assert_eq!((any.kind(), any.value.as_str(), any.conditions), (push::PathMatchKind::Prefix, "/", None));
    let all = path(
        "path: {type: RegularExpression, value: '/a.*'}, method: GET, headers: [{name: X-A, value: b}], \
         queryParams: [{name: C, type: RegularExpression, value: 'd+'}], cookies: [{name: E, value: f}], \
         sourceIPs: [10.0.0.0/8]",
    );
    let exact = |name: &str, value: &str| push::FieldMatch {
        name: name.into(),
        value: Some(push::field_match::Value::Exact(value.into())),
    };
    let regex = push::field_match::Value::Regex("d+".into());
    let conditions = push::Conditions {
        method: "GET".into(),
        headers: vec![exact("x-a", "b")],
        query: vec![push::FieldMatch { name: "C".into(), value: Some(regex) }],
        cookies: vec![exact("E", "f")],
        source_networks: vec!["10.0.0.0/8".into()],
    };
    assert_eq!((all.kind(), all.value.as_str()), (push::PathMatchKind::Regex, "/a.*"));
    assert_eq!(all.conditions, Some(conditions));
}

#[test]
fn wrong_matches_are_refused_with_field_and_value() {
    let many = |count: usize| {
        let one = |nth: usize| format!("{{name: h{nth}, value: a}}");
        format!("headers: [{}]", (0..count).map(one).collect::<Vec<_>>().join(", "))
    };
    for (text, expected) in [
        (
            "path: {type: RegularExpression, value: '/(a'}".to_owned(),
            "path.value: \"/(a\" is no regular expression",
        ),
        (
            "path: {type: RegularExpression, value: '(a|b)*a(a|b){16}'}".to_owned(),
            "path.value: \"(a|b)*a(a|b){16}\" becomes a table of more than 262144 bytes",
        ),
        (
            format!("path: {{type: RegularExpression, value: '{}'}}", "a".repeat(1025)),
            "is no expression of 1 to 1024 bytes",
        ),
        ("path: {type: Exact, value: 'a'}".to_owned(), "path.value: \"a\" is not a path"),
        ("method: get".to_owned(), "method: \"get\" has small letters"),
        ("method: 'G T'".to_owned(), "method: \"G T\" is not a token"),
        (
            "headers: [{name: A, value: a}, {name: a, value: b}]".to_owned(),
            "headers[1].name: \"a\" is there twice",
        ),
        ("headers: [{name: a, value: ''}]".to_owned(), "headers[0].value: \"\" is not a header's value"),
        (
            "headers: [{name: a, type: RegularExpression, value: '['}]".to_owned(),
            "headers[0].value: \"[\" is no reg",
        ),
        ("queryParams: [{name: 'a b', value: a}]".to_owned(), "queryParams[0].name: \"a b\" is not a token"),
        ("cookies: [{name: a, value: 'ä'}]".to_owned(), "cookies[0].value: \"ä\" is not a header's value"),
        ("sourceIPs: [10.0.0.1/8]".to_owned(), "sourceIPs[0]: \"10.0.0.1/8\" has bits set"),
        (many(17), "headers: 17 entries are too many: use at most 16"),
    ] {
        let refused = compiled(&of_match(&text)).expect_err(&text);
        assert!(refused.len() == 1 && refused[0].contains("spec.rules[0].matches[0]"), "{refused:?}");
        assert!(refused[0].contains(expected), "{text}: {refused:?}");
    }
    assert!(compiled(&of_match(&many(16))).is_ok());
}

#[test]
fn expressions_of_a_pool_have_a_number_and_one_past_it_is_refused() {
    let rules = |count: usize| {
        let one = |nth: usize| {
            of_match(&format!("headers: [{{name: a, type: RegularExpression, value: 'a{nth}'}}]"))
        };
        (0..count).map(one).collect::<Vec<_>>().join(", ")
    };
    assert!(compiled(&rules(PATTERNS_PER_POOL_MAX)).is_ok());
    let refused = compiled(&rules(PATTERNS_PER_POOL_MAX + 1)).expect_err("one past it");
    assert!(
        refused[0].contains("spec.rules: 101 values of type RegularExpression are too many"),
        "{refused:?}"
    );
}

#[test]
fn filters_compile_to_what_they_say() {
    let filters = |text: &str| rule(text).filters.expect("filters");
    let made = filters(
        "{matches: [{path: {value: /a}}], filters: [\
         {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: b}], remove: [X-C]}}, \
         {type: URLRewrite, urlRewrite: {hostname: a.org, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x/}}}, \
         {type: RequestMirror, requestMirror: {backendSet: web, percent: 5}}, \
         {type: RequestMirror, requestMirror: {backendSet: web}}, \
         {type: CORS, cors: {allowOrigins: ['https://A.org'], allowHeaders: [X-D]}}, \
         {type: RequestValidation, requestValidation: {methods: [GET], contentTypes: [Image/*]}}], \
         backendSets: [{name: web}]}",
    );
    let headers = made.request_headers.expect("changes");
    assert_eq!((headers.set[0].name.as_str(), headers.remove[0].as_str()), ("x-a", "x-c"));
    let Some(Target::Rewrite(rewrite)) = made.target else { panic!("{:?}", made.target) };
    let change = rewrite.path.and_then(|path| path.change);
    assert_eq!(change, Some(push::path_change::Change::Prefix("/x".into())));
    let shares: Vec<_> = made.mirrors.iter().map(|mirror| (mirror.numerator, mirror.denominator)).collect();
    assert_eq!(shares, [(5, 100), (1, 1)]);
    let cors = made.cors.expect("CORS");
    assert_eq!((cors.allow_origins, cors.max_age_s), (vec!["https://a.org".to_owned()], 5));
    assert_eq!(made.validation.expect("validation").content_types, ["image/*"]);

    let made =
        filters("{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]}");
    let Some(Target::Redirect(redirect)) = made.target else { panic!("{:?}", made.target) };
    assert_eq!((redirect.scheme.as_str(), redirect.status, redirect.port), ("https", 301, 0));
}

#[test]
fn wrong_filters_are_refused_with_field_and_value() {
    let headers = |text: &str| format!("type: RequestHeaderModifier, requestHeaderModifier: {{{text}}}");
    for (text, expected) in [
        (
            headers("set: [{name: Host, value: a}]"),
            "set[0].name: \"Host\" cannot be changed as a header: use the filter URLRewrite",
        ),
        (
            headers("remove: [Content-Length]"),
            "remove[0]: \"Content-Length\" is a header of the connection or of framing",
        ),
        (
            headers("add: [{name: X-Forwarded-For, value: a}]"),
            "add[0].name: \"X-Forwarded-For\" tells backends who asks",
        ),
        (headers("set: [{name: a, value: b}], remove: [A]"), "remove[0]: \"A\" is there twice"),
        (headers("set: [{name: a, value: \"b\\n\"}]"), "set[0].value: \"b\\n\" is not a header's value"),
        (headers(""), "requestHeaderModifier: changes nothing"),
        ("type: URLRewrite".to_owned(), "filters[0].urlRewrite: is missing: type URLRewrite needs it"),
        (
            "type: URLRewrite, urlRewrite: {hostname: a}, cors: {allowOrigins: ['*']}".to_owned(),
            "filters[0].cors: is not for type URLRewrite: remove it",
        ),
        ("type: URLRewrite, urlRewrite: {hostname: '*.a'}".to_owned(), "hostname: \"*.a\" has a star"),
        (
            "type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: 'a b'}}"
                .to_owned(),
            "replaceFullPath: \"a b\" is not a path",
        ),
        (
            "type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}".to_owned(),
            "urlRewrite.path: must have replaceFullPath for its type",
        ),
        (
            "type: RequestMirror, requestMirror: {backendSet: none}".to_owned(),
            "backendSet: \"none\" is not a name in",
        ),
        (
            "type: RequestMirror, requestMirror: {backendSet: web, percent: 101}".to_owned(),
            "percent: 101 is out of range: use 0 to 100",
        ),
        (
            "type: RequestMirror, requestMirror: {backendSet: web, fraction: {numerator: 3, denominator: 2}}"
                .to_owned(),
            "fraction.numerator: 3 is out of range: use 0 to 2",
        ),
        (
            "type: CORS, cors: {allowOrigins: ['a.org']}".to_owned(),
            "allowOrigins[0]: \"a.org\" is not an origin",
        ),
        ("type: CORS, cors: {}".to_owned(), "allowOrigins: is empty"),
        (
            "type: CORS, cors: {allowOrigins: ['*'], allowHeaders: ['*', a]}".to_owned(),
            "allowHeaders: \"*\" stands for all",
        ),
        (
            "type: RequestValidation, requestValidation: {contentTypes: ['a/b; c']}".to_owned(),
            "contentTypes[0]: \"a/b; c\" is not a type of content",
        ),
    ] {
        let refused = compiled(&of_filter(&text)).expect_err(&text);
        assert!(refused.len() == 1 && refused[0].contains("spec.rules[0].filters[0]"), "{text}: {refused:?}");
        assert!(refused[0].contains(expected), "{text}: {refused:?}");
    }
}

#[test]
fn filters_that_cannot_stand_together_or_with_the_rule_are_refused() {
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a}}";
    let prefix = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}";
    for (text, expected) in [
        (
            format!("{{filters: [{redirect}], backendSets: [{{name: web}}]}}"),
            "backendSets: is not for a rule whose filter answers",
        ),
        (
            format!("{{filters: [{redirect}, {rewrite}]}}"),
            "filters[1].type: URLRewrite cannot stand beside RequestRedirect",
        ),
        (format!("{{filters: [{redirect}, {redirect}]}}"), "filters[1].type: RequestRedirect is there twice"),
        (format!("{{filters: [{rewrite}]}}"), "backendSets: is empty: write at least 1"),
        (
            format!(
                "{{matches: [{{path: {{type: Exact, value: /a}}}}], filters: [{prefix}], backendSets: [{{name: web}}]}}"
            ),
            "replacePrefixMatch: \"/x\" needs a prefix in each match",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 304}}]}"
                .to_owned(),
            "statusCode: 304 is no status of a redirect",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}]}".to_owned(),
            "requestRedirect: leads back to where it came from",
        ),
        (
            "{filters: [{type: DirectResponse, directResponse: {status: 204, body: a}}]}".to_owned(),
            "directResponse.body: 1 bytes is not for status 204",
        ),
    ] {
        let refused = compiled(&text).expect_err(&text);
        assert!(refused.iter().any(|refused| refused.contains(expected)), "{text}: {refused:?}");
    }
    let five = ["{type: RequestMirror, requestMirror: {backendSet: web}}"; 5].join(", ");
    let refused =
        compiled(&format!("{{filters: [{five}], backendSets: [{{name: web}}]}}")).expect_err("five");
    assert!(refused[0].contains("filters: 5 mirrors are too many: use at most 4"), "{refused:?}");
}
