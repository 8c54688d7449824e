//! Where objects come from: the API server, or a folder.

use super::Args;
use crate::follower::Follower;
use crate::logging;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;
use weir_controller::cluster::{self, Access, Cluster};
use weir_controller::dns::{Client, Reach};
use weir_controller::folder::FolderSource;
use weir_controller::metrics::Metrics;
use weir_controller::readiness::Readiness;
use weir_controller::status::Board;
use weir_controller::store::{Store, random_epoch};

/// A source that can be reached as far as its description says.
pub(super) enum Source {
    /// An API server.
    Cluster(Box<Cluster>),
    /// Manifests.
    Folder(Box<FolderSource>, String),
}

/// What a source writes to.
pub(super) struct Sinks {
    pub(super) store: Arc<Store>,
    pub(super) board: Arc<Board>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) names: Client,
}

impl Source {
    /// Finds the source that the command line means.
    ///
    /// # Errors
    /// A sentence for who started the process. That an API server does not answer is none: it may start later.
    pub(super) async fn open(args: &Args) -> anyhow::Result<Self> {
        if let Some(folder) = &args.source.folder {
            let source = FolderSource::open(folder)?;
            return Ok(Self::Folder(Box::new(source), folder.display().to_string()));
        }
        let access = match &args.source.kubeconfig {
            None => Access::InCluster,
            Some(file) => Access::Kubeconfig { file: file.clone(), context: args.source.context.clone() },
        };
        let mut cluster = cluster::connect(&access).await?;
        cluster.watched.clone_from(&args.source.watch_namespace);
        if let Some(namespace) = &args.pod.namespace {
            cluster.namespace.clone_from(namespace);
        }
        Ok(Self::Cluster(Box::new(cluster)))
    }

    /// The API server, where that is the source.
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Cluster(cluster) => Some(cluster),
            Self::Folder(..) => None,
        }
    }

    /// What answers of DNS may be. Who keeps a folder may mean the machine that it is on.
    pub(super) fn reach(&self) -> Reach {
        match self {
            Self::Cluster(_) => Reach::Cluster,
            Self::Folder(..) => Reach::Machine,
        }
    }

    /// Follows the source for as long as it is polled.
    pub(super) async fn follow(self, sinks: Sinks, format: logging::Format) {
        let Sinks { store, board, readiness, metrics, names } = sinks;
        match self {
            Self::Cluster(cluster) => {
                cluster::follow(*cluster, store, board, readiness, metrics, names).await;
            }
            Self::Folder(source, _) => {
                // There is no Lease: this is the only controller.
                store.desk().give(random_epoch(), Instant::now().into_std());
                Follower::new(store, board, format).run(*source, names, || readiness.ready()).await;
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(cluster) => write!(f, "{}", cluster.url),
            Self::Folder(_, folder) => f.write_str(folder),
        }
    }
}
