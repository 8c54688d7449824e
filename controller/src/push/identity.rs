//! From a proof to the pod that it names. Pure: what the API server answered and what a certificate holds come in.
//!
//! A token proves a pod only where it is *bound* to one: then the API server, not the proxy, says which, and refuses
//! the token once that pod is gone. A certificate proves it by its URI (SPIFFE), since whoever signs says which.

use crate::identity::PodIdentity;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use k8s_openapi::api::core::v1::Pod;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What the API server adds to the user of a bound token.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// How user names of ServiceAccounts begin; namespace and name follow.
pub(super) const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Longest text of the API server that is passed on, in characters.
const TOLD_CHARACTERS_MAX: usize = 200;

/// Why a proof does not name a pod. Sent to the proxy, and never holds the proof itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    #[error("the API server does not accept the token: {0}")]
    Token(String),
    #[error("the token is not for the audience `{0}`: project one for it")]
    Audience(String),
    #[error("the token is of `{0}`, not of a ServiceAccount")]
    NoServiceAccount(String),
    #[error("the token of `{0}` is bound to no pod: use a projected volume with serviceAccountToken")]
    Unbound(String),
    #[error("the client certificate cannot be read")]
    Certificate,
    #[error(
        "the client certificate must have exactly one URI, spiffe://TRUST-DOMAIN/ns/NAMESPACE/pod/NAME, and has {0}"
    )]
    CertificateUri(String),
    #[error("there is no pod {0}")]
    NoPod(String),
    #[error("pod {0} is another one than the token was made for: it has been replaced")]
    Replaced(String),
    #[error("pod {0} does not run as the ServiceAccount of the token")]
    OtherServiceAccount(String),
}

/// A pod that somebody proves to be, before it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `None` where only the name is proven.
    pub(super) uid: Option<String>,
    pub(super) service_account: Option<String>,
}

impl Claim {
    /// What a review of a token for `audience` proves.
    pub(super) fn of_token(review: &TokenReviewStatus, audience: &str) -> Result<Self, Unproven> {
        if !review.authenticated.unwrap_or(false) {
            let told = review.error.as_deref().unwrap_or("it is not valid, or has expired");
            return Err(Unproven::Token(told.chars().take(TOLD_CHARACTERS_MAX).collect()));
        }
        // An API server that knows nothing of audiences authenticates a token for any: what it leaves out is not there.
        if !review.audiences.iter().flatten().any(|of| of == audience) {
            return Err(Unproven::Audience(audience.to_owned()));
        }
        let user = review.user.clone().unwrap_or_default();
        let username = user.username.unwrap_or_default();
        let account = username.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
        let Some((namespace, service_account)) = account else {
            return Err(Unproven::NoServiceAccount(username));
        };
        let extra = |key: &str| match user.extra.as_ref()?.get(key)?.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        };
        match (extra(POD_NAME), extra(POD_UID)) {
            (Some(name), Some(uid)) if is_label(namespace) && is_subdomain(&name) => Ok(Self {
                namespace: namespace.to_owned(),
                name,
                uid: Some(uid),
                service_account: Some(service_account.to_owned()),
            }),
            _ => Err(Unproven::Unbound(username)),
        }
    }

    /// What a certificate proves that the client CA has signed. The trust domain is whatever that CA signs for.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, Unproven> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Unproven::Certificate)?;
        let names = parsed.subject_alternative_name().map_err(|_| Unproven::Certificate)?;
        let names = names.iter().flat_map(|extension| &extension.value.general_names);
        let uris: Vec<&str> = names
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [] => Err(Unproven::CertificateUri("none".into())),
            [uri] => {
                Self::of_uri(uri).ok_or_else(|| Unproven::CertificateUri(uri.escape_debug().to_string()))
            }
            // The SPIFFE X.509-SVID standard, section 2: more than one must be refused.
            _ => Err(Unproven::CertificateUri(format!("{} of them", uris.len()))),
        }
    }

    fn of_uri(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let (domain, ns, namespace) = (parts.next()?, parts.next()?, parts.next()?);
        let (pod, name) = (parts.next()?, parts.next()?);
        let is_whole = parts.next().is_none() && ns == "ns" && pod == "pod";
        (is_whole && is_trust_domain(domain) && is_label(namespace) && is_subdomain(name)).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: None,
            service_account: None,
        })
    }

    /// The identity, now that the pod of this name was looked up.
    pub(super) fn identity(self, pod: Option<Pod>) -> Result<PodIdentity, Unproven> {
        let shown = format!("{}/{}", self.namespace, self.name);
        let Some(pod) = pod else { return Err(Unproven::NoPod(shown)) };
        if self.uid.is_some() && pod.metadata.uid != self.uid {
            return Err(Unproven::Replaced(shown));
        }
        let runs_as = pod.spec.and_then(|spec| spec.service_account_name).unwrap_or_default();
        if self.service_account.is_some_and(|proven| proven != runs_as) {
            return Err(Unproven::OtherServiceAccount(shown));
        }
        Ok(PodIdentity {
            namespace: self.namespace,
            name: self.name,
            service_account: runs_as,
            labels: pod.metadata.labels.unwrap_or_default(),
        })
    }
}

