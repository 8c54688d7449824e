//! A plain HTTP/1.1 client over a blocking socket: it sends exactly what it is told, and an answer that is not
//! whole is an error.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for the next bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes that came after the answer before.
    ahead: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// Whether the server ends the connection after this answer.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The address of a port on 127.0.0.1.
#[must_use]
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Reads a socket up to and with `end`.
///
/// # Panics
/// When it ends or breaks before.
#[must_use]
pub fn read_to(mut stream: &TcpStream, end: &str) -> String {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while !bytes.ends_with(end.as_bytes()) {
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            other => panic!("{other:?} before {end:?}: {}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One GET over a connection of its own, with `Host: localhost`.
///
/// # Errors
/// When there is no whole answer.
pub fn fetch(port: u16, target: &str) -> io::Result<Answer> {
    fetch_at(local(port), target)
}

/// As [`fetch`], from another address than 127.0.0.1.
///
/// # Errors
/// When there is no whole answer.
pub fn fetch_at(server: SocketAddr, target: &str) -> io::Result<Answer> {
    Connection::open_at(server)?
        .request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

impl Connection {
    /// Connects to a port on 127.0.0.1.
    ///
    /// # Errors
    /// When nobody accepts there.
    pub fn open(port: u16) -> io::Result<Self> {
        Self::open_at(local(port))
    }

    /// Connects to a server.
    ///
    /// # Errors
    /// When nobody accepts there.
    pub fn open_at(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// One GET, keeping the connection.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.request(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Sends these bytes and reads one answer (not for HEAD).
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn request(&mut self, bytes: &str) -> io::Result<Answer> {
        self.stream.write_all(bytes.as_bytes())?;
        self.read_answer()
    }

    /// Sends bytes and reads nothing.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one answer, whose framing must be a length, chunks or (with `Connection: close`) the end.
    ///
    /// # Errors
    /// When the connection ends before the answer does, or when the answer is not HTTP.
    pub fn read_answer(&mut self) -> io::Result<Answer> {
        let head = self.read_head()?;
        self.read_rest(head)
    }

    /// Reads an answer's head; its body is empty as yet.
    ///
    /// # Errors
    /// When the connection ends before the head does, or when the answer is not HTTP.
    pub fn read_head(&mut self) -> io::Result<Answer> {
        let head_end = self.read_until(|bytes| find(bytes, b"\r\n\r\n"))? + 4;
        let head: Vec<u8> = self.ahead.drain(..head_end).collect();
        let head = String::from_utf8(head).map_err(|_| bad("the head is not text"))?;
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3));
        let status =
            status.and_then(|code| code.parse().ok()).ok_or_else(|| bad("no HTTP/1.1 status line"))?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Answer { status, headers, body: Vec::new() })
    }

    /// Reads the body that follows a head.
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub fn read_rest(&mut self, mut head: Answer) -> io::Result<Answer> {
        head.body = self.read_body(&head)?;
        Ok(head)
    }

    /// The socket, for a protocol after an upgrade.
    ///
    /// # Panics
    /// When bytes were read past the last answer.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        assert!(self.ahead.is_empty(), "bytes after the answer: {:?}", self.ahead);
        self.stream
    }

    /// Whether the server closes without another byte before `READ_TIMEOUT`.
    ///
    /// # Errors
    /// When bytes or a failure come instead.
    pub fn read_end(&mut self) -> io::Result<()> {
        let mut rest = std::mem::take(&mut self.ahead);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) if rest.is_empty() => Ok(()),
            Ok(_) => Err(bad("bytes came where the end was due")),
            // Closed with something of ours unread: for a client as final as an end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        if matches!(answer.status, 100..=199 | 204 | 304) {
            return Ok(Vec::new());
        }
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().map_err(|_| bad("content-length is not a number"))?;
            self.read_until(|bytes| (bytes.len() >= length).then_some(length))?;
            return Ok(self.ahead.drain(..length).collect());
        }
        let mut body = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut body)?;
        Ok(body)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line_end = self.read_until(|bytes| find(bytes, b"\r\n"))?;
            let line: Vec<u8> = self.ahead.drain(..line_end + 2).collect();
            let size =
                std::str::from_utf8(&line[..line_end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
            let size = size.ok_or_else(|| bad("a chunk without a size"))?;
            self.read_until(|bytes| (bytes.len() >= size + 2).then_some(size))?;
            body.extend(self.ahead.drain(..size + 2).take(size));
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_until(&mut self, complete: impl Fn(&[u8]) -> Option<usize>) -> io::Result<usize> {
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some(end) = complete(&self.ahead) {
                return Ok(end);
            }
            if self.ahead.len() > ANSWER_BYTES_MAX {
                return Err(bad("the answer is too long"));
            }
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.ahead.extend_from_slice(&bytes[..n]),
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
