//! Other hosts and paths: for backends, or for clients.

use super::super::check::{Check, quoted};
use weir_crds::pool as spec;
use weir_crds::pool::{PathMatchType, PathModifierType};
use weir_proto::push;
use weir_proto::push::path_change::Change;

pub(super) fn rewrite(
    field: &str,
    own: &spec::UrlRewrite,
    rule: &spec::Rule,
    check: &mut Check,
) -> push::Rewrite {
    if own.hostname.is_none() && own.path.is_none() {
        check.refuse(field, "", "changes nothing: say hostname, path, or both");
    }
    push::Rewrite {
        hostname: hostname(field, own.hostname.as_ref(), check),
        path: own.path.as_ref().map(|own| path(&format!("{field}.path"), own, rule, check)),
    }
}

pub(super) fn redirect(
    field: &str,
    own: &spec::RequestRedirect,
    rule: &spec::Rule,
    check: &mut Check,
) -> push::Redirect {
    let port = own.port.and_then(|port| check.port(&format!("{field}.port"), port));
    if !spec::REDIRECT_CODES.contains(&own.status_code) {
        let rule = "is no status of a redirect: use 301, 302, 303, 307 or 308";
        check.refuse(format!("{field}.statusCode"), own.status_code.to_string(), rule);
    }
    if own.scheme.is_none() && own.hostname.is_none() && own.path.is_none() && own.port.is_none() {
        check.refuse(field, "", "leads back to where it came from: say scheme, hostname, port or path");
    }
    let scheme = own.scheme.map(|scheme| match scheme {
        spec::RedirectScheme::Http => "http",
        spec::RedirectScheme::Https => "https",
    });
    push::Redirect {
        scheme: scheme.unwrap_or_default().to_owned(),
        hostname: hostname(field, own.hostname.as_ref(), check),
        port: port.unwrap_or_default().into(),
        path: own.path.as_ref().map(|own| path(&format!("{field}.path"), own, rule, check)),
        status: own.status_code.try_into().unwrap_or_default(),
    }
}

fn hostname(field: &str, own: Option<&String>, check: &mut Check) -> String {
    let hostname = own.cloned().unwrap_or_default();
    let field = format!("{field}.hostname");
    if hostname.starts_with("*.") {
        check.refuse(field, quoted(&hostname), "has a star, which is no host: write one name");
    } else if own.is_some() {
        check.hostname(&field, &hostname);
    }
    hostname
}

fn path(field: &str, own: &spec::PathModifier, rule: &spec::Rule, check: &mut Check) -> push::PathChange {
    let change = match (own.kind, &own.replace_full_path, &own.replace_prefix_match) {
        (PathModifierType::ReplaceFullPath, Some(path), None) => {
            check.path(&format!("{field}.replaceFullPath"), path);
            Some(Change::Full(path.clone()))
        }
        (PathModifierType::ReplacePrefixMatch, None, Some(path)) => {
            let at = format!("{field}.replacePrefixMatch");
            // Nothing stands for the root.
            if !path.is_empty() {
                check.path(&at, path);
            }
            let is_prefix = |own: &spec::RouteMatch| {
                own.path.as_ref().is_none_or(|path| path.kind == PathMatchType::PathPrefix)
            };
            if !rule.matches.iter().all(is_prefix) {
                let rule =
                    "needs a prefix in each match of the rule: make them PathPrefix, or use ReplaceFullPath";
                check.refuse(at, quoted(path), rule);
            }
            Some(Change::Prefix(path.trim_end_matches('/').to_owned()))
        }
        (kind, ..) => {
            let (wanted, other) = match kind {
                PathModifierType::ReplaceFullPath => ("replaceFullPath", "replacePrefixMatch"),
                PathModifierType::ReplacePrefixMatch => ("replacePrefixMatch", "replaceFullPath"),
            };
            check.refuse(field, "", format!("must have {wanted} for its type, and no {other}"));
            None
        }
    };
    push::PathChange { change }
}
