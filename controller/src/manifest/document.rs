//! A file into its documents.
//!
//! YAML forbids a line that starts with `---` and a space inside any scalar (production `c-forbidden`), so the
//! split needs no parser, and a document that does not parse cannot swallow the next one.

/// One document with something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    /// In the file, from 1.
    pub(super) first_line: u64,
}

/// The documents of a file, without those that hold only comments.
pub(super) fn split(text: &str) -> impl Iterator<Item = Document<'_>> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    let all = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (text, tail) = rest.split_at(end_of_first(rest));
        let document = Document { text, first_line: line };
        line += text.bytes().filter(|&byte| byte == b'\n').count() as u64;
        rest = tail;
        Some(document)
    });
    all.filter(|document| document.text.lines().any(has_content))
}

fn end_of_first(text: &str) -> usize {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        if end > 0 && is_marker(line, "---") {
            break;
        }
        end += line.len();
    }
    end
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let is_directive = line.starts_with('%');
    let line = if is_marker(line, "---") || is_marker(line, "...") { &line[3..] } else { line };
    let line = line.trim();
    !(is_directive || line.is_empty() || line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u64, String)> {
        split(text).map(|document| (document.first_line, document.text.to_owned())).collect()
    }

    #[test]
    fn documents_keep_their_lines() {
        let own = |line: u64, text: &str| (line, text.to_owned());
        assert_eq!(lines("a: 1\n"), [own(1, "a: 1\n")]);
        assert_eq!(lines("---\na: 1\n---\nb: 1"), [own(1, "---\na: 1\n"), own(3, "---\nb: 1")]);
        assert_eq!(lines("# c\n\n---\r\na: 1\r\n--- # d\r\n"), [own(3, "---\r\na: 1\r\n")]);
        assert_eq!(lines("--- {a: 1}\n--- {b: 1}\n"), [own(1, "--- {a: 1}\n"), own(2, "--- {b: 1}\n")]);
        assert_eq!(lines("a: |\n  ---\n  x\n---x: 1\n"), [own(1, "a: |\n  ---\n  x\n---x: 1\n")]);
        assert_eq!(lines("\u{feff}a: 1\n...\n---\n"), [own(1, "a: 1\n...\n")]);
        assert_eq!(lines(""), []);
    }
}
