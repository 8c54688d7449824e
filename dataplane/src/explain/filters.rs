//! What filters do to one request, as they did it.

use super::value::Filter;
use crate::failure::Failure;
use crate::filters::preflight;
use crate::message::RequestHead;
use crate::request::answers::Ours;
use http::header::{LOCATION, ORIGIN};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use lb_core::route::{Answer, Cors, Filters, HeaderChanges, Mirror, Rewrite, Validation};

/// Each filter with its effects, in the order in which they act, up to the one that answers. `before` is what was asked
/// before them, with the headers that came; `outcome` is what they came to.
pub(super) fn told(
    filters: &Filters,
    before: &(Method, PathAndQuery),
    came: &HeaderMap,
    head: &RequestHead,
    outcome: &Result<Option<Ours>, Failure>,
) -> Vec<Filter> {
    let mut all = Vec::new();
    let of_request = on_request(filters, before, came, outcome, &mut all);
    if of_request.is_some() {
        if !filters.request_headers.are_none() {
            all.push(filter("RequestHeaderModifier", changes(&filters.request_headers)));
        }
        if let Some(rewrite) = &filters.rewrite {
            all.push(filter("URLRewrite", rewritten(rewrite, &before.1, head)));
        }
        all.extend(filters.mirrors.iter().map(|mirror| filter("RequestMirror", vec![mirrored(mirror)])));
    }
    if !filters.response_headers.are_none() {
        all.push(filter("ResponseHeaderModifier", changes(&filters.response_headers)));
    }
    all
}

/// Those that may answer. `None` where one did.
fn on_request(
    filters: &Filters,
    (method, _): &(Method, PathAndQuery),
    came: &HeaderMap,
    outcome: &Result<Option<Ours>, Failure>,
    all: &mut Vec<Filter>,
) -> Option<()> {
    let ours = outcome.as_ref().ok().and_then(Option::as_ref);
    if let Some(cors) = &filters.cors {
        let is_preflight = preflight(cors, method, came).is_some();
        all.push(filter("CORS", vec![origin(cors, came, is_preflight)]));
        if is_preflight {
            return None;
        }
    }
    if let Some(validation) = &filters.validation {
        all.push(filter("RequestValidation", vec![validated(validation, method, outcome)]));
        if matches!(outcome, Err(Failure::MethodNotAllowed | Failure::ContentTypeRefused)) {
            return None;
        }
    }
    let ours = match ours {
        Some(ours) => ours,
        None if outcome.is_err() => return None,
        None => return Some(()),
    };
    let status = ours.status.as_u16();
    match &filters.answer {
        Some(Answer::Redirect(_)) => {
            let location = ours.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let effect = format!("answers {status} with Location {}", location.unwrap_or("-"));
            all.push(filter("RequestRedirect", vec![effect]));
        }
        Some(Answer::Response(_)) => {
            let effect = format!("answers {status} with {} bytes", ours.body.len());
            all.push(filter("DirectResponse", vec![effect]));
        }
        // Only a preflight is answered otherwise, and was told above.
        None => {}
    }
    None
}

fn filter(kind: &str, effects: Vec<String>) -> Filter {
    Filter { kind: kind.to_owned(), effects }
}

fn origin(cors: &Cors, came: &HeaderMap, is_preflight: bool) -> String {
    let Some(origin) = came.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return "the request names no Origin, so that no origin is told of".to_owned();
    };
    let may = if cors.origins.iter().any(|own| own.covers(origin)) { "may" } else { "may not" };
    if is_preflight {
        format!("answers the preflight 204: {origin} {may} ask")
    } else {
        format!("the response says that {origin} {may} read it")
    }
}

fn validated(validation: &Validation, method: &Method, outcome: &Result<Option<Ours>, Failure>) -> String {
    let methods: Vec<_> = validation.methods.iter().map(Method::as_str).collect();
    let types: Vec<_> = validation.content_types.iter().map(|kind| &**kind).collect();
    match outcome {
        Err(Failure::MethodNotAllowed) => {
            format!("refuses method {method} with 405: takes {}", methods.join(", "))
        }
        Err(Failure::ContentTypeRefused) => {
            format!("refuses the body's Content-Type with 415: takes {}", types.join(", "))
        }
        _ => "takes method and body".to_owned(),
    }
}

fn changes(changes: &HeaderChanges) -> Vec<String> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let set = changes.set.iter().map(|(name, value)| format!("sets {name}: {}", text(value)));
    let add = changes.add.iter().map(|(name, value)| format!("adds {name}: {}", text(value)));
    let remove = changes.remove.iter().map(|name| format!("removes {name}"));
    set.chain(add).chain(remove).collect()
}

fn rewritten(rewrite: &Rewrite, before: &PathAndQuery, head: &RequestHead) -> Vec<String> {
    let path =
        rewrite.path.as_ref().map(|_| format!("path {} becomes {}", before.path(), head.target.path()));
    let host = rewrite.hostname.as_ref().map(|host| format!("host becomes {host}"));
    path.into_iter().chain(host).collect()
}

fn mirrored(mirror: &Mirror) -> String {
    let set = mirror.route.sets.first().map_or("", |own| super::balance::short(&own.set.name));
    let Mirror { numerator, denominator, .. } = mirror;
    if numerator == denominator {
        format!("copies it to {set}")
    } else {
        format!("copies {numerator} in {denominator} to {set}")
    }
}
