//! From what the folder holds to what the store serves, at the start and at each change.

use crate::findings::{self, Finding, Severity};
use crate::logging;
use crate::run::samples::Samples;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;
use weir_controller::compile::{ObjectKey, Objects, Touched, World, world};
use weir_controller::source::Loaded;
use weir_controller::status::{Board, Verdict};
use weir_controller::store::{Completeness, Store};

/// Compiles each state of the folder and says what is wrong with it.
#[derive(Debug)]
pub struct Follower {
    store: Arc<Store>,
    board: Arc<Board>,
    samples: Option<Samples>,
    /// With what it was compiled from.
    compiled: Option<(Objects, World)>,
    /// What was said about the state before, so that a change says what is new and not everything again.
    said: BTreeSet<Finding>,
    format: logging::Format,
}

impl Follower {
    /// Puts what it compiles into `store`, what it makes of each pool onto `board`, and says what is wrong on standard
    /// error.
    #[must_use]
    pub fn new(store: Arc<Store>, board: Arc<Board>, format: logging::Format) -> Self {
        Self { store, board, samples: None, compiled: None, said: BTreeSet::new(), format }
    }

    /// The same, with the samples that manifests ask for.
    #[must_use]
    pub fn with_samples(store: Arc<Store>, board: Arc<Board>, format: logging::Format) -> Self {
        Self { samples: Some(Samples::default()), ..Self::new(store, board, format) }
    }

    /// Makes a new state of the folder, `seen` then, the one in force. What is wrong in it keeps its last good state.
    pub fn take(&mut self, mut loaded: Loaded, seen: Instant) {
        if let Some(samples) = &mut self.samples {
            samples.supply(&mut loaded.objects);
        }
        // In a document that cannot be read may be any pool; what cannot be compiled is known by its name.
        let is_whole = loaded.problems.is_empty();
        let completeness = if is_whole { Completeness::All } else { Completeness::Part };
        let (world, outcome, looked_at) = match self.compiled.take() {
            None => {
                let world = world(&loaded.objects, None);
                let outcome = self.store.apply(&world, completeness, seen);
                (world, outcome, loaded.objects.pools.keys().cloned().collect())
            }
            Some((before, mut world)) => {
                let looked_at = world.update(&loaded.objects, &Touched::between(&before, &loaded.objects));
                let outcome = self.store.apply_update(&world, &looked_at, completeness, seen);
                (world, outcome, looked_at)
            }
        };
        self.judge(looked_at, &loaded.objects, &world);
        let findings = findings::all(&loaded, &world);
        self.say(findings);
        let served = world.serving_count();
        tracing::info!(
            pools = served,
            changed = outcome.changed,
            removed = outcome.removed,
            problems = self.said.iter().filter(|finding| finding.severity == Severity::Problem).count(),
            "manifests read"
        );
        self.compiled = Some((loaded.objects, world));
    }

    /// Brings the board up to date. Nobody writes a status here; it is looked at where one asks for it.
    fn judge(&self, looked_at: BTreeSet<ObjectKey>, objects: &Objects, world: &World) {
        for key in looked_at {
            match objects.pools.get(&key) {
                Some(pool) => self.board.set(key, Verdict::of(pool, world)),
                None => self.board.remove(&key),
            }
        }
        self.board.forget_changes();
    }

    fn say(&mut self, all: Vec<Finding>) {
        for finding in all.iter().filter(|finding| !self.said.contains(finding)) {
            match self.format {
                logging::Format::Text => {
                    // With standard error closed there is nobody left to tell.
                    let _ = writeln!(std::io::stderr().lock(), "{finding}");
                }
                logging::Format::Json => log(finding),
            }
        }
        self.said = all.into_iter().collect();
    }
}

fn log(finding: &Finding) {
    let Finding { severity, file, line, column, field, message, pool } = finding;
    let pool = pool.as_deref();
    match severity {
        Severity::Problem => tracing::error!(file, line, column, field, pool, "{message}"),
        Severity::Warning => tracing::warn!(file, line, column, field, pool, "{message}"),
    }
}
