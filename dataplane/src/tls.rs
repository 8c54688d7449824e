//! TLS towards clients: certificates as they come over the wire, checked, and the configuration made of them.
//!
//! The provider is named explicitly (aws-lc-rs), so that nothing depends on which crate installed a process-wide
//! default first. No message of this module holds key material: errors of the PEM decoder quote their input, and
//! are not passed on for keys.

pub mod backends;
pub(crate) mod clients;
pub mod policies;
pub mod tickets;

use lb_core::host::HostMap;
use policies::{PolicyId, TlsPolicy};
use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use weir_proto::limits::CHAIN_CERTIFICATES_MAX;
use weir_proto::push;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Protocols offered by ALPN, in the order of preference.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The hybrid of X25519 and ML-KEM comes first: what is recorded today is to stay secret when there are quantum computers.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
});

/// A certificate that cannot be used. Each names the Secret that it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// `tls.crt` holds no certificate, or one that cannot be read.
    #[error("Secret {0}: tls.crt holds no readable PEM certificate: put the chain there, leaf first")]
    Chain(String),
    /// More than [`CHAIN_CERTIFICATES_MAX`].
    #[error("Secret {0}: tls.crt holds more than {CHAIN_CERTIFICATES_MAX} certificates: leave out the root")]
    ChainTooLong(String),
    /// The leaf is not an X.509 certificate.
    #[error("Secret {0}: the first certificate of tls.crt is not an X.509 certificate")]
    Leaf(String),
    /// `tls.key` holds no key, or one that cannot be read.
    #[error("Secret {0}: tls.key holds no readable PEM private key in PKCS#8, PKCS#1 or SEC1 form")]
    Key(String),
    /// A kind of key that cannot sign.
    #[error(
        "Secret {0}: the key in tls.key is of a kind that TLS cannot use: take RSA (2048 bits and more), ECDSA or Ed25519"
    )]
    KeyKind(String),
    /// Key and certificate are not a pair.
    #[error("Secret {0}: the key in tls.key does not belong to the first certificate of tls.crt")]
    Mismatch(String),
}

/// The system's random source failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make keys for session tickets")]
pub struct TicketError(#[source] rustls::Error);

/// A certificate that has been checked.
#[derive(Debug)]
pub struct ServerCertificate {
    key: Arc<CertifiedKey>,
    /// DNS names of the leaf, lower case.
    names: Vec<String>,
    pub(crate) expiry: Expiry,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Expiry {
    /// Seconds since 1970.
    pub(crate) ends_s: i64,
    /// The Secret that it comes from, "namespace/name".
    pub(crate) secret: Arc<str>,
}

impl ServerCertificate {
    /// Reads and checks a certificate and its key.
    ///
    /// # Errors
    /// [`CertificateError`]; whoever owns the Secret can fix it.
    pub fn new(wire: &push::Certificate) -> Result<Self, CertificateError> {
        let source = || wire.source.clone();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&wire.chain_pem)
            .take(CHAIN_CERTIFICATES_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Chain(source()))?;
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(CertificateError::ChainTooLong(source()));
        }
        let leaf = chain.first().ok_or_else(|| CertificateError::Chain(source()))?;
        let (names, ends_s) = read_leaf(leaf).ok_or_else(|| CertificateError::Leaf(source()))?;
        let key =
            PrivateKeyDer::from_pem_slice(&wire.key_pem).map_err(|_| CertificateError::Key(source()))?;
        let key =
            PROVIDER.key_provider.load_private_key(key).map_err(|_| CertificateError::KeyKind(source()))?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch(source()),
            _ => CertificateError::Leaf(source()),
        })?;
        let expiry = Expiry { ends_s, secret: wire.source.as_str().into() };
        Ok(Self { key: Arc::new(key), names, expiry })
    }
}

/// Keys for session tickets, drawn at random and rotated every six hours, within this process.
///
/// # Errors
/// [`TicketError`] when the system gives no randomness.
pub fn local_tickets() -> Result<Arc<dyn ProducesTickets>, TicketError> {
    aws_lc_rs::Ticketer::new().map_err(TicketError)
}

/// The certificates of a listener, and whose handshakes they answer.
#[derive(Debug, Clone)]
pub struct HostCertificates {
    /// Hosts that are the listener's, as configuration writes them; `None` for every host. In any order.
    pub hosts: Vec<Option<String>>,
    /// At least one.
    pub certificates: Vec<Arc<ServerCertificate>>,
    /// What is asked of those handshakes.
    pub policy: Arc<TlsPolicy>,
}

