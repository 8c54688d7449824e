//! `weir status`: what became of pools, from a cluster, from controllers, or from `weir run`.

mod pages;
mod report;
mod table;

use crate::exit::{self, Failure};
use crate::fetch::Admin;
use anyhow::Context as _;
use clap::ValueEnum;
use pages::{PoolPage, ProxyPage};
use report::{Pool, Report};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use table::{Paint, Style, Width};
use weir_controller::cluster::{self, Access, Cluster, ConnectError};

/// Time between two looks of `--watch`.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Flags of `weir status`.
///
/// Ends with 0 when every pool that is shown is programmed and none is degraded, with 1 when one is not, and with 2 when
/// it could not be found out.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 0 when every pool shown is programmed and none is degraded, with 1 when one is not, \
                        and with 2 when that could not be found out."
)]
pub struct Args {
    /// Pools to show, as NAME or NAMESPACE/NAME [default: all]
    #[arg(value_name = "POOL")]
    names: Vec<String>,
    /// Namespace of the pools [default: that of the kubeconfig's context; with --admin alone, every one]
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Pools of every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// File that says how to reach the cluster [default: KUBECONFIG or ~/.kube/config, or the cluster that this pod runs in;
    /// with --admin none]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Administration of a controller or of `weir run`, as in http://127.0.0.1:9902, to show proxies, too; once for each
    /// replica
    #[arg(long, value_name = "URL")]
    admin: Vec<Admin>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Look again every 2 s, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Of whoever uses kubectl
    #[arg(long, value_name = "FILES", env = "KUBECONFIG", hide = true)]
    kubeconfigs: Option<std::ffi::OsString>,
    /// Of the user
    #[arg(long, value_name = "FOLDER", env = "HOME", hide = true)]
    home: Option<PathBuf>,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns, with sentences cut
    Table,
    /// All columns, with whole sentences
    Wide,
    /// One object: ok, pools, proxies
    Json,
}

/// Prints what is known.
///
/// # Errors
/// [`Failure::Usage`] where a source does not answer or a pool is not there; [`Failure::Failed`] where output is closed.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start a runtime")?.block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode, Failure> {
    let named: Vec<_> = args.names.iter().map(|name| split(name)).collect();
    let cluster = match args.access() {
        Some(access) => Some(cluster::connect(&access).await.map_err(no_cluster)?),
        None => None,
    };
    let is_terminal = std::io::stdout().is_terminal();
    let paint = if is_terminal { Paint::Colours } else { Paint::Plain };
    loop {
        let report = args.report(cluster.as_ref(), &named).await;
        let report = match report {
            Err(failure) if args.watch && is_terminal => {
                // It may be back the next time.
                tell(&failure);
                tokio::time::sleep(WATCH_INTERVAL).await;
                continue;
            }
            report => report?,
        };
        let text = match args.output {
            Output::Json => format!("{}\n", report.json()),
            Output::Table => table::drawn(&report, Style { width: Width::Narrow, paint }),
            Output::Wide => table::drawn(&report, Style { width: Width::Wide, paint }),
        };
        // From the top of the screen, so that the eye stays where it is.
        let begin =
            if args.watch && is_terminal && args.output != Output::Json { "\x1b[H\x1b[2J" } else { "" };
        let mut stdout = std::io::stdout().lock();
        write!(stdout, "{begin}{text}")
            .and_then(|()| stdout.flush())
            .context("cannot write to standard output")?;
        if !args.watch {
            return Ok(ExitCode::from(if report.is_good() { exit::GOOD } else { exit::FAILED }));
        }
        drop(stdout);
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn tell(failure: &Failure) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "weir: {}", failure.sentence());
}

pub(crate) fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Usage(anyhow::Error::new(error))
}

/// Its own sentence is for who starts a controller.
fn no_cluster(error: ConnectError) -> Failure {
    match error {
        ConnectError::NotInCluster(_) => Failure::Usage(anyhow::anyhow!(
            "there is no cluster to ask (no KUBECONFIG, no ~/.kube/config, no pod): name one with --kubeconfig FILE, or a \
             controller or weir run with --admin http://ADDRESS:PORT"
        )),
        other => unusable(other),
    }
}

/// `NAMESPACE/NAME` or `NAME`.
fn split(name: &str) -> (Option<String>, String) {
    match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        None => (None, name.to_owned()),
    }
}

