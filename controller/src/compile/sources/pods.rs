//! The backends among the pods that a selector takes.
//!
//! * **State.** Ready: takes requests. Ready and being deleted: drains, and is the last resort of its set, as an endpoint
//!   that serves and terminates. Not Ready, or with containers that have ended: left out. So a pod is what the
//!   EndpointSlice controller would make of it for a Service without `publishNotReadyAddresses`.
//! * **Ports.** A number is that port of each pod, whether or not a container declares it. A name is what each pod's own
//!   containers mean by it; pods without that name are left out.
//! * **Addresses.** The first of a pod, so that each pod is one backend: it is of the cluster's first family, in which a
//!   Service is too that asks for none. Pods that share one address and port (of the node's network) are one backend.
//! * **Zone** by the pod's label, without which none is known: nodes are not read.

use super::slices::{Found, cut};
use super::{BackendSetContent, Fault, PortName, Resolved};
use crate::compile::check::quoted;
use crate::compile::{ObjectKey, Objects, PodState, Reason, SelectedPod, Selector, Transport, Unread};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use weir_proto::push::{BackendState, UpstreamProtocol};

/// A use of pods.
#[derive(Debug, Clone, PartialEq)]
pub struct PodsSource {
    /// In the pool, for messages: `spec.backendSets[0].endpointSelector`.
    pub field: String,
    /// Of the pool's namespace.
    pub selector: Selector,
    /// Of the pods.
    pub port: PortName,
    /// What the port is of.
    pub transport: Transport,
    /// What backends are spoken to in.
    pub protocol: UpstreamProtocol,
}

/// What was found odd among pods.
#[derive(Default)]
struct Oddities {
    misspelt: usize,
    /// The first of them.
    example: String,
    /// Whether some pod would take requests if it had the port.
    lacks_port: bool,
}

impl PodsSource {
    pub(super) fn resolve(&self, pool: &ObjectKey, objects: &Objects) -> Resolved {
        let mut oddities = Oddities::default();
        let mut merged: BTreeMap<SocketAddr, Found<'_>> = BTreeMap::new();
        for (name, pod) in objects.pods.of(&self.selector) {
            let state = match pod.state {
                PodState::Ready => BackendState::Ready,
                PodState::Draining => BackendState::Draining,
                PodState::Out => continue,
            };
            let Some((address, found)) = self.backend(name, pod, state, &mut oddities) else { continue };
            if merged.get(&address).is_none_or(|there| *there < found) {
                merged.insert(address, found);
            }
        }
        let mut backends: Vec<_> =
            merged.into_iter().map(|(address, found)| found.backend(address)).collect();
        let mut faults = self.faults(&oddities, backends.is_empty());
        faults.extend(objects.pods.unread.get(&self.selector).map(|why| self.unread(*why, objects)));
        faults.extend(cut(&mut backends).map(|rule| self.fault("", rule, Reason::LimitReached)));
        Resolved {
            content: BackendSetContent::new(backends),
            protocol: self.protocol,
            name: None,
            is_open: false,
            warnings: faults.into_iter().map(|fault| fault.warning(pool, &self.field)).collect(),
        }
    }

    fn backend<'a>(
        &self,
        name: &str,
        pod: &'a SelectedPod,
        state: BackendState,
        oddities: &mut Oddities,
    ) -> Option<(SocketAddr, Found<'a>)> {
        if let Some(misspelt) = &pod.misspelt {
            if oddities.misspelt == 0 {
                oddities.example =
                    format!("of pod {}/{name} {} is", self.selector.namespace, quoted(misspelt));
            }
            oddities.misspelt += 1;
        }
        let ip = pod.address?;
        let port = match &self.port {
            PortName::Number(number) => Some(*number),
            PortName::Name(name) => {
                let of = (&**name, self.transport);
                pod.ports.iter().find(|port| (&*port.name, port.transport) == of).map(|port| port.number)
            }
        };
        oddities.lacks_port |= port.is_none();
        Some((SocketAddr::new(ip, port?), Found::of_pod(state, &pod.zone, &pod.node)))
    }

    fn faults(&self, oddities: &Oddities, is_empty: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        if oddities.misspelt > 0 {
            let rule = format!(
                "takes pods that cannot be used ({}): {} not an address; correct it, the others serve",
                oddities.misspelt, oddities.example
            );
            faults.push(self.fault("", rule, Reason::InvalidEndpoints));
        }
        if let (true, true, PortName::Name(name)) = (is_empty, oddities.lacks_port, &self.port) {
            let rule = format!(
                "is the name of no {} port of the pods that {} takes: give a port of their containers that name, or \
                 write its number (the set is empty, its requests are answered 503)",
                self.transport, self.selector
            );
            let value = quoted(name);
            faults.push(Fault { subfield: "port", value, rule, reason: Reason::BackendNotFound });
        }
        faults
    }

    /// Which pods there are is not known, or not any more.
    fn unread(&self, why: Unread, objects: &Objects) -> Fault {
        let namespace = &self.selector.namespace;
        let why = match why {
            Unread::Forbidden => format!(
                "may not read: give the controller's ServiceAccount a Role in namespace {namespace} with get, list, watch \
                 on pods"
            ),
            Unread::Unanswered => "cannot read now: it tries again, and its log says why".to_owned(),
            Unread::TooMany => {
                "does not watch, since pools name too many selectors: name fewer, or use Services".to_owned()
            }
        };
        let consequence = if objects.pods.is_known(&self.selector) {
            "the pods that were known serve on"
        } else {
            "the set is empty, its requests are answered 503"
        };
        let rule = format!("takes pods that the controller {why} ({consequence})");
        self.fault("", rule, Reason::EndpointsUnread)
    }

    fn fault(&self, subfield: &'static str, rule: String, reason: Reason) -> Fault {
        Fault { subfield, value: quoted(&self.selector.query()), rule, reason }
    }
}
