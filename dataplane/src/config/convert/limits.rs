//! What clients may do on a listener, from the wire.

use super::{Rejection, duration, within};
use crate::snapshot::ListenerLimits;
use lb_core::path::{DotSegments, DoubleSlashes, EncodedSlashes, PathPolicy};
use std::fmt::Display;
use std::time::Duration;
use weir_proto::limits as bounds;
use weir_proto::push;

/// A field that is 0 has its default.
pub(super) fn read(field: &str, wire: &push::ListenerLimits) -> Result<ListenerLimits, Rejection> {
    let default = ListenerLimits::default();
    let number = |default: u32, rest, value, range| or(default, field, rest, value, range);
    let size = |default: usize, rest, value, range| or(default, field, rest, value, range);
    let time = |default: Duration, rest, ms| match ms {
        0 => Ok(default),
        ms => duration(field, rest, ms, bounds::LISTENER_TIMEOUT_MS),
    };
    let (connections, handshakes) = (bounds::CONNECTIONS, bounds::HANDSHAKES_AT_ONCE);
    let (of_source, at_once) = (wire.connections_per_source_max, wire.handshakes_at_once_per_source_max);
    Ok(ListenerLimits {
        uri_bytes_max: size(default.uri_bytes_max, ".uriBytes", wire.uri_bytes_max, bounds::URI_BYTES)?,
        head_bytes_max: size(default.head_bytes_max, ".headBytes", wire.head_bytes_max, bounds::HEAD_BYTES)?,
        headers_max: size(default.headers_max, ".headers", wire.headers_max, bounds::HEADERS)?,
        streams_max: number(default.streams_max, ".streamsPerConnection", wire.streams_max, bounds::STREAMS)?,
        resets_per_second_max: number(
            default.resets_per_second_max,
            ".resetsPerSecond",
            wire.resets_per_second_max,
            bounds::RESETS_PER_SECOND,
        )?,
        control_frames_per_second_max: number(
            default.control_frames_per_second_max,
            ".controlFramesPerSecond",
            wire.control_frames_per_second_max,
            bounds::CONTROL_FRAMES_PER_SECOND,
        )?,
        connections_max: number(default.connections_max, ".connections", wire.connections_max, connections)?,
        connections_per_source_max: number(
            default.connections_per_source_max,
            ".connectionsPerSource",
            of_source,
            connections,
        )?,
        handshakes_per_source_max: number(
            default.handshakes_per_source_max,
            ".handshakesPerSourcePerSecond",
            wire.handshakes_per_source_max,
            bounds::HANDSHAKES_PER_SECOND,
        )?,
        handshakes_at_once_max: number(
            default.handshakes_at_once_max,
            ".handshakesAtOnce",
            wire.handshakes_at_once_max,
            handshakes,
        )?,
        handshakes_at_once_per_source_max: number(
            default.handshakes_at_once_per_source_max,
            ".handshakesAtOncePerSource",
            at_once,
            handshakes,
        )?,
        head_timeout: time(default.head_timeout, ".headTimeout", wire.head_timeout_ms)?,
        idle_timeout: time(default.idle_timeout, ".idleTimeout", wire.idle_timeout_ms)?,
        body_bytes_per_second_min: match wire.body_bytes_per_second_min {
            0 => default.body_bytes_per_second_min,
            bounds::NO_BODY_PACE => 0,
            pace => within(field, ".minBodyBytesPerSecond", pace, bounds::BODY_PACE)?,
        },
    })
}

fn or<T: TryFrom<u32>>(
    default: T,
    field: &str,
    rest: &str,
    value: u32,
    range: (u32, u32),
) -> Result<T, Rejection>
where
    u32: TryInto<T> + Display,
{
    if value == 0 { Ok(default) } else { within(field, rest, value, range) }
}

/// What this proxy does not know is as it is by default: no default is laxer than another value.
pub(super) fn paths(wire: &push::PathPolicy) -> PathPolicy {
    PathPolicy {
        dot_segments: match wire.dot_segments() {
            push::DotSegments::Unspecified | push::DotSegments::Resolve => DotSegments::Resolve,
            push::DotSegments::Refuse => DotSegments::Refuse,
        },
        double_slashes: match wire.double_slashes() {
            push::DoubleSlashes::Unspecified | push::DoubleSlashes::Merge => DoubleSlashes::Merge,
            push::DoubleSlashes::Keep => DoubleSlashes::Keep,
            push::DoubleSlashes::Refuse => DoubleSlashes::Refuse,
        },
        encoded_slashes: match wire.encoded_slashes() {
            push::EncodedSlashes::Unspecified | push::EncodedSlashes::Refuse => EncodedSlashes::Refuse,
            push::EncodedSlashes::Keep => EncodedSlashes::Keep,
            push::EncodedSlashes::Decode => EncodedSlashes::Decode,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_said_its_bounds() {
        let read = |wire: push::ListenerLimits| read("limits", &wire);
        assert_eq!(read(push::ListenerLimits::default()), Ok(ListenerLimits::default()));
        let wire = push::ListenerLimits { uri_bytes_max: 64, ..push::ListenerLimits::default() };
        assert_eq!(read(wire).expect("at the least").uri_bytes_max, 64);
        let wire = push::ListenerLimits { uri_bytes_max: 63, ..push::ListenerLimits::default() };
        assert_eq!(read(wire).expect_err("below it").field, "limits.uriBytes");
        let wire = push::ListenerLimits { headers_max: 101, ..push::ListenerLimits::default() };
        assert_eq!(read(wire).expect_err("above it").field, "limits.headers");
        let wire = push::ListenerLimits {
            body_bytes_per_second_min: bounds::NO_BODY_PACE,
            ..push::ListenerLimits::default()
        };
        assert_eq!(read(wire).expect("no minimum").body_bytes_per_second_min, 0);
    }

    #[test]
    fn paths_are_as_said_and_strict_where_nothing_is() {
        assert_eq!(paths(&push::PathPolicy::default()), PathPolicy::default());
        let mut wire = push::PathPolicy::default();
        wire.set_double_slashes(push::DoubleSlashes::Keep);
        wire.set_encoded_slashes(push::EncodedSlashes::Decode);
        wire.set_dot_segments(push::DotSegments::Refuse);
        let expected = PathPolicy {
            dot_segments: DotSegments::Refuse,
            double_slashes: DoubleSlashes::Keep,
            encoded_slashes: EncodedSlashes::Decode,
        };
        assert_eq!(paths(&wire), expected);
    }
}
