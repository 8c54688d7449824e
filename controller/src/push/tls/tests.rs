use super::*;
use futures_util::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::net::Ipv4Addr;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

const DEADLINE: Duration = Duration::from_secs(20);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("randomness");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key, as PEM.
    fn sign(&self, name: &str, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("randomness");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// A folder of files, and a port that serves with them.
struct Port {
    folder: TempDir,
    authority: Authority,
    tls: Arc<ServerTls>,
    address: SocketAddr,
    connections: ReceiverStream<io::Result<TlsConnection>>,
}

impl Port {
    async fn open(clients: impl FnOnce(PathBuf) -> ClientCertificates) -> Self {
        let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
        let ca = write(&folder, "ca.crt", &authority.pem);
        let files = files(&folder, &authority.sign("first.example", 4000), clients(ca));
        let tls = ServerTls::open(files).expect("good files");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connections = incoming(listener, Arc::clone(&tls));
        Self { folder, authority, tls, address, connections }
    }

    /// The client's end of a handshake, whatever name the certificate has.
    async fn dial(
        &self,
        pair: Option<(String, String)>,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(self.name()).expect("a name");
        TlsConnector::from(client(&self.authority, pair)).connect(name, socket).await
    }

    /// The name in the certificate that is in use.
    fn name(&self) -> String {
        let pem = std::fs::read(self.folder.path().join("name")).expect("written with the pair");
        String::from_utf8(pem).expect("text")
    }

    async fn next(&mut self) -> TlsConnection {
        let next = timeout(DEADLINE, self.connections.next()).await;
        next.expect("in time").expect("it goes on").expect("never an error")
    }
}

fn client(authority: &Authority, pair: Option<(String, String)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("a writable folder");
    file
}

/// Writes a pair for `first.example`, and what name a client must expect.
fn files(folder: &TempDir, pair: &(String, String), clients: ClientCertificates) -> TlsFiles {
    write(folder, "name", "first.example");
    TlsFiles {
        certificate: write(folder, "tls.crt", &pair.0),
        key: write(folder, "tls.key", &pair.1),
        clients,
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = timeout(DEADLINE, async {
        let mut polls = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            polls.tick().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_fault_and_nothing_it_holds() {
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let (certificate, key) = authority.sign("a.example", 4000);
    let (_, other_key) = authority.sign("a.example", 4000);
    let long = certificate.repeat(CHAIN_CERTIFICATES_MAX + 1);
    let cases = [
        ("", key.as_str(), "tls.crt, given by --tls-cert, holds no PEM certificate"),
        (&key, &key, "tls.crt, given by --tls-cert, holds no PEM certificate"),
        (&long, &key, "tls.crt, given by --tls-cert, holds more certificates"),
        (
            &certificate,
            "-----BEGIN PRIVATE KEY-----\nhunter2",
            "tls.key, given by --tls-key, holds no readable",
        ),
        (&certificate, &certificate, "tls.key, given by --tls-key, holds no readable"),
        (&certificate, &other_key, "tls.key, given by --tls-key, is not the key of"),
    ];
    for (certificate, key, expected) in cases {
        let pair = (certificate.to_owned(), key.to_owned());
        let refused =
            ServerTls::open(files(&folder, &pair, ClientCertificates::NotAsked)).expect_err("refused");
        let said = refused.to_string();
        assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
    }
    let whole = (certificate.repeat(CHAIN_CERTIFICATES_MAX), key.clone());
    assert!(ServerTls::open(files(&folder, &whole, ClientCertificates::NotAsked)).is_ok());
    let missing = folder.path().join("none");
    let clients = ClientCertificates::Required(missing.clone());
    let said = ServerTls::open(files(&folder, &whole, clients)).expect_err("refused").to_string();
    assert!(said.starts_with("cannot read") && said.contains("given by --client-ca"), "{said}");
    std::fs::write(&missing, &key).expect("a writable folder");
    let clients = ClientCertificates::Required(missing);
    let said = ServerTls::open(files(&folder, &whole, clients)).expect_err("refused").to_string();
    assert!(said.contains("given by --client-ca, holds no PEM certificate"), "{said}");
}

#[test]
fn a_file_has_a_size_that_is_never_passed() {
    let folder = TempDir::new().expect("a folder");
    let size = usize::try_from(FILE_BYTES_MAX).expect("small");
    let file = write(&folder, "f", &"x".repeat(size));
    assert_eq!(read("--f", &file).expect("at the limit").len(), size);
    write(&folder, "f", &"x".repeat(size + 1));
    assert!(read("--f", &file).expect_err("one past it").to_string().contains("larger than 1 MiB"));
}

#[tokio::test]
async fn a_rotated_pair_is_in_use_soon_and_a_broken_one_leaves_the_one_before() {
    let mut port = Port::open(|_| ClientCertificates::NotAsked).await;
    let first = port.tls.config();
    port.dial(None).await.expect("the first pair");
    port.next().await;

    write(&port.folder, "tls.key", "half writt");
    until("the broken key is seen", || port.tls.newest().said.is_some()).await;
    assert!(Arc::ptr_eq(&first, &port.tls.config()));
    port.dial(None).await.expect("the pair before is still in use");
    port.next().await;

    let (certificate, key) = port.authority.sign("second.example", 4000);
    write(&port.folder, "tls.crt", &certificate);
    write(&port.folder, "tls.key", &key);
    write(&port.folder, "name", "second.example");
    until("the new pair", || !Arc::ptr_eq(&first, &port.tls.config())).await;
    port.dial(None).await.expect("the new pair has the new name");
    port.next().await;
    assert_eq!(port.tls.newest().said, None);
}

#[tokio::test]
async fn only_certificates_of_the_client_authorities_pass_and_none_passes_where_one_is_only_asked_for() {
    for is_required in [true, false] {
        let clients = |file| match is_required {
            true => ClientCertificates::Required(file),
            false => ClientCertificates::Asked(file),
        };
        let mut port = Port::open(clients).await;
        let passes = async |port: &mut Port, pair: Option<(String, String)>| {
            // The refusal comes after the client's end of the handshake, with TLS 1.3.
            let Ok(mut stream) = port.dial(pair).await else { return None };
            let connected = timeout(DEADLINE, async {
                tokio::select! {
                    connection = port.connections.next() => connection.and_then(Result::ok),
                    _ = stream.read_u8() => None,
                }
            });
            connected.await.expect("in time").map(|connection| connection.peer().certificate.is_some())
        };
        let good = port.authority.sign("proxy", 4000);
        assert_eq!(passes(&mut port, Some(good)).await, Some(true));
        let expired = port.authority.sign("proxy", 2000);
        assert_eq!(passes(&mut port, Some(expired)).await, None);
        assert_eq!(passes(&mut port, Some(Authority::new().sign("proxy", 4000))).await, None);
        assert_eq!(passes(&mut port, None).await, (!is_required).then_some(false));
    }
}

#[tokio::test]
async fn new_client_authorities_are_in_use_without_a_restart() {
    let mut port = Port::open(ClientCertificates::Required).await;
    let next = Authority::new();
    let before = port.tls.config();
    write(&port.folder, "ca.crt", &next.pem);
    until("the new authorities", || !Arc::ptr_eq(&before, &port.tls.config())).await;
    let mut refused = port.dial(Some(port.authority.sign("proxy", 4000))).await.expect("refused only later");
    assert!(refused.read_u8().await.is_err(), "its authority is gone");
    let _accepted = port.dial(Some(next.sign("proxy", 4000))).await.expect("the new one");
    assert!(port.next().await.peer().certificate.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_move_is_ended() {
    let port = Port::open(|_| ClientCertificates::NotAsked).await;
    let mut silent = TcpStream::connect(port.address).await.expect("accepted");
    // The clock runs ahead while nobody does anything.
    assert_eq!(silent.read(&mut [0; 1]).await.ok(), Some(0), "closed by the other end");
    assert_eq!(port.tls.handshakes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn one_handshake_past_the_limit_waits_until_another_has_ended() {
    let mut port = Port::open(|_| ClientCertificates::NotAsked).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(TcpStream::connect(port.address).await.expect("accepted"));
    }
    until("as many as may be", || port.tls.handshakes.load(Ordering::Relaxed) == HANDSHAKES_MAX).await;
    let mut waiting = TcpStream::connect(port.address).await.expect("in the backlog");
    waiting.write_all(b"\x16").await.expect("sent");
    let mut good = Box::pin(port.dial(None));
    // Whatever is ready is done, and this is not.
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(&mut good).is_pending());
        assert_eq!(port.tls.handshakes.load(Ordering::Relaxed), HANDSHAKES_MAX);
    }
    silent.truncate(HANDSHAKES_MAX - 2);
    drop(waiting);
    timeout(DEADLINE, good).await.expect("in time").expect("its turn has come");
    port.next().await;
}

#[tokio::test]
async fn the_port_closes_with_what_is_served_from_it() {
    let port = Port::open(|_| ClientCertificates::NotAsked).await;
    drop(port.connections);
    let address = port.address;
    let free = timeout(DEADLINE, async {
        while TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    free.await.expect("nobody listens any more");
}
