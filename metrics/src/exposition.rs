//! The formats of a scrape.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use std::fmt;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, for who asks for it, as Prometheus does.
    OpenMetrics,
    /// The older text format (0.0.4), for everybody else: people, `promtool check metrics`, other scrapers.
    Text,
}

impl Format {
    /// What a request's `Accept` header asks for.
    #[must_use]
    pub fn of_accept(accept: Option<&str>) -> Self {
        let wants = accept.unwrap_or_default().split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_open =
                parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            // A weight of 0 means not at all (RFC 9110, section 12.4.2).
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            is_open && weight != Some(0.0)
        });
        if wants { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics of a registry at the moment.
///
/// # Errors
/// Only for a metric whose encoding is wrong.
pub fn encode(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut out = String::new();
    text::encode(&mut out, registry)?;
    Ok(match format {
        Format::OpenMetrics => out,
        Format::Text => plain(&out),
    })
}

/// OpenMetrics as the older text: there a counter's family has the name of its samples, a fact is a gauge, and there are
/// neither units nor an end.
fn plain(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        match line.strip_prefix("# ").and_then(|line| line.split_once(' ')) {
            Some(("HELP", rest)) => help = rest.split_once(' '),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, help)) = help.take() {
                    // Quotes are escaped in OpenMetrics alone.
                    out.push_str(&format!("# HELP {name}{suffix} {}\n", help.replace("\\\"", "\"")));
                }
                out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            }
            Some(("UNIT", _)) => {}
            _ if line == "# EOF" => {}
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_openmetrics_has_it_and_all_others_have_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, expected) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain; version=0.0.4"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
            (Some("application/openmetrics-text; q=0, */*"), Format::Text),
            (Some("text/plain, application/openmetrics-text; q=0.1"), Format::OpenMetrics),
            (Some("application/openmetrics-texts"), Format::Text),
        ] {
            assert_eq!(Format::of_accept(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn the_older_text_names_families_as_their_samples_and_knows_no_facts_units_and_end() {
        let open = "# HELP a Of \\\"a\\\"\n# TYPE a counter\na_total{b=\"c\"} 1\n# HELP b Of b\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP d_seconds Of d\n# TYPE d_seconds histogram\n# UNIT d_seconds seconds\nd_seconds_sum 0.0\n\
                    # HELP e Of e\n# TYPE e unknown\ne 1\n# EOF\n";
        let text = "# HELP a_total Of \"a\"\n# TYPE a_total counter\na_total{b=\"c\"} 1\n# HELP b_info Of b\n# TYPE b_info gauge\n\
                    b_info{v=\"1\"} 1\n# HELP d_seconds Of d\n# TYPE d_seconds histogram\nd_seconds_sum 0.0\n\
                    # HELP e Of e\n# TYPE e untyped\ne 1\n";
        assert_eq!(plain(open), text);
    }
}
