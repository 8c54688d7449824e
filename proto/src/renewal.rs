//! The end of a stream that is no fault: the controller wants to know again who dials.

/// Trailer of a stream that the controller ended because of its age. The proxy dials again at once, without a word
/// of warning: what it serves is in step, and the next stream begins with the digests of it. A proxy that does not
/// know the trailer sees the status beside it and backs off as it does from any other end.
pub const DIAL_AGAIN_TRAILER: &str = "weir-dial-again";
