//! What a listener says of HTTPS and of proxies in front, what a set says of clients, and certificates that end.

use super::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::time::{Duration, SystemTime};
use weir_proto::push;

/// The two listeners of the shop, the second for HTTPS, each with more fields.
fn listeners(plain: &str, secure: &str) -> World {
    let text = SHOP
        .replacen("hostnames: [shop.example.com]}", &format!("hostnames: [shop.example.com]{plain}}}"), 1)
        .replacen("[{name: shop-tls}]}}", &format!("[{{name: shop-tls}}]}}{secure}}}"), 1);
    world(&objects(&text), None)
}

fn both(world: &World) -> [push::Listener; 2] {
    let listeners = &world.pools[&key("shop")].config.listeners;
    [listeners[0].clone(), listeners[1].clone()]
}

#[test]
fn what_listeners_say_of_https_is_on_the_wire() {
    let [plain, secure] = both(&listeners(", httpsRedirect: {}", ", hsts: {maxAge: 24h}"));
    assert_eq!(plain.https_redirect, Some(push::HttpsRedirect { status: 308, port: 443 }));
    let hsts = push::Hsts { max_age_s: 86_400, include_subdomains: false, preload: false };
    assert_eq!((secure.hsts, plain.hsts, secure.https_redirect), (Some(hsts), None, None));
    let said = listeners(
        ", httpsRedirect: {statusCode: 301, port: 8443}",
        ", hsts: {maxAge: 8760h, includeSubDomains: true, preload: true}",
    );
    let [plain, secure] = both(&said);
    assert_eq!(plain.https_redirect, Some(push::HttpsRedirect { status: 301, port: 8_443 }));
    let hsts = push::Hsts { max_age_s: 31_536_000, include_subdomains: true, preload: true };
    assert_eq!(secure.hsts, Some(hsts));
}

#[test]
fn what_proxies_in_front_say_is_taken_in_both_versions_or_in_those_that_are_named() {
    for (versions, takes_v1, takes_v2) in
        [("", true, true), (", versions: [V1]", true, false), (", versions: [V2]", false, true)]
    {
        let said = format!(", proxyProtocol: {{trustedCIDRs: [10.0.0.0/8]{versions}}}");
        let [plain, _] = both(&listeners(&said, ""));
        let trusted_networks = vec!["10.0.0.0/8".to_owned()];
        let expected = push::ProxyProtocol { trusted_networks, takes_v1, takes_v2 };
        assert_eq!(plain.proxy_protocol, Some(expected), "{versions}");
    }
    let [plain, _] = both(&listeners("", ""));
    assert_eq!(plain.proxy_protocol, None);
}

#[test]
fn nonsense_about_https_and_proxies_is_refused_with_its_field() {
    let networks = (0..65).map(|n| format!("10.0.{n}.0/24")).collect::<Vec<_>>().join(", ");
    let many = format!(", proxyProtocol: {{trustedCIDRs: [{networks}]}}");
    for (plain, secure, field) in [
        ("", ", httpsRedirect: {}", "listeners[1].httpsRedirect"),
        (", hsts: {maxAge: 1h}", "", "listeners[0].hsts"),
        (", httpsRedirect: {statusCode: 304}", "", "listeners[0].httpsRedirect.statusCode"),
        (", httpsRedirect: {port: 0}", "", "listeners[0].httpsRedirect.port"),
        ("", ", hsts: {maxAge: 87601h}", "listeners[1].hsts.maxAge"),
        ("", ", hsts: {maxAge: 8760h, preload: true}", "listeners[1].hsts.preload"),
        ("", ", hsts: {maxAge: 8759h, preload: true, includeSubDomains: true}", "listeners[1].hsts.preload"),
        (", proxyProtocol: {trustedCIDRs: []}", "", "listeners[0].proxyProtocol.trustedCIDRs"),
        (", proxyProtocol: {trustedCIDRs: [10.0.0.0/33]}", "", "listeners[0].proxyProtocol.trustedCIDRs[0]"),
        (many.as_str(), "", "listeners[0].proxyProtocol.trustedCIDRs"),
        (
            ", proxyProtocol: {trustedCIDRs: [10.0.0.0/8], versions: []}",
            "",
            "listeners[0].proxyProtocol.versions",
        ),
    ] {
        let world = listeners(plain, secure);
        let refused = shown(world.rejections.values().flatten());
        let expected = format!("default/shop: spec.{field}: ");
        assert!(refused.len() == 1 && refused[0].starts_with(&expected), "{plain}{secure}: {refused:?}");
    }
}

