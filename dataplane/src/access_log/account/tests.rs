use super::*;
use crate::access_log::output::Output;
use crate::access_log::writer::{Message, spawn};
use crate::access_log::{AccessLogOptions, BATCH_RECORDS_MAX, BATCHES_WAITING_MAX, Counts, Share};
use crate::failure::Failure;
use crate::message::BodyLength;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use tokio::sync::mpsc;

const JSON: AccessLogOptions =
    AccessLogOptions { format: Format::Json, file: None, share: Share::ALL, which: Which::All };

fn peer() -> Peer {
    Peer::at(80, [192, 0, 2, 1])
}

/// A log, and what its writer would get.
fn log(options: &AccessLogOptions) -> (AccessLog, mpsc::Receiver<Message>, Arc<Counts>) {
    let (desk, messages) = Desk::new(options);
    let counts = desk.counts();
    (AccessLog::new(Some(desk)), messages, counts)
}

/// The lines that came.
fn lines(log: &AccessLog, messages: &mut mpsc::Receiver<Message>) -> Vec<String> {
    log.flush();
    let mut text = Vec::new();
    while let Ok(Message::Lines(batch)) = messages.try_recv() {
        assert_eq!(memchr::memchr_iter(b'\n', &batch.bytes).count(), batch.records as usize);
        text.extend(batch.bytes);
    }
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}

fn only(log: &AccessLog, messages: &mut mpsc::Receiver<Message>) -> Value {
    let lines = lines(log, messages);
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).expect("JSON")
}

fn open(log: &AccessLog) -> Option<Box<Account>> {
    log.open(&peer(), Said::default)
}

fn head(status: StatusCode) -> ResponseHead {
    ResponseHead { status, headers: HeaderMap::new(), body: BodyLength::Empty }
}

/// Writes a line of a request that ended well.
fn write(log: &AccessLog) {
    if let Some(account) = open(log) {
        account.answered(&head(StatusCode::OK));
        account.end(None);
    }
}

#[test]
fn a_log_that_is_off_asks_nothing() {
    let log = AccessLog::default();
    assert!(!log.is_on());
    assert!(log.open(&peer(), || panic!("nobody wants to know")).is_none());
    log.flush();
}

#[test]
fn an_account_tells_what_happened_on_the_way() {
    let (log, mut messages, _) = log(&JSON);
    let account = open(&log).expect("all are logged");
    let route = Route::new(1, "ns/pool".into(), 2, Vec::new());
    let (first, second): (SocketAddr, SocketAddr) = (([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into());
    let set: Arc<str> = "ns/pool/web".into();
    account.routed(&route);
    account.asked_by(&Peer::at(80, [198, 51, 100, 7]));
    account.tries(first, &set, Via::Nothing);
    account.tries(second, &set, Via::Kept);
    account.came(7);
    account.came(8);
    account.answered_by(first, &set, Via::New(Duration::from_millis(2)), Duration::from_millis(3));
    account.session(Some(SessionResult::FailedOver));
    account.answered(&head(StatusCode::OK));
    account.went(5);
    account
        .trailed(&HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("13"))]));
    account.end(Some(Failure::BackendClosed.into()));
    let told = only(&log, &mut messages);
    for (name, value) in [
        ("pool", Value::from("ns/pool")),
        ("rule", "rules[2]".into()),
        ("client", "198.51.100.7".into()),
        ("peer", "192.0.2.1:0".into()),
        ("request_bytes", 15.into()),
        ("response_bytes", 5.into()),
        ("backend", "10.0.0.1:80".into()),
        ("attempts", 2.into()),
        ("connect_ms", 2.0.into()),
        ("first_byte_ms", 3.0.into()),
        ("session", "failed_over".into()),
        ("status", 200.into()),
        ("grpc_status", 13.into()),
        ("reason", "backend_closed".into()),
    ] {
        assert_eq!(told[name], value, "{name} of {told}");
    }
}

