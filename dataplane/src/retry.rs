//! Whether a request that failed is sent again, and when.

use crate::failure::Failure;
use crate::message::RequestHead;
use http::StatusCode;
use lb_core::backend::Live;
use lb_core::resilience::RetryPolicy;
use std::sync::Arc;

/// The attempts of one request.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    policy: &'a RetryPolicy,
    is_idempotent: bool,
    retries: u32,
    /// Backends that it was on.
    pub(crate) tried: Vec<Arc<Live>>,
    /// A kept connection turned out closed: the next one is new.
    pub(crate) only_new: bool,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) harm: Harm,
    /// It went over a kept connection, which ended before a byte of an answer came.
    pub(crate) was_stale: bool,
}

/// What sending a request again may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing: the backend cannot have acted on the first attempt.
    None,
    /// What the request asks is done twice.
    Repeats,
    /// It cannot be sent again: the client is gone, or has seen some of an answer.
    Impossible,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The client gets the failure.
    GiveUp,
    /// At once, on a new connection: nobody has failed, a connection was old.
    Refresh,
    /// At once, on another backend.
    Another,
    /// On another backend after the pause of this retry, from 0, if the budget allows.
    Retry(u32),
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy, head: &RequestHead) -> Self {
        Self { is_idempotent: head.method.is_idempotent(), ..Self::of_connection(policy) }
    }

    /// Of a connection of layer 4, which goes to another backend while none has taken it.
    pub(crate) fn of_connection(policy: &'a RetryPolicy) -> Self {
        Self { policy, is_idempotent: false, retries: 0, tried: Vec::new(), only_new: false }
    }

    /// Whether the request may be sent twice (RFC 9110, section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// Whether an answer of this status is worth another attempt, if the budget allows.
    pub(crate) fn is_unwelcome(&self, status: StatusCode) -> bool {
        self.has_left() && self.is_idempotent && self.policy.statuses.contains(&status.as_u16())
    }

    /// What to do after an attempt on `live`.
    pub(crate) fn after(&mut self, failed: Failed, live: &Arc<Live>) -> Next {
        let may_repeat = match failed.harm {
            Harm::None => true,
            Harm::Repeats => self.is_idempotent,
            Harm::Impossible => false,
        };
        if !may_repeat {
            return Next::GiveUp;
        }
        if failed.was_stale && !self.only_new {
            self.only_new = true;
            return Next::Refresh;
        }
        if !self.has_left() {
            return Next::GiveUp;
        }
        self.only_new = false;
        self.tried.push(Arc::clone(live));
        self.retries += 1;
        match failed.harm {
            Harm::None => Next::Another,
            Harm::Repeats | Harm::Impossible => Next::Retry(self.retries - 1),
        }
    }

    fn has_left(&self) -> bool {
        self.retries < self.policy.retries_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{BodyLength, Upgrade};
    use http::{HeaderMap, Method};

    fn head(method: Method) -> RequestHead {
        RequestHead {
            version: http::Version::HTTP_11,
            method,
            authority: None,
            target: "/".parse().expect("a target"),
            headers: HeaderMap::new(),
            body: BodyLength::Empty,
            upgrade: Upgrade::No,
        }
    }

    fn failed(harm: Harm) -> Failed {
        Failed { failure: Failure::BackendClosed, harm, was_stale: false }
    }

    fn policy(retries_max: u32) -> RetryPolicy {
        RetryPolicy { retries_max, ..RetryPolicy::default() }
    }

    #[test]
    fn only_what_may_be_done_twice_is_repeated() {
        let policy = policy(1);
        for (method, harm, next) in [
            (Method::GET, Harm::Repeats, Next::Retry(0)),
            (Method::PUT, Harm::Repeats, Next::Retry(0)),
            (Method::POST, Harm::Repeats, Next::GiveUp),
            (Method::PATCH, Harm::Repeats, Next::GiveUp),
            (Method::POST, Harm::None, Next::Another),
            (Method::GET, Harm::Impossible, Next::GiveUp),
        ] {
            let mut attempts = Attempts::new(&policy, &head(method.clone()));
            assert_eq!(attempts.after(failed(harm), &Arc::default()), next, "{method} {harm:?}");
        }
    }

    #[test]
    fn retries_end_and_each_is_on_a_backend_that_was_not_tried() {
        let policy = policy(2);
        let mut attempts = Attempts::new(&policy, &head(Method::GET));
        let nexts: Vec<_> = (0..3).map(|_| attempts.after(failed(Harm::Repeats), &Arc::default())).collect();
        assert_eq!(nexts, [Next::Retry(0), Next::Retry(1), Next::GiveUp]);
        assert_eq!(attempts.tried.len(), 2);
        let none = self::policy(0);
        assert_eq!(
            Attempts::new(&none, &head(Method::GET)).after(failed(Harm::None), &Arc::default()),
            Next::GiveUp
        );
    }

    #[test]
    fn an_old_connection_costs_no_retry_and_is_forgiven_once() {
        let policy = policy(1);
        let mut attempts = Attempts::new(&policy, &head(Method::GET));
        let stale = Failed { was_stale: true, ..failed(Harm::Repeats) };
        assert_eq!(attempts.after(stale, &Arc::default()), Next::Refresh);
        assert!(attempts.only_new && attempts.tried.is_empty());
        assert_eq!(attempts.after(stale, &Arc::default()), Next::Retry(0));
        let mut post = Attempts::new(&policy, &head(Method::POST));
        assert_eq!(post.after(stale, &Arc::default()), Next::GiveUp, "the backend may have read it");
    }

    #[test]
    fn statuses_are_repeated_while_there_are_retries() {
        let policy = policy(1);
        let mut attempts = Attempts::new(&policy, &head(Method::GET));
        let unwelcome = |attempts: &Attempts<'_>| {
            [500, 502, 503, 504]
                .map(|code| attempts.is_unwelcome(StatusCode::from_u16(code).expect("a status")))
        };
        assert_eq!(unwelcome(&attempts), [false, true, true, true]);
        assert!(!Attempts::new(&policy, &head(Method::POST)).is_unwelcome(StatusCode::BAD_GATEWAY));
        attempts.after(failed(Harm::Repeats), &Arc::default());
        assert_eq!(unwelcome(&attempts), [false; 4]);
    }
}
