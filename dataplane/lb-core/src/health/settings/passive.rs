//! Settings of passive checks: what requests themselves tell about a backend.

use super::{SettingsError, Valid, length, mix, number};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Shortest window.
pub const WINDOW_MIN: Duration = Duration::from_secs(1);
/// Longest window.
pub const WINDOW_MAX: Duration = Duration::from_secs(600);
/// Most outcomes that a judgement may need.
pub const OUTCOMES_MAX: u32 = 100_000;
/// Shortest first ejection.
pub const EJECTION_MIN: Duration = Duration::from_millis(100);
/// Longest ejection.
pub const EJECTION_MAX: Duration = Duration::from_secs(3600);

/// When a backend is taken out because of what happens to requests, for how long, and how many at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PassiveSettings {
    /// Outcomes older than this are forgotten.
    pub window: Duration,
    /// A share is judged over the newest outcomes, at least so many; with fewer in the window it is not judged.
    pub outcomes_min: u32,
    /// A larger share of failures ejects; `None` never does.
    pub failure_share_permille: Option<u16>,
    /// So many failures without a success between them eject; `None` never does.
    pub consecutive_failures: Option<NonZeroU32>,
    /// So many failures to connect without anything else between them eject; `None` never does.
    pub consecutive_connect_failures: Option<NonZeroU32>,
    /// The first ejection; the n-th is n times as long.
    pub ejection_base: Duration,
    /// No ejection is longer, jitter apart.
    pub ejection_max: Duration,
    /// Each ejection is lengthened by a random part of this share of it, so that proxies do not all try again at once.
    pub jitter_permille: u16,
    /// Largest share of the set's backends that is ejected at once, rounded down.
    pub ejected_share_max_permille: u16,
    /// No ejection leaves fewer backends available than this.
    pub available_min: u32,
    /// Lowering weights before ejecting; `None` never does.
    pub gray: Option<GraySettings>,
}

/// When a backend gets fewer requests because it does them badly, though not badly enough to eject it.
///
/// A backend that fails in part is the one that health checks call well (Huang et al., "Gray failure", HotOS 2017).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GraySettings {
    /// Weight falls from this share of failures on, to its least at the share that ejects.
    pub failure_share_permille: u16,
    /// Weight falls where the mean latency is above so many thousandths of the median of the set's means.
    pub latency_factor_permille: u32,
    /// But only where it is also above that median by this.
    pub latency_excess_min: Duration,
    /// Least weight, in thousandths of the backend's own.
    pub weight_min_permille: u16,
    /// Weight comes back by at most so much each second.
    pub recovery_step_permille: u16,
}

impl Default for PassiveSettings {
    /// Out with more than half of the last 10 failed, 5 failures in a row or 3 failed connections; 10 s, then 20 s, at
    /// most 5 min; never more than half of a set.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            outcomes_min: 10,
            failure_share_permille: Some(500),
            consecutive_failures: NonZeroU32::new(5),
            consecutive_connect_failures: NonZeroU32::new(3),
            ejection_base: Duration::from_secs(10),
            ejection_max: Duration::from_secs(300),
            jitter_permille: 100,
            ejected_share_max_permille: 500,
            available_min: 1,
            gray: Some(GraySettings::default()),
        }
    }
}

impl Default for GraySettings {
    /// From a tenth of failures, or three times the others' latency and 10 ms more, down to a tenth of the weight.
    fn default() -> Self {
        Self {
            failure_share_permille: 100,
            latency_factor_permille: 3000,
            latency_excess_min: Duration::from_millis(10),
            weight_min_permille: 100,
            recovery_step_permille: 100,
        }
    }
}