impl PartialEq for HostCertificates {
    /// The very same certificates: a renewed one is another, whatever it holds.
    fn eq(&self, other: &Self) -> bool {
        let Self { hosts, certificates, policy } = self;
        *hosts == other.hosts
            && *policy == other.policy
            && certificates.len() == other.certificates.len()
            && certificates.iter().zip(&other.certificates).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// What is inside of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// HTTP/2 and HTTP/1.1, by ALPN.
    Http,
    /// Whatever client and backend speak: nothing is agreed on by ALPN.
    Bytes,
}

/// TLS of one port. Early data is not accepted, since it can be replayed.
///
/// The certificate is chosen by SNI in two steps, so that no listener answers for a host of another, whatever names its
/// certificates have. First the listener that has the host, as for routes ([`lb_core::host`]); where two have the same
/// one, the first. Then its certificate: of an exact name, of a wildcard, or any; of several the first that the client can
/// verify. A handshake without SNI, or for a host that nobody has, goes to the listener of every host, or else to the
/// first listener.
///
/// That listener's policy holds for the handshake, and for its requests: [`Termination::admits`].
#[derive(Debug)]
pub struct Termination {
    by_sni: Arc<BySni>,
    /// Each policy once.
    configs: Vec<(PolicyId, Arc<ServerConfig>)>,
    /// Of every certificate.
    expiries: Vec<Expiry>,
}

impl Termination {
    /// With the same `tickets` of a policy as before, sessions outlive a change of certificates. A policy without tickets
    /// resumes none.
    #[must_use]
    pub fn new<'a>(
        listeners: impl Iterator<Item = &'a HostCertificates> + Clone,
        within: Within,
        tickets: impl Fn(PolicyId) -> Option<Arc<dyn ProducesTickets>>,
    ) -> Self {
        let by_sni = Arc::new(BySni::new(listeners.clone()));
        let certificates = listeners.clone().flat_map(|listener| &listener.certificates);
        let expiries = certificates.map(|certificate| certificate.expiry.clone()).collect();
        let mut configs: Vec<(PolicyId, Arc<ServerConfig>)> = Vec::new();
        for policy in listeners.map(|listener| &listener.policy) {
            if configs.iter().all(|(id, _)| *id != policy.id()) {
                let mut config = policy.builder().with_cert_resolver(Arc::<BySni>::clone(&by_sni));
                config.alpn_protocols = match within {
                    Within::Http => ALPN.map(<[u8]>::to_vec).to_vec(),
                    Within::Bytes => Vec::new(),
                };
                config.max_early_data_size = 0;
                config.send_half_rtt_data = false;
                match tickets(policy.id()) {
                    Some(tickets) => config.ticketer = tickets,
                    None => config.send_tls13_tickets = 0,
                }
                configs.push((policy.id(), Arc::new(config)));
            }
        }
        Self { by_sni, configs, expiries }
    }

    /// When its certificates end; not always each once.
    pub(crate) fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    /// How a handshake for this name goes on; empty where the client sent none.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<(&Arc<TlsPolicy>, &Arc<ServerConfig>)> {
        let name = name.to_ascii_lowercase();
        let policy = &self.by_sni.owner(&name)?.policy;
        let (_, config) = self.configs.iter().find(|(id, _)| *id == policy.id())?;
        Some((policy, config))
    }

    /// Whether requests for this host may come over a connection that was secured under this policy. `host` is lower case.
    #[must_use]
    pub fn admits(&self, policy: PolicyId, host: &str) -> bool {
        match self.configs.as_slice() {
            [(only, _)] => *only == policy,
            _ => self.by_sni.owner(host).is_some_and(|owner| owner.policy.id() == policy),
        }
    }
}

/// Names, and the end in seconds since 1970.
fn read_leaf(leaf: &CertificateDer<'_>) -> Option<(Vec<String>, i64)> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.map(|extension| &extension.value.general_names).into_iter().flatten();
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some((dns.collect(), certificate.validity().not_after.timestamp()))
}

/// All listeners of a port.
#[derive(Debug, Default)]
struct BySni {
    owners: HostMap<Arc<ByName>>,
    first: Option<Arc<ByName>>,
}

