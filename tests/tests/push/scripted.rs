//! A proxy at the end of a real stream that does what a test says, with the replica of a real one.

use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::transport::Channel;
use weir_controller::push;
use weir_controller::store::Store;
use weir_proto::push::proxy_message::Body as FromProxy;
use weir_proto::push::push_client::PushClient;
use weir_proto::push::{ControllerMessage, ProxyMessage};
use weir_proxy::config::replica::{Event, Replica};

/// A controller's service within the process; ends when dropped.
pub(crate) struct Line {
    pub(crate) channel: Channel,
    task: JoinHandle<()>,
}

impl Line {
    /// A connection of its own.
    pub(crate) fn to(store: &Arc<Store>) -> Self {
        let (serving, channel) = push::in_process(Arc::clone(store), std::future::pending());
        Self { channel, task: tokio::spawn(async move { serving.await.expect("serves") }) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Its stream, and what it has.
pub(crate) struct Scripted {
    pub(crate) replica: Replica,
    pub(crate) is_synced: bool,
    says: mpsc::Sender<ProxyMessage>,
    hears: Streaming<ControllerMessage>,
}

impl Scripted {
    /// Dials, with what it has from before.
    pub(crate) async fn dial(channel: Channel, proxy: &str, mut replica: Replica) -> Self {
        let (says, receiver) = mpsc::channel(64);
        let hello = ProxyMessage { body: Some(FromProxy::Hello(replica.begin_stream(proxy))) };
        says.send(hello).await.expect("room");
        let said = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let connected = PushClient::new(channel).connect(tonic::Request::new(said)).await;
        Self { replica, is_synced: false, says, hears: connected.expect("a stream").into_inner() }
    }

    /// The next message; `None` when the stream has ended, however.
    pub(crate) async fn hear(&mut self) -> Option<ControllerMessage> {
        self.hears.message().await.ok().flatten()
    }

    pub(crate) async fn say(&self, body: FromProxy) {
        self.says.send(ProxyMessage { body: Some(body) }).await.expect("the stream is open");
    }

    /// Takes a message in, without a word of it to the controller. What it would have said.
    pub(crate) fn take(&mut self, message: ControllerMessage) -> Vec<FromProxy> {
        let mut replies = Vec::new();
        for event in self.replica.on_message(message).expect("no breach") {
            match event {
                Event::Reply(reply) => replies.push(reply),
                Event::Configured { pool, .. } => replies.extend(self.replica.accepted(&pool)),
                Event::BackendsChanged { pool, .. } => replies.extend(self.replica.ack(&pool)),
                Event::Synced => self.is_synced = true,
                _ => {}
            }
        }
        replies
    }

    /// Hears and answers as a good proxy until it is in step with the store.
    ///
    /// # Panics
    /// When the stream ends before.
    pub(crate) async fn follow(&mut self, store: &Store) {
        while !self.is_in_step(store) {
            let message = self.hear().await.expect("the stream is open");
            for reply in self.take(message) {
                self.say(reply).await;
            }
        }
    }

    fn is_in_step(&self, store: &Store) -> bool {
        let is_current = |(name, pool): (Arc<str>, Arc<weir_controller::store::Pool>)| {
            self.replica.state(&name).is_some_and(|(version, _)| version == Some(pool.version))
        };
        self.is_synced && store.pools().into_iter().all(is_current)
    }
}
