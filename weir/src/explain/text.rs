//! An explanation for people: what comes of the request first, then the way there. Pure.

use std::fmt::Write as _;
use weir_proxy::explain::{
    Answerer, Asks, Explanation, Filter, Guards, Match, Retry, Rival, Set, Timeouts, Upstream,
};

/// Whether words have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Colours,
}

/// Width of the names on the left.
const NAME_WIDTH: usize = 11;

/// Backends of a set that are listed; past it the rest is left to `--output json`.
const BACKENDS_MAX: usize = 50;

/// Lines behind their names.
struct Page(String);

impl Page {
    /// The first line has the name, the others stand below it.
    fn add(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        let mut name = name;
        for line in lines {
            let _ = writeln!(self.0, "{}", format!("{name:NAME_WIDTH$}{}", plain(&line)).trim_end());
            name = "";
        }
    }
}

pub(super) fn drawn(told: &Explanation, paint: Paint) -> String {
    let asked = &told.request;
    let mut page = Page(String::new());
    let (scheme, authority, target) = (&asked.scheme, &asked.authority, &asked.target);
    let line = format!("{} {scheme}://{authority}{target} from {}", asked.method, asked.source);
    let _ = writeln!(page.0, "{}", plain(line.trim_start()));
    let (begin, end) = match (paint, told.answered) {
        (Paint::Plain, _) => ("", ""),
        (Paint::Colours, true) => ("\x1b[32m", "\x1b[0m"),
        (Paint::Colours, false) => ("\x1b[31m", "\x1b[0m"),
    };
    let _ = writeln!(page.0, "{begin}{}{end}\n", plain(&answer(told)));
    page.add("listener", listener(told));
    page.add(
        "path",
        told.path
            .iter()
            .filter(|path| path.read != path.asked)
            .map(|path| format!("{} is read as {}", path.asked, path.read)),
    );
    page.add("route", told.route.iter().flat_map(route));
    let near = if told.route.is_some() { "not" } else { "nearest" };
    page.add(near, told.passed_over.iter().flat_map(rival).chain(more(told.passed_over_more, "matches")));
    page.add(
        "client",
        told.client.iter().map(|client| {
            let by = if client.is_told_by_proxies { ", as trusted proxies say" } else { "" };
            format!("{} over {}{by}", client.address, client.scheme)
        }),
    );
    page.add("guards", guards(&told.guards));
    page.add("filters", told.filters.iter().flat_map(filter));
    page.add("backend is", told.upstream.iter().flat_map(upstream));
    page.add("timeouts", told.timeouts.iter().map(timeouts));
    page.add("retry", told.retry.iter().map(|retry| self::retry(retry, &asked.scheme)));
    page.add(
        "session",
        told.session.iter().map(|session| {
            let name = session.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            format!("by {}{name}: {}", session.by.replace('_', " "), session.state)
        }),
    );
    page.add("sets", told.sets.iter().flat_map(set));
    page.0
}

/// What comes of it, in one line.
fn answer(told: &Explanation) -> String {
    let answer = &told.answer;
    let status = answer.status.map(|status| format!("{status} ")).unwrap_or_default();
    let reason = answer.reason.as_ref().map(|reason| format!("{reason}: ")).unwrap_or_default();
    let location = answer.location.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    match (&told.backend, answer.by) {
        (Some(backend), _) => {
            let name = named(&backend.address, &backend.id);
            format!("backend {name} of set {}: {}", backend.set, answer.detail)
        }
        (None, Answerer::Backend) => {
            match told.sets.iter().filter(|set| set.share > 0.0).collect::<Vec<_>>()[..] {
                [only] => format!("a backend of set {}: {}", only.name, answer.detail),
                _ => format!("a backend: {}", answer.detail),
            }
        }
        (None, Answerer::Nobody) if status.is_empty() && reason.is_empty() => {
            format!("nothing: {}", answer.detail)
        }
        (None, _) => format!("{status}{reason}{}{location}", answer.detail),
    }
}

