//! The words of conditions. Names of the Gateway API where it has one; docs/status.md explains each.

use crate::compile::Reason;

/// The specification is valid and takes nothing from another pool.
pub const ACCEPTED: &str = "Accepted";
/// Everything that the pool names is there.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Every rule has a backend that takes requests.
pub const ENDPOINTS_READY: &str = "EndpointsReady";
/// Every proxy runs the newest version.
pub const PROGRAMMED: &str = "Programmed";
/// Something is served in another way than the specification says.
pub const DEGRADED: &str = "Degraded";
/// A certificate of the pool ends soon, or has.
pub const CERTIFICATE_EXPIRING: &str = "CertificateExpiring";

/// The types of conditions, in the order in which they are written.
pub const TYPES: [&str; 6] =
    [ACCEPTED, RESOLVED_REFS, ENDPOINTS_READY, PROGRAMMED, DEGRADED, CERTIFICATE_EXPIRING];

/// Nothing is known to differ from the specification.
pub const AS_SPECIFIED: &str = "AsSpecified";
/// Of a pool that is not accepted nothing else is known.
pub const NOT_ACCEPTED: &str = "NotAccepted";
/// The pool is not accepted, and proxies serve what it said before.
pub const SERVES_LAST_GOOD: &str = "ServesLastGood";
/// No backend at all is ready.
pub const NO_ENDPOINTS: &str = "NoEndpoints";
/// Some rule has no backend, others have.
pub const RULES_WITHOUT_ENDPOINTS: &str = "RulesWithoutEndpoints";
/// Some rule has ready backends, and checks let requests to none of them at any proxy.
pub const UNHEALTHY: &str = "Unhealthy";
/// Checks keep requests from some ready backend at some proxy.
pub const BACKENDS_UNHEALTHY: &str = "BackendsUnhealthy";
/// Some proxy has not acknowledged the newest version yet.
pub const PENDING: &str = "Pending";
/// No proxy that serves the pool is connected.
pub const NO_PROXIES: &str = "NoProxies";
/// Some proxy refuses the configuration and serves its last good one.
pub const NACKED: &str = "Nacked";
/// Some proxy lacks a change that was seen long ago.
pub const PROXY_BEHIND: &str = "ProxyBehind";
/// No certificate ends soon.
pub const NONE_EXPIRING: &str = "NoneExpiring";
/// One does within 30 days, or a third of its time.
pub const WITHIN_30_DAYS: &str = "Within30Days";
/// One does within 7 days, or a sixth of its time.
pub const WITHIN_7_DAYS: &str = "Within7Days";
/// One has.
pub const EXPIRED: &str = "Expired";
/// The pool cannot be sent to a proxy.
pub const TOO_LARGE: &str = "TooLarge";

/// Why something that the pool names is not used, the gravest first.
pub const UNRESOLVED: &[&str] = &[
    Reason::RefNotPermitted.as_str(),
    Reason::BackendNotFound.as_str(),
    Reason::NameNotResolved.as_str(),
    Reason::EndpointsUnread.as_str(),
    Reason::ClusterUnreachable.as_str(),
    Reason::InvalidCertificateRef.as_str(),
    Reason::UnsupportedProtocol.as_str(),
    Reason::LimitReached.as_str(),
    Reason::InvalidEndpoints.as_str(),
];

/// Every reason that a condition may have, by the condition's type.
#[must_use]
pub fn all() -> Vec<(&'static str, &'static str)> {
    let refs = |kind| UNRESOLVED.iter().map(move |reason| (kind, *reason));
    let own = [
        (ACCEPTED, ACCEPTED),
        (ACCEPTED, Reason::Invalid.as_str()),
        (ACCEPTED, Reason::Conflicted.as_str()),
        (ACCEPTED, Reason::LimitReached.as_str()),
        (RESOLVED_REFS, RESOLVED_REFS),
        (RESOLVED_REFS, NOT_ACCEPTED),
        (ENDPOINTS_READY, ENDPOINTS_READY),
        (ENDPOINTS_READY, NO_ENDPOINTS),
        (ENDPOINTS_READY, RULES_WITHOUT_ENDPOINTS),
        (ENDPOINTS_READY, UNHEALTHY),
        (ENDPOINTS_READY, NOT_ACCEPTED),
        (PROGRAMMED, PROGRAMMED),
        (PROGRAMMED, PENDING),
        (PROGRAMMED, NO_PROXIES),
        (PROGRAMMED, NACKED),
        (PROGRAMMED, TOO_LARGE),
        (PROGRAMMED, SERVES_LAST_GOOD),
        (PROGRAMMED, NOT_ACCEPTED),
        (DEGRADED, AS_SPECIFIED),
        (DEGRADED, SERVES_LAST_GOOD),
        (DEGRADED, NOT_ACCEPTED),
        (DEGRADED, TOO_LARGE),
        (DEGRADED, NACKED),
        (DEGRADED, NO_ENDPOINTS),
        (DEGRADED, RULES_WITHOUT_ENDPOINTS),
        (DEGRADED, UNHEALTHY),
        (DEGRADED, BACKENDS_UNHEALTHY),
        (DEGRADED, PROXY_BEHIND),
        (DEGRADED, CERTIFICATE_EXPIRING),
        (DEGRADED, Reason::Overruled.as_str()),
        (CERTIFICATE_EXPIRING, NONE_EXPIRING),
        (CERTIFICATE_EXPIRING, WITHIN_30_DAYS),
        (CERTIFICATE_EXPIRING, WITHIN_7_DAYS),
        (CERTIFICATE_EXPIRING, EXPIRED),
        (CERTIFICATE_EXPIRING, NOT_ACCEPTED),
    ];
    own.into_iter().chain(refs(RESOLVED_REFS)).chain(refs(DEGRADED)).collect()
}
