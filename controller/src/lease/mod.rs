//! Which replica writes: leadership over one `Lease` of `coordination.k8s.io`.
//!
//! Every replica of the controller serves configuration; only the holder of the Lease writes status, keys and Events.
//! [`Leadership`] follows the Lease and says so in a [`Leader`]. The decisions are those of a state machine without
//! I/O and clocks (`elector.rs`), which a simulation of replicas with skewed clocks, lost messages and pauses puts to
//! the test.
//!
//! Two replicas never both believe to lead, by time alone, as in client-go: a holder counts from the moment *before*
//! it asked for the renewal that succeeded, and stops after [`Timing::renew_deadline`]; everybody else counts from
//! the moment *after* it saw the Lease change, by its own monotonic clock, for the longer duration that the Lease
//! states. What the Lease says of the time of day is for people: clocks of two machines are never compared. The
//! difference between the two durations is the margin for a write that is on its way, and for clocks that run at
//! different speeds. A machine that is suspended stops its clock too; therefore whatever must not be lost is written
//! over the version that was read, and refused if that has changed.

mod campaign;
mod elector;
mod record;
#[cfg(test)]
mod simulation;

pub use campaign::{Candidate, Leadership};
pub use elector::{Action, Elector, Input, Now, Timing, TimingError};
pub use record::{Record, Revision};

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Default of `--lease-duration`: how long others wait for a holder that gives no sign of life.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// Default of `--lease-renew-deadline`: a holder that could not renew for this long stops writing.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Default of `--lease-retry`: between two attempts to renew the Lease or to get it.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Longest duration of a Lease, also of one that somebody else wrote: a mistyped number must not keep everyone from
/// leading for years.
pub const LEASE_DURATION_MAX: Duration = Duration::from_secs(600);

/// Who holds the Lease, as far as this replica knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leader {
    /// This replica may write. False again before any other replica's becomes true.
    pub is_me: bool,
    /// `None` while nobody holds it, or nobody that this replica understands.
    pub holder: Option<Holder>,
}

/// A replica of the controller, as the Lease names it: `name@address:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Of the pod.
    pub name: Arc<str>,
    /// Where other replicas reach it.
    pub address: SocketAddr,
}

impl Holder {
    /// `None` where it is not of that form: another program's Lease, or a person's edit.
    #[must_use]
    pub fn parse(identity: &str) -> Option<Self> {
        let (name, address) = identity.rsplit_once('@')?;
        let address = address.parse().ok()?;
        (!name.is_empty()).then(|| Self { name: name.into(), address })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_back_as_it_was_written() {
        for identity in ["weir-controller-0@10.0.0.7:9901", "pod@[fd00::7]:9901", "a@b@127.0.0.1:1"] {
            let holder = Holder::parse(identity).expect(identity);
            assert_eq!(holder.to_string(), identity);
        }
        for foreign in ["", "pod", "pod_0123-uuid", "@10.0.0.7:1", "pod@10.0.0.7", "pod@host:1"] {
            assert_eq!(Holder::parse(foreign), None, "{foreign}");
        }
    }
}
