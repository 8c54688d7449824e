//! What is wrong with a file.

use std::fmt;
use std::sync::Arc;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As the user named it, or below the folder that the user named.
    pub file: Arc<str>,
    /// From 1; 0 for the file as a whole.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

/// One thing that is wrong with a file, as a sentence for its author.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Path of the field, like `spec.listeners[0].port`; empty for the document as a whole.
    pub field: String,
    /// What is there, the rule and what to do.
    pub sentence: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { file, line: 0, .. } => f.write_str(file),
            Self { file, line, column } => write!(f, "{file}:{line}:{column}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.place, self.sentence)
        } else {
            write!(f, "{}: {}: {}", self.place, self.field, self.sentence)
        }
    }
}
