//! Where a request goes and why, or a connection of layer 4, or a flow, told to people: `weir explain`, and `/api/v1/explain`
//! of a proxy.
//!
//! It takes a request through the stages in the order of [`crate::request`], a connection or flow through those of
//! [`crate::layer4`], each of them the very function that serves, over a snapshot: the one in force, or one made of
//! configurations that nobody serves (`config/offline.rs`). What would count, wait or send is not called: rate limits are named
//! and not asked, and no slot, probe or share of a rotation is taken. Only a session that a table knows counts as used.

mod balance;
mod filters;
mod layer4;
mod listeners;
mod question;
mod routes;
mod value;

use question::Sent;
pub use question::{OfRequests, QUESTION_BYTES_MAX, Question, QuestionError};
use routes::Looked;
pub use value::{
    Answer, Answerer, Asks, Backend, Choice, Client, Explanation, Filter, Guards, Header, Listener, Match,
    Path, RateLimit, Request, Retry, Rival, Session, Set, Timeouts, Upstream,
};

use crate::connection::{Peer, Scheme};
use crate::failure::{Failure, REASON_HEADER};
use crate::filters::Editing;
use crate::forwarding;
use crate::http1;
use crate::message::{BodyLength, RequestHead};
use crate::proxied::Ends;
use crate::rates::{self, Telling};
use crate::request::answers::{Ours, filtered};
use crate::request::{Asked, find_route, front};
use crate::sessions::{Keeping, Moment};
use crate::snapshot::{self, Snapshot};
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue};
use lb_core::rate::{LimitPolicy, RateKey, Scope};
use lb_core::route::{Answer as Configured, Found, Route};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What only a process that serves knows.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Its sessions.
    pub keeping: &'a Keeping,
    /// Since 1970.
    pub of_day: Duration,
    /// Since the process began.
    pub since_start: Duration,
}

/// What becomes of a request, a connection or a flow over this snapshot. Without `kept`, as for a proxy that has just started:
/// what sealed cookies say is not known then, and every backend counts as healthy that the configuration does not say is not.
///
/// Costs a look at each match of the request's hosts, and one table of text for each backend of the route.
#[must_use]
pub fn explain(snapshot: &Snapshot, question: &Question, kept: Option<Kept<'_>>) -> Explanation {
    let mut told = Explanation { request: question.told(), ..Explanation::default() };
    let listener = match listeners::find(snapshot, question) {
        Ok((listener, why)) => {
            told.listener = Some(listeners::told(listener, question, why));
            if let Some(wrong) = listeners::other_protocol(listener, question.scheme) {
                told.answer.detail = wrong;
                return told;
            }
            listener
        }
        Err(detail) => {
            told.answer.detail = detail;
            return told;
        }
    };
    let mut story = Story { told, listener, question, kept };
    match &question.sent {
        Some(sent) => story.tell_request(sent),
        None => story.tell_bytes(),
    }
    story.told
}

/// One request, connection or flow on its way.
struct Story<'a> {
    told: Explanation,
    listener: &'a snapshot::Listener,
    question: &'a Question,
    kept: Option<Kept<'a>>,
}