impl PassiveSettings {
    /// Refuses what cannot work, with the first rule that is broken.
    ///
    /// # Errors
    ///
    /// The field, its value and the rule.
    pub fn validate(self) -> Result<Valid<Self>, SettingsError> {
        length("window", self.window, WINDOW_MIN..=WINDOW_MAX)?;
        number("outcomesMin", self.outcomes_min, 1..=OUTCOMES_MAX.into())?;
        if let Some(share) = self.failure_share_permille {
            number("failureSharePermille", share, 1..=999)?;
        }
        length("ejectionBase", self.ejection_base, EJECTION_MIN..=EJECTION_MAX)?;
        length("ejectionMax", self.ejection_max, self.ejection_base..=EJECTION_MAX)?;
        number("jitterPermille", self.jitter_permille, 0..=1000)?;
        number("ejectedShareMaxPermille", self.ejected_share_max_permille, 0..=1000)?;
        if let Some(gray) = &self.gray {
            number("gray.failureSharePermille", gray.failure_share_permille, 1..=999)?;
            number("gray.latencyFactorPermille", gray.latency_factor_permille, 1001..=1_000_000)?;
            number("gray.weightMinPermille", gray.weight_min_permille, 1..=999)?;
            number("gray.recoveryStepPermille", gray.recovery_step_permille, 1..=1000)?;
            let rule = "weights must fall before the share that ejects is reached";
            let ejects = self.failure_share_permille.unwrap_or(1000);
            mix(
                "gray.failureSharePermille and failureSharePermille",
                rule,
                gray.failure_share_permille < ejects,
            )?;
        }
        let ejects = self.failure_share_permille.is_some()
            || self.consecutive_failures.is_some()
            || self.consecutive_connect_failures.is_some();
        let fields = "failureSharePermille, consecutiveFailures, consecutiveConnectFailures and gray";
        mix(
            fields,
            "with all of them off nothing is checked; leave passive checks out",
            ejects || self.gray.is_some(),
        )?;
        Ok(Valid(Arc::new(self)))
    }

    /// How many of a set of `members` may be ejected at once.
    #[must_use]
    pub fn ejected_max(&self, members: usize) -> usize {
        members * usize::from(self.ejected_share_max_permille) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut PassiveSettings, bool);

    fn refusal(change: impl FnOnce(&mut PassiveSettings)) -> String {
        let mut settings = PassiveSettings::default();
        change(&mut settings);
        settings.validate().map_or_else(|error| error.to_string(), |_| "taken".to_owned())
    }

    #[test]
    fn limits_are_taken_and_one_past_them_is_refused() {
        let past = Duration::from_nanos(1);
        let rows: [(Change<'_>, &str); 8] = [
            (&|s, bad| s.window = if bad { WINDOW_MIN - past } else { WINDOW_MIN }, "window"),
            (&|s, bad| s.window = if bad { WINDOW_MAX + past } else { WINDOW_MAX }, "window"),
            (&|s, bad| s.outcomes_min = u32::from(!bad), "outcomesMin"),
            (&|s, bad| s.outcomes_min = OUTCOMES_MAX + u32::from(bad), "outcomesMin"),
            (&|s, bad| s.failure_share_permille = Some(999 + u16::from(bad)), "failureSharePermille"),
            (
                &|s, bad| s.ejection_max = s.ejection_base - if bad { past } else { Duration::ZERO },
                "ejectionMax",
            ),
            (&|s, bad| s.ejected_share_max_permille = 1000 + u16::from(bad), "ejectedShareMaxPermille"),
            (&|s, bad| s.jitter_permille = 1000 + u16::from(bad), "jitterPermille"),
        ];
        for (change, field) in rows {
            assert_eq!(refusal(|settings| change(settings, false)), "taken", "{field}");
            let refused = refusal(|settings| change(settings, true));
            assert!(refused.starts_with(&format!("{field} is ")), "{refused}");
        }
    }

    #[test]
    fn fields_that_are_wrong_together_are_refused() {
        let gray = refusal(|settings| settings.failure_share_permille = Some(100));
        assert!(gray.contains("weights must fall before"), "{gray}");
        let off = refusal(|settings| {
            settings.failure_share_permille = None;
            settings.consecutive_failures = None;
            settings.consecutive_connect_failures = None;
            settings.gray = None;
        });
        assert!(off.contains("nothing is checked"), "{off}");
    }

    #[test]
    fn the_largest_share_is_rounded_down() {
        let settings = PassiveSettings::default();
        assert_eq!([0, 1, 2, 3, 10].map(|members| settings.ejected_max(members)), [0, 0, 1, 1, 5]);
    }
}
