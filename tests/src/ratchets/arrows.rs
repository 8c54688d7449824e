//! Who may know whom: between crates, and between the stages of the request path.

use super::{Repository, hold};

/// Each crate of ours and the crates of ours that it may depend on, also in its tests.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("weir-proto", "proto/Cargo.toml", &[]),
    ("weir-proto-generator", "proto/generator/Cargo.toml", &[]),
    ("weir-dial", "dial/Cargo.toml", &["weir-proto"]),
    ("weir-metrics", "metrics/Cargo.toml", &[]),
    ("weir-crds", "crds/Cargo.toml", &[]),
    ("lb-core", "dataplane/lb-core/Cargo.toml", &[]),
    ("weir-proxy", "dataplane/Cargo.toml", &["lb-core", "weir-dial", "weir-metrics", "weir-proto"]),
    ("weir-controller", "controller/Cargo.toml", &["weir-crds", "weir-dial", "weir-metrics", "weir-proto"]),
    ("weir", "weir/Cargo.toml", &["weir-controller", "weir-dial", "weir-metrics", "weir-proxy"]),
    (
        "weir-tests",
        "tests/Cargo.toml",
        &["lb-core", "weir", "weir-controller", "weir-crds", "weir-dial", "weir-proto", "weir-proxy"],
    ),
];
/// Arrows that are there for now.
const CRATE_EXCEPTIONS: &[&str] = &["weir -> weir-crds", "weir -> weir-proto"];

/// The stages of the request path, as modules of `dataplane/src`. Only the spine, `request`, knows several of them;
/// what they share (`message`, `failure`, `wire`, `timer`, `http1`'s codec) is no stage.
const STAGES: &[&str] = &[
    "listener",
    "tls",
    "http1::server",
    "http2::server",
    "forwarding",
    "balance",
    "pool",
    "upstream",
    "tunnel",
];
/// Stages that name another for now, as `stage -> stage`.
const STAGE_EXCEPTIONS: &[&str] = &[];

/// Modules of the request path that are no stages: they call stages, or carry a connection to them.
const SPINE: &[&str] = &["request", "connection", "layer4", "worker"];
/// What is beside the request path and may never be named on it: a request never waits for configuration.
const BESIDE: &[&str] = &["config", "health", "admin", "proxy", "metrics", "readiness", "explain"];

/// Where else the wire is named: limits that the command and shared keys have to keep too, and certificates, which are
/// proven where TLS is built so that the proof and its use are in one place; and what proxies tell each other of
/// health, which is no configuration.
const WIRE_READERS: &[&str] = &[
    "dataplane/src/health/share.rs",
    "dataplane/src/proxy.rs",
    "dataplane/src/ring.rs",
    "dataplane/src/tls.rs",
    "dataplane/src/tls/backends.rs",
    "dataplane/src/tls/policies.rs",
];

#[test]
fn crates_depend_only_along_the_arrows() {
    let repository = Repository::open();
    let known: Vec<&str> = CRATES.iter().map(|(name, ..)| *name).collect();
    let found = CRATES.iter().flat_map(|(name, manifest, allowed)| {
        let dependencies = dependencies(&repository.read(manifest));
        let ours = dependencies.into_iter().filter(|dependency| known.contains(&dependency.as_str()));
        ours.filter(|dependency| !allowed.contains(&dependency.as_str()))
            .map(move |dependency| format!("{name} -> {dependency}"))
            .collect::<Vec<_>>()
    });
    hold("Crates depend on one another as ARCHITECTURE.md draws it.", found, CRATE_EXCEPTIONS);
}

#[test]
fn every_crate_of_ours_is_in_the_table() {
    let repository = Repository::open();
    let manifests = repository.paths.iter().filter(|path| path.ends_with("/Cargo.toml"));
    // Workspaces of their own: what measures us, and never ships.
    let members = manifests.filter(|path| !repository.read(path).contains("\n[workspace]"));
    let unknown = members.filter(|path| !CRATES.iter().any(|(_, manifest, _)| manifest == path));
    hold("A new crate brings its row in the table of arrows.", unknown.cloned(), &[]);
}

#[test]
fn every_crate_inherits_the_workspace_s_lints() {
    let repository = Repository::open();
    let without =
        CRATES.iter().filter(|(_, path, _)| !repository.read(path).contains("\n[lints]\nworkspace = true\n"));
    hold("A crate says `[lints] workspace = true`.", without.map(|(name, ..)| (*name).to_owned()), &[]);
}

