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
