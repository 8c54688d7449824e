//! What the administration of a controller, or of `weir run`, tells: a few small GETs, each with limits.

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest wait for one page.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one page where it does not say otherwise: 500 proxies with everything that they may lack are a tenth of it.
pub(crate) const PAGE_BYTES_MAX: usize = 32 << 20;
/// Pages of one list.
const PAGES_MAX: usize = 64;

/// An address of administration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    /// `HOST:PORT`.
    authority: String,
}

/// Why a replica told nothing; who asks can fix it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Nobody listens, or the name leads nowhere.
    #[error(
        "nothing answers at {0}: is the controller (or weir run) up there, and is this its --admin address?"
    )]
    Unreachable(Admin, #[source] std::io::Error),
    /// It took too long.
    #[error("{0} does not answer within 5 s: is it overloaded, or another service?")]
    Timeout(Admin),
    /// Not HTTP/1.1, or broken off.
    #[error("{0} does not speak HTTP, or broke off: name the --admin address of a controller or of weir run")]
    Http(Admin, #[source] hyper::Error),
    /// Something else is served there.
    #[error(
        "{0} has no {1} (it answers {2}): name the --admin address of a controller of this version (port 9902 unless said \
         otherwise) or of weir run, not that of a proxy"
    )]
    Page(Admin, &'static str, StatusCode),
    /// Past [`PAGE_BYTES_MAX`] or [`PAGES_MAX`].
    #[error("{0} answers with more than is read of {1}")]
    TooMuch(Admin, &'static str),
    /// No JSON, or with other fields.
    #[error("{0} answers with something else than {1}: are weir and the controller of one version?")]
    Json(Admin, &'static str, #[source] serde_json::Error),
}

/// A page of a list.
pub(crate) trait Page: DeserializeOwned {
    const PATH: &'static str;
    const BYTES_MAX: usize = PAGE_BYTES_MAX;
    type Row;
    /// Its rows, and where the next page begins.
    fn split(self) -> (Vec<Self::Row>, Option<String>);
}

impl Admin {
    /// Every row of a list.
    pub(crate) async fn all<P: Page>(&self) -> Result<Vec<P::Row>, FetchError> {
        let mut rows = Vec::new();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = tokio::time::timeout(FETCH_TIMEOUT, self.page::<P>(after.as_deref()));
            let page = page.await.map_err(|_| FetchError::Timeout(self.clone()))??;
            let (more, next) = page.split();
            rows.extend(more);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(rows),
            }
        }
        Err(FetchError::TooMuch(self.clone(), P::PATH))
    }

    async fn page<P: Page>(&self, after: Option<&str>) -> Result<P, FetchError> {
        let query = after.map(|after| format!("?after={}", after.replace('/', "%2F"))).unwrap_or_default();
        let (status, read) = self.get(P::PATH, &query, P::BYTES_MAX).await?;
        if status != StatusCode::OK {
            return Err(FetchError::Page(self.clone(), P::PATH, status));
        }
        serde_json::from_slice(&read).map_err(|error| FetchError::Json(self.clone(), P::PATH, error))
    }

    /// One answer of at most so many bytes, whatever its status. `query` begins with a question mark where there is one, and
    /// is percent-encoded.
    pub(crate) async fn get(
        &self,
        path: &'static str,
        query: &str,
        bytes_max: usize,
    ) -> Result<(StatusCode, BytesMut), FetchError> {
        let http = |error| FetchError::Http(self.clone(), error);
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.map_err(|error| FetchError::Unreachable(self.clone(), error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let request = Request::get(format!("{path}{query}"))
            .header(HOST, &self.authority)
            .body(Empty::<Bytes>::new())
            .expect("what is encoded, and an authority that was read, make a request");
        let exchange = async {
            let response = sender.send_request(request).await.map_err(http)?;
            let status = response.status();
            let mut body = Limited::new(response.into_body(), bytes_max);
            let mut read = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| match error.downcast::<hyper::Error>() {
                    Ok(error) => http(*error),
                    Err(error) => {
                        debug_assert!(error.is::<LengthLimitError>(), "{error}");
                        FetchError::TooMuch(self.clone(), path)
                    }
                })?;
                read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            Ok((status, read))
        };
        // The connection is driven until the answer is there, and then dropped.
        tokio::pin!(connection, exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                Err(error) => Err(http(error)),
                // What was read before the end is with the exchange already.
                Ok(()) => exchange.await,
            },
        }
    }
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it as http://ADDRESS:PORT, as in http://127.0.0.1:9902".to_owned();
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong())?;
        if parsed.port_u16().is_none() || parsed.host().is_empty() || authority.contains('@') {
            return Err(wrong());
        }
        Ok(Self { authority: authority.to_owned() })
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[derive(Deserialize)]
    struct Names {
        pools: Vec<Name>,
        next: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    struct Name {
        name: String,
    }

    impl Page for Names {
        const PATH: &'static str = "/api/v1/pools";
        type Row = Name;
        fn split(self) -> (Vec<Name>, Option<String>) {
            (self.pools, self.next)
        }
    }

    /// Answers each connection with the next of these bodies, and tells the request lines.
    async fn replica(answers: Vec<(u16, String)>) -> (Admin, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let admin = listener.local_addr().expect("bound").to_string().parse().expect("an address");
        let task = tokio::spawn(async move {
            let mut lines = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = vec![0; 4096];
                let count = stream.read(&mut head).await.expect("a request");
                let head = String::from_utf8_lossy(&head[..count]).into_owned();
                lines.push(head.lines().next().unwrap_or_default().to_owned());
                let length = body.len();
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
                // Whoever asks may be gone by then.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            lines
        });
        (admin, task)
    }

    #[tokio::test]
    async fn a_list_goes_on_for_as_many_pages_as_there_are() {
        let page =
            |name: &str, next: &str| (200, format!(r#"{{"pools":[{{"name":"{name}"}}],"next":{next}}}"#));
        let (admin, task) = replica(vec![page("a", r#""ns/a""#), page("b", "null")]).await;
        let names = admin.all::<Names>().await.expect("all pages");
        assert_eq!(names.iter().map(|name| &*name.name).collect::<Vec<_>>(), ["a", "b"]);
        let lines = task.await.expect("it ends");
        assert_eq!(lines[1], "GET /api/v1/pools?after=ns%2Fa HTTP/1.1");
    }

    #[tokio::test]
    async fn whatever_is_wrong_is_said_in_a_sentence_that_names_the_address() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
        let gone: Admin = gone.to_string().parse().expect("an address");
        let said = gone.all::<Names>().await.expect_err("nobody is there").to_string();
        assert!(said.starts_with(&format!("nothing answers at {gone}: is the controller")), "{said}");
        for (status, body, expected) in [
            (404, "{}", "has no /api/v1/pools (it answers 404 Not Found)"),
            (200, "[]", "answers with something else than /api/v1/pools"),
        ] {
            let (admin, _task) = replica(vec![(status, body.to_owned())]).await;
            let said = admin.all::<Names>().await.expect_err("no page").to_string();
            assert!(said.starts_with(&admin.to_string()) && said.contains(expected), "{said}");
        }
        let endless = (0..=PAGES_MAX).map(|_| (200, r#"{"pools":[],"next":"a"}"#.to_owned()));
        let (admin, _task) = replica(endless.collect()).await;
        assert!(matches!(admin.all::<Names>().await, Err(FetchError::TooMuch(..))));
    }

    #[test]
    fn an_address_is_read_with_and_without_its_scheme() {
        for text in ["http://127.0.0.1:9902", "127.0.0.1:9902/", "http://127.0.0.1:9902/"] {
            assert_eq!(
                text.parse::<Admin>().map(|admin| admin.to_string()),
                Ok("http://127.0.0.1:9902".into())
            );
        }
        for text in
            ["", "https://127.0.0.1:9902", "127.0.0.1", "http://u@h:1", "http://h:1/metrics", "http://:1"]
        {
            assert!(text.parse::<Admin>().is_err(), "{text}");
        }
    }
}
