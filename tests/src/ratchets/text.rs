//! Words that must not be in the code, or only where a list says so.

use super::{Repository, RustFile, hold};

/// Built from halves, so that this file does not break its own rules.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];
/// Folders of the machine that something was written on.
const FOREIGN_FOLDERS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("sha", "red/")];
/// Endings of names that say nothing.
const EMPTY_NAMES: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils", "Data", "Info", "Context"];

/// Names that a library's trait demands.
const DEMANDED_NAMES: &[&str] = &["controller/src/push/tls/connection.rs: ConnectInfo"];

/// Where tests may wait in a loop: until a state is reached, and between requests of a steady load.
const SLEEPING_TESTS: &[&str] = &["tests/src/harness/load.rs", "tests/src/harness/wait.rs"];
/// Queues without a limit: what they carry is bounded by configuration (listeners, sample backends), never by clients.
const UNBOUNDED_QUEUES: &[&str] =
    &["dataplane/src/proxy.rs", "weir/src/demo_backend/mod.rs", "weir/src/run/samples.rs"];
/// The environment is read where flags are; these read it elsewhere: NO_COLOR, and the name a pod is given.
const ENVIRONMENT_READERS: &[&str] = &["weir/src/bin/weir-proxy.rs", "weir/src/logging.rs"];

#[test]
fn nothing_is_left_unfinished() {
    let repository = Repository::open();
    let found = repository.texts().flat_map(|(path, text)| {
        let words = UNFINISHED.iter().filter(|word| text.contains(**word));
        words.map(|word| format!("{path}: {word}")).collect::<Vec<_>>()
    });
    hold("What is not done is not there; it is no comment.", found, &[]);
}

#[test]
fn no_text_names_a_folder_outside_the_repository() {
    let repository = Repository::open();
    let found = repository.texts().flat_map(|(path, text)| {
        let folders = FOREIGN_FOLDERS.iter().filter(|folder| text.contains(**folder));
        folders.map(|folder| format!("{path}: {folder}")).collect::<Vec<_>>()
    });
    hold("Nothing depends on, or mentions, one machine's folders.", found, &[]);
}

#[test]
fn an_ignored_test_says_why() {
    hold(
        "An ignored test has a reason.",
        files_with(|file| file.text.contains(concat!("#[ig", "nore]"))),
        &[],
    );
}

#[test]
fn a_silenced_lint_says_why() {
    let silenced = |file: &RustFile<'_>| {
        let attributes = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
        let begins = attributes.iter().flat_map(|begin| file.text.match_indices(begin));
        let attributes = begins
            .filter(|(at, _)| file.text[..*at].lines().last().is_none_or(|line| line.trim().is_empty()));
        attributes
            .into_iter()
            .any(|(at, _)| !file.text[at..].split(']').next().unwrap_or_default().contains("reason = "))
    };
    hold("A lint is silenced with `reason = ...`.", files_with(silenced), &[]);
}

#[test]
fn the_product_never_unwraps() {
    let unwraps = |file: &RustFile<'_>| code(file.product()).contains(concat!(".unw", "rap()"));
    hold("Outside tests it is `expect(\"why it holds\")` or an error.", files_with(unwraps), &[]);
}

#[test]
fn tests_wait_on_a_state_and_never_sleep() {
    let sleeps = |file: &RustFile<'_>| code(file.tests()).contains(concat!("::sl", "eep("));
    hold("A test waits on a state, with a deadline.", files_with(sleeps), SLEEPING_TESTS);
}

#[test]
fn every_queue_has_a_limit() {
    let unbounded = |file: &RustFile<'_>| code(file.product()).contains(concat!("unbounded", "_channel"));
    hold("A queue has a limit with a name and a test.", files_with(unbounded), UNBOUNDED_QUEUES);
}

#[test]
fn the_environment_is_read_where_flags_are() {
    let reads = |file: &RustFile<'_>| code(file.product()).contains("env::var");
    hold(
        "The environment reaches the program through its command line's definition.",
        files_with(reads),
        ENVIRONMENT_READERS,
    );
}

#[test]
fn names_say_what_a_thing_is() {
    let repository = Repository::open();
    let found = repository.rust().flat_map(|file| {
        let named = file.text.lines().filter_map(declared);
        let empty = named
            .filter(|name| EMPTY_NAMES.iter().any(|end| name.ends_with(end)) || name.starts_with("get_"));
        empty.map(|name| format!("{}: {name}", file.path)).collect::<Vec<_>>()
    });
    hold(
        "No name ends in Manager, Helper, Util, Data, Info or Context, and no function begins with get_.",
        found,
        DEMANDED_NAMES,
    );
}

/// The name that a line declares: a type's or a function's.
fn declared(line: &str) -> Option<&str> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| matches!(*word, "pub" | "const" | "async" | "unsafe") || word.starts_with("pub("));
    if !matches!(words.next()?, "struct" | "enum" | "trait" | "type" | "fn" | "mod") {
        return None;
    }
    words.next()?.split(|character: char| !character.is_alphanumeric() && character != '_').next()
}

fn files_with(holds: impl Fn(&RustFile<'_>) -> bool) -> Vec<String> {
    let repository = Repository::open();
    let found = repository.rust().filter(|file| holds(file)).map(|file| file.path.to_owned());
    found.collect()
}

/// The lines that are no comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}
