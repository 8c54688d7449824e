//! Pods, as far as they can be backends.
//!
//! Of a pod that may be tens of kilobytes large, and that changes with everything its containers do, the few bytes are
//! kept that the compile step reads. So two that compile to the same are equal, and most news of a pod are none.

use super::{Selector, Transport, Unread};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Label of a pod that says where its node is; copied from the node since Kubernetes 1.35 (KEP-4742).
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What a pod is to a backend set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedPod {
    /// Whether it takes requests.
    pub state: PodState,
    /// The first of its addresses; `None` before it has one.
    pub address: Option<IpAddr>,
    /// What stands in the place of an address and is none.
    pub misspelt: Option<Box<str>>,
    /// Ports of its containers that have a name; of two of one name and transport the first.
    pub ports: Box<[PodPort]>,
    /// Of its label; empty where it has none.
    pub zone: Box<str>,
    /// Where it runs; empty before that is known.
    pub node: Box<str>,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// What it is asked for by.
    pub name: Box<str>,
    /// Connections and datagrams may have one each of a name.
    pub transport: Transport,
    /// 1 to 65535.
    pub number: u16,
}

/// Whether a pod takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodState {
    /// Its condition Ready says so.
    Ready,
    /// Ready, and being deleted.
    Draining,
    /// Neither: not Ready, or its containers have ended.
    Out,
}

/// Pods by the selectors that they are watched for; a pod that two selectors take is there twice. What is not selected
/// is not there at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pods {
    /// Of each selector of which all pods are known: by their names.
    selected: BTreeMap<Selector, BTreeMap<String, Arc<SelectedPod>>>,
    /// Selectors of which it is not known, or not any more, which pods there are. What was known is in `selected`.
    pub unread: BTreeMap<Selector, Unread>,
}

impl SelectedPod {
    /// Reads what matters of a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let ips = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
        let first = ips.first().map(|first| first.ip.as_str());
        // Who writes the status of a pod by hand may leave the list out.
        let first = first.or_else(|| status?.pod_ip.as_deref()).filter(|ip| !ip.is_empty());
        let address = first.and_then(|ip| ip.parse().ok());
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        Self {
            state: PodState::of(pod),
            address,
            misspelt: first.filter(|_| address.is_none()).map(Into::into),
            ports: ports(pod),
            zone: label.map(String::as_str).unwrap_or_default().into(),
            node: node.unwrap_or_default().into(),
        }
    }
}

impl PodState {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let is_ready =
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        match (is_ready && !matches!(phase, Some("Failed" | "Succeeded")), &pod.metadata.deletion_timestamp) {
            (true, None) => Self::Ready,
            (true, Some(_)) => Self::Draining,
            (false, _) => Self::Out,
        }
    }
}

/// As Services find them: those of containers, then those of init containers that go on beside them (KEP-753).
fn ports(pod: &Pod) -> Box<[PodPort]> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default().iter();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default().iter().chain(sidecars);
    let mut ports: Vec<PodPort> = Vec::new();
    for port in containers.flat_map(|Container { ports, .. }| ports.iter().flatten()) {
        let transport = Transport::of(port.protocol.as_deref());
        let number = u16::try_from(port.container_port).ok().filter(|&number| number > 0);
        if let (Some(name), Some(number), Some(transport)) = (port.name.as_deref(), number, transport)
            && ports.iter().all(|other| (&*other.name, other.transport) != (name, transport))
        {
            ports.push(PodPort { name: name.into(), transport, number });
        }
    }
    ports.into()
}

impl Pods {
    /// The pods of a selector, in the order of their names; none where they are not known.
    pub fn of(&self, selector: &Selector) -> impl Iterator<Item = (&str, &SelectedPod)> {
        let pods = self.selected.get(selector).into_iter().flatten();
        pods.map(|(name, pod)| (name.as_str(), &**pod))
    }

    /// Whether all pods of a selector were known at some time.
    #[must_use]
    pub fn is_known(&self, selector: &Selector) -> bool {
        self.selected.contains_key(selector)
    }

    /// Selectors of which pods are known.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.selected.keys()
    }

    /// How many pods are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.selected.values().map(BTreeMap::len).sum()
    }

    /// Takes in all pods of a selector; true where they are others than before.
    pub fn replace(&mut self, selector: &Selector, pods: BTreeMap<String, Arc<SelectedPod>>) -> bool {
        let before = self.selected.insert(selector.clone(), pods);
        before.as_ref() != self.selected.get(selector)
    }

    /// Takes in one pod; true where it is new or different.
    pub fn insert(&mut self, selector: &Selector, name: String, pod: Arc<SelectedPod>) -> bool {
        let pods = self.selected.entry(selector.clone()).or_default();
        let is_same = pods.get(&name) == Some(&pod);
        if !is_same {
            pods.insert(name, pod);
        }
        !is_same
    }

    /// Takes out one pod; true where it was there.
    pub fn remove(&mut self, selector: &Selector, name: &str) -> bool {
        self.selected.get_mut(selector).is_some_and(|pods| pods.remove(name).is_some())
    }

    /// Forgets a selector, and what is not known of it; true where anything of it was kept.
    pub fn forget(&mut self, selector: &Selector) -> bool {
        let was_unread = self.unread.remove(selector).is_some();
        self.selected.remove(selector).is_some() || was_unread
    }

    /// Selectors whose pods, or what is known of them, are others there than here.
    pub(super) fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Selector> {
        let all = [self, other].into_iter().flat_map(|pods| pods.selected.keys().chain(pods.unread.keys()));
        all.filter(|selector| {
            self.selected.get(selector) != other.selected.get(selector)
                || self.unread.get(selector) != other.unread.get(selector)
        })
    }
}
