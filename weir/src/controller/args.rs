//! The command line of `weir-controller`.

use super::ReplicaArgs;
use super::security::SecurityArgs;
use crate::keys::KeysArgs;
use crate::logging::LogArgs;
use crate::names::DnsArgs;
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Weir's control plane: compiles LoadBalancerPools and streams them to proxies.
///
/// Watches the cluster that it runs in, unless --kubeconfig names another one or --folder a folder of manifests.
#[derive(Debug, Parser)]
#[command(name = "weir-controller", version = crate::cli::version(), max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub source: SourceArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub pod: PodArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub replica: ReplicaArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub keys: KeysArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub dns: DnsArgs,
    /// Address that proxies dial
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9901", env = "WEIR_LISTEN")]
    pub listen: SocketAddr,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub security: SecurityArgs,
    /// Address of administration: /livez, /readyz, /metrics, and what `weir status --admin` asks for
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9902", env = "WEIR_ADMIN")]
    pub admin: SocketAddr,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment here would become the text of --help")]
    pub log: LogArgs,
}

/// Where objects come from.
#[derive(Debug, Clone, clap::Args)]
pub struct SourceArgs {
    /// Folder (or one file) of manifests instead of a cluster: LoadBalancerPool, Service, EndpointSlice, Pod, Secret
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["kubeconfig", "context", "watch_namespace"])]
    pub folder: Option<PathBuf>,
    /// File that says how to reach the cluster [default: the cluster that this pod runs in]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
    /// Watch this namespace only; can be given several times [default: all namespaces]
    #[arg(long, value_name = "NAMESPACE")]
    pub watch_namespace: Vec<String>,
}

/// Who this process is in the cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct PodArgs {
    /// Namespace of this controller [default: that of the ServiceAccount or of the kubeconfig's context]
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Name of this controller's pod
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: Option<String>,
}

impl Args {
    /// How this process is called among the replicas: after its pod. Outside of one, every process is a replica of its own.
    #[must_use]
    pub fn replica_name(&self) -> String {
        let name = self.pod.pod_name.clone();
        name.unwrap_or_else(|| format!("weir-controller-{}", std::process::id()))
    }

    /// What can be said of the command line before anything is opened.
    ///
    /// # Errors
    /// A sentence for who started the process.
    pub fn check(&self) -> anyhow::Result<()> {
        self.security.check(self.listen, self.source.folder.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_cluster_exclude_each_other() {
        let parse = |flags: &[&str]| Args::try_parse_from([&["weir-controller"], flags].concat());
        assert!(parse(&[]).is_ok(), "the cluster that the pod runs in");
        assert!(parse(&["--kubeconfig", "k", "--context", "c", "--watch-namespace", "a"]).is_ok());
        for both in [["--kubeconfig", "k"], ["--watch-namespace", "a"]] {
            assert!(parse(&[&["--folder", "."], &both[..]].concat()).is_err(), "{both:?}");
        }
        assert!(parse(&["--context", "c"]).is_err(), "of which kubeconfig");
        let namespaces = parse(&["--watch-namespace", "a", "--watch-namespace", "b"]).expect("twice");
        assert_eq!(namespaces.source.watch_namespace, ["a", "b"]);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
