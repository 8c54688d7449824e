//! What an operator sees: metrics, and the alerts on them, read by Prometheus itself.

mod metrics;
mod prometheus;

use std::path::Path;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

/// `weir run` before three backends that are checked.
struct Site {
    port: u16,
    weir: Service,
    samples: Samples,
    _folder: Folder,
}

impl Site {
    fn start() -> Self {
        let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("seen", 3));
        let mut pool = PoolText::new("seen", port, &samples.equal());
        pool.path = Some("/load".to_owned());
        pool.health_check = Some("{ active: { http: { path: /health }, interval: 100ms } }".to_owned());
        folder.write("pool.yaml", &pool.yaml());
        let weir = Service::standalone(folder.path(), &[]);
        Self { port, weir, samples, _folder: folder }
    }
}

/// The rules that are delivered, as a file for a Prometheus without the operator: what is below `spec`.
fn rules() -> String {
    let text = std::fs::read_to_string(monitoring().join("prometheusrule.yaml")).expect("the rules");
    let (_, spec) = text.split_once("\nspec:\n").expect("a specification");
    spec.lines().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned() + "\n").collect()
}

fn monitoring() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring")
}
