//! TLS that is passed on: the client's first message says for whom it is, and goes to the backend as it came.
//!
//! The message is understood by rustls, which would read it just the same if TLS ended here; nothing of it is changed, and
//! nothing behind it is looked at.

use super::pass_on;
use crate::connection::{self, HANDSHAKE_TIMEOUT, Peer};
use crate::failure::Failure;
use crate::wire::{Io, Wire};
use crate::worker::Worker;
use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::net::TcpStream;

/// Largest first message of a client, in bytes on the wire; the connection is closed past it. Those of browsers, with a key
/// against quantum computers in them, have 2 KiB.
const CLIENT_HELLO_BYTES_MAX: usize = 16 << 10;

/// Room for a read.
const READ_BYTES: usize = 4 << 10;

/// Fatal alerts (RFC 8446, section 6): a record, and in it the level and what is wrong.
const UNRECOGNIZED_NAME: [u8; 7] = alert(112);
const DECODE_ERROR: [u8; 7] = alert(50);

const fn alert(what: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, what]
}

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
struct Hello {
    /// In lower case; empty where the client names none.
    name: String,
    /// All that was read, and maybe more than the message.
    bytes: BytesMut,
}

/// What is no begin of TLS, or too much; and what the client is told, if anything.
#[derive(Debug, PartialEq, Eq)]
struct Unclear(Vec<u8>);

/// Serves one connection.
pub(crate) async fn serve(worker: &Worker, peer: &Peer, stream: TcpStream) {
    let begun = match worker.begin_handshake(peer) {
        Ok(begun) => begun,
        Err(why) => return connection::refuse(worker, &stream, why),
    };
    let wire = Wire::new(Io::Plain(stream));
    let hello = {
        let deadline = worker.timers.deadline();
        let read = deadline.within(HANDSHAKE_TIMEOUT, Box::pin(hello(&wire))).await;
        read.unwrap_or_else(|| Err(Unclear(Vec::new())))
    };
    drop(begun);
    match hello {
        Ok(Hello { name, bytes }) => match pass_on(worker, peer, (&wire, bytes), &name).await {
            Ok(()) => {}
            Err(failure) => match told(failure) {
                Some(alert) => tell(&wire, alert).await,
                None => wire.reset_on_close(),
            },
        },
        Err(Unclear(told)) => {
            worker.counters.handshakes_failed.add(1);
            tell(&wire, &told).await;
        }
    }
}

/// What a client is told that no backend takes; `None`: nothing, and its connection is reset.
pub(crate) fn told(failure: Failure) -> Option<&'static [u8]> {
    (failure == Failure::NoRoute).then_some(&UNRECOGNIZED_NAME)
}

/// So little finds room, or nobody listens any more.
async fn tell(wire: &Wire, alert: &[u8]) {
    if !alert.is_empty() {
        let told = async {
            wire.write(alert, &[]).await?;
            wire.shutdown().await
        };
        let _ = crate::wire::poll_once(told).await;
    }
}

async fn hello(wire: &Wire) -> Result<Hello, Unclear> {
    let (mut acceptor, mut bytes) = (Acceptor::default(), BytesMut::new());
    loop {
        let before = bytes.len();
        bytes.reserve(READ_BYTES);
        if matches!(wire.read(&mut bytes).await, Ok(0) | Err(_)) {
            return Err(Unclear(Vec::new()));
        }
        if let Some(name) = read(&mut acceptor, &bytes[before..])? {
            return Ok(Hello { name, bytes });
        }
        if bytes.len() >= CLIENT_HELLO_BYTES_MAX {
            return Err(Unclear(DECODE_ERROR.to_vec()));
        }
    }
}

/// Reads the next piece; `None` while there has to come more.
fn read(acceptor: &mut Acceptor, mut piece: &[u8]) -> Result<Option<String>, Unclear> {
    while !piece.is_empty() {
        let unclear = |_| Unclear(DECODE_ERROR.to_vec());
        acceptor.read_tls(&mut piece).map_err(unclear)?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Ok(Some(super::host(accepted.client_hello().server_name())));
            }
            Err((_, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told).map_err(unclear)?;
                return Err(Unclear(told));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    /// What a client of rustls begins with.
    fn begin(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("suites")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.enable_sni = !name.is_empty();
        config.alpn_protocols = alpn.iter().map(|own| own.to_vec()).collect();
        let name = if name.is_empty() { "a.example" } else { name };
        let name = name.to_owned().try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("complete");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory");
        bytes
    }

    fn name(pieces: &[&[u8]]) -> Result<Option<String>, Unclear> {
        let mut acceptor = Acceptor::default();
        for piece in pieces {
            if let Some(name) = read(&mut acceptor, piece)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    #[test]
    fn the_name_is_found_however_the_message_comes() {
        let whole = begin("Db.Example", &[b"postgresql"]);
        let found = Ok(Some("db.example".to_owned()));
        assert_eq!(name(&[&whole]), found);
        for step in [1, 5, 100, 1_000] {
            assert_eq!(name(&whole.chunks(step).collect::<Vec<_>>()), found, "{step} bytes at a time");
        }
        assert_eq!(name(&[&whole[..whole.len() - 1]]), Ok(None), "a byte is missing");
        // Split into records, as some clients do.
        let (head, body) = (&whole[..3], &whole[5..]);
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).expect("short").to_be_bytes();
            [head, &length, part].concat()
        };
        let (first, second) = body.split_at(40);
        assert_eq!(name(&[&[record(first), record(second)].concat()]), found);
        assert_eq!(name(&[&[&whole[..], b"and what follows"].concat()]), found);
    }

    #[test]
    fn who_names_nobody_is_for_every_host() {
        assert_eq!(name(&[&begin("", &[])]), Ok(Some(String::new())));
    }

    #[test]
    fn what_is_no_begin_of_tls_is_told_so() {
        for wrong in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"*1\r\n$4\r\nPING\r\n",
            &[0; 64],
            &[22, 3, 1, 255, 255, 1, 1, 1],
        ] {
            let refused = name(&[wrong]);
            assert!(matches!(&refused, Err(Unclear(told)) if told.first() == Some(&21)), "{refused:?}");
        }
    }
}
