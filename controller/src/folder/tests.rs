//! Real folders, real events.

mod certificates;

use super::files::{EMPTY_AFTER, Events};
use super::*;
use crate::compile::{ObjectKey, world};
use crate::source::Loaded;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

fn pool(name: &str, port: u16) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: {name}}}\n\
         spec: {{listeners: [{{name: l, port: {port}, protocol: HTTP}}], backendSets: [{{name: s, static: {{backends: []}}}}]}}\n"
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a file can be written");
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Names and ports of what was loaded.
fn pools(loaded: &Loaded) -> Vec<(String, i32)> {
    let shown = |(key, pool): (&ObjectKey, &std::sync::Arc<weir_crds::LoadBalancerPool>)| {
        (key.name.clone(), pool.spec.listeners[0].port)
    };
    loaded.objects.pools.iter().map(shown).collect()
}

fn own(pools: &[(&str, i32)]) -> Vec<(String, i32)> {
    pools.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect()
}

fn opened(temp: &TempDir) -> Folder {
    let mut folder = Folder::open(temp.path()).expect("the folder is there");
    folder.refresh(&Events::default(), Instant::now());
    folder
}

fn load(path: &Path) -> Result<Loaded, FolderError> {
    let mut loaded = Loaded::default();
    Folder::open(path)?.load_into(&mut loaded)?;
    Ok(loaded)
}

fn refreshed(folder: &mut Folder) -> Loaded {
    folder.refresh(&Events::default(), Instant::now());
    folder.loaded()
}

#[test]
fn manifests_are_read_and_everything_else_is_not() {
    let temp = temp();
    write(temp.path(), "b.yaml", &pool("b", 2));
    write(temp.path(), "a.yml", &pool("a", 1));
    write(temp.path(), "c.json", &pool("c", 3));
    for name in [".hidden.yaml", "notes.txt", "d.yaml~", "e"] {
        write(temp.path(), name, "not: a manifest");
    }
    fs::create_dir(temp.path().join("sub.yaml")).expect("a folder");
    let loaded = opened(&temp).loaded();
    assert_eq!(loaded.problems, []);
    assert_eq!(pools(&loaded), own(&[("a", 1), ("b", 2), ("c", 3)]));
}

#[test]
fn pods_of_manifests_are_selected_whatever_the_order_of_the_files() {
    let set = |app: &str| {
        let selector = format!("endpointSelector: {{matchLabels: {{app: {app}}}, port: 80}}");
        pool("shop", 1).replacen("static: {backends: []}", &selector, 1)
    };
    let pod = |name: &str, address: &str, app: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\n\
             spec: {{containers: []}}\nstatus: {{podIP: {address}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
        )
    };
    let ids = |loaded: &Loaded| -> Vec<String> {
        let world = world(&loaded.objects, None);
        let sets = world.pools.values().flat_map(|pool| pool.sets.values());
        sets.flat_map(|set| set.content.backends.iter().map(|backend| backend.id.clone())).collect()
    };
    for order in [["a.yaml", "b.yaml", "c.yaml", "d.yaml"], ["d.yaml", "c.yaml", "b.yaml", "a.yaml"]] {
        let temp = temp();
        write(temp.path(), order[0], &set("web"));
        write(temp.path(), order[1], &pod("one", "10.0.0.1", "web"));
        write(temp.path(), order[2], &pod("two", "10.0.0.2", "api"));
        write(temp.path(), order[3], "apiVersion: v1\nkind: Pod\nmetadata: {name: bare}\n");
        let mut folder = opened(&temp);
        assert_eq!(ids(&folder.loaded()), ["10.0.0.1:80"]);
        write(temp.path(), order[1], &pod("one", "10.0.0.3", "web"));
        assert_eq!(ids(&refreshed(&mut folder)), ["10.0.0.3:80"]);
        write(temp.path(), order[0], &set("api"));
        assert_eq!(ids(&refreshed(&mut folder)), ["10.0.0.2:80"]);
    }
}

#[test]
fn other_clusters_of_a_service_are_said_to_need_a_cluster() {
    let set = "service: {name: web, port: 80, clusters: [{name: east, kubeconfigRef: {name: east}}]}";
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("shop", 1).replacen("static: {backends: []}", set, 1));
    let world = world(&opened(&temp).loaded().objects, None);
    let said: Vec<_> = world.warnings().map(ToString::to_string).collect();
    let expected = "default/shop: spec.backendSets[0].service.clusters[0]: \"east\" is another cluster, and none is watched \
                    here, since objects come from a folder: remove it (none of its backends serve)";
    assert!(said.iter().any(|said| said == expected), "{said:?}");
}

