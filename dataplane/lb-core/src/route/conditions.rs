//! What a match asks of a request beside its host and path.

use super::Pattern;
use crate::addresses::IpTable;
use http::{HeaderMap, HeaderName, Method};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

/// What of a request conditions are about. Nothing of it is asked for where a path alone decides.
pub trait Request {
    /// Its method.
    fn method(&self) -> &Method;
    /// Its header fields, as the client sent them.
    fn headers(&self) -> &HeaderMap;
    /// What follows the question mark of its target.
    fn query(&self) -> Option<&str>;
    /// The first cookie of this name.
    fn cookie(&self, name: &str) -> Option<&[u8]>;
    /// The client's address, as this pool (`namespace/name`) has it: whose word counts on it is the pool's to say.
    fn source(&self, pool: &Arc<str>) -> IpAddr;
}

/// All of them have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// This one alone; `None`: any.
    pub method: Option<Method>,
    /// Any field of each name has the value.
    pub headers: Vec<FieldMatch<HeaderName>>,
    /// The first parameter of each name has the value, both with percent-encoding and `+` undone.
    pub query: Vec<FieldMatch<Arc<str>>>,
    /// The first cookie of each name has the value.
    pub cookies: Vec<FieldMatch<Arc<str>>>,
    /// The client's address is in one of these networks.
    pub sources: Option<Arc<IpTable<()>>>,
}

/// A name, and what its value has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMatch<N> {
    /// Of the header, parameter or cookie.
    pub name: N,
    /// What it has to say.
    pub value: ValueMatch,
}

/// What a value has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// This, byte by byte.
    Exact(Arc<str>),
    /// As a whole what the expression stands for.
    Pattern(Arc<Pattern>),
}

/// One of the things that conditions ask.
#[derive(Debug, Clone, Copy)]
pub enum Condition<'a> {
    /// The method.
    Method(&'a Method),
    /// A header.
    Header(&'a FieldMatch<HeaderName>),
    /// A query parameter.
    Query(&'a FieldMatch<Arc<str>>),
    /// A cookie.
    Cookie(&'a FieldMatch<Arc<str>>),
    /// The client's network.
    Source(&'a IpTable<()>),
}

/// Orders conditions by how much they ask: the smallest goes first.
pub(super) type Rank = Reverse<(bool, usize, usize, usize, bool)>;

impl Conditions {
    /// Gateway API, HTTPRouteRule, matches: a method, then the most headers, then the most query parameters. Beyond it: the
    /// most cookies, then a source.
    pub(super) fn rank(&self) -> Rank {
        let Self { method, headers, query, cookies, sources } = self;
        Reverse((method.is_some(), headers.len(), query.len(), cookies.len(), sources.is_some()))
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.rank() == Self::default().rank()
    }

    /// Whether all of them hold for a request of this pool.
    pub(super) fn hold(&self, request: &impl Request, pool: &Arc<str>) -> bool {
        self.each().all(|condition| condition.holds(request, pool))
    }

    /// Everything that is asked, in the order in which it is looked at. Cheap ones first.
    pub fn each(&self) -> impl Iterator<Item = Condition<'_>> {
        let Self { method, headers, query, cookies, sources } = self;
        let headers = headers.iter().map(Condition::Header);
        let others = query.iter().map(Condition::Query).chain(cookies.iter().map(Condition::Cookie));
        let source = sources.iter().map(|table| Condition::Source(table));
        method.iter().map(Condition::Method).chain(headers).chain(others).chain(source)
    }
}

impl Condition<'_> {
    /// Whether it holds for a request of this pool.
    #[must_use]
    pub fn holds(&self, request: &impl Request, pool: &Arc<str>) -> bool {
        match self {
            Self::Method(method) => *method == request.method(),
            Self::Header(field) => {
                let mut values = request.headers().get_all(&field.name).iter();
                values.any(|value| field.value.is(value.as_bytes()))
            }
            Self::Query(field) => {
                let value = request.query().and_then(|query| parameter(query, &field.name));
                value.is_some_and(|value| field.value.is(&value))
            }
            Self::Cookie(field) => request.cookie(&field.name).is_some_and(|value| field.value.is(value)),
            Self::Source(table) => table.find(request.source(pool)).is_some(),
        }
    }
}

impl ValueMatch {
    fn is(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Pattern(pattern) => pattern.matches(value),
        }
    }
}

/// The value of the first parameter of this name (URL Standard, section 5.1, `application/x-www-form-urlencoded`), empty
/// where it has none. Copies only what is encoded.
#[must_use]
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    // A loop over bytes: pairs are short, for which a search of its own costs more.
    query.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (key, value) = (&pair[..end], pair.get(end + 1..).unwrap_or_default());
        (*plain(key) == *name.as_bytes()).then(|| plain(value))
    })
}

/// Without percent-encoding, and with blanks for `+`. A percent sign without two digits stands for itself.
fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let (mut made, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
        let encoded = (byte == b'%').then(|| digit(1).zip(digit(2))).flatten();
        if let Some((high, low)) = encoded {
            made.push(u8::try_from(high << 4 | low).expect("two digits"));
            at += 3;
        } else {
            made.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    Cow::Owned(made)
}

/// A GET of a path alone, for whoever has no more to ask with.
#[derive(Debug, Default)]
pub struct PathAlone {
    headers: HeaderMap,
}

impl Request for PathAlone {
    fn method(&self) -> &Method {
        &Method::GET
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn cookie(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn source(&self, _pool: &Arc<str>) -> IpAddr {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_parameter_of_a_name_counts_with_its_encoding_undone() {
        let of = |query: &str, name: &str| {
            parameter(query, name).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        for (query, name, want) in [
            ("a=1&a=2", "a", Some("1")),
            ("b=1", "a", None),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("%61=%62+%2B", "a", Some("b +")),
            ("a+b=1", "a b", Some("1")),
            ("a=%zz%4", "a", Some("%zz%4")),
            ("a=%e2%82%ac", "a", Some("\u{20ac}")),
            ("aa=1&a=2", "a", Some("2")),
            ("", "", None),
            ("&&=x", "", Some("x")),
        ] {
            assert_eq!(of(query, name).as_deref(), want, "{query} {name}");
        }
        assert!(matches!(parameter("a=plain", "a"), Some(Cow::Borrowed(_))), "nothing is copied for most");
    }
}
