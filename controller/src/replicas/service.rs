//! The holder's end: adds what other replicas say to what its own proxies say.

use super::shares;
use super::wire::{self, Breach};
use crate::identity::Identity;
use crate::push::{HELLO_TIMEOUT, Security, aged, at, shutting_down};
use crate::store::{REPLICAS_MAX, RemoteId, Store};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_proto::push::replicas_server::Replicas;
use weir_proto::push::{ReplicaDemand, ReplicaMessage, ReplicaShares, Reported};

/// Takes reports, also while another replica holds the Lease: which of two learns first that it has passed on is
/// chance, and what is taken in then is needed at once.
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    pub(crate) security: Security,
    /// Of this process.
    pub(crate) ended: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Replicas for Service {
    type ShareStream = ReceiverStream<Result<ReplicaShares, Status>>;

    async fn share(
        &self,
        request: Request<Streaming<ReplicaDemand>>,
    ) -> Result<Response<Self::ShareStream>, Status> {
        self.security.identify_replica(&request).await?;
        let (outbound, receiver) = mpsc::channel(shares::BUFFER);
        let answering = shares::Answering {
            desk: Arc::clone(self.store.desk()),
            ends_at: self.security.ends_at(&request),
            demands: request.into_inner(),
            outbound,
            ended: self.ended.clone(),
        };
        // Owned by the stream: it ends when either direction of it does.
        tokio::spawn(answering.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report(
        &self,
        request: Request<Streaming<ReplicaMessage>>,
    ) -> Result<Response<Reported>, Status> {
        let mut ended = self.ended.clone();
        tokio::select! {
            done = self.take(request) => done.map(|()| Response::new(Reported {})),
            _ = ended.wait_for(|ended| *ended) => Err(shutting_down()),
        }
    }
}

impl Service {
    async fn take(&self, request: Request<Streaming<ReplicaMessage>>) -> Result<(), Status> {
        let identity = self.security.identify_replica(&request).await?;
        let ends_at = self.security.ends_at(&request);
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, reports.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no ReplicaHello came on the stream in 10 s"))??
            .ok_or_else(|| refused(&Breach::HelloMissing))?;
        let claimed = wire::read_hello(first).map_err(|breach| refused(&breach))?;
        let replica = match identity {
            Identity::Trusted => claimed,
            Identity::Pod(pod) => pod.name.into(),
        };
        let entry = Entry::begin(&self.store, &replica).ok_or_else(|| {
            Status::resource_exhausted(format!("{REPLICAS_MAX} replicas report here already"))
        })?;
        tracing::info!(%replica, "another replica reports");
        let end = loop {
            tokio::select! {
                message = reports.message() => match message {
                    Ok(Some(message)) => {
                        let now = Instant::now().into_std();
                        if !entry.take(message, now).map_err(|breach| refused(&breach))? {
                            break Err(Status::aborted("a later stream of this replica has taken over"));
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                },
                () = at(ends_at) => break Err(aged()),
            }
        };
        tracing::info!(%replica, "another replica does not report any more");
        end
    }
}

fn refused(breach: &Breach) -> Status {
    tracing::warn!(reason = %breach, "a replica's reports are refused");
    Status::invalid_argument(breach.to_string())
}

/// A replica's place among those that report; what it said is forgotten when this drops.
#[derive(Debug)]
pub struct Entry {
    store: Arc<Store>,
    id: RemoteId,
}

impl Entry {
    /// In the place of an earlier one of the same replica. `None` where [`REPLICAS_MAX`] others report.
    #[must_use]
    pub fn begin(store: &Arc<Store>, replica: &Arc<str>) -> Option<Self> {
        let id = store.fleet_record().begin_remote(replica)?;
        Some(Self { store: Arc::clone(store), id })
    }

    /// Takes in what the replica says after its Hello. False when a later entry of it has taken this one's place.
    ///
    /// # Errors
    /// [`Breach`]: the stream must be closed with it.
    pub fn take(&self, message: ReplicaMessage, now: std::time::Instant) -> Result<bool, Breach> {
        let (pool, summary) = wire::read_report(message)?;
        Ok(self.store.fleet_record().set_remote(self.id, &pool, summary, now))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.store.fleet_record().end_remote(self.id);
    }
}
