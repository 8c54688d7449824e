//! TLS to backends and from clients: what is right, what is said of what is not, and what serves on.

use super::*;
use rcgen::{CertificateParams, KeyPair};
use weir_proto::push;

fn certificate(key: &KeyPair) -> String {
    let params = CertificateParams::new(["ca.example.com".to_owned()]).expect("a name");
    params.self_signed(key).expect("a certificate").pem()
}

fn authority(pem: &str) -> Arc<Secret> {
    let data = [("ca.crt".to_owned(), k8s_openapi::ByteString(pem.as_bytes().to_vec()))];
    Arc::new(Secret { data: Some(data.into()), ..Secret::default() })
}

/// A pool whose set `web` speaks TLS, and its Secrets.
fn secured(tls: &str) -> Objects {
    let named = "service: {name: web, port: http}";
    let mut objects = objects(&SHOP.replacen(named, &format!("{named}, tls: {tls}"), 1));
    let own = KeyPair::generate().expect("a key");
    objects.secrets.insert(key("ca"), authority(&certificate(&own)));
    let pair = secret("kubernetes.io/tls", &certificate(&own), &own.serialize_pem());
    objects.secrets.insert(key("own"), pair);
    objects
}

const TLS: &str =
    "{hostname: web.example, caCertificateRefs: [{name: ca}], clientCertificateRef: {name: own}}";

fn tls_of(world: &World) -> push::BackendTls {
    world.pools[&key("shop")].config.backend_sets[0].tls.clone().expect("it is asked for")
}

#[test]
fn what_a_set_says_of_tls_is_on_the_wire() {
    let names = "{hostname: web.example, wellKnownCACertificates: System, subjectAltNames: \
                 [{type: Hostname, hostname: a.example}, {type: URI, uri: 'spiffe://a/b'}]}";
    let world = world(&secured(names), None);
    assert_eq!(shown(world.warnings()), Vec::<String>::new());
    let expected = push::BackendTls {
        hostname: "web.example".into(),
        system_roots: true,
        dns_names: vec!["a.example".into()],
        uris: vec!["spiffe://a/b".into()],
        ..push::BackendTls::default()
    };
    assert_eq!(tls_of(&world), expected);
    let full = tls_of(&super::world(&secured(TLS), None));
    assert_eq!(full.authorities[0].source, "default/ca");
    assert_eq!(full.client_certificate.expect("named").source, "default/own");
}

#[test]
fn a_secret_that_cannot_be_used_closes_its_set_alone_and_the_last_good_one_is_used_on() {
    let good = secured(TLS);
    let before = world(&good, None);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases: [(&str, Option<Arc<Secret>>, &str, &str); 6] = [
        ("ca", None, "caCertificateRefs[0].name", "is not the name of a Secret"),
        ("ca", Some(Arc::default()), "caCertificateRefs[0].name", "is a Secret without ca.crt"),
        ("ca", Some(authority("x")), "caCertificateRefs[0].name", "ca.crt holds no PEM certificate"),
        ("ca", Some(authority(broken)), "caCertificateRefs[0].name", "is not an X.509 v3 certificate"),
        ("own", None, "clientCertificateRef.name", "is not the name of a Secret"),
        ("own", Some(authority("x")), "clientCertificateRef.name", "is a Secret of type Opaque"),
    ];
    for (name, secret, field, expected) in cases {
        let mut objects = good.clone();
        objects.secrets.remove(&key(name));
        objects.secrets.extend(secret.map(|secret| (key(name), secret)));
        let fresh = world(&objects, None);
        let warnings = shown(fresh.warnings());
        let begin = format!("default/shop: spec.backendSets[0].tls.{field}: \"{name}\" ");
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(&begin) && warnings[0].contains(expected),
            "{warnings:?}"
        );
        let nobody = push::BackendTls { hostname: "web.example".into(), ..push::BackendTls::default() };
        assert_eq!(tls_of(&fresh), nobody, "{name}: no plaintext, and nobody trusted");
        assert_eq!(fresh.pools[&key("shop")].config.listeners.len(), 2, "all else serves");
        assert_eq!(tls_of(&world(&objects, Some(&before))), tls_of(&before), "{name}: the last good one");
    }
}

#[test]
fn an_encrypted_key_is_said_to_be_one() {
    let mut objects = secured(TLS);
    let own = KeyPair::generate().expect("a key");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n";
    objects.secrets.insert(key("own"), secret("kubernetes.io/tls", &certificate(&own), encrypted));
    let warnings = shown(world(&objects, None).warnings());
    assert!(warnings.len() == 1 && warnings[0].contains("tls.key is encrypted"), "{warnings:?}");
}

#[test]
fn nonsense_in_tls_is_refused_with_its_field() {
    for (tls, field) in [
        ("{hostname: web.example}", "tls: "),
        ("{hostname: 10.0.0.1, wellKnownCACertificates: System}", "tls.hostname"),
        ("{hostname: a.b, caCertificateRefs: [{name: A_B}]}", "tls.caCertificateRefs[0].name"),
        (
            "{hostname: a.b, wellKnownCACertificates: System, subjectAltNames: [{type: URI, uri: 'none'}]}",
            "tls.subjectAltNames[0].uri",
        ),
        (
            "{hostname: a.b, wellKnownCACertificates: System, subjectAltNames: [{type: URI, hostname: a.b}]}",
            "tls.subjectAltNames[0]",
        ),
    ] {
        let world = world(&secured(tls), None);
        let refused = world.rejections[&key("shop")].iter().map(ToString::to_string).collect::<Vec<_>>();
        let field = format!("spec.backendSets[0].{field}");
        assert!(refused.len() == 1 && refused[0].contains(&field), "{tls}: {refused:?}");
    }
}

#[test]
fn a_listener_without_its_authorities_serves_nobody() {
    let asked =
        "tls: {certificateRefs: [{name: shop-tls}], clientValidation: {caCertificateRefs: [{name: ca}]}}";
    let text = SHOP.replacen("tls: {certificateRefs: [{name: shop-tls}]}", asked, 1);
    let mut objects = objects(&text);
    let closed = world(&objects, None);
    let warnings = shown(closed.warnings());
    assert!(warnings.len() == 1 && warnings[0].contains("the listener serves nobody"), "{warnings:?}");
    assert_eq!(closed.pools[&key("shop")].config.listeners.len(), 1, "the plain one");
    let own = KeyPair::generate().expect("a key");
    objects.secrets.insert(key("ca"), authority(&certificate(&own)));
    let open = world(&objects, None);
    let tls = open.pools[&key("shop")].config.listeners[1].tls.clone().expect("TLS");
    let validation = tls.client_validation.expect("asked for");
    assert_eq!(validation.mode(), push::ClientValidationMode::Required);
    assert_eq!(validation.forward(), push::ClientCertificateForward::None);
    assert_eq!(validation.authorities.len(), 1);
    // What was good before stays while the Secret is away.
    objects.secrets.remove(&key("ca"));
    assert_eq!(world(&objects, Some(&open)).pools[&key("shop")].config, open.pools[&key("shop")].config);
}
