//! Keys that all proxies of one kind share, in one Secret of the controller's namespace.
//!
//! The Secret holds three keys: previous, current, next. Proxies seal with the current one and open with all three,
//! and a rotation moves each up by one. So `next` is everywhere for a whole period before anybody seals with it, and
//! what was sealed stays good for a whole period after. The holder of the Lease makes, rotates and mends the Secret,
//! always over the version that it read: of two that believe to be the holder one is refused, and no key is lost that
//! a proxy has sealed with. Every replica watches the Secret, by its name, and gives each proxy a ring of keys
//! derived for that proxy's kind (its namespace and ServiceAccount), so that a sidecar of one team can do nothing
//! with the tickets of another team's gateway. Deleting the Secret revokes all three at once.
//!
//! Without an API server a file takes the Secret's place ([`FileKeeper`]).

mod file;
mod keeper;
mod ring;
mod secret;

pub use file::{FILE_BYTES_MAX, FileError, FileKeeper};
pub use keeper::Keeper;
pub use ring::{Key, RandomError, Ring, scope};

use std::time::Duration;

/// Name of the Secret.
pub const SECRET_NAME: &str = "weir-keys";

/// Default of `--key-rotation`.
pub const ROTATION_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Shortest time between two rotations: proxies must have heard of one before the next.
pub const ROTATION_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest time between two rotations. RFC 8446, section 4.6.1, gives a ticket no more.
pub const ROTATION_INTERVAL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
