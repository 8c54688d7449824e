//! The Secret: what it says, and what the holder has to make of it. Pure: time and randomness come in.

use super::SECRET_NAME;
use super::ring::{Key, Ring};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// When the current key became the current one, by the clock of the holder of that time.
const ROTATED_AT: &str = "weir.dev/rotated-at";

/// Of the Secret.
const TYPE: &str = "weir.dev/keys";

const PREVIOUS: &str = "previous";
const CURRENT: &str = "current";
const NEXT: &str = "next";

/// A moment this far ahead is a mistake, and not a clock that is a little fast.
const AHEAD_MAX: Duration = Duration::from_secs(600);

/// The ring, if the Secret holds all of it.
pub(super) fn ring(secret: &Secret) -> Option<Ring> {
    Some(Ring { previous: key(secret, PREVIOUS)?, current: key(secret, CURRENT)?, next: key(secret, NEXT)? })
}

/// Whether it is the Secret of this name, of our type.
pub(super) fn is_ours(secret: &Secret) -> bool {
    secret.metadata.name.as_deref() == Some(SECRET_NAME) && secret.type_.as_deref() == Some(TYPE)
}

/// What the holder does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plan {
    /// Nothing before that moment.
    KeepUntil(Timestamp),
    /// There is none.
    Create(Box<Secret>),
    /// Over the version that was read.
    Replace { secret: Box<Secret>, why: Why },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The current key has served its time.
    Rotation,
    /// A key or the time was missing or malformed.
    Mended,
}

/// Draws keys where it needs new ones.
pub(super) fn plan<E>(
    found: Option<&Secret>,
    now: Timestamp,
    interval: Duration,
    mut draw: impl FnMut() -> Result<Key, E>,
) -> Result<Plan, E> {
    let Some(found) = found else {
        let ring = Ring { previous: draw()?, current: draw()?, next: draw()? };
        return Ok(Plan::Create(Box::new(written(blank(), &ring, now))));
    };
    let rotated_at = rotated_at(found).filter(|at| *at <= later(now, AHEAD_MAX));
    let replaced = |ring: &Ring, at, why| {
        let secret = Box::new(written(found.clone(), ring, at));
        Ok(Plan::Replace { secret, why })
    };
    match (ring(found), rotated_at) {
        (Some(ring), Some(at)) if now >= later(at, interval) => {
            let ring = Ring { previous: ring.current, current: ring.next, next: draw()? };
            replaced(&ring, now, Why::Rotation)
        }
        (Some(_), Some(at)) => Ok(Plan::KeepUntil(later(at, interval))),
        (Some(ring), None) => replaced(&ring, now, Why::Mended),
        (None, at) => {
            let previous = key(found, PREVIOUS).map_or_else(&mut draw, Ok)?;
            let (current, next, at) = match (key(found, CURRENT), key(found, NEXT)) {
                (Some(current), next) => (current, next, at),
                // Proxies have `next` already, so they open what it seals from now on.
                (None, Some(next)) => (next, None, None),
                (None, None) => (draw()?, None, None),
            };
            let next = next.map_or_else(&mut draw, Ok)?;
            replaced(&Ring { previous, current, next }, at.unwrap_or(now), Why::Mended)
        }
    }
}

fn blank() -> Secret {
    let managed_by = ("app.kubernetes.io/managed-by".to_owned(), "weir-controller".to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET_NAME.to_owned()),
            labels: Some([managed_by].into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        ..Secret::default()
    }
}

fn written(mut secret: Secret, ring: &Ring, rotated_at: Timestamp) -> Secret {
    let data = secret.data.get_or_insert_default();
    for (name, key) in [(PREVIOUS, &ring.previous), (CURRENT, &ring.current), (NEXT, &ring.next)] {
        data.insert(name.to_owned(), ByteString(key.bytes().to_vec()));
    }
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ROTATED_AT.to_owned(), rotated_at.to_string());
    secret
}

fn key(secret: &Secret, name: &str) -> Option<Key> {
    Key::read(&secret.data.as_ref()?.get(name)?.0)
}

