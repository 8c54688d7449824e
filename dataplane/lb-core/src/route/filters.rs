//! What a route does to requests and responses, beside where it sends them. Values, ready for use: what is done with them is
//! the stages' part.

use super::{FallbackResponse, Route};
use http::{HeaderName, HeaderValue, Method};
use std::sync::Arc;

/// All filters of a route, in the order in which they act.
#[derive(Debug, Default)]
pub struct Filters {
    /// Which requests it takes.
    pub validation: Option<Validation>,
    /// Which origins may ask.
    pub cors: Option<Cors>,
    /// Answers in place of a backend.
    pub answer: Option<Answer>,
    /// What backends are asked.
    pub rewrite: Option<Rewrite>,
    /// For the backend.
    pub request_headers: HeaderChanges,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// For the client.
    pub response_headers: HeaderChanges,
}

impl Filters {
    /// Whether something is done to the heads of responses.
    #[must_use]
    pub fn touch_responses(&self) -> bool {
        self.cors.is_some() || !self.response_headers.are_none()
    }
}

/// Changes of headers, made in this order. No name is twice in all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// In place of all fields of the name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside them.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// What an answer of ours is.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Somewhere else.
    Redirect(Redirect),
    /// This.
    Response(Arc<FallbackResponse>),
}

/// What backends are asked in place of what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// A host without port.
    pub hostname: Option<Arc<str>>,
    /// `None`: the path as it came.
    pub path: Option<PathChange>,
}

/// Where clients are sent. What is `None` is as they asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// A host without port.
    pub hostname: Option<Arc<str>>,
    /// `None`: that of the scheme, where one is said, else the listener's.
    pub port: Option<u16>,
    /// Another path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Another path. Begins with a slash where it is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// In place of the whole path; not empty.
    Full(Arc<str>),
    /// In place of the prefix that matched; without a slash at its end.
    Prefix(Arc<str>),
}

impl PathChange {
    /// The new path, where the match took `prefix_bytes` of the old one (Gateway API, HTTPPathModifier).
    #[must_use]
    pub fn path(&self, path: &str, prefix_bytes: usize) -> String {
        match self {
            Self::Full(path) => path.to_string(),
            Self::Prefix(prefix) => {
                let rest = path.get(prefix_bytes..).unwrap_or_default();
                let is_empty = prefix.is_empty() && rest.is_empty();
                if is_empty { "/".to_owned() } else { format!("{prefix}{rest}") }
            }
        }
    }
}

/// Cross-origin requests: which origins, and what they may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Which origins; none where it is empty.
    pub origins: Vec<Origin>,
    /// Whether with credentials.
    pub has_credentials: bool,
    /// For preflights: methods, `*` for the one that is asked for.
    pub methods: Listed,
    /// For preflights: headers, the same.
    pub headers: Listed,
    /// Headers of responses that may be read.
    pub exposed: Listed,
    /// Seconds for which a preflight's answer is kept.
    pub max_age_s: u32,
}

/// A list for a header of CORS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Listed {
    /// The header is not sent.
    #[default]
    Nothing,
    /// All of them.
    All,
    /// These, joined by commas.
    Only(HeaderValue),
}

/// An origin that may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Whoever it is.
    Any,
    /// One, in lower case.
    Exact(Arc<str>),
    /// `https://*.example:*`: what stands before the star and after it, and whether any port may follow.
    Wildcard {
        /// With the scheme.
        before: Arc<str>,
        /// Of the host, and the port where it is said; empty for every host.
        after: Arc<str>,
        /// With or without one.
        has_any_port: bool,
    },
}

impl Origin {
    /// Whether an `Origin` header names it. Schemes and hosts are compared in lower case, as browsers send them.
    #[must_use]
    pub fn covers(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => **text == *origin,
            Self::Wildcard { before, after, has_any_port } => {
                let Some(mut rest) = origin.strip_prefix(&**before) else { return false };
                if *has_any_port {
                    // Not within the brackets of IPv6.
                    let port = rest
                        .rsplit_once(':')
                        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
                    rest = port.map_or(rest, |(host, _)| host);
                }
                rest.len() > after.len() && rest.ends_with(&**after) && !rest.contains('/')
            }
        }
    }
}

