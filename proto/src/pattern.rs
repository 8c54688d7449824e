//! Regular expressions of matches: the controller refuses what a proxy would refuse, since both compile it here.

use crate::limits::{PATTERN_BYTES_MAX, PATTERN_TABLE_BYTES_MAX};
use regex_automata::dfa::dense::{BuildError, Builder, DFA};
use regex_automata::dfa::{StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// Bytes that compiling one may take beside its table, in each of its two steps.
const WORK_BYTES_MAX: usize = 4 * PATTERN_TABLE_BYTES_MAX;

/// Why an expression is refused; a sentence without its subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has no bytes, or too many.
    #[error("is no expression of 1 to {PATTERN_BYTES_MAX} bytes: shorten it, or use several matches")]
    Length,
    /// It is not of ASCII characters.
    #[error("has a character that is not ASCII: percent-encode it")]
    NotAscii,
    /// It does not parse, or asks for what there is not (Unicode classes, look-around).
    #[error("is no regular expression: {0}")]
    Syntax(String),
    /// Its table would be too large.
    #[error(
        "becomes a table of more than {PATTERN_TABLE_BYTES_MAX} bytes: use fewer counted repetitions and alternatives"
    )]
    Size,
}

/// Compiles an expression for whole values, in ASCII: `\d` is `[0-9]`, and a dot is any byte but a line feed.
///
/// # Errors
/// Whoever wrote it can make it right.
pub fn compile(text: &str) -> Result<DFA<Vec<u32>>, PatternError> {
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        return Err(PatternError::Length);
    }
    if !text.is_ascii() {
        return Err(PatternError::NotAscii);
    }
    // By itself first: what parses only between the brackets around it would mean something else.
    parse(text)?;
    let built = Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(PATTERN_TABLE_BYTES_MAX))
                .determinize_size_limit(Some(WORK_BYTES_MAX)),
        )
        .syntax(settings())
        .thompson(thompson::Config::new().nfa_size_limit(Some(WORK_BYTES_MAX)))
        .build(&format!(r"^(?:{text})\z"));
    built.map_err(|error| refusal(&error))
}

fn settings() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn parse(text: &str) -> Result<(), PatternError> {
    syntax::parse_with(text, &settings()).map(drop).map_err(|error| {
        // The last line says what is wrong; those before it point at where.
        let told = error.to_string();
        let line = told.lines().last().unwrap_or_default();
        PatternError::Syntax(line.strip_prefix("error: ").unwrap_or(line).to_owned())
    })
}

fn refusal(error: &BuildError) -> PatternError {
    // It parses, so that what is left is its size, in one of the two steps: the first tells it in words only.
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let told = format!("{error}: {cause}");
    if error.is_size_limit_exceeded() || ["size", "limit", "too many"].iter().any(|word| told.contains(word))
    {
        return PatternError::Size;
    }
    PatternError::Syntax(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::dfa::Automaton as _;
    use regex_automata::{Anchored, Input};

    fn holds(text: &str, value: &str) -> bool {
        let table = compile(text).unwrap_or_else(|error| panic!("{text} {error}"));
        let input = Input::new(value).anchored(Anchored::Yes).earliest(true);
        matches!(table.try_search_fwd(&input), Ok(Some(_)))
    }

    #[test]
    fn whole_values_match() {
        assert!(holds("/v[0-9]+/.*", "/v1/x") && !holds("/v[0-9]+/.*", "/a/v1/x"));
        assert!(holds("a|bc", "bc") && !holds("a|bc", "abc") && !holds("^a$", "ab") && holds("^a$", "a"));
        assert!(holds(r"(?i)\w+-\d{3}", "AbC_1-123"));
        assert!(holds(r".*\bword\b.*", "a word here"));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        for wrong in ["(", ")", "a)(b", "[", "*", "a{2,1}", r"\p{Greek}", "(?=a)", r"\1"] {
            let Err(PatternError::Syntax(reason)) = compile(wrong) else { panic!("{wrong}") };
            assert!(!reason.is_empty() && !reason.contains('\n'), "{wrong}: {reason}");
        }
        assert_eq!(compile("\u{e9}").err(), Some(PatternError::NotAscii));
    }

    #[test]
    fn an_expression_has_a_length_and_its_table_a_size_and_past_them_it_is_refused() {
        assert!(compile(&"a".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert_eq!(compile(&"a".repeat(PATTERN_BYTES_MAX + 1)).err(), Some(PatternError::Length));
        assert_eq!(compile("").err(), Some(PatternError::Length));
        // Each further counted byte doubles the table.
        let doubling = |count: usize| compile(&format!("(a|b)*a(a|b){{{count}}}"));
        assert!(doubling(8).is_ok());
        assert_eq!(doubling(16).err(), Some(PatternError::Size));
        for huge in ["(a{500}){500}", "((a{100}){100}){100}"] {
            assert_eq!(compile(huge).err(), Some(PatternError::Size), "{huge}");
        }
    }
}
