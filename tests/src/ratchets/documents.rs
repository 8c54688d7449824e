//! Documents and configuration that must agree with what is there.

use super::{Repository, hold};

/// Clippy reads the nearest file only; these repeat what the first says.
const CLIPPY_FILES: &[&str] = &["clippy.toml", "dataplane/lb-core/clippy.toml", "tests/clippy.toml"];
/// Rules of the workspace that a crate's own file leaves out on purpose.
const CLIPPY_EXCEPTIONS: &[&str] = &[
    // Tests and their harness wait from plain threads; `text` says where.
    "tests/clippy.toml: std::thread::sleep",
];

#[test]
fn architecture_names_only_what_exists() {
    let repository = Repository::open();
    let text = repository.read("ARCHITECTURE.md");
    let gone = quoted(&text).filter(|name| looks_like_a_path(name) && !repository.exists(name));
    hold("A path in ARCHITECTURE.md exists.", gone.map(str::to_owned), &[]);
}

#[test]
fn a_markdown_file_that_is_named_exists() {
    let repository = Repository::open();
    // This file's own test needs names that lead nowhere.
    let others = repository.texts().filter(|(path, _)| !path.ends_with(file!()));
    let found = others.flat_map(|(path, text)| {
        let gone = markdown_names(&text).filter(|name| !is_there(&repository, name));
        gone.map(|name| format!("{path}: {name}")).collect::<Vec<_>>()
    });
    hold("A Markdown file that a text names is in the repository.", found, &[]);
}

#[test]
fn clippy_files_agree() {
    let repository = Repository::open();
    let common = clippy_rules(&repository.read(CLIPPY_FILES[0]));
    let found = CLIPPY_FILES[1..].iter().flat_map(|path| {
        let own = clippy_rules(&repository.read(path));
        let missing: Vec<_> = common.iter().filter(|rule| !own.contains(rule)).cloned().collect();
        missing.into_iter().map(move |rule| format!("{path}: {}", rule_name(&rule)))
    });
    hold("A crate's clippy.toml repeats the workspace's, word for word.", found, CLIPPY_EXCEPTIONS);
}

#[test]
fn every_clippy_file_is_compared() {
    let repository = Repository::open();
    let other = repository.paths.iter().filter(|path| path.ends_with("clippy.toml"));
    let other = other.filter(|path| !CLIPPY_FILES.contains(&path.as_str()));
    hold("A new clippy.toml is listed here, so that it is held in step.", other.cloned(), &[]);
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// A name with a slash and none of the signs that commands, patterns and URLs have.
fn looks_like_a_path(name: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    name.contains('/') && !name.starts_with('/') && name.chars().all(plain) && !is_api_version(name)
}

/// `weir.dev/v1alpha1` and the like: groups of an API, and its annotations.
fn is_api_version(name: &str) -> bool {
    let group = name.split('/').next().unwrap_or_default();
    [".dev", ".io", ".com"].iter().any(|end| group.ends_with(end))
        || matches!(group, "apps" | "http" | "application")
}

/// Words that end in `.md`, without what a link adds to them.
fn markdown_names(text: &str) -> impl Iterator<Item = &str> {
    let words =
        text.split(|character: char| !character.is_ascii_alphanumeric() && !"/._-".contains(character));
    words
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.ends_with(".md") && word.len() > ".md".len())
}

/// Whether some file has this name, in whatever folder it is named from.
fn is_there(repository: &Repository, name: &str) -> bool {
    let name = name.rsplit("../").next().unwrap_or(name).trim_start_matches("./").trim_start_matches('/');
    repository.paths.iter().any(|path| path == name || path.ends_with(&format!("/{name}")))
}

/// The settings and banned paths of a clippy.toml, a line each; comments and brackets are not rules.
fn clippy_rules(text: &str) -> Vec<String> {
    let rules = text.lines().map(str::trim).filter(|line| line.starts_with("{ path") || line.contains(" = "));
    rules.filter(|line| !line.starts_with('#') && !line.ends_with('[')).map(str::to_owned).collect()
}

fn rule_name(rule: &str) -> &str {
    rule.split('"').nth(1).unwrap_or(rule)
}

#[test]
fn paths_are_told_from_other_words() {
    let text = "see `dataplane/src/request.rs`, `cargo test`, `a/*`, `weir.dev/v1alpha1`, `/api`";
    let found: Vec<&str> = quoted(text).filter(|name| looks_like_a_path(name)).collect();
    assert_eq!(found, ["dataplane/src/request.rs"]);
    assert_eq!(
        markdown_names("in [a](../docs/a.md), b.md. .md").collect::<Vec<_>>(),
        ["../docs/a.md", "b.md"]
    );
}

#[test]
fn every_attack_of_the_threat_model_names_a_test_that_exists() {
    let repository = Repository::open();
    let model = repository.read("docs/threat-model.md");
    let rows: Vec<&str> = attacks(&model).collect();
    assert!(rows.len() > 20, "the tables of docs/threat-model.md are not found any more");
    let tests: Vec<String> = repository.rust().flat_map(|file| test_names(&file.text)).collect();
    let found = rows.into_iter().flat_map(|row| {
        let names: Vec<&str> = quoted(row.rsplit('|').nth(1).unwrap_or_default()).collect();
        let gone = names.iter().filter(|name| !tests.iter().any(|test| test == *name));
        let mut wrong: Vec<String> = gone.map(|name| format!("{name} is no test")).collect();
        if names.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        wrong
    });
    hold("Each attack in docs/threat-model.md names tests that exist.", found, &[]);
}

/// The rows of the tables whose last column names tests.
fn attacks(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.lines().filter(move |line| {
        let begins = line.ends_with("| shown by |");
        is_inside = begins || (is_inside && line.starts_with('|'));
        is_inside && !begins && !line.starts_with("|---")
    })
}

/// Functions behind an attribute that makes them tests.
fn test_names(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_test = |line: &str| line.starts_with("#[") && line.contains("test");
    let name = |at: usize| {
        let body = lines[at + 1..].iter().find(|line| !line.starts_with("#[") && !line.starts_with("//"))?;
        let name = body.split("fn ").nth(1)?.split(['(', '<']).next()?;
        Some(name.to_owned())
    };
    (0..lines.len()).filter(|&at| is_test(lines[at])).filter_map(name).collect()
}

#[test]
fn attacks_and_tests_are_told_from_other_lines() {
    let text =
        "| a | b |\n|---|---|\n| x | y |\n\n| attack | shown by |\n|---|---|\n| one | `t` |\n\n| no | `u` |";
    assert_eq!(attacks(text).collect::<Vec<_>>(), ["| one | `t` |"]);
    let code =
        "#[test]\nfn one() {}\n#[tokio::test(start_paused = true)]\n// why\nasync fn two() {}\nfn three() {}";
    assert_eq!(test_names(code), ["one", "two"]);
}