/// A DNS label (RFC 1123). Names go into the path of a request to the API server: nothing else may be in them.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The SPIFFE ID standard, section 2.1.
fn is_trust_domain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use k8s_openapi::api::core::v1::PodSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use rcgen::{CertificateParams, KeyPair, SanType};

    const AUDIENCE: &str = "weir.dev/controller";

    fn review(change: impl FnOnce(&mut TokenReviewStatus)) -> Result<Claim, Unproven> {
        let extra = [(POD_NAME, "proxy-1"), (POD_UID, "u1")];
        let mut review = TokenReviewStatus {
            audiences: Some(vec![AUDIENCE.into()]),
            authenticated: Some(true),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:edge:weir-proxy".into()),
                extra: Some(extra.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into()),
                ..UserInfo::default()
            }),
        };
        change(&mut review);
        Claim::of_token(&review, AUDIENCE)
    }

    fn user(review: &mut TokenReviewStatus) -> &mut UserInfo {
        review.user.as_mut().expect("set above")
    }

    fn claim() -> Claim {
        Claim {
            namespace: "edge".into(),
            name: "proxy-1".into(),
            uid: Some("u1".into()),
            service_account: Some("weir-proxy".into()),
        }
    }

    #[test]
    fn a_token_proves_the_pod_it_is_bound_to_and_nothing_else_does() {
        assert_eq!(review(|_| ()), Ok(claim()));
        let account = || "system:serviceaccount:edge:weir-proxy".to_owned();
        let refused = |change: fn(&mut TokenReviewStatus)| review(change).expect_err("refused");
        assert_eq!(refused(|r| r.audiences = None), Unproven::Audience(AUDIENCE.into()));
        assert_eq!(
            refused(|r| r.audiences = Some(vec!["https://kubernetes.default.svc".into()])),
            Unproven::Audience(AUDIENCE.into())
        );
        assert_eq!(refused(|r| user(r).extra = None), Unproven::Unbound(account()));
        assert_eq!(
            refused(|r| drop(user(r).extra.as_mut().map(|extra| extra.remove(POD_UID)))),
            Unproven::Unbound(account())
        );
        assert_eq!(
            refused(|r| {
                let two = vec!["proxy-1".to_owned(), "proxy-2".to_owned()];
                user(r).extra.as_mut().map(|extra| extra.insert(POD_NAME.into(), two));
            }),
            Unproven::Unbound(account())
        );
        assert_eq!(
            refused(|r| {
                let path = vec!["../secrets/x".to_owned()];
                user(r).extra.as_mut().map(|extra| extra.insert(POD_NAME.into(), path));
            }),
            Unproven::Unbound(account()),
            "a name is never more than a name"
        );
        assert_eq!(
            refused(|r| user(r).username = Some("admin".into())),
            Unproven::NoServiceAccount("admin".into())
        );
        assert_eq!(refused(|r| r.user = None), Unproven::NoServiceAccount(String::new()));
        assert!(matches!(refused(|r| r.authenticated = None), Unproven::Token(_)));
    }

    #[test]
    fn what_the_api_server_says_of_a_bad_token_is_passed_on_shortened() {
        let told = review(|r| {
            r.authenticated = Some(false);
            r.error = Some("x".repeat(10_000));
        });
        assert_eq!(told, Err(Unproven::Token("x".repeat(TOLD_CHARACTERS_MAX))));
    }

    fn certificate(uris: &[&str]) -> Result<Claim, Unproven> {
        let mut params = CertificateParams::new(vec!["proxy.example".to_owned()]).expect("a name");
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        params.subject_alt_names.extend(uris);
        let made = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        Claim::of_certificate(made.der())
    }

    #[test]
    fn a_certificate_proves_the_pod_of_its_one_uri() {
        let proven = certificate(&["spiffe://cluster.local/ns/edge/pod/proxy-1"]).expect("proven");
        assert_eq!(proven, Claim { uid: None, service_account: None, ..claim() });
        let wrong = [
            "spiffe://cluster.local/ns/edge/sa/weir-proxy",
            "spiffe://cluster.local/ns/edge/pod/proxy-1/",
            "spiffe://cluster.local/ns/edge/pod/proxy-1/x",
            "spiffe://cluster.local/ns/edge/pod/",
            "spiffe://cluster.local/ns/edge/pod/..",
            "spiffe://cluster.local/ns/edge/pod/a%2Fb",
            "spiffe://cluster.local/ns/Edge/pod/proxy-1",
            "spiffe://cluster.local/ns/a.b/pod/proxy-1",
            "spiffe:///ns/edge/pod/proxy-1",
            "https://cluster.local/ns/edge/pod/proxy-1",
        ];
        for uri in wrong {
            assert_eq!(certificate(&[uri]), Err(Unproven::CertificateUri(uri.to_owned())), "{uri}");
        }
        assert_eq!(certificate(&[]), Err(Unproven::CertificateUri("none".into())));
        let two =
            ["spiffe://cluster.local/ns/edge/pod/proxy-1", "spiffe://cluster.local/ns/edge/pod/proxy-2"];
        assert_eq!(certificate(&two), Err(Unproven::CertificateUri("2 of them".into())));
        assert_eq!(Claim::of_certificate(&CertificateDer::from(vec![0; 8])), Err(Unproven::Certificate));
    }

    #[test]
    fn the_pod_in_the_cluster_must_be_the_one_that_was_proven() {
        let pod = |uid: &str, account: &str| Pod {
            metadata: ObjectMeta {
                uid: Some(uid.into()),
                labels: Some([("weir.dev/class".to_owned(), "edge".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { service_account_name: Some(account.into()), ..PodSpec::default() }),
            status: None,
        };
        let identity = claim().identity(Some(pod("u1", "weir-proxy"))).expect("it is");
        assert_eq!((identity.namespace.as_str(), identity.name.as_str()), ("edge", "proxy-1"));
        assert_eq!(identity.labels["weir.dev/class"], "edge");
        let shown = || "edge/proxy-1".to_owned();
        assert_eq!(claim().identity(None), Err(Unproven::NoPod(shown())));
        assert_eq!(claim().identity(Some(pod("u2", "weir-proxy"))), Err(Unproven::Replaced(shown())));
        assert_eq!(claim().identity(Some(pod("u1", "other"))), Err(Unproven::OtherServiceAccount(shown())));
        let by_name = Claim { uid: None, service_account: None, ..claim() };
        let identity = by_name.identity(Some(pod("u2", "other"))).expect("the name is proven");
        assert_eq!(identity.service_account, "other");
    }

    #[test]
    fn names_have_the_letters_of_names() {
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)) && !is_label("") && !is_label("-a"));
        assert!(
            is_subdomain("a.b-c.9") && !is_subdomain("a..b") && !is_subdomain("a/b") && !is_subdomain(".")
        );
        let longest = ["a".repeat(63), "a".repeat(63), "a".repeat(63), "a".repeat(61)].join(".");
        assert!(is_subdomain(&longest) && !is_subdomain(&format!("{longest}a")));
    }
}
