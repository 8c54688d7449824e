//! Durations on the command line and in query strings: `250ms`, `10s`, `2m`.

use std::time::Duration;

/// Longest duration that is understood: nothing that this command waits for takes a day.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a whole number with a unit of `ms`, `s`, `m` or `h`; `0` needs none.
///
/// # Errors
/// A sentence for the user that names the value and the rule.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refusal =
        || format!("`{text}` is not a duration; write a whole number and a unit, like 250ms, 10s or 2m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refusal())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refusal()),
    };
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    duration
        .filter(|d| *d <= DURATION_MAX)
        .ok_or_else(|| format!("`{text}` is longer than 24h, the most allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_with_their_units() {
        for (text, ms) in
            [("0", 0), ("0s", 0), ("250ms", 250), ("10s", 10_000), ("2m", 120_000), ("24h", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_named() {
        for text in ["", "10", "s", "-1s", "1.5s", "10 s", "10S", "1d", "99999999999999999999s"] {
            let sentence = parse(text).expect_err(text);
            assert!(sentence.contains(&format!("`{text}` is not a duration")), "{sentence}");
        }
        assert!(parse("25h").expect_err("too long").contains("longer than 24h"));
        assert!(parse("18446744073709551615h").expect_err("overflow").contains("longer than 24h"));
    }
}
