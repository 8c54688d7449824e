//! What a seed decides once.

use lb_core::backend::{Algorithm, Eligibility, Locality, Place, SetPolicy, SlowStart, Smoothing};
use lb_core::balance::Rng;
use lb_core::health::{ActiveSettings, Initial, PassiveSettings, SetPlan, WEIGH_EVERY, WEIGHT_FULL};
use std::time::Duration;

/// A request without an answer fails after this.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Latencies are forgotten fast, so that runs can be short.
const SMOOTHING: Smoothing =
    Smoothing { decay: Duration::from_millis(500), error_penalty: Duration::from_secs(1) };

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::LeastRequest { choices: 2 },
    Algorithm::LeastConnections,
    Algorithm::LeastResponseTime(SMOOTHING),
    Algorithm::PeakEwma(SMOOTHING),
];

/// Among so many seeds, each of [`ALGORITHMS`] has three, and Maglev one: to make its tables takes ten times as long as
/// all the rest of a run.
const ROUND: u64 = 19;
/// The first seed with Maglev.
pub(crate) const MAGLEV_SEED: u64 = ROUND - 1;

/// How the process balances and checks.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) policy: SetPolicy,
    pub(crate) plan: SetPlan,
    pub(crate) place: Place,
}

impl Settings {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Rng::new(!seed);
        let algorithm = match seed % ROUND {
            MAGLEV_SEED => Algorithm::MAGLEV,
            other => ALGORITHMS[usize::try_from(other % 6).expect("less than six")],
        };
        let is_checked = dice.below(8) > 0;
        let active = (is_checked && dice.below(4) > 0).then(|| active(&mut dice));
        let passive = (is_checked && dice.below(4) > 0).then(|| passive(&mut dice));
        let active = active.map(|settings| settings.validate().expect("settings of a test"));
        let passive = passive.map(|settings| settings.validate().expect("settings of a test"));
        let policy = SetPolicy {
            algorithm,
            eligibility: eligibility(&mut dice),
            is_judged: passive.is_some(),
            connect_timeout: REQUEST_TIMEOUT,
            ..SetPolicy::new(algorithm)
        };
        let place = Place { zone: "a".into(), node: "n".into() };
        Self { policy, plan: SetPlan { active, passive, panic_below_permille: 0 }, place }
    }

    /// Whether anything is to be kept of the set beside the request path.
    pub(crate) fn is_kept(&self) -> bool {
        let SetPlan { active, passive, .. } = &self.plan;
        active.is_some() || passive.is_some() || self.policy.eligibility.slow_start.is_some()
    }

    /// Longest time until active checks, if any, know that a backend is well again.
    pub(crate) fn checks_recover_max(&self) -> Option<Duration> {
        let active = self.plan.active.as_ref()?;
        // A probe that passes takes up to 10 ms here.
        Some(active.recovery_max() + Duration::from_millis(10) * active.healthy_threshold)
    }

    /// Longest time from the last trouble until health, weights and latencies know nothing of it.
    pub(crate) fn recovery_max(&self) -> Duration {
        let active = self.checks_recover_max().unwrap_or_default();
        let passive = self.plan.passive.as_ref().map_or(Duration::ZERO, |passive| {
            let step = passive.gray.as_ref().map_or(WEIGHT_FULL, |gray| gray.recovery_step_permille);
            // The longest ejection with its jitter, the window in which failures are remembered, the steps of weight.
            passive.ejection_max * 11 / 10
                + passive.window
                + WEIGH_EVERY * (u32::from(WEIGHT_FULL / step) + 2)
        });
        let slow_start = self.policy.eligibility.slow_start.map_or(Duration::ZERO, |slow| slow.window);
        let latency = match self.policy.algorithm {
            // From the time-out to a tenth of a millisecond, less than anybody's latency: ln(10,000) is 9.2.
            Algorithm::LeastResponseTime(smoothing) | Algorithm::PeakEwma(smoothing) => smoothing.decay * 10,
            _ => Duration::ZERO,
        };
        // What was on its way fails when its time is over.
        REQUEST_TIMEOUT + active + passive + slow_start + latency
    }
}

fn active(dice: &mut Rng) -> ActiveSettings {
    let interval = Duration::from_millis(200) + Duration::from_millis(1) * below(dice, 500);
    ActiveSettings {
        interval,
        timeout: Duration::from_millis(100) + Duration::from_millis(1) * below(dice, 700),
        recheck_interval: (dice.below(3) == 0).then_some(interval / 2),
        unhealthy_threshold: 1 + below(dice, 3),
        healthy_threshold: 1 + below(dice, 2),
        initial: if dice.below(4) == 0 { Initial::Down } else { Initial::Up },
        ..ActiveSettings::default()
    }
}

fn passive(dice: &mut Rng) -> PassiveSettings {
    let default = PassiveSettings::default();
    let mut gray = default.gray.clone().filter(|_| dice.below(3) > 0);
    if let Some(gray) = &mut gray {
        gray.recovery_step_permille = 300;
    }
    PassiveSettings {
        window: Duration::from_secs(2),
        ejection_base: Duration::from_secs(1),
        ejection_max: Duration::from_secs(3),
        ejected_share_max_permille: [300, 500, 1000][dice.below(3)],
        available_min: below(dice, 4),
        gray,
        ..default
    }
}

fn eligibility(dice: &mut Rng) -> Eligibility {
    Eligibility {
        locality: [Locality::Off, Locality::PreferZone, Locality::Hints][dice.below(3)],
        panic_below_percent: [None, None, Some(30), Some(60), Some(100)][dice.below(5)],
        overprovisioning_percent: [100, 140][dice.below(2)],
        slow_start: (dice.below(2) == 0).then_some(SlowStart {
            window: Duration::from_secs(2),
            aggression_percent: 100,
            weight_min_percent: 10,
        }),
    }
}

fn below(dice: &mut Rng, count: usize) -> u32 {
    u32::try_from(dice.below(count)).expect("a small number")
}
