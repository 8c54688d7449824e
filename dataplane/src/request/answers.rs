//! Answers that are configured: those of filters, and those that stand in for a backend's.

use super::edited::Edited;
use super::{Done, skip_what_came, write};
use crate::access_log::Reason;
use crate::connection::Peer;
use crate::course::Course;
use crate::failure::{self, Failure};
use crate::filters::{self, Editing};
use crate::message::{RequestBody, RequestHead, ResponseHead, ResponseSink};
use crate::timer::Deadline;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use lb_core::route::{Answer, FallbackResponse, Filters};

/// What an answer that stands in for a backend's says in `x-weir-reason`.
const FALLBACK: &str = "fallback";

/// An answer of ours, for a request that was not read yet.
pub(crate) struct Ours {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Ours {
    pub(super) async fn send(
        self,
        body: &mut impl RequestBody,
        sink: &mut impl ResponseSink,
        method: &Method,
        deadline: &Deadline,
    ) -> Result<Done, Failure> {
        skip_what_came(body).await;
        if !body.has_ended() {
            sink.close_after();
        }
        let (head, body) = ResponseHead::of_ours(self.status, self.headers, self.body, method);
        write(sink, head, body, deadline).await?;
        Ok((self.status, None))
    }
}

/// Takes a request through the filters of its route: refused, answered here, or changed for the backend.
pub(crate) fn filtered(
    filters: &Filters,
    head: &mut RequestHead,
    peer: &Peer,
    prefix_bytes: usize,
    editing: &mut Editing,
) -> Result<Option<Ours>, Failure> {
    let empty = |(status, headers)| Ours { status, headers, body: Bytes::new() };
    if let Some(cors) = &filters.cors
        && let Some(headers) = filters::preflight(cors, &head.method, &head.headers)
    {
        return Ok(Some(empty((StatusCode::NO_CONTENT, headers))));
    }
    if let Some(validation) = &filters.validation {
        editing.check(head, validation)?;
    }
    match &filters.answer {
        Some(Answer::Redirect(redirect)) => {
            return Ok(Some(empty(filters::redirect(head, peer, redirect, prefix_bytes))));
        }
        Some(Answer::Response(response)) => {
            let (status, headers, body) = configured(response);
            return Ok(Some(Ours { status, headers, body }));
        }
        None => {}
    }
    filters::change(&mut head.headers, &filters.request_headers);
    if let Some(rewrite) = &filters.rewrite {
        filters::rewrite(head, rewrite, prefix_bytes)?;
    }
    Ok(None)
}

/// A configured answer, ready to be sent.
fn configured(response: &FallbackResponse) -> (StatusCode, HeaderMap, Bytes) {
    let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let kind = HeaderValue::from_str(&response.content_type);
    let headers = kind.ok().map(|kind| (CONTENT_TYPE, kind)).into_iter().collect();
    (status, headers, Bytes::copy_from_slice(&response.body))
}

/// Says what was configured in place of a backend's answer.
pub(super) async fn say(
    sink: &mut Edited<'_, impl ResponseSink>,
    response: &FallbackResponse,
    method: &Method,
    course: &Course<'_>,
) -> Result<Done, Failure> {
    let (status, mut headers, body) = configured(response);
    sink.reason = Some(Reason::Failure(FALLBACK));
    headers.insert(failure::REASON_HEADER, HeaderValue::from_static(FALLBACK));
    let (head, body) = ResponseHead::of_ours(status, headers, body, method);
    write(sink, head, body, course.deadline()).await?;
    Ok((status, None))
}
