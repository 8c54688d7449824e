//! Logs: on standard error, as text for people or as JSON for machines.

use clap::ValueEnum;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Variable that sets the level, as `debug` or `weir_proxy=debug,info`; the same for every binary.
const LEVEL_VARIABLE: &str = "RUST_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; coloured on a terminal
    Text,
    /// One JSON object on each line
    Json,
}

/// The flag that all commands that serve share.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LogArgs {
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value = "text", env = "WEIR_LOG_FORMAT")]
    pub log_format: Format,
}

/// Starts logging for the whole process; call it once, before any thread starts.
pub fn start(format: Format) {
    let asked = std::env::var(LEVEL_VARIABLE).ok().filter(|level| !level.is_empty());
    // Kubernetes' libraries repeat at every attempt what we say once, with a remedy.
    let quiet = "kube_runtime::watcher=error,kube_client::client::builder=off";
    let level = format!("{quiet},{}", asked.as_deref().unwrap_or("info"));
    let level = EnvFilter::builder().parse_lossy(level);
    // https://no-color.org
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines =
        tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        Format::Text => lines.with_target(false).init(),
        Format::Json => lines.json().flatten_event(true).init(),
    }
}
