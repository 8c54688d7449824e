//! What changed in a pool's status that is worth an Event: transitions, never states.

use super::compute::condition;
use super::reason::{
    self, ACCEPTED, CERTIFICATE_EXPIRING, ENDPOINTS_READY, PROGRAMMED, RESOLVED_REFS, TYPES,
};
use super::text::{self, Limits};
use crate::compile::{ObjectKey, Reason};
use crate::store::BackendName;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType};
use weir_crds::{LoadBalancerPool, LoadBalancerPoolStatus};

/// Bytes of an Event's note; the API takes 1024.
const NOTE_BYTES_MAX: usize = 1000;

/// A generation is invalid.
pub(super) const REJECTED: &str = "Rejected";

/// Every reason that an Event may have.
#[cfg(test)]
const REASONS: [&str; 9] = [
    "Programmed",
    "EndpointsEmpty",
    "NackedByProxy",
    "RefNotPermitted",
    "Conflicted",
    REJECTED,
    "CertificateExpiring",
    "BackendDown",
    "BackendUp",
];

/// One news: type, reason and note of an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) is_warning: bool,
    pub(super) reason: &'static str,
    pub(super) note: String,
    /// That it is about, where it is about one.
    pub(super) backend: Option<BackendName>,
}

/// What is new in `now` beside `before`; of a pool without a status everything is.
pub(super) fn news(before: Option<&LoadBalancerPoolStatus>, now: &LoadBalancerPoolStatus) -> Vec<News> {
    let is_same_config = before.is_some_and(|before| config(before) == config(now));
    let is_same_generation =
        before.is_some_and(|before| before.observed_generation == now.observed_generation);
    let mut news = Vec::new();
    for kind in TYPES {
        let Some(condition) = condition(now, kind) else { continue };
        let before = before.and_then(|before| self::condition(before, kind));
        let is_still = before
            .is_some_and(|before| before.status == condition.status && before.reason == condition.reason);
        let told = told(condition, Repeats { is_still, is_same_config, is_same_generation });
        news.extend(told.map(|(is_warning, reason)| News {
            is_warning,
            reason,
            note: text::cut(&condition.message, NOTE_BYTES_MAX),
            backend: None,
        }));
    }
    news
}

/// What is as it was.
#[derive(Debug, Clone, Copy)]
struct Repeats {
    /// The condition's status and reason.
    is_still: bool,
    is_same_config: bool,
    is_same_generation: bool,
}

fn told(condition: &Condition, repeats: Repeats) -> Option<(bool, &'static str)> {
    let Repeats { is_still, is_same_config, is_same_generation } = repeats;
    let is_true = condition.status == "True";
    match (condition.type_.as_str(), condition.reason.as_str()) {
        (PROGRAMMED, _) if is_true => (!is_still || !is_same_config).then_some((false, "Programmed")),
        (PROGRAMMED, reason::NACKED) => (!is_still || !is_same_config).then_some((true, "NackedByProxy")),
        (ENDPOINTS_READY, reason::NO_ENDPOINTS) => (!is_still).then_some((true, "EndpointsEmpty")),
        (RESOLVED_REFS, "RefNotPermitted") => (!is_still).then_some((true, "RefNotPermitted")),
        (ACCEPTED, _) if !is_true && (!is_still || !is_same_generation) => {
            let is_conflict = condition.reason == Reason::Conflicted.as_str();
            Some((true, if is_conflict { "Conflicted" } else { REJECTED }))
        }
        (CERTIFICATE_EXPIRING, _) if is_true => (!is_still).then_some((true, "CertificateExpiring")),
        _ => None,
    }
}

fn config(status: &LoadBalancerPoolStatus) -> Option<&str> {
    status.programmed.as_ref().map(|programmed| programmed.config_version.as_str())
}

/// Of sentences that proxies had a part in.
pub(super) fn note(sentences: impl IntoIterator<Item = String>) -> String {
    text::listed(sentences, 0, Limits { item_bytes_max: NOTE_BYTES_MAX, bytes_max: NOTE_BYTES_MAX })
}

impl News {
    /// For what `regarding` is about. Events on different backends have different related objects, or the second would
    /// count up the first, whose note says the first backend.
    pub(super) fn event(&self, regarding: &ObjectReference) -> Event {
        let related = self.backend.as_ref().map(|BackendName { set, backend }| ObjectReference {
            field_path: Some(format!("spec.backendSets{{{set}}}.backends{{{backend}}}")),
            ..regarding.clone()
        });
        Event {
            type_: if self.is_warning { EventType::Warning } else { EventType::Normal },
            reason: self.reason.to_owned(),
            note: Some(self.note.clone()),
            action: "Reconcile".to_owned(),
            secondary: related,
        }
    }
}

