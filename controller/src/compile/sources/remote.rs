//! The backends that a Service has in other clusters.
//!
//! * **Names.** Each is called by its cluster and its address, so that clusters whose networks overlap do not get in each
//!   other's way, and joins the set with its cluster's priority.
//! * **Away.** A cluster that is not heard of keeps the backends that were last known; so does one whose kubeconfig is
//!   missing or broken. Health checks say whether they are still there.
//! * **Places.** Zones, nodes and hints of another cluster mean nothing to proxies of this one, and are left out.

use super::service::{ServiceSource, elsewhere};
use super::slices::cut;
use super::{BackendSetContent, Fault, PortName};
use crate::compile::check::quoted;
use crate::compile::{
    Away, AwayReason, ObjectKey, Objects, Reason, RemoteService, Transport, Unread, Warning,
};
use k8s_openapi::jiff::Timestamp;
use weir_proto::push::{Backend, UpstreamProtocol};

/// What it means that nothing is known of a cluster.
const NONE_SERVE: &str = "none of its backends serve";

/// A use of a Service in another cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteSource {
    /// In the pool, for messages: `spec.backendSets[0].service.clusters[0]`.
    pub field: String,
    /// Of the cluster, in this list.
    pub name: String,
    /// What is followed.
    pub remote: RemoteService,
    /// Of its backends.
    pub priority: u32,
}

/// A set with what other clusters have for it.
pub(super) struct Joined {
    pub(super) content: BackendSetContent,
    pub(super) said: Option<UpstreamProtocol>,
    pub(super) warnings: Vec<Warning>,
}

/// What one cluster has.
struct Found {
    backends: Vec<Backend>,
    /// What they speak; `None` where that is not known.
    said: Option<UpstreamProtocol>,
    warnings: Vec<Warning>,
}

/// Adds the backends of other clusters. `said` is what the set is spoken to in, as far as that is known here.
pub(super) fn join(
    source: &ServiceSource,
    pool: &ObjectKey,
    objects: &Objects,
    own: BackendSetContent,
    mut said: Option<UpstreamProtocol>,
) -> Joined {
    let (mut backends, mut warnings) = (own.backends, Vec::new());
    for cluster in &source.clusters {
        let found = cluster.resolve((&source.port, source.transport), pool, objects);
        backends.extend(found.backends);
        warnings.extend(found.warnings);
        let Some(there) = found.said else { continue };
        if *said.get_or_insert(there) != there {
            let rule = "is a cluster where the Service speaks another protocol than the set is spoken to in: give the \
                        ports one appProtocol, or say the protocol of the backend set";
            warnings.push(cluster.warning(pool, "", rule.to_owned(), Reason::UnsupportedProtocol));
        }
    }
    if let Some(rule) = cut(&mut backends) {
        let (subfield, value) = ("name", quoted(&source.service.name));
        let fault = Fault { subfield, value, rule, reason: Reason::LimitReached };
        warnings.push(fault.warning(pool, &source.field));
    }
    Joined { content: BackendSetContent::new(backends), said, warnings }
}

impl RemoteSource {
    fn resolve(&self, port: (&PortName, Transport), pool: &ObjectKey, objects: &Objects) -> Found {
        let mut warnings: Vec<_> = self.trouble(pool, objects).into_iter().collect();
        let service = &self.remote.service;
        let (content, said, faults) = match objects.remotes.of(&self.remote) {
            None => return Found { backends: Vec::new(), said: None, warnings },
            Some((None, _)) => {
                let rule = format!(
                    "is not the name of a Service in namespace {:?}: create it there ({NONE_SERVE})",
                    service.namespace
                );
                let (value, reason) = (quoted(&service.name), Reason::BackendNotFound);
                let fault = Fault { subfield: "", value, rule, reason };
                (BackendSetContent::default(), None, vec![fault])
            }
            Some((Some(found), slices)) => {
                let (content, said, faults) = elsewhere(service, found, slices, port, NONE_SERVE);
                let said = (!content.backends.is_empty()).then_some(said.unwrap_or(UpstreamProtocol::Http1));
                (content, said, faults)
            }
        };
        let warning = |Fault { value, rule, reason, .. }| {
            self.warning(pool, "", format!("is a cluster where {value} {rule}"), reason)
        };
        warnings.extend(faults.into_iter().map(warning));
        let backends = content.backends.into_iter().map(|backend| self.named(backend)).collect();
        Found { backends, said, warnings }
    }

