//! Backends that are written in the pool.

use super::{BackendSetContent, Resolved};
use crate::compile::check::Check;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use weir_crds::pool as spec;
use weir_proto::push::{Backend, BackendState, UpstreamProtocol};

/// Written addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticSource {
    /// In the order of their ids.
    pub backends: Vec<Backend>,
    /// What they are spoken to in.
    pub protocol: UpstreamProtocol,
}

impl StaticSource {
    pub(super) fn resolve(&self) -> Resolved {
        Resolved {
            content: BackendSetContent::new(self.backends.clone()),
            protocol: self.protocol,
            warnings: Vec::new(),
            name: None,
            is_open: false,
        }
    }
}

/// Reads a set's addresses; `None` where one of them is wrong.
pub(super) fn plan(
    field: &str,
    source: &spec::StaticSource,
    protocol: Option<UpstreamProtocol>,
    check: &mut Check,
) -> Option<StaticSource> {
    check.count(field, &source.backends, (0, spec::STATIC_BACKENDS_MAX));
    let (mut addresses, mut compiled) = (BTreeSet::new(), Vec::new());
    for (index, entry) in source.backends.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if let Some(name) = &entry.name {
            check.name(&format!("{field}.name"), name);
        }
        let ip = check.address(&format!("{field}.address"), &entry.address);
        let port = check.port(&format!("{field}.port"), entry.port);
        let weight = check.number(&format!("{field}.weight"), entry.weight, spec::BACKEND_WEIGHT_MAX);
        let priority = check.number(&format!("{field}.priority"), entry.priority, spec::PRIORITY_MAX);
        if let (Some(ip), Some(port), Some(weight), Some(priority)) = (ip, port, weight, priority) {
            let address = SocketAddr::new(ip, port);
            check.unique(&mut addresses, address, format!("{field}.address"), address);
            compiled.push(Backend {
                id: address.to_string(),
                address: address.to_string(),
                weight,
                priority,
                state: BackendState::Ready.into(),
                ..Backend::default()
            });
        }
    }
    let is_whole = compiled.len() == source.backends.len();
    compiled.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let protocol = protocol.unwrap_or(UpstreamProtocol::Http1);
    is_whole.then_some(StaticSource { backends: compiled, protocol })
}
