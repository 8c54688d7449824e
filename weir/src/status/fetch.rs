//! What the administration of a controller, or of `weir run`, tells: a few small GETs, each with limits.

use super::report::{Pool, Proxy};
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpStream;
use weir_controller::admin::{POOLS, PROXIES};

/// Longest wait for one page.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one page: 500 proxies with everything that they may lack are a tenth of it.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// Pages of one list.
const PAGES_MAX: usize = 64;

/// An address of administration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admin {
    /// `HOST:PORT`.
    authority: String,
}

/// Why a replica told nothing; who asks can fix it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
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

#[derive(Deserialize)]
struct PoolPage {
    pools: Vec<Pool>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct ProxyPage {
    replica: String,
    proxies: Vec<Proxy>,
    next: Option<String>,
}

/// A page of a list.
trait Page: DeserializeOwned {
    const PATH: &'static str;
    type Row;
    fn split(self) -> (Vec<Self::Row>, Option<String>);
}

impl Page for PoolPage {
    const PATH: &'static str = POOLS;
    type Row = Pool;
    fn split(self) -> (Vec<Pool>, Option<String>) {
        (self.pools, self.next)
    }
}

impl Page for ProxyPage {
    const PATH: &'static str = PROXIES;
    type Row = Proxy;
    fn split(self) -> (Vec<Proxy>, Option<String>) {
        let rows = self.proxies.into_iter().map(|proxy| Proxy { replica: self.replica.clone(), ..proxy });
        (rows.collect(), self.next)
    }
}

impl Admin {
    /// Every pool that this replica has.
    pub(super) async fn pools(&self) -> Result<Vec<Pool>, FetchError> {
        self.all::<PoolPage>().await
    }

    /// Every proxy that has its stream to this replica.
    pub(super) async fn proxies(&self) -> Result<Vec<Proxy>, FetchError> {
        self.all::<ProxyPage>().await
    }

    async fn all<P: Page>(&self) -> Result<Vec<P::Row>, FetchError> {
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
        let http = |error| FetchError::Http(self.clone(), error);
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.map_err(|error| FetchError::Unreachable(self.clone(), error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let query = after.map(|after| format!("?after={}", after.replace('/', "%2F"))).unwrap_or_default();
        let request = Request::get(format!("{}{query}", P::PATH))
            .header(HOST, &self.authority)
            .body(Empty::<Bytes>::new())
            .expect("names of pools and proxies, and an authority that was read, make a request");
        let exchange = async {
            let response = sender.send_request(request).await.map_err(http)?;
            let status = response.status();
            if status != StatusCode::OK {
                return Err(FetchError::Page(self.clone(), P::PATH, status));
            }
            let mut body = Limited::new(response.into_body(), PAGE_BYTES_MAX);
            let mut read = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| match error.downcast::<hyper::Error>() {
                    Ok(error) => http(*error),
                    Err(error) => {
                        debug_assert!(error.is::<LengthLimitError>(), "{error}");
                        FetchError::TooMuch(self.clone(), P::PATH)
                    }
                })?;
                read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
            serde_json::from_slice(&read).map_err(|error| FetchError::Json(self.clone(), P::PATH, error))
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

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
        let pools = |name: &str, next: &str| {
            (
                200,
                format!(r#"{{"pools":[{{"namespace":"ns","name":"{name}","status":null}}],"next":{next}}}"#),
            )
        };
        let proxies =
            (200, r#"{"replica":"r","proxies":[{"proxy":"p","unheard":1}],"next":null}"#.to_owned());
        let answers = vec![pools("a", r#""ns/a""#), pools("b", "null"), proxies];
        let (admin, task) = replica(answers).await;
        let (pools, proxies) =
            (admin.pools().await.expect("all pages"), admin.proxies().await.expect("all pages"));
        assert_eq!(pools.iter().map(|pool| &*pool.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((&*proxies[0].proxy, &*proxies[0].replica), ("p", "r"));
        let lines = task.await.expect("it ends");
        assert_eq!(lines[1], "GET /api/v1/pools?after=ns%2Fa HTTP/1.1");
    }

    #[tokio::test]
    async fn whatever_is_wrong_is_said_in_a_sentence_that_names_the_address() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
        let gone: Admin = gone.to_string().parse().expect("an address");
        let said = gone.pools().await.expect_err("nobody is there").to_string();
        assert!(said.starts_with(&format!("nothing answers at {gone}: is the controller")), "{said}");
        for (status, body, expected) in [
            (404, "{}", "has no /api/v1/pools (it answers 404 Not Found)"),
            (200, "[]", "answers with something else than /api/v1/pools"),
        ] {
            let (admin, _task) = replica(vec![(status, body.to_owned())]).await;
            let said = admin.pools().await.expect_err("no page").to_string();
            assert!(said.starts_with(&admin.to_string()) && said.contains(expected), "{said}");
        }
        let endless = (0..=PAGES_MAX).map(|_| (200, r#"{"pools":[],"next":"a"}"#.to_owned()));
        let (admin, _task) = replica(endless.collect()).await;
        assert!(matches!(admin.pools().await, Err(FetchError::TooMuch(..))));
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