impl Args {
    /// Which cluster is meant; `None` where controllers alone are asked.
    fn access(&self) -> Option<Access> {
        let context = self.context.clone();
        if let Some(file) = &self.kubeconfig {
            return Some(Access::Kubeconfig { file: file.clone(), context });
        }
        if !self.admin.is_empty() && context.is_none() {
            return None;
        }
        // Of several files the first: clusters are not merged here.
        let listed = self.kubeconfigs.iter().flat_map(std::env::split_paths);
        let own = self.home.iter().map(|home| home.join(".kube/config")).filter(|file| file.is_file());
        let file = listed.filter(|file| !file.as_os_str().is_empty()).chain(own).next();
        Some(file.map_or(Access::InCluster, |file| Access::Kubeconfig { file, context }))
    }

    async fn report(
        &self,
        cluster: Option<&Cluster>,
        named: &[(Option<String>, String)],
    ) -> Result<Report, Failure> {
        let (mut pools, mut proxies) = (Vec::new(), Vec::new());
        for admin in &self.admin {
            if cluster.is_none() {
                pools.extend(admin.all::<PoolPage>().await.map_err(unusable)?);
            }
            proxies.extend(admin.all::<ProxyPage>().await.map_err(unusable)?);
        }
        let mut namespace = self.namespace.clone();
        if let Some(cluster) = cluster {
            if namespace.is_none() && !self.all_namespaces {
                namespace = Some(cluster.namespace.clone());
            }
            pools = self.pools_of(cluster, namespace.as_deref(), named).await?;
        }
        let proxies = (!self.admin.is_empty()).then_some(proxies);
        Report::new(pools, proxies).select(namespace.as_deref(), named).map_err(unusable)
    }

    /// Those of the one namespace that is meant, so that rights in that one are enough.
    async fn pools_of(
        &self,
        cluster: &Cluster,
        namespace: Option<&str>,
        named: &[(Option<String>, String)],
    ) -> Result<Vec<Pool>, Failure> {
        let mut places: Vec<Option<&str>> = named.iter().map(|(of, _)| of.as_deref().or(namespace)).collect();
        if places.is_empty() || places.contains(&None) {
            places = vec![namespace];
        }
        places.sort_unstable();
        places.dedup();
        let mut pools = Vec::new();
        for place in places {
            let read = cluster::pools(cluster, place).await.map_err(unusable)?;
            let read = read.into_iter().map(serde_json::from_value).collect::<Result<Vec<Pool>, _>>();
            let read = read.context("the cluster has a LoadBalancerPool with a status of another version");
            pools.extend(read.map_err(Failure::Usage)?);
        }
        Ok(pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        status: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        let flags = [&["status", "--kubeconfigs", "/k/one:/k/two", "--home", "/nobody"], flags].concat();
        Command::try_parse_from(flags).map(|command| command.status)
    }

    #[test]
    fn a_cluster_is_asked_where_one_is_named_or_no_controller_is() {
        let access = |flags: &[&str]| parse(flags).expect("good flags").access();
        let of = |file: &str, context: Option<&str>| {
            Some(Access::Kubeconfig { file: file.into(), context: context.map(Into::into) })
        };
        assert_eq!(access(&[]), of("/k/one", None));
        assert_eq!(access(&["--context", "c"]), of("/k/one", Some("c")));
        assert_eq!(access(&["--admin", "127.0.0.1:1"]), None);
        assert_eq!(access(&["--admin", "127.0.0.1:1", "--context", "c"]), of("/k/one", Some("c")));
        assert_eq!(access(&["--admin", "127.0.0.1:1", "--kubeconfig", "f"]), of("f", None));
        let args = Args { kubeconfigs: None, ..parse(&[]).expect("good flags") };
        assert_eq!(args.access(), Some(Access::InCluster));
    }

    #[test]
    fn flags_that_contradict_each_other_or_name_no_address_are_refused() {
        assert!(parse(&["-n", "a", "-A"]).is_err());
        assert!(parse(&["--admin", "https://x:1"]).is_err());
        assert!(parse(&["-o", "yaml"]).is_err());
        let args = parse(&["a", "ns/b", "-w", "-o", "wide"]).expect("good flags");
        assert_eq!((args.output, args.watch), (Output::Wide, true));
        let names: Vec<_> = args.names.iter().map(|name| split(name)).collect();
        assert_eq!(names, [(None, "a".to_owned()), (Some("ns".to_owned()), "b".to_owned())]);
        <Command as clap::CommandFactory>::command().debug_assert();
    }
}
