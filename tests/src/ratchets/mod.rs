//! Rules about the code that are executed: `cargo test -p weir-tests ratchets`.
//!
//! Each rule reads the files of the repository as text. Where something may break a rule for now, it is in a list of
//! exceptions beside that rule; a list may only shrink, so an exception that is no longer needed fails as well.

mod arrows;
mod documents;
mod size;
mod text;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's files as text; paths are relative to its root, with `/`.
struct Repository {
    root: PathBuf,
    paths: Vec<String>,
}

impl Repository {
    /// All files that are tracked or about to be; what .gitignore names is not ours to judge.
    fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root").to_owned();
        // Whoever owns the checkout may differ from who tests it, a container's root above all.
        let listed = Command::new("git")
            .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&root)
            .output()
            .expect("the ratchets ask git which files there are; install git");
        assert!(
            listed.status.success(),
            "git ls-files failed; the ratchets need a git checkout: {}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let listed = String::from_utf8(listed.stdout).expect("file names are UTF-8");
        let paths: BTreeSet<&str> =
            listed.split_terminator('\0').filter(|path| root.join(path).is_file()).collect();
        Self { paths: paths.into_iter().map(str::to_owned).collect(), root }
    }

    /// Our own Rust files; generated ones follow their generator's style and not ours.
    fn rust(&self) -> impl Iterator<Item = RustFile<'_>> {
        let ours = self.paths.iter().filter(|path| path.ends_with(".rs") && !path.contains("/gen/"));
        ours.map(|path| RustFile { path, text: self.read(path) })
    }

    /// Text files that people read or write.
    fn texts(&self) -> impl Iterator<Item = (&str, String)> {
        let read = self.paths.iter().filter(|path| !path.ends_with(".lock") && !path.contains("/gen/"));
        read.filter_map(|path| {
            let text = String::from_utf8(std::fs::read(self.root.join(path)).ok()?).ok()?;
            Some((path.as_str(), text))
        })
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// A Rust file and where its tests begin.
struct RustFile<'a> {
    path: &'a str,
    text: String,
}

impl RustFile<'_> {
    /// What comes before the tests: everything, in a file without any, and nothing, in one that is all tests.
    fn product(&self) -> &str {
        if self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
        {
            return "";
        }
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    /// The rest: tests and what only they use.
    fn tests(&self) -> &str {
        &self.text[self.product().len()..]
    }

    /// The file up to its tests; for a file of tests, all of it.
    fn before_tests(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
    }
}

/// Fails with everything that breaks a rule and is no exception, and with every exception that nothing needs.
fn hold(rule: &str, found: impl IntoIterator<Item = String>, exceptions: &[&str]) {
    let found: BTreeSet<String> = found.into_iter().collect();
    let broken: Vec<&String> = found.iter().filter(|what| !exceptions.contains(&what.as_str())).collect();
    let unneeded: Vec<&&str> = exceptions.iter().filter(|exception| !found.contains(**exception)).collect();
    assert!(broken.is_empty(), "{rule}\nBroken by:\n{}", lines(&broken));
    assert!(
        unneeded.is_empty(),
        "{rule}\nExceptions that nothing needs any more, take them out:\n{}",
        lines(&unneeded)
    );
}

fn lines(of: &[impl std::fmt::Display]) -> String {
    of.iter().map(|line| format!("  {line}\n")).collect()
}

#[test]
#[should_panic(expected = "Broken by:\n  b\n")]
fn what_is_no_exception_fails() {
    hold("rule", ["a".to_owned(), "b".to_owned()], &["a"]);
}

#[test]
#[should_panic(expected = "take them out:\n  b\n")]
fn an_exception_that_nothing_needs_fails() {
    hold("rule", ["a".to_owned()], &["a", "b"]);
}
