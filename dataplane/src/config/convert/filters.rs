//! What a rule does to requests and responses, from the wire.

use super::matches::{in_one_form, method};
use super::{Rejection, check_hostname, header_text, token, within};
use http::{HeaderName, HeaderValue, Method};
use lb_core::route::{
    Cors, FallbackResponse, HeaderChanges, Listed, Origin, PathChange, PathMatch, Redirect, Rewrite,
    RouteMatch, Validation,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use weir_proto::headers::{is_of_the_connection, says_who_asks};
use weir_proto::limits::{
    CORS_ENTRIES_MAX, CORS_MAX_AGE_S, FILTER_HEADERS_MAX, FILTER_METHODS_MAX, MIRROR_DENOMINATOR_MAX,
    MIRRORS_MAX,
};
use weir_proto::push;
use weir_proto::push::filters::Target;
use weir_proto::push::path_change::Change;

const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 1_024;
const BODY_BYTES_MAX: usize = 4_096;

/// The filters of a rule, but for the routes of its mirrors.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct FiltersSpec {
    pub(in super::super) validation: Option<Validation>,
    pub(in super::super) cors: Option<Cors>,
    pub(in super::super) target: Option<TargetSpec>,
    pub(in super::super) request_headers: HeaderChanges,
    pub(in super::super) response_headers: HeaderChanges,
    pub(in super::super) mirrors: Vec<MirrorSpec>,
}

#[derive(Debug, Clone)]
pub(in super::super) enum TargetSpec {
    Rewrite(Rewrite),
    Redirect(Redirect),
    Response(Arc<FallbackResponse>),
}

/// Of one set of the pool.
#[derive(Debug, Clone)]
pub(in super::super) struct MirrorSpec {
    pub(in super::super) set: String,
    pub(in super::super) numerator: u32,
    pub(in super::super) denominator: u32,
}

impl FiltersSpec {
    /// Whether they answer in place of a backend.
    pub(super) fn answer(&self) -> bool {
        matches!(self.target, Some(TargetSpec::Redirect(_) | TargetSpec::Response(_)))
    }
}

/// Checks the filters of a rule that has these matches.
pub(super) fn filters(
    at: &str,
    wire: &push::Filters,
    matches: &[RouteMatch],
    has_set: impl Fn(&str) -> bool,
) -> Result<FiltersSpec, Rejection> {
    let field = format!("{at}.filters");
    if wire.mirrors.len() > MIRRORS_MAX {
        let reason = format!("{} mirrors are too many: use at most {MIRRORS_MAX}", wire.mirrors.len());
        return Err(Rejection::new(field, reason));
    }
    let target = match &wire.target {
        None => None,
        Some(Target::Rewrite(wire)) => Some(TargetSpec::Rewrite(Rewrite {
            hostname: hostname(&field, &wire.hostname)?,
            path: path(&field, wire.path.as_ref(), matches)?,
        })),
        Some(Target::Redirect(wire)) => Some(TargetSpec::Redirect(redirect(&field, wire, matches)?)),
        Some(Target::Response(wire)) => Some(TargetSpec::Response(Arc::new(response(&field, wire)?))),
    };
    Ok(FiltersSpec {
        validation: wire.validation.as_ref().map(|wire| validation(&field, wire)).transpose()?,
        cors: wire.cors.as_ref().map(|wire| cors(&field, wire)).transpose()?,
        target,
        request_headers: changes(&field, wire.request_headers.as_ref(), says_who_asks_or_is_host)?,
        response_headers: changes(&field, wire.response_headers.as_ref(), |_| false)?,
        mirrors: wire.mirrors.iter().map(|wire| mirror(&field, wire, &has_set)).collect::<Result<_, _>>()?,
    })
}

fn says_who_asks_or_is_host(name: &str) -> bool {
    name == "host" || says_who_asks(name)
}

