//! Bodies of many small frames that are not read, beside others on the same connection.

use super::super::Site;
use super::backend::{Backend, drop};
use super::{begin, call, site};
use crate::http2_client::{SMALL_FRAMES_BUDGET_BYTES, over_http2_as, read};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use weir_tests::harness::client;
use weir_tests::harness::wait;

/// Frames of a response.
#[derive(Clone, Copy)]
struct Drops {
    /// Of each frame.
    bytes: usize,
    count: usize,
}

/// What a client reads at once.
const BESIDE: Drops = Drops { bytes: 4, count: 2_000 };
/// More than the buffers of a connection take by themselves, beside the window of the stream.
const FOR_HTTP1: Drops = Drops { bytes: 64, count: 130_000 };
/// More than both windows of a stream.
const FOR_HTTP2: Drops = Drops { bytes: 8, count: 60_000 };
/// The same, and what waits in memory between them.
const FROM_CLIENT: Drops = Drops { bytes: 16, count: 40_000 };

impl Drops {
    fn path(self) -> String {
        format!("/drops/{}/{}", self.bytes, self.count)
    }

    fn is(self, body: &[u8]) -> bool {
        let frames = (0..self.count).map(|number| drop(self.bytes, number));
        body.len() == self.bytes * self.count
            && body.chunks(self.bytes).zip(frames).all(|(got, sent)| got == sent)
    }
}

#[test]
fn a_client_of_http1_that_stops_reading_small_frames_harms_no_other_and_gets_all_once_it_reads() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    let path = FOR_HTTP1.path();
    let mut slow = begin(&site, &path);
    wait::until("the response should stand still while others pass", || {
        let before = backend.drops(&path);
        assert_passes(&site);
        (before > 0 && backend.drops(&path) == before).then_some(())
    });
    assert!(backend.drops(&path) < FOR_HTTP1.count, "none of it waits for the client");
    assert_passes(&site);
    let answer = slow.read_answer().expect("a whole answer");
    assert!(answer.status == 200 && FOR_HTTP1.is(&answer.body), "{} bytes", answer.body.len());
    assert_eq!(backend.connections().total(), 1, "all were on one");
}

fn assert_passes(site: &Site) {
    let answer = client::fetch(site.port, &BESIDE.path()).expect("a whole answer");
    assert!(BESIDE.is(&answer.body), "{} bytes", answer.body.len());
}

#[test]
fn a_stream_of_http2_that_is_not_read_harms_no_other_beside_it_and_is_whole_once_it_is_read() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    over_http2_as(&roomy(), site.port, async |mut client| {
        let slow = ask(&mut client, FOR_HTTP2).await;
        let (path, mut before) = (FOR_HTTP2.path(), 0);
        while before == 0 || backend.drops(&path) > before {
            before = backend.drops(&path);
            assert_passes_beside(&mut client).await;
        }
        assert!(backend.drops(&path) < FOR_HTTP2.count, "none of it waits for the client");
        assert!(FOR_HTTP2.is(&read(slow).await));
    });
    assert_eq!(backend.connections().total(), 1, "all were on one");
}

#[test]
fn a_backend_that_does_not_read_small_frames_of_a_client_harms_no_other_request_of_it() {
    let backend = Backend::start();
    let site = site(&backend, &[]);
    over_http2_as(&roomy(), site.port, async |mut client| {
        let (answer, mut up) = client.send_request(call("/late"), false).expect("open");
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        let sending = tokio::task::spawn_local(async move {
            let Drops { bytes, count: all } = FROM_CLIENT;
            for number in 0..all {
                up.reserve_capacity(bytes);
                while up.capacity() < bytes {
                    poll_fn(|cx| up.poll_capacity(cx)).await.expect("open").expect("open");
                }
                up.send_data(drop(bytes, number), number + 1 == all).expect("open");
                count.set(number);
            }
        });
        let mut before = 0;
        while before == 0 || sent.get() > before {
            before = sent.get();
            assert_passes_beside(&mut client).await;
        }
        assert!(!sending.is_finished(), "none of it waits for the backend");
        backend.let_go();
        assert!(FROM_CLIENT.is(&read(answer.await.expect("a head").into_body()).await));
        sending.await.expect("all is sent");
    });
}

/// With room for other streams beside the window of one that is not read.
fn roomy() -> Builder {
    let mut settings = Builder::new();
    settings.initial_connection_window_size(1 << 20).data_frame_budget(SMALL_FRAMES_BUDGET_BYTES);
    settings
}

async fn assert_passes_beside(client: &mut SendRequest<Bytes>) {
    let body = ask(client, BESIDE).await;
    assert!(BESIDE.is(&read(body).await));
}

async fn ask(client: &mut SendRequest<Bytes>, drops: Drops) -> RecvStream {
    let (answer, _) = client.send_request(call(&drops.path()), true).expect("open");
    answer.await.expect("a head").into_body()
}
