//! How API servers of other clusters are reached: one client for each kubeconfig, however many Services it is for.

use super::kubeconfig;
use crate::compile::{ObjectKey, RemoteService};
use k8s_openapi::ByteString;
use kube::Client;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Longest time that a connection to the API server of another cluster may take to begin.
pub const REMOTE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A kubeconfig, and the client that it makes once somebody needs it.
pub(super) struct RemoteClient {
    kubeconfig: ByteString,
    made: OnceCell<Result<Client, String>>,
}

/// By Secret and key. One that nobody uses any more goes with the next that is asked for.
#[derive(Default)]
pub(super) struct Clients {
    by_place: BTreeMap<(ObjectKey, String), Arc<RemoteClient>>,
}

impl Clients {
    /// The client of a kubeconfig: the one that there is, if that is of the same content.
    pub(super) fn of(&mut self, remote: &RemoteService, kubeconfig: &ByteString) -> Arc<RemoteClient> {
        self.by_place.retain(|_, client| Arc::strong_count(client) > 1);
        let place = (remote.secret.clone(), remote.key.clone());
        if let Some(client) = self.by_place.get(&place)
            && client.kubeconfig == *kubeconfig
        {
            return Arc::clone(client);
        }
        let client = RemoteClient { kubeconfig: kubeconfig.clone(), made: OnceCell::new() };
        let client = Arc::new(client);
        self.by_place.insert(place, Arc::clone(&client));
        client
    }
}

impl RemoteClient {
    /// Asks the API server nothing.
    ///
    /// # Errors
    /// What is wrong with the kubeconfig, with nothing of what it holds.
    pub(super) async fn connect(&self) -> Result<Client, String> {
        self.made.get_or_init(|| client(&self.kubeconfig.0)).await.clone()
    }
}

async fn client(kubeconfig: &[u8]) -> Result<Client, String> {
    let mut config = kubeconfig::read(kubeconfig).await.map_err(|fault| fault.to_string())?;
    config.connect_timeout = Some(REMOTE_CONNECT_TIMEOUT);
    // Without the library's reason, which may quote a key.
    Client::try_from(config).map_err(|_| {
        "client-certificate-data or client-key-data holds no certificate and key: write them as PEM, in base64".to_owned()
    })
}
