//! Which proxies serve a pool.

use super::check::Check;
use super::{DEFAULT_NAMESPACE, ObjectKey};
use crate::identity::Identity;
use std::collections::{BTreeMap, BTreeSet};
use weir_crds::pool as spec;

/// Which proxies serve a pool. Not sent to them: a pool that a proxy does not serve does not exist for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPlane {
    /// Of the pool.
    pub namespace: String,
    /// Value of [`spec::CLASS_LABEL`].
    pub class: String,
    /// All of them with these values; empty asks for nothing.
    pub labels: BTreeMap<String, String>,
}

impl DataPlane {
    /// Whether this proxy serves the pool: its class is the pool's, it has all labels, and it runs in the pool's own
    /// namespace or in one of `gateway_namespaces`. A [`Identity::Trusted`] one serves everything.
    #[must_use]
    pub fn is_served_by(&self, proxy: &Identity, gateway_namespaces: &BTreeSet<String>) -> bool {
        let pod = match proxy {
            Identity::Trusted => return true,
            Identity::Pod(pod) => pod,
        };
        let class = pod.labels.get(spec::CLASS_LABEL).map_or(spec::DEFAULT_CLASS, String::as_str);
        class == self.class
            && self.labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
            && (pod.namespace == self.namespace || gateway_namespaces.contains(&pod.namespace))
    }

    /// Whether there may be a proxy that serves both. Not where no pod can be of both: one label with two values.
    /// Namespaces decide nothing here, for which of them are a gateway's is not known where pools are compiled.
    pub(super) fn may_share_a_proxy(&self, other: &Self) -> bool {
        let agrees = |(name, value)| other.labels.get(name).is_none_or(|theirs| theirs == value);
        self.class == other.class && self.labels.iter().all(agrees)
    }

    pub(super) fn new(pool: &ObjectKey, spec: Option<&spec::DataPlane>, check: &mut Check) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        let labels = spec.selector.unwrap_or_default().match_labels;
        check.name("spec.dataPlane.className", &spec.class_name);
        check.labels("spec.dataPlane.selector.matchLabels", &labels, spec::PROXY_LABELS_MAX);
        Self { namespace: pool.namespace.clone(), class: spec.class_name, labels }
    }
}

impl Default for DataPlane {
    /// What a pool of the default namespace asks for that says nothing.
    fn default() -> Self {
        Self {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            class: spec::DEFAULT_CLASS.to_owned(),
            labels: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PodIdentity;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn data_plane(class: &str, asked: &[(&str, &str)]) -> DataPlane {
        DataPlane { namespace: "shop".to_owned(), class: class.to_owned(), labels: labels(asked) }
    }

    #[test]
    fn a_pod_serves_a_pool_of_its_class_whose_labels_it_has_and_whose_namespace_it_may() {
        let edge = ("weir.dev/class", "edge");
        let default = ("weir.dev/class", "default");
        let (app, tier) = (("app", "web"), ("tier", "a"));
        let cases: &[(_, _, &str, &[_], _)] = &[
            ("default", &[][..], "shop", &[], true),
            ("default", &[], "shop", &[default], true),
            ("default", &[], "gateway", &[], true),
            ("default", &[], "other", &[], false),
            ("default", &[], "", &[], false),
            ("default", &[], "shop", &[edge], false),
            ("default", &[], "shop", &[("weir.dev/class", "")], false),
            ("edge", &[], "shop", &[edge], true),
            ("edge", &[], "shop", &[], false),
            ("edge", &[], "gateway", &[edge], true),
            ("edge", &[], "other", &[edge], false),
            ("default", &[app], "shop", &[app, tier], true),
            ("default", &[app, tier], "shop", &[app], false),
            ("default", &[app], "shop", &[("app", "api")], false),
            ("default", &[app], "shop", &[("App", "web")], false),
            ("default", &[("app", "")], "shop", &[("app", "")], true),
            ("default", &[("app", "")], "shop", &[], false),
            ("default", &[app], "gateway", &[app], true),
        ];
        let gateways = BTreeSet::from(["gateway".to_owned()]);
        for (class, asked, namespace, has, expected) in cases {
            let pod = PodIdentity {
                namespace: (*namespace).to_owned(),
                name: "proxy-0".to_owned(),
                labels: labels(has),
                ..PodIdentity::default()
            };
            let case = format!("{class} {asked:?} by {namespace} {has:?}");
            let data_plane = data_plane(class, asked);
            assert_eq!(data_plane.is_served_by(&Identity::Pod(pod), &gateways), *expected, "{case}");
            assert!(data_plane.is_served_by(&Identity::Trusted, &BTreeSet::new()), "{case}");
        }
    }

    #[test]
    fn two_pools_share_no_proxy_where_no_pod_can_be_of_both() {
        for (a, b, expected) in [
            (("x", &[][..]), ("x", &[][..]), true),
            (("x", &[]), ("y", &[]), false),
            (("x", &[("app", "a")]), ("x", &[]), true),
            (("x", &[("app", "a")]), ("x", &[("tier", "b")]), true),
            (("x", &[("app", "a")]), ("x", &[("app", "b"), ("tier", "b")]), false),
            (("x", &[("app", "a")]), ("x", &[("app", "a"), ("tier", "b")]), true),
            (("x", &[("app", "a")]), ("y", &[("app", "a")]), false),
        ] {
            let (one, other) = (data_plane(a.0, a.1), data_plane(b.0, b.1));
            assert_eq!(one.may_share_a_proxy(&other), expected, "{a:?} {b:?}");
            assert_eq!(other.may_share_a_proxy(&one), expected, "{b:?} {a:?}");
        }
    }
}
