//! Regular expressions over paths and values, as tables.
//!
//! A dense automaton (`regex-automata`, what the `regex` crate is made of) and not a `regex::Regex`: that one draws the
//! memory of each search from a pool behind a lock, which workers would share, and fills it while it searches. A table is
//! whole once it is made, so that its size is known, a search takes no memory, and it costs a look-up for each byte,
//! whatever the expression is. The price is that a few expressions make no table of a bearable size; those are refused.

use regex_automata::dfa::Automaton as _;
use regex_automata::dfa::dense::DFA;
use regex_automata::{Anchored, Input};
use std::fmt;
use std::sync::Arc;

/// A compiled regular expression, of which whole values are held against.
pub struct Pattern {
    text: Arc<str>,
    table: DFA<Vec<u32>>,
}

impl Pattern {
    /// Of a table that accepts nothing but whole values: whoever compiles has anchored it at both ends, and it is searched
    /// from the begin. `text` is what it was written as.
    #[must_use]
    pub fn new(text: Arc<str>, table: DFA<Vec<u32>>) -> Self {
        Self { text, table }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether the whole value is one of those that the expression stands for. One look-up for each byte.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        // Tables without start states for what is asked, or that give up on some bytes, are not made; if one was, it would
        // match nothing.
        let input = Input::new(value).anchored(Anchored::Yes).earliest(true);
        matches!(self.table.try_search_fwd(&input), Ok(Some(_)))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use regex_automata::dfa::{StartKind, dense};
    use regex_automata::util::syntax;

    /// As whoever compiles does it.
    pub(in super::super) fn pattern(text: &str) -> Arc<Pattern> {
        let table = dense::Builder::new()
            .configure(dense::Config::new().start_kind(StartKind::Anchored))
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .build(&format!(r"^(?:{text})\z"))
            .expect("a small expression");
        Arc::new(Pattern::new(text.into(), table))
    }

    #[test]
    fn whole_values_match_and_parts_do_not() {
        let digits = pattern("/v[0-9]+/(users|orders)(/.*)?");
        for (value, want) in [
            ("/v1/users", true),
            ("/v12/orders/7/items", true),
            ("/v1/userss", false),
            ("/x/v1/users", false),
            ("/v/users", false),
            ("", false),
        ] {
            assert_eq!(digits.matches(value.as_bytes()), want, "{value}");
        }
        assert!(pattern("").matches(b""));
        assert!(pattern("a|ab").matches(b"ab"), "the longer of two, where the whole is asked for");
        assert!(pattern("(?i)gold").matches(b"GoLd"));
        assert!(pattern(".*").matches(&[0xff, 0xfe]), "values need not be UTF-8");
        assert!(!pattern("a$").matches(b"a\n"), "the end is the end of the value");
    }
}
