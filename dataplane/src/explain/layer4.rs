//! Where a connection of layer 4 goes, or a flow: the stages of [`crate::layer4`].

use super::question::{Noun, UrlScheme};
use super::routes::Looked;
use super::value::{Answerer, Client, Retry, Timeouts};
use super::{Story, balance, ms, routes};
use crate::failure::Failure;
use crate::layer4::{find_route, in_place_of, passthrough};
use crate::snapshot::Protocol;
use lb_core::route::{PathAlone, Route};

impl Story<'_> {
    pub(super) fn tell_bytes(&mut self) {
        match self.bytes() {
            Ok(()) => self.told.answered = true,
            Err(failure) => self.turned_away(failure),
        }
    }

    /// The stages, in the order of a connection's life. A flow has the same, and waits nowhere.
    fn bytes(&mut self) -> Result<(), Failure> {
        let (listener, scheme) = (self.listener, self.question.scheme);
        let host = self.question.routed_host();
        let peer = self.peer();
        let looked = Looked { host: &host, path: None, request: &PathAlone::default() };
        routes::tell(&mut self.told, listener, &looked);
        if let Some(found) = &mut self.told.route {
            found.why = Some(why(scheme, &host, found.hostname.as_deref()).to_owned());
        }
        let route = find_route(listener, &host)?;
        self.told.client = Some(Client {
            address: peer.address.to_string(),
            scheme: scheme.name().to_owned(),
            is_told_by_proxies: false,
        });
        self.let_in(route, &peer)?;
        self.limits(route);
        let seen = balance::session(route, None, &peer, self.kept);
        self.told.session = seen.told;
        let ask = seen.ask.of(None, &peer, self.kept);
        match balance::tell(&mut self.told, route, &ask, scheme.noun())? {
            None => Ok(()),
            Some(response) => Err(in_place_of(response)),
        }
    }

    fn limits(&mut self, route: &Route) {
        let limits = &route.timeouts;
        if self.question.scheme.noun() == Noun::Flow {
            self.told.timeouts =
                Some(Timeouts { flow_idle_ms: Some(ms(limits.flow_idle)), ..Timeouts::default() });
            // No retry: a flow whose backend is gone has its next datagram for it.
            return;
        }
        self.told.timeouts = Some(Timeouts {
            // A pool says it once for all of its sets.
            connect_ms: route.sets.first().map(|own| ms(own.set.policy.connect_timeout)),
            connection_idle_ms: Some(ms(limits.connection_idle)),
            ..Timeouts::default()
        });
        // At once, whatever became of the one before: nothing was sent yet.
        self.told.retry = Some(Retry { retries_max: route.retry.retries_max, ..Retry::default() });
    }

    fn turned_away(&mut self, failure: Failure) {
        let (client_gets, in_words) = match &self.listener.protocol {
            Protocol::Udp => ("dropped", "datagrams are dropped"),
            Protocol::Passthrough if passthrough::told(failure).is_some() => {
                ("unrecognized_name", "the client gets the alert unrecognized_name")
            }
            _ => ("reset", "the connection is reset"),
        };
        let (_, reason) = failure.answer();
        let answer = &mut self.told.answer;
        answer.by = Answerer::Nobody;
        answer.status = None;
        answer.reason = Some(reason.to_owned());
        answer.turned_away = Some(client_gets.to_owned());
        let told = match failure {
            Failure::NoRoute => std::mem::take(&mut answer.detail),
            Failure::IpDenied => "the rule takes nothing from the client's address".to_owned(),
            Failure::NoBackend => {
                format!("no backend of the rule's sets takes {}s", self.question.scheme.noun())
            }
            other => other.to_string(),
        };
        answer.detail = format!("{told}; {in_words}");
    }
}

/// Why a route has it: by the name that it asks for, which only TLS has.
fn why(scheme: UrlScheme, asked: &str, hostname: Option<&str>) -> &'static str {
    match hostname {
        _ if scheme != UrlScheme::Tls => "the listener's only rule",
        Some(own) if own.starts_with('*') => "the longest wildcard that has the name",
        Some(_) => "the very name that the client asks for",
        None if asked.is_empty() => "the client asks for no name, and this rule is for every one",
        None => "no rule has the name itself, and this one is for every name",
    }
}
