//! Cross-origin requests.

use super::Site;

fn site(cors: &str) -> Site {
    Site::start(
        "",
        &[&format!(
            "{{ filters: [{{ type: CORS, cors: {{ {cors} }} }}], backendSets: [{{ name: first }}] }}"
        )],
    )
}

#[test]
fn a_preflight_is_answered_here_and_allows_what_is_listed() {
    let site = site(
        "allowOrigins: ['https://*.example', 'http://a.test:8080'], allowMethods: [PUT, DELETE], allowHeaders: [X-A], allowCredentials: true, maxAge: 600",
    );
    let asked = |origin: &'static str| {
        site.ask("OPTIONS", "/x", &[("origin", origin), ("access-control-request-method", "PUT")], "")
    };
    for origin in ["https://shop.example", "http://a.test:8080"] {
        let answer = asked(origin);
        assert_eq!(answer.status, 204);
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "PUT, DELETE"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
            ("vary", "origin"),
        ] {
            assert_eq!(answer.header(name).as_deref(), Some(value), "{origin} {name}");
        }
    }
    for origin in ["https://example", "http://shop.example", "https://shop.example.evil", "null"] {
        let answer = asked(origin);
        let told = answer.headers.iter().any(|(name, _)| name.starts_with("access-control"));
        assert!(answer.status == 204 && !told, "{origin}");
    }
    let plain = site.ask("OPTIONS", "/x", &[("origin", "https://shop.example")], "");
    assert_eq!((plain.status, plain.asked().as_str()), (200, "/x"), "no preflight: the backend's to answer");
}

#[test]
fn an_answer_may_be_read_by_who_is_listed_and_by_nobody_else() {
    let site = site("allowOrigins: ['https://shop.example'], exposeHeaders: [X-A, X-B]");
    let answer = site.get("/", &[("origin", "https://shop.example")]);
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("https://shop.example"));
    assert_eq!(answer.header("access-control-expose-headers").as_deref(), Some("x-a, x-b"));
    for fields in [&[("origin", "https://evil.example")][..], &[]] {
        let answer = site.get("/", fields);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
    }
}
