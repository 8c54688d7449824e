//! Paths, one by one and at random.

use super::*;
use proptest::prelude::*;

fn with(double_slashes: DoubleSlashes, encoded_slashes: EncodedSlashes) -> PathPolicy {
    PathPolicy { dot_segments: DotSegments::Resolve, double_slashes, encoded_slashes }
}

#[test]
fn a_path_that_needs_nothing_is_borrowed() {
    for path in
        ["/", "/a", "/a/b.c", "/a/", "/a:b@c/!$&'()*+,;=~_-", "/a./b..", "/.well-known/x", "/...", "/%20"]
    {
        assert!(
            matches!(normalize(path, PathPolicy::default()), Ok(Cow::Borrowed(same)) if same == path),
            "{path}"
        );
    }
}

#[test]
fn by_default_dots_are_resolved_slashes_merged_and_characters_written_in_one_way() {
    for (path, want) in [
        ("/public/../admin", "/admin"),
        ("/public/%2e%2E/admin", "/admin"),
        ("/public/.%2e/admin", "/admin"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("//admin", "/admin"),
        ("/a//b///c//", "/a/b/c/"),
        ("/a//../b", "/b"),
        ("/%61dmin", "/admin"),
        ("/%7euser", "/~user"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/a{b}|\"<>^`", "/a%7Bb%7D%7C%22%3C%3E%5E%60"),
        ("/%40x%3b", "/%40x%3B"),
        ("/a%252e%252e/b", "/a%252e%252e/b"),
        ("/a%25", "/a%25"),
    ] {
        assert_eq!(normalize(path, PathPolicy::default()).as_deref(), Ok(want), "{path}");
    }
}

#[test]
fn what_readers_take_in_two_ways_is_refused() {
    use PathError::{AboveRoot, Backslash, Control, DotParameters, EncodedSlash, Encoding, Nul, Relative};
    for (path, want) in [
        ("", Relative),
        ("a", Relative),
        ("/..", AboveRoot),
        ("/a/../../b", AboveRoot),
        ("/%", Encoding),
        ("/%2", Encoding),
        ("/%zz", Encoding),
        ("/%+1", Encoding),
        ("/%%32e", Encoding),
        ("/%u002e", Encoding),
        ("/a%00", Nul),
        ("/a\\b", Backslash),
        ("/a b", Control),
        ("/a\u{7f}", Control),
        ("/a%2fb", EncodedSlash),
        ("/a%5Cb", EncodedSlash),
        ("/a/..;/b", DotParameters),
        ("/a/..;x=1/b", DotParameters),
        ("/a/.;/b", DotParameters),
        ("/a/..%3b/b", DotParameters),
    ] {
        assert_eq!(normalize(path, PathPolicy::default()), Err(want), "{path}");
    }
}

#[test]
fn encoded_slashes_are_kept_or_decoded_where_the_policy_says_so_and_hide_no_dots() {
    let keep = with(DoubleSlashes::Merge, EncodedSlashes::Keep);
    for (path, want) in [
        ("/@a%2fb", Ok("/@a%2Fb")),
        ("/a%5cb/..", Ok("/")),
        ("/public%2f..%2fadmin", Err(PathError::EncodedDotSegment)),
        ("/public/..%2fadmin", Err(PathError::EncodedDotSegment)),
        ("/x%2f%2e%2e", Err(PathError::EncodedDotSegment)),
        ("/x/.%5cy", Err(PathError::EncodedDotSegment)),
        ("/x%2f..;p", Err(PathError::EncodedDotSegment)),
        ("/x%2f..y", Ok("/x%2F..y")),
    ] {
        assert_eq!(normalize(path, keep).as_deref().map_err(|error| *error), want, "{path}");
    }
    let decode = with(DoubleSlashes::Merge, EncodedSlashes::Decode);
    for (path, want) in [
        ("/public%2f..%2fadmin", "/admin"),
        ("/public%5c..%5cadmin", "/admin"),
        ("/%2fadmin", "/admin"),
        ("/a%252fb", "/a%252fb"),
    ] {
        assert_eq!(normalize(path, decode).as_deref(), Ok(want), "{path}");
    }
}

#[test]
fn double_slashes_and_dots_follow_the_policy() {
    let keep = with(DoubleSlashes::Keep, EncodedSlashes::Refuse);
    assert_eq!(normalize("//a//b//", keep).as_deref(), Ok("//a//b//"));
    assert_eq!(normalize("/a//../b", keep), Err(PathError::AmbiguousDots));
    let refuse = with(DoubleSlashes::Refuse, EncodedSlashes::Refuse);
    for path in ["//a", "/a//b", "/a//"] {
        assert_eq!(normalize(path, refuse), Err(PathError::DoubleSlash), "{path}");
    }
    assert_eq!(normalize("/a/", refuse).as_deref(), Ok("/a/"));
    let refuse = PathPolicy { dot_segments: DotSegments::Refuse, ..PathPolicy::default() };
    for path in ["/a/../b", "/./a", "/a/%2e%2e"] {
        assert_eq!(normalize(path, refuse), Err(PathError::DotSegment), "{path}");
    }
    assert_eq!(normalize("/.well-known", refuse).as_deref(), Ok("/.well-known"));
}

fn policies() -> impl Strategy<Value = PathPolicy> {
    let slashes =
        prop_oneof![Just(DoubleSlashes::Merge), Just(DoubleSlashes::Keep), Just(DoubleSlashes::Refuse)];
    let encoded =
        prop_oneof![Just(EncodedSlashes::Refuse), Just(EncodedSlashes::Keep), Just(EncodedSlashes::Decode)];
    (slashes, encoded).prop_map(|(slashes, encoded)| with(slashes, encoded))
}

proptest! {
    #[test]
    fn what_is_normal_stays_as_it_is_and_has_no_dots(
        path in "/([ab./;%]|%2[eEfF5]|%5[cC]|\\.\\./|%61|é){0,12}",
        policy in policies(),
    ) {
        if let Ok(normal) = normalize(&path, policy) {
            let again = normalize(&normal, policy);
            prop_assert_eq!(again.as_deref(), Ok(&*normal));
            prop_assert!(normal.starts_with('/'));
            prop_assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "{}", normal);
            if policy.double_slashes == DoubleSlashes::Merge {
                prop_assert!(!normal.contains("//"), "{}", normal);
            }
        }
    }
}
