//! What is inside of a sealed cookie, as bytes.

use super::Choice;
use std::time::Duration;

/// Choices that one cookie holds.
pub const CHOICES_MAX: usize = 8;

/// Largest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 128;

/// What is inside of a sealed cookie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// Of the pool.
    pub pool: u32,
    /// Since 1970, to the second.
    pub issued: Duration,
    /// Newest first, each set once, at most [`CHOICES_MAX`].
    pub choices: Vec<Choice>,
}

/// Why bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of this form.
    #[error("the token is malformed")]
    Malformed,
}
