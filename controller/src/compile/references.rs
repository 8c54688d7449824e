//! References of a pool into other namespaces, and the `ReferenceGrant`s that permit them (GEP-709).
//!
//! Whoever may write a pool could otherwise send traffic to any Service of the cluster, and serve any Secret's key.
//! So the owner of the target's namespace says yes first. What a missing grant costs is what needs the reference: a
//! set is empty, a certificate is left out. Unlike a Secret that is broken for a moment, a grant that is gone keeps
//! nothing of before in use, for its removal is how an owner takes a permission back. And nothing is said of whether
//! the target exists, which is its owner's to tell.

use super::{ObjectKey, Objects, is_object_name, pool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use weir_crds::LoadBalancerPool;

/// A `ReferenceGrant` of the Gateway API (`gateway.networking.k8s.io`, `v1beta1` and `v1`).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ReferenceGrant {
    /// The namespace is that of the targets.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Who may refer to what.
    pub spec: ReferenceGrantSpec,
}

/// Each of `from` may refer to each of `to`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Objects of one kind in one namespace.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct GrantFrom {
    /// For example `weir.dev`.
    pub group: String,
    /// For example `LoadBalancerPool`.
    pub kind: String,
    /// Where the objects are that may refer.
    pub namespace: String,
}

/// Objects of one kind in the grant's namespace.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct GrantTo {
    /// Empty for the core group.
    pub group: String,
    /// For example `Service`.
    pub kind: String,
    /// The one object. Without it: every one of the kind.
    #[serde(default)]
    pub name: Option<String>,
}

/// What a pool may refer to in another namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Service,
    Secret,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::Secret => "Secret",
        })
    }
}

/// The Secrets that a pool names and may use, each once, in the order of their keys. Those are to be
/// watched, and no other is ever asked for: a Secret that nobody permits is not read.
#[must_use]
pub fn secret_references(pool: &LoadBalancerPool, objects: &Objects) -> Vec<ObjectKey> {
    let key = pool::key_of(&pool.metadata);
    let own = &key.namespace;
    // What is no name would be part of a path in a request to the API server.
    let is_named = |secret: &ObjectKey| is_object_name(&secret.name) && is_object_name(&secret.namespace);
    let is_permitted =
        |secret: &ObjectKey| is_named(secret) && is_permitted(own, Target::Secret, secret, objects);
    pool::secrets_of(&key, pool).into_iter().filter(is_permitted).collect()
}

/// The other namespaces in which a pool names Secrets, whether or not it may use them.
#[must_use]
pub fn secret_namespaces(pool: &LoadBalancerPool) -> BTreeSet<String> {
    let key = pool::key_of(&pool.metadata);
    let namespaces = pool::secrets_of(&key, pool).into_iter().map(|secret| secret.namespace);
    namespaces.filter(|namespace| *namespace != key.namespace).collect()
}

/// Whether pools of the namespace `from` may use this object: it is in the same one, or a grant says so.
pub(super) fn is_permitted(from: &str, target: Target, to: &ObjectKey, objects: &Objects) -> bool {
    if to.namespace == from {
        return true;
    }
    let kind = target.to_string();
    let is_from =
        |who: &GrantFrom| who.group == "weir.dev" && who.kind == "LoadBalancerPool" && who.namespace == from;
    let is_to = |what: &GrantTo| {
        what.group.is_empty() && what.kind == kind && what.name.as_ref().is_none_or(|name| *name == to.name)
    };
    let in_namespace = objects.grants.range(ObjectKey::new(to.namespace.as_str(), "")..);
    in_namespace
        .take_while(|(key, _)| key.namespace == to.namespace)
        .any(|(_, grant)| grant.spec.from.iter().any(is_from) && grant.spec.to.iter().any(is_to))
}

/// The rest of a sentence that begins with the target's namespace.
pub(super) fn not_permitted(from: &str, target: Target, to: &ObjectKey) -> String {
    let ObjectKey { namespace, name } = to;
    format!(
        "is another namespace, and no ReferenceGrant there permits LoadBalancerPools of namespace {from:?} to use {target} \
         {name:?}: create one in namespace {namespace:?} with from group weir.dev, kind LoadBalancerPool, namespace {from}, \
         and to group \"\", kind {target}, name {name}"
    )
}
