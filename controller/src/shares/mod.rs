//! Limits that proxies have together: who may pass how much of each.
//!
//! Each proxy counts for itself, under its *share* of a limit; no request waits for anybody. Once in a second a proxy tells
//! its *demand*, and the holder of the Lease answers with the share that it may have ([`Allocator`], pure). Every other
//! replica passes demands and answers on ([`Desk`]).
//!
//! Together the shares are never more than the limit. What a proxy *may have in force* counts: the share that it said, and
//! each share that it was sent since, until it says that a later one is in force or until the term is over in which it could
//! use it. So a share grows only by what others have said to have given up, and what is lost on the way is only lost. The
//! same goes for tokens: what a smaller share leaves unused is told, kept, and handed over once. Whatever nobody has, the
//! allocator counts as a proxy would, so that who comes finds something there.
//!
//! A holder begins knowing nothing. Until it has heard all whom the others were told of, or a term has passed, it only moves
//! what those who speak have.

mod allocator;
mod desk;
mod division;
mod limit;

pub use allocator::{Allocator, LIMITS_MAX, PROXIES_MAX};
pub use desk::{Desk, DeskCounts, Outbox, Seat};
pub use limit::{NEW_AFTER, TERM_HELD};

/// The whole of a limit, in the parts that shares are counted in.
pub const WHOLE: u32 = weir_proto::limits::SHARE_WHOLE;

/// One request, in the parts in which proxies hand over what they did not use: so many as a limit has.
pub const REQUEST: u64 = WHOLE as u64;
