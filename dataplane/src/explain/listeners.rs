//! The port that something comes to: which listener that is, and whether it speaks what the client speaks.

use super::question::{Question, UrlScheme};
use super::value::Listener;
use crate::snapshot::{self, Protocol, Snapshot};

/// A listener for the question, and why it is this one; or why there is none.
pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    question: &Question,
) -> Result<(&'a snapshot::Listener, String), String> {
    let (own, others) = match question.scheme {
        UrlScheme::Udp => (&snapshot.datagrams, &snapshot.listeners),
        _ => (&snapshot.listeners, &snapshot.datagrams),
    };
    let find = |port: u16| own.get(&port).map(|listener| &**listener);
    if let Some(port) = question.said_port() {
        let none = || match others.get(&port) {
            Some(other) => {
                let (speaks, said) = (speaks(&other.protocol), question.scheme.name());
                let ask = spoken(&other.protocol).name();
                format!(
                    "port {port} speaks {speaks} alone, and the URL says {said}://: ask {ask}://, or name another --port"
                )
            }
            None => format!("no listener has port {port}; {}", all(snapshot)),
        };
        return Ok((find(port).ok_or_else(none)?, "the port was said".to_owned()));
    }
    // Only requests have a usual one, and all others say theirs.
    let usual = question.scheme.usual_port().unwrap_or_default();
    if let Some(found) = find(usual) {
        return Ok((found, "the usual port of the URL's scheme".to_owned()));
    }
    let mut speaking = own.values().filter(|own| spoken(&own.protocol) == question.scheme);
    match (speaking.next(), speaking.next()) {
        (Some(only), None) => {
            let (speaks, _) = named(&only.protocol);
            Ok((only, format!("no listener has port {usual}, and this one alone speaks {speaks}")))
        }
        _ => Err(format!(
            "no listener has port {usual}: say which one is meant, with --port; {}",
            all(snapshot)
        )),
    }
}

/// Every port.
fn all(snapshot: &Snapshot) -> String {
    let streams = snapshot.listeners.keys().map(ToString::to_string);
    let datagrams = snapshot.datagrams.keys().map(|port| format!("{port} of UDP"));
    match streams.chain(datagrams).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "no pool listens anywhere".to_owned(),
        ports => format!("ports that are listened on: {ports}"),
    }
}

pub(super) fn told(listener: &snapshot::Listener, question: &Question, why: String) -> Listener {
    let (protocol, tls_mode) = named(&listener.protocol);
    let source = question.source;
    let proxy_protocol = match (&listener.proxies, listener.proxies_at(source)) {
        (None, _) => None,
        (Some(_), Some(_)) => Some(format!(
            "{source} is a trusted proxy, whose header of the PROXY protocol says who the client is: ask with that address \
             as the source. What follows is of connections of the proxy's own"
        )),
        (Some(_), None) => Some(format!(
            "{source} is no trusted proxy: it is the client, and a header of the PROXY protocol is not read"
        )),
    };
    Listener {
        port: listener.port,
        protocol: protocol.to_owned(),
        tls_mode: tls_mode.map(ToOwned::to_owned),
        why,
        proxy_protocol,
        ..Listener::default()
    }
}

/// As configuration calls it: the protocol, and the mode of TLS where it has one.
fn named(protocol: &Protocol) -> (&'static str, Option<&'static str>) {
    match protocol {
        Protocol::Http => ("HTTP", None),
        Protocol::Https(_) => ("HTTPS", None),
        Protocol::Tcp => ("TCP", None),
        Protocol::Tls(_) => ("TLS", Some("Terminate")),
        Protocol::Passthrough => ("TLS", Some("Passthrough")),
        Protocol::Udp => ("UDP", None),
    }
}

/// In words.
fn speaks(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP without TLS",
        Protocol::Https(_) => "HTTP over TLS",
        Protocol::Tcp => "plain TCP",
        Protocol::Tls(_) | Protocol::Passthrough => "TLS at layer 4",
        Protocol::Udp => "UDP",
    }
}

/// How a URL for it begins.
fn spoken(protocol: &Protocol) -> UrlScheme {
    match protocol {
        Protocol::Http => UrlScheme::Http,
        Protocol::Https(_) => UrlScheme::Https,
        Protocol::Tcp => UrlScheme::Tcp,
        Protocol::Tls(_) | Protocol::Passthrough => UrlScheme::Tls,
        Protocol::Udp => UrlScheme::Udp,
    }
}

/// What to ask instead, where the listener speaks something else.
pub(super) fn other_protocol(listener: &snapshot::Listener, scheme: UrlScheme) -> Option<String> {
    let spoken = spoken(&listener.protocol);
    if spoken == scheme {
        return None;
    }
    let (port, speaks) = (listener.port, speaks(&listener.protocol));
    let (said, ask) = (scheme.name(), spoken.name());
    let more = match (&listener.protocol, scheme) {
        (Protocol::Http, UrlScheme::Https) => {
            ". Where a trusted proxy in front speaks TLS, add -H 'X-Forwarded-Proto: https'"
        }
        _ => "",
    };
    Some(format!(
        "port {port} speaks {speaks}, and the URL says {said}://: ask {ask}://, or name another --port{more}"
    ))
}
