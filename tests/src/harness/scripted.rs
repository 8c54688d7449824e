//! A backend that does exactly what a test says, byte by byte, however wrong.

use crate::harness::wait::GENEROUS;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A listening backend; each connection is given to the script, on a thread of its own.
#[derive(Debug)]
pub struct Scripted {
    /// Its port, on 127.0.0.1 unless it was started elsewhere.
    pub port: u16,
}

impl Scripted {
    /// Starts it. The script gets the number of the connection, from 0.
    ///
    /// # Panics
    /// When the system has no port.
    #[must_use]
    pub fn start(script: impl Fn(usize, &mut Exchange) + Send + Sync + 'static) -> Self {
        Self::start_on(0, script)
    }

    /// As [`Self::start`], on this port of 127.0.0.1.
    ///
    /// # Panics
    /// When somebody has it.
    #[must_use]
    pub fn start_on(port: u16, script: impl Fn(usize, &mut Exchange) + Send + Sync + 'static) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, port).into(), script)
    }

    /// As [`Self::start`], on an address that may be a pod's.
    ///
    /// # Panics
    /// When somebody has it.
    #[must_use]
    pub fn start_at(
        address: SocketAddr,
        script: impl Fn(usize, &mut Exchange) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(number, &mut Exchange::new(stream)));
            }
        });
        Self { port }
    }
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The request's line and headers, with the empty line at the end.
    pub head: String,
    /// The body with its framing: chunks as they came.
    pub body: String,
}

impl Asked {
    /// The value of a header, whose name is given in lower case as the proxy writes it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "));
        self.head.split("\r\n").find(|line| value(line)).map(|line| &line[name.len() + 2..])
    }

    /// The body without its framing, and the lines of its trailers.
    ///
    /// # Panics
    /// When its chunks are none.
    #[must_use]
    pub fn content(&self) -> (String, String) {
        if self.header("transfer-encoding").is_none() {
            return (self.body.clone(), String::new());
        }
        let (mut rest, mut data) = (self.body.as_str(), String::new());
        loop {
            let (line, after) = rest.split_once("\r\n").expect("a chunk's line");
            let size = usize::from_str_radix(line, 16).expect("a chunk's size");
            if size == 0 {
                return (data, after.to_owned());
            }
            data.push_str(&after[..size]);
            rest = after[size..].strip_prefix("\r\n").expect("a chunk's end");
        }
    }
}

/// One connection as the backend sees it. Closed when the script returns.
#[derive(Debug)]
pub struct Exchange {
    stream: Arc<TcpStream>,
    ahead: Vec<u8>,
}

impl Exchange {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(GENEROUS)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: Arc::new(stream), ahead: Vec::new() }
    }

    /// Reads up to and with `end`; `None` when the proxy closes before.
    pub fn read_until(&mut self, end: &str) -> Option<String> {
        loop {
            let at = self.ahead.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = at {
                let taken: Vec<u8> = self.ahead.drain(..at + end.len()).collect();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            let mut bytes = [0; 4096];
            match (&*self.stream).read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.ahead.extend_from_slice(&bytes[..n]),
            }
        }
    }

    /// Reads one request's head.
    pub fn read_head(&mut self) -> Option<String> {
        self.read_until("\r\n\r\n")
    }

    /// Reads one request with its body.
    ///
    /// # Panics
    /// When its length is no number.
    pub fn read_request(&mut self) -> Option<Asked> {
        let mut asked = Asked { head: self.read_head()?, body: String::new() };
        if let Some(length) = asked.header("content-length") {
            asked.body = self.read_bytes(length.parse().expect("a length"))?;
        } else if asked.header("transfer-encoding").is_some() {
            asked.body = self.read_chunks()?;
        }
        Some(asked)
    }

    /// As [`Self::read_request`], after a look at whether one begins: `None` where nothing came for as long as it waits
    /// at most.
    ///
    /// # Errors
    /// When the proxy closes.
    pub fn read_request_if_any(&mut self) -> io::Result<Option<Asked>> {
        if self.ahead.is_empty() {
            let mut bytes = [0; 4096];
            match (&*self.stream).read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.ahead.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        self.stream.set_read_timeout(Some(GENEROUS))?;
        self.read_request().map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn read_chunks(&mut self) -> Option<String> {
        let mut body = String::new();
        loop {
            let line = self.read_until("\r\n")?;
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
            body.push_str(&line);
            if size > 0 {
                body.push_str(&self.read_bytes(size + 2)?);
                continue;
            }
            loop {
                let line = self.read_until("\r\n")?;
                body.push_str(&line);
                if line == "\r\n" {
                    return Some(body);
                }
            }
        }
    }

    fn read_bytes(&mut self, count: usize) -> Option<String> {
        let mut bytes = [0; 16 << 10];
        while self.ahead.len() < count {
            match (&*self.stream).read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.ahead.extend_from_slice(&bytes[..n]),
            }
        }
        let taken: Vec<u8> = self.ahead.drain(..count).collect();
        Some(String::from_utf8_lossy(&taken).into_owned())
    }

    /// From now on it waits no longer than this for bytes of the proxy, and then takes it for gone.
    ///
    /// # Panics
    /// When it is no time at all.
    pub fn wait_at_most(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("some time");
    }

    /// The connection, to look at from elsewhere.
    #[must_use]
    pub fn line(&self) -> Line {
        Line(Arc::downgrade(&self.stream))
    }

    /// Says that nothing more comes. Whatever the proxy sends from here on meets a closed connection.
    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Makes the close a reset, without an end before it.
    ///
    /// # Panics
    /// When the system does not know of such closes.
    pub fn reset_at_close(&mut self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }

    /// Writes bytes; whether the proxy still listens is not of interest.
    pub fn write(&mut self, bytes: &str) {
        let _ = (&*self.stream).write_all(bytes.as_bytes());
    }

    /// Writes back what comes, until its end.
    pub fn echo(&mut self) {
        let mut bytes = std::mem::take(&mut self.ahead);
        let mut room = vec![0; 64 << 10];
        while (&*self.stream).write_all(&bytes).is_ok() {
            match (&*self.stream).read(&mut room) {
                Ok(0) | Err(_) => return,
                Ok(n) => bytes = room[..n].to_vec(),
            }
        }
    }

    /// Holds the connection open, and neither reads nor writes.
    pub fn stay(&self) -> ! {
        loop {
            std::thread::park();
        }
    }

    /// Writes until nothing has been taken for `patience`.
    pub fn flood(&mut self, patience: Duration) {
        let _ = self.stream.set_write_timeout(Some(patience));
        let piece = vec![b'f'; 16 << 10];
        while (&*self.stream).write(&piece).is_ok() {}
    }
}

/// A connection of a backend, as another thread sees it.
#[derive(Debug)]
pub struct Line(Weak<TcpStream>);

impl Line {
    /// Whether one of both sides has closed it; the proxy after everything that it sent was read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let Some(stream) = self.0.upgrade() else { return true };
        match recv(&*stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((read, _)) => read == 0,
            Err(error) => error != rustix::io::Errno::AGAIN,
        }
    }
}
