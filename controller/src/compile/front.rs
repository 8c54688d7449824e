//! How clients of a listener come in: sent to HTTPS, told to stay there, and by which proxies.

use super::check::Check;
use super::{layer4, policy};
use weir_crds::pool as spec;
use weir_proto::limits::{HSTS_MAX_AGE_S, PROXY_NETWORKS_MAX};
use weir_proto::push;

/// Shortest `maxAge` that the preload lists of browsers take, in seconds.
const PRELOAD_AGE_MIN_S: u64 = 31_536_000;

/// What a listener says of it, into what it compiled to. `None` where it could not be compiled; it is checked in any case.
pub(super) fn compile(
    field: &str,
    own: &spec::Listener,
    check: &mut Check,
    compiled: Option<push::Listener>,
) -> Option<push::Listener> {
    let is_secure = own.protocol == spec::Protocol::Https;
    let is_layer4 = layer4::is_layer4(own.protocol);
    if own.https_redirect.is_some() && is_secure {
        let rule = "is not for protocol HTTPS, whose clients are there already: remove it";
        check.refuse(format!("{field}.httpsRedirect"), "", rule);
    }
    if own.hsts.is_some() && !is_secure && !is_layer4 {
        let rule = "is for protocol HTTPS, since browsers take it over nothing else: put it on that listener";
        check.refuse(format!("{field}.hsts"), "", rule);
    }
    let redirect = own.https_redirect.as_ref();
    let https_redirect = redirect.map(|own| redirected(&format!("{field}.httpsRedirect"), own, check));
    let hsts = own.hsts.as_ref().map(|own| hsts(&format!("{field}.hsts"), own, check));
    let proxy = own.proxy_protocol.as_ref();
    let proxy_protocol = proxy.map(|own| proxy_protocol(&format!("{field}.proxyProtocol"), own, check));
    Some(push::Listener { https_redirect, hsts, proxy_protocol, ..compiled? })
}

fn redirected(field: &str, own: &spec::HttpsRedirect, check: &mut Check) -> push::HttpsRedirect {
    let statuses = spec::REDIRECT_STATUSES;
    if !statuses.contains(&own.status_code) {
        let rule = "is no status of a redirect: use 301, 302, 303, 307 or 308";
        check.refuse(format!("{field}.statusCode"), own.status_code.to_string(), rule);
    }
    push::HttpsRedirect {
        status: u32::try_from(own.status_code).unwrap_or_default(),
        port: check.port(&format!("{field}.port"), own.port).unwrap_or_default().into(),
    }
}

fn hsts(field: &str, own: &spec::Hsts, check: &mut Check) -> push::Hsts {
    let (min, max) = HSTS_MAX_AGE_S;
    let max_age_s = check.within(&format!("{field}.maxAge"), own.max_age, (min * 1_000, max * 1_000)) / 1_000;
    if own.preload && !(own.include_sub_domains && max_age_s >= PRELOAD_AGE_MIN_S) {
        let rule =
            "needs includeSubDomains and a maxAge of 8760h (a year) or more, as the lists of browsers ask";
        check.refuse(format!("{field}.preload"), "true", rule);
    }
    push::Hsts { max_age_s, include_subdomains: own.include_sub_domains, preload: own.preload }
}

fn proxy_protocol(field: &str, own: &spec::ProxyProtocol, check: &mut Check) -> push::ProxyProtocol {
    let trusted = format!("{field}.trustedCIDRs");
    if own.trusted_cidrs.is_empty() {
        let rule = "is empty: name the networks of the proxies in front, or leave proxyProtocol out";
        check.refuse(trusted.as_str(), "", rule);
    }
    let takes = |version| own.versions.as_ref().is_none_or(|versions| versions.contains(&version));
    if let Some(versions) = &own.versions {
        check.count(&format!("{field}.versions"), versions, (1, 2));
    }
    push::ProxyProtocol {
        trusted_networks: policy::networks(&trusted, &own.trusted_cidrs, PROXY_NETWORKS_MAX, check),
        takes_v1: takes(spec::ProxyProtocolVersion::V1),
        takes_v2: takes(spec::ProxyProtocolVersion::V2),
    }
}
