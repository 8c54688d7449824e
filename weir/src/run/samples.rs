//! What `weir run` supplies for manifests that ask for it: sample backends and a self-signed certificate.
//!
//! Two annotations ask. They exist for quick starts, so that one command serves a folder in which neither a
//! backend nor a private key can lie; a cluster's controller reads neither.
//!
//! * `weir.dev/demo-backends: "true"` on a `LoadBalancerPool`: a sample backend listens on each loopback address
//!   of its `static` sets. An address that somebody listens on already is left to them.
//! * `weir.dev/self-signed: "NAME,NAME"` on a `kubernetes.io/tls` Secret without data: a certificate for these
//!   DNS names and IP addresses, made in memory at each start.

use crate::demo_backend::{self, Member};
use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use weir_controller::compile::{ObjectKey, Objects};
use weir_crds::LoadBalancerPool;

/// Asks for sample backends.
pub const DEMO_BACKENDS: &str = "weir.dev/demo-backends";
/// Asks for a certificate.
pub const SELF_SIGNED: &str = "weir.dev/self-signed";

/// Clients whose clock is a little behind take a new certificate too.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// What browsers accept at most.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(397 * 24 * 60 * 60);

/// What one process has supplied so far.
///
/// It stays until the end: a request may be on its way to a backend whose manifest is gone, and a certificate that
/// changed with each edit would change the listener too.
#[derive(Debug, Default)]
pub struct Samples {
    backends: Backends,
    certificates: Certificates,
}

impl Samples {
    /// Starts the backends and fills the Secrets that `objects` ask for.
    ///
    /// What cannot be supplied is logged; the compile step then says what is missing where.
    pub fn supply(&mut self, objects: &mut Objects) {
        self.backends.start_missing(objects);
        self.certificates.supply(objects);
    }
}

/// Sample backends on a thread of their own, so that they never take a worker's time.
#[derive(Debug, Default)]
struct Backends {
    thread: Option<mpsc::UnboundedSender<Member>>,
    /// Addresses that were tried: one that somebody else has is left alone from then on.
    tried: BTreeSet<SocketAddr>,
}

impl Backends {
    fn start_missing(&mut self, objects: &Objects) {
        for (key, pool) in &objects.pools {
            for (name, address) in wanted_backends(pool) {
                if self.tried.insert(address)
                    && let Err(error) = self.start(key, name, address)
                {
                    tracing::warn!(
                        "LoadBalancerPool {key}: no sample backend on {address}, who has it answers: {error:#}"
                    );
                }
            }
        }
    }

    fn start(&mut self, pool: &ObjectKey, name: String, address: SocketAddr) -> anyhow::Result<()> {
        let member = demo_backend::listen(name, address)?;
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(start_thread()?),
        };
        tracing::info!("sample backend {} of {pool} listens on http://{address}", member.name());
        thread.send(member).context("the sample backends' thread ended")
    }
}

/// Ends with the process: by then the proxy has answered everything that was asked of the samples.
fn start_thread() -> anyhow::Result<mpsc::UnboundedSender<Member>> {
    let (members, arriving) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime for the sample backends")?;
    std::thread::Builder::new()
        .name("samples".to_owned())
        .spawn(move || runtime.block_on(demo_backend::serve(arriving, Duration::ZERO)))
        .context("cannot start a thread for the sample backends")?;
    Ok(members)
}

/// Self-signed certificates, each made once.
#[derive(Debug, Default)]
pub struct Certificates {
    made: BTreeMap<(ObjectKey, String), Certificate>,
}

/// PEM texts. Never logged.
#[derive(Clone)]
struct Certificate {
    chain: String,
    key: String,
}

impl Certificates {
    /// Fills the Secrets that ask for a certificate. Names that no certificate can hold are logged.
    pub fn supply(&mut self, objects: &mut Objects) {
        for (key, secret) in &mut objects.secrets {
            let Some(names) = wanted_names(secret) else { continue };
            match self.certificate(key, names) {
                Ok(certificate) => {
                    let data = Arc::make_mut(secret).data.get_or_insert_default();
                    data.insert("tls.crt".to_owned(), ByteString(certificate.chain.into_bytes()));
                    data.insert("tls.key".to_owned(), ByteString(certificate.key.into_bytes()));
                }
                Err(error) => tracing::error!("Secret {key}: the annotation {SELF_SIGNED}: {error:#}"),
            }
        }
    }