impl BySni {
    fn new<'a>(listeners: impl IntoIterator<Item = &'a HostCertificates>) -> Self {
        let mut by_sni = Self::default();
        for listener in listeners {
            let by_name = Arc::new(ByName::new(&listener.certificates, &listener.policy));
            for host in &listener.hosts {
                by_sni.owners.ensure(host.as_deref(), || Arc::clone(&by_name));
            }
            by_sni.first.get_or_insert(by_name);
        }
        by_sni
    }

    /// `name` is lower case; empty where the client sent none.
    fn owner(&self, name: &str) -> Option<&Arc<ByName>> {
        self.owners.matching(name).next().or(self.first.as_ref())
    }

    fn find(&self, name: &str, is_usable: impl Fn(&CertifiedKey) -> bool) -> Option<&Arc<CertifiedKey>> {
        let owner = self.owner(name)?;
        let of_name = owner.find(name);
        let usable = of_name.iter().find(|key| is_usable(key));
        // One that the client cannot verify says better what is missing than none.
        usable.or(of_name.first())
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls checks the form of the name and keeps its case.
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        self.find(&name, |key| is_usable(key, &hello)).cloned()
    }
}

/// Whether a client can verify a signature of this key, and over TLS 1.2 has a cipher suite for it.
fn is_usable(key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
    let offered = PROVIDER.cipher_suites.iter().filter(|own| hello.cipher_suites().contains(&own.suite()));
    let has_suite = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(suite) => key.key.choose_scheme(suite.sign).is_some(),
    };
    key.key.choose_scheme(hello.signature_schemes()).is_some() && offered.into_iter().any(has_suite)
}

/// The certificates of one listener, by their names, in the order in which they were given.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`; a star stands for one label (RFC 6125, section 6.4.3).
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
    policy: Arc<TlsPolicy>,
}

impl ByName {
    fn new(certificates: &[Arc<ServerCertificate>], policy: &Arc<TlsPolicy>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for certificate in certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        let all = certificates.iter().map(|certificate| Arc::clone(&certificate.key)).collect();
        Self { exact, wildcard, all, policy: Arc::clone(policy) }
    }

