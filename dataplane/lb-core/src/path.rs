//! Paths in one form, so that routes are found by what a backend will read.
//!
//! The form is that of RFC 3986, section 6.2.2: no dot segments, unreserved characters as they are, all others that may not
//! stand in a path in capital percent-encoding. Where two readers may still differ (encoded slashes, empty segments) a
//! [`PathPolicy`] says what is done, and what no policy can make safe is refused.

use std::borrow::Cow;

/// What is done where readers of paths differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PathPolicy {
    /// For segments `.` and `..`, percent-encoded ones too.
    pub dot_segments: DotSegments,
    /// For empty segments: `//`.
    pub double_slashes: DoubleSlashes,
    /// For `%2F` and `%5C`.
    pub encoded_slashes: EncodedSlashes,
}

/// What is done with segments `.` and `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DotSegments {
    /// Resolved as RFC 3986, section 5.2.4, says; a path that climbs above its root is refused.
    #[default]
    Resolve,
    /// The request is refused.
    Refuse,
}

/// What is done with empty segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DoubleSlashes {
    /// Slashes that follow one another become one.
    #[default]
    Merge,
    /// They stay.
    Keep,
    /// The request is refused.
    Refuse,
}

/// What is done with percent-encoded slashes and backslashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EncodedSlashes {
    /// The request is refused.
    #[default]
    Refuse,
    /// They stay, and are no slashes for routes. A dot segment beside one is refused all the same.
    Keep,
    /// Both become slashes, before anything else is looked at.
    Decode,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
#[allow(missing_docs, reason = "the sentences say it")]
pub enum PathError {
    Relative,
    Encoding,
    Nul,
    Control,
    Backslash,
    EncodedSlash,
    EncodedDotSegment,
    DotSegment,
    DotParameters,
    AboveRoot,
    AmbiguousDots,
    DoubleSlash,
}

impl PathError {
    /// The sentence for the client.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Relative => "The path does not begin with a slash.",
            Self::Encoding => {
                "The path has a percent sign without two hexadecimal digits behind it; write %25 for the sign."
            }
            Self::Nul => "The path has an encoded NUL (%00).",
            Self::Control => "The path has a control character.",
            Self::Backslash => "The path has a backslash; separate segments with slashes.",
            Self::EncodedSlash => {
                "The path has an encoded slash (%2F or %5C), which this listener refuses (paths.encodedSlashes)."
            }
            Self::EncodedDotSegment => "The path has a dot segment beside an encoded slash.",
            Self::DotSegment => {
                "The path has a dot segment, which this listener refuses (paths.dotSegments)."
            }
            Self::DotParameters => {
                "The path has a dot segment with parameters, which readers resolve differently."
            }
            Self::AboveRoot => "The path climbs above its root.",
            Self::AmbiguousDots => {
                "The path has a dot segment behind a double slash, which readers resolve differently."
            }
            Self::DoubleSlash => {
                "The path has a double slash, which this listener refuses (paths.doubleSlashes)."
            }
        }
    }
}

/// The path in its one form; borrowed where it has it already, which costs one walk along it.
///
/// Applied to its own result under the same policy it changes nothing.
///
/// # Errors
/// [`PathError`] where the path is malformed, or is refused by the policy.
pub fn normalize(path: &str, policy: PathPolicy) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes(), policy.encoded_slashes)?;
    let joined = resolve(&decoded, policy)?;
    Ok(if joined == path { Cow::Borrowed(path) } else { Cow::Owned(joined) })
}

/// Whether nothing in it needs a closer look.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&byte| {
        let is_plain = PLAIN[usize::from(byte)] && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        is_plain
    })
}

/// Bytes that may stand in a path as they are: unreserved, sub-delims, `:`, `@` and `/` (RFC 3986, section 3.3).
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let bytes = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:@!$&'()*+,;=";
    let mut at = 0;
    while at < bytes.len() {
        plain[bytes[at] as usize] = true;
        at += 1;
    }
    plain
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Each character in the one way in which it may be written.
fn decode(path: &[u8], encoded_slashes: EncodedSlashes) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let value = hex(path.get(at), path.get(at + 1)).ok_or(PathError::Encoding)?;
                at += 2;
                match (value, encoded_slashes) {
                    (0, _) => return Err(PathError::Nul),
                    (b'/' | b'\\', EncodedSlashes::Refuse) => return Err(PathError::EncodedSlash),
                    (b'/' | b'\\', EncodedSlashes::Decode) => out.push('/'),
                    (value, _) if is_unreserved(value) => out.push(char::from(value)),
                    (value, _) => encode(&mut out, value),
                }
            }
            b'\\' => return Err(PathError::Backslash),
            byte if PLAIN[usize::from(byte)] => out.push(char::from(byte)),
            byte if byte.is_ascii_control() || byte == b' ' => return Err(PathError::Control),
            byte => encode(&mut out, byte),
        }
    }
    Ok(out)
}

fn encode(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn hex(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high?)? * 16 + digit(low?)?).ok()
}

/// Segments without what the policy takes away.
fn resolve(path: &str, policy: PathPolicy) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if hides_dots(segment) {
            return Err(PathError::EncodedDotSegment);
        }
        match (dots(segment)?, policy.dot_segments) {
            (None, _) if segment.is_empty() && !is_last => match policy.double_slashes {
                DoubleSlashes::Merge => {}
                DoubleSlashes::Keep => kept.push(segment),
                DoubleSlashes::Refuse => return Err(PathError::DoubleSlash),
            },
            // A slash at the end; after a merge there is only one.
            (None, _) => kept.push(segment),
            (Some(_), DotSegments::Refuse) => return Err(PathError::DotSegment),
            (Some(dots), DotSegments::Resolve) => {
                if dots == Dots::Up {
                    match kept.pop() {
                        None => return Err(PathError::AboveRoot),
                        Some("") => return Err(PathError::AmbiguousDots),
                        Some(_) => {}
                    }
                }
                if is_last {
                    kept.push("");
                }
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    Here,
    Up,
}

/// Whether a segment is a dot segment. Some servers cut off parameters (`..;x`) before they resolve, others do not.
fn dots(segment: &str) -> Result<Option<Dots>, PathError> {
    let (name, has_parameters) = without_parameters(segment);
    match (name, has_parameters) {
        ("." | "..", true) => Err(PathError::DotParameters),
        (".", false) => Ok(Some(Dots::Here)),
        ("..", false) => Ok(Some(Dots::Up)),
        _ => Ok(None),
    }
}

fn without_parameters(segment: &str) -> (&str, bool) {
    let end = segment.find(';').into_iter().chain(segment.find("%3B")).min();
    end.map_or((segment, false), |end| (&segment[..end], true))
}

/// Whether a reader that decodes slashes would find a dot segment in this one.
fn hides_dots(segment: &str) -> bool {
    let mut parts = segment.split("%2F").flat_map(|part| part.split("%5C")).peekable();
    let first = parts.next();
    if parts.peek().is_none() {
        return false;
    }
    first.into_iter().chain(parts).any(|part| matches!(without_parameters(part).0, "." | ".."))
}

#[cfg(test)]
mod tests;