    fn certificate(&mut self, key: &ObjectKey, names: &str) -> anyhow::Result<Certificate> {
        let wanted = (key.clone(), names.to_owned());
        if let Some(certificate) = self.made.get(&wanted) {
            return Ok(certificate.clone());
        }
        let certificate = self_signed(names, SystemTime::now())?;
        tracing::info!("Secret {key} gets a self-signed certificate for {names}");
        self.made.insert(wanted, certificate.clone());
        Ok(certificate)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// The loopback addresses of a pool that asks for samples, with the backends' names.
fn wanted_backends(pool: &LoadBalancerPool) -> Vec<(String, SocketAddr)> {
    let asks = pool.metadata.annotations.as_ref().and_then(|all| all.get(DEMO_BACKENDS));
    if asks.is_none_or(|value| value != "true") {
        return Vec::new();
    }
    let sets = pool.spec.backend_sets.iter().filter_map(|set| set.static_backends.as_ref());
    let backends = sets.flat_map(|set| &set.backends);
    let wanted = backends.filter_map(|backend| {
        // What is no address or port is refused by the compile step, with its place.
        let address: IpAddr = backend.address.parse().ok()?;
        let port = u16::try_from(backend.port).ok().filter(|&port| port > 0)?;
        let name = backend.name.clone().unwrap_or_else(|| format!("sample-{port}"));
        address.is_loopback().then(|| (name, SocketAddr::new(address, port)))
    });
    wanted.collect()
}

/// The names for which a Secret asks a certificate, unless it holds something.
fn wanted_names(secret: &Secret) -> Option<&str> {
    let holds_something = secret.data.as_ref().is_some_and(|data| !data.is_empty())
        || secret.string_data.as_ref().is_some_and(|data| !data.is_empty());
    let names = secret.metadata.annotations.as_ref()?.get(SELF_SIGNED)?;
    (!holds_something).then_some(names.as_str())
}

/// A certificate and its key, in PEM, for who has to show some and nobody looks at them.
///
/// # Errors
/// Where the system gives no randomness.
pub(crate) fn stand_in() -> anyhow::Result<(String, String)> {
    let made = self_signed("stand-in.invalid", SystemTime::now())?;
    Ok((made.chain, made.key))
}

fn self_signed(names: &str, now: SystemTime) -> anyhow::Result<Certificate> {
    let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    anyhow::ensure!(
        names.iter().all(|name| !name.is_empty()),
        "write DNS names and IP addresses with commas between, like localhost,127.0.0.1"
    );
    let mut params = CertificateParams::new(names).context("a certificate cannot hold these names")?;
    params.distinguished_name.push(DnType::CommonName, "Weir sample certificate");
    let now = date_time_ymd(1970, 1, 1) + now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + CERTIFICATE_LIFE;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?;
    let certificate = params.self_signed(&key).context("cannot sign")?;
    Ok(Certificate { chain: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(annotation: &str) -> LoadBalancerPool {
        serde_json::from_value(json!({
            "apiVersion": "weir.dev/v1alpha1",
            "kind": "LoadBalancerPool",
            "metadata": { "name": "p", "annotations": { DEMO_BACKENDS: annotation } },
            "spec": {
                "listeners": [],
                "backendSets": [
                    { "name": "a", "static": { "backends": [
                        { "address": "127.0.0.1", "port": 1 },
                        { "address": "::1", "port": 2, "name": "six" },
                        { "address": "10.0.0.1", "port": 3 },
                        { "address": "nonsense", "port": 4 },
                        { "address": "127.0.0.1", "port": 70_000 },
                    ] } },
                    { "name": "b", "service": { "name": "s", "port": 80 } },
                ],
            },
        }))
        .expect("valid")
    }

    #[test]
    fn only_loopback_addresses_of_a_pool_that_asks_get_samples() {
        let wanted = wanted_backends(&pool("true"));
        let expected = [("sample-1", "127.0.0.1:1"), ("six", "[::1]:2")];
        assert_eq!(
            wanted,
            expected.map(|(name, address)| (name.to_owned(), address.parse().expect("valid")))
        );
        assert_eq!(wanted_backends(&pool("false")), []);
    }

    fn objects(secret: serde_json::Value) -> (ObjectKey, Objects) {
        let key = ObjectKey::new("default", "s");
        let secret: Secret = serde_json::from_value(secret).expect("valid");
        let mut objects = Objects::default();
        objects.secrets.insert(key.clone(), Arc::new(secret));
        (key, objects)
    }

    #[test]
    fn a_secret_that_asks_gets_the_same_certificate_each_time() {
        let mut certificates = Certificates::default();
        let asks = json!({ "metadata": { "annotations": { SELF_SIGNED: "localhost, 127.0.0.1" } } });
        let (key, mut first) = objects(asks.clone());
        let (_, mut second) = objects(asks);
        certificates.supply(&mut first);
        certificates.supply(&mut second);
        let data = first.secrets[&key].data.as_ref().expect("supplied");
        assert!(data["tls.crt"].0.starts_with(b"-----BEGIN CERTIFICATE"));
        assert!(data["tls.key"].0.starts_with(b"-----BEGIN PRIVATE KEY"));
        assert_eq!(first, second);
    }

    #[test]
    fn a_secret_with_data_keeps_it_and_one_with_bad_names_gets_none() {
        let own = json!({
            "metadata": { "annotations": { SELF_SIGNED: "localhost" } },
            "data": { "tls.crt": "bWluZQ==" },
        });
        let bad = json!({ "metadata": { "annotations": { SELF_SIGNED: "localhost,," } } });
        for secret in [own, bad] {
            let (_, before) = objects(secret);
            let mut after = before.clone();
            Certificates::default().supply(&mut after);
            assert_eq!(before, after);
        }
    }
}
