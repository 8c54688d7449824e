//! Headers that are not for configuration to change, by their names in lower case.

/// Whether a header is of one connection, or says where a message ends (RFC 9110, section 7.6.1; RFC 9112, section 6).
#[must_use]
pub fn is_of_the_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a header of a request tells backends who asks, underscores read as hyphens.
#[must_use]
pub fn says_who_asks(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-")
        || matches!(&*name, "x-real-ip" | "forwarded" | "client-cert" | "client-cert-chain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_and_who_asks_are_not_to_be_changed_and_the_rest_is() {
        assert!(["connection", "content-length", "transfer-encoding"].into_iter().all(is_of_the_connection));
        assert!(
            ["x-forwarded-for", "x_forwarded-proto", "x-real-ip", "forwarded"].into_iter().all(says_who_asks)
        );
        for name in ["x-forwarded", "forwarded-by", "cookie", "authorization", "content-type"] {
            assert!(!is_of_the_connection(name) && !says_who_asks(name), "{name}");
        }
    }
}
