//! The command line.

use crate::{demo_backend, explain, run, status, validate};
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use std::io;

/// Weir: a Kubernetes-native load balancer.
#[derive(Debug, Parser)]
#[command(name = "weir", version = version(), propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a folder of manifests: controller and proxy in one process
    Run(run::Args),
    /// Say what became of pools: in a cluster, at controllers, or in `weir run`
    Status(status::Args),
    /// Say where a request goes and why: by manifests, at a controller, or at a proxy
    Explain(explain::Args),
    /// Say what is wrong with manifests
    Validate(validate::Args),
    /// Sample backends that answer everything with what arrived
    DemoBackend(demo_backend::Args),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// The version with the commit it was built from, where the build said so in `WEIR_COMMIT`.
#[must_use]
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("WEIR_COMMIT") {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    }
}

/// Writes the completion script of `shell` to standard output.
///
/// # Errors
/// When standard output is closed.
pub fn completions(shell: Shell) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)
}
