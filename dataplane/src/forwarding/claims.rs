//! What proxies in front say of a request, where their word counts.
//!
//! Read from its end: each proxy adds what it knows behind what it was told. What is not exactly what it should be is no
//! address, and ends the chain there. A line of `Forwarded` that does not parse as a whole says nothing at all: by an
//! opened quote a client could otherwise swallow what a proxy wrote behind it.

use crate::connection::Scheme;
use http::header::{FORWARDED, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, HeaderName};
use lb_core::addresses::{Chain, Claims, ClientPolicy};
use std::net::{IpAddr, SocketAddr};

/// What is believed of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// From the client to who is connected.
    pub(super) chain: Chain,
    /// How the client asked; `None`: nobody said.
    pub(super) scheme: Option<Scheme>,
    /// What the client called us.
    pub(super) host: Option<HeaderValue>,
}

/// What one proxy said of whom it was asked by.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Element {
    client: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<HeaderValue>,
}

/// Reads the claims of a request, as far as they are to be believed.
pub(super) fn read(headers: &HeaderMap, connected: IpAddr, policy: &ClientPolicy) -> Told {
    let trusted = &policy.trusted;
    let nothing = |chain| Told { chain, scheme: None, host: None };
    if !trusted.trusts(connected) {
        return nothing(trusted.follow(connected, std::iter::empty()));
    }
    match policy.claims {
        Claims::XForwarded => {
            let chain = trusted.follow(connected, addresses(headers));
            // Who counts hops and finds too few of them was reached by another way.
            if trusted.networks.is_none() && chain.addresses.len() == 1 {
                return nothing(chain);
            }
            let scheme = last(headers, &super::PROTO).and_then(scheme);
            let host = last(headers, &super::HOST).and_then(host);
            Told { chain, scheme, host }
        }
        Claims::Forwarded => {
            let elements: Vec<Element> = elements(headers);
            let chain = trusted.follow(connected, elements.iter().map(|element| element.client));
            if trusted.networks.is_none() && chain.addresses.len() == 1 {
                return nothing(chain);
            }
            // Whoever was asked by the client itself knows what it was asked for.
            let by = elements.into_iter().nth(chain.addresses.len().saturating_sub(2)).unwrap_or_default();
            Told { chain, scheme: by.scheme, host: by.host }
        }
    }
}

/// The entries of `X-Forwarded-For`, from the last one on.
fn addresses(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let fields = headers.get_all(super::FOR).iter().rev();
    fields
        .flat_map(|field| field.as_bytes().rsplit(|&byte| byte == b','))
        .map(|entry| address(std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t'])))
}

/// The last value of the last field of a list.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let field = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    Some(field.rsplit(',').next()?.trim_matches([' ', '\t']))
}

/// With or without a port, in brackets or not: proxies write both.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok().or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip())),
    }
}

