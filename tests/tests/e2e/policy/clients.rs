//! What is believed of `X-Forwarded-For` and `Forwarded`, and what backends are told.

use super::{Site, seen};

const TRUSTED: &str = "{ trustedCIDRs: [127.0.0.0/8, 10.0.0.0/8] }";

#[test]
fn by_default_nobody_is_believed() {
    let site = Site::start(1, "", &[]);
    let answer =
        site.ask("X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(seen(&answer, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen(&answer, "x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen(&answer, "forwarded"), None);
}

#[test]
fn the_word_of_trusted_proxies_is_extended_and_the_clients_own_ends() {
    let site = Site::start(1, TRUSTED, &[]);
    let answer = site.ask(
        "X-Forwarded-For: 6.6.6.6, 198.51.100.7\r\nX-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: www.example\r\nX-Forwarded_For: 7.7.7.7\r\n",
    );
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7, 10.1.2.3, 127.0.0.1"),
        ("x-real-ip", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "www.example"),
    ] {
        assert_eq!(seen(&answer, name).as_deref(), Some(value), "{name}");
    }
    for garbage in ["unknown", "6.6.6.6 7.7.7.7", "6.6.6.6;", "::ffff:", "\"6.6.6.6\"", ""] {
        let answer = site.ask(&format!("X-Forwarded-For: 6.6.6.6, {garbage}\r\n"));
        assert_eq!(seen(&answer, "x-forwarded-for").as_deref(), Some("127.0.0.1"), "{garbage:?}");
    }
}

#[test]
fn another_than_the_trusted_networks_is_not_believed() {
    let site = Site::start(1, "{ trustedCIDRs: [10.0.0.0/8] }", &[]);
    let answer = site.ask("X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!(seen(&answer, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen(&answer, "x-forwarded-proto").as_deref(), Some("http"));
}

#[test]
fn hops_are_counted_where_there_are_no_networks() {
    let site = Site::start(1, "{ numTrustedHops: 2 }", &[]);
    for (claims, chain) in [
        ("6.6.6.6, 198.51.100.7, 203.0.113.1", "198.51.100.7, 203.0.113.1, 127.0.0.1"),
        ("198.51.100.7, 203.0.113.1", "198.51.100.7, 203.0.113.1, 127.0.0.1"),
        ("198.51.100.7", "127.0.0.1"),
    ] {
        let answer = site.ask(&format!("X-Forwarded-For: {claims}\r\n"));
        assert_eq!(seen(&answer, "x-forwarded-for").as_deref(), Some(chain), "{claims}");
    }
}

#[test]
fn forwarded_is_read_and_written_where_it_is_configured() {
    let site = Site::start(1, "{ trustedCIDRs: [127.0.0.0/8], source: Forwarded, forwarded: Send }", &[]);
    let answer = site.ask(
        "Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https;host=www.example\r\n\
         X-Forwarded-For: 9.9.9.9\r\n",
    );
    assert_eq!(seen(&answer, "x-forwarded-for").as_deref(), Some("2001:db8::7, 127.0.0.1"));
    assert_eq!(
        seen(&answer, "forwarded").as_deref(),
        Some("for=\"[2001:db8::7]\";host=\"www.example\";proto=https, for=127.0.0.1")
    );
    let answer = site.ask("Forwarded: for=\"6.6.6.6, for=198.51.100.7\r\n");
    assert_eq!(seen(&answer, "forwarded").as_deref(), Some("for=127.0.0.1;host=\"shop.example\";proto=http"));
}

#[test]
fn rules_for_addresses_are_about_the_client_and_a_rule_has_its_own() {
    let rules = "ipRules: { allow: [198.51.100.0/24, '2001:db8::/32'], deny: [198.51.100.128/25] }";
    let site = Site::start(1, TRUSTED, &[rules]);
    for (client, status) in [
        ("198.51.100.7", 200),
        ("198.51.100.200", 403),
        ("192.0.2.1", 403),
        ("::ffff:198.51.100.7", 200),
        ("2001:db8::1", 200),
        ("2001:db9::1", 403),
        // Who claims an address is not there.
        ("198.51.100.7, 192.0.2.1", 403),
    ] {
        let answer = site.ask(&format!("X-Forwarded-For: {client}\r\n"));
        assert_eq!(answer.status, status, "{client}");
        if status == 403 {
            assert_eq!(answer.header("x-weir-reason"), Some("ip_denied"));
        }
    }
    assert_eq!(site.ask("").status, 403, "127.0.0.1 itself");
    assert_eq!(site.weir.metric("weir_requests_ip_denied_total"), 5);
}
