//! The binaries under test, built once by cargo with the profile of the running test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where one of the workspace's binaries is. The first call builds all of them.
///
/// `CARGO_BIN_EXE_*` exists only for a package's own binaries, and these belong to other packages.
///
/// # Panics
/// When the build fails, with cargo's output above.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(build).join(name);
    assert!(path.is_file(), "the build made no {}", path.display());
    path
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

fn build() -> PathBuf {
    // TARGET/PROFILE/deps/e2e-HASH
    let test = std::env::current_exe().expect("a running test has a file");
    let folder =
        test.parent().and_then(Path::parent).expect("cargo puts tests in PROFILE/deps").to_path_buf();
    let target = folder.parent().expect("PROFILE is in the target folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--target-dir"])
        .arg(target)
        .status()
        .expect("cargo runs this test, so it is there");
    assert!(status.success(), "`cargo build --workspace --bins --profile {profile}` failed");
    folder
}
