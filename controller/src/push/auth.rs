//! Who opens a stream: asked of the API server before anything is read from it.

use super::identity::{Claim, SERVICE_ACCOUNT, Unproven};
use super::tls::Peer;
use crate::identity::{Identity, PodIdentity};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, TokenReview, TokenReviewSpec, TokenReviewStatus,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Streams whose identity is asked of the API server at once. Further ones wait.
pub const REVIEWS_MAX: usize = 16;

/// Streams that may wait for that. One past it is refused, and dials again.
pub const REVIEWS_WAITING_MAX: usize = 4096;

/// Longest time until an identity is found out, the wait included.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// What the stream of a proxy is refused for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the stream brings no token: give the proxy --token-file")]
    NoToken,
    #[error(
        "the stream brings nothing that says who dials: give the proxy --token-file, or a client certificate"
    )]
    Nothing,
    #[error("this controller takes client certificates only: give the proxy --client-cert and --client-key")]
    NoCertificate,
    #[error("the authorization of the stream is not `Bearer TOKEN`")]
    NotBearer,
    #[error(transparent)]
    Unproven(#[from] Unproven),
    #[error("the controller cannot ask the API server {what}: {reason}")]
    Away { what: &'static str, reason: String },
    #[error("the API server did not say in {} s who this proxy is", REVIEW_TIMEOUT.as_secs())]
    Slow,
    #[error("more than {REVIEWS_WAITING_MAX} proxies wait to be authenticated")]
    Busy,
    #[error(
        "reports are taken from replicas that run as the ServiceAccount of this one, `{wanted}`, and this is `{found}`"
    )]
    NoReplica { wanted: String, found: String },
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let sentence = refusal.to_string();
        match refusal {
            Refusal::NoToken
            | Refusal::Nothing
            | Refusal::NoCertificate
            | Refusal::NotBearer
            | Refusal::Unproven(Unproven::Token(_) | Unproven::Audience(_) | Unproven::Certificate) => {
                Self::unauthenticated(sentence)
            }
            Refusal::Unproven(_) | Refusal::NoReplica { .. } => Self::permission_denied(sentence),
            // The proxy serves on, and dials again.
            Refusal::Away { .. } | Refusal::Slow | Refusal::Busy => Self::unavailable(sentence),
        }
    }
}

/// What proves who opens a stream.
#[derive(Debug)]
pub(super) enum Proof {
    /// Nobody asks.
    None,
    /// A client certificate, which TLS has checked. It names no pod that could be looked up.
    Certificate,
    /// A token of a pod, or a client certificate that names one where TLS asks for it.
    Pod { pods: Box<Pods>, takes_certificates: bool },
}

impl Proof {
    /// Cancellation safe.
    pub(super) async fn identify(
        &self,
        peer: Option<&Peer>,
        metadata: &MetadataMap,
    ) -> Result<Identity, Refusal> {
        let certificate = peer.and_then(|peer| peer.certificate.as_deref());
        let (pods, takes_certificates) = match self {
            Self::None => return Ok(Identity::Trusted),
            Self::Certificate => {
                return certificate.map(|_| Identity::Trusted).ok_or(Refusal::NoCertificate);
            }
            Self::Pod { pods, takes_certificates } => (pods, *takes_certificates),
        };
        let claimed = match (certificate, token(metadata)?) {
            (Some(certificate), _) if takes_certificates => Claimed::Pod(Claim::of_certificate(certificate)?),
            (_, Some(token)) => Claimed::Token(token),
            (_, None) => return Err(if takes_certificates { Refusal::Nothing } else { Refusal::NoToken }),
        };
        pods.identity(claimed).await.map(Identity::Pod)
    }
}

impl Proof {
    /// Whether a proven identity is another replica's.
    pub(super) async fn is_replica(&self, identity: &Identity) -> Result<(), Refusal> {
        let (Self::Pod { pods, .. }, Identity::Pod(pod)) = (self, identity) else { return Ok(()) };
        let wanted = pods.own_account().await?;
        let found = format!("{SERVICE_ACCOUNT}{}:{}", pod.namespace, pod.service_account);
        if *wanted == found { Ok(()) } else { Err(Refusal::NoReplica { wanted, found }) }
    }
}

