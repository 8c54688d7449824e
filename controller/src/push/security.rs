//! How streams are protected, who may open one, what it may see, and for how long: one value for the process.
//!
//! [`Protection::choose`] is the table of `docs/security.md`; whoever changes one changes the other.

use super::auth::{Pods, Proof, Refusal};
use super::tls::{ClientCertificates, Peer, ServerTls, TlsError, TlsFiles};
use crate::identity::Identity;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};
use weir_proto::renewal::DIAL_AGAIN_TRAILER;

/// Longest life of a stream whose proxy had to prove itself, unless asked otherwise. It ends up to a fifth earlier, by
/// chance, so that a fleet that came at once does not come back at once. What a proxy lost, by a label or by its
/// removal, it can see no longer than this.
pub const STREAM_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// What the command line says of the stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Objects come from a cluster, where pods can be looked up.
    pub is_cluster: bool,
    /// Only this machine can reach the address.
    pub is_loopback: bool,
    /// There is a certificate.
    pub has_certificate: bool,
    /// There are authorities for clients' certificates.
    pub has_client_ca: bool,
    /// Plaintext is wanted where others reach the address.
    pub allows_plaintext: bool,
}

/// How streams are protected and what proves who dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// No TLS; whoever reaches the port is trusted.
    Plaintext,
    /// TLS; whoever reaches the port is trusted.
    Encrypted,
    /// TLS; whoever has a certificate of the client authorities is trusted. There is no pod to look up.
    Certificate,
    /// TLS; a token bound to a pod.
    Token,
    /// TLS; a certificate that names a pod, or a token bound to one.
    CertificateOrToken,
}

/// A combination of flags that would give away what the stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unprotected {
    /// Others reach the address and nothing is encrypted.
    #[error(
        "the address can be reached from other machines, and the stream to proxies carries private keys of \
         certificates: add --tls-cert and --tls-key, listen on 127.0.0.1, or add --allow-plaintext where the \
         network itself is trusted"
    )]
    Plaintext,
    /// Others reach the address, and nothing says who they are.
    #[error(
        "the address can be reached from other machines, the stream to proxies carries private keys of \
         certificates, and without a cluster nothing says who dials: add --client-ca and give each proxy a \
         certificate of it, or listen on 127.0.0.1"
    )]
    Anyone,
    /// Client certificates exist only within TLS.
    #[error("--client-ca is of no use without TLS: add --tls-cert and --tls-key")]
    ClientCaWithoutTls,
    /// Consent to something that is not done.
    #[error("--allow-plaintext contradicts --tls-cert: leave one of them out")]
    PlaintextWithTls,
}

impl Protection {
    /// The protection that the flags ask for.
    ///
    /// # Errors
    /// [`Unprotected`], for the user.
    pub fn choose(asked: Asked) -> Result<Self, Unprotected> {
        let Asked { is_cluster, is_loopback, has_certificate, has_client_ca, allows_plaintext } = asked;
        if !has_certificate {
            return match (has_client_ca, is_loopback || allows_plaintext) {
                (true, _) => Err(Unprotected::ClientCaWithoutTls),
                (false, true) => Ok(Self::Plaintext),
                (false, false) => Err(Unprotected::Plaintext),
            };
        }
        if allows_plaintext {
            return Err(Unprotected::PlaintextWithTls);
        }
        match (is_cluster, has_client_ca) {
            (true, true) => Ok(Self::CertificateOrToken),
            (true, false) => Ok(Self::Token),
            (false, true) => Ok(Self::Certificate),
            (false, false) if is_loopback => Ok(Self::Encrypted),
            (false, false) => Err(Unprotected::Anyone),
        }
    }

    /// Whether streams belong to pods that the API server knows.
    #[must_use]
    pub fn asks_for_pods(self) -> bool {
        matches!(self, Self::Token | Self::CertificateOrToken)
    }
}

/// Files of TLS as the command line names them.
#[derive(Debug, Clone)]
pub struct Files {
    /// The controller's chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authorities for clients' certificates, PEM.
    pub client_ca: Option<PathBuf>,
}

