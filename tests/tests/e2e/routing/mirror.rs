//! Copies of requests.

use super::{SETS, Site};
use std::sync::{Arc, Mutex};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::{Asked, Scripted};
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::wait;

/// A backend that keeps what it is asked, and answers with an error.
fn recorder() -> (Scripted, Arc<Mutex<Vec<Asked>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    let backend = Scripted::start(move |_, exchange| {
        while let Some(asked) = exchange.read_request() {
            keeping.lock().expect("no panic").push(asked);
            exchange.write("HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (backend, kept)
}

/// As [`Site::start`], where the last set is this backend.
fn site(filter: &str, mirror: u16) -> Site {
    let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("routed", SETS.len()));
    let rule = format!(
        "{{ filters: [{{ type: RequestMirror, requestMirror: {filter} }}], backendSets: [{{ name: first }}] }}"
    );
    let text = super::text(port, &samples, "", &[&rule]);
    folder.write(
        "pool.yaml",
        &text.replace(&format!("port: {}", samples.ports[3]), &format!("port: {mirror}")),
    );
    let weir = Service::standalone(folder.path(), &[]);
    Site { port, weir, folder, samples }
}

#[test]
fn a_copy_is_the_request_with_its_body_and_its_answer_is_nobodys() {
    let (backend, kept) = recorder();
    let site = site("{ backendSet: fourth }", backend.port);
    assert_eq!(site.get("/a?b=c", &[("x-own", "1")]).set(), 0);
    assert_eq!(site.ask("POST", "/p", &[], "the body").set(), 0);
    let asked = wait::until("two copies of each", || {
        let kept = kept.lock().expect("no panic");
        (kept.len() == 4).then(|| kept.clone())
    });
    let gets: Vec<_> =
        asked.iter().filter(|asked| asked.head.starts_with("GET /a?b=c HTTP/1.1\r\n")).collect();
    assert!(gets.len() == 2 && gets.iter().all(|asked| asked.header("x-own") == Some("1")), "{asked:?}");
    let posts =
        asked.iter().filter(|asked| asked.head.starts_with("POST /p ") && asked.content().0 == "the body");
    assert_eq!(posts.count(), 2, "{asked:?}");
    assert_eq!(site.weir.metric("weir_mirrors_total"), 4);
}

#[test]
fn a_share_is_copied_and_a_body_that_is_too_large_is_not() {
    let (backend, kept) = recorder();
    let site = site("{ backendSet: fourth, percent: 25 }", backend.port);
    for _ in 0..100 {
        assert_eq!(site.get("/", &[]).status, 200);
    }
    let copies = site.weir.metric("weir_mirrors_total");
    assert!((20..=85).contains(&copies), "{copies} of 200, where 50 are expected");
    wait::until("as many as were sent", || {
        (kept.lock().expect("no panic").len() as u64 == copies).then_some(())
    });

    let (backend, kept) = recorder();
    let site = self::site("{ backendSet: fourth }", backend.port);
    let most: &'static str = "x".repeat(64 << 10).leak();
    let more: &'static str = "x".repeat((64 << 10) + 1).leak();
    assert_eq!(site.ask("POST", "/", &[], more).status, 200);
    assert_eq!(site.weir.metric("weir_mirrors_left_out_total"), 2);
    assert_eq!(site.ask("POST", "/", &[], most).status, 200);
    wait::until("both of the smaller ones", || (kept.lock().expect("no panic").len() == 2).then_some(()));
}

#[test]
fn a_mirror_that_never_answers_or_is_not_there_delays_and_fails_nothing() {
    let stuck = Scripted::start(|_, exchange| exchange.stay());
    for mirror in [stuck.port, ports::free()] {
        let site = site("{ backendSet: fourth }", mirror);
        for nth in 0..200 {
            let answer = super::over_http1(site.port, "GET", "/", &[], "");
            assert_eq!((nth, answer.status), (nth, 200));
        }
        let (sent, left_out) =
            (site.weir.metric("weir_mirrors_total"), site.weir.metric("weir_mirrors_left_out_total"));
        assert_eq!(sent + left_out, 200);
        if mirror == stuck.port {
            assert_eq!((sent, left_out), (128, 72), "no more under way than a worker may have");
        }
    }
}
