//! The checked-in code is what the `.proto` file gives. `WEIR_REGENERATE=1 cargo test -p weir-proto` rewrites it.

use std::{env, fs, path::Path};

#[test]
fn generated_code_matches_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = "weir/push/v1alpha1/push.proto";
    let descriptors = protox::compile([file], [root]).expect("push.proto compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    let mut config = prost_build::Config::new();
    config.bytes([".weir.push.v1alpha1.ConfigChunk.payload"]);
    // Key material must not reach a log through a derived Debug; proto/src/redact.rs writes these by hand.
    config.skip_debug([".weir.push.v1alpha1.Certificate"]);
    tonic_prost_build::configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, config)
        .expect("code is generated");
    let name = "weir.push.v1alpha1.rs";
    let fresh = fs::read_to_string(out.path().join(name)).expect("the generated file");
    let kept = root.join("src/gen").join(name);
    if env::var_os("WEIR_REGENERATE").is_some() {
        fs::write(&kept, &fresh).expect("src/gen is writable");
    }
    let checked_in = fs::read_to_string(&kept).unwrap_or_default();
    assert!(
        checked_in == fresh,
        "proto/src/gen differs from push.proto: run `WEIR_REGENERATE=1 cargo test -p weir-proto` and commit"
    );
}
