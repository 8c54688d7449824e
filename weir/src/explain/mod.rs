//! `weir explain`: where a request goes and why, or a connection of layer 4, or a flow, by manifests, by what a controller has
//! compiled, or by what a proxy serves.

mod source;
mod text;

use crate::exit::{self, Failure};
use crate::fetch::Admin;
use anyhow::Context as _;
use clap::ValueEnum;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use text::Paint;
use weir_proxy::explain::{Explanation, Question};

/// Flags of `weir explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when a route answers the request (with a redirect or a refusal, too), or a backend takes the \
                  connection or flow; with 1 when nothing does, and with 2 when that could not be found out."
)]
pub struct Args {
    /// The request: a method (GET where there is none), and a whole URL, with scheme and host. Or where a connection or a
    /// datagram goes to: tcp://HOST:PORT, tls://NAME:PORT with the name that the client asks for, or udp://HOST:PORT
    #[arg(value_name = "[METHOD] URL", num_args = 1..=2, required = true)]
    asked: Vec<String>,
    /// A header of the request, like 'Cookie: a=b'; once for each. Host takes the place of the URL's host
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Address that the connection comes from
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source: IpAddr,
    /// Port of the listener, where it is not the URL's: behind a Service, say
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    of: Of,
    /// Class of the proxies that are asked, in place of all classes at once
    #[arg(long, value_name = "CLASS", conflicts_with = "proxy")]
    class: Option<String>,
    /// Topology zone of the proxy that is asked, for sets that go by it
    #[arg(long, value_name = "ZONE", conflicts_with = "proxy")]
    zone: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Over what it is explained.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// Folder or file of manifests, as for weir run; once for each, and - for standard input
    #[arg(short, long, value_name = "PATH")]
    folder: Vec<PathBuf>,
    /// Administration of a controller or of weir run, as in http://127.0.0.1:9902: what it has compiled
    #[arg(long, value_name = "URL")]
    controller: Option<Admin>,
    /// Administration of a proxy or of weir run, as in http://127.0.0.1:9900: what it serves at this moment, with the health
    /// of backends and the sessions that it knows
    #[arg(long, value_name = "URL")]
    proxy: Option<Admin>,
}

/// How an explanation is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One object; docs/explain.md has its names
    Json,
}

/// Prints where a request goes. Nothing of it is logged.
///
/// # Errors
/// [`Failure::Usage`] where nothing can be asked so, or who is asked does not answer; [`Failure::Failed`] where output is
/// closed.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let question = args.question()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.context("cannot start a runtime")?.block_on(args.told(&question))?;
    let paint = if std::io::stdout().is_terminal() { Paint::Colours } else { Paint::Plain };
    let text = match args.output {
        Output::Text => text::drawn(&told, paint),
        Output::Json => {
            let json = serde_json::to_string_pretty(&told).context("cannot write JSON")?;
            format!("{json}\n")
        }
    };
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "{text}").and_then(|()| stdout.flush()).context("cannot write to standard output")?;
    Ok(ExitCode::from(if told.answered { exit::GOOD } else { exit::FAILED }))
}

impl Args {
    fn question(&self) -> Result<Question, Failure> {
        let (url, method) = self.asked.split_last().expect("one or two, as it is declared");
        let method = method.first().map(String::as_str);
        let question = Question::new(method, url, &self.header, self.source, self.port);
        question.map_err(|error| Failure::Usage(error.into()))
    }

    async fn told(&self, question: &Question) -> Result<Explanation, Failure> {
        if let Some(proxy) = &self.of.proxy {
            return source::of_proxy(proxy, question).await;
        }
        let pools = match &self.of.controller {
            Some(controller) => source::of_controller(controller).await?,
            None => source::of_manifests(&self.of.folder)?,
        };
        let zone = self.zone.as_deref().unwrap_or_default();
        let (told, remarks) = source::explained(pools, self.class.as_deref(), zone, question);
        for remark in remarks {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "weir: {remark}");
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests;