/// Which requests are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validation {
    /// Empty: every method.
    pub methods: Vec<Method>,
    /// The same, for `Allow`.
    pub allow: Option<HeaderValue>,
    /// `type/subtype` or `type/` for all of a type, lower case. Empty: every type.
    pub content_types: Vec<Arc<str>>,
}

impl Validation {
    /// Whether requests may have this method.
    #[must_use]
    pub fn takes_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Whether bodies may have this `Content-Type`, parameters aside; `None`: the request does not say.
    #[must_use]
    pub fn takes_content(&self, content_type: Option<&str>) -> bool {
        let Some(text) = content_type else { return self.content_types.is_empty() };
        let essence = text.split(';').next().unwrap_or_default().trim();
        let is = |wanted: &Arc<str>| match wanted.strip_suffix('/') {
            Some(kind) => essence.split_once('/').is_some_and(|(own, _)| own.eq_ignore_ascii_case(kind)),
            None => essence.eq_ignore_ascii_case(wanted),
        };
        self.content_types.is_empty() || self.content_types.iter().any(is)
    }
}

/// Where a share of the requests is copied to.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Of one set, without retries, sessions and limits.
    pub route: Arc<Route>,
    /// So many
    pub numerator: u32,
    /// of so many; not 0.
    pub denominator: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the Gateway API's documentation (HTTPPathModifier, replacePrefixMatch).
    #[test]
    fn a_prefix_is_replaced_as_the_gateway_api_has_it() {
        for (path, prefix, replacement, want) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
        ] {
            let change = PathChange::Prefix(replacement.trim_end_matches('/').into());
            assert_eq!(
                change.path(path, prefix.trim_end_matches('/').len()),
                want,
                "{path} {prefix} {replacement}"
            );
        }
        assert_eq!(PathChange::Full("/x".into()).path("/foo/bar", 4), "/x");
    }

    #[test]
    fn origins_are_covered_as_a_whole() {
        let wildcard = |before: &str, after: &str, has_any_port| Origin::Wildcard {
            before: before.into(),
            after: after.into(),
            has_any_port,
        };
        let cases = [
            (Origin::Exact("https://a.org".into()), "https://a.org", true),
            (Origin::Exact("https://a.org".into()), "https://a.org:8443", false),
            (Origin::Exact("https://a.org".into()), "http://a.org", false),
            (wildcard("https://", ".a.org", false), "https://x.y.a.org", true),
            (wildcard("https://", ".a.org", false), "https://a.org", false),
            (wildcard("https://", ".a.org", false), "https://.a.org", false),
            (wildcard("https://", ".a.org", false), "https://x.a.org.evil.org", false),
            (wildcard("https://", ".a.org", false), "https://x.a.org:8443", false),
            (wildcard("https://", ".a.org", true), "https://x.a.org:8443", true),
            (wildcard("https://", ".a.org:8443", false), "https://x.a.org:8443", true),
            (wildcard("https://", ".a.org", true), "https://evil.org/.a.org", false),
            (wildcard("https://", "", false), "https://anything", true),
            (wildcard("https://", "", false), "http://anything", false),
            (Origin::Any, "null", true),
        ];
        for (origin, asked, want) in cases {
            assert_eq!(origin.covers(asked), want, "{origin:?} {asked}");
        }
    }

    #[test]
    fn content_is_taken_by_its_type_without_parameters() {
        let types = Validation {
            content_types: vec!["application/json".into(), "image/".into()],
            ..Validation::default()
        };
        for (content_type, want) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("image/png"), true),
            (Some("image"), false),
            (Some("application/jsonx"), false),
            (Some("text/plain; application/json"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(types.takes_content(content_type), want, "{content_type:?}");
        }
        assert!(
            Validation::default().takes_content(None) && Validation::default().takes_content(Some("x/y"))
        );
    }
}
