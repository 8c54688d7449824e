//! A path, under each policy.
#![no_main]

use lb_core::path::{DotSegments, DoubleSlashes, EncodedSlashes, PathPolicy, normalize};

libfuzzer_sys::fuzz_target!(|path: &str| {
    for dot_segments in [DotSegments::Resolve, DotSegments::Refuse] {
        for double_slashes in [DoubleSlashes::Merge, DoubleSlashes::Keep, DoubleSlashes::Refuse] {
            for encoded_slashes in [EncodedSlashes::Refuse, EncodedSlashes::Keep, EncodedSlashes::Decode] {
                let policy = PathPolicy { dot_segments, double_slashes, encoded_slashes };
                let Ok(form) = normalize(path, policy) else { continue };
                assert_eq!(
                    normalize(&form, policy).as_deref(),
                    Ok(&*form),
                    "one form, and not another one of it"
                );
                let climbs = form.split('/').any(|segment| matches!(segment, "." | ".."));
                assert!(!climbs, "{form} has dot segments");
            }
        }
    }
});