/// The object that the Events are about.
pub(super) fn reference(key: &ObjectKey, uid: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some(LoadBalancerPool::api_version(&()).into_owned()),
        kind: Some(LoadBalancerPool::kind(&()).into_owned()),
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use weir_crds::ProgrammedStatus;

    fn status(generation: i64, config: &str, conditions: &[(&str, &str, &str)]) -> LoadBalancerPoolStatus {
        let condition = |&(type_, status, reason): &(&str, &str, &str)| Condition {
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            message: "so".repeat(1_000),
            observed_generation: Some(generation),
            reason: reason.into(),
            status: status.into(),
            type_: type_.into(),
        };
        LoadBalancerPoolStatus {
            observed_generation: Some(generation),
            programmed: Some(ProgrammedStatus { config_version: config.into(), ..Default::default() }),
            conditions: conditions.iter().map(condition).collect(),
            ..LoadBalancerPoolStatus::default()
        }
    }

    fn reasons(before: Option<&LoadBalancerPoolStatus>, now: &LoadBalancerPoolStatus) -> Vec<&'static str> {
        let news = news(before, now);
        assert!(news.iter().all(|news| REASONS.contains(&news.reason) && news.note.len() <= NOTE_BYTES_MAX));
        news.into_iter().map(|news| news.reason).collect()
    }

    const GOOD: (&str, &str, &str) = (PROGRAMMED, "True", "Programmed");
    const BEHIND: (&str, &str, &str) = (PROGRAMMED, "False", reason::PENDING);
    const NACKED: (&str, &str, &str) = (PROGRAMMED, "False", reason::NACKED);
    const EMPTY: (&str, &str, &str) = (ENDPOINTS_READY, "False", reason::NO_ENDPOINTS);
    const FULL: (&str, &str, &str) = (ENDPOINTS_READY, "True", "EndpointsReady");

    #[test]
    fn the_page_on_the_status_has_a_row_for_each_event() {
        let page = include_str!("../../../docs/status.md");
        for reason in REASONS {
            let rows = ["Normal", "Warning"].map(|kind| page.contains(&format!("| `{reason}` | {kind} |")));
            assert!(rows.contains(&true), "docs/status.md has no row for Event {reason}");
        }
    }

    #[test]
    fn events_on_different_backends_have_different_related_objects() {
        let pool = reference(&ObjectKey::new("ns", "p"), Some("u"));
        let related = |backend: Option<&str>| {
            let backend = backend.map(|id| BackendName { set: "web".into(), backend: id.into() });
            let news = News { is_warning: true, reason: "BackendDown", note: String::new(), backend };
            news.event(&pool).secondary
        };
        let [a, b] = ["10.0.0.1:80", "10.0.0.2:80"].map(|id| related(Some(id)).expect("related"));
        assert_eq!(a.field_path.as_deref(), Some("spec.backendSets{web}.backends{10.0.0.1:80}"));
        assert_eq!((&a.name, &a.uid), (&pool.name, &pool.uid));
        assert_ne!(a, b);
        assert_eq!(related(None), None);
    }

    #[test]
    fn a_new_configuration_that_all_run_is_news_and_the_same_one_is_not() {
        let first = status(1, "a", &[GOOD]);
        assert_eq!(reasons(None, &first), ["Programmed"]);
        assert_eq!(reasons(Some(&first), &first), [""; 0]);
        assert_eq!(reasons(Some(&first), &status(2, "b", &[GOOD])), ["Programmed"]);
        assert_eq!(reasons(Some(&status(1, "a", &[BEHIND])), &first), ["Programmed"]);
        assert_eq!(reasons(Some(&first), &status(1, "a", &[BEHIND])), [""; 0], "that passes");
    }

    #[test]
    fn a_refusal_is_news_once_for_each_configuration() {
        let first = status(1, "a", &[NACKED]);
        assert_eq!(reasons(None, &first), ["NackedByProxy"]);
        assert_eq!(reasons(Some(&first), &first), [""; 0]);
        assert_eq!(reasons(Some(&first), &status(2, "b", &[NACKED])), ["NackedByProxy"]);
        assert_eq!(reasons(Some(&first), &status(2, "b", &[GOOD])), ["Programmed"]);
    }

    #[test]
    fn the_last_endpoint_that_goes_is_news() {
        assert_eq!(reasons(Some(&status(1, "a", &[FULL])), &status(1, "a", &[EMPTY])), ["EndpointsEmpty"]);
        assert_eq!(reasons(Some(&status(1, "a", &[EMPTY])), &status(1, "a", &[EMPTY])), [""; 0]);
        assert_eq!(reasons(Some(&status(1, "a", &[EMPTY])), &status(1, "a", &[FULL])), [""; 0]);
    }

    #[test]
    fn each_generation_that_is_not_accepted_is_news() {
        let invalid = |generation| status(generation, "a", &[(ACCEPTED, "False", "Invalid")]);
        assert_eq!(reasons(None, &invalid(1)), ["Rejected"]);
        assert_eq!(reasons(Some(&invalid(1)), &invalid(1)), [""; 0]);
        assert_eq!(reasons(Some(&invalid(1)), &invalid(2)), ["Rejected"]);
        assert_eq!(reasons(None, &status(1, "a", &[(ACCEPTED, "False", "Conflicted")])), ["Conflicted"]);
    }

    #[test]
    fn a_certificate_that_comes_nearer_to_its_end_is_news_at_each_step() {
        let expiring = |reason| status(1, "a", &[(CERTIFICATE_EXPIRING, "True", reason)]);
        let none = status(1, "a", &[(CERTIFICATE_EXPIRING, "False", reason::NONE_EXPIRING)]);
        assert_eq!(reasons(None, &none), [""; 0]);
        let steps = [reason::WITHIN_30_DAYS, reason::WITHIN_7_DAYS, reason::EXPIRED].map(expiring);
        let mut before = &none;
        for step in &steps {
            assert_eq!(reasons(Some(before), step), ["CertificateExpiring"]);
            assert_eq!(reasons(Some(step), step), [""; 0]);
            before = step;
        }
        assert_eq!(reasons(Some(before), &none), [""; 0], "renewed");
    }

    #[test]
    fn a_reference_that_is_not_permitted_is_news_and_one_that_leads_nowhere_is_not() {
        let refs = |reason| status(1, "a", &[(RESOLVED_REFS, "False", reason)]);
        assert_eq!(reasons(None, &refs("RefNotPermitted")), ["RefNotPermitted"]);
        assert_eq!(reasons(None, &refs("BackendNotFound")), [""; 0]);
    }
}