#[test]
fn a_broken_document_keeps_what_the_file_held() {
    let temp = temp();
    write(temp.path(), "a.yaml", &format!("{}---\n{}", pool("a", 1), pool("b", 2)));
    let mut folder = opened(&temp);
    write(temp.path(), "a.yaml", &format!("{}---\n{}", pool("a", 10), pool("b", 2).replace("spec", "spex")));
    let loaded = refreshed(&mut folder);
    assert_eq!(pools(&loaded), own(&[("a", 10), ("b", 2)]), "a moved on, b serves on");
    assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    write(temp.path(), "a.yaml", "{");
    assert_eq!(pools(&refreshed(&mut folder)), own(&[("a", 10), ("b", 2)]));
    write(temp.path(), "b.yaml", &pool("b", 20));
    assert_eq!(
        pools(&refreshed(&mut folder)),
        own(&[("a", 10), ("b", 20)]),
        "what is read goes before what is kept"
    );
    write(temp.path(), "a.yaml", &pool("c", 3));
    let healed = refreshed(&mut folder);
    assert_eq!((pools(&healed), healed.problems), (own(&[("b", 20), ("c", 3)]), Vec::new()));
    fs::remove_file(temp.path().join("a.yaml")).expect("the file is there");
    assert_eq!(pools(&refreshed(&mut folder)), own(&[("b", 20)]));
}

#[test]
fn the_first_file_wins_and_both_are_named() {
    let temp = temp();
    write(temp.path(), "a.yaml", &format!("# first\n{}", pool("shop", 1)));
    write(temp.path(), "b.yaml", &pool("shop", 2));
    let loaded = opened(&temp).loaded();
    assert_eq!(pools(&loaded), own(&[("shop", 1)]));
    let problem = loaded.problems[0].to_string();
    assert!(problem.contains("b.yaml:1:1: LoadBalancerPool default/shop is already in "), "{problem}");
    assert!(problem.ends_with("a.yaml:1:1: this one is ignored, remove it"), "{problem}");
}

#[test]
fn an_empty_file_counts_only_when_it_stays_empty() {
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("a", 1));
    let mut folder = opened(&temp);
    write(temp.path(), "a.yaml", "");
    let start = Instant::now();
    let none = Events::default();
    assert!(!folder.refresh(&none, start));
    assert!(!folder.refresh(&none, start + EMPTY_AFTER / 2));
    assert_eq!((pools(&folder.loaded()), folder.next_look()), (own(&[("a", 1)]), Some(start + EMPTY_AFTER)));
    assert!(folder.refresh(&none, start + EMPTY_AFTER));
    assert_eq!((pools(&folder.loaded()), folder.next_look()), (Vec::new(), None));
    write(temp.path(), "a.yaml", &pool("a", 2));
    assert_eq!(pools(&refreshed(&mut folder)), own(&[("a", 2)]));
}

#[test]
fn a_file_that_is_being_written_stays_as_it_was() {
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("a", 1));
    let mut folder = opened(&temp);
    write(temp.path(), "a.yaml", &pool("b", 1));
    let writing = Events { writing: ["a.yaml".into()].into(), ..Events::default() };
    assert!(!folder.refresh(&writing, Instant::now()));
    assert_eq!(pools(&folder.loaded()), own(&[("a", 1)]));
    assert_eq!(pools(&refreshed(&mut folder)), own(&[("b", 1)]));
}

#[test]
fn nothing_is_due_while_an_empty_file_is_being_written_or_cannot_be_listed() {
    let outer = temp();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    write(&inner, "a.yaml", &pool("a", 1));
    let mut folder = Folder::open(&inner).expect("the folder is there");
    let (none, start) = (Events::default(), Instant::now());
    folder.refresh(&none, start);
    write(&inner, "a.yaml", "");
    folder.refresh(&none, start);
    assert!(folder.next_look().is_some());
    let writing = Events { writing: ["a.yaml".into()].into(), ..Events::default() };
    assert!(!folder.refresh(&writing, start + EMPTY_AFTER * 2));
    assert_eq!(folder.next_look(), None, "it would be due again and again");
    folder.refresh(&none, start + EMPTY_AFTER * 3);
    assert!(folder.next_look().is_some());
    fs::rename(&inner, outer.path().join("away")).expect("a rename");
    assert!(folder.refresh(&none, start + EMPTY_AFTER * 5));
    assert_eq!((folder.next_look(), pools(&folder.loaded())), (None, own(&[("a", 1)])));
}