fn listener(told: &Explanation) -> Vec<String> {
    let Some(listener) = &told.listener else { return Vec::new() };
    let mut line = format!("{} {}", listener.port, listener.protocol);
    if let Some(mode) = &listener.tls_mode {
        let _ = write!(line, " {mode}");
    }
    if let (Some(pool), Some(name), Some(field)) = (&listener.pool, &listener.name, &listener.field) {
        let _ = write!(line, ", {name} of {pool} ({field})");
    } else if let Some(pool) = &listener.pool {
        let _ = write!(line, ", of {pool}");
    }
    [line, listener.why.clone()].into_iter().chain(listener.proxy_protocol.clone()).collect()
}

fn place(of: &Match) -> String {
    let rule = of.rule.as_ref().map(|rule| format!(" rule {rule}")).unwrap_or_default();
    format!("{}{rule} {}", of.pool, of.field)
}

fn wanted(of: &Match) -> String {
    match (&of.hostname, &of.why) {
        (None, Some(why)) => why.clone(),
        (Some(name), Some(why)) => format!("{name}, {why}"),
        (name, None) if of.path_type.is_empty() => name.as_deref().unwrap_or("every name").to_owned(),
        (host, None) => {
            format!("{}, {} {}", host.as_deref().unwrap_or("every host"), of.path_type, of.path)
        }
    }
}

fn route(of: &Match) -> Vec<String> {
    let mut lines = vec![place(of), wanted(of)];
    lines.extend(of.conditions.iter().map(asks));
    lines
}

fn asks(asked: &Asks) -> String {
    let kind = asked.of.replace('_', " ");
    let name = asked.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let value = asked.value.as_ref().map(|value| match asked.is_expression {
        true => format!(" as {value:?}"),
        false => format!(" {value:?}"),
    });
    let holds = if asked.holds { "holds" } else { "does not hold" };
    format!("{kind}{name}{} {holds}", value.unwrap_or_default())
}

fn rival(rival: &Rival) -> Vec<String> {
    vec![format!("{}: {}", place(&rival.of), wanted(&rival.of)), format!("  {}", rival.why)]
}

fn more(count: usize, what: &str) -> Option<String> {
    (count > 0).then(|| format!("and {count} more {what}"))
}

fn guards(guards: &Guards) -> Vec<String> {
    let allow = guards.ip_rules_allow.map(|allow| {
        let (does, list, other) = match allow {
            true => ("let this client in", "allow", "deny"),
            false => ("keep this client out", "deny", "allow"),
        };
        match &guards.ip_rules_network {
            Some(network) => format!("ipRules {does}: {list} {network}"),
            None => format!("ipRules {does}: no network in {other} has it"),
        }
    });
    let limits = guards.rate_limits.iter().map(|limit| {
        let scope = if limit.is_of_cluster { ", of all proxies together" } else { "" };
        let (id, by) = (&limit.id, &limit.by);
        format!("rate limit {id}: {} in {} by {by}{scope}", limit.requests, time(limit.period_ms))
    });
    let body = guards.body_bytes_max.map(|max| format!("a body of at most {max} bytes"));
    allow.into_iter().chain(limits).chain(body).collect()
}

fn filter(filter: &Filter) -> Vec<String> {
    filter.effects.iter().map(|effect| format!("{}: {effect}", filter.kind)).collect()
}

fn upstream(asked: &Upstream) -> Vec<String> {
    let mut lines = vec![format!("asked {} {} of {}", asked.method, asked.target, asked.host)];
    lines.extend(asked.headers_set.iter().map(|header| format!("{}: {}", header.name, header.value)));
    if !asked.headers_removed.is_empty() {
        lines.push(format!("without {}", asked.headers_removed.join(", ")));
    }
    lines
}

