//! Cross-origin requests.

use super::super::check::{Check, quoted};
use super::super::matches::method;
use weir_crds::pool as spec;
use weir_proto::limits::{CORS_ENTRIES_MAX, CORS_MAX_AGE_S, FILTER_METHODS_MAX};
use weir_proto::push;

pub(super) fn cors(field: &str, own: &spec::Cors, check: &mut Check) -> push::Cors {
    let at = format!("{field}.allowOrigins");
    check.count(&at, &own.allow_origins, (1, CORS_ENTRIES_MAX));
    let origins = own.allow_origins.iter().map(|origin| origin.to_ascii_lowercase());
    let origins: Vec<_> = origins.collect();
    for (index, origin) in origins.iter().enumerate() {
        if !is_origin(origin) {
            let rule = "is not an origin: write it like https://a.example, https://*.example, \
                        https://a.example:8443 or *, without a slash at its end";
            check.refuse(format!("{at}[{index}]"), quoted(origin), rule);
        }
    }
    alone(&at, &own.allow_origins, check);
    let at = format!("{field}.allowMethods");
    check.count(&at, &own.allow_methods, (0, FILTER_METHODS_MAX));
    for (index, text) in own.allow_methods.iter().enumerate() {
        method(&format!("{at}[{index}]"), text, check);
    }
    alone(&at, &own.allow_methods, check);
    let mut headers = |name: &str, own: &[String]| {
        let at = format!("{field}.{name}");
        check.count(&at, own, (0, CORS_ENTRIES_MAX));
        for (index, name) in own.iter().enumerate() {
            check.token(&format!("{at}[{index}]"), name, spec::FIELD_BYTES_MAX);
        }
        alone(&at, own, check);
        own.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let allow_headers = headers("allowHeaders", &own.allow_headers);
    let expose_headers = headers("exposeHeaders", &own.expose_headers);
    let range = (1, i32::try_from(CORS_MAX_AGE_S.1).unwrap_or(i32::MAX));
    push::Cors {
        allow_origins: origins,
        allow_methods: own.allow_methods.clone(),
        allow_headers,
        expose_headers,
        allow_credentials: own.allow_credentials,
        max_age_s: check.between(&format!("{field}.maxAge"), own.max_age, range).unwrap_or_default(),
    }
}

/// A star stands for all, and then for all that is beside it.
fn alone(field: &str, own: &[String], check: &mut Check) {
    if own.len() > 1 && own.iter().any(|entry| entry == "*") {
        check.refuse(field, "\"*\"", "stands for all: leave the others out, or it");
    }
}

fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_port = |port: &str| port == "*" || port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(allowed)
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host == "*" || host.strip_prefix("*.").unwrap_or(host).split('.').all(is_label),
    };
    is_host && port.is_none_or(is_port) && text.len() <= spec::HOSTNAME_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        for right in [
            "*",
            "https://a.example",
            "http://a",
            "https://*.example",
            "https://a.example:8443",
            "https://*.example:*",
            "https://*",
            "http://[::1]:80",
            "http://[::1]",
        ] {
            assert!(is_origin(right), "{right}");
        }
        for wrong in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "ftp://a",
            "https://a.*",
            "https://a*.b",
            "https://a:0",
            "https://a:x",
            "https://[a]",
            "https://a b",
            "null",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }
}