#[test]
fn a_pipe_that_nobody_writes_to_is_said_and_holds_nothing_up() {
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("a", 1));
    let pipe = temp.path().join("b.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils are there");
    assert!(made.success());
    let loaded = opened(&temp).loaded();
    assert_eq!(pools(&loaded), own(&[("a", 1)]));
    assert!(loaded.problems[0].to_string().contains("b.yaml: is not a file"), "{}", loaded.problems[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_delivered_before_the_folder_could_be_listed() {
    let outer = temp();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    let away = outer.path().join("away");
    write(&inner, "a.yaml", &pool("a", 1));
    let mut folder = Folder::open(&inner).expect("the folder is there");
    let source = FolderSource::open(&inner).expect("the folder is there");
    fs::rename(&inner, &away).expect("a rename");
    folder.refresh(&Events::default(), Instant::now());
    assert!(folder.unlisted().is_some());
    let mut running = Running::of(source);
    fs::rename(&away, &inner).expect("a rename");
    assert_eq!(pools(&running.next().await), own(&[("a", 1)]), "an empty world would take down every proxy");
    folder.refresh(&Events::default(), Instant::now());
    assert_eq!(folder.unlisted(), None);
    fs::rename(&inner, &away).expect("a rename");
    folder.refresh(&Events::default(), Instant::now());
    assert_eq!((folder.unlisted(), pools(&folder.loaded())), (None, own(&[("a", 1)])));
}

#[test]
fn a_folder_that_is_gone_is_not_an_empty_folder() {
    let outer = temp();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    write(&inner, "a.yaml", &pool("a", 1));
    let mut folder = Folder::open(&inner).expect("the folder is there");
    folder.refresh(&Events::default(), Instant::now());
    fs::rename(&inner, outer.path().join("away")).expect("a rename");
    let loaded = refreshed(&mut folder);
    assert_eq!((pools(&loaded), loaded.problems.len()), (own(&[("a", 1)]), 1), "{:?}", loaded.problems);
    fs::create_dir(&inner).expect("a folder");
    let loaded = refreshed(&mut folder);
    assert_eq!((pools(&loaded), loaded.problems), (Vec::new(), Vec::new()));
}

#[test]
fn files_have_limits_and_one_past_each_is_said() {
    let temp = temp();
    let whole = usize::try_from(FILE_BYTES_MAX).expect("a size");
    let padded = |bytes: usize| {
        let pool = pool("a", 1);
        let mut text = String::with_capacity(bytes);
        let _ = write!(text, "{pool}#{}", "x".repeat(bytes - pool.len() - 1));
        text
    };
    write(temp.path(), "a.yaml", &padded(whole));
    let mut folder = opened(&temp);
    assert_eq!(pools(&folder.loaded()), own(&[("a", 1)]));
    write(temp.path(), "a.yaml", &padded(whole + 1));
    let loaded = refreshed(&mut folder);
    assert!(loaded.problems[0].sentence.starts_with("is larger than 8388608 bytes"), "{:?}", loaded.problems);
    assert_eq!(pools(&loaded), own(&[("a", 1)]));
    fs::write(temp.path().join("a.yaml"), b"a: \xff").expect("a file");
    assert!(refreshed(&mut folder).problems[0].sentence.starts_with("is not UTF-8 from byte 3 on"));
}

#[test]
fn files_past_the_limit_are_not_read() {
    let temp = temp();
    for index in 0..=FILES_MAX {
        write(temp.path(), &format!("{index:05}.yaml"), if index >= FILES_MAX - 1 { "kind: x" } else { "" });
    }
    let problems = opened(&temp).loaded().problems;
    assert_eq!(problems.len(), 2);
    assert!(problems[1].to_string().contains("10000.yaml: is past the 10000 files"), "{}", problems[1]);
}

#[test]
fn what_is_wrong_with_a_pool_has_the_place_of_its_field() {
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("a", 0));
    let web = pool("b", 81).replace("static: {backends: []}", "service: {name: web, port: 80}");
    write(temp.path(), "b.yaml", &web);
    write(temp.path(), "c.yaml", "kind: x");
    let loaded = load(temp.path()).expect("the folder is there");
    let world = world(&loaded.objects, None);
    assert_eq!((loaded.problems.len(), world.pools.len()), (1, 1));
    let rejection = world.rejections.values().flatten().next().expect("one is refused");
    assert_eq!(rejection.field, "spec.listeners[0].port");
    let place = loaded.place_of(rejection).expect("it was written");
    assert_eq!((place.line, place.column), (4, 30));
    let warning = world.warnings().next().expect("one misses its service");
    assert_eq!(warning.field, "spec.backendSets[0].service.name");
    assert_eq!(loaded.place_of(warning).map(|place| place.line), Some(4));
    let one = load(&temp.path().join("b.yaml")).expect("the file is there");
    assert!(one.problems.is_empty() && one.objects.pools.len() == 1);
    assert!(load(&temp.path().join("nothing")).is_err());
}

/// A running source and what it delivers.
struct Running {
    loads: mpsc::UnboundedReceiver<Loaded>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(path: &Path) -> Self {
        Self::of(FolderSource::open(path).expect("the folder is there"))
    }

    fn of(source: FolderSource) -> Self {
        let (sender, loads) = mpsc::unbounded_channel();
        let task = tokio::spawn(source.run(move |loaded, _| {
            let _ = sender.send(loaded);
        }));
        Self { loads, task }
    }

    async fn next(&mut self) -> Loaded {
        let next = tokio::time::timeout(Duration::from_secs(10), self.loads.recv());
        next.await.expect("a delivery within the deadline").expect("the source runs")
    }

    /// Waits for these pools, whatever comes before.
    async fn until(&mut self, expected: &[(&str, i32)]) {
        loop {
            if pools(&self.next().await) == own(expected) {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_delivered_first_and_then_each_change() {
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("a", 1));
    let mut running = Running::start(temp.path());
    assert_eq!(pools(&running.next().await), own(&[("a", 1)]));
    write(temp.path(), "b.yaml", &pool("b", 2));
    assert_eq!(pools(&running.next().await), own(&[("a", 1), ("b", 2)]));
    write(temp.path(), "a.yaml", &pool("a", 3));
    assert_eq!(pools(&running.next().await), own(&[("a", 3), ("b", 2)]));
    write(temp.path(), ".new", &pool("a", 4));
    fs::rename(temp.path().join(".new"), temp.path().join("a.yaml")).expect("a rename");
    assert_eq!(pools(&running.next().await), own(&[("a", 4), ("b", 2)]));
    fs::remove_file(temp.path().join("b.yaml")).expect("the file is there");
    assert_eq!(pools(&running.next().await), own(&[("a", 4)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_delivered_within_its_budget() {
    let temp = temp();
    write(temp.path(), "a.yaml", &pool("a", 1));
    let mut running = Running::start(temp.path());
    running.next().await;
    let mut took = Vec::new();
    for port in 2..22 {
        let start = Instant::now();
        write(temp.path(), "a.yaml", &pool("a", port));
        assert_eq!(pools(&running.next().await), own(&[("a", i32::from(port))]), "nothing half-written");
        took.push(start.elapsed());
    }
    took.sort_unstable();
    // The poll alone would take 2 s; the middle one of many says that events work, whatever else this machine does.
    assert!(took[10] < SETTLE_MAX, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_is_waited_for() {
    let temp = temp();
    write(temp.path(), "a.yaml", &format!("{}---\n{}", pool("a", 1), pool("b", 1)));
    let mut running = Running::start(temp.path());
    running.next().await;
    let mut file = fs::File::create(temp.path().join("a.yaml")).expect("a file");
    file.write_all(pool("a", 2).as_bytes()).expect("a write");
    // Another file changes while this one is half written: its load must not take b away.
    write(temp.path(), "c.yaml", &pool("c", 1));
    assert_eq!(pools(&running.next().await), own(&[("a", 1), ("b", 1), ("c", 1)]));
    file.write_all(format!("---\n{}", pool("b", 2)).as_bytes()).expect("a write");
    drop(file);
    assert_eq!(pools(&running.next().await), own(&[("a", 2), ("b", 2), ("c", 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_swap_is_one_change() {
    let temp = temp();
    let version = |name: &str, port| {
        let folder = temp.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        write(&folder, "a.yaml", &pool("a", port));
        write(&folder, "b.yaml", &pool("b", port));
    };
    version("..1", 1);
    symlink("..1", temp.path().join("..data")).expect("a link");
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), temp.path().join(name)).expect("a link");
    }
    let mut running = Running::start(temp.path());
    assert_eq!(pools(&running.next().await), own(&[("a", 1), ("b", 1)]));
    version("..2", 2);
    symlink("..2", temp.path().join("..data_tmp")).expect("a link");
    fs::rename(temp.path().join("..data_tmp"), temp.path().join("..data")).expect("a rename");
    fs::remove_dir_all(temp.path().join("..1")).expect("the old version is there");
    assert_eq!(pools(&running.next().await), own(&[("a", 2), ("b", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poll_finds_what_no_event_tells() {
    let (temp, elsewhere) = (temp(), temp());
    write(elsewhere.path(), "a.yaml", &pool("a", 1));
    symlink(elsewhere.path().join("a.yaml"), temp.path().join("a.yaml")).expect("a link");
    let mut running = Running::start(temp.path());
    running.next().await;
    write(elsewhere.path(), "a.yaml", &pool("a", 2));
    running.until(&[("a", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_replaced_is_followed_again() {
    let outer = temp();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).expect("a folder");
    write(&inner, "a.yaml", &pool("a", 1));
    let mut running = Running::start(&inner);
    running.next().await;
    fs::rename(&inner, outer.path().join("away")).expect("a rename");
    fs::create_dir(&inner).expect("a folder");
    write(&inner, "a.yaml", &pool("a", 2));
    running.until(&[("a", 2)]).await;
    write(&inner, "a.yaml", &pool("a", 3));
    running.until(&[("a", 3)]).await;
}
