//! How clients of a listener come in, from the wire: sent to HTTPS, told to stay there, and by which proxies.

use super::{Rejection, traffic, within};
use crate::proxied::{Proxies, Versions};
use crate::snapshot::HttpsRedirect;
use http::{HeaderValue, StatusCode};
use lb_core::addresses::IpTable;
use std::fmt::Write as _;
use weir_proto::limits::{HSTS_MAX_AGE_S, PROXY_NETWORKS_MAX, REDIRECT_STATUSES};
use weir_proto::push;

pub(super) fn redirect(field: &str, wire: &push::HttpsRedirect) -> Result<HttpsRedirect, Rejection> {
    let known = Some(wire.status).filter(|status| REDIRECT_STATUSES.contains(status));
    let status = known.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let status = status.ok_or_else(|| {
        let reason = format!("{} is no status of a redirect: use 301, 302, 303, 307 or 308", wire.status);
        Rejection::new(format!("{field}.statusCode"), reason)
    })?;
    Ok(HttpsRedirect { status, port: within(field, ".port", wire.port, (1, 65_535))? })
}

/// RFC 6797, section 6.1.
pub(super) fn hsts(field: &str, wire: &push::Hsts) -> Result<HeaderValue, Rejection> {
    let max_age_s: u64 = within(field, ".maxAge", wire.max_age_s, HSTS_MAX_AGE_S)?;
    let mut text = format!("max-age={max_age_s}");
    if wire.include_subdomains {
        text.push_str("; includeSubDomains");
    }
    if wire.preload {
        let _ = write!(text, "; preload");
    }
    Ok(HeaderValue::try_from(text).expect("a number and words"))
}

pub(super) fn proxies(field: &str, wire: &push::ProxyProtocol) -> Result<Proxies, Rejection> {
    let trusted = format!("{field}.trustedCIDRs");
    let networks = traffic::networks(&trusted, &wire.trusted_networks, PROXY_NETWORKS_MAX)?;
    if networks.is_empty() {
        let reason = "no network is trusted: name those of the proxies in front, or leave proxyProtocol out";
        return Err(Rejection::new(trusted, reason));
    }
    if !wire.takes_v1 && !wire.takes_v2 {
        let reason = "no version that this proxy knows is taken: upgrade the proxies, or take V1 or V2";
        return Err(Rejection::new(format!("{field}.versions"), reason));
    }
    let trusted = IpTable::new(networks.into_iter().map(|network| (network, ())));
    Ok(Proxies { trusted, takes: Versions { v1: wire.takes_v1, v2: wire.takes_v2 } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_has_one_of_five_statuses_and_a_port() {
        let read = |status, port| redirect("r", &push::HttpsRedirect { status, port });
        for status in REDIRECT_STATUSES {
            assert_eq!(read(status, 443).map(|made| u32::from(made.status.as_u16())), Ok(status));
        }
        for status in [0, 200, 300, 304, 305, 306, 309, 70_000] {
            assert_eq!(read(status, 443).expect_err("no redirect").field, "r.statusCode", "{status}");
        }
        assert_eq!(read(308, 65_535).map(|made| made.port), Ok(65_535));
        assert_eq!([0, 65_536].map(|port| read(308, port).expect_err("no port").field), ["r.port", "r.port"]);
    }

    #[test]
    fn what_is_said_of_https_is_spelled_as_rfc_6797_has_it() {
        let value = |max_age_s, include_subdomains, preload| {
            hsts("h", &push::Hsts { max_age_s, include_subdomains, preload })
        };
        assert_eq!(value(0, false, false).expect("0 takes it back"), "max-age=0");
        let full = value(HSTS_MAX_AGE_S.1, true, true).expect("at the most");
        assert_eq!(full, "max-age=315360000; includeSubDomains; preload");
        assert_eq!(value(HSTS_MAX_AGE_S.1 + 1, true, true).expect_err("past it").field, "h.maxAge");
    }

    #[test]
    fn proxies_have_networks_up_to_the_limit_and_a_version() {
        let read = |count: usize, takes_v1, takes_v2| {
            let trusted_networks = (0..count).map(|n| format!("10.0.{n}.0/24")).collect();
            proxies("p", &push::ProxyProtocol { trusted_networks, takes_v1, takes_v2 })
        };
        let most = read(PROXY_NETWORKS_MAX, true, false).expect("at the limit");
        assert!(most.trusts("10.0.63.9".parse().expect("an address")));
        assert!(!most.trusts("10.0.64.9".parse().expect("an address")));
        assert_eq!(read(PROXY_NETWORKS_MAX + 1, true, false).expect_err("past it").field, "p.trustedCIDRs");
        assert_eq!(read(0, true, true).expect_err("none").field, "p.trustedCIDRs");
        assert_eq!(read(1, false, false).expect_err("none").field, "p.versions");
    }
}
