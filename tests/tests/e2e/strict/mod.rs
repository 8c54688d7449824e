//! HTTP that two readers could take in two ways: what comes through, what does not, and what a recording backend saw.

mod backends;
mod chunks;
mod framing;
mod heads;
mod http2;
mod http2_backends;
mod limits;
mod paths;
pub(crate) mod raw;

use std::sync::mpsc::{self, Receiver, Sender};
use weir_tests::harness::client::{self, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::scripted::{Asked, Scripted};
use weir_tests::harness::services::Service;

/// A proxy, and the whole requests that its backends saw.
struct Site {
    _folder: Folder,
    weir: Service,
    port: u16,
    seen: Receiver<String>,
}

impl Site {
    fn start(change: impl FnOnce(String) -> String) -> Self {
        let (say, seen) = mpsc::channel();
        let backend = recorder("", say);
        Self::over(&PoolText::new("strict", ports::free(), &[(backend.port, 1)]), change, seen)
    }

    /// A proxy with this pool, whose text may be changed.
    fn over(pool: &PoolText, change: impl FnOnce(String) -> String, seen: Receiver<String>) -> Self {
        let folder = Folder::new();
        folder.write("pool.yaml", &change(pool.yaml()));
        let weir = Service::standalone(folder.path(), &[]);
        Self { _folder: folder, weir, port: pool.port, seen }
    }

    /// The requests that came before this one, in order.
    fn arrived(&self) -> Vec<String> {
        let answer = client::fetch(self.port, "/sentinel").expect("serves");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let all: Vec<String> = self.seen.try_iter().collect();
        let at = all.iter().position(|one| one.contains("GET /sentinel ")).expect("it arrived");
        all[..at].to_vec()
    }
}

/// A backend that tells of each whole request, with its name before it, and answers 200.
fn recorder(name: &'static str, say: Sender<String>) -> Scripted {
    Scripted::start(move |_, exchange| {
        while let Some(asked) = exchange.read_request() {
            let _ = say.send(format!("{name}{}", shown(&asked)));
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

/// The request's line, its fields in order of their names, its content and trailers. What the proxy says of the client is
/// left out where it is right.
fn shown(asked: &Asked) -> String {
    let mut lines = asked.head.trim_end().split("\r\n");
    let line = lines.next().unwrap_or_default();
    let host = asked.header("host").unwrap_or_default();
    let ours = [
        "x-forwarded-for: 127.0.0.1".to_owned(),
        "x-real-ip: 127.0.0.1".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        format!("x-forwarded-host: {host}"),
    ];
    let mut fields: Vec<&str> = lines.filter(|line| !ours.iter().any(|own| own == line)).collect();
    fields.sort_unstable();
    let (data, trailers) = asked.content();
    let mut shown = format!("{line} | {} || {data}", fields.join(" | "));
    if !trailers.trim().is_empty() {
        shown = format!("{shown} ++ {}", trailers.trim_end().replace("\r\n", " | "));
    }
    shown
}

/// What has to come of a request.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// Answered with this status, the connection is closed, and no whole request reached a backend.
    Refused(u16),
    /// These requests reached the backend, and no other, and each was answered with 200.
    Arrives(&'static [&'static str]),
    /// The same, and what follows them was refused as above.
    ArrivesThen(&'static [&'static str], u16),
}

use Outcome::{Arrives, ArrivesThen, Refused};

/// Sends each request on a connection of its own; tells of everything that is not as it should be.
fn check(site: &Site, class: &str, cases: &[(&str, Outcome)]) {
    assert!(cases.len() >= 10, "{class}: {} cases", cases.len());
    let mut wrong = Vec::new();
    for (request, outcome) in cases {
        if let Err(what) = judge(site, request, *outcome) {
            wrong.push(format!("{request:?}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{class}:\n{}", wrong.join("\n"));
}

fn judge(site: &Site, request: &str, outcome: Outcome) -> Result<(), String> {
    let (expected, refusal): (&[&str], _) = match outcome {
        Refused(status) => (&[], Some(status)),
        Arrives(expected) => (expected, None),
        ArrivesThen(expected, status) => (expected, Some(status)),
    };
    let mut connection = Connection::open(site.port).expect("serves");
    connection.send(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answers = Vec::new();
    for _ in expected {
        answers.push(connection.read_answer().map_err(|error| format!("{error} after {answers:?}"))?.status);
    }
    let mut problems = Vec::new();
    if answers.iter().any(|&status| status != 200) {
        problems.push(format!("answered {answers:?}"));
    }
    if let Some(status) = refusal {
        let answer = connection.read_answer().map_err(|error| format!("no answer: {error}"))?;
        if answer.status != status || !answer.closes() || answer.header("x-weir-reason").is_none() {
            problems.push(format!("answered {} {:?}: {}", answer.status, answer.headers, answer.text()));
        }
        if connection.read_end().is_err() {
            problems.push("the connection goes on".to_owned());
        }
    }
    drop(connection);
    let arrived = site.arrived();
    if arrived != expected {
        problems.push(format!("arrived: {arrived:#?}"));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}
