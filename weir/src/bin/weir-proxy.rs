//! `weir-proxy`: the data plane as a process of its own, configured by a controller.

use anyhow::Context as _;
use clap::Parser;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use weir::dialing::DialArgs;
use weir::exit::{self, Failure};
use weir::logging::{self, LogArgs};
use weir::serving::ServingArgs;
use weir::state::StateArgs;
use weir_proxy::proxy;
use weir_proxy::signals;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the end waits for a disk that is writing. What is cut leaves the file as it was.
const LAST_WRITE_LIMIT: Duration = Duration::from_secs(1);

/// How long a proxy is served as before once it is to end: endpoints, and load balancers in front that ask `/readyz` every
/// second or two, have noticed by then.
const ACCEPT_FLOOR: Duration = Duration::from_secs(5);

/// Weir's data plane: serves what a controller pushes, and goes on when the controller is away.
#[derive(Debug, Parser)]
#[command(name = "weir-proxy", version = weir::cli::version(), max_term_width = 100)]
struct Args {
    #[command(flatten)]
    dial: DialArgs,
    /// Address that listeners bind
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0", env = "WEIR_BIND")]
    bind: IpAddr,
    /// Name of this proxy, unique among those of the controller [default: HOSTNAME and the process's number]
    #[arg(long, value_name = "NAME", env = "WEIR_PROXY_ID", value_parser = proxy_id)]
    id: Option<String>,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    logging::start(args.log.log_format);
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")
        .map_err(Failure::Failed)
        .and_then(|runtime| {
            let ended = runtime.block_on(run(args));
            runtime.shutdown_timeout(LAST_WRITE_LIMIT);
            ended
        });
    exit::end("weir-proxy", ended)
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    let dialer = args.dial.dialer().context("cannot dial --controller");
    let dialer = dialer.map_err(Failure::Usage)?;
    let stop = signals::stop_on_signals().context("cannot handle signals")?;
    let id = args.id.unwrap_or_else(|| {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "proxy".to_owned());
        format!("{host}-{}", std::process::id())
    });
    let mut options = args.serving.options(id, args.bind, ACCEPT_FLOOR)?;
    options.state = args.state.options();
    let ended = proxy::run(options, dialer, stop).await.map_err(anyhow::Error::from)?;
    Ok(exit::of_proxy(ended))
}

fn proxy_id(text: &str) -> Result<String, String> {
    let max = proxy::PROXY_ID_BYTES_MAX;
    if text.is_empty() || text.len() > max {
        return Err(format!("a proxy's name has 1 to {max} bytes, this one has {}", text.len()));
    }
    Ok(text.to_owned())
}
