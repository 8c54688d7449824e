//! `cargo run -p weir-proto-generator` writes `proto/src/gen` from `push.proto`; its test fails when they differ.
//!
//! A crate of its own, because a crate whose generated module is missing could not build the test that would
//! write it. protox compiles the `.proto` file in Rust, so nobody needs `protoc`.

use anyhow::Context as _;
use std::{fs, path::Path, path::PathBuf};

const PROTO: &str = "weir/push/v1alpha1/push.proto";
const GENERATED: &str = "weir.push.v1alpha1.rs";

fn main() -> anyhow::Result<()> {
    let path = checked_in();
    fs::write(&path, generate()?).with_context(|| format!("writing {}", path.display()))
}

fn proto_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn checked_in() -> PathBuf {
    proto_root().join("src/gen").join(GENERATED)
}

fn generate() -> anyhow::Result<String> {
    let descriptors = protox::compile([PROTO], [proto_root()]).context("compiling push.proto")?;
    let out = tempfile::tempdir().context("making a temporary folder")?;
    let mut config = prost_build::Config::new();
    config.bytes([".weir.push.v1alpha1.ConfigChunk.payload"]);
    // Key material must not reach a log through a derived Debug; proto/src/redact.rs writes these by hand.
    config.skip_debug(
        ["Certificate", "ConfigChunk", "KeyRing"].map(|name| format!(".weir.push.v1alpha1.{name}")),
    );
    tonic_prost_build::configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, config)
        .context("generating code")?;
    fs::read_to_string(out.path().join(GENERATED)).context("reading the generated file")
}

#[cfg(test)]
mod tests {
    #[test]
    fn checked_in_code_is_what_the_proto_file_gives() {
        let fresh = super::generate().expect("push.proto generates");
        let kept = std::fs::read_to_string(super::checked_in()).expect("proto/src/gen is checked in");
        assert!(
            kept == fresh,
            "proto/src/gen differs from push.proto: run `cargo run -p weir-proto-generator` and commit the result"
        );
    }
}