    /// Those for a name; where there is none, all of them.
    fn find(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent).unwrap_or(&self.all)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn certificate(source: &str, names: &[&str]) -> push::Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("names are valid");
        push::Certificate {
            source: source.into(),
            chain_pem: made.cert.pem().into_bytes(),
            key_pem: made.signing_key.serialize_pem().into_bytes(),
        }
    }

    fn policy() -> Arc<TlsPolicy> {
        Arc::new(TlsPolicy::new(&push::Tls::default()).expect("the default"))
    }

    /// The key exchange that a client and a listener of the default policy agree on.
    fn agreed(groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>) -> rustls::NamedGroup {
        let wire = certificate("ns/a", &["a.org"]);
        let made = Arc::new(ServerCertificate::new(&wire).expect("valid"));
        let listener = HostCertificates { hosts: vec![None], certificates: vec![made], policy: policy() };
        let termination = Termination::new([&listener].into_iter(), Within::Http, |_| None);
        let (_, config) = termination.of("a.org").expect("every host");
        let mut server = rustls::ServerConnection::new(Arc::clone(config)).expect("complete");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&wire.chain_pem).expect("PEM")).expect("a certificate");
        let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("suites")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "a.org".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).expect("complete");
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory");
            server.read_tls(&mut wire.as_slice()).expect("memory");
            server.process_new_packets().expect("the client is right");
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("memory");
            client.read_tls(&mut wire.as_slice()).expect("memory");
            client.process_new_packets().expect("the listener is right");
        }
        server.negotiated_key_exchange_group().expect("one").name()
    }

    #[test]
    fn keys_are_agreed_on_against_quantum_computers_with_clients_that_begin_with_it() {
        let (hybrid, classic) = (kx_group::X25519MLKEM768, kx_group::X25519);
        assert_eq!(agreed(vec![hybrid, classic]), rustls::NamedGroup::X25519MLKEM768);
        // A client that begins with another one has sent its share, and no round trip is spent on more.
        for groups in [vec![classic, hybrid], vec![classic]] {
            assert_eq!(agreed(groups), rustls::NamedGroup::X25519);
        }
    }

    #[test]
    fn the_certificate_is_chosen_by_exact_name_then_wildcard_then_order() {
        let made: Vec<Arc<ServerCertificate>> = [
            certificate("ns/first", &["first.org"]),
            certificate("ns/wild", &["*.example.com"]),
            certificate("ns/exact", &["Shop.example.com", "*.example.com"]),
        ]
        .iter()
        .map(|wire| Arc::new(ServerCertificate::new(wire).expect("valid")))
        .collect();
        let by_name = ByName::new(&made, &policy());
        let place = |key| made.iter().position(|c| Arc::ptr_eq(&c.key, key));
        let chosen = |name| by_name.find(name).iter().filter_map(place).collect::<Vec<_>>();
        assert_eq!(chosen("shop.example.com"), [2]);
        assert_eq!(chosen("a.example.com"), [1, 2]);
        assert_eq!(chosen("a.b.example.com"), [0, 1, 2], "a star stands for one label");
        assert_eq!(chosen("example.com"), [0, 1, 2]);
    }

    #[test]
    fn a_listener_answers_handshakes_for_its_own_hosts_only_whatever_its_certificates_name() {
        let made = |name: &str, names: &[&str]| {
            Arc::new(ServerCertificate::new(&certificate(name, names)).expect("valid"))
        };
        let of = |hosts: &[Option<&str>], certificates: &[&Arc<ServerCertificate>]| HostCertificates {
            hosts: hosts.iter().map(|host| host.map(ToOwned::to_owned)).collect(),
            certificates: certificates.iter().map(|c| Arc::clone(c)).collect(),
            policy: policy(),
        };
        let greedy = made("ns/greedy", &["*.example.com", "shop.example.com", "free.org", "shop.org"]);
        let shop = made("ns/shop", &["shop.example.com"]);
        let wide = made("ns/wide", &["*.example.com"]);
        let (first, second) = (made("ns/first", &["a.any.org"]), made("ns/second", &["*.any.org"]));
        let narrow = of(&[Some("blog.example.com")], &[&greedy]);
        let by_sni = BySni::new(&[
            narrow.clone(),
            of(&[Some("shop.example.com"), Some("shop.org")], &[&shop]),
            of(&[Some("*.example.com")], &[&wide]),
            of(&[None], &[&first, &second]),
        ]);
        let is = |by_sni: &BySni, name: &str, certificate: &Arc<ServerCertificate>| {
            by_sni.find(name, |_| true).is_some_and(|key| Arc::ptr_eq(key, &certificate.key))
        };
        for (name, certificate) in [
            ("blog.example.com", &greedy),
            ("shop.example.com", &shop),
            ("shop.org", &shop),
            ("other.example.com", &wide),
            // A wildcard listener has hosts of any depth; its certificate is the best that it has.
            ("a.b.example.com", &wide),
            ("free.org", &first),
            ("a.any.org", &first),
            ("b.any.org", &second),
            ("", &first),
        ] {
            assert!(is(&by_sni, name, certificate), "{name}");
        }
        // Without a listener of every host, the first one answers for what nobody has.
        let by_sni = BySni::new(&[of(&[Some("shop.org")], &[&shop]), narrow]);
        for name in ["", "free.org", "other.example.com"] {
            assert!(is(&by_sni, name, &shop), "{name:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_names_its_secret_and_not_the_key() {
        let good = certificate("ns/good", &["a.org"]);
        let other = certificate("ns/other", &["a.org"]);
        let with = |chain: &[u8], key: &[u8]| push::Certificate {
            source: "ns/bad".into(),
            chain_pem: chain.to_vec(),
            key_pem: key.to_vec(),
        };
        let long = good.chain_pem.repeat(CHAIN_CERTIFICATES_MAX + 1);
        let name = || "ns/bad".to_owned();
        let cases = [
            (with(b"", &good.key_pem), CertificateError::Chain(name())),
            (with(&good.key_pem, &good.key_pem), CertificateError::Chain(name())),
            (with(&long, &good.key_pem), CertificateError::ChainTooLong(name())),
            (with(&good.chain_pem, b"-----BEGIN hunter2"), CertificateError::Key(name())),
            (with(&good.chain_pem, &good.chain_pem), CertificateError::Key(name())),
            (with(&good.chain_pem, &other.key_pem), CertificateError::Mismatch(name())),
        ];
        for (wire, expected) in cases {
            let error = ServerCertificate::new(&wire).expect_err("refused");
            assert!(
                error.to_string().contains("ns/bad") && !error.to_string().contains("hunter2"),
                "{error}"
            );
            assert_eq!(error, expected);
        }
        let longest = with(&good.chain_pem.repeat(CHAIN_CERTIFICATES_MAX), &good.key_pem);
        assert!(ServerCertificate::new(&longest).is_ok());
    }
}
