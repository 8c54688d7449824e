//! Clients of HTTP/2, and bodies that come in many small frames.

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use weir_tests::harness::client::local;
use weir_tests::harness::wait::GENEROUS;

/// What clients and backends here allow for small frames that they leave unread, in bytes as h2 counts them. By default
/// some hundred of them end the connection.
pub(crate) const SMALL_FRAMES_BUDGET_BYTES: usize = 1 << 30;

/// What a client does, on one connection to a port.
pub(crate) fn over_http2<T>(port: u16, client: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    over_http2_as(&Builder::new(), port, client)
}

/// As [`over_http2`], with these settings. The client may have tasks of its own on the same thread.
pub(crate) fn over_http2_as<T>(
    settings: &Builder,
    port: u16,
    client: impl AsyncFnOnce(SendRequest<Bytes>) -> T,
) -> T {
    in_time(async {
        let socket = tokio::net::TcpStream::connect(local(port)).await.expect("serves");
        let (send, connection) = settings.handshake(socket).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let result = client(send).await;
        connection.abort();
        result
    })
}

/// Runs it to its end, which has to come.
pub(crate) fn in_time<T>(whole: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async { tokio::time::timeout(GENEROUS, whole).await.expect("in time") };
    tokio::task::LocalSet::new().block_on(&runtime, whole)
}

/// The rest of a body, which has to be whole.
pub(crate) async fn read(mut body: RecvStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("a whole body");
        body.flow_control().release_capacity(data.len()).expect("taken from it");
        read.extend_from_slice(&data);
    }
    read
}