#[test]
fn what_nobody_ended_was_cut_and_a_tunnel_tells_how_it_ended() {
    let (log, mut messages, _) = log(&JSON);
    drop(open(&log));
    let told = only(&log, &mut messages);
    assert_eq!((&told["reason"], &told["status"]), (&Value::from("cut"), &Value::from(499)));
    for (ended, reason) in [
        (Ended::Both, Value::Null),
        (Ended::Broken, "broken".into()),
        (Ended::Idle, "idle".into()),
        (Ended::Asked, "asked".into()),
    ] {
        let account = open(&log).expect("all are logged");
        account.answered(&head(StatusCode::SWITCHING_PROTOCOLS));
        account.upgraded();
        account.carried(ended, [3, 4]);
        let told = only(&log, &mut messages);
        let bytes = (&told["request_bytes"], &told["response_bytes"]);
        assert_eq!((&told["kind"], bytes), (&Value::from("websocket"), (&3.into(), &4.into())));
        assert_eq!(told["reason"], reason);
    }
}

#[test]
fn of_failures_alone_there_are_those_with_a_reason_or_a_status_from_500() {
    let (log, mut messages, _) = log(&AccessLogOptions { which: Which::Failures, ..JSON });
    for (status, reason, is_logged) in [
        (200, None, false),
        (404, None, false),
        (500, None, true),
        (404, Some(Reason::from(Failure::NoRoute)), true),
        (308, Some(Reason::Word("https_redirect")), false),
        (200, Some(Reason::from(Failure::ClientGone)), true),
        (200, Some(Reason::Failure("fallback")), true),
    ] {
        let account = open(&log).expect("all are drawn");
        account.answered(&head(StatusCode::from_u16(status).expect("a status")));
        account.end(reason);
        assert_eq!(lines(&log, &mut messages).len(), usize::from(is_logged), "{status} {reason:?}");
    }
}

#[test]
fn a_share_of_the_requests_is_logged() {
    let share = Share::of(0.01).expect("a part");
    let (log, ..) = log(&AccessLogOptions { share, ..JSON });
    let logged = (0..100_000).filter(|_| open(&log).is_some()).count();
    // 1,000 with a deviation of 31.
    assert!((750..1_250).contains(&logged), "{logged}");
}

#[test]
fn a_connection_has_no_place_in_the_common_format() {
    for (format, is_logged) in [(Format::Json, true), (Format::Common, false), (Format::Combined, false)] {
        let (log, _messages, _) = log(&AccessLogOptions { format, ..JSON });
        assert_eq!(log.open_connection(&peer(), Said::default).is_some(), is_logged, "{format:?}");
    }
}

#[test]
fn past_all_that_may_wait_lines_are_dropped_and_counted() {
    // Of a length of which as many as may be find room in a batch.
    let (log, mut messages, counts) = log(&AccessLogOptions { format: Format::Common, ..JSON });
    let most = (BATCHES_WAITING_MAX + 1) * BATCH_RECORDS_MAX as usize;
    (0..most).for_each(|_| write(&log));
    assert_eq!(counts.dropped(), 0);
    write(&log);
    assert_eq!(counts.dropped(), 1);
    // Once the writer goes on, what comes finds room again.
    assert!(matches!(messages.try_recv(), Ok(Message::Lines(_))));
    write(&log);
    assert_eq!(counts.dropped(), 1);
    assert_eq!(lines(&log, &mut messages).len(), most - BATCH_RECORDS_MAX as usize);
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_delays_nobody_and_what_is_lost_is_counted() {
    const RECORDS: u64 = 100_000;
    let (mut reader, end) = std::io::pipe().expect("a pipe");
    let output = Output::of(File::from(OwnedFd::from(end)));
    let (desk, ended) = spawn(&JSON, output).expect("a thread");
    let counts = desk.counts();
    let log = AccessLog::new(Some(desk));
    // That this comes to its end is the point.
    (0..RECORDS).for_each(|_| write(&log));
    assert!(counts.dropped() > 0 && counts.records() < RECORDS, "{counts:?}");
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the writer ends");
    ended.await.expect_err("it says so by its end");
    assert_eq!(
        (counts.records() + counts.dropped(), text.lines().count() as u64),
        (RECORDS, counts.records())
    );
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}
