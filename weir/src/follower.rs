//! From what the folder holds to what the store serves, at the start and at each change of it, and of a name in DNS
//! that it follows.

use crate::findings::{self, Finding, Severity};
use crate::logging;
use crate::run::samples::Samples;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::mpsc;
use weir_controller::compile::{ObjectKey, Objects, Origin, Touched, World, world};
use weir_controller::dns::{Answered, Client, Wanted};
use weir_controller::folder::FolderSource;
use weir_controller::source::Loaded;
use weir_controller::status::{Board, Verdict};
use weir_controller::store::{Completeness, Store};

/// What a follower takes in.
enum Step {
    /// With the moment at which it was seen.
    Take(Box<Loaded>, Instant),
    Learn(Vec<Answered>, Instant),
}

/// Compiles each state of the folder and says what is wrong with it.
#[derive(Debug)]
pub struct Follower {
    store: Arc<Store>,
    board: Arc<Board>,
    samples: Option<Samples>,
    /// With what it was compiled from.
    compiled: Option<(Loaded, World)>,
    /// The first state and when it was seen, while names of it wait for their first answers.
    waiting: Option<(Loaded, Wanted, Instant)>,
    /// What was said about the state before, so that a change says what is new and not everything again.
    said: BTreeSet<Finding>,
    format: logging::Format,
}

impl Follower {
    /// Puts what it compiles into `store`, what it makes of each pool onto `board`, and says what is wrong on standard
    /// error.
    #[must_use]
    pub fn new(store: Arc<Store>, board: Arc<Board>, format: logging::Format) -> Self {
        let said = BTreeSet::new();
        Self { store, board, samples: None, compiled: None, waiting: None, said, format }
    }

    /// The same, with the samples that manifests ask for.
    #[must_use]
    pub fn with_samples(store: Arc<Store>, board: Arc<Board>, format: logging::Format) -> Self {
        Self { samples: Some(Samples::default()), ..Self::new(store, board, format) }
    }

    /// Follows `source`, and the names that its sets want, for as long as it is polled. `on_served` is called whenever
    /// a state came into force.
    ///
    /// # Panics
    /// Where compiling panicked or the runtime is shutting down.
    pub async fn run(mut self, source: FolderSource, mut names: Client, on_served: impl Fn()) {
        let (sender, mut loads) = mpsc::channel(1);
        let reading = source.run(move |loaded, seen| {
            // A receiver that is gone is a process that ends.
            let _ = sender.blocking_send((loaded, seen));
        });
        let mut reading = std::pin::pin!(reading);
        loop {
            let step = tokio::select! {
                () = &mut reading => return,
                Some((loaded, seen)) = loads.recv() => Step::Take(Box::new(loaded), seen),
                news = names.news() => Step::Learn(news, tokio::time::Instant::now().into_std()),
            };
            // A large folder takes its time, and requests are none of its business.
            let taken = tokio::task::spawn_blocking(move || {
                match step {
                    Step::Take(loaded, seen) => self.take(*loaded, seen),
                    Step::Learn(news, seen) => self.learn(news, seen),
                }
                self
            });
            self = taken.await.expect("compiling does not panic");
            self.wanted().into_iter().for_each(|wanted| names.want(wanted));
            if self.compiled.is_some() {
                on_served();
            }
        }
    }

    /// Names that are to be looked up; `None` while nothing is known of them.
    fn wanted(&self) -> Option<&Wanted> {
        let waiting = self.waiting.as_ref().map(|(_, wanted, _)| wanted);
        waiting.or_else(|| self.compiled.as_ref().map(|(_, world)| world.names()))
    }

    /// Makes a new state of the folder, `seen` then, the one in force. What is wrong in it keeps its last good state.
    fn take(&mut self, mut loaded: Loaded, seen: Instant) {
        if let Some(samples) = &mut self.samples {
            samples.supply(&mut loaded.objects);
        }
        // No file says what is known of names.
        let before = self.compiled.as_ref().map(|(loaded, _)| loaded);
        if let Some(before) = before.or(self.waiting.as_ref().map(|(loaded, ..)| loaded)) {
            loaded.objects.names.clone_from(&before.objects.names);
        }
        if self.compiled.is_some() {
            return self.serve(loaded, None, seen);
        }
        // Nothing is served before it is known to whom: the first requests would find empty sets.
        let first = world(&loaded.objects, None);
        if loaded.objects.are_known(first.names()) {
            self.waiting = None;
            self.serve(loaded, Some(first), seen);
        } else {
            self.waiting = Some((loaded, Arc::clone(first.names()), seen));
        }
    }

    /// Takes in what became known of names, at the cost of the sets that follow them.
    fn learn(&mut self, news: Vec<Answered>, seen: Instant) {
        if let Some((mut loaded, wanted, seen)) = self.waiting.take() {
            news.into_iter().for_each(|answered| loaded.objects.learn(answered));
            if loaded.objects.are_known(&wanted) {
                self.serve(loaded, None, seen);
            } else {
                self.waiting = Some((loaded, wanted, seen));
            }
        } else if let Some((mut loaded, mut world)) = self.compiled.take() {
            let origins = news.iter().map(|(lookup, _)| Origin::Name(lookup.clone())).collect();
            news.into_iter().for_each(|answered| loaded.objects.learn(answered));
            let touched = Touched { origins, ..Touched::default() };
            let looked_at = world.update(&loaded.objects, &touched);
            let outcome = self.store.apply_update(&world, &looked_at, completeness(&loaded), seen);
            tracing::debug!(changed = outcome.changed, "names resolved");
            if !looked_at.is_empty() {
                self.judge(looked_at, &loaded.objects, &world);
                self.say(findings::all(&loaded, &world));
            }
            self.compiled = Some((loaded, world));
        }
    }

    /// `first` is what it compiles to, where that is known.
    fn serve(&mut self, loaded: Loaded, first: Option<World>, seen: Instant) {
        let completeness = completeness(&loaded);
        let (world, outcome, looked_at) = match self.compiled.take() {
            None => {
                let world = first.unwrap_or_else(|| world(&loaded.objects, None));
                let outcome = self.store.apply(&world, completeness, seen);
                (world, outcome, loaded.objects.pools.keys().cloned().collect())
            }
            Some((before, mut world)) => {
                world.set_clock(SystemTime::now());
                let touched = Touched::between(&before.objects, &loaded.objects);
                let looked_at = world.update(&loaded.objects, &touched);
                let outcome = self.store.apply_update(&world, &looked_at, completeness, seen);
                (world, outcome, looked_at)
            }
        };
        self.judge(looked_at, &loaded.objects, &world);
        self.say(findings::all(&loaded, &world));
        tracing::info!(
            pools = world.serving_count(),
            changed = outcome.changed,
            removed = outcome.removed,
            problems = self.said.iter().filter(|finding| finding.severity == Severity::Problem).count(),
            "manifests read"
        );
        self.compiled = Some((loaded, world));
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

/// In a document that cannot be read may be any pool; what cannot be compiled is known by its name.
fn completeness(loaded: &Loaded) -> Completeness {
    if loaded.problems.is_empty() { Completeness::All } else { Completeness::Part }
}

fn log(finding: &Finding) {
    let Finding { severity, file, line, column, field, message, pool } = finding;
    let pool = pool.as_deref();
    match severity {
        Severity::Problem => tracing::error!(file, line, column, field, pool, "{message}"),
        Severity::Warning => tracing::warn!(file, line, column, field, pool, "{message}"),
    }
}
