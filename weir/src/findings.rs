//! What is wrong with manifests, as one list for people and machines.

use serde::Serialize;
use std::fmt;
use weir_controller::compile::{Rejection, World};
use weir_controller::manifest::{Place, Problem};
use weir_controller::source::Loaded;

/// What a finding means for what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is not served as written.
    Problem,
    /// Everything is served, and something that it points to is missing.
    Warning,
}

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it means.
    #[serde(skip)]
    pub severity: Severity,
    /// As the user named it, or below the folder that the user named; empty where the object was not written.
    pub file: String,
    /// From 1; 0 for the file as a whole.
    pub line: u64,
    /// From 1, in characters; 0 for the file as a whole.
    pub column: u64,
    /// Like `spec.listeners[0].port`; empty for the document as a whole.
    pub field: String,
    /// What is there, the rule and what to do.
    pub message: String,
    /// `namespace/name` of the `LoadBalancerPool`, where the document could be read.
    pub pool: Option<String>,
}

impl Finding {
    /// Something about a whole file or folder.
    #[must_use]
    pub fn of_file(severity: Severity, file: String, message: String) -> Self {
        Self { severity, file, line: 0, column: 0, field: String::new(), message, pool: None }
    }

    fn of_problem(problem: &Problem) -> Self {
        let Problem { place, field, sentence } = problem;
        Self::new(Severity::Problem, Some(place), field, sentence.clone())
    }

    fn of_pool(severity: Severity, place: Option<&Place>, rejection: &Rejection) -> Self {
        let Rejection { pool, field, value, rule, .. } = rejection;
        let message = if value.is_empty() { rule.clone() } else { format!("{value} {rule}") };
        Self { pool: Some(pool.to_string()), ..Self::new(severity, place, field, message) }
    }

    fn new(severity: Severity, place: Option<&Place>, field: &str, message: String) -> Self {
        Self {
            severity,
            file: place.map_or_else(String::new, |place| place.file.to_string()),
            line: place.map_or(0, |place| place.line),
            column: place.map_or(0, |place| place.column),
            field: field.to_owned(),
            message,
            pool: None,
        }
    }
}

/// Everything that is wrong with what was read and with what it compiled to, by file and line.
#[must_use]
pub fn all(loaded: &Loaded, world: &World) -> Vec<Finding> {
    let placed = |severity, rejection: &Rejection| {
        Finding::of_pool(severity, loaded.place_of(rejection).as_ref(), rejection)
    };
    let mut all: Vec<Finding> = loaded.problems.iter().map(Finding::of_problem).collect();
    all.extend(world.rejections.values().flatten().map(|rejection| placed(Severity::Problem, rejection)));
    all.extend(world.warnings().map(|warning| placed(Severity::Warning, warning)));
    all.sort_by(|a, b| (&a.file, a.line, a.column, a).cmp(&(&b.file, b.line, b.column, b)));
    all
}

impl fmt::Display for Finding {
    /// `file:line:column: field: sentence`, each part only where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, line, column, field, message, pool } = self;
        if !file.is_empty() {
            write!(f, "{file}")?;
            if *line > 0 {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if *severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)?;
        match pool {
            Some(pool) => write!(f, " (LoadBalancerPool {pool})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_place_field_sentence_and_leaves_out_what_it_lacks() {
        let mut finding = Finding {
            severity: Severity::Problem,
            file: "pool.yaml".into(),
            line: 7,
            column: 13,
            field: "spec.listeners[0].port".into(),
            message: "70000 is not a port".into(),
            pool: Some("default/shop".into()),
        };
        assert_eq!(
            finding.to_string(),
            "pool.yaml:7:13: spec.listeners[0].port: 70000 is not a port (LoadBalancerPool default/shop)"
        );
        finding.severity = Severity::Warning;
        finding.pool = None;
        assert_eq!(
            finding.to_string(),
            "pool.yaml:7:13: warning: spec.listeners[0].port: 70000 is not a port"
        );
        let whole = Finding::of_file(Severity::Problem, "pool.yaml".into(), "is too large".into());
        assert_eq!(whole.to_string(), "pool.yaml: is too large");
    }
}