/// The token of a stream, if there is one.
fn token(metadata: &MetadataMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = metadata.get("authorization") else { return Ok(None) };
    let value = value.to_str().map_err(|_| Refusal::NotBearer)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::NotBearer)?;
    // RFC 9110, section 11.1: the scheme is case-insensitive.
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Refusal::NotBearer);
    }
    Ok(Some(token))
}

enum Claimed<'a> {
    Token(&'a str),
    Pod(Claim),
}

/// Asks the API server who a pod is.
pub struct Pods {
    client: Client,
    audience: String,
    asking: Semaphore,
    waiting: Semaphore,
    own_account: OnceCell<String>,
}

impl std::fmt::Debug for Pods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pods").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Pods {
    /// Tokens must be made for `audience`. Needs the rights to create `tokenreviews` and to get `pods` wherever
    /// proxies run.
    #[must_use]
    pub fn new(client: Client, audience: String) -> Self {
        Self {
            client,
            audience,
            asking: Semaphore::new(REVIEWS_MAX),
            waiting: Semaphore::new(REVIEWS_MAX + REVIEWS_WAITING_MAX),
            own_account: OnceCell::new(),
        }
    }

    async fn identity(&self, claimed: Claimed<'_>) -> Result<PodIdentity, Refusal> {
        let _place = self.waiting.try_acquire().map_err(|_| Refusal::Busy)?;
        let found = async {
            // Never closed: an error cannot be.
            let _turn = self.asking.acquire().await;
            let claim = match claimed {
                Claimed::Token(token) => Claim::of_token(&self.review(token).await?, &self.audience)?,
                Claimed::Pod(claim) => claim,
            };
            let pod = self.pod(&claim).await?;
            Ok(claim.identity(pod)?)
        };
        timeout(REVIEW_TIMEOUT, found).await.unwrap_or(Err(Refusal::Slow))
    }

    /// The user that this process is to the API server, asked once. Every user may ask that.
    async fn own_account(&self) -> Result<String, Refusal> {
        let asked = self.own_account.get_or_try_init(|| async {
            let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
            let (params, empty) = (PostParams::default(), SelfSubjectReview::default());
            let asked = reviews.create(&params, &empty);
            let review = timeout(REVIEW_TIMEOUT, asked).await.map_err(|_| Refusal::Slow)?;
            let review = review.map_err(|error| away("who this controller is", &error))?;
            Ok(review.status.and_then(|status| status.user_info?.username).unwrap_or_default())
        });
        asked.await.cloned()
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await;
        let reviewed = reviewed.map_err(|error| away("to review a token", &error))?;
        Ok(reviewed.status.unwrap_or_default())
    }

    async fn pod(&self, claim: &Claim) -> Result<Option<Pod>, Refusal> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &claim.namespace);
        pods.get_opt(&claim.name).await.map_err(|error| away("for a pod", &error))
    }
}

fn away(what: &'static str, error: &kube::Error) -> Refusal {
    let reason = match error {
        // Its own text is the whole answer.
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    };
    Refusal::Away { what, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_token_is_what_follows_bearer() {
        let with = |value: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().expect("ASCII"));
            metadata
        };
        assert!(matches!(token(&MetadataMap::new()), Ok(None)));
        assert!(matches!(token(&with("Bearer abc")), Ok(Some("abc"))));
        assert!(matches!(token(&with("bearer abc")), Ok(Some("abc"))));
        for wrong in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert!(matches!(token(&with(wrong)), Err(Refusal::NotBearer)), "{wrong}");
        }
    }

    #[test]
    fn what_a_proxy_cannot_mend_by_waiting_is_not_unavailable() {
        let code = |refusal: Refusal| Status::from(refusal).code();
        assert_eq!(code(Refusal::NoToken), Code::Unauthenticated);
        assert_eq!(code(Unproven::Token("expired".into()).into()), Code::Unauthenticated);
        assert_eq!(code(Unproven::Audience("a".into()).into()), Code::Unauthenticated);
        assert_eq!(code(Unproven::Unbound("a".into()).into()), Code::PermissionDenied);
        assert_eq!(code(Unproven::NoPod("a/b".into()).into()), Code::PermissionDenied);
        assert_eq!(code(Refusal::Away { what: "x", reason: "y".into() }), Code::Unavailable);
        assert_eq!(code(Refusal::Slow), Code::Unavailable);
    }
}
