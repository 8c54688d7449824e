//! What the metrics of Weir's processes have in common: [`Process`], the figures that every process tells of itself under the
//! names that Prometheus's own clients use, and the two [`Format`]s that a scrape may ask for.

mod exposition;
mod process;

pub use exposition::{Format, encode};
pub use process::Process;