fn rotated_at(secret: &Secret) -> Option<Timestamp> {
    secret.metadata.annotations.as_ref()?.get(ROTATED_AT)?.parse().ok()
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use weir_proto::limits::KEY_BYTES;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u32) -> Timestamp {
        later("2026-11-21T00:00:00Z".parse().expect("a time"), HOUR * hours)
    }

    /// The holder, which draws the keys 100, 101, 102 ...
    fn planned(found: Option<&Secret>, hours: u32) -> Plan {
        let mut drawn = 99;
        let draw = || {
            drawn += 1;
            Ok::<_, Infallible>(test_key(drawn))
        };
        plan(found, at(hours), 12 * HOUR, draw).expect("draws")
    }

    fn test_key(of: u8) -> Key {
        Key::read(&[of; KEY_BYTES]).expect("of the length")
    }

    fn test_ring(previous: u8, current: u8, next: u8) -> Ring {
        Ring { previous: test_key(previous), current: test_key(current), next: test_key(next) }
    }

    fn kept(hours: u32) -> Secret {
        let mut secret = written(blank(), &test_ring(1, 2, 3), at(hours));
        secret.metadata.resource_version = Some("7".into());
        secret
    }

    fn replaced(plan: Plan) -> (Secret, Why) {
        match plan {
            Plan::Replace { secret, why } => (*secret, why),
            other => panic!("a new version was due, not {other:?}"),
        }
    }

    #[test]
    fn a_secret_that_is_not_there_is_made() {
        match planned(None, 0) {
            Plan::Create(secret) => {
                assert_eq!(ring(&secret), Some(test_ring(100, 101, 102)));
                assert_eq!(rotated_at(&secret), Some(at(0)));
                assert_eq!(secret.metadata.name.as_deref(), Some(SECRET_NAME));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_move_up_once_their_time_is_over_and_not_before() {
        assert_eq!(planned(Some(&kept(0)), 11), Plan::KeepUntil(at(12)));
        let (secret, why) = replaced(planned(Some(&kept(0)), 12));
        assert_eq!((ring(&secret), why), (Some(test_ring(2, 3, 100)), Why::Rotation));
        assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"), "over the version that was read");
        let (late, _) = replaced(planned(Some(&kept(0)), 100));
        assert_eq!(ring(&late), Some(test_ring(2, 3, 100)), "once, however late");
        assert_eq!(rotated_at(&late), Some(at(100)));
    }

    #[test]
    fn what_is_malformed_is_mended_and_what_is_good_is_kept() {
        let spoilt = |names: &[&str]| {
            let mut secret = kept(0);
            let data = secret.data.as_mut().expect("data");
            names.iter().for_each(|name| drop(data.insert((*name).to_owned(), ByteString(vec![9; 31]))));
            secret
        };
        let cases: [(&[&str], Ring, u32); 5] = [
            (&[PREVIOUS], test_ring(100, 2, 3), 0),
            (&[NEXT], test_ring(1, 2, 100), 0),
            (&[CURRENT], test_ring(1, 3, 100), 5),
            (&[CURRENT, NEXT], test_ring(1, 100, 101), 5),
            (&[PREVIOUS, CURRENT, NEXT], test_ring(100, 101, 102), 5),
        ];
        for (names, mended, rotated) in cases {
            assert_eq!(ring(&spoilt(names)), None);
            let (secret, why) = replaced(planned(Some(&spoilt(names)), 5));
            assert_eq!((ring(&secret), why), (Some(mended), Why::Mended), "{names:?}");
            assert_eq!(rotated_at(&secret), Some(at(rotated)), "{names:?}");
        }
        let empty = Secret { data: None, ..kept(0) };
        assert_eq!(ring(&replaced(planned(Some(&empty), 5)).0), Some(test_ring(100, 101, 102)));
    }

    #[test]
    fn a_time_that_is_missing_or_far_ahead_begins_anew_and_the_keys_stay() {
        let mut spoilt = kept(0);
        for time in [None, Some("yesterday".to_owned()), Some(at(7).to_string())] {
            let annotations = time.map(|time| [(ROTATED_AT.to_owned(), time)].into());
            spoilt.metadata.annotations = annotations;
            let (secret, _) = replaced(planned(Some(&spoilt), 5));
            assert_eq!((ring(&secret), rotated_at(&secret)), (Some(test_ring(1, 2, 3)), Some(at(5))));
        }
        let mut ahead = kept(0);
        let soon = later(at(5), AHEAD_MAX).to_string();
        ahead.metadata.annotations = Some([(ROTATED_AT.to_owned(), soon)].into());
        assert!(matches!(planned(Some(&ahead), 5), Plan::KeepUntil(_)), "another holder's clock");
    }
}
