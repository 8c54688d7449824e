//! A backend that does exactly what a test says, byte by byte, however wrong.

use crate::harness::wait::GENEROUS;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

/// A listening backend; each connection is given to the script, on a thread of its own.
#[derive(Debug)]
pub struct Scripted {
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Scripted {
    /// Starts it. The script gets the number of the connection, from 0.
    ///
    /// # Panics
    /// When the system has no port.
    #[must_use]
    pub fn start(script: impl Fn(usize, &mut Exchange) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
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

/// One connection as the backend sees it. Closed when the script returns.
#[derive(Debug)]
pub struct Exchange {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Exchange {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(GENEROUS)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, ahead: Vec::new() }
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
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.ahead.extend_from_slice(&bytes[..n]),
            }
        }
    }

    /// Reads one request's head.
    pub fn read_head(&mut self) -> Option<String> {
        self.read_until("\r\n\r\n")
    }

    /// Writes bytes; whether the proxy still listens is not of interest.
    pub fn write(&mut self, bytes: &str) {
        let _ = self.stream.write_all(bytes.as_bytes());
    }
}
