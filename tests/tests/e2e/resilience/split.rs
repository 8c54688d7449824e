//! Requests that say themselves which set they go to.

use super::{Site, pool};
use weir_tests::harness::switchable::Switchable;

/// A pool of sets with one backend each, whose name is the set's; `rule` lists them.
fn split(rule: &str, names: &[&str]) -> (Site, Vec<Switchable>) {
    let backends: Vec<Switchable> = names.iter().map(|name| Switchable::start(name)).collect();
    let pool = pool(&[backends[0].port], &[]);
    let mut text = pool.yaml().replacen("        - name: all\n", rule, 1);
    for (name, backend) in names.iter().zip(&backends) {
        let backends = format!("[{{ address: 127.0.0.1, port: {} }}]", backend.port);
        text.push_str(&format!("    - name: {name}\n      static: {{ backends: {backends} }}\n"));
    }
    (Site::of_text(pool.port, &text), backends)
}

/// The names of the sets that answer a few requests with these headers.
fn sets(site: &Site, headers: &str) -> Vec<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let mut connection = site.connect();
    let names = (0..8).map(|_| connection.request(&request).expect("an answer").json()["name"].to_string());
    let mut names: Vec<String> = names.map(|name| name.trim_matches('"').to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

const CANARY: &str = "        - name: stable
          weight: 90
        - name: canary
          weight: 0
          matches:
            - { type: Header, name: x-canary, value: always }
            - { type: Cookie, name: canary }
";

#[test]
fn a_header_or_cookie_leads_to_a_set_that_has_no_weight_and_nothing_else_does() {
    let (site, _backends) = split(CANARY, &["stable", "canary"]);
    for headers in [
        "X-Canary: always\r\n",
        "x-canary: no\r\nx-canary: always\r\n",
        "Cookie: canary=1\r\n",
        "Cookie: a=b; canary=; c=d\r\n",
    ] {
        assert_eq!(sets(&site, headers), ["canary"], "{headers}");
    }
    for headers in
        ["", "X-Canary: Always\r\n", "X-Canary: \r\n", "Cookie: canary2=1\r\n", "canary: always\r\n"]
    {
        assert_eq!(sets(&site, headers), ["stable"], "{headers}");
    }
}

#[test]
fn a_match_goes_before_weights_and_the_first_set_with_one_before_others() {
    const RULE: &str = "        - name: one
          weight: 1
          matches: [{ type: Header, name: x-to, value: one }]
        - name: two
          weight: 1
          matches: [{ type: Header, name: x-to }]
        - name: three
          weight: 1
";
    let (site, _backends) = split(RULE, &["one", "two", "three"]);
    assert_eq!(sets(&site, "x-to: one\r\n"), ["one"]);
    assert_eq!(sets(&site, "x-to: three\r\n"), ["two"], "a match without a value takes any");
    assert_eq!(sets(&site, "").len(), 3, "the rest goes by weight");
}
