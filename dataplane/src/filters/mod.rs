//! What a route's filters do to requests and responses: headers, hosts and paths, answers of ours, CORS, refusals.
//!
//! Who may not be touched was settled when the configuration was read: here every change is made as it stands.

mod cors;
mod target;

pub(crate) use cors::preflight;
pub(crate) use target::{redirect, rewrite};

use crate::failure::Failure;
use crate::message::{BodyLength, RequestHead};
use http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue};
use lb_core::route::{Filters, HeaderChanges, Validation};
use std::sync::Arc;

/// What a route's filters change in the head of a response, whoever answers.
#[derive(Default)]
pub(crate) struct Editing {
    /// Boxed: few requests have any.
    edits: Option<Box<Edits>>,
}

#[derive(Debug)]
struct Edits {
    filters: Arc<Filters>,
    /// Who asked, where CORS is of interest.
    origin: Option<HeaderValue>,
    /// Of a request that was refused for its method.
    allow: Option<HeaderValue>,
}

impl Editing {
    /// From here on the response is that of a request with these headers, to a route with these filters.
    pub(crate) fn follow(&mut self, filters: &Arc<Filters>, asked: &HeaderMap) {
        if filters.touch_responses() || filters.validation.is_some() {
            let origin = filters.cors.as_ref().and_then(|_| asked.get(ORIGIN).cloned());
            self.edits = Some(Box::new(Edits { filters: Arc::clone(filters), origin, allow: None }));
        }
    }

    /// Whether the route takes a request like this.
    ///
    /// # Errors
    /// [`Failure::MethodNotAllowed`] and [`Failure::ContentTypeRefused`].
    pub(crate) fn check(&mut self, head: &RequestHead, validation: &Validation) -> Result<(), Failure> {
        if !validation.takes_method(&head.method) {
            if let Some(edits) = &mut self.edits {
                edits.allow = validation.allow.clone();
            }
            return Err(Failure::MethodNotAllowed);
        }
        let content_type = head.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let has_body =
            !matches!(head.body, BodyLength::Empty | BodyLength::Known(0) | BodyLength::Announced(_));
        if has_body && !validation.takes_content(content_type) {
            return Err(Failure::ContentTypeRefused);
        }
        Ok(())
    }

    /// Makes the changes, once.
    pub(crate) fn edit(&mut self, headers: &mut HeaderMap) {
        if let Some(edits) = self.edits.take() {
            edits.make(headers);
        }
    }
}

impl Edits {
    fn make(self, headers: &mut HeaderMap) {
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, allow);
        }
        if let Some(cors) = &self.filters.cors {
            cors::tell(cors, self.origin.as_ref(), headers);
        }
        change(headers, &self.filters.response_headers);
    }
}

/// Makes changes of headers: set, then add, then remove.
pub(crate) fn change(headers: &mut HeaderMap, changes: &HeaderChanges) {
    for (name, value) in &changes.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &changes.add {
        headers.append(name, value.clone());
    }
    for name in &changes.remove {
        headers.remove(name);
    }
}
