//! Whom a pick passes over.

use super::lane::Seat;
use crate::backend::Live;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Backends that a request does not go to, or only where there is no other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Excluded<'a> {
    /// Where the request was already.
    pub(super) tried: &'a [Arc<Live>],
    /// Who has so many requests is full.
    pub(super) requests_max: Option<NonZeroU32>,
}

impl Excluded<'_> {
    /// Whether this one is tried or full. Nothing is read where neither can be.
    pub(super) fn has(&self, seat: &Seat) -> bool {
        self.is_full(seat) || (!self.tried.is_empty() && seat.is_in(self.tried))
    }

    /// Whether nobody is.
    pub(super) fn is_nobody(&self) -> bool {
        self.tried.is_empty() && self.requests_max.is_none()
    }

    /// Those that are full alone.
    pub(super) fn but_tried(self) -> Self {
        Self { tried: &[], ..self }
    }

    /// How many seats have to be looked at, out of so many different ones, to find one or know that there is none: one
    /// more than were tried, and any number may be full.
    pub(super) fn looks(&self, count: usize) -> usize {
        if self.requests_max.is_some() { count } else { count.min(self.tried.len() + 1) }
    }

    fn is_full(&self, seat: &Seat) -> bool {
        self.requests_max.is_some_and(|max| seat.live.is_full(max))
    }
}
