//! What a rule asks of a request, from the specification to the wire.

use super::check::{Check, quoted};
use super::policy::networks;
use std::collections::BTreeSet;
use weir_crds::pool as spec;
use weir_proto::limits::PATTERNS_PER_POOL_MAX;
use weir_proto::{pattern, push};

/// Matches of all rules of a pool. Each expression is compiled once, as every proxy will do it.
#[derive(Default)]
pub(super) struct Matches<'a> {
    right: BTreeSet<&'a str>,
    patterns: usize,
}

impl<'a> Matches<'a> {
    /// Those of one rule.
    pub(super) fn of_rule(
        &mut self,
        field: &str,
        rule: &'a spec::Rule,
        check: &mut Check,
    ) -> Vec<push::PathMatch> {
        check.count(field, &rule.matches, (0, spec::MATCHES_MAX));
        let matches = rule.matches.iter().enumerate();
        matches.map(|(index, own)| self.one(&format!("{field}[{index}]"), own, check)).collect()
    }

    /// Refuses more expressions than a proxy takes of one pool.
    pub(super) fn check_patterns(&self, check: &mut Check) {
        if self.patterns > PATTERNS_PER_POOL_MAX {
            let rule = format!(
                "are too many in the matches of one pool: use at most {PATTERNS_PER_POOL_MAX}, by exact values and \
                 prefixes where they will do"
            );
            check.refuse("spec.rules", format!("{} values of type RegularExpression", self.patterns), rule);
        }
    }

    fn one(&mut self, field: &str, own: &'a spec::RouteMatch, check: &mut Check) -> push::PathMatch {
        let (kind, value) = match &own.path {
            None => (push::PathMatchKind::Prefix, "/"),
            Some(path) => (self.path(&format!("{field}.path.value"), path, check), path.value.as_str()),
        };
        if let Some(method) = &own.method {
            self::method(&format!("{field}.method"), method, check);
        }
        let mut fields = |name: &str, list: &'a [spec::FieldMatch], names| {
            self.fields(&format!("{field}.{name}"), list, names, check)
        };
        let conditions = push::Conditions {
            method: own.method.clone().unwrap_or_default(),
            headers: fields("headers", &own.headers, Names::OfHeaders),
            query: fields("queryParams", &own.query_params, Names::AsTheyAre),
            cookies: fields("cookies", &own.cookies, Names::AsTheyAre),
            source_networks: networks(
                &format!("{field}.sourceIPs"),
                &own.source_ips,
                spec::MATCH_SOURCES_MAX,
                check,
            ),
        };
        let conditions = (conditions != push::Conditions::default()).then_some(conditions);
        push::PathMatch { kind: kind.into(), value: value.to_owned(), conditions }
    }

    fn path(&mut self, field: &str, path: &'a spec::PathMatch, check: &mut Check) -> push::PathMatchKind {
        match path.kind {
            spec::PathMatchType::PathPrefix => {
                check.path(field, &path.value);
                push::PathMatchKind::Prefix
            }
            spec::PathMatchType::Exact => {
                check.path(field, &path.value);
                push::PathMatchKind::Exact
            }
            spec::PathMatchType::RegularExpression => {
                self.pattern(field, &path.value, check);
                push::PathMatchKind::Regex
            }
        }
    }

    fn fields(
        &mut self,
        field: &str,
        list: &'a [spec::FieldMatch],
        names: Names,
        check: &mut Check,
    ) -> Vec<push::FieldMatch> {
        check.count(field, list, (0, spec::MATCH_FIELDS_MAX));
        let (mut seen, mut compiled) = (BTreeSet::new(), Vec::new());
        for (index, spec::FieldMatch { kind, name, value }) in list.iter().enumerate() {
            let field = format!("{field}[{index}]");
            check.token(&format!("{field}.name"), name, spec::FIELD_BYTES_MAX);
            let name = match names {
                Names::OfHeaders => name.to_ascii_lowercase(),
                Names::AsTheyAre => name.clone(),
            };
            check.unique(&mut seen, name.clone(), format!("{field}.name"), quoted(&name));
            let at = format!("{field}.value");
            let value = match kind {
                spec::FieldMatchType::Exact => {
                    check.header_text(&at, value, spec::PATH_BYTES_MAX);
                    push::field_match::Value::Exact(value.clone())
                }
                spec::FieldMatchType::RegularExpression => {
                    self.pattern(&at, value, check);
                    push::field_match::Value::Regex(value.clone())
                }
            };
            compiled.push(push::FieldMatch { name, value: Some(value) });
        }
        compiled
    }

    fn pattern(&mut self, field: &str, text: &'a str, check: &mut Check) {
        self.patterns += 1;
        // What is past their number is refused for that, and not compiled first.
        if self.patterns > PATTERNS_PER_POOL_MAX || self.right.contains(text) {
            return;
        }
        match pattern::compile(text) {
            Ok(_) => drop(self.right.insert(text)),
            Err(error) => check.refuse(field, quoted(text), error.to_string()),
        }
    }
}

/// How names are compared.
#[derive(Clone, Copy)]
enum Names {
    /// In lower case.
    OfHeaders,
    AsTheyAre,
}

/// A method as clients send it.
pub(super) fn method(field: &str, method: &str, check: &mut Check) {
    check.token(field, method, spec::METHOD_BYTES_MAX);
    if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let rule =
            "has small letters: methods are compared as they are, and all that there are have capital ones";
        check.refuse(field, quoted(method), rule);
    }
}
