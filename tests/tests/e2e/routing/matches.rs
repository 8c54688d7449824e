//! Matches, as clients meet them. Every kind and the whole order is a table test of lb-core.

use super::Site;

const BY_PATH: &str = "{ backendSets: [{ name: fourth }] }";

#[test]
fn every_kind_of_match_leads_to_its_set_over_both_versions_of_http() {
    for (wanted, asked, fields, holds) in [
        ("path: { type: RegularExpression, value: '/v[0-9]+/.*' }", "/v12/x", &[][..], true),
        ("path: { type: RegularExpression, value: '/v[0-9]+/.*' }", "/a/v12/x", &[], false),
        ("headers: [{ name: X-Tenant, value: a }]", "/", &[("x-tenant", "b"), ("X-TENANT", "a")], true),
        ("headers: [{ name: X-Tenant, value: a }]", "/", &[("x-tenant", "A")], false),
        (
            "headers: [{ type: RegularExpression, name: X-Tenant, value: 'a|b' }]",
            "/",
            &[("x-tenant", "b")],
            true,
        ),
        ("queryParams: [{ name: user, value: 'anna b' }]", "/?user=anna+%62&user=c", &[], true),
        ("queryParams: [{ name: user, value: anna }]", "/?user=c&user=anna", &[], false),
        ("cookies: [{ name: beta, value: '1' }]", "/", &[("cookie", "a=b; beta=1")], true),
        ("cookies: [{ name: beta, value: '1' }]", "/", &[("cookie", "a=b; beta=2")], false),
        ("method: PUT", "/", &[], false),
        ("method: GET", "/", &[], true),
        ("sourceIPs: [127.0.0.0/8]", "/", &[], true),
        ("sourceIPs: [10.0.0.0/8]", "/", &[("x-forwarded-for", "10.0.0.1")], false),
    ] {
        let rule = format!("{{ matches: [{{ {wanted} }}], backendSets: [{{ name: first }}] }}");
        let site = Site::start("", &[&rule, BY_PATH]);
        assert_eq!(site.get(asked, fields).set() == 0, holds, "{wanted}: {asked} {fields:?}");
    }
}

#[test]
fn the_more_specific_rule_has_a_request_though_it_comes_last_and_others_fall_through() {
    let site = Site::start(
        "",
        &[
            BY_PATH,
            "{ matches: [{ path: { value: /api } }], backendSets: [{ name: third }] }",
            "{ matches: [{ path: { value: /api }, headers: [{ name: x-a, value: '1' }] }], backendSets: [{ name: second }] }",
            "{ matches: [{ path: { value: /api }, method: GET, headers: [{ name: x-a, value: '1' }], queryParams: [{ name: q, value: '1' }] }], backendSets: [{ name: first }] }",
        ],
    );
    assert_eq!(site.get("/api/x?q=1", &[("x-a", "1")]).set(), 0);
    assert_eq!(site.get("/api/x", &[("x-a", "1")]).set(), 1);
    assert_eq!(site.ask("POST", "/api/x?q=1", &[("x-a", "1")], "body").set(), 1);
    assert_eq!(site.get("/api/x?q=1", &[]).set(), 2);
    assert_eq!(site.get("/", &[("x-a", "1")]).set(), 3);
}

#[test]
fn a_source_is_who_trusted_proxies_say_it_is() {
    let rule = "{ matches: [{ sourceIPs: [198.51.100.0/24] }], backendSets: [{ name: first }] }";
    let site = Site::start(", clientAddress: { trustedCIDRs: [127.0.0.0/8] }", &[rule, BY_PATH]);
    for (client, set) in [("198.51.100.7", 0), ("192.0.2.1", 3), ("198.51.100.7, 192.0.2.1", 3)] {
        assert_eq!(site.get("/", &[("x-forwarded-for", client)]).set(), set, "{client}");
    }
}