/// How streams are protected, who may open one, what it may see, and for how long. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Security(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tls: Option<Arc<ServerTls>>,
    proof: Proof,
    gateway_namespaces: BTreeSet<String>,
    stream_age_max: Duration,
}

impl Security {
    /// Plain TCP, or no network at all: whoever is there is trusted.
    #[must_use]
    pub fn plaintext() -> Self {
        Self::new(None, Proof::None)
    }

    /// TLS where the proof of who dials, if any, is a certificate of `files.client_ca`. Without a cluster.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be used.
    pub fn tls(files: Files) -> Result<Self, TlsError> {
        let Files { certificate, key, client_ca } = files;
        let (clients, proof) = match client_ca {
            Some(file) => (ClientCertificates::Required(file), Proof::Certificate),
            None => (ClientCertificates::NotAsked, Proof::None),
        };
        Ok(Self::new(Some(ServerTls::open(TlsFiles { certificate, key, clients })?), proof))
    }

    /// TLS where each stream proves its pod: by a token, or by a certificate of `files.client_ca` if there is one.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be used.
    pub fn tls_for_pods(files: Files, pods: Pods) -> Result<Self, TlsError> {
        let Files { certificate, key, client_ca } = files;
        let takes_certificates = client_ca.is_some();
        let clients = client_ca.map_or(ClientCertificates::NotAsked, ClientCertificates::Asked);
        let tls = ServerTls::open(TlsFiles { certificate, key, clients })?;
        Ok(Self::new(Some(tls), Proof::Pod { pods: Box::new(pods), takes_certificates }))
    }

    fn new(tls: Option<Arc<ServerTls>>, proof: Proof) -> Self {
        let gateway_namespaces = BTreeSet::new();
        Self(Arc::new(Inner { tls, proof, gateway_namespaces, stream_age_max: STREAM_AGE_MAX }))
    }

    /// Pods of these namespaces may serve the pools of every namespace.
    #[must_use]
    pub fn with_gateway_namespaces(self, gateway_namespaces: BTreeSet<String>) -> Self {
        self.changed(|inner| inner.gateway_namespaces = gateway_namespaces)
    }

    /// Ends streams at this age instead of [`STREAM_AGE_MAX`].
    #[must_use]
    pub fn with_stream_age_max(self, stream_age_max: Duration) -> Self {
        self.changed(|inner| inner.stream_age_max = stream_age_max)
    }

    /// Before it is shared; afterwards nothing changes.
    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        Arc::get_mut(&mut self.0).map(change).expect("set up before it is cloned");
        self
    }

    pub(super) fn server_tls(&self) -> Option<&Arc<ServerTls>> {
        self.0.tls.as_ref()
    }

    /// Who sent a request: proven as [`Protection`] says, asked of the API server where that takes it.
    ///
    /// # Errors
    /// The status to refuse the request with. It holds no secret.
    pub fn identify<'a, T>(
        &'a self,
        request: &'a Request<T>,
    ) -> impl Future<Output = Result<Identity, Status>> + 'a {
        // The request itself cannot be shared with another thread while this waits.
        let (asked, metadata) = (Dialled::of(request), request.metadata());
        async move {
            let identified = self.0.proof.identify(asked.peer, metadata).await;
            identified.map_err(|refusal| asked.refuse(refusal, "a proxy"))
        }
    }

    /// The same for another replica of this controller: it runs as the ServiceAccount that this process runs as. Where
    /// nothing is proven of proxies, nothing is of replicas.
    ///
    /// # Errors
    /// The status to refuse the request with. It holds no secret.
    pub(crate) fn identify_replica<'a, T>(
        &'a self,
        request: &'a Request<T>,
    ) -> impl Future<Output = Result<Identity, Status>> + 'a {
        let (asked, metadata) = (Dialled::of(request), request.metadata());
        async move {
            let identified = async {
                let identity = self.0.proof.identify(asked.peer, metadata).await?;
                self.0.proof.is_replica(&identity).await.map(|()| identity)
            };
            identified.await.map_err(|refusal| asked.refuse(refusal, "a replica"))
        }
    }

    /// When a stream of this request must be proven again; `None` where nothing had to be proven. Counts from the
    /// connection's handshake, so that no stream outlives what the client's certificate proved then by more.
    pub(crate) fn ends_at<T>(&self, request: &Request<T>) -> Option<Instant> {
        if matches!(self.0.proof, Proof::None) {
            return None;
        }
        let since = request.extensions().get::<Peer>().map_or_else(Instant::now, |peer| peer.since);
        let age = jittered(self.0.stream_age_max, crate::store::random_epoch());
        Some(since + age)
    }

    /// Whose pods may serve the pools of every namespace.
    pub(super) fn gateway_namespaces(&self) -> &BTreeSet<String> {
        &self.0.gateway_namespaces
    }
}

