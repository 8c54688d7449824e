//! Secrets that a proxy would refuse, or takes.

use super::*;
use rcgen::{CertificateParams, KeyPair};

const KIND: &str = "kubernetes.io/tls";

fn made(key: &KeyPair) -> String {
    let params = CertificateParams::new(["shop.example.com".to_owned()]).expect("a name");
    params.self_signed(key).expect("a certificate").pem()
}

fn with(secret: Arc<Secret>) -> Objects {
    let mut objects = objects(SHOP);
    objects.secrets.insert(key("shop-tls"), secret);
    objects
}

#[test]
fn a_pair_of_each_kind_that_tls_signs_with_serves() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let world = world(&with(secret(KIND, &made(&key), &key.serialize_pem())), None);
        assert_eq!(shown(world.warnings()), Vec::<String>::new(), "{algorithm:?}");
    }
}

#[test]
fn what_only_a_proxy_would_refuse_costs_its_listener_and_no_other() {
    let (own, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let (chain, key_pem) = (made(&own), own.serialize_pem());
    // X25519 agrees on keys and does not sign; its private key is 32 bytes, here of zeroes.
    let agreement = format!(
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEI{}\n-----END PRIVATE KEY-----\n",
        "A".repeat(43)
    );
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (chain, key_pem, expected) in [
        (chain.clone(), other.serialize_pem(), "tls.key does not belong to the first certificate"),
        (format!("{}{chain}", made(&other)), key_pem.clone(), "tls.key does not belong to the first"),
        (chain.repeat(17), key_pem.clone(), "tls.crt holds more than 16 certificates"),
        (chain.clone(), agreement, "tls.key is of a kind that TLS cannot use"),
        (no_certificate.to_owned(), key_pem.clone(), "tls.crt begins with something that is not an X.509"),
    ] {
        let good = objects(SHOP);
        let before = world(&good, None);
        let broken = with(secret(KIND, &chain, &key_pem));
        let fresh = world(&broken, None);
        let warnings = shown(fresh.warnings());
        let expected = format!(
            "default/shop: spec.listeners[1].tls.certificateRefs[0].name: \"shop-tls\" is a Secret whose {expected}"
        );
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{warnings:?}");
        assert_eq!(fresh.pools[&key("shop")].config.listeners.len(), 1, "the plain listener serves");

        let kept = world(&broken, Some(&before));
        assert_eq!(kept.pools[&key("shop")].config, before.pools[&key("shop")].config);
        assert_eq!(kept.warnings().count(), 1);
    }
    let longest = world(&with(secret(KIND, &chain.repeat(16), &key_pem)), None);
    assert_eq!(longest.warnings().count(), 0);
}

#[test]
fn a_secret_that_could_not_be_read_is_not_said_to_be_missing() {
    for (unread, expected) in [
        (None, "is not the name of a Secret in namespace \"default\": create it"),
        (
            Some(Unread::Forbidden),
            "names a Secret in namespace \"default\" that the controller may not read: give its ServiceAccount a Role \
             there with get, list, watch on secrets and resourceNames [shop-tls]",
        ),
        (
            Some(Unread::Unanswered),
            "names a Secret in namespace \"default\" that the controller cannot read now: it tries again",
        ),
        (
            Some(Unread::TooMany),
            "names a Secret in namespace \"default\" that the controller does not read, since pools name too many, \
             more than 1024: name fewer",
        ),
    ] {
        let mut objects = objects(SHOP);
        objects.secrets.clear();
        objects.unread_secrets.extend(unread.map(|unread| (key("shop-tls"), unread)));
        let warnings = shown(world(&objects, None).warnings());
        let expected =
            format!("default/shop: spec.listeners[1].tls.certificateRefs[0].name: \"shop-tls\" {expected}");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{warnings:?}");
    }
}
