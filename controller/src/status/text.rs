//! Text that fits: lists that end in "and N more", long words that are cut, no control characters of others.

/// Room that the last words of a cut list take.
const MORE_BYTES: usize = 24;

/// As many items as fit into `bytes_max`, each at most `item_bytes_max` long, and how many more there are.
pub(super) fn listed(
    items: impl IntoIterator<Item = String>,
    more: usize,
    Limits { item_bytes_max, bytes_max }: Limits,
) -> String {
    let mut text = String::new();
    let mut left_out = more;
    for item in items {
        let item = cut(&plain(&item), item_bytes_max);
        if left_out > more || (!text.is_empty() && text.len() + item.len() + MORE_BYTES > bytes_max) {
            left_out += 1;
            continue;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&item);
    }
    if left_out > 0 {
        text.push_str(&format!("; and {left_out} more"));
    }
    text
}

/// How long a list may be, in bytes; an item must fit the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) item_bytes_max: usize,
    pub(super) bytes_max: usize,
}

/// The text, or what fits of it with an ellipsis.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    const ELLIPSIS: &str = "...";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max.saturating_sub(ELLIPSIS.len())).rev().find(|&end| text.is_char_boundary(end));
    format!("{}{ELLIPSIS}", text[..end.unwrap_or(0)].trim_end())
}

/// What a proxy said may hold anything: a terminal prints it.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { item_bytes_max: 20, bytes_max: 60 };

    #[test]
    fn what_fits_is_listed_and_the_rest_is_counted() {
        let items = |count: usize| (0..count).map(|n| format!("item-{n}"));
        assert_eq!(listed(items(2), 0, LIMITS), "item-0; item-1");
        assert_eq!(listed(items(2), 3, LIMITS), "item-0; item-1; and 3 more");
        let many = listed(items(1_000), 3, LIMITS);
        assert!(many.starts_with("item-0; item-1; ") && many.len() <= 60, "{many}");
        let shown = many.matches("item-").count();
        assert!(many.ends_with(&format!("; and {} more", 1_003 - shown)), "{many}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("12345", 5), "12345");
        assert_eq!(cut("123456", 5), "12...");
        assert_eq!(cut("ééé", 5), "é...");
        assert_eq!(listed(["x".repeat(21)], 0, LIMITS), format!("{}...", "x".repeat(17)));
    }

    #[test]
    fn control_characters_of_others_do_not_reach_a_terminal() {
        assert_eq!(listed(["a\u{1b}[2Jb\nc".to_owned()], 0, LIMITS), "a [2Jb c");
    }
}
