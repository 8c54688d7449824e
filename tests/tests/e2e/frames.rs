//! Bodies over HTTP/2 that come in many small frames.

use h2::RecvStream;

/// What clients and backends here allow for small frames that they leave unread, in bytes as h2 counts them. By default
/// some hundred of them end the connection.
pub(crate) const SMALL_FRAMES_BUDGET_BYTES: usize = 1 << 30;

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
