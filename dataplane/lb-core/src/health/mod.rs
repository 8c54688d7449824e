//! Health: which backends of a set take requests, and how many.
//!
//! ```text
//! probes --> Roster (Checker) --+
//!                               +--> Checks --> SetHealth --> Standing, Change
//! News of other proxies --> Sharing            ^
//! batches of outcomes -------> Passive --------+
//! ```
//!
//! [`Health`] is all of it for one process: inputs go in, [`Health::step`] says what to do. The parts are state machines
//! of their own, each with its tests; `tests/health/` simulates several processes with seeds.
//!
//! Not here: probing itself, which is I/O; who serves where nobody is available, which is the membership's; slow start,
//! which a picker makes of [`Standing::available_since`].

mod active;
mod checks;
mod moment;
mod passive;
mod random;
mod roster;
mod set;
mod settings;
mod sharing;
mod whole;
mod window;

pub use active::*;
pub use checks::*;
pub use moment::Moment;
pub use passive::*;
pub use roster::*;
pub use set::*;
pub use settings::*;
pub use sharing::*;
pub use whole::*;
pub use window::Batch;
