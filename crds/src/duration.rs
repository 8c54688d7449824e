//! Durations as the Gateway API writes them (GEP-2257): `30s`, `1m30s`, `500ms`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The pattern of GEP-2257, which the API server checks too.
const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
const SECOND_MS: u64 = 1_000;

/// A length of time in whole milliseconds, written as one to four numbers of at most five digits, each with one
/// of the units `h`, `m`, `s`, `ms`; the parts add up.
///
/// Below 400,000 hours, so that milliseconds fit a `u64` with room to spare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    milliseconds: u64,
}

/// Why a text is not a [`Duration`]; the author of the text can fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write one to four numbers of at most five digits, each with a unit of h, m, s or ms, like \"30s\" or \"1m30s\""
)]
pub struct DurationError {
    /// What was there.
    pub text: String,
}

impl Duration {
    /// A duration of this many milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self { milliseconds }
    }

    /// A duration of this many seconds.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self { milliseconds: seconds as u64 * SECOND_MS }
    }

    /// Whole milliseconds; nothing is lost, for no unit is finer.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.milliseconds
    }

    /// True for `0s` in any spelling.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.milliseconds == 0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        Self::from_millis(duration.milliseconds)
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text).map(Self::from_millis).ok_or_else(|| DurationError { text: text.to_owned() })
    }
}

impl TryFrom<String> for Duration {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

fn parse(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut parts) = (text, 0, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        // "ms" before "m": the longer unit wins, as in the pattern.
        let (unit, tail) = [("ms", 1), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS)]
            .into_iter()
            .find_map(|(name, unit)| tail.strip_prefix(name).map(|tail| (unit, tail)))?;
        parts += 1;
        if !(1..=5).contains(&digits) || parts > 4 {
            return None;
        }
        total += number.parse::<u64>().ok()? * unit;
        rest = tail;
    }
    (parts > 0).then_some(total)
}

impl fmt::Display for Duration {
    /// The shortest spelling in falling units: `1m30s`, never `90s`. Reads back as the same value up to 99,999
    /// hours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = self.milliseconds;
        for (unit, name) in [(HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s"), (1, "ms")] {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The longest text that the pattern takes: four parts of five digits and two letters.
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 28})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gep_2257_writes_them() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("0h0m0s0ms", 0),
            ("500ms", 500),
            ("3s", 3_000),
            ("1m30s", 90_000),
            ("90s", 90_000),
            ("1h", 3_600_000),
            ("1s1s", 2_000),
            ("10s5m", 310_000),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(text.parse::<Duration>().map(Duration::as_millis), Ok(milliseconds), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_a_sentence() {
        for text in
            ["", "30", "s", "1.5s", "-1s", " 1s", "1s ", "100000s", "1d", "1us", "1h1m1s1ms1ms", "1S", "١s"]
        {
            let error = text.parse::<Duration>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("{text:?} is not a duration: write")), "{error}");
        }
    }

    #[test]
    fn a_duration_reads_back_as_written() {
        for milliseconds in [0, 1, 999, 1_000, 61_001, 3_600_000, 359_996_400_000 + 3_599_999] {
            let written = Duration::from_millis(milliseconds).to_string();
            assert_eq!(written.parse::<Duration>().map(Duration::as_millis), Ok(milliseconds), "{written}");
        }
    }
}
