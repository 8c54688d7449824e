//! The Lease as the elector sees it, and the conversion from and to the Kubernetes object.

use super::LEASE_DURATION_MAX;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// What a Lease says. Two equal records are one sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// `None` when it was released, or never taken.
    pub holder: Option<String>,
    /// In microseconds; with `holder` it names one tenure of one process.
    pub acquired: Option<Timestamp>,
    /// In microseconds, by the holder's clock. Only ever compared for equality.
    pub renewed: Option<Timestamp>,
    /// For how long others must wait after the last change that they saw. `None` where nothing usable is written.
    pub duration: Option<Duration>,
    /// Times that the Lease went from one holder to another.
    pub transitions: i32,
}

/// The Lease's `resourceVersion`: a write over it is refused once it is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(pub String);

impl Record {
    /// Every Lease has a meaning, also one that was edited by hand.
    pub(super) fn read(lease: &Lease) -> Self {
        let Some(spec) = &lease.spec else { return Self::default() };
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            holder: spec.holder_identity.clone().filter(|holder| !holder.is_empty()),
            acquired: spec.acquire_time.as_ref().map(|time| time.0),
            renewed: spec.renew_time.as_ref().map(|time| time.0),
            duration: seconds
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds).min(LEASE_DURATION_MAX)),
            transitions: spec.lease_transitions.unwrap_or_default().max(0),
        }
    }

    /// The object to write. `revision` is that of the object it replaces, `None` to create it.
    pub(super) fn write(self, name: &str, revision: Option<Revision>) -> Lease {
        // Whole seconds, rounded up: others may wait longer than needed, never shorter.
        let seconds = self.duration.map(|duration| duration.as_millis().div_ceil(1_000));
        Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                resource_version: revision.map(|revision| revision.0),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: self.holder,
                acquire_time: self.acquired.map(MicroTime),
                renew_time: self.renewed.map(MicroTime),
                lease_duration_seconds: seconds.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX)),
                lease_transitions: Some(self.transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// The time of day in the precision that a Lease keeps.
pub(super) fn in_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let now = in_microseconds("2026-11-21T12:00:00.123456789Z".parse().expect("a time"));
        let record = Record {
            holder: Some("pod@10.0.0.7:9901".into()),
            acquired: Some(now),
            renewed: Some(now),
            duration: Some(Duration::from_secs(15)),
            transitions: 3,
        };
        let lease = record.clone().write("weir-controller", Some(Revision("7".into())));
        let json = serde_json::to_string(&lease).expect("JSON");
        let lease: Lease = serde_json::from_str(&json).expect("a Lease");
        assert_eq!(Record::read(&lease), record);
        assert_eq!(lease.metadata.resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn a_duration_is_rounded_up_and_what_others_wrote_is_bounded() {
        let written = |millis| {
            let record = Record { duration: Some(Duration::from_millis(millis)), ..Record::default() };
            record.write("l", None).spec.and_then(|spec| spec.lease_duration_seconds)
        };
        assert_eq!((written(1_000), written(1_001)), (Some(1), Some(2)));
        let read = |seconds| {
            let spec = LeaseSpec { lease_duration_seconds: seconds, ..LeaseSpec::default() };
            Record::read(&Lease { spec: Some(spec), ..Lease::default() }).duration
        };
        assert_eq!(read(None), None);
        assert_eq!(read(Some(0)), None);
        assert_eq!(read(Some(-5)), None);
        assert_eq!(read(Some(i32::MAX)), Some(LEASE_DURATION_MAX));
        assert_eq!(Record::read(&Lease::default()), Record::default());
    }
}
