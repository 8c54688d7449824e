//! Who a proxy is.

use std::collections::BTreeMap;
use std::fmt;

/// Who a proxy is, proven and not claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody asked: in process, loopback. Serves every pool.
    Trusted,
    /// A pod of the cluster.
    Pod(PodIdentity),
}

/// For people: what was proven, and by whom it is said.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted => f.write_str("as it says itself"),
            Self::Pod(PodIdentity { namespace, name, service_account, .. }) => {
                write!(f, "pod {namespace}/{name}, ServiceAccount {service_account}")
            }
        }
    }
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
