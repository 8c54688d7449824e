//! Kubernetes objects to wire messages, with no I/O and no clock: the same objects give the same bytes on every
//! replica and after a restart.
//!
//! ```text
//! Objects -> pool (listeners, rules, where each set comes from) -> conflict -> backends of each set -> World
//! ```
//!
//! What is wrong with a pool has one of two consequences.
//!
//! * A [`Rejection`]: the specification says something that cannot be right (a port of 70000, a rule that names
//!   no set) or claims what another pool has. The whole pool is refused, for half of it may be unsafe without the
//!   other half, and what it said before serves on ([`World::last_good`]), with backends kept up to date.
//! * A [`Warning`]: the specification is right and something it points to is not there or not usable. The pool
//!   serves without it. A set whose Service is missing is empty, so that its requests are answered 503 and all
//!   others go on. A certificate whose Secret is missing or broken is taken from what was compiled from that
//!   Secret before; without that it is left out, and a listener left without any certificate is left out too. A
//!   reference into another namespace that nobody permits there is empty or left out, whatever was before.
//!
//! Every rule that the definition's schema and CEL state is checked here again, since no API server stands in
//! front of a folder.

mod authorities;
mod certificates;
mod check;
mod client_address;
mod conflict;
mod data_plane;
mod expiry;
mod filters;
mod front;
mod index;
mod layer4;
mod limits;
mod matches;
mod objects;
mod pods;
mod policy;
pub mod pool;
mod references;
mod rejection;
mod remotes;
mod rules;
mod selector;
pub mod sources;

mod touched;
mod transport;
mod update;
mod world;

pub(crate) use check::is_object_name;
pub use data_plane::DataPlane;
pub use expiry::Validity;
pub(crate) use index::take;
pub(crate) use objects::SERVICE_NAME_LABEL;
pub use objects::{ObjectKey, Objects, SECRETS_MAX, Unread};
pub use pods::{PodPort, PodState, Pods, SelectedPod};
pub use references::{
    GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec, secret_namespaces, secret_references,
};
pub use rejection::{Reason, Rejection, Warning};
pub(crate) use remotes::remotes_of;
pub use remotes::{Away, AwayReason, RemoteService, Remotes};
pub use selector::Selector;
pub(crate) use sources::selectors_of;
pub use sources::{BackendSetContent, Origin};
pub use touched::Touched;
pub use transport::Transport;
pub use world::{CompiledPool, CompiledSet, SetKey, World, world};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

#[cfg(test)]
mod tests;
