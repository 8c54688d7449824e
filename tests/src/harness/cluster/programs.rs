//! The programs of the control plane: those of `KUBEBUILDER_ASSETS`, else built from `tests/kube/`.

use crate::harness::binaries;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where one of them is. The first call builds what is missing, which takes minutes and says so.
///
/// # Panics
/// When it is neither there nor can be built.
pub(super) fn path(name: &str) -> &'static Path {
    static FOUND: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find).get(name).unwrap_or_else(|| panic!("tests/kube/build knows no {name}"))
}

fn find() -> BTreeMap<String, PathBuf> {
    let build = binaries::workspace().join("tests/kube/build");
    let output = Command::new(&build).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{} does not start: {error}", build.display()));
    assert!(
        output.status.success(),
        "the tests with a cluster run a real Kubernetes control plane, which tests/kube/build cannot find or build (what \
         it said is above): install Go (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd, \
         kube-apiserver, kube-controller-manager and kubectl"
    );
    let text = String::from_utf8(output.stdout).expect("names and paths");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).collect()
}
