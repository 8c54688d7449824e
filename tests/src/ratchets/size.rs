//! Files fit one sitting, functions one screen.

use super::{Repository, RustFile, hold};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer for now.
const LONG_FILES: &[&str] = &[];
/// Functions that are longer for now, as `path: name`.
const LONG_FUNCTIONS: &[&str] = &[];

#[test]
fn files_fit_one_sitting() {
    let repository = Repository::open();
    let rust = repository
        .rust()
        .filter(|file| !file.path.ends_with("/tests.rs"))
        .map(|file| (file.path.to_owned(), file.before_tests().lines().count()));
    let scripts = repository.texts().filter(|(path, text)| path.ends_with(".py") || text.starts_with("#!"));
    let scripts = scripts.map(|(path, text)| (path.to_owned(), text.lines().count()));
    let long = rust.chain(scripts).filter(|(_, count)| *count > FILE_LINES_MAX).map(|(path, _)| path);
    hold("A file has at most 500 lines before its tests.", long, LONG_FILES);
}

#[test]
fn functions_fit_one_screen() {
    let repository = Repository::open();
    let long = repository.rust().flat_map(|file| {
        let long = functions(&file).into_iter().filter(|(_, count)| *count > FUNCTION_LINES_MAX);
        long.map(|(name, _)| format!("{}: {name}", file.path)).collect::<Vec<_>>()
    });
    hold("A function has at most 70 lines, from its name to its closing brace.", long, LONG_FUNCTIONS);
}

/// Name and length in lines of each function. Relies on rustfmt: a function ends with a brace at its own indentation.
fn functions(file: &RustFile<'_>) -> Vec<(String, usize)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let begins = lines.iter().enumerate().filter_map(|(index, line)| Some((index, name(line)?)));
    let long = begins.map(|(begin, name)| {
        let indentation = lines[begin].len() - lines[begin].trim_start().len();
        let length = lines[begin..].iter().position(|line| ends(line, indentation));
        (name.to_owned(), length.map_or(0, |last| last + 1))
    });
    long.collect()
}

/// The function's name, in the line that begins one.
fn name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "unsafe") || word.starts_with("pub(") || *word == "extern"
    });
    if words.next() != Some("fn") {
        return None;
    }
    words.next()?.split(['(', '<']).next()
}

fn ends(line: &str, indentation: usize) -> bool {
    let at_own = line.len() - line.trim_start().len() == indentation;
    at_own && !line.trim().is_empty() && (line.trim_start().starts_with('}') || line.ends_with(['}', ';']))
}

#[test]
fn a_function_is_measured_from_name_to_brace() {
    let text = "impl A {\n    pub(crate) async fn long<T>(\n        a: T,\n    ) -> u8\n    where\n        T: B,\n    {\n        if a {\n        }\n    }\n\n    fn short() {}\n}\n";
    let file = RustFile { path: "a.rs", text: text.to_owned() };
    assert_eq!(functions(&file), [("long".to_owned(), 9), ("short".to_owned(), 1)]);
}
