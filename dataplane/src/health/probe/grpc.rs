//! The gRPC health protocol, <https://grpc.io/docs/guides/health-checking/>.

use super::http::{Tasks, drive, http2};
use super::socket::Stream;
use super::{Origin, USER_AGENT, of_http};
use http::header::HeaderValue;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::MapErr;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use lb_core::health::{BODY_BYTES_MAX, Reason};
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub(super) async fn check(stream: Stream, service: &str, origin: &Origin) -> Result<(), Reason> {
    let uri = Uri::builder().scheme(origin.scheme).authority(&*origin.authority).path_and_query("/");
    let uri = uri.build().map_err(|_| Reason::Protocol)?;
    let tasks = Tasks::default();
    let (sender, connection) = http2(stream, &tasks).await?;
    let mut client = HealthClient::with_origin(Caller(sender), uri).max_decoding_message_size(BODY_BYTES_MAX);
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = async {
        let answer = client.check(request).await.map_err(|status| of_status(&status))?;
        let is_serving = answer.into_inner().status() == ServingStatus::Serving;
        is_serving.then_some(()).ok_or(Reason::NotServing)
    };
    drive(connection, answer).await
}

/// A status that the backend sent, or that stands for an answer which is none of gRPC, is its word that it does not
/// serve; one that tonic made because the connection failed is not.
fn of_status(status: &Status) -> Reason {
    let broken = status.source().and_then(|source| source.downcast_ref::<Broken>());
    broken.map_or(Reason::NotServing, |broken| broken.0)
}

/// The connection failed. tonic carries it in its status.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(Reason);

impl Broken {
    // By value, as hyper's error is given to whoever maps it.
    #[allow(clippy::needless_pass_by_value, reason = "the signature that map_err asks for")]
    fn new(error: hyper::Error) -> Self {
        Self(of_http(&error))
    }
}

/// Calls over the one connection of a probe. tonic's own channel would connect again, and its tasks would outlive the
/// probe.
struct Caller(SendRequest<Body>);

type Answer = Response<MapErr<Incoming, fn(hyper::Error) -> Broken>>;

impl Service<Request<Body>> for Caller {
    type Response = Answer;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let answer = self.0.send_request(request);
        Box::pin(async {
            let answer = answer.await.map_err(Broken::new)?;
            Ok(answer.map(|body| body.map_err(Broken::new as fn(hyper::Error) -> Broken)))
        })
    }
}
