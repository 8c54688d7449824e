//! Who a proxy is.

use std::collections::BTreeMap;

/// Who a proxy is, proven and not claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody asked: in process, loopback. Serves every pool.
    Trusted,
    /// A pod of the cluster.
    Pod(PodIdentity),
}

/// A pod, as the API server knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// Never empty.
    pub namespace: String,
    /// Never empty.
    pub name: String,
    /// What the pod runs as.
    pub service_account: String,
    /// Of the pod.
    pub labels: BTreeMap<String, String>,
}
