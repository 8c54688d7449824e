//! Tables for people: aligned, coloured where a terminal shows them, no control characters of others. Pure.

use super::report::{Pool, Proxy, Report, Summary};
use std::time::Duration;

/// Characters of a sentence in a narrow table; past it the rest is left to `-o wide`.
const SENTENCE_MAX: usize = 80;

/// How a table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) width: Width,
    pub(super) paint: Paint,
}

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// What matters first, sentences cut.
    Narrow,
    /// Everything.
    Wide,
}

/// Whether words have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Colours,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Neutral,
    Good,
    Bad,
}

type Cell = (String, Mood);

/// Pools, and below them the proxies where they are known.
pub(super) fn drawn(report: &Report, style: Style) -> String {
    let mut text = if report.pools.is_empty() {
        "There are no LoadBalancerPools.\n".to_owned()
    } else {
        let heads: &[&str] = match style.width {
            Width::Narrow => &["POOL", "READY", "PROXIES", "STATUS", "LAG", "MESSAGE"],
            Width::Wide => &[
                "POOL",
                "READY",
                "PROXIES",
                "STATUS",
                "LAG",
                "GENERATION",
                "CONFIG",
                "CONDITIONS",
                "MESSAGE",
            ],
        };
        aligned(heads, report.pools.iter().map(|pool| pool_row(pool, style.width)).collect(), style.paint)
    };
    if let Some(proxies) = &report.proxies {
        text.push('\n');
        if proxies.is_empty() {
            text.push_str("No proxies are connected.\n");
        } else {
            let narrow = ["PROXY", "REPLICA", "POOLS", "LAG", "P50", "P99", "RESENDS", "LACKS", "LAST NACK"];
            let wide = ["IDENTITY", "AGE", "SENT", "LONGEST"];
            let heads: Vec<&str> = match style.width {
                Width::Narrow => narrow.to_vec(),
                Width::Wide => narrow[..7].iter().chain(&wide).chain(&narrow[7..]).copied().collect(),
            };
            let rows = proxies.iter().map(|proxy| proxy_row(proxy, style.width)).collect();
            text.push_str(&aligned(&heads, rows, style.paint));
        }
    }
    text
}

fn pool_row(pool: &Pool, width: Width) -> Vec<Cell> {
    let none = Summary::default();
    let summary = pool.status.as_ref().map_or(&none, |status| &status.summary);
    let said = |text: &Option<String>| neutral(text.as_deref().unwrap_or("-"));
    let mood = if pool.is_good() { Mood::Good } else { Mood::Bad };
    let is_older = pool.status.as_ref().and_then(|status| status.observed_generation);
    let is_older = is_older.is_some_and(|observed| observed < pool.generation);
    let state = match &summary.state {
        _ if is_older => "Outdated",
        Some(state) => state,
        None => "Unknown",
    };
    let message = match &summary.message {
        _ if is_older => {
            "No controller has looked at this generation yet: is one running, and does it hold the Lease?"
        }
        Some(message) => message,
        None => "No controller has looked at it: is one running, and does it watch this namespace?",
    };
    let mut row = vec![
        neutral(&format!("{}/{}", pool.namespace, pool.name)),
        said(&summary.ready),
        said(&summary.proxies),
        (plain(state), mood),
        said(&summary.lag),
    ];
    if width == Width::Wide {
        let config = pool.status.as_ref().and_then(|status| status.programmed.as_ref());
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        let conditions = conditions.map(|of| format!("{}={}/{}", of.kind, of.status, of.reason));
        row.push(neutral(&pool.generation.to_string()));
        row.push(neutral(config.map_or("-", |programmed| &programmed.config_version)));
        row.push(neutral(&conditions.collect::<Vec<_>>().join(",")));
    }
    row.push(neutral(&sentence(message, width)));
    row
}