fn timeouts(limits: &Timeouts) -> String {
    let of = |what: &str, ms: Option<u64>| ms.map(|ms| format!("{what} {}", time(ms)));
    let all = [
        of("request", limits.request_ms),
        of("attempt", limits.attempt_ms),
        of("idle", limits.idle_ms),
        of("total", limits.total_ms),
        of("connect", limits.connect_ms),
        of("connectionIdle", limits.connection_idle_ms),
        of("flowIdle", limits.flow_idle_ms),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn retry(retry: &Retry, scheme: &str) -> String {
    let statuses = retry.statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let hedge = retry.hedge_after_ms.map(|ms| format!(", hedged after {}", time(ms))).unwrap_or_default();
    match (retry.retries_max, statuses.is_empty()) {
        (0, _) => format!("never{hedge}"),
        (max, _) if !scheme.starts_with("http") => {
            format!("{max} times where a backend does not take the connection")
        }
        (max, true) => format!("{max} times where a backend fails{hedge}"),
        (max, false) => format!("{max} times where a backend fails, or answers {statuses}{hedge}"),
    }
}

fn set(set: &Set) -> Vec<String> {
    let hash = set.hash_key.as_ref().map(|key| format!(" by {key}")).unwrap_or_default();
    let role = if set.role == "route" { String::new() } else { format!(" ({})", set.role) };
    let fallback = set.fallback.as_ref().map(|of| format!(", then {of}")).unwrap_or_default();
    let (name, algorithm, why) = (&set.name, &set.algorithm, &set.why);
    let mut lines = vec![format!("{name}{role} {}, {algorithm}{hash}{fallback}: {why}", percent(set.share))];
    if set.ignores_health {
        lines.push("  health is ignored: too few backends are available".to_owned());
    }
    lines.extend(set.backends.iter().take(BACKENDS_MAX).map(|backend| {
        let name = named(&backend.address, &backend.id);
        let mut line = format!("  {} {name}", percent(backend.probability));
        let _ = write!(line, ", weight {}, {}", backend.weight, backend.state);
        if backend.priority > 0 {
            let _ = write!(line, ", priority {}", backend.priority);
        }
        if !backend.zone.is_empty() {
            let _ = write!(line, ", zone {}", backend.zone);
        }
        if !backend.available {
            line.push_str(", takes nothing: unhealthy");
        }
        line
    }));
    lines.extend(
        more(set.backends.len().saturating_sub(BACKENDS_MAX), "backends").map(|line| format!("  {line}")),
    );
    lines
}

/// An id that says no more than the address is left out.
fn named(address: &str, id: &str) -> String {
    if address == id { address.to_owned() } else { format!("{address} ({id})") }
}

fn percent(part: f64) -> String {
    let text = format!("{:.1}", part * 100.0);
    format!("{:>5} %", text.strip_suffix(".0").unwrap_or(&text)).trim_start().to_owned()
}

/// In the largest unit that it is whole in.
fn time(ms: u64) -> String {
    match ms {
        ms if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        ms if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        ms if ms > 0 && ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// What others wrote may hold anything, and a terminal obeys some of it.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proxy::explain::{Answer, Backend, Choice, Listener, Request};

    fn told() -> Explanation {
        let of = Match {
            pool: "default/shop".into(),
            rule: Some("api".into()),
            field: "spec.rules[0].matches[1]".into(),
            hostname: Some("*.example".into()),
            path_type: "PathPrefix".into(),
            path: "/api".into(),
            conditions: vec![Asks {
                of: "query_param".into(),
                name: Some("a".into()),
                value: Some("[0-9]".into()),
                is_expression: true,
                holds: true,
            }],
            ..Match::default()
        };
        Explanation {
            request: Request {
                method: "GET".into(),
                scheme: "http".into(),
                authority: "shop.example".into(),
                target: "/api?a=1".into(),
                source: "192.0.2.1".into(),
                ..Request::default()
            },
            answered: true,
            answer: Answer { by: Answerer::Backend, detail: "no other".into(), ..Answer::default() },
            listener: Some(Listener {
                port: 80,
                protocol: "HTTP".into(),
                why: "said".into(),
                ..Listener::default()
            }),
            passed_over: vec![Rival { of: of.clone(), holds: true, why: "it is later".into() }],
            passed_over_more: 2,
            route: Some(of),
            sets: vec![Set {
                name: "web".into(),
                role: "route".into(),
                share: 1.0,
                why: "the only".into(),
                algorithm: "Random".into(),
                backends: vec![Backend {
                    id: "b".into(),
                    address: "10.0.0.1:80".into(),
                    weight: 1,
                    state: "ready".into(),
                    available: true,
                    probability: 1.0 / 3.0,
                    ..Backend::default()
                }],
                ..Set::default()
            }],
            backend: Some(Choice {
                set: "web".into(),
                id: "b".into(),
                address: "10.0.0.1:80".into(),
                ..Choice::default()
            }),
            ..Explanation::default()
        }
    }

    #[test]
    fn the_end_comes_first_and_then_the_way_there() {
        let told =
            Explanation { answer: Answer { detail: "no other\u{1b}[2J".into(), ..told().answer }, ..told() };
        assert_eq!(
            drawn(&told, Paint::Plain),
            "GET http://shop.example/api?a=1 from 192.0.2.1\n\
             backend 10.0.0.1:80 (b) of set web: no other [2J\n\
             \n\
             listener   80 HTTP\n           said\n\
             route      default/shop rule api spec.rules[0].matches[1]\n\
             \x20          *.example, PathPrefix /api\n\
             \x20          query param a as \"[0-9]\" holds\n\
             not        default/shop rule api spec.rules[0].matches[1]: *.example, PathPrefix /api\n\
             \x20            it is later\n\
             \x20          and 2 more matches\n\
             sets       web 100 %, Random: the only\n\
             \x20            33.3 % 10.0.0.1:80 (b), weight 1, ready\n"
        );
    }

    #[test]
    fn colours_say_whether_anything_answers() {
        let good = drawn(&told(), Paint::Colours);
        assert!(good.lines().nth(1).is_some_and(|line| line.starts_with("\x1b[32mbackend")), "{good}");
        let answer = Answer {
            status: Some(404),
            reason: Some("no_route".into()),
            detail: "nothing holds".into(),
            ..Answer::default()
        };
        let bad = drawn(&Explanation { answer, ..Explanation::default() }, Paint::Colours);
        assert_eq!(bad.lines().nth(1), Some("\x1b[31m404 no_route: nothing holds\x1b[0m"));
    }

    #[test]
    fn what_decides_about_a_client_is_named_and_so_is_that_nothing_does() {
        let said = |allow, network: Option<&str>| {
            guards(&Guards {
                ip_rules_allow: allow,
                ip_rules_network: network.map(ToOwned::to_owned),
                ..Guards::default()
            })
        };
        for (allow, network, want) in [
            (true, Some("10.0.0.0/8"), "ipRules let this client in: allow 10.0.0.0/8"),
            (true, None, "ipRules let this client in: no network in deny has it"),
            (false, Some("10.0.0.0/8"), "ipRules keep this client out: deny 10.0.0.0/8"),
            (false, None, "ipRules keep this client out: no network in allow has it"),
        ] {
            assert_eq!(said(Some(allow), network), [want]);
        }
        assert_eq!(said(None, None), [""; 0]);
    }

    #[test]
    fn retries_are_told_as_what_is_asked_about_has_them() {
        let of = |retries_max, statuses: &[u16], scheme| {
            retry(&Retry { retries_max, statuses: statuses.to_vec(), ..Retry::default() }, scheme)
        };
        assert_eq!(of(2, &[502], "https"), "2 times where a backend fails, or answers 502");
        assert_eq!(of(2, &[], "http"), "2 times where a backend fails");
        assert_eq!(of(2, &[], "tls"), "2 times where a backend does not take the connection");
        assert_eq!([of(0, &[], "tcp"), of(0, &[], "http")], ["never", "never"]);
    }

    #[test]
    fn parts_and_times_are_short() {
        assert_eq!([0.0, 0.25, 1.0 / 3.0, 1.0].map(percent), ["0 %", "25 %", "33.3 %", "100 %"]);
        assert_eq!(
            [0, 25, 1_000, 90_000, 120_000, 7_200_000].map(time),
            ["0ms", "25ms", "1s", "90s", "2m", "2h"]
        );
    }
}