/// From where a request came.
struct Dialled<'a> {
    peer: Option<&'a Peer>,
    address: Option<SocketAddr>,
}

impl<'a> Dialled<'a> {
    fn of<T>(request: &'a Request<T>) -> Self {
        let peer = request.extensions().get::<Peer>();
        Self { peer, address: peer.map(|peer| peer.address).or_else(|| request.remote_addr()) }
    }

    fn refuse(&self, refusal: Refusal, who: &str) -> Status {
        let address = self.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let reason = refusal.to_string();
        if matches!(refusal, Refusal::Away { .. }) {
            tracing::error!(%address, %reason, "cannot find out who {who} is");
        } else {
            tracing::warn!(%address, %reason, "{who} is refused");
        }
        refusal.into()
    }
}

/// Between four fifths of `whole` and all of it.
fn jittered(whole: Duration, random: u64) -> Duration {
    let share = f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    whole.mul_f64(0.8 + 0.2 * share)
}

/// The end of a stream that is no fault: its proxy dials again at once and proves itself again.
pub(crate) fn aged() -> Status {
    let mut status = Status::unavailable("this stream has reached its age: dial again");
    status.metadata_mut().insert(DIAL_AGAIN_TRAILER, MetadataValue::from_static("now"));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether objects come from a cluster, whether the address is of loopback, and the flags.
    fn choose(source: &str, address: &str, flags: &[&str]) -> Result<Protection, Unprotected> {
        Protection::choose(Asked {
            is_cluster: source == "cluster",
            is_loopback: address == "loopback",
            has_certificate: flags.contains(&"--tls-cert"),
            has_client_ca: flags.contains(&"--client-ca"),
            allows_plaintext: flags.contains(&"--allow-plaintext"),
        })
    }

    #[test]
    fn plaintext_is_for_this_machine_or_by_consent() {
        for source in ["folder", "cluster"] {
            assert_eq!(choose(source, "loopback", &[]), Ok(Protection::Plaintext));
            assert_eq!(choose(source, "other", &[]), Err(Unprotected::Plaintext));
            assert_eq!(choose(source, "other", &["--allow-plaintext"]), Ok(Protection::Plaintext));
            for address in ["loopback", "other"] {
                assert_eq!(choose(source, address, &["--client-ca"]), Err(Unprotected::ClientCaWithoutTls));
                let both = ["--tls-cert", "--client-ca", "--allow-plaintext"];
                assert_eq!(choose(source, address, &both), Err(Unprotected::PlaintextWithTls));
            }
        }
    }

    #[test]
    fn tls_without_a_proof_of_who_dials_is_for_this_machine_only() {
        assert_eq!(choose("folder", "loopback", &["--tls-cert"]), Ok(Protection::Encrypted));
        assert_eq!(choose("folder", "other", &["--tls-cert"]), Err(Unprotected::Anyone));
        for address in ["loopback", "other"] {
            let mutual = ["--tls-cert", "--client-ca"];
            assert_eq!(choose("folder", address, &mutual), Ok(Protection::Certificate));
            assert_eq!(choose("cluster", address, &["--tls-cert"]), Ok(Protection::Token));
            assert_eq!(choose("cluster", address, &mutual), Ok(Protection::CertificateOrToken));
        }
    }

    #[test]
    fn an_age_is_never_above_its_limit_and_never_far_below() {
        let hour = Duration::from_secs(3600);
        assert_eq!(jittered(hour, 0), Duration::from_secs(2880));
        assert_eq!(jittered(hour, u64::MAX), hour);
    }
}
