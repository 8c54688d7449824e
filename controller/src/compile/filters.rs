//! What a rule does to requests and responses, from the specification to the wire.

mod cors;
mod headers;
mod target;

use super::check::{Check, quoted};
use super::matches::method;
use std::collections::BTreeSet;
use weir_crds::pool as spec;
use weir_crds::pool::FilterType;
use weir_proto::limits::{FILTER_METHODS_MAX, MIRRORS_MAX};
use weir_proto::push;
use weir_proto::push::filters::Target;

/// Whether a filter of the rule answers in place of backends.
pub(super) fn answer(rule: &spec::Rule) -> bool {
    let answers = |filter: &spec::RuleFilter| {
        matches!(filter.kind, FilterType::RequestRedirect | FilterType::DirectResponse)
    };
    rule.filters.iter().any(answers)
}

/// The filters of a rule, `None` where it has none. `known` are the pool's backend sets.
pub(super) fn filters(
    field: &str,
    rule: &spec::Rule,
    known: &BTreeSet<&str>,
    check: &mut Check,
) -> Option<push::Filters> {
    if rule.filters.is_empty() {
        return None;
    }
    let field = format!("{field}.filters");
    check.count(&field, &rule.filters, (0, spec::FILTERS_MAX));
    let mut filters = push::Filters::default();
    let mut seen = BTreeSet::new();
    let mut target: Option<FilterType> = None;
    for (index, own) in rule.filters.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if own.kind != FilterType::RequestMirror && !seen.insert(own.kind) {
            check.refuse(
                format!("{field}.type"),
                name(own.kind),
                "is there twice: say all of it in one filter",
            );
        }
        if let FilterType::UrlRewrite | FilterType::RequestRedirect | FilterType::DirectResponse = own.kind
            && let Some(before) = target.replace(own.kind)
            && before != own.kind
        {
            let rule = format!("cannot stand beside {}: a rule has one of them", name(before));
            check.refuse(format!("{field}.type"), name(own.kind), rule);
        }
        if is_of_its_type(&field, own, check) {
            one(&field, own, rule, known, check, &mut filters);
        }
    }
    if filters.mirrors.len() > MIRRORS_MAX {
        let rule = format!("are too many: use at most {MIRRORS_MAX}");
        check.refuse(field, format!("{} mirrors", filters.mirrors.len()), rule);
    }
    Some(filters)
}

fn one(
    field: &str,
    own: &spec::RuleFilter,
    rule: &spec::Rule,
    known: &BTreeSet<&str>,
    check: &mut Check,
    filters: &mut push::Filters,
) {
    if let Some(own) = &own.request_header_modifier {
        let at = format!("{field}.requestHeaderModifier");
        filters.request_headers = Some(headers::changes(&at, own, headers::Of::Requests, check));
    }
    if let Some(own) = &own.response_header_modifier {
        let at = format!("{field}.responseHeaderModifier");
        filters.response_headers = Some(headers::changes(&at, own, headers::Of::Responses, check));
    }
    if let Some(own) = &own.url_rewrite {
        let at = format!("{field}.urlRewrite");
        filters.target = Some(Target::Rewrite(target::rewrite(&at, own, rule, check)));
    }
    if let Some(own) = &own.request_redirect {
        let at = format!("{field}.requestRedirect");
        filters.target = Some(Target::Redirect(target::redirect(&at, own, rule, check)));
    }
    if let Some(own) = &own.direct_response {
        let at = format!("{field}.directResponse");
        filters.target = Some(Target::Response(response(&at, own, check)));
    }
    if let Some(own) = &own.cors {
        filters.cors = Some(cors::cors(&format!("{field}.cors"), own, check));
    }
    if let Some(own) = &own.request_validation {
        filters.validation = Some(validation(&format!("{field}.requestValidation"), own, check));
    }
    if let Some(own) = &own.request_mirror {
        filters.mirrors.extend(mirror(&format!("{field}.requestMirror"), own, known, check));
    }
}

/// The name of a type, as it is written.
fn name(kind: FilterType) -> &'static str {
    match kind {
        FilterType::RequestHeaderModifier => "RequestHeaderModifier",
        FilterType::ResponseHeaderModifier => "ResponseHeaderModifier",
        FilterType::UrlRewrite => "URLRewrite",
        FilterType::RequestRedirect => "RequestRedirect",
        FilterType::RequestMirror => "RequestMirror",
        FilterType::Cors => "CORS",
        FilterType::DirectResponse => "DirectResponse",
        FilterType::RequestValidation => "RequestValidation",
    }
}

