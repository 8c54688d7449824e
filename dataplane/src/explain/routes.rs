//! The match that a request has, and those that came near.

use super::value::{Asks, Explanation, Listener, Match, Rival};
use crate::layer4::PATH;
use crate::snapshot::{self, Protocol};
use lb_core::route::{Condition, Considered, FieldMatch, Fit, PathMatch, Request, ValueMatch};
use std::cmp::Reverse;

/// Matches that are told of beside the one that a request has.
pub(super) const RIVALS_MAX: usize = 8;

/// Hosts that are named where none is right.
const HOSTS_MAX: usize = 20;

/// What a route is looked for by.
pub(super) struct Looked<'a, R> {
    /// In lower case; empty where the client names none.
    pub(super) host: &'a str,
    /// `None` at layer 4.
    pub(super) path: Option<&'a str>,
    pub(super) request: &'a R,
}

pub(super) fn tell<R: Request>(
    told: &mut Explanation,
    listener: &snapshot::Listener,
    looked: &Looked<'_, R>,
) {
    let path = looked.path.unwrap_or(PATH);
    let considered = listener.routes.considered(looked.host, path, looked.request);
    let first = considered.iter().position(|one| matches!(one.fit, Fit::Holds));
    let rivals = match first {
        Some(first) => {
            let one = &considered[first];
            told.route = Some(shown(one, looked));
            name_listener(told.listener.as_mut(), listener, one);
            near(&considered, first)
        }
        None => {
            told.answer.detail = nothing(listener, looked, &considered);
            nearest(&considered, path)
        }
    };
    let winner = first.map(|first| &considered[first]);
    told.passed_over_more = rivals.len().saturating_sub(RIVALS_MAX);
    told.passed_over = rivals.into_iter().take(RIVALS_MAX).map(|one| rival(one, winner, looked)).collect();
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

fn nothing<R>(
    listener: &snapshot::Listener,
    looked: &Looked<'_, R>,
    considered: &[Considered<'_>],
) -> String {
    let (host, port) = (looked.host, listener.port);
    if let (Some(path), [_, ..]) = (looked.path, considered) {
        return format!("no match of the hosts that cover {host} holds for {path} and what else is asked");
    }
    let names = listener.routes.hostnames();
    if names.is_empty() {
        return format!("no rule serves port {port}");
    }
    let more = names.len().saturating_sub(HOSTS_MAX);
    let names: Vec<_> = names.iter().take(HOSTS_MAX).map(|name| name.as_deref().unwrap_or("*")).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names.join(", ");
    match looked.path {
        Some(_) => format!("no listener on port {port} is for host {host:?}; hosts there: {names}{more}"),
        None if host.is_empty() => {
            format!(
                "the client asks for no name, and no rule on port {port} is for every name; names there: {names}{more}"
            )
        }
        None => format!("no rule on port {port} is for the name {host}; names there: {names}{more}"),
    }
}

fn rival<R: Request>(one: &Considered<'_>, winner: Option<&Considered<'_>>, looked: &Looked<'_, R>) -> Rival {
    let why = match (one.fit, winner) {
        (Fit::Holds, Some(winner)) => format!("the other goes first: {}", winner.goes_before(one)),
        (Fit::Holds, None) => String::new(),
        (Fit::OtherPath, _) => "it is for other paths".to_owned(),
        (Fit::Lacks(condition), _) => lacks(condition, one, looked.request),
    };
    Rival { of: shown(one, looked), holds: matches!(one.fit, Fit::Holds), why }
}

/// Values that the client sent are not repeated, save those that the method and the address are.
fn lacks(condition: Condition<'_>, one: &Considered<'_>, asked: &impl Request) -> String {
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

fn shown<R: Request>(one: &Considered<'_>, looked: &Looked<'_, R>) -> Match {
    let asked = looked.request;
    let (kind, path) = match &one.path {
        _ if looked.path.is_none() => ("", ""),
        PathMatch::Exact(path) => ("Exact", &**path),
        PathMatch::Prefix(path) => ("PathPrefix", &**path),
        PathMatch::Pattern(pattern) => ("RegularExpression", &**pattern.text()),
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
        why: None,
        path_type: kind.to_owned(),
        path: path.to_owned(),
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

/// The listener of the route's pool that this is: a pool has one on a port.
fn name_listener(told: Option<&mut Listener>, listener: &snapshot::Listener, one: &Considered<'_>) {
    let Some(told) = told else { return };
    let door = (listener.port, matches!(listener.protocol, Protocol::Udp));
    let mut written = one.route.written.listeners.iter().enumerate();
    told.pool = Some(one.route.pool.to_string());
    if let Some((at, own)) = written.find(|(_, own)| (own.port, own.is_of_datagrams) == door) {
        told.name = Some(own.name.to_string());
        told.field = Some(format!("spec.listeners[{at}]"));
    }
}
