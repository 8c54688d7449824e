//! Hosts of listeners and rules, as configuration writes them; `None` stands for every host.

use std::collections::BTreeSet;

/// Hosts that are a pool's on a listener: those of the listener, and those that a rule narrows it to. Between two pools
/// the controller grants each host once, so that the more specific one says whose a request and a handshake are.
pub(super) fn claimed<'a>(
    listener: &'a [String],
    rules: impl Iterator<Item = &'a [String]>,
) -> BTreeSet<Option<&'a str>> {
    let own = common(listener, &[]);
    rules.flat_map(|rule| common(listener, rule)).chain(own).collect()
}

/// Hosts that both a listener and a rule accept, the narrower of each pair (Gateway API, HTTPRoute hostnames);
/// `None` stands for every host.
pub(super) fn common<'a>(listener: &'a [String], rule: &'a [String]) -> Vec<Option<&'a str>> {
    match (listener.is_empty(), rule.is_empty()) {
        (true, true) => vec![None],
        (true, false) => rule.iter().map(|host| Some(host.as_str())).collect(),
        (false, true) => listener.iter().map(|host| Some(host.as_str())).collect(),
        (false, false) => {
            let pairs = listener.iter().flat_map(|a| rule.iter().map(move |b| (a.as_str(), b.as_str())));
            pairs.filter_map(|(a, b)| narrower(a, b)).map(Some).collect()
        }
    }
}

fn narrower<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    let covers = |wide: &str, narrow: &str| {
        wide.strip_prefix('*').is_some_and(|suffix| narrow.len() > suffix.len() && narrow.ends_with(suffix))
    };
    match () {
        () if a == b || covers(a, b) => Some(b),
        () if covers(b, a) => Some(a),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[test]
    fn hosts_are_those_that_listener_and_rule_both_accept() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static [Option<&'static str>]);
        let cases: [Case; 9] = [
            (&[], &[], &[None]),
            (&["a.org"], &[], &[Some("a.org")]),
            (
                &["*.org", "*.a.org"],
                &["x.a.org", "*.org"],
                &[Some("x.a.org"), Some("*.org"), Some("x.a.org"), Some("*.a.org")],
            ),
            (&[], &["a.org"], &[Some("a.org")]),
            (&["*.a.org"], &["x.a.org", "b.org", "a.org"], &[Some("x.a.org")]),
            (&["x.a.org"], &["*.a.org"], &[Some("x.a.org")]),
            (&["*.a.org"], &["*.x.a.org"], &[Some("*.x.a.org")]),
            (&["*.a.org"], &["*.a.org"], &[Some("*.a.org")]),
            (&["a.org"], &["b.org"], &[]),
        ];
        for (listener, rule, expected) in cases {
            let (listener, rule) = (owned(listener), owned(rule));
            assert_eq!(common(&listener, &rule), expected, "{listener:?} {rule:?}");
            let counted = weir_proto::limits::routes(&[listener.as_slice()], &[(rule.as_slice(), 1)]);
            assert_eq!(counted, expected.len(), "what is counted is what is made: {listener:?} {rule:?}");
        }
    }

    #[test]
    fn a_rule_narrows_what_a_listener_claims_and_never_widens_it() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static [Option<&'static str>]);
        let cases: [Case; 4] = [
            (&[], &[], &[None]),
            (&[], &["a.org"], &[None, Some("a.org")]),
            (&["*.a.org"], &["x.a.org", "*.org", "b.org"], &[Some("*.a.org"), Some("x.a.org")]),
            (&["x.a.org"], &["*.a.org"], &[Some("x.a.org")]),
        ];
        for (listener, rule, expected) in cases {
            let (listener, rule) = (owned(listener), owned(rule));
            let claimed = claimed(&listener, [rule.as_slice()].into_iter());
            assert_eq!(claimed.into_iter().collect::<Vec<_>>(), expected, "{listener:?} {rule:?}");
        }
    }
}
