//! The match that a request has, and those that came near.

use super::value::{Asks, Explanation, Listener, Match, Rival};
use crate::message::RequestHead;
use crate::request::Asked;
use crate::snapshot;
use lb_core::route::{Condition, Considered, FieldMatch, Fit, PathMatch, Request as _, ValueMatch};
use std::cmp::Reverse;

/// Matches that are told of beside the one that a request has.
pub(super) const RIVALS_MAX: usize = 8;

/// Hosts that are named where none is right.
const HOSTS_MAX: usize = 20;

pub(super) fn tell(
    told: &mut Explanation,
    listener: &snapshot::Listener,
    head: &RequestHead,
    asked: &Asked<'_>,
) {
    let host = head.host();
    let considered = listener.routes.considered(&host, head.path(), asked);
    let first = considered.iter().position(|one| matches!(one.fit, Fit::Holds));
    let rivals = match first {
        Some(first) => {
            let one = &considered[first];
            told.route = Some(shown(one, asked));
            name_listener(told.listener.as_mut(), one, &host);
            near(&considered, first)
        }
        None => {
            told.answer.detail = nothing(listener, &host, head.path(), &considered);
            nearest(&considered, head.path())
        }
    };
    let winner = first.map(|first| &considered[first]);
    told.passed_over_more = rivals.len().saturating_sub(RIVALS_MAX);
    told.passed_over = rivals.into_iter().take(RIVALS_MAX).map(|one| rival(one, winner, asked)).collect();
}

/// Those before the first that has the right path, and those behind it that would hold too: the closest to it of both.
fn near<'a, 'c>(considered: &'c [Considered<'a>], first: usize) -> Vec<&'c Considered<'a>> {
    let before = considered[..first].iter().filter(|one| matches!(one.fit, Fit::Lacks(_)));
    let before: Vec<_> = before.collect();
    let after = considered[first + 1..].iter().filter(|one| matches!(one.fit, Fit::Holds));
    let after: Vec<_> = after.collect();
    // Half of the room is for each, where both need it.
    let of_before = before.len().min(RIVALS_MAX - after.len().min(RIVALS_MAX / 2));
    let (further, close) = before.split_at(before.len() - of_before);
    close.iter().chain(&after).chain(further).copied().collect()
}

/// Those of the right path first, then those that share most of it.
fn nearest<'a, 'c>(considered: &'c [Considered<'a>], path: &str) -> Vec<&'c Considered<'a>> {
    let shared = |one: &Considered<'_>| {
        let (PathMatch::Exact(own) | PathMatch::Prefix(own)) = &one.path else { return 0 };
        own.split('/').zip(path.split('/')).take_while(|(own, asked)| own == asked).count()
    };
    let mut all: Vec<_> = considered.iter().collect();
    all.sort_by_key(|one| (matches!(one.fit, Fit::OtherPath), Reverse(shared(one))));
    all
}

