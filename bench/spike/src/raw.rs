//! No hyper: httparse over two buffers that one task owns, a head read, an exchange done, the connection kept.
//!
//! Requests have no body here and answers must state their length: enough for the scenarios that compare codecs.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::{net::TcpListener, net::TcpStream, task::spawn_local};

use crate::dial;

const BUFFER_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

type Idle = Rc<RefCell<Vec<TcpStream>>>;

/// Accepts plain HTTP/1.1 for ever; an error is a listener that cannot be opened or accept any more.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let idle = Idle::default();
    let mut turn = 0u16;
    loop {
        let (stream, client) = listener.accept().await?;
        stream.set_nodelay(true)?;
        turn = turn.wrapping_add(1);
        let exchange = Exchange {
            idle: idle.clone(),
            turn,
            added: format!("x-forwarded-for: {}\r\nx-forwarded-proto: http\r\n\r\n", client.ip())
                .into_bytes(),
            input: Vec::new(),
            output: Vec::new(),
        };
        spawn_local(exchange.run(stream));
    }
}

struct Exchange {
    idle: Idle,
    turn: u16,
    /// The header lines to add and the empty line that ends the head.
    added: Vec<u8>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Exchange {
    async fn run(mut self, mut downstream: TcpStream) {
        // A client that goes away, or says what this spike does not understand, loses its connection.
        while let Ok(true) = self.one(&mut downstream).await {}
    }

    /// One request and its answer; false when the client has closed between requests.
    async fn one(&mut self, downstream: &mut TcpStream) -> anyhow::Result<bool> {
        // The buffers live from the first byte of a request to the last of its answer: an idle connection owns none.
        downstream.readable().await?;
        self.input.reserve_exact(BUFFER_BYTES);
        let Some(head_bytes) = self.request(downstream).await? else { return Ok(false) };
        self.output.extend_from_slice(&self.input[..head_bytes - 2]);
        self.output.extend_from_slice(&self.added);
        let idle = self.idle.borrow_mut().pop();
        let mut upstream = match idle {
            Some(upstream) => upstream,
            None => dial(self.turn).await?,
        };
        upstream.write_all(&self.output).await?;
        self.answer(&mut upstream, downstream).await?;
        self.idle.borrow_mut().push(upstream);
        self.input = Vec::new();
        self.output = Vec::new();
        Ok(true)
    }

    /// Reads until a whole request head is in the buffer; its length, or nothing when the client has closed.
    async fn request(&mut self, downstream: &mut TcpStream) -> anyhow::Result<Option<usize>> {
        loop {
            if downstream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(head_bytes) = request.parse(&self.input)? {
                return Ok(Some(head_bytes));
            }
        }
    }

    /// Copies one answer, as it comes.
    async fn answer(&mut self, upstream: &mut TcpStream, downstream: &mut TcpStream) -> anyhow::Result<()> {
        self.input.clear();
        let mut remaining = loop {
            if upstream.read_buf(&mut self.input).await? == 0 {
                bail!("the origin closed before its head was complete");
            }
            if let Some(whole) = answer_bytes(&self.input)? {
                downstream.write_all(&self.input).await?;
                break whole.checked_sub(self.input.len()).context("the origin sent more than one answer")?;
            }
        };
        while remaining > 0 {
            self.input.clear();
            let read = upstream.read_buf(&mut self.input).await?;
            if read == 0 {
                bail!("the origin closed inside a body");
            }
            downstream.write_all(&self.input).await?;
            remaining = remaining.checked_sub(read).context("the origin sent more than one answer")?;
        }
        Ok(())
    }
}

/// The length of head and body together, once the head is complete.
fn answer_bytes(read: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = answer.parse(read)? else { return Ok(None) };
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.context("the origin states no length")?;
    Ok(Some(head_bytes + std::str::from_utf8(length.value)?.parse::<usize>()?))
}
