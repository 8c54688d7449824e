//! The page of the metrics, made of what the programs expose.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use weir_controller::store::Store;
use weir_metrics::Format;

const BEGIN: &str = "<!-- metrics:begin, as `cargo test --workspace --lib reference` makes it -->\n";
const END: &str = "<!-- metrics:end -->\n";

/// A row for each metric of an exposition in text.
fn table(text: &str) -> String {
    let mut rows = String::from("| metric | type | labels | |\n|---|---|---|---|\n");
    let labels = labels(text);
    let mut help = "";
    for line in text.lines() {
        if let Some((_, said)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = said;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let told = labels.get(name).into_iter().flatten().map(|(label, values)| match values.len() {
                0..=12 => format!("`{label}`: {}", values.iter().copied().collect::<Vec<_>>().join(", ")),
                more => format!("`{label}`: {more} values"),
            });
            let told = told.collect::<Vec<_>>().join("; ");
            writeln!(rows, "| `{name}` | {kind} | {told} | {help} |").expect("strings grow");
        }
    }
    rows
}

/// By family, the labels of its samples with their values; not the bounds of buckets.
fn labels(text: &str) -> BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> {
    let mut found: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let of = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| name.strip_suffix(part));
        let all = rest.split('}').next().unwrap_or_default();
        for (label, value) in all.split(',').filter_map(|one| one.split_once('=')) {
            if label != "le" {
                let values = found.entry(of.unwrap_or(name)).or_default().entry(label).or_default();
                values.insert(value.trim_matches('"'));
            }
        }
    }
    found
}

/// What a proxy and a controller expose.
fn exposed() -> [String; 2] {
    let proxy = weir_proxy::metrics::Metrics::of_nothing();
    let controller = weir_controller::metrics::Metrics::new(Store::new(1), Arc::default());
    [proxy.text(Format::Text).expect("encodes"), controller.text(Format::Text).expect("encodes")]
}

#[test]
fn the_reference_of_metrics_is_what_the_programs_expose() {
    let [proxy, controller] = exposed().map(|text| table(&text));
    let page = read("docs/metrics.md");
    let (before, rest) = page.split_once(BEGIN).expect("where the tables begin");
    let (_, after) = rest.split_once(END).expect("where they end");
    let made = format!(
        "{before}{BEGIN}\n## Of a proxy\n\n{proxy}\n## Of a controller\n\n{controller}\n{END}{after}"
    );
    if page != made {
        let written = std::env::temp_dir().join("metrics.md");
        std::fs::write(&written, &made).expect("a folder for temporary files");
        panic!(
            "docs/metrics.md is not what the programs expose: look at {}, and move it there",
            written.display()
        );
    }
}

#[test]
fn every_metric_that_rules_and_dashboards_ask_for_is_there() {
    let exposed = exposed().concat();
    let families: BTreeSet<_> = exposed
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .flat_map(|(name, kind)| {
            let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            parts.iter().map(move |part| format!("{name}{part}"))
        })
        .collect();
    let mut asked = 0;
    let dashboard = "deploy/monitoring/grafana-dashboard.json";
    for file in ["deploy/monitoring/prometheusrule.yaml", "docs/metrics.md", dashboard] {
        let text = read(file);
        let text = text.split(BEGIN).next().unwrap_or_default();
        for line in text.lines().filter(|line| line.contains('(') || line.contains("expr")) {
            for name in
                line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| is_ours(word))
            {
                let is_there = families.contains(name) || families.contains(&format!("{name}_bucket"));
                assert!(is_there, "{file} asks for {name}, which nothing exposes");
                asked += 1;
            }
        }
    }
    assert!(asked > 60, "only {asked} names were found");
}

fn is_ours(word: &str) -> bool {
    ["weir_", "http_re", "process_"].iter().any(|prefix| word.starts_with(prefix))
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}