impl Story<'_> {
    fn tell_request(&mut self, sent: &Sent) {
        if let Err(failure) = self.request(sent) {
            self.refused(failure);
        }
    }

    /// The stages, in the order of the request path.
    fn request(&mut self, sent: &Sent) -> Result<(), Failure> {
        let listener = self.listener;
        let mut head = self.head(sent)?;
        let came = head.headers.clone();
        let peer = self.peer();
        let asked_path = head.target.path().to_owned();
        let mut telling = Telling::default();
        let redirect = front::meet(listener, &peer, &mut head, &mut telling);
        self.told.path = Some(Path { asked: asked_path, read: head.target.path().to_owned() });
        if let Some(front) = &telling.front
            && let (Some(own), Some(listener)) = (front.redirect, &mut self.told.listener)
        {
            listener.https_redirect = Some(own.status.as_u16());
            listener.pool = Some(front.pool.to_string());
        }
        if let Some(ours) = redirect? {
            self.ours(&ours, Answerer::Listener, "the listener sends clients of this host to HTTPS");
            return Ok(());
        }
        let asked = Asked { head: &head, peer: &peer, listener };
        let looked = Looked { host: &head.host(), path: Some(head.path()), request: &asked };
        routes::tell(&mut self.told, listener, &looked);
        let Found { route, prefix_bytes } = find_route(listener, &peer, &head)?;
        self.told.answered = true;
        self.told.answer.by = Answerer::Route;
        let client = forwarding::describe_client(&mut head, &peer, listener.client_policy(&route.pool));
        let peer = self.client(client, peer);
        self.guard(route, &peer)?;
        if let Some(own) = &route.filters {
            let mut editing = Editing::default();
            editing.follow(own, &head.headers);
            let before = (head.method.clone(), head.target.clone());
            let outcome = filtered(own, &mut head, &peer, prefix_bytes, &mut editing);
            self.told.filters = filters::told(own, &before, &came, &head, &outcome);
            if let Some(ours) = outcome? {
                let why = match &own.answer {
                    Some(Configured::Redirect(_)) => "the rule redirects",
                    Some(Configured::Response(_)) => "the rule answers itself",
                    None => "the rule answers preflights of CORS",
                };
                self.ours(&ours, Answerer::Route, why);
                return Ok(());
            }
        }
        self.backend(route, &mut head, &peer, &came)
    }

    /// As an HTTP/1.1 client would send it, read as from one.
    fn head(&self, sent: &Sent) -> Result<RequestHead, Failure> {
        let bytes = Bytes::from(sent.head(&self.question.authority));
        if bytes.len() > self.listener.limits.head_bytes_max {
            return Err(Failure::HeadTooLarge);
        }
        Ok(http1::head::request(&bytes, self.listener.limits.headers_max)?.head)
    }

    /// Who is connected, or sends datagrams.
    fn peer(&self) -> Peer {
        let from = SocketAddr::new(self.question.source, 0);
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), self.listener.port);
        Peer::of_listener(self.listener, Ends { from, to })
    }

    fn client(&mut self, client: Option<Peer>, peer: Peer) -> Peer {
        let told = client.as_ref().is_some_and(|client| client.address != peer.address);
        let client = client.unwrap_or(peer);
        self.told.client = Some(Client {
            address: client.address.to_string(),
            scheme: scheme(client.scheme).to_owned(),
            is_told_by_proxies: told,
        });
        client
    }

    fn guard(&mut self, route: &Route, client: &Peer) -> Result<(), Failure> {
        let limits = route.limits.iter().map(|limiter| limit(&limiter.policy, client));
        self.told.guards.rate_limits = limits.collect();
        self.told.guards.body_bytes_max = route.body_bytes_max;
        self.let_in(route, client)
    }

    /// From where it comes.
    fn let_in(&mut self, route: &Route, client: &Peer) -> Result<(), Failure> {
        if let Some(rules) = &route.ip_rules {
            let ruling = rules.ruling(client.address);
            self.told.guards.ip_rules_allow = Some(ruling.may_ask);
            self.told.guards.ip_rules_network = ruling.network.map(|network| network.to_string());
        }
        rates::let_in(route, client)
    }

    /// A request that goes to a backend.
    fn backend(
        &mut self,
        route: &Arc<Route>,
        head: &mut RequestHead,
        peer: &Peer,
        came: &HeaderMap,
    ) -> Result<(), Failure> {
        let seen = balance::session(route, Some(head), peer, self.kept);
        self.told.session = seen.told;
        if let (BodyLength::Known(length), Some(max)) = (head.body, route.body_bytes_max)
            && length > max
        {
            return Err(Failure::BodyTooLarge);
        }
        self.told.upstream = Some(upstream(head, came));
        self.told.timeouts = Some(Timeouts {
            request_ms: route.timeouts.request.map(ms),
            attempt_ms: route.timeouts.attempt.map(ms),
            idle_ms: Some(ms(route.timeouts.idle)),
            total_ms: route.timeouts.total.map(ms),
            ..Timeouts::default()
        });
        self.told.retry = Some(Retry {
            retries_max: route.retry.retries_max,
            statuses: route.retry.statuses.to_vec(),
            backoff_ms: ms(route.retry.backoff),
            hedge_after_ms: route.retry.hedge_after.map(ms),
        });
        let ask = seen.ask.of(Some(head), peer, self.kept);
        balance::tell(&mut self.told, route, &ask, self.question.scheme.noun()).map(drop)
    }

    /// An answer of ours.
    fn ours(&mut self, ours: &Ours, by: Answerer, why: &str) {
        let text = |value: Option<&HeaderValue>| Some(value?.to_str().ok()?.to_owned());
        self.told.answered = true;
        self.told.answer = Answer {
            by,
            status: Some(ours.status.as_u16()),
            reason: text(ours.headers.get(REASON_HEADER)),
            location: text(ours.headers.get(LOCATION)),
            detail: why.to_owned(),
            turned_away: None,
        };
    }

    fn refused(&mut self, failure: Failure) {
        let (status, reason) = failure.answer();
        let answer = &mut self.told.answer;
        answer.status = Some(status.as_u16());
        answer.reason = Some(reason.to_owned());
        if answer.detail.is_empty() {
            answer.detail = failure.to_string();
        }
        if failure == Failure::NoBackend {
            self.told.answered = false;
            answer.by = Answerer::Nobody;
        }
    }
}

fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

fn limit(policy: &LimitPolicy, client: &Peer) -> RateLimit {
    let by = match &policy.key {
        RateKey::Route => "all requests together".to_owned(),
        RateKey::Source { v4_bits, v6_bits } => {
            let bits = if client.address.is_ipv4() { v4_bits } else { v6_bits };
            format!("the client's network, {}/{bits}", client.address)
        }
        RateKey::Header(name) => format!("header {name}"),
        RateKey::Cookie(name) => format!("cookie {name}"),
    };
    RateLimit {
        name: policy.name.to_string(),
        id: policy.id.to_string(),
        by,
        requests: policy.requests,
        period_ms: ms(policy.period),
        is_of_cluster: matches!(policy.scope, Scope::Cluster(_)),
    }
}

/// What the backend is asked, and where that is not what came.
fn upstream(head: &RequestHead, came: &HeaderMap) -> Upstream {
    let mut headers_set = Vec::new();
    for name in head.headers.keys() {
        // What is taken out of it is told with the session, and the rest is the client's.
        let is_new = !head.headers.get_all(name).iter().eq(came.get_all(name).iter());
        if is_new && name != http::header::COOKIE {
            let values = head.headers.get_all(name).iter().map(|value| Header {
                name: name.to_string(),
                value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            });
            headers_set.extend(values);
        }
    }
    let gone = came.keys().filter(|name| !head.headers.contains_key(*name));
    Upstream {
        method: head.method.to_string(),
        host: head.authority.as_ref().map(ToString::to_string).unwrap_or_default(),
        target: head.target.to_string(),
        headers_set,
        headers_removed: gone.map(ToString::to_string).collect(),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The moment of a question.
fn moment(kept: &Kept<'_>) -> Moment {
    Moment { of_day: kept.of_day, since_start: kept.since_start }
}
