//! The pools of a cluster with their statuses, read once: for people, not for a controller.

use super::Cluster;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::{Value, json};
use std::time::Duration;
use weir_crds::LoadBalancerPool;
use weir_proto::limits::POOLS_MAX;

/// Pools that the API server is asked for at once.
const PAGE: u32 = 500;

/// Longest wait for one page.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why pools could not be read; who asks can fix it.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Nobody answers there, or not in time.
    #[error("the API server at {url} does not answer: is the cluster up, and is this its address?")]
    Unreachable {
        /// Of the API server.
        url: String,
        /// Why, where it was not the time.
        source: Option<Box<kube::Error>>,
    },
    /// A rule of RBAC is missing, or nobody is logged in.
    #[error("the API server at {url} does not let you list LoadBalancerPools {place}: {message}")]
    Forbidden {
        /// Of the API server.
        url: String,
        /// In a namespace, or in all.
        place: String,
        /// As it says.
        message: String,
    },
    /// The definition is missing.
    #[error("the cluster at {0} knows no LoadBalancerPool: install crds/loadbalancerpools.weir.dev.yaml")]
    NotInstalled(String),
}

/// The pools of a namespace, or of all, each as `{namespace, name, generation, status}` in the order of the API server:
/// the first [`POOLS_MAX`].
///
/// # Errors
/// [`ListError`] with what to do.
pub async fn pools(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Value>, ListError> {
    let resource = ApiResource::erase::<LoadBalancerPool>(&());
    // Not as LoadBalancerPools: one that cannot be read as such has a status too.
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    };
    let place = namespace.map_or_else(|| "in all namespaces".to_owned(), |of| format!("in namespace {of}"));
    let mut pools = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let url = || cluster.url.clone();
        let page = match tokio::time::timeout(LIST_TIMEOUT, api.list(&params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return Err(failure(error, url(), place)),
            Err(_) => return Err(ListError::Unreachable { url: url(), source: None }),
        };
        pools.extend(page.items.into_iter().map(|object| {
            let DynamicObject { metadata, data, .. } = object;
            json!({
                "namespace": metadata.namespace,
                "name": metadata.name,
                "generation": metadata.generation.unwrap_or_default(),
                "status": data.get("status"),
            })
        }));
        match page.metadata.continue_.filter(|more| !more.is_empty() && pools.len() < POOLS_MAX) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(pools),
        }
    }
}

fn failure(error: kube::Error, url: String, place: String) -> ListError {
    match error {
        kube::Error::Api(status) if [401, 403].contains(&status.code) => {
            ListError::Forbidden { url, place, message: status.message }
        }
        kube::Error::Api(status) if status.code == 404 => ListError::NotInstalled(url),
        other => ListError::Unreachable { url, source: Some(Box::new(other)) },
    }
}
