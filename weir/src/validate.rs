//! `weir validate`: what is wrong with manifests, before anything runs them.

use crate::exit::Failure;
use crate::findings::{self, Finding, Severity};
use crate::run::samples::Certificates;
use anyhow::Context as _;
use clap::ValueEnum;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use weir_controller::compile::world;
use weir_controller::folder::{FILE_BYTES_MAX, Folder};
use weir_controller::manifest::Reader;
use weir_controller::source::Loaded;

/// What standard input is called on the command line, and in the places of its problems.
const STDIN: &str = "-";

/// Flags of `weir validate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders or files of manifests that belong together; `-` reads standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// How to print what was found
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Let warnings fail too
    #[arg(long)]
    strict: bool,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// One line each, then a summary
    Text,
    /// One object: pools, problems, warnings
    Json,
}

/// What was found.
#[derive(Debug)]
struct Verdict {
    pools: usize,
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// Prints what is wrong. True when that is nothing.
///
/// # Errors
/// [`Failure::Usage`] where there is nothing at a path, [`Failure::Failed`] when output or input is closed.
pub fn run(args: &Args) -> Result<bool, Failure> {
    let verdict = judge(&args.paths)?;
    let text = match args.output {
        Output::Text => verdict.text(),
        Output::Json => verdict.json(),
    };
    io::Write::write_all(&mut io::stdout().lock(), text.as_bytes())
        .context("cannot write to standard output")?;
    Ok(verdict.problems.is_empty() && (verdict.warnings.is_empty() || !args.strict))
}

/// What these folders and files hold, with what `weir run` would supply. `-` is standard input.
///
/// # Errors
/// [`Failure::Usage`] where there is nothing at a path, [`Failure::Failed`] when input is closed.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Loaded, Failure> {
    let mut loaded = Loaded::default();
    for path in paths {
        if path.as_os_str() == STDIN {
            standard_input(&mut loaded)?;
        } else {
            let folder = Folder::open(path).map_err(|error| Failure::Usage(error.into()))?;
            folder.load_into(&mut loaded).map_err(|error| Failure::Usage(error.into()))?;
        }
    }
    // What `weir run` would supply is not missing.
    Certificates::default().supply(&mut loaded.objects);
    Ok(loaded)
}

fn judge(paths: &[PathBuf]) -> Result<Verdict, Failure> {
    let loaded = load(paths)?;
    let world = world(&loaded.objects, None);
    let (problems, mut warnings): (Vec<_>, Vec<_>) =
        findings::all(&loaded, &world).into_iter().partition(|finding| finding.severity == Severity::Problem);
    if loaded.objects.pools.is_empty() && problems.is_empty() {
        let named: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let message = "holds no LoadBalancerPool: nothing would be served".to_owned();
        warnings.push(Finding::of_file(Severity::Warning, named.join(", "), message));
    }
    Ok(Verdict { pools: world.pools.len(), problems, warnings })
}

fn standard_input(loaded: &mut Loaded) -> anyhow::Result<()> {
    let mut text = String::new();
    let read = io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.context("cannot read manifests from standard input")?;
    anyhow::ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "standard input holds more than {FILE_BYTES_MAX} bytes: split it"
    );
    let parsed = Reader::new().context("this build is broken")?.read(&Arc::from(STDIN), &text);
    loaded.problems.extend(parsed.problems);
    parsed.manifests.iter().for_each(|manifest| loaded.add(manifest));
    Ok(())
}

impl Verdict {
    fn text(&self) -> String {
        let mut text = String::new();
        for finding in self.problems.iter().chain(&self.warnings) {
            let _ = writeln!(text, "{finding}");
        }
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (pools, problems) = (count(self.pools, "pool"), count(self.problems.len(), "problem"));
        let warnings = count(self.warnings.len(), "warning");
        let _ = writeln!(text, "{pools} would be served; {problems}, {warnings}");
        text
    }

    fn json(&self) -> String {
        let Self { pools, problems, warnings } = self;
        let report = serde_json::json!({ "pools": pools, "problems": problems, "warnings": warnings });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata: { name: shop }
spec:
  listeners:
    - { name: https, port: 8443, protocol: HTTPS, tls: { certificateRefs: [{ name: shop-tls }] } }
  backendSets:
    - { name: web, static: { backends: [{ address: 127.0.0.1, port: 80 }] } }
";
    const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: { name: shop-tls, annotations: { weir.dev/self-signed: localhost } }
type: kubernetes.io/tls
";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("writable");
        }
        folder
    }

    #[test]
    fn files_that_are_named_together_belong_together() {
        let folder = folder(&[("pool.yaml", POOL), ("secret.yaml", SECRET)]);
        let [pool, secret] = ["pool.yaml", "secret.yaml"].map(|name| folder.path().join(name));
        let alone = judge(std::slice::from_ref(&pool)).expect("there");
        assert_eq!((alone.problems.len(), alone.warnings.len()), (0, 1), "{alone:?}");
        assert_eq!(alone.warnings[0].field, "spec.listeners[0].tls.certificateRefs[0].name");
        let both = judge(&[pool, secret]).expect("there");
        assert_eq!((both.pools, both.problems, both.warnings), (1, vec![], vec![]));
    }

    #[test]
    fn an_object_in_two_of_the_paths_is_a_problem_in_the_second() {
        let folder = folder(&[("a.yaml", SECRET), ("b.yaml", SECRET)]);
        let verdict = judge(&["a.yaml", "b.yaml"].map(|name| folder.path().join(name))).expect("there");
        assert_eq!(verdict.problems.len(), 1, "{verdict:?}");
        let problem = verdict.problems[0].to_string();
        assert!(problem.contains("b.yaml:1:1: Secret default/shop-tls is already in"), "{problem}");
        assert!(problem.ends_with("this one is ignored, remove it"), "{problem}");
    }

    #[test]
    fn paths_without_a_pool_are_warned_of() {
        let folder = folder(&[]);
        let verdict = judge(&[folder.path().to_owned()]).expect("there");
        assert!(verdict.text().contains("warning: holds no LoadBalancerPool"), "{}", verdict.text());
        assert!(
            verdict.text().ends_with("0 pools would be served; 0 problems, 1 warning\n"),
            "{}",
            verdict.text()
        );
    }

    #[test]
    fn a_path_that_is_not_there_is_a_mistake_of_who_asks() {
        assert!(matches!(judge(&["/no/such/path".into()]), Err(Failure::Usage(_))));
    }
}
