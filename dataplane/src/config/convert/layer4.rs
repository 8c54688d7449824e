//! Rules that serve listeners of layer 4. The controller refuses the same with more words.

use super::rules::RuleSpec;
use super::{ListenerSpec, Rejection, Spoken};
use lb_core::route::{PathMatch, RouteMatch};
use lb_core::sessions::SessionSource;

impl Spoken {
    /// Whether bytes are passed on whatever they say.
    fn is_layer4(self) -> bool {
        match self {
            Self::Http | Self::Https => false,
            Self::Tcp | Self::Tls | Self::Passthrough | Self::Udp => true,
        }
    }
}

/// What a rule asks of requests, or does to them, cannot be for a listener that has none: left out, it would let pass what
/// the rule keeps away.
pub(super) fn check(listeners: &[ListenerSpec], rules: &[RuleSpec]) -> Result<(), Rejection> {
    for listener in listeners.iter().filter(|listener| listener.protocol.spoken().is_layer4()) {
        let serving = rules.iter().enumerate().filter(|(_, rule)| rule.serves(listener));
        for (index, rule) in serving {
            if let Some(field) = of_requests(rule) {
                let reason = format!(
                    "it is of requests, and listener {:?}, which the rule serves, has none: leave it out",
                    listener.name
                );
                return Err(Rejection::new(format!("spec.rules[{index}].{field}"), reason));
            }
        }
    }
    Ok(())
}

fn of_requests(rule: &RuleSpec) -> Option<&'static str> {
    let is_any = |wanted: &RouteMatch| {
        wanted.conditions.as_ref().is_none_or(|conditions| conditions.are_none())
            && matches!(&wanted.path, PathMatch::Prefix(path) if &**path == "/")
    };
    let is_of_source =
        rule.sessions.as_ref().is_none_or(|sessions| sessions.source == SessionSource::SourceIp);
    let said = [
        ("matches", !rule.matches.iter().all(is_any)),
        ("filters", rule.filters.is_some()),
        ("sessionPersistence", !is_of_source),
        ("rateLimits", !rule.limits.is_empty()),
        ("backendSets", rule.sets.iter().any(|set| !set.matches.is_empty())),
    ];
    said.into_iter().find(|(_, is_said)| *is_said).map(|(field, _)| field)
}
