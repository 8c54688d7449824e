//! Demands of proxies on their way to the holder of the Lease, and its answers on their way back.
//!
//! One stream beside that of the reports, both ways. Each message is the newest of its proxy, and one that is lost with the
//! stream is followed by another a second later: nothing is kept for the next stream.

use super::wire::{self, Breach};
use crate::push::{at, shutting_down};
use crate::shares::Desk;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use weir_dial::Link;
use weir_proto::limits::{MESSAGE_BYTES_MAX, SHARED_LIMITS_MAX};
use weir_proto::push::replica_demand::Body;
use weir_proto::push::replicas_client::ReplicasClient;
use weir_proto::push::{ProxyDemand, ReplicaDemand, ReplicaShares};

/// Demands, and answers, that wait for the stream.
pub(super) const BUFFER: usize = 64;

/// A replica's end: passes on what its proxies ask for, and what they may have. Ends with the stream; a holder that does not
/// know it is left alone.
pub(super) async fn pass_on(link: &Link, desk: &Arc<Desk>, me: &str) -> Result<(), Status> {
    let mut client = ReplicasClient::new(link.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (outbound, receiver) = mpsc::channel(BUFFER);
    let hello = ReplicaDemand { body: Some(Body::Hello(wire::replica_hello(me))) };
    // There is room: nothing was sent before.
    let _ = outbound.try_send(hello);
    let mut answers = match client.share(link.request(ReceiverStream::new(receiver))).await {
        Ok(answers) => answers.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => {
            tracing::warn!("the holder of the Lease gives no shares of limits: upgrade all replicas");
            return std::future::pending().await;
        }
        Err(status) => return Err(status),
    };
    let outbox = desk.outbox();
    let feed = async {
        loop {
            while let Some(demand) = outbox.next() {
                let message = ReplicaDemand { body: Some(Body::Proxy(demand)) };
                if outbound.send(message).await.is_err() {
                    // The answers end too, and say why.
                    return std::future::pending().await;
                }
            }
            outbox.changed().await;
        }
    };
    let hear = async {
        while let Some(answer) = answers.message().await? {
            desk.deliver(answer);
        }
        Ok(())
    };
    tokio::select! {
        () = feed => Ok(()),
        ended = hear => ended,
    }
}

/// The holder's end of one stream.
pub(super) struct Answering {
    pub(super) desk: Arc<Desk>,
    pub(super) demands: Streaming<ReplicaDemand>,
    pub(super) outbound: mpsc::Sender<Result<ReplicaShares, Status>>,
    /// When the replica must prove itself again; `None` where it need not.
    pub(super) ends_at: Option<Instant>,
    /// Of this process.
    pub(super) ended: watch::Receiver<bool>,
}

impl Answering {
    pub(super) async fn run(mut self) {
        let mut ended = self.ended.clone();
        let (ends_at, outbound) = (self.ends_at, self.outbound.clone());
        let status = tokio::select! {
            done = self.answer() => done.err(),
            _ = ended.wait_for(|ended| *ended) => Some(shutting_down()),
            () = at(ends_at) => Some(crate::push::aged()),
            () = outbound.closed() => None,
        };
        if let Some(status) = status {
            // Where there is no room, the replica reads nothing and needs no reason.
            let _ = outbound.try_send(Err(status));
        }
    }

    async fn answer(&mut self) -> Result<(), Status> {
        let first = tokio::time::timeout(crate::push::HELLO_TIMEOUT, self.demands.message()).await;
        let first =
            first.map_err(|_| Status::deadline_exceeded("no ReplicaHello came on the stream in 10 s"))??;
        let Some(ReplicaDemand { body: Some(Body::Hello(_)) }) = first else {
            return Err(Status::invalid_argument(Breach::HelloMissing.to_string()));
        };
        while let Some(message) = self.demands.message().await? {
            let (proxy, demand) =
                read(message).map_err(|breach| Status::invalid_argument(breach.to_string()))?;
            if let Some(shares) = self.desk.answer(proxy, &demand, Instant::now().into_std()) {
                let answer = ReplicaShares { proxy, shares: Some(shares) };
                if self.outbound.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Whose demand a message after the first is.
fn read(message: ReplicaDemand) -> Result<(u64, weir_proto::push::Demand), Breach> {
    let Some(Body::Proxy(ProxyDemand { proxy, demand: Some(demand) })) = message.body else {
        return Err(Breach::Unknown);
    };
    match demand.limits.len() {
        0..=SHARED_LIMITS_MAX => Ok((proxy, demand)),
        limits => Err(Breach::Demand(limits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::push::{Demand, LimitDemand};

    #[test]
    fn a_demand_is_read_up_to_so_many_limits() {
        let said = |limits| {
            let demand =
                Demand { number: 1, limits: vec![LimitDemand::default(); limits], ..Demand::default() };
            let said = ProxyDemand { proxy: 7, demand: Some(demand) };
            read(ReplicaDemand { body: Some(Body::Proxy(said)) })
                .map(|(proxy, demand)| (proxy, demand.limits.len()))
        };
        assert_eq!(said(SHARED_LIMITS_MAX), Ok((7, SHARED_LIMITS_MAX)));
        assert_eq!(said(SHARED_LIMITS_MAX + 1), Err(Breach::Demand(SHARED_LIMITS_MAX + 1)));
        assert_eq!(read(ReplicaDemand { body: None }), Err(Breach::Unknown));
        let hello = ReplicaDemand { body: Some(Body::Hello(wire::replica_hello("again"))) };
        assert_eq!(read(hello), Err(Breach::Unknown));
    }
}