#[test]
fn stages_of_the_request_path_never_name_each_other() {
    let found = request_path_references(STAGES).into_iter().filter_map(|(from, to)| {
        let other = STAGES.iter().find(|stage| **stage != from && is_within(&to, stage))?;
        Some(format!("{from} -> {other}"))
    });
    hold("A stage never names another one; `request` calls them in order.", found, STAGE_EXCEPTIONS);
}

#[test]
fn the_request_path_never_names_what_is_beside_it() {
    let path: Vec<&str> = STAGES.iter().chain(SPINE).copied().collect();
    let found = request_path_references(&path).into_iter().filter_map(|(from, to)| {
        let beside = BESIDE.iter().find(|module| is_within(&to, module))?;
        Some(format!("{from} -> {beside}"))
    });
    hold(
        "Configuration, administration and metrics reach requests only through the snapshot and counters.",
        found,
        &[],
    );
}

#[test]
fn only_configuration_reads_wire_messages() {
    let repository = Repository::open();
    let elsewhere = repository.rust().filter(|file| {
        file.path.starts_with("dataplane/src/") && !file.path.starts_with("dataplane/src/config/")
    });
    let found =
        elsewhere.filter(|file| file.product().contains("weir_proto")).map(|file| file.path.to_owned());
    hold("Wire messages end in `config`: past it there are runtime types.", found, WIRE_READERS);
}

/// What each of these modules of `dataplane/src` names, as (module, path from the crate's root).
fn request_path_references(modules: &[&'static str]) -> Vec<(&'static str, String)> {
    let repository = Repository::open();
    let mut found = Vec::new();
    for module in modules {
        let file = format!("dataplane/src/{}", module.replace("::", "/"));
        let files = repository.rust().filter(|candidate| {
            candidate.path == format!("{file}.rs") || candidate.path.starts_with(&format!("{file}/"))
        });
        let mut present = false;
        for file in files {
            present = true;
            let within: Vec<&str> = module_path(file.path);
            found.extend(references(file.product(), &within).into_iter().map(|to| (*module, to)));
        }
        assert!(present, "dataplane/src has no module {module} any more; correct the lists of this test");
    }
    found
}

/// `dataplane/src/http1/head.rs` is `["http1", "head"]`; `mod.rs` is its folder.
fn module_path(path: &str) -> Vec<&str> {
    let inside = path.trim_start_matches("dataplane/src/").trim_end_matches(".rs");
    inside.split('/').filter(|part| *part != "mod").collect()
}

/// Every path that begins with `crate::` or `super::`, from the crate's root, groups taken apart.
fn references(text: &str, within: &[&str]) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(|line| [line.trim(), " "]).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        expand("", &code[at + "crate::".len()..], &mut found);
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let ups = code[at..].split("super::").take_while(|part| part.is_empty()).count();
        let rest = &code[at + ups * "super::".len()..];
        let base = within[..within.len().saturating_sub(ups)].join("::");
        expand(&base, rest, &mut found);
    }
    found
}

/// Takes `a::{b, c::d}` apart into paths below `base`; stops where the path does.
fn expand(base: &str, text: &str, found: &mut Vec<String>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0usize;
        let mut begin = 0;
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => return expand(base, &group[begin..at], found),
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(base, &group[begin..at], found);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let word: String =
        text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
    let path =
        if base.is_empty() || word.is_empty() { format!("{base}{word}") } else { format!("{base}::{word}") };
    match text[word.len()..].strip_prefix("::") {
        Some(rest) => expand(&path, rest, found),
        None if !path.is_empty() => found.push(path),
        None => {}
    }
}

fn is_within(path: &str, module: &str) -> bool {
    path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
}

/// The crates named in any of a manifest's tables of dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && line.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            found.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    found
}

#[test]
fn groups_and_parents_are_taken_apart() {
    let text = "use crate::a::{self, B, c::{D, E}};\nuse super::super::f::G;\n// crate::comment\nlet x = super::h(1);";
    let found = references(text, &["one", "two"]);
    assert_eq!(found, ["a::self", "a::B", "a::c::D", "a::c::E", "f::G", "one::h"]);
}

#[test]
fn dependencies_are_read_in_all_their_forms() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n# b = 1\n\n[dev-dependencies]\nc = { path = \"..\" }\n[lints]\nd = 1\n[target.'cfg(unix)'.dependencies]\ne = \"1\"\n";
    assert_eq!(dependencies(manifest), ["a", "c", "e"]);
}
