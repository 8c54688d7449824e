//! Flags of `weir-proxy` that say where it keeps its last known good configuration. `weir run` has none: its manifests
//! are there.

use crate::duration;
use std::path::PathBuf;
use std::time::Duration;
use weir_proxy::config::disk::StateOptions;

/// Where and how the last known good configuration is kept.
#[derive(Debug, Clone, clap::Args)]
pub struct StateArgs {
    /// Folder in which this proxy alone keeps its configuration, so that it starts and serves without a controller
    /// [default: nothing is kept]
    #[arg(long, value_name = "FOLDER", env = "WEIR_STATE_FOLDER")]
    state_folder: Option<PathBuf>,
    /// Key (32 bytes, or as many in base64) with which private keys in the folder are sealed; without it they are kept
    /// on tmpfs only, and elsewhere HTTPS listeners wait for a controller after a restart
    #[arg(long, value_name = "FILE", requires = "state_folder", env = "WEIR_STATE_KEY_FILE")]
    state_key_file: Option<PathBuf>,
    /// How long a proxy that serves its kept configuration waits for a controller before it is ready
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration::parse,
        env = "WEIR_STATE_GRACE"
    )]
    state_grace: Duration,
}

impl StateArgs {
    /// `None` where nothing is to be kept.
    #[must_use]
    pub fn options(self) -> Option<StateOptions> {
        let Self { state_folder, state_key_file: key_file, state_grace: grace } = self;
        // An environment may say it with nothing in it.
        let state_folder = state_folder.filter(|folder| !folder.as_os_str().is_empty());
        state_folder.map(|folder| StateOptions { folder, key_file, grace })
    }
}
