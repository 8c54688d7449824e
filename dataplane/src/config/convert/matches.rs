//! What a rule asks of a request, from the wire.

use super::{Rejection, header_text, token, traffic};
use http::{HeaderName, Method};
use lb_core::addresses::IpTable;
use lb_core::path::{self, DoubleSlashes, EncodedSlashes, PathPolicy};
use lb_core::route::{Conditions, FieldMatch, PathMatch, Pattern, RouteMatch, ValueMatch};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_proto::limits::{MATCH_FIELDS_MAX, MATCH_SOURCES_MAX, PATTERN_BYTES_MAX, PATTERNS_PER_POOL_MAX};
use weir_proto::push::field_match::Value;
use weir_proto::{pattern, push};

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;

/// Those of a pool's rules. Each expression is compiled once.
#[derive(Debug, Default)]
pub(super) struct MatchesRead<'a> {
    patterns: BTreeMap<&'a str, Arc<Pattern>>,
    count: usize,
}

impl<'a> MatchesRead<'a> {
    /// Without any, those of every path.
    pub(super) fn read(
        &mut self,
        at: &str,
        wire: &'a [push::PathMatch],
    ) -> Result<Vec<RouteMatch>, Rejection> {
        if wire.is_empty() {
            return Ok(vec![RouteMatch::by_path(PathMatch::Prefix("/".into()))]);
        }
        let matches = wire.iter().enumerate();
        matches.map(|(nth, wire)| self.one(&format!("{at}.matches[{nth}]"), wire)).collect()
    }

    fn one(&mut self, field: &str, wire: &'a push::PathMatch) -> Result<RouteMatch, Rejection> {
        let at = format!("{field}.path.value");
        let path = match wire.kind() {
            push::PathMatchKind::Prefix => PathMatch::Prefix(literal(&at, &wire.value)?),
            push::PathMatchKind::Exact => PathMatch::Exact(literal(&at, &wire.value)?),
            push::PathMatchKind::Regex => PathMatch::Pattern(self.pattern(&at, &wire.value)?),
            push::PathMatchKind::Unspecified => {
                let reason =
                    format!("path match {} is not known to this proxy: upgrade the proxies", wire.kind);
                return Err(Rejection::new(format!("{field}.path.type"), reason));
            }
        };
        let conditions = wire.conditions.as_ref().map(|wire| self.conditions(field, wire));
        Ok(RouteMatch { path, conditions: conditions.transpose()?.map(Arc::new) })
    }

    fn conditions(&mut self, field: &str, wire: &'a push::Conditions) -> Result<Conditions, Rejection> {
        let method = match wire.method.as_str() {
            "" => None,
            text => Some(method(&format!("{field}.method"), text)?),
        };
        let headers = self.fields(&format!("{field}.headers"), &wire.headers, |field, name| {
            let name = token(field, ".name", &name.to_ascii_lowercase(), NAME_BYTES_MAX)?;
            Ok(HeaderName::from_bytes(name.as_bytes()).expect("a token is a name"))
        })?;
        let name = |field: &str, name: &str| token(field, ".name", name, NAME_BYTES_MAX);
        let query = self.fields(&format!("{field}.queryParams"), &wire.query, name)?;
        let cookies = self.fields(&format!("{field}.cookies"), &wire.cookies, name)?;
        let at = format!("{field}.sourceIPs");
        let networks = traffic::networks(&at, &wire.source_networks, MATCH_SOURCES_MAX)?;
        let table = || Arc::new(IpTable::new(networks.iter().map(|network| (*network, ()))));
        let sources = (!networks.is_empty()).then(table);
        Ok(Conditions { method, headers, query, cookies, sources })
    }

    fn fields<N: PartialEq + Clone>(
        &mut self,
        field: &str,
        wire: &'a [push::FieldMatch],
        name: impl Fn(&str, &str) -> Result<N, Rejection>,
    ) -> Result<Vec<FieldMatch<N>>, Rejection> {
        if wire.len() > MATCH_FIELDS_MAX {
            let reason = format!("{} are too many: use at most {MATCH_FIELDS_MAX}", wire.len());
            return Err(Rejection::new(field, reason));
        }
        let mut names = BTreeSet::new();
        let mut fields = Vec::with_capacity(wire.len());
        for (nth, wire) in wire.iter().enumerate() {
            let field = format!("{field}[{nth}]");
            if !names.insert(&wire.name) {
                let reason = format!("{:?} is asked for twice: ask for it once", wire.name);
                return Err(Rejection::new(format!("{field}.name"), reason));
            }
            let value = match &wire.value {
                Some(Value::Exact(text)) => {
                    ValueMatch::Exact(header_text(&field, ".value", text, PATTERN_BYTES_MAX)?)
                }
                Some(Value::Regex(text)) => {
                    ValueMatch::Pattern(self.pattern(&format!("{field}.value"), text)?)
                }
                None => {
                    let reason = "the kind of match is not known to this proxy: upgrade the proxies";
                    return Err(Rejection::new(format!("{field}.type"), reason));
                }
            };
            fields.push(FieldMatch { name: name(&field, &wire.name)?, value });
        }
        Ok(fields)
    }

    fn pattern(&mut self, field: &str, text: &'a str) -> Result<Arc<Pattern>, Rejection> {
        self.count += 1;
        if self.count > PATTERNS_PER_POOL_MAX {
            let reason = format!("the pool has more than {PATTERNS_PER_POOL_MAX} expressions: use fewer");
            return Err(Rejection::new(field, reason));
        }
        if let Some(known) = self.patterns.get(text) {
            return Ok(Arc::clone(known));
        }
        let table =
            pattern::compile(text).map_err(|error| Rejection::new(field, format!("{text:?} {error}")))?;
        let made = Arc::new(Pattern::new(text.into(), table));
        self.patterns.insert(text, Arc::clone(&made));
        Ok(made)
    }
}

/// A method of HTTP.
pub(super) fn method(field: &str, text: &str) -> Result<Method, Rejection> {
    Method::from_bytes(text.as_bytes()).map_err(|_| {
        let reason = format!("{text:?} is not a method: write it as clients send it, like GET");
        Rejection::new(field, reason)
    })
}

fn literal(field: &str, text: &str) -> Result<Arc<str>, Rejection> {
    if !text.starts_with('/') {
        let reason = format!("path {text:?} does not begin with a slash: write it as clients send it");
        return Err(Rejection::new(field, reason));
    }
    Ok(in_one_form(text).into())
}

/// As paths of requests are written when they are compared with it. What no request can have stays as it is.
pub(super) fn in_one_form(path: &str) -> Cow<'_, str> {
    let policy = PathPolicy {
        double_slashes: DoubleSlashes::Keep,
        encoded_slashes: EncodedSlashes::Keep,
        ..PathPolicy::default()
    };
    path::normalize(path, policy).unwrap_or(Cow::Borrowed(path))
}