fn changes(
    field: &str,
    wire: Option<&push::HeaderChanges>,
    is_ours: impl Fn(&str) -> bool,
) -> Result<HeaderChanges, Rejection> {
    let Some(wire) = wire else { return Ok(HeaderChanges::default()) };
    if [wire.set.len(), wire.add.len(), wire.remove.len()].into_iter().any(|count| count > FILTER_HEADERS_MAX)
    {
        let reason = format!("too many headers are changed: use at most {FILTER_HEADERS_MAX} in each list");
        return Err(Rejection::new(field, reason));
    }
    let mut seen = BTreeSet::new();
    let mut name = |name: &str| {
        let text = token(field, "", &name.to_ascii_lowercase(), NAME_BYTES_MAX)?;
        if is_of_the_connection(&text) || is_ours(&text) || !seen.insert(Arc::clone(&text)) {
            let reason =
                format!("header {text:?} cannot be changed by a filter, or is changed twice: remove it");
            return Err(Rejection::new(field, reason));
        }
        Ok(HeaderName::from_bytes(text.as_bytes()).expect("a token is a name"))
    };
    let value = |text: &str| {
        let text = header_text(field, "", text, VALUE_BYTES_MAX)?;
        Ok::<_, Rejection>(HeaderValue::from_str(&text).expect("visible ASCII and blanks"))
    };
    let mut fields = |wire: &[push::HeaderField]| {
        let field = |field: &push::HeaderField| Ok((name(&field.name)?, value(&field.value)?));
        wire.iter().map(field).collect::<Result<Vec<_>, Rejection>>()
    };
    let (set, add) = (fields(&wire.set)?, fields(&wire.add)?);
    let remove = wire.remove.iter().map(|text| name(text)).collect::<Result<_, _>>()?;
    Ok(HeaderChanges { set, add, remove })
}

fn hostname(field: &str, text: &str) -> Result<Option<Arc<str>>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_host = http::uri::Authority::try_from(text).is_ok_and(|authority| authority.host() == text);
    if !is_host || text.starts_with('*') {
        return Err(Rejection::new(field, format!("{text:?} is not a host: write a name without a port")));
    }
    check_hostname(text).map_err(|reason| Rejection::new(field, reason))?;
    Ok(Some(text.into()))
}

fn path(
    field: &str,
    wire: Option<&push::PathChange>,
    matches: &[RouteMatch],
) -> Result<Option<PathChange>, Rejection> {
    let Some(wire) = wire else { return Ok(None) };
    let checked = |text: &str| -> Result<String, Rejection> {
        let is_path = text.starts_with('/')
            && http::uri::PathAndQuery::try_from(text).is_ok_and(|path| path.query().is_none());
        let reason = || format!("{text:?} is not a path: begin it with a slash, and encode ? and #");
        if is_path { Ok(in_one_form(text).into_owned()) } else { Err(Rejection::new(field, reason())) }
    };
    Ok(Some(match &wire.change {
        Some(Change::Full(text)) => PathChange::Full(checked(text)?.into()),
        Some(Change::Prefix(text)) => {
            if !matches.iter().all(|wanted| matches!(wanted.path, PathMatch::Prefix(_))) {
                let reason = "a prefix is replaced where a match has none: make every match PathPrefix";
                return Err(Rejection::new(field, reason));
            }
            let text = if text.is_empty() { String::new() } else { checked(text)? };
            PathChange::Prefix(text.trim_end_matches('/').into())
        }
        None => {
            let reason = "the kind of path change is not known to this proxy: upgrade the proxies";
            return Err(Rejection::new(field, reason));
        }
    }))
}

fn redirect(field: &str, wire: &push::Redirect, matches: &[RouteMatch]) -> Result<Redirect, Rejection> {
    let status = u16::try_from(wire.status).ok().filter(|status| [301, 302, 303, 307, 308].contains(status));
    let status = status.ok_or_else(|| {
        let reason = format!("{} is no status of a redirect: use 301, 302, 303, 307 or 308", wire.status);
        Rejection::new(field, reason)
    })?;
    let scheme = match wire.scheme.as_str() {
        "" => None,
        "http" | "https" => Some(wire.scheme.as_str().into()),
        other => return Err(Rejection::new(field, format!("{other:?} is no scheme: use http or https"))),
    };
    let port = match wire.port {
        0 => None,
        port => Some(within(field, "", port, (1, 65_535))?),
    };
    let path = path(field, wire.path.as_ref(), matches)?;
    Ok(Redirect { scheme, hostname: hostname(field, &wire.hostname)?, port, path, status })
}

fn response(field: &str, wire: &push::FallbackResponse) -> Result<FallbackResponse, Rejection> {
    if wire.body.len() > BODY_BYTES_MAX {
        let reason = format!("{} bytes of body are too many: use at most {BODY_BYTES_MAX}", wire.body.len());
        return Err(Rejection::new(field, reason));
    }
    Ok(FallbackResponse {
        status: within(field, "", wire.status, (200, 599))?,
        content_type: header_text(field, "", &wire.content_type, NAME_BYTES_MAX)?,
        body: wire.body.as_slice().into(),
    })
}

