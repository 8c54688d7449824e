//! The process: its version, and figures read from `/proc/self` at each scrape.

use procfs::process::{LimitValue, Process as Entry};
use procfs::{ProcResult, WithCurrentSystemInfo as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The process that this is, as a collector.
#[derive(Debug)]
pub struct Process {
    started_at: SystemTime,
}

/// A name, its help, its kind and its value.
type Figure = (&'static str, &'static str, MetricType, f64);

impl Process {
    /// This process, which counts as started now.
    #[must_use]
    pub fn here() -> Self {
        Self { started_at: SystemTime::now() }
    }

    /// None of those that the system does not tell.
    fn figures(&self) -> Vec<Figure> {
        let since = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "When the process started, in seconds since 1970";
        let mut figures = vec![("process_start_time_seconds", help, MetricType::Gauge, since)];
        figures.extend(told().unwrap_or_default());
        figures
    }
}

/// What the system tells.
fn told() -> ProcResult<Vec<Figure>> {
    use MetricType::{Counter, Gauge};
    let entry = Entry::myself()?;
    let stat = entry.stat()?;
    let ticks = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    let resident = stat.rss_bytes().get() as f64;
    let mut figures = vec![
        ("process_cpu_seconds", "User and system time of the process", Counter, ticks),
        ("process_resident_memory_bytes", "Memory that the process has", Gauge, resident),
        ("process_virtual_memory_bytes", "Addresses that the process has", Gauge, stat.vsize as f64),
        ("process_threads", "Threads of the process", Gauge, stat.num_threads as f64),
        ("process_open_fds", "Descriptors that are open", Gauge, entry.fd_count()? as f64),
    ];
    if let LimitValue::Value(max) = entry.limits()?.max_open_files.soft_limit {
        figures.push(("process_max_fds", "Descriptors that may be open", Gauge, max as f64));
    }
    Ok(figures)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder
            .encode_descriptor("weir_build", "What runs here", None, MetricType::Info)?
            .encode_info(&version)?;
        for (name, help, kind, value) in self.figures() {
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            match kind {
                MetricType::Counter => {
                    metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)?;
                }
                _ => metric.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, encode};
    use prometheus_client::registry::Registry;

    #[test]
    fn a_process_tells_its_figures_by_the_names_that_prometheus_has_for_them() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::here()));
        // So that there is time to count.
        assert!((0..3_000_000_u64).map(std::hint::black_box).sum::<u64>() > 0);
        let text = encode(&registry, Format::Text).expect("strings grow");
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().expect("a number")
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert_eq!(value(concat!("weir_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")), 1.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
    }
}