fn scheme(text: &str) -> Option<Scheme> {
    if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("wss") {
        Some(Scheme::Https)
    } else if text.eq_ignore_ascii_case("http") || text.eq_ignore_ascii_case("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// An authority without user information, that can stand in quotes.
fn host(text: &str) -> Option<HeaderValue> {
    let is_plain = !text.is_empty() && !text.contains(['@', '"', '\\']);
    let authority: Authority = Some(text).filter(|_| is_plain)?.parse().ok()?;
    HeaderValue::from_str(authority.as_str()).ok()
}

/// The elements of `Forwarded`, from the last one on; a line that does not parse is one of which nothing is known.
fn elements(headers: &HeaderMap) -> Vec<Element> {
    let mut elements = Vec::new();
    for field in headers.get_all(FORWARDED).iter().rev() {
        match field.to_str().ok().and_then(line) {
            Some(of_line) => elements.extend(of_line.into_iter().rev()),
            None => elements.push(Element::default()),
        }
    }
    elements
}

/// RFC 7239, section 4.
fn line(text: &str) -> Option<Vec<Element>> {
    let mut elements = vec![Element::default()];
    let mut seen = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.trim_start_matches([' ', '\t']).split_once('=')?;
        let (value, after) = value(after)?;
        let name = name.to_ascii_lowercase();
        // Each parameter once in an element.
        if name.is_empty() || !name.bytes().all(is_token) || seen.contains(&name) {
            return None;
        }
        let element = elements.last_mut().expect("it begins with one");
        match name.as_str() {
            "for" => element.client = address(&value),
            "proto" => element.scheme = scheme(&value),
            "host" => element.host = host(&value),
            _ => {}
        }
        seen.push(name);
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.as_bytes().first() {
            None => return Some(elements),
            Some(b';') => &after[1..],
            Some(b',') => {
                elements.push(Element::default());
                seen.clear();
                &after[1..]
            }
            Some(_) => return None,
        };
    }
}

/// A token or a quoted string (RFC 9110, section 5.6), and what is behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &quoted[at + 1..])),
            (_, '\\') => value.push(characters.next()?.1),
            (_, character) => value.push(character),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_an_address_and_nothing_else_is() {
        for (text, read) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
        ] {
            assert_eq!(address(text), Some(ip(read)), "{text}");
        }
        for text in [
            "",
            "unknown",
            "_hidden",
            "localhost",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.01",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "192.0.2.1 6.6.6.6",
            "0xc0000201",
            "3221225985",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "2001:db8::1%eth0",
            "192.0.2.1/32",
            "'192.0.2.1'",
            "１.1.1.1",
            "-",
            "*",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    fn element(client: Option<&str>, scheme: Option<Scheme>, host: Option<&'static str>) -> Element {
        Element { client: client.map(ip), scheme, host: host.map(HeaderValue::from_static) }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (text, expected) in [
            ("for=192.0.2.1", vec![element(Some("192.0.2.1"), None, None)]),
            (
                "For=\"[2001:db8::1]:4711\";PROTO=HTTPS ; host=\"a.example:80\";by=_x",
                vec![element(Some("2001:db8::1"), Some(Scheme::Https), Some("a.example:80"))],
            ),
            (
                "for=unknown, for=_hidden,for=\"1\\92.0.2.1\"",
                vec![Element::default(), Element::default(), element(Some("192.0.2.1"), None, None)],
            ),
            ("host=\"user@evil\";proto=gopher", vec![Element::default()]),
        ] {
            assert_eq!(line(text), Some(expected), "{text}");
        }
        for text in [
            "",
            ",",
            "for",
            "for=",
            "=1.1.1.1",
            "for=\"1.1.1.1",
            "for=1.1.1.1,",
            "for=1.1.1.1;;proto=http",
            "for=1.1.1.1 proto=http",
            "for=1.1.1.1;for=2.2.2.2",
            "for=[::1]",
            "for=\"a, for=\"[::1]\"",
            "for = 1.1.1.1",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn an_opened_quote_swallows_nothing_that_a_proxy_wrote() {
        // What the client began, and the trusted proxy continued on the same line.
        let line = "for=\"6.6.6.6, for=198.51.100.7;proto=https";
        let headers = HeaderMap::from_iter([(FORWARDED, HeaderValue::from_static(line))]);
        let policy = ClientPolicy {
            trusted: lb_core::addresses::TrustedProxies { networks: None, hops: Some(1) },
            claims: Claims::Forwarded,
            sends_forwarded: false,
        };
        let told = read(&headers, ip("192.0.2.1"), &policy);
        assert_eq!((told.chain.client(), told.scheme, told.host), (ip("192.0.2.1"), None, None));
    }

    #[test]
    fn scheme_and_host_are_those_that_the_clients_own_proxy_saw() {
        let line =
            "for=6.6.6.6;proto=http;host=evil, for=198.51.100.7;proto=https;host=shop.example, for=10.0.0.1";
        let headers = HeaderMap::from_iter([(FORWARDED, HeaderValue::from_static(line))]);
        let trusted = lb_core::addresses::TrustedProxies { networks: None, hops: Some(2) };
        let policy = ClientPolicy { trusted, claims: Claims::Forwarded, sends_forwarded: false };
        let told = read(&headers, ip("192.0.2.1"), &policy);
        assert_eq!(told.chain.addresses, ["198.51.100.7", "10.0.0.1", "192.0.2.1"].map(ip));
        assert_eq!(told.scheme, Some(Scheme::Https));
        assert_eq!(told.host, Some(HeaderValue::from_static("shop.example")));
    }
}
