//! Whose word on the client counts, from the specification to the wire.

use super::check::Check;
use super::policy;
use weir_crds::pool as spec;
use weir_proto::push;

/// Of one listener.
pub(super) fn compile(field: &str, own: &spec::ClientAddress, check: &mut Check) -> push::ClientAddress {
    let trusted = format!("{field}.trustedCIDRs");
    let hops = own.num_trusted_hops.and_then(|hops| {
        check.between(&format!("{field}.numTrustedHops"), hops, (1, spec::TRUSTED_HOPS_MAX))
    });
    push::ClientAddress {
        trusted_networks: policy::networks(&trusted, &own.trusted_cidrs, spec::TRUSTED_NETWORKS_MAX, check),
        trusted_hops: hops.unwrap_or(0),
        from_forwarded: own.source == spec::ClientAddressSource::Forwarded,
        send_forwarded: own.forwarded == spec::ForwardedHeader::Send,
    }
}