    fn named(&self, backend: Backend) -> Backend {
        let Backend { id, address, weight, state, .. } = backend;
        let id = format!("{}/{id}", self.name);
        Backend { id, address, weight, state, priority: self.priority, ..Backend::default() }
    }

    /// Why nothing new is heard of the cluster.
    fn trouble(&self, pool: &ObjectKey, objects: &Objects) -> Option<Warning> {
        let away = objects.remotes.away.get(&self.remote);
        let RemoteService { secret, key, .. } = &self.remote;
        let consequence = match objects.remotes.is_known(&self.remote) {
            true => "its backends that were known last serve on",
            false => NONE_SERVE,
        };
        let warning = |subfield, rule: String| {
            let rule = format!("{rule} ({consequence})");
            self.warning(pool, subfield, rule, Reason::ClusterUnreachable)
        };
        if away.is_some_and(|away| away.why == AwayReason::NoCluster) {
            let rule =
                "is another cluster, and none is watched here, since objects come from a folder: remove it";
            return Some(warning("", rule.to_owned()));
        }
        let Some(found) = objects.secrets.get(secret) else {
            let why = match objects.unread_secrets.get(secret) {
                None => "is not there: create it with a kubeconfig".to_owned(),
                Some(Unread::Forbidden) => format!(
                    "may not be read: give the controller's ServiceAccount a Role in namespace {} with get, list, watch on \
                     secrets and resourceNames [{}]",
                    secret.namespace, secret.name
                ),
                Some(Unread::Unanswered) => {
                    "cannot be read now: it is tried again, and the controller's log says why".to_owned()
                }
                Some(Unread::TooMany) => {
                    "is not read, since pools name too many Secrets: name fewer".to_owned()
                }
            };
            return Some(warning(
                "kubeconfigRef.name",
                format!("has its kubeconfig in Secret {secret}, which {why}"),
            ));
        };
        if found.data.as_ref().is_none_or(|data| !data.contains_key(key)) {
            let rule = format!(
                "has its kubeconfig under the key {} of Secret {secret}, which has no such key: write it there, or \
                 correct the key",
                quoted(key)
            );
            return Some(warning("kubeconfigRef.key", rule));
        }
        let away = away?;
        let subfield = if matches!(away.why, AwayReason::Kubeconfig(_)) { "kubeconfigRef" } else { "" };
        Some(warning(subfield, self.sentence(away)))
    }

    fn sentence(&self, Away { since, why }: &Away) -> String {
        let RemoteService { secret, service, .. } = &self.remote;
        let since = Timestamp::try_from(*since).map(|since| since.to_string()).unwrap_or_default();
        let why = match why {
            AwayReason::Kubeconfig(fault) => {
                return format!("has a kubeconfig in Secret {secret} that cannot be used: {fault}");
            }
            AwayReason::TooMany => {
                return "is not watched, since pools name too many Services of other clusters: name fewer"
                    .to_owned();
            }
            AwayReason::Forbidden => format!(
                "its API server lets nobody with these credentials read: give them a Role there in namespace {} with get, \
                 list, watch on services and on endpointslices of group \"discovery.k8s.io\"",
                service.namespace
            ),
            AwayReason::Refused => {
                "its API server refuses the credentials or the question, and the controller's log says which"
                    .to_owned()
            }
            AwayReason::Unreachable | AwayReason::NoCluster => {
                "its API server does not answer, and the controller's log says how".to_owned()
            }
        };
        format!("is a cluster of which nothing is heard since {since}: {why}")
    }

    fn warning(&self, pool: &ObjectKey, subfield: &'static str, rule: String, reason: Reason) -> Warning {
        Fault { subfield, value: quoted(&self.name), rule, reason }.warning(pool, &self.field)
    }
}
