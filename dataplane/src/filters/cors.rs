//! Cross-origin requests (Fetch Standard, section 3.2): what browsers are told of who may ask, and read.
//!
//! The filter's word counts, and what a backend says of it in its own headers ends here: two of them in one response are
//! an error to browsers. A request is never refused for its origin; browsers do that, and others do not ask.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use lb_core::route::{Cors, Listed, Origin};

/// The headers of the answer to a preflight, `None` where the request is none. Of an origin that may not ask, they allow
/// nothing.
pub(crate) fn preflight(cors: &Cors, method: &Method, asked: &HeaderMap) -> Option<HeaderMap> {
    let origin = asked.get(ORIGIN)?;
    let wanted = asked.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| *method == Method::OPTIONS)?;
    let mut headers = HeaderMap::new();
    if !allows(cors, origin) {
        return Some(headers);
    }
    let mut list = |name: HeaderName, listed: &Listed, asked: Option<&HeaderValue>| {
        let value = match listed {
            Listed::Nothing => None,
            // With credentials a star is no star, so that what is asked for is named.
            Listed::All => asked,
            Listed::Only(names) => Some(names),
        };
        headers.extend(value.map(|value| (name, value.clone())));
    };
    list(ACCESS_CONTROL_ALLOW_METHODS, &cors.methods, Some(wanted));
    list(ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers, asked.get(ACCESS_CONTROL_REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age_s.into());
    Some(headers)
}

/// Puts into a response who may read it, in place of what a backend says.
pub(super) fn tell(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
    let is_for_all = cors.origins.contains(&Origin::Any) && !cors.has_credentials;
    if !is_for_all {
        // Caches may not give one origin what was said to another.
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    let Some(origin) = origin.filter(|origin| allows(cors, origin)) else { return };
    let exposed = match &cors.exposed {
        Listed::Nothing => None,
        Listed::All if cors.has_credentials => names(headers),
        Listed::All => Some(HeaderValue::from_static("*")),
        Listed::Only(names) => Some(names.clone()),
    };
    headers.extend(exposed.map(|exposed| (ACCESS_CONTROL_EXPOSE_HEADERS, exposed)));
    let told = if is_for_all { HeaderValue::from_static("*") } else { origin.clone() };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, told);
    if cors.has_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn allows(cors: &Cors, origin: &HeaderValue) -> bool {
    let covers = |text: &str| cors.origins.iter().any(|allowed| allowed.covers(text));
    origin.to_str().is_ok_and(covers)
}

/// The names of these headers, joined.
fn names(headers: &HeaderMap) -> Option<HeaderValue> {
    let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(has_credentials: bool) -> Cors {
        Cors {
            origins: vec![Origin::Exact("https://a.org".into())],
            has_credentials,
            methods: Listed::Only(HeaderValue::from_static("PUT, DELETE")),
            headers: Listed::All,
            exposed: Listed::All,
            max_age_s: 5,
        }
    }

    fn of<const N: usize>(fields: [(HeaderName, &'static str); N]) -> HeaderMap {
        fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_preflight_is_an_options_that_names_origin_and_method() {
        let asked = of([
            (ORIGIN, "https://a.org"),
            (ACCESS_CONTROL_REQUEST_METHOD, "PUT"),
            (ACCESS_CONTROL_REQUEST_HEADERS, "x-a, x-b"),
        ]);
        let answer = preflight(&cors(true), &Method::OPTIONS, &asked).expect("a preflight");
        let want = of([
            (ACCESS_CONTROL_ALLOW_METHODS, "PUT, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "x-a, x-b"),
            (ACCESS_CONTROL_MAX_AGE, "5"),
        ]);
        assert_eq!(answer, want);
        assert_eq!(preflight(&cors(true), &Method::PUT, &asked), None);
        assert_eq!(preflight(&cors(true), &Method::OPTIONS, &of([(ORIGIN, "https://a.org")])), None);
        let other = of([(ORIGIN, "https://b.org"), (ACCESS_CONTROL_REQUEST_METHOD, "PUT")]);
        assert_eq!(preflight(&cors(true), &Method::OPTIONS, &other), Some(HeaderMap::new()));
    }

    #[test]
    fn an_answer_names_the_origin_and_a_backends_own_word_ends() {
        let told = |cors: &Cors, origin: &'static str| {
            let mut headers = of([(ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (HeaderName::from_static("x-a"), "1")]);
            tell(cors, Some(&HeaderValue::from_static(origin)), &mut headers);
            let value = |name| {
                headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned)
            };
            (value(ACCESS_CONTROL_ALLOW_ORIGIN), value(ACCESS_CONTROL_EXPOSE_HEADERS), value(VARY))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told(&cors(false), "https://a.org"), (some("https://a.org"), some("*"), some("origin")));
        let (origin, exposed, _) = told(&cors(true), "https://a.org");
        assert_eq!((origin, exposed), (some("https://a.org"), some("x-a, vary")));
        assert_eq!(told(&cors(true), "https://b.org"), (None, None, some("origin")));
        let all = Cors { origins: vec![Origin::Any], ..cors(false) };
        assert_eq!(told(&all, "https://b.org"), (some("*"), some("*"), None));
    }
}
