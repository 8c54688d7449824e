//! What a user may set, and what is refused before it reaches a state machine.

mod active;
mod passive;

pub use active::{
    ActiveSettings, BODY_BYTES_MAX, HEADERS_MAX, HttpCheck, HttpVersion, INTERVAL_MAX, INTERVAL_MIN, Initial,
    JITTER_PERMILLE_MAX, Kind, STATUS_RANGES_MAX, StatusRange, TEXT_BYTES_MAX, THRESHOLD_MAX, TIMEOUT_MAX,
    TIMEOUT_MIN,
};
pub use passive::{
    EJECTION_MAX, EJECTION_MIN, GraySettings, OUTCOMES_MAX, PassiveSettings, WINDOW_MAX, WINDOW_MIN,
};

use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

/// Settings that passed every rule. Cheap to clone; equal and hashed by what they say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Valid<T>(Arc<T>);

impl<T> Deref for Valid<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why settings are refused. Whoever wrote them can mend each of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A number that is too small or too large.
    #[error("{field} is {value}, and must be from {min} to {max}")]
    Number {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The smallest that it may be.
        min: u64,
        /// The largest that it may be.
        max: u64,
    },
    /// A length of time that is too short or too long.
    #[error("{field} is {value:?}, and must be from {min:?} to {max:?}")]
    Length {
        /// The field.
        field: &'static str,
        /// What it is.
        value: Duration,
        /// The shortest that it may be.
        min: Duration,
        /// The longest that it may be.
        max: Duration,
    },
    /// A text that cannot be sent or matched.
    #[error("{field} is {value:?}, and must be {rule}")]
    Text {
        /// The field.
        field: &'static str,
        /// What it is, cut at 64 characters.
        value: Box<str>,
        /// What it must be.
        rule: &'static str,
    },
    /// Two fields that are each right and wrong together.
    #[error("{fields}: {rule}")]
    Mix {
        /// The fields.
        fields: &'static str,
        /// Why they cannot both be.
        rule: &'static str,
    },
}

fn number(
    field: &'static str,
    value: impl Into<u64>,
    range: RangeInclusive<u64>,
) -> Result<(), SettingsError> {
    let value = value.into();
    let (min, max) = range.into_inner();
    let within = (min..=max).contains(&value);
    within.then_some(()).ok_or(SettingsError::Number { field, value, min, max })
}

fn length(
    field: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), SettingsError> {
    let (min, max) = range.into_inner();
    let within = (min..=max).contains(&value);
    within.then_some(()).ok_or(SettingsError::Length { field, value, min, max })
}

fn text(field: &'static str, value: &str, rule: &'static str, is_kept: bool) -> Result<(), SettingsError> {
    let cut = || value.chars().take(64).collect::<String>().into();
    is_kept.then_some(()).ok_or_else(|| SettingsError::Text { field, value: cut(), rule })
}

fn mix(fields: &'static str, rule: &'static str, is_kept: bool) -> Result<(), SettingsError> {
    is_kept.then_some(()).ok_or(SettingsError::Mix { fields, rule })
}
