//! What clients may do on a listener, from the wire.

use super::{Rejection, duration, within};
use crate::snapshot::ListenerLimits;
use lb_core::path::{DotSegments, DoubleSlashes, EncodedSlashes, PathPolicy};
use std::fmt::Display;
use weir_proto::limits as bounds;
use weir_proto::push;

/// A field that is 0 has its default.
pub(super) fn read(field: &str, wire: &push::ListenerLimits) -> Result<ListenerLimits, Rejection> {
    let default = ListenerLimits::default();
    Ok(ListenerLimits {
        uri_bytes_max: or(default.uri_bytes_max, field, ".uriBytes", wire.uri_bytes_max, bounds::URI_BYTES)?,
        head_bytes_max: or(
            default.head_bytes_max,
            field,
            ".headBytes",
            wire.head_bytes_max,
            bounds::HEAD_BYTES,
        )?,
        headers_max: or(default.headers_max, field, ".headers", wire.headers_max, bounds::HEADERS)?,
        streams_max: or(
            default.streams_max,
            field,
            ".streamsPerConnection",
            wire.streams_max,
            bounds::STREAMS,
        )?,
        resets_per_second_max: or(
            default.resets_per_second_max,
            field,
            ".resetsPerSecond",
            wire.resets_per_second_max,
            bounds::RESETS_PER_SECOND,
        )?,
        control_frames_per_second_max: or(
            default.control_frames_per_second_max,
            field,
            ".controlFramesPerSecond",
            wire.control_frames_per_second_max,
            bounds::CONTROL_FRAMES_PER_SECOND,
        )?,
        connections_max: or(
            default.connections_max,
            field,
            ".connections",
            wire.connections_max,
            bounds::CONNECTIONS,
        )?,
        connections_per_source_max: or(
            default.connections_per_source_max,
            field,
            ".connectionsPerSource",
            wire.connections_per_source_max,
            bounds::CONNECTIONS,
        )?,
        handshakes_per_source_max: or(
            default.handshakes_per_source_max,
            field,
            ".handshakesPerSourcePerSecond",
            wire.handshakes_per_source_max,
            bounds::HANDSHAKES_PER_SECOND,
        )?,
        head_timeout: match wire.head_timeout_ms {
            0 => default.head_timeout,
            ms => duration(field, ".headTimeout", ms, bounds::LISTENER_TIMEOUT_MS)?,
        },
        idle_timeout: match wire.idle_timeout_ms {
            0 => default.idle_timeout,
            ms => duration(field, ".idleTimeout", ms, bounds::LISTENER_TIMEOUT_MS)?,
        },
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
