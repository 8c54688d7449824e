//! Pods by their labels.

use super::check::{Check, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use weir_crds::pool::{self as spec, LabelOperator};

/// Which pods are meant. Two that mean the same in other words or another order of them are equal, as far as that can be
/// told without looking at pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Of the pods.
    pub namespace: String,
    /// All of them hold; never empty.
    requirements: BTreeSet<Requirement>,
}

/// What holds of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Requirement {
    /// It has one of these values; never none.
    In(String, BTreeSet<String>),
    /// It has none of these values, or is not there.
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// Reads a selector; `None` where something of it is wrong.
    pub(super) fn read(
        namespace: &str,
        field: &str,
        selector: &spec::EndpointSelector,
        check: &mut Check,
    ) -> Option<Self> {
        let before = check.refused();
        check.labels(&format!("{field}.matchLabels"), &selector.match_labels, spec::SELECTOR_LABELS_MAX);
        let expressions = format!("{field}.matchExpressions");
        check.count(&expressions, &selector.match_expressions, (0, spec::SELECTOR_EXPRESSIONS_MAX));
        if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
            let rule =
                "is empty, and would take every pod of the namespace: write matchLabels or matchExpressions";
            check.refuse(field, "", rule);
        }
        for (index, expression) in selector.match_expressions.iter().enumerate() {
            check_expression(&format!("{expressions}[{index}]"), expression, check);
        }
        (check.refused() == before).then(|| Self::of(namespace, selector))
    }

    /// What a selector means that is right.
    pub(super) fn of(namespace: &str, selector: &spec::EndpointSelector) -> Self {
        let labels = selector.match_labels.iter();
        let labels = labels.map(|(name, value)| Requirement::In(name.clone(), [value.clone()].into()));
        let expressions = selector.match_expressions.iter().map(|expression| {
            let (key, values) = (expression.key.clone(), expression.values.iter().cloned().collect());
            match expression.operator {
                LabelOperator::In => Requirement::In(key, values),
                LabelOperator::NotIn => Requirement::NotIn(key, values),
                LabelOperator::Exists => Requirement::Exists(key),
                LabelOperator::DoesNotExist => Requirement::DoesNotExist(key),
            }
        });
        Self { namespace: namespace.to_owned(), requirements: labels.chain(expressions).collect() }
    }

    /// Whether a pod of this namespace with these labels is meant.
    #[must_use]
    pub fn takes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespace == namespace && self.requirements.iter().all(|requirement| requirement.holds(labels))
    }

    /// As a query to the API server says it.
    #[must_use]
    pub fn query(&self) -> String {
        self.requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

fn check_expression(field: &str, expression: &spec::LabelExpression, check: &mut Check) {
    let spec::LabelExpression { key, operator, values } = expression;
    check.label_name(&format!("{field}.key"), key);
    let field = format!("{field}.values");
    let is_compared = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
    match (is_compared, values.is_empty()) {
        (true, true) => {
            check.refuse(field.as_str(), "", "is empty: operators In and NotIn need values");
        }
        (false, false) => {
            let rule = "are not for operators Exists and DoesNotExist: remove them or use In or NotIn";
            check.refuse(field.as_str(), format!("{} values", values.len()), rule);
        }
        _ => {}
    }
    check.count(&field, values, (0, spec::SELECTOR_VALUES_MAX));
    for (index, value) in values.iter().enumerate() {
        check.label_value(&format!("{field}[{index}]"), value);
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(name, values) => labels.get(name).is_some_and(|value| values.contains(value)),
            Self::NotIn(name, values) => labels.get(name).is_none_or(|value| !values.contains(value)),
            Self::Exists(name) => labels.contains_key(name),
            Self::DoesNotExist(name) => !labels.contains_key(name),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match self {
            // A value may be empty, which the form with brackets cannot say of one value alone.
            Self::In(name, values) if values.len() == 1 => write!(f, "{name}={}", joined(values)),
            Self::NotIn(name, values) if values.len() == 1 => write!(f, "{name}!={}", joined(values)),
            Self::In(name, values) => write!(f, "{name} in ({})", joined(values)),
            Self::NotIn(name, values) => write!(f, "{name} notin ({})", joined(values)),
            Self::Exists(name) => f.write_str(name),
            Self::DoesNotExist(name) => write!(f, "!{name}"),
        }
    }
}

impl fmt::Display for Selector {
    /// For people and logs: no longer than a sentence can bear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of namespace {}", quoted(&self.query()), self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::ObjectKey;
    use serde_json::{Value, json};

    fn read(selector: Value) -> Result<Selector, Vec<String>> {
        let mut selector = selector;
        selector["port"] = json!(80);
        let selector = serde_json::from_value(selector).expect("a selector");
        let mut check = Check::new(ObjectKey::new("ns", "p"));
        let read = Selector::read("ns", "s", &selector, &mut check);
        let refused = check.finish(());
        match (read, refused) {
            (Some(read), Ok(())) => Ok(read),
            (None, Err(refused)) => Err(refused.iter().map(ToString::to_string).collect()),
            (read, refused) => panic!("{read:?} {refused:?}"),
        }
    }

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })
    }

    #[test]
    fn labels_are_compared_as_kubernetes_does() {
        let (web, api, empty, none) = ([("app", "web")], [("app", "api")], [("app", "")], []);
        let cases: &[(Value, &str, [bool; 4])] = &[
            (json!({ "matchLabels": { "app": "web" } }), "app=web", [true, false, false, false]),
            (json!({ "matchLabels": { "app": "" } }), "app=", [false, false, true, false]),
            (expression("app", "In", &["web"]), "app=web", [true, false, false, false]),
            (expression("app", "In", &["web", "api"]), "app in (api,web)", [true, true, false, false]),
            (expression("app", "In", &["web", ""]), "app in (,web)", [true, false, true, false]),
            (expression("app", "NotIn", &["web"]), "app!=web", [false, true, true, true]),
            (expression("app", "NotIn", &["web", "api"]), "app notin (api,web)", [false, false, true, true]),
            (expression("app", "Exists", &[]), "app", [true, true, true, false]),
            (expression("app", "DoesNotExist", &[]), "!app", [false, false, false, true]),
        ];
        for (selector, query, expected) in cases {
            let selector = read(selector.clone()).expect("it is right");
            assert_eq!(selector.query(), *query);
            let taken = [&web[..], &api, &empty, &none].map(|has| selector.takes("ns", &labels(has)));
            assert_eq!(taken, *expected, "{query}");
            assert!(!selector.takes("other", &labels(&web)), "of another namespace");
        }
    }

    #[test]
    fn all_of_it_has_to_hold_and_its_order_says_nothing() {
        let selector = |first: &str, second: &str| {
            json!({
                "matchLabels": { "app": "web" },
                "matchExpressions": [
                    { "key": first, "operator": "Exists" }, { "key": second, "operator": "Exists" },
                ],
            })
        };
        let (one, other) =
            (read(selector("a", "b")).expect("right"), read(selector("b", "a")).expect("right"));
        assert_eq!(one, other);
        assert_eq!(one.query(), "app=web,a,b");
        for (has, expected) in [
            (&[("app", "web"), ("a", "1"), ("b", "")][..], true),
            (&[("app", "web"), ("a", "1")], false),
            (&[("a", "1"), ("b", "1")], false),
        ] {
            assert_eq!(one.takes("ns", &labels(has)), expected, "{has:?}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_field() {
        let many = |count: usize| -> Value {
            let labels: BTreeMap<_, _> = (0..count).map(|n| (format!("l{n}"), "x")).collect();
            json!({ "matchLabels": labels })
        };
        let exists = |count: usize| -> Value {
            let of = |n: usize| json!({ "key": format!("l{n}"), "operator": "Exists" });
            json!({ "matchExpressions": (0..count).map(of).collect::<Vec<_>>() })
        };
        let values = |count: usize| {
            let values: Vec<_> = (0..count).map(|n| format!("v{n}")).collect();
            expression("app", "In", &values.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for right in [
            many(spec::SELECTOR_LABELS_MAX),
            exists(spec::SELECTOR_EXPRESSIONS_MAX),
            values(spec::SELECTOR_VALUES_MAX),
        ] {
            assert!(read(right).is_ok());
        }
        for (selector, sentence) in [
            (json!({}), "ns/p: s: is empty, and would take every pod"),
            (
                json!({ "matchLabels": {}, "matchExpressions": [] }),
                "ns/p: s: is empty, and would take every pod",
            ),
            (many(spec::SELECTOR_LABELS_MAX + 1), "s.matchLabels: 17 entries are too many"),
            (exists(spec::SELECTOR_EXPRESSIONS_MAX + 1), "s.matchExpressions: 9 entries are too many"),
            (values(spec::SELECTOR_VALUES_MAX + 1), "s.matchExpressions[0].values: 17 entries are too many"),
            (json!({ "matchLabels": { "a b": "x" } }), "s.matchLabels: \"a b\" is not the name of a label"),
            (json!({ "matchLabels": { "a": "x,b=c" } }), "s.matchLabels.a: \"x,b=c\" is not the value"),
            (expression("a,b", "Exists", &[]), "s.matchExpressions[0].key: \"a,b\" is not the name"),
            (expression("a", "In", &["x)"]), "s.matchExpressions[0].values[0]: \"x)\" is not the value"),
            (expression("a", "In", &[]), "s.matchExpressions[0].values: is empty"),
            (expression("a", "NotIn", &[]), "s.matchExpressions[0].values: is empty"),
            (expression("a", "Exists", &["x"]), "s.matchExpressions[0].values: 1 values are not for"),
            (expression("a", "DoesNotExist", &["x"]), "s.matchExpressions[0].values: 1 values are not for"),
        ] {
            let refused = read(selector).expect_err(sentence);
            assert!(refused.len() == 1 && refused[0].contains(sentence), "{refused:?}: {sentence}");
        }
    }
}
