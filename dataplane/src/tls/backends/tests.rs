use super::*;
use crate::tls::tests::certificate;

fn authority(pem: &str) -> push::Authority {
    push::Authority { source: "ns/ca".into(), certificates_pem: pem.as_bytes().to_vec() }
}

fn settings() -> push::BackendTls {
    let pem = String::from_utf8(certificate("ns/a", &["a.org"]).chain_pem).expect("text");
    push::BackendTls {
        hostname: "web.example".into(),
        authorities: vec![authority(&pem)],
        ..push::BackendTls::default()
    }
}

#[test]
fn what_is_wrong_with_settings_is_said_and_nothing_of_it_is_used() {
    let wrong = |change: &dyn Fn(&mut push::BackendTls)| {
        let mut wire = settings();
        change(&mut wire);
        profile(&wire).err()
    };
    assert_eq!(wrong(&|_| ()), None);
    assert_eq!(
        wrong(&|wire| wire.hostname = "10.0.0.1".into()),
        Some(BackendTlsError::Name("10.0.0.1".into()))
    );
    assert_eq!(wrong(&|wire| wire.dns_names = vec!["a b".into()]), Some(BackendTlsError::Name("a b".into())));
    let unreadable = Some(AuthorityError::Unreadable("ns/ca".into()).into());
    assert_eq!(wrong(&|wire| wire.authorities = vec![authority("")]), unreadable);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(wrong(&|wire| wire.authorities = vec![authority(broken)]), unreadable);
    let names = |count| move |wire: &mut push::BackendTls| wire.uris = vec!["a:b".to_owned(); count];
    assert_eq!(wrong(&names(ALTERNATIVE_NAMES_MAX)), None);
    assert_eq!(
        wrong(&names(ALTERNATIVE_NAMES_MAX + 1)),
        Some(BackendTlsError::TooMany("subjectAltNames", ALTERNATIVE_NAMES_MAX))
    );
    let pem = String::from_utf8(settings().authorities[0].certificates_pem.clone()).expect("text");
    let many = |count: usize| {
        let pem = pem.repeat(count);
        wrong(&|wire| wire.authorities = vec![authority(&pem)])
    };
    assert_eq!(many(AUTHORITY_CERTIFICATES_MAX), None);
    assert_eq!(many(AUTHORITY_CERTIFICATES_MAX + 1), Some(AuthorityError::TooMany.into()));
}

#[test]
fn settings_are_the_same_where_all_of_them_are() {
    let wire = settings();
    let whole = profile(&wire).expect("right");
    assert_eq!(whole, profile(&wire).expect("right"));
    let other = push::BackendTls { uris: vec!["spiffe://a/b".into()], ..wire };
    assert_ne!(whole, profile(&other).expect("right"));
    assert!(!format!("{whole:?}").contains("web.example"), "the digest alone is shown");
}
