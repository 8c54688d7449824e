//! What a sample backend answers.

use crate::demo_backend::DELAY_MAX;
use crate::duration;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version, header};
use http_body_util::Full;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who answered and what arrived.
#[derive(Debug, Serialize)]
pub(super) struct Echo<'a> {
    pub(super) name: &'a str,
    pub(super) address: String,
    pub(super) request: Arrived,
}

/// The request as the backend saw it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Arrived {
    method: String,
    path: String,
    query: Option<String>,
    protocol: &'static str,
    /// Lower-case names; several values of one name are joined with ", " (RFC 9110, 5.3).
    headers: BTreeMap<String, String>,
    pub(super) body_bytes: u64,
}

impl Arrived {
    /// Everything but the body, which is counted later.
    pub(super) fn new(head: &http::request::Parts) -> Self {
        let protocol = match head.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        };
        Self {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            protocol,
            headers: joined(&head.headers),
            body_bytes: 0,
        }
    }
}

fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|before| {
                before.push_str(", ");
                before.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    all
}

/// The delay that `?delay=` asks for, `None` without one.
///
/// # Errors
/// A sentence, when the value is no duration or too long.
pub(super) fn asked_delay(query: Option<&str>) -> Result<Option<Duration>, String> {
    let value = query.into_iter().flat_map(|q| q.split('&')).find_map(|pair| pair.strip_prefix("delay="));
    let delay = value.map(duration::parse).transpose()?;
    if delay.is_some_and(|d| d > DELAY_MAX) {
        return Err(format!("a delay of at most {} s may be asked for", DELAY_MAX.as_secs()));
    }
    Ok(delay)
}

/// A JSON answer that no cache keeps.
pub(super) fn json(method: &Method, status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut text = serde_json::to_vec(body).expect("strings and numbers always serialize");
    text.push(b'\n');
    let length = text.len();
    let body = if method == Method::HEAD { Bytes::new() } else { Bytes::from(text) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_header_are_joined_in_order() {
        let request = http::Request::get("/a?b=c")
            .header("X-Forwarded-For", "192.0.2.1")
            .header("x-forwarded-for", "192.0.2.2")
            .body(())
            .expect("valid");
        let arrived = Arrived::new(&request.into_parts().0);
        assert_eq!(arrived.headers["x-forwarded-for"], "192.0.2.1, 192.0.2.2");
        assert_eq!((arrived.path.as_str(), arrived.query.as_deref()), ("/a", Some("b=c")));
    }

    #[test]
    fn a_delay_is_asked_for_in_the_query_and_has_a_limit() {
        assert_eq!(asked_delay(None), Ok(None));
        assert_eq!(asked_delay(Some("a=1&delay=60s")), Ok(Some(DELAY_MAX)));
        assert!(asked_delay(Some("delay=61s")).expect_err("one past the limit").contains("60 s"));
        assert!(asked_delay(Some("delay=soon")).expect_err("no duration").contains("`soon`"));
    }
}