fn nothing(listener: &snapshot::Listener, host: &str, path: &str, considered: &[Considered<'_>]) -> String {
    if !considered.is_empty() {
        return format!("no match of the hosts that cover {host} holds for {path} and what else is asked");
    }
    let names = listener.routes.hostnames();
    let more = names.len().saturating_sub(HOSTS_MAX);
    let names: Vec<_> = names.iter().take(HOSTS_MAX).map(|name| name.as_deref().unwrap_or("*")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "no listener on port {} is for host {host:?}; hosts there: {}{more}",
        listener.port,
        names.join(", ")
    )
}

fn rival(one: &Considered<'_>, winner: Option<&Considered<'_>>, asked: &Asked<'_>) -> Rival {
    let why = match (one.fit, winner) {
        (Fit::Holds, Some(winner)) => format!("the other goes first: {}", winner.goes_before(one)),
        (Fit::Holds, None) => String::new(),
        (Fit::OtherPath, _) => "it is for other paths".to_owned(),
        (Fit::Lacks(condition), _) => lacks(condition, one, asked),
    };
    Rival { of: shown(one, asked), holds: matches!(one.fit, Fit::Holds), why }
}

/// Values that the client sent are not repeated, save those that the method and the address are.
fn lacks(condition: Condition<'_>, one: &Considered<'_>, asked: &Asked<'_>) -> String {
    let says = |kind: &str, name: &str, value: &ValueMatch, is_there: bool| {
        let wanted = match value {
            ValueMatch::Exact(text) => format!("{text:?}"),
            ValueMatch::Pattern(pattern) => format!("as {:?}", pattern.text()),
        };
        let has = if is_there { "it has another value" } else { "the request has none" };
        format!("it asks for {kind} {name} {wanted}, and {has}")
    };
    match condition {
        Condition::Method(method) => format!("it asks for method {method}, and this is {}", asked.method()),
        Condition::Header(FieldMatch { name, value }) => {
            says("header", name.as_str(), value, asked.headers().contains_key(name))
        }
        Condition::Query(FieldMatch { name, value }) => {
            let found = asked.query().and_then(|query| lb_core::route::parameter(query, name));
            says("query parameter", name, value, found.is_some())
        }
        Condition::Cookie(FieldMatch { name, value }) => {
            says("cookie", name, value, asked.cookie(name).is_some())
        }
        Condition::Source(_) => {
            format!("it is for clients of other networks than that of {}", asked.source(&one.route.pool))
        }
    }
}

fn shown(one: &Considered<'_>, asked: &Asked<'_>) -> Match {
    let (kind, path) = match &one.path {
        PathMatch::Exact(path) => ("Exact", path),
        PathMatch::Prefix(path) => ("PathPrefix", path),
        PathMatch::Pattern(pattern) => ("RegularExpression", pattern.text()),
    };
    let conditions = one.conditions.into_iter().flat_map(lb_core::route::Conditions::each);
    let conditions = conditions.map(|condition| {
        let holds = condition.holds(asked, &one.route.pool);
        Asks { holds, ..asks(condition) }
    });
    let rule = one.route.rule;
    let at = one.position();
    let in_rule = at.filter(|_| is_written(one)).map(|at| format!(".matches[{at}]")).unwrap_or_default();
    Match {
        pool: one.route.pool.to_string(),
        rule: Some(one.route.written.name.to_string()).filter(|name| !name.is_empty()),
        rule_index: rule,
        match_index: at.filter(|_| is_written(one)),
        field: format!("spec.rules[{rule}]{in_rule}"),
        hostname: one.hostname.as_ref().map(ToString::to_string),
        path_type: kind.to_owned(),
        path: path.to_string(),
        conditions: conditions.collect(),
    }
}

/// A rule without matches has one for every path, which nobody has written.
fn is_written(one: &Considered<'_>) -> bool {
    let written = &one.route.written.matches;
    let is_every = |path: &PathMatch| matches!(path, PathMatch::Prefix(path) if **path == *"/");
    !(written.len() == 1 && is_every(&written[0].path) && written[0].conditions.is_none())
}

fn asks(condition: Condition<'_>) -> Asks {
    let field = |of: &str, name: &str, value: &ValueMatch| {
        let (text, is_expression) = match value {
            ValueMatch::Exact(text) => (text, false),
            ValueMatch::Pattern(pattern) => (pattern.text(), true),
        };
        let (name, value) = (Some(name.to_owned()), Some(text.to_string()));
        Asks { of: of.to_owned(), name, value, is_expression, holds: false }
    };
    match condition {
        Condition::Method(method) => {
            Asks { of: "method".to_owned(), value: Some(method.to_string()), ..Asks::default() }
        }
        Condition::Header(FieldMatch { name, value }) => field("header", name.as_str(), value),
        Condition::Query(FieldMatch { name, value }) => field("query_param", name, value),
        Condition::Cookie(FieldMatch { name, value }) => field("cookie", name, value),
        Condition::Source(_) => Asks { of: "source".to_owned(), ..Asks::default() },
    }
}

/// The listener of the route's pool that this is, by its port and hosts.
fn name_listener(told: Option<&mut Listener>, one: &Considered<'_>, host: &str) {
    let Some(told) = told else { return };
    let covers = |own: &String| match own.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => own == host,
    };
    let own = one.route.written.listeners.iter().enumerate().find(|(_, own)| {
        own.port == told.port && (own.hostnames.is_empty() || own.hostnames.iter().any(covers))
    });
    told.pool = Some(one.route.pool.to_string());
    if let Some((at, own)) = own {
        told.name = Some(own.name.to_string());
        told.field = Some(format!("spec.listeners[{at}]"));
    }
}