fn proxy_row(proxy: &Proxy, width: Width) -> Vec<Cell> {
    let time = |seconds: Option<f64>| neutral(&seconds.map_or_else(|| "-".to_owned(), shown));
    let took = proxy.propagation.as_ref();
    let mood = if proxy.current == proxy.pools && proxy.refused == 0 { Mood::Good } else { Mood::Bad };
    let lacks = match proxy.lacks.as_slice() {
        [] => "-".to_owned(),
        [only] if proxy.behind == 1 => only.pool.clone(),
        [first, ..] => format!("{} and {} more", first.pool, proxy.behind.saturating_sub(1)),
    };
    let nack = proxy.last_nack.as_ref().map(|nack| {
        let field = if nack.field.is_empty() { "spec" } else { &nack.field };
        format!("{} {field}: {} ({} ago)", nack.pool, nack.reason, shown(nack.seconds_ago))
    });
    let mut row = vec![
        neutral(&proxy.proxy),
        neutral(&proxy.replica),
        (format!("{}/{}", proxy.current, proxy.pools), mood),
        time(proxy.lag_seconds),
        time(took.map(|took| took.p50_seconds)),
        time(took.map(|took| took.p99_seconds)),
        neutral(&(proxy.divergences + proxy.snapshot_requests).to_string()),
    ];
    if width == Width::Wide {
        row.push(neutral(&proxy.identity));
        row.push(time(Some(proxy.stream_age_seconds)));
        row.push(neutral(&bytes(proxy.sent_bytes)));
        row.push(time(took.map(|took| took.longest_seconds)));
    }
    row.push(neutral(&lacks));
    row.push(neutral(&sentence(nack.as_deref().unwrap_or("-"), width)));
    row
}

fn neutral(text: &str) -> Cell {
    (plain(text), Mood::Neutral)
}

/// What others said may hold anything, and a terminal obeys some of it.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn sentence(text: &str, width: Width) -> String {
    if width == Width::Wide || text.chars().count() <= SENTENCE_MAX {
        return text.to_owned();
    }
    let begin: String = text.chars().take(SENTENCE_MAX - 3).collect();
    format!("{}...", begin.trim_end())
}

/// Three digits, in the unit that suits.
fn shown(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    match duration.as_millis() {
        0..10 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        10..1_000 => format!("{}ms", duration.as_millis()),
        1_000..60_000 => format!("{:.1}s", duration.as_secs_f64()),
        60_000..3_600_000 => format!("{}m", duration.as_secs() / 60),
        3_600_000.. => format!("{}h", duration.as_secs() / 3_600),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count}B"),
        1_024..1_048_576 => format!("{}KiB", count >> 10),
        1_048_576.. => format!("{}MiB", count >> 20),
    }
}

