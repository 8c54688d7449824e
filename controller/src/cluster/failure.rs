//! Why a watch does not bring objects, as a sentence for who runs the cluster.

use super::{Extent, Kind, WatchId};
use kube::core::Status;
use kube::runtime::watcher;
use prometheus_client::encoding::EncodeLabelValue;
use std::error::Error as _;
use std::fmt;
use std::time::SystemTime;

/// Why a watch does not bring objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum FailureReason {
    /// A rule of RBAC is missing.
    Forbidden,
    /// The API server does not know the kind.
    NotInstalled,
    /// The API server refused the watch, or ended it with an error.
    Refused,
    /// The API server did not answer, or the connection broke.
    Unreachable,
    /// What says how the API server of another cluster is reached cannot be used.
    Kubeconfig,
}

impl FailureReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Forbidden, Self::NotInstalled, Self::Refused, Self::Unreachable, Self::Kubeconfig];
}

/// A watch that failed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// By its kind.
    pub reason: FailureReason,
    /// In the words of the API server or the system.
    pub cause: String,
    /// When.
    pub at: SystemTime,
}

impl Failure {
    pub(super) fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                kube::Error::Api(status) => Self::of_status(status),
                other => Self::new(FailureReason::Unreachable, with_causes(other)),
            },
            watcher::Error::NoResourceVersion => Self::new(FailureReason::Refused, error.to_string()),
        }
    }

    fn of_status(status: &Status) -> Self {
        let reason = match status.code {
            403 => FailureReason::Forbidden,
            // A list of objects that are not there is an empty list; this is a list that is not there.
            404 => FailureReason::NotInstalled,
            _ => FailureReason::Refused,
        };
        Self::new(reason, status.message.clone())
    }

    /// One that happens now.
    pub(super) fn new(reason: FailureReason, cause: String) -> Self {
        Self { reason, cause, at: SystemTime::now() }
    }

    /// Whether it is likely to last, so that nothing is gained by waiting for it.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(
            self.reason,
            FailureReason::Forbidden | FailureReason::NotInstalled | FailureReason::Kubeconfig
        )
    }

    /// Whether it says no more than that there are no such objects: a cluster need not have the Gateway API.
    pub(super) fn is_absence(&self, kind: Kind) -> bool {
        kind == Kind::ReferenceGrant && self.reason == FailureReason::NotInstalled
    }

    /// What is wrong and what to do about it.
    pub(super) fn sentence(&self, id: &WatchId) -> String {
        let Self { reason, cause, .. } = self;
        match reason {
            FailureReason::Forbidden => format!("may not read {id}: {} ({cause})", missing_rule(id)),
            FailureReason::NotInstalled if id.kind == Kind::LoadBalancerPool => format!(
                "cannot read {id}: the API server does not know them, apply crds/loadbalancerpools.weir.dev.yaml"
            ),
            FailureReason::NotInstalled => format!("cannot read {id}: the API server does not know them"),
            FailureReason::Kubeconfig => {
                format!("cannot read {id} before another kubeconfig is there: {cause}")
            }
            FailureReason::Refused => format!("cannot read {id}, trying again: {cause}"),
            FailureReason::Unreachable => {
                format!("cannot read {id}, trying again: the API server does not answer ({cause})")
            }
        }
    }
}

fn missing_rule(id: &WatchId) -> String {
    let (group, resource) = id.kind.resource();
    match &id.extent {
        Extent::Everywhere => format!(
            "give the controller's ServiceAccount a ClusterRole with get, list, watch on {resource} of group {group:?}"
        ),
        Extent::Namespace(namespace) => format!(
            "give the controller's ServiceAccount a Role in namespace {namespace} with get, list, watch on {resource} of \
             group {group:?}"
        ),
        Extent::Selected(selector) => format!(
            "give the controller's ServiceAccount a Role in namespace {} with get, list, watch on {resource} of group \
             {group:?}",
            selector.namespace
        ),
        Extent::Remote(remote) => format!(
            "give the ServiceAccount of the kubeconfig a Role there in namespace {} with get, list, watch on {resource} of \
             group {group:?}",
            remote.service.namespace
        ),
        Extent::Object(key) => format!(
            "give the controller's ServiceAccount a Role in namespace {} with get, list, watch on {resource} of group \
             {group:?} and resourceNames [{}]",
            key.namespace, key.name
        ),
    }
}

/// An error of a library with all that is behind it; the outer ones alone say "client error".
fn with_causes(error: &kube::Error) -> String {
    let mut sentence = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        next = cause.source();
    }
    sentence
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "forbidden",
            Self::NotInstalled => "not installed",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Kubeconfig => "no kubeconfig",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::ObjectKey;

    fn failed(code: u16, message: &str) -> Failure {
        let status = Status { code, message: message.into(), ..Status::default() };
        Failure::of(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn a_missing_rule_is_named_for_the_whole_for_a_namespace_and_for_one_secret() {
        let failure = failed(403, "User \"weir\" cannot list");
        let services = |extent| WatchId { kind: Kind::Service, extent };
        let everywhere = failure.sentence(&services(Extent::Everywhere));
        assert!(everywhere.contains("ClusterRole with get, list, watch on services"), "{everywhere}");
        assert!(everywhere.contains("User \"weir\" cannot list"), "{everywhere}");
        let namespace = failure.sentence(&services(Extent::Namespace("shop".into())));
        assert!(namespace.contains("Role in namespace shop"), "{namespace}");
        let secret = failure.sentence(&WatchId::secret(ObjectKey::new("shop", "tls")));
        assert!(secret.contains("on secrets of group \"\" and resourceNames [tls]"), "{secret}");
    }

    #[test]
    fn what_lasts_is_told_from_what_passes() {
        assert!(failed(403, "").is_lasting());
        assert!(failed(404, "").is_lasting());
        assert!(!failed(500, "").is_lasting());
        assert!(!failed(410, "").is_lasting());
    }
}
