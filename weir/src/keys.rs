//! Where the keys are kept that proxies share, for a controller without an API server.

use crate::exit::Failure;
use anyhow::anyhow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_controller::keys::{FileError, FileKeeper, ROTATION_INTERVAL, Ring};

/// Where keys are kept.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeysArgs {
    /// File that keeps the keys of session cookies and TLS sessions across a restart
    /// [default: weir/keys in XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FILE", env = "WEIR_KEYS", requires = "folder")]
    keys: Option<PathBuf>,
    /// Where programs keep what they may lose
    #[arg(long, value_name = "FOLDER", env = "XDG_STATE_HOME", hide = true)]
    state_home: Option<PathBuf>,
    /// Of the user
    #[arg(long, value_name = "FOLDER", env = "HOME", hide = true)]
    home: Option<PathBuf>,
}

impl KeysArgs {
    /// The keys, and who keeps them; `None` where there is no place for them unless one is named, which is said once.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a file that was named and cannot be used, and for any file of keys that others may know.
    pub fn open(&self, manifests: &Path) -> Result<Option<(FileKeeper, Arc<Ring>)>, Failure> {
        let Some(path) = self.keys.clone().or_else(|| self.own_place()) else {
            tracing::warn!(
                "neither --keys nor HOME says where keys are kept: sessions end when this process does"
            );
            return Ok(None);
        };
        if is_within(&path, manifests) {
            if self.keys.is_none() {
                tracing::warn!(
                    "keys would lie among the manifests: sessions end when this process does; name a file with --keys"
                );
                return Ok(None);
            }
            return Err(Failure::Usage(anyhow!(
                "the keys in {} would be among the manifests: name a file elsewhere with --keys",
                path.display()
            )));
        }
        match FileKeeper::open(&path, ROTATION_INTERVAL) {
            Ok(opened) => Ok(Some(opened)),
            Err(error @ FileError::Place { .. }) if self.keys.is_none() => {
                let causes = weir_dial::with_causes(&error);
                tracing::warn!(
                    "{causes}: sessions end when this process does; name a file that can be written with --keys"
                );
                Ok(None)
            }
            Err(error) => Err(Failure::Usage(error.into())),
        }
    }

    /// By the XDG base directory specification: relative paths count as none.
    fn own_place(&self) -> Option<PathBuf> {
        let absolute = |folder: &Option<PathBuf>| folder.clone().filter(|folder| folder.is_absolute());
        let state = absolute(&self.state_home);
        let state = state.or_else(|| Some(absolute(&self.home)?.join(".local/state")))?;
        Some(state.join("weir/keys"))
    }
}

/// Whether a file is, or would be, in this folder or below it.
fn is_within(file: &Path, folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    // The file may not be there yet, nor the folders above it.
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let above = absolute.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
    folder.is_dir() && above.is_some_and(|above| above.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn args(keys: Option<&Path>, state_home: Option<&Path>, home: Option<&Path>) -> KeysArgs {
        let own = |path: Option<&Path>| path.map(ToOwned::to_owned);
        KeysArgs { keys: own(keys), state_home: own(state_home), home: own(home) }
    }

    #[test]
    fn keys_are_kept_where_they_outlive_the_process_and_nobody_had_to_say_so() {
        let path = |state: Option<&str>, home: Option<&str>| {
            args(None, state.map(Path::new), home.map(Path::new)).own_place()
        };
        let home = Some("/var/weir");
        assert_eq!(path(Some("/state"), home), Some("/state/weir/keys".into()));
        assert_eq!(path(None, home), Some("/var/weir/.local/state/weir/keys".into()));
        assert_eq!(path(Some("state"), home), Some("/var/weir/.local/state/weir/keys".into()));
        assert_eq!(path(None, None), None);
    }

    #[test]
    fn the_same_keys_are_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (manifests, state) = (folder.path().join("manifests"), folder.path().join("state"));
        fs::create_dir(&manifests).expect("made");
        let args = args(None, Some(&state), None);
        let open = || args.open(&manifests).expect("opened").expect("a place").1;
        assert_eq!(open(), open());
    }

    #[test]
    fn keys_never_lie_among_the_manifests() {
        let folder = tempfile::tempdir().expect("a folder");
        let manifests = folder.path().join("manifests");
        fs::create_dir_all(manifests.join("below")).expect("made");
        for path in
            ["manifests/keys", "manifests/below/keys", "manifests/new/keys", "manifests/../manifests/keys"]
        {
            let refused = args(Some(&folder.path().join(path)), None, None).open(&manifests);
            assert!(matches!(refused, Err(Failure::Usage(_))), "{path}");
        }
        assert!(args(None, Some(&manifests), None).open(&manifests).expect("goes on").is_none());
        assert_eq!(fs::read_dir(&manifests).expect("a folder").count(), 1, "nothing was written");
        let beside = folder.path().join("manifests-keys");
        assert!(args(Some(&beside), None, None).open(&manifests).is_ok());
    }

    #[test]
    fn a_named_file_that_cannot_be_used_ends_the_start_and_an_own_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        let manifests = folder.path().join("manifests");
        let named = args(Some(&file.join("keys")), None, None).open(&manifests);
        assert!(matches!(named, Err(Failure::Usage(_))));
        assert!(args(None, Some(&file), None).open(&manifests).expect("goes on").is_none());
        assert!(args(None, None, None).open(&manifests).expect("goes on").is_none());
    }

    #[test]
    fn keys_that_others_may_know_end_the_start_wherever_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let args = args(None, Some(folder.path()), None);
        args.open(Path::new("none")).expect("made");
        let path = folder.path().join("weir/keys");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        match args.open(Path::new("none")) {
            Err(failure @ Failure::Usage(_)) => assert!(failure.sentence().contains("644")),
            other => panic!("{other:?}"),
        }
    }
}
