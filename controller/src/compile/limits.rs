//! What clients may do on a listener, from the specification to the wire.

use super::check::Check;
use weir_crds::pool as spec;
use weir_proto::limits::{LISTENER_TIMEOUT_MS, NO_BODY_PACE};
use weir_proto::push;

/// What is left out stays 0, which is its default at the proxy.
pub(super) fn of_listener(
    field: &str,
    own: &spec::ListenerLimits,
    check: &mut Check,
) -> push::ListenerLimits {
    let mut number = |rest: &str, value: Option<i32>, range| {
        value.and_then(|value| check.between(&format!("{field}.{rest}"), value, range)).unwrap_or_default()
    };
    let pace = |value: u32| if value == 0 { NO_BODY_PACE } else { value };
    let mut limits = push::ListenerLimits {
        uri_bytes_max: number("uriBytes", own.uri_bytes, spec::URI_BYTES_RANGE),
        head_bytes_max: number("headBytes", own.head_bytes, spec::HEAD_BYTES_RANGE),
        headers_max: number("headers", own.headers, spec::HEADERS_RANGE),
        streams_max: number("streamsPerConnection", own.streams_per_connection, spec::LISTENER_STREAMS_RANGE),
        resets_per_second_max: number("resetsPerSecond", own.resets_per_second, spec::RESETS_RANGE),
        control_frames_per_second_max: number(
            "controlFramesPerSecond",
            own.control_frames_per_second,
            spec::CONTROL_FRAMES_RANGE,
        ),
        connections_max: number("connections", own.connections, spec::CONNECTIONS_RANGE),
        connections_per_source_max: number(
            "connectionsPerSource",
            own.connections_per_source,
            spec::CONNECTIONS_RANGE,
        ),
        handshakes_per_source_max: number(
            "handshakesPerSourcePerSecond",
            own.handshakes_per_source_per_second,
            spec::HANDSHAKES_RANGE,
        ),
        handshakes_at_once_max: number(
            "handshakesAtOnce",
            own.handshakes_at_once,
            spec::HANDSHAKES_AT_ONCE_RANGE,
        ),
        handshakes_at_once_per_source_max: number(
            "handshakesAtOncePerSource",
            own.handshakes_at_once_per_source,
            spec::HANDSHAKES_AT_ONCE_RANGE,
        ),
        body_bytes_per_second_min: own
            .min_body_bytes_per_second
            .map_or(0, |own| pace(number("minBodyBytesPerSecond", Some(own), spec::BODY_PACE_RANGE))),
        ..push::ListenerLimits::default()
    };
    let mut time = |rest: &str, value: Option<weir_crds::Duration>| {
        value.map_or(0, |value| check.within(&format!("{field}.{rest}"), value, LISTENER_TIMEOUT_MS))
    };
    limits.head_timeout_ms = time("headTimeout", own.head_timeout);
    limits.idle_timeout_ms = time("idleTimeout", own.idle_timeout);
    limits
}

/// What is done with paths.
pub(super) fn paths(own: &spec::PathPolicy) -> push::PathPolicy {
    let mut paths = push::PathPolicy::default();
    paths.set_dot_segments(match own.dot_segments {
        spec::DotSegments::Resolve => push::DotSegments::Resolve,
        spec::DotSegments::Refuse => push::DotSegments::Refuse,
    });
    paths.set_double_slashes(match own.double_slashes {
        spec::DoubleSlashes::Merge => push::DoubleSlashes::Merge,
        spec::DoubleSlashes::Keep => push::DoubleSlashes::Keep,
        spec::DoubleSlashes::Refuse => push::DoubleSlashes::Refuse,
    });
    paths.set_encoded_slashes(match own.encoded_slashes {
        spec::EncodedSlashes::Refuse => push::EncodedSlashes::Refuse,
        spec::EncodedSlashes::Keep => push::EncodedSlashes::Keep,
        spec::EncodedSlashes::Decode => push::EncodedSlashes::Decode,
    });
    paths
}

/// Bytes of a request's body, 0 for no limit; `None` where nothing is said.
pub(super) fn body_bytes(field: &str, own: Option<&spec::RequestLimits>, check: &mut Check) -> Option<u64> {
    let bytes = own?.request_body_bytes?;
    let (min, max) = spec::BODY_BYTES_RANGE;
    let checked = u64::try_from(bytes).ok().filter(|_| bytes <= max);
    if checked.is_none() {
        let rule = format!("is out of range: use {min} to {max}");
        check.refuse(format!("{field}.requestBodyBytes"), bytes.to_string(), rule);
    }
    checked
}
