//! A request as the conditions of routes see it.

use crate::connection::Peer;
use crate::cookie;
use crate::forwarding;
use crate::message::RequestHead;
use crate::snapshot::Listener;
use http::{HeaderMap, Method};
use lb_core::route::Request;
use std::net::IpAddr;
use std::sync::Arc;

/// Before anything of it is changed. Made for each request, and read by few of them.
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) peer: &'a Peer,
    pub(crate) listener: &'a Listener,
}

impl Request for Asked<'_> {
    fn method(&self) -> &Method {
        &self.head.method
    }

    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    fn query(&self) -> Option<&str> {
        self.head.target.query()
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        cookie::first(&self.head.headers, name)
    }

    fn source(&self, pool: &Arc<str>) -> IpAddr {
        forwarding::client_address(self.head, self.peer, self.listener.client_policy(pool))
    }
}