/// Columns as wide as their widest cell, three spaces apart, as kubectl has them.
fn aligned(heads: &[&str], rows: Vec<Vec<Cell>>, paint: Paint) -> String {
    let heads = heads.iter().map(|head| neutral(head)).collect::<Vec<_>>();
    let lines: Vec<_> = std::iter::once(heads).chain(rows).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|(text, _)| text.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|at| width(at).unwrap_or_default()).collect();
    let mut text = String::new();
    for line in &lines {
        for (at, (cell, mood)) in line.iter().enumerate() {
            let is_last = at + 1 == line.len();
            let space = if is_last { 0 } else { widths[at] + 3 - cell.chars().count() };
            match (paint, mood) {
                (Paint::Colours, Mood::Good) => text.push_str(&format!("\x1b[32m{cell}\x1b[0m")),
                (Paint::Colours, Mood::Bad) => text.push_str(&format!("\x1b[31m{cell}\x1b[0m")),
                (Paint::Plain, _) | (Paint::Colours, Mood::Neutral) => text.push_str(cell),
            }
            text.extend(std::iter::repeat_n(' ', space));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::pool;
    use super::super::report::{Lack, Nack, Propagation};
    use super::*;

    const NARROW: Style = Style { width: Width::Narrow, paint: Paint::Plain };

    fn proxy() -> Proxy {
        Proxy {
            proxy: "edge/proxy-1".into(),
            replica: "weir-0".into(),
            identity: "pod edge/proxy-1".into(),
            stream_age_seconds: 125.0,
            sent_bytes: 4_096,
            pools: 3,
            current: 1,
            behind: 2,
            lag_seconds: Some(6.04),
            lacks: ["shop/a", "shop/b"].map(|pool| Lack { pool: pool.into(), ..Lack::default() }).into(),
            propagation: Some(Propagation {
                p50_seconds: 0.001_7,
                p99_seconds: 0.042,
                longest_seconds: 1.25,
                ..Propagation::default()
            }),
            last_nack: Some(Nack {
                pool: "shop/c".into(),
                field: String::new(),
                reason: "no\u{1b}[2J".into(),
                seconds_ago: 7_300.0,
                ..Nack::default()
            }),
            divergences: 1,
            snapshot_requests: 1,
            ..Proxy::default()
        }
    }

    #[test]
    fn pools_and_proxies_stand_in_columns() {
        let good = pool("shop", "True", "False");
        let report = Report::new(vec![good, pool("a", "False", "True")], Some(vec![proxy()]));
        assert_eq!(
            drawn(&report, NARROW),
            "POOL        READY   PROXIES   STATUS        LAG   MESSAGE\n\
             shop/a      2/3     1/2       ProxyBehind   6s    1 of 2 proxies are behind\n\
             shop/shop   2/3     1/2       Programmed    6s    1 of 2 proxies are behind\n\
             \n\
             PROXY          REPLICA   POOLS   LAG    P50     P99    RESENDS   LACKS               LAST NACK\n\
             edge/proxy-1   weir-0    1/3     6.0s   1.7ms   42ms   2         shop/a and 1 more   shop/c spec: no [2J (2h ago)\n"
        );
    }

    #[test]
    fn a_wide_table_has_everything_and_uncut_sentences() {
        let mut long = pool("shop", "True", "False");
        let message = "x".repeat(SENTENCE_MAX + 1);
        long.status.as_mut().expect("a status").summary.message = Some(message.clone());
        let report = Report::new(vec![long], Some(vec![proxy()]));
        assert!(!drawn(&report, NARROW).contains(&message));
        assert!(drawn(&report, NARROW).contains(&format!("{}...\n", "x".repeat(SENTENCE_MAX - 3))));
        let wide = drawn(&report, Style { width: Width::Wide, ..NARROW });
        let conditions = "Programmed=True/Pending,Degraded=False/ProxyBehind";
        for said in [&message, conditions, "00ab", "pod edge/proxy-1", "2m", "4KiB", "1.2s", "GENERATION"] {
            assert!(wide.contains(said), "{said} in {wide}");
        }
    }

    #[test]
    fn what_nobody_looked_at_is_said_to_be_unknown() {
        let unseen = Pool { status: None, ..pool("shop", "True", "False") };
        let table = drawn(&Report::new(vec![unseen], None), NARROW);
        assert!(
            table.contains("shop/shop   -       -         Unknown   -     No controller has looked"),
            "{table}"
        );
        let older = Pool { generation: 9, ..pool("shop", "True", "False") };
        assert!(drawn(&Report::new(vec![older], None), NARROW).contains("Outdated"));
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(drawn(&Report::default(), NARROW), "There are no LoadBalancerPools.\n");
        let report = Report::new(Vec::new(), Some(Vec::new()));
        assert_eq!(drawn(&report, NARROW), "There are no LoadBalancerPools.\n\nNo proxies are connected.\n");
    }

    #[test]
    fn colours_are_for_terminals_and_do_not_move_columns() {
        let report = Report::new(vec![pool("a", "True", "False"), pool("b", "False", "True")], None);
        let painted = drawn(&report, Style { paint: Paint::Colours, ..NARROW });
        assert!(
            painted.contains("\x1b[32mProgrammed\x1b[0m    6s")
                && painted.contains("\x1b[31mProxyBehind\x1b[0m   6s")
        );
        let stripped =
            ["\x1b[32m", "\x1b[31m", "\x1b[0m"].iter().fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(stripped, drawn(&report, NARROW));
    }

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, expected) in [
            (0.0, "0.0ms"),
            (0.009_9, "9.9ms"),
            (0.01, "10ms"),
            (0.999, "999ms"),
            (59.94, "59.9s"),
            (60.0, "1m"),
            (7_200.0, "2h"),
            (-1.0, "0.0ms"),
        ] {
            assert_eq!(shown(seconds), expected);
        }
        assert_eq!([1_023, 1_024, 3 << 20].map(bytes), ["1023B", "1KiB", "3MiB"]);
    }
}
