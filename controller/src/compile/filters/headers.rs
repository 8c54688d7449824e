//! Changes of headers.

use super::super::check::{Check, quoted};
use std::collections::BTreeSet;
use weir_crds::pool as spec;
use weir_proto::headers::{is_of_the_connection, says_who_asks};
use weir_proto::limits::FILTER_HEADERS_MAX;
use weir_proto::push;

/// Whose headers are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Requests,
    Responses,
}

pub(super) fn changes(
    field: &str,
    own: &spec::HeaderModifier,
    of: Of,
    check: &mut Check,
) -> push::HeaderChanges {
    let mut seen = BTreeSet::new();
    let mut fields = |list: &str, own: &[spec::HeaderField], check: &mut Check| {
        let field = format!("{field}.{list}");
        check.count(&field, own, (0, FILTER_HEADERS_MAX));
        let mut compiled = Vec::new();
        for (index, spec::HeaderField { name, value }) in own.iter().enumerate() {
            let at = format!("{field}[{index}]");
            let name = name_of(&format!("{at}.name"), name, of, &mut seen, check);
            check.header_text(&format!("{at}.value"), value, spec::FILTER_VALUE_BYTES_MAX);
            compiled.push(push::HeaderField { name, value: value.trim().to_owned() });
        }
        compiled
    };
    let (set, add) = (fields("set", &own.set, check), fields("add", &own.add, check));
    let at = format!("{field}.remove");
    check.count(&at, &own.remove, (0, FILTER_HEADERS_MAX));
    let names = own.remove.iter().enumerate();
    let remove =
        names.map(|(index, name)| name_of(&format!("{at}[{index}]"), name, of, &mut seen, check)).collect();
    if own.set.is_empty() && own.add.is_empty() && own.remove.is_empty() {
        check.refuse(field, "", "changes nothing: say what to set, add or remove");
    }
    push::HeaderChanges { set, add, remove }
}

/// Checks a name, and gives it in lower case.
fn name_of(field: &str, name: &str, of: Of, seen: &mut BTreeSet<String>, check: &mut Check) -> String {
    check.token(field, name, spec::FIELD_BYTES_MAX);
    let lower = name.to_ascii_lowercase();
    if is_of_the_connection(&lower) {
        let rule = "is a header of the connection or of framing, which filters cannot change: remove it";
        check.refuse(field, quoted(name), rule);
    } else if of == Of::Requests && lower == "host" {
        let rule = "cannot be changed as a header: use the filter URLRewrite with hostname";
        check.refuse(field, quoted(name), rule);
    } else if of == Of::Requests && says_who_asks(&lower) {
        let rule =
            "tells backends who asks, and is Weir's to write: remove it, and see listeners[].clientAddress";
        check.refuse(field, quoted(name), rule);
    }
    check.unique(seen, lower.clone(), field.to_owned(), quoted(name));
    lower
}