/// Whether a filter has the field of its type; refuses one that has not, or has others.
fn is_of_its_type(field: &str, own: &spec::RuleFilter, check: &mut Check) -> bool {
    let fields = [
        (FilterType::RequestHeaderModifier, "requestHeaderModifier", own.request_header_modifier.is_some()),
        (
            FilterType::ResponseHeaderModifier,
            "responseHeaderModifier",
            own.response_header_modifier.is_some(),
        ),
        (FilterType::UrlRewrite, "urlRewrite", own.url_rewrite.is_some()),
        (FilterType::RequestRedirect, "requestRedirect", own.request_redirect.is_some()),
        (FilterType::RequestMirror, "requestMirror", own.request_mirror.is_some()),
        (FilterType::Cors, "cors", own.cors.is_some()),
        (FilterType::DirectResponse, "directResponse", own.direct_response.is_some()),
        (FilterType::RequestValidation, "requestValidation", own.request_validation.is_some()),
    ];
    let mut is_right = true;
    for (kind, field_name, is_there) in fields {
        if is_there == (kind == own.kind) {
            continue;
        }
        is_right = false;
        let at = format!("{field}.{field_name}");
        match is_there {
            true => check.refuse(at, "", format!("is not for type {}: remove it", name(own.kind))),
            false => check.refuse(at, "", format!("is missing: type {} needs it", name(own.kind))),
        }
    }
    is_right
}

fn response(field: &str, own: &spec::DirectResponse, check: &mut Check) -> push::FallbackResponse {
    let status = check.between(&format!("{field}.status"), own.status, (200, 599)).unwrap_or_default();
    if [204, 205, 304].contains(&status) && !own.body.is_empty() {
        let rule = format!("is not for status {status}, whose responses have none: remove it");
        check.refuse(format!("{field}.body"), format!("{} bytes", own.body.len()), rule);
    }
    check.header_text(&format!("{field}.contentType"), &own.content_type, spec::FIELD_BYTES_MAX);
    if own.body.len() > spec::RESPONSE_BODY_BYTES_MAX {
        let rule = format!("are too many: use at most {}", spec::RESPONSE_BODY_BYTES_MAX);
        check.refuse(format!("{field}.body"), format!("{} bytes", own.body.len()), rule);
    }
    push::FallbackResponse { status, content_type: own.content_type.clone(), body: own.body.clone().into() }
}

fn validation(field: &str, own: &spec::RequestValidation, check: &mut Check) -> push::Validation {
    let methods = format!("{field}.methods");
    check.count(&methods, &own.methods, (0, FILTER_METHODS_MAX));
    for (index, text) in own.methods.iter().enumerate() {
        method(&format!("{methods}[{index}]"), text, check);
    }
    let types = format!("{field}.contentTypes");
    check.count(&types, &own.content_types, (0, FILTER_METHODS_MAX));
    for (index, text) in own.content_types.iter().enumerate() {
        if !is_content_type(text) {
            let rule =
                "is not a type of content: write it like application/json or image/*, without parameters";
            check.refuse(format!("{types}[{index}]"), quoted(text), rule);
        }
    }
    push::Validation {
        methods: own.methods.clone(),
        content_types: own.content_types.iter().map(|text| text.to_ascii_lowercase()).collect(),
    }
}

fn is_content_type(text: &str) -> bool {
    let is_name = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !name.is_empty() && name.bytes().all(allowed)
    };
    let parts = text.split_once('/').filter(|_| text.len() <= spec::FIELD_BYTES_MAX);
    parts.is_some_and(|(kind, subtype)| is_name(kind) && (is_name(subtype) || subtype == "*"))
}

fn mirror(
    field: &str,
    own: &spec::RequestMirror,
    known: &BTreeSet<&str>,
    check: &mut Check,
) -> Option<push::Mirror> {
    if !known.contains(own.backend_set.as_str()) {
        let rule = "is not a name in spec.backendSets: add the set or correct the name";
        check.refuse(format!("{field}.backendSet"), quoted(&own.backend_set), rule);
    }
    let (numerator, denominator) = match (own.percent, &own.fraction) {
        (Some(_), Some(_)) => {
            check.refuse(format!("{field}.fraction"), "", "is there beside percent: remove one of them");
            return None;
        }
        (None, None) => (1, 1),
        (Some(percent), None) => (check.number(&format!("{field}.percent"), percent, 100)?, 100),
        (None, Some(spec::Fraction { numerator, denominator })) => {
            let field = format!("{field}.fraction");
            let of = check.between(
                &format!("{field}.denominator"),
                *denominator,
                (1, spec::MIRROR_DENOMINATOR_MAX),
            )?;
            (check.number(&format!("{field}.numerator"), *numerator, *denominator)?, of)
        }
    };
    Some(push::Mirror { set: own.backend_set.clone(), denominator, numerator })
}
