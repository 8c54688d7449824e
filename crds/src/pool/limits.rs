//! What clients may do, and what is done with the paths that they ask for.

use crate::duration::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a path and query.
pub const URI_BYTES_RANGE: (i32, i32) = (64, 65_536);
/// Bytes of a request's line and headers.
pub const HEAD_BYTES_RANGE: (i32, i32) = (1_024, 65_536);
/// Header fields of a request.
pub const HEADERS_RANGE: (i32, i32) = (8, 100);
/// Requests at a time on a connection of HTTP/2.
pub const LISTENER_STREAMS_RANGE: (i32, i32) = (1, 1_000);
/// Resets of streams in a second.
pub const RESETS_RANGE: (i32, i32) = (1, 100_000);
/// Frames without a message in a second.
pub const CONTROL_FRAMES_RANGE: (i32, i32) = (10, 1_000_000);
/// Connections of a port or a source.
pub const CONNECTIONS_RANGE: (i32, i32) = (1, 10_000_000);
/// Handshakes of a source in a second.
pub const HANDSHAKES_RANGE: (i32, i32) = (1, 100_000);
/// Handshakes under way at one time.
pub const HANDSHAKES_AT_ONCE_RANGE: (i32, i32) = (1, 1_000_000);
/// Bytes of a body in a second.
pub const BODY_PACE_RANGE: (i32, i32) = (0, 1_000_000);
/// Bytes of a request's body.
pub const BODY_BYTES_RANGE: (i64, i64) = (0, 1 << 50);

/// What clients may do on a port. Each proxy counts its own. Where pools share a port, those of the oldest pool that
/// has any apply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerLimits {
    /// Bytes of a request's path and query, 64 to 65536; 414 past it. Without it: 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = URI_BYTES_RANGE.0, max = URI_BYTES_RANGE.1))]
    pub uri_bytes: Option<i32>,

    /// Bytes of a request's line and headers, 1024 to 65536; 431 past it. Without it: 32768.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = HEAD_BYTES_RANGE.0, max = HEAD_BYTES_RANGE.1))]
    pub head_bytes: Option<i32>,

    /// Header fields of a request, 8 to 100; 431 past it. Without it: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = HEADERS_RANGE.0, max = HEADERS_RANGE.1))]
    pub headers: Option<i32>,

    /// Requests at a time on one connection of HTTP/2, 1 to 1000; the stream is refused past it. Without it: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = LISTENER_STREAMS_RANGE.0, max = LISTENER_STREAMS_RANGE.1))]
    pub streams_per_connection: Option<i32>,

    /// Streams of one connection of HTTP/2 that end by a reset of either side in a second, 1 to 100000, and five seconds of
    /// it at once; the connection is ended past it. Without it: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = RESETS_RANGE.0, max = RESETS_RANGE.1))]
    pub resets_per_second: Option<i32>,

    /// Frames of one connection of HTTP/2 in a second that are no part of a message (SETTINGS, PING and the like), 10 to
    /// 1000000, and five seconds of it at once; the connection is ended past it. Without it: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = CONTROL_FRAMES_RANGE.0, max = CONTROL_FRAMES_RANGE.1))]
    pub control_frames_per_second: Option<i32>,

    /// Connections of the port, 1 to 10000000; closed at once past it. Without it: 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = CONNECTIONS_RANGE.0, max = CONNECTIONS_RANGE.1))]
    pub connections: Option<i32>,

    /// The same of one source: an IPv4 address, or 64 bits of an IPv6 address; 1 to 10000000. Behind a Service that hides
    /// its clients, a node is one source. Without it: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = CONNECTIONS_RANGE.0, max = CONNECTIONS_RANGE.1))]
    pub connections_per_source: Option<i32>,

    /// TLS handshakes that one source begins in a second, 1 to 100000, and two seconds of it at once; closed at once past
    /// it. Without it: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = HANDSHAKES_RANGE.0, max = HANDSHAKES_RANGE.1))]
    pub handshakes_per_source_per_second: Option<i32>,

    /// TLS handshakes that are under way at one time, of the whole process, 1 to 1000000; one more is closed at once.
    /// Without it: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = HANDSHAKES_AT_ONCE_RANGE.0, max = HANDSHAKES_AT_ONCE_RANGE.1))]
    pub handshakes_at_once: Option<i32>,

    /// The same of one source on this port, 1 to 1000000. Without it: 2000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = HANDSHAKES_AT_ONCE_RANGE.0, max = HANDSHAKES_AT_ONCE_RANGE.1))]
    pub handshakes_at_once_per_source: Option<i32>,

    /// From the first byte of a request's head to its last, as a duration like `10s`: 100ms to 1h; 408 past it. Without
    /// it: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        "message": "a head timeout must be 100ms to 1h",
    }]))]
    pub head_timeout: Option<Duration>,

    /// How long a connection waits for a request, as a duration like `75s`: 100ms to 1h; it is closed past it. Without it:
    /// 75s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        "message": "an idle timeout must be 100ms to 1h",
    }]))]
    pub idle_timeout: Option<Duration>,

    /// Bytes of a request's body for each second that the client is waited for, 0 to 1000000, after 30s; 408 below it, until
    /// the backend answers, and not for gRPC. 0: no minimum. Without it: 240.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = BODY_PACE_RANGE.0, max = BODY_PACE_RANGE.1))]
    pub min_body_bytes_per_second: Option<i32>,
}

/// What is done with paths that readers take in several ways, before a route is looked for; the backend gets what the route
/// was found by. Unreserved characters are decoded, invalid percent-encoding, `%00` and backslashes refused in any case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathPolicy {
    /// Segments `.` and `..`: Resolve (a path above the root is refused) or Refuse.
    #[serde(default)]
    pub dot_segments: DotSegments,

    /// Empty segments (`//`): Merge, Keep or Refuse.
    #[serde(default)]
    pub double_slashes: DoubleSlashes,

    /// `%2F` and `%5C`: Refuse; Keep, for backends that do not decode them either; or Decode, to a slash.
    #[serde(default)]
    pub encoded_slashes: EncodedSlashes,
}

/// What is done with segments `.` and `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum DotSegments {
    #[default]
    Resolve,
    Refuse,
}

/// What is done with empty segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum DoubleSlashes {
    #[default]
    Merge,
    Keep,
    Refuse,
}

/// What is done with encoded slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "a doc comment on a variant would turn the schema's enum into oneOf")]
pub enum EncodedSlashes {
    #[default]
    Refuse,
    Keep,
    Decode,
}

/// How large requests of a rule may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestLimits {
    /// Bytes of a request's body, 0 to 2^50; 413 past it. 0: no limit. Without it: that of spec.limits, or no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = BODY_BYTES_RANGE.0, max = BODY_BYTES_RANGE.1))]
    pub request_body_bytes: Option<i64>,
}