#[test]
fn a_set_that_tells_backends_of_clients_keeps_no_connection_warm() {
    let named = "service: {name: web, port: http}";
    let with = |set: &str, spec: &str| {
        let text = SHOP.replacen(named, &format!("{named}, {set}"), 1);
        world(&objects(&text.replacen("timeouts: {connect: 1s}", spec, 1)), None)
    };
    for (version, expected) in [
        ("V1", push::ProxyProtocolVersion::ProxyProtocolVersion1),
        ("V2", push::ProxyProtocolVersion::ProxyProtocolVersion2),
    ] {
        let world = with(&format!("proxyProtocol: {version}"), "connectionPool: {minWarmPerBackend: 3}");
        let sets = &world.pools[&key("shop")].config.backend_sets;
        assert_eq!((sets[0].proxy_protocol(), sets[1].proxy_protocol), (expected, 0));
        let warm = |set: &push::BackendSet| set.connections.as_ref().map(|own| own.warm_min);
        assert_eq!((warm(&sets[0]), warm(&sets[1])), (Some(0), Some(3)));
    }
    let refused =
        with("proxyProtocol: V1, connectionPool: {minWarmPerBackend: 1}", "timeouts: {connect: 1s}");
    let refused = shown(refused.rejections.values().flatten());
    assert!(refused.concat().contains("backendSets[0].connectionPool.minWarmPerBackend"), "{refused:?}");
}

/// Of these days of 2030, as a Secret.
fn valid(from: u8, until: u8) -> Arc<Secret> {
    let own = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["shop.example.com".to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2030, 1, from);
    params.not_after = date_time_ymd(2030, 1, until);
    let made = params.self_signed(&own).expect("a certificate");
    secret("kubernetes.io/tls", &made.pem(), &own.serialize_pem())
}

/// 1 January 2030.
const NEW_YEAR: Duration = Duration::from_secs(1_893_456_000);

#[test]
fn what_is_out_of_date_takes_no_place_of_what_is_not_and_serves_where_nothing_is_better() {
    let mut objects = objects(SHOP);
    let at = |day: u64| SystemTime::UNIX_EPOCH + NEW_YEAR + Duration::from_secs((day - 1) * 86_400);
    let touched = Touched { secrets: [key("shop-tls")].into(), ..Touched::default() };
    objects.secrets.insert(key("shop-tls"), valid(1, 20));
    let mut world = world(&objects, None);
    let held = |world: &World| world.pools[&key("shop")].config.listeners[1].tls.clone().expect("TLS");
    let good = held(&world);
    for (day, secret, expected) in [
        (10, valid(1, 9), "whose certificate has expired"),
        (10, valid(11, 20), "whose certificate is not valid yet"),
    ] {
        objects.secrets.insert(key("shop-tls"), secret);
        world.set_clock(at(day));
        world.update(&objects, &touched);
        let warnings = shown(world.warnings());
        let begin = "default/shop: spec.listeners[1].tls.certificateRefs[0].name: \"shop-tls\" is a Secret ";
        assert!(
            warnings.len() == 1
                && warnings[0].starts_with(begin)
                && warnings[0].contains(expected)
                && warnings[0].contains("the certificate that it held before serves on"),
            "{warnings:?}"
        );
        assert_eq!(held(&world), good);
        let validity = world.pools[&key("shop")].validities["default/shop-tls"];
        assert_eq!(validity.ends_s - validity.begins_s, 19 * 86_400);
    }
    // The one before has ended meanwhile.
    let next = valid(1, 21);
    objects.secrets.insert(key("shop-tls"), next);
    world.set_clock(at(25));
    world.update(&objects, &touched);
    assert_eq!(shown(world.warnings()), Vec::<String>::new());
    assert_ne!(held(&world), good);
    // As where there is no before.
    let fresh = super::world(&objects, None);
    assert_eq!(held(&fresh), held(&world));
}
