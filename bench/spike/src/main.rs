//! The spike: the plainest HTTP proxy that Weir's stack can make, on one tokio thread.
//!
//! It is a measuring stick and not a product. It has no routes, no policy, no health, no metrics and no limits; it
//! trusts its origins, so it only ever runs on loopback beside `bench/compare`. Two codecs share its frame:
//!
//! - `spike hyper PORT PORT2 DIR`: hyper's HTTP/1 server and client on `PORT`; on `PORT2` the same over TLS with
//!   HTTP/2 or HTTP/1.1 by ALPN (`cert.pem` and `key.pem` of `DIR`). What the product costs above this line is the
//!   product's own doing; the project promises to stay within 1.10 times of it.
//! - `spike raw PORT`: httparse over two buffers, without hyper. What tokio costs with the least possible HTTP; the
//!   difference between the two decided which HTTP/1 codec Weir uses (docs/decisions/http1-codec.md).
//!
//! Both forward to 127.0.0.1:19001-19004 in turn and add X-Forwarded-For and X-Forwarded-Proto, as the peers do.

mod raw;
mod with_hyper;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ORIGIN_PORT_FIRST: u16 = 19001;
const ORIGIN_COUNT: u16 = 4;

/// Opens a connection to the `turn`-th origin; any number is a turn.
async fn dial(turn: u16) -> std::io::Result<TcpStream> {
    let origin = TcpStream::connect(("127.0.0.1", ORIGIN_PORT_FIRST + turn % ORIGIN_COUNT)).await?;
    origin.set_nodelay(true)?;
    Ok(origin)
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = tokio::task::LocalSet::new();
    match arguments.as_slice() {
        ["hyper", plain, secure, certificates] => {
            let (plain, secure) = (port(plain)?, port(secure)?);
            let tls = with_hyper::acceptor(certificates)?;
            tasks.block_on(&runtime, async {
                tokio::task::spawn_local(async move {
                    if let Err(error) = with_hyper::serve_tls(secure, tls).await {
                        eprintln!("spike: the TLS listener stopped: {error}");
                    }
                });
                with_hyper::serve(plain).await
            })?;
        }
        ["raw", plain] => tasks.block_on(&runtime, raw::serve(port(plain)?))?,
        _ => bail!("usage: spike hyper PORT TLS_PORT CERTIFICATE_FOLDER | spike raw PORT"),
    }
    Ok(())
}

fn port(text: &str) -> anyhow::Result<u16> {
    text.parse().with_context(|| format!("{text:?} is not a port"))
}
