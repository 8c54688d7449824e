//! How the API server is reached.

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::fmt;
use std::path::PathBuf;

/// Which cluster is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The one that this process runs in, by its pod's ServiceAccount.
    InCluster,
    /// The one that a file describes.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context; without it the file's current one.
        context: Option<String>,
    },
}

/// An API server that can be asked.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to it; clones share its connections.
    pub client: Client,
    /// Of the API server, for messages.
    pub url: String,
    /// The namespace of this controller.
    pub namespace: String,
    /// The namespaces to watch; empty for all.
    pub watched: Vec<String>,
}

/// Why no cluster can be asked; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither in a cluster nor told of one.
    #[error(
        "this process runs in no pod of a cluster (there is no KUBERNETES_SERVICE_HOST, or no ServiceAccount token \
         is mounted): name a cluster with --kubeconfig FILE, or manifests with --folder FOLDER"
    )]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The file cannot be used.
    #[error("cannot use kubeconfig {file}: name one that exists, with a context that leads to a cluster")]
    Kubeconfig {
        /// As named.
        file: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// What was found does not make a client.
    #[error("cannot prepare the connection to the API server at {url}")]
    Client {
        /// Of the API server.
        url: String,
        /// Why.
        source: kube::Error,
    },
}

/// Prepares to speak to an API server; asks it nothing yet.
///
/// # Errors
/// [`ConnectError`] where the description of the cluster is missing or wrong.
pub async fn connect(access: &Access) -> Result<Cluster, ConnectError> {
    let config = match access {
        Access::InCluster => Config::incluster().map_err(ConnectError::NotInCluster)?,
        Access::Kubeconfig { file, context } => from_file(file, context.clone())
            .await
            .map_err(|source| ConnectError::Kubeconfig { file: file.clone(), source })?,
    };
    let (url, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
    match Client::try_from(config) {
        Ok(client) => Ok(Cluster { client, url, namespace, watched: Vec::new() }),
        Err(source) => Err(ConnectError::Client { url, source }),
    }
}

async fn from_file(file: &PathBuf, context: Option<String>) -> Result<Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_or_lacks_the_context_is_named() {
        let file = PathBuf::from("/no/such/kubeconfig");
        let missing = connect(&Access::Kubeconfig { file, context: None }).await.expect_err("refused");
        assert!(missing.to_string().contains("/no/such/kubeconfig"), "{missing}");

        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\n";
        std::fs::write(&file, text).expect("writable");
        let context = Some("absent".to_owned());
        let refused = connect(&Access::Kubeconfig { file, context }).await.expect_err("refused");
        assert!(matches!(refused, ConnectError::Kubeconfig { .. }), "{refused}");
    }
}