fn cors(field: &str, wire: &push::Cors) -> Result<Cors, Rejection> {
    let counts = [&wire.allow_origins, &wire.allow_methods, &wire.allow_headers, &wire.expose_headers];
    if counts.into_iter().any(|list| list.len() > CORS_ENTRIES_MAX) {
        let reason = format!("a list of CORS is too long: use at most {CORS_ENTRIES_MAX} entries");
        return Err(Rejection::new(field, reason));
    }
    let listed = |list: &[String]| -> Result<Listed, Rejection> {
        match list {
            [] => Ok(Listed::Nothing),
            list if list.iter().any(|entry| entry == "*") => Ok(Listed::All),
            list => {
                for entry in list {
                    token(field, "", entry, NAME_BYTES_MAX)?;
                }
                Ok(Listed::Only(HeaderValue::from_str(&list.join(", ")).expect("tokens")))
            }
        }
    };
    Ok(Cors {
        origins: wire.allow_origins.iter().map(|text| origin(field, text)).collect::<Result<_, _>>()?,
        has_credentials: wire.allow_credentials,
        methods: listed(&wire.allow_methods)?,
        headers: listed(&wire.allow_headers)?,
        exposed: listed(&wire.expose_headers)?,
        max_age_s: within(field, "", wire.max_age_s, CORS_MAX_AGE_S)?,
    })
}

fn origin(field: &str, text: &str) -> Result<Origin, Rejection> {
    if text == "*" {
        return Ok(Origin::Any);
    }
    header_text(field, "", text, NAME_BYTES_MAX)?;
    let Some((scheme, host)) = text.split_once("://") else {
        return Err(Rejection::new(
            field,
            format!("{text:?} is not an origin: write it like https://a.example"),
        ));
    };
    let (host, has_any_port) = match host.strip_suffix(":*") {
        Some(host) => (host, true),
        None => (host, false),
    };
    Ok(match (host.strip_prefix('*'), has_any_port) {
        (Some(after), _) => {
            Origin::Wildcard { before: format!("{scheme}://").into(), after: after.into(), has_any_port }
        }
        // What stands before the last byte of the host is fixed; the last has to be there.
        (None, true) => {
            let at = host.len().saturating_sub(1);
            let (begin, last) = host.split_at(at);
            Origin::Wildcard {
                before: format!("{scheme}://{begin}").into(),
                after: last.into(),
                has_any_port,
            }
        }
        (None, false) => Origin::Exact(text.into()),
    })
}

fn validation(field: &str, wire: &push::Validation) -> Result<Validation, Rejection> {
    if wire.methods.len() > FILTER_METHODS_MAX || wire.content_types.len() > FILTER_METHODS_MAX {
        let reason = format!("a list of what is taken is too long: use at most {FILTER_METHODS_MAX} entries");
        return Err(Rejection::new(field, reason));
    }
    let methods = wire.methods.iter().map(|text| method(field, text)).collect::<Result<Vec<Method>, _>>()?;
    let types = wire.content_types.iter().map(|text| {
        let text = header_text(field, "", text, NAME_BYTES_MAX)?;
        Ok(text.strip_suffix('*').filter(|rest| rest.ends_with('/')).map_or(Arc::clone(&text), Into::into))
    });
    let allow = HeaderValue::from_str(&wire.methods.join(", ")).expect("methods");
    Ok(Validation {
        allow: (!methods.is_empty()).then_some(allow),
        methods,
        content_types: types.collect::<Result<_, Rejection>>()?,
    })
}

fn mirror(
    field: &str,
    wire: &push::Mirror,
    has_set: &impl Fn(&str) -> bool,
) -> Result<MirrorSpec, Rejection> {
    if !has_set(&wire.set) {
        let reason =
            format!("there is no backend set {:?} in this pool: add it, or correct the name", wire.set);
        return Err(Rejection::new(field, reason));
    }
    let denominator = within(field, "", wire.denominator, (1, MIRROR_DENOMINATOR_MAX))?;
    let numerator = within(field, "", wire.numerator, (0, denominator))?;
    Ok(MirrorSpec { set: wire.set.clone(), numerator, denominator })
}
