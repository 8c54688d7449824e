//! The sample backends' WebSocket echo (RFC 6455).

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

/// Largest message that is echoed, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Whether the client wants to leave HTTP for WebSocket.
pub(super) fn is_asked_for(request: &Request<Incoming>) -> bool {
    names(request.headers(), header::UPGRADE, "websocket")
        && names(request.headers(), header::CONNECTION, "upgrade")
}

fn names(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Answers the handshake; the echo runs on its own task until either side closes, or with "going away" once
/// the sender of `stop` is dropped. `echoing` is held until then.
pub(super) fn accept(
    request: Request<Incoming>,
    stop: watch::Receiver<()>,
    echoing: mpsc::Sender<()>,
) -> Response<Full<Bytes>> {
    let accept_key = match accept_key(request.headers()) {
        Ok(key) => key,
        Err(reason) => return refusal(reason),
    };
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(stream) => {
                let config = WebSocketConfig::default()
                    .max_message_size(Some(MESSAGE_BYTES_MAX))
                    .max_frame_size(Some(MESSAGE_BYTES_MAX));
                echo(
                    WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config)).await,
                    stop,
                )
                .await;
            }
            Err(error) => tracing::debug!("a WebSocket client left during the handshake: {error}"),
        }
        drop(echoing);
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_key);
    response
}

fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("the WebSocket handshake needs `Sec-WebSocket-Version: 13` (RFC 6455, 4.2.1)");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or("the WebSocket handshake needs a `Sec-WebSocket-Key` (RFC 6455, 4.2.1)")?;
    Ok(HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is a header value"))
}

fn refusal(reason: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{reason}\n")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

async fn echo<S>(mut socket: WebSocketStream<S>, mut stop: watch::Receiver<()>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = stop.changed() => {
                let reason = CloseFrame { code: CloseCode::Away, reason: "the sample backend ends".into() };
                let _ = socket.close(Some(reason)).await;
                return;
            }
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // Pings and the peer's close are answered by the library while it reads and flushes.
            Some(Ok(_)) => {
                if socket.flush().await.is_err() {
                    return;
                }
            }
            // A broken connection or frame is the client's affair.
            Some(Err(_)) | None => return,
        }
    }
}
