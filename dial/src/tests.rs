use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn credentials(ca: bool, token: bool) -> Credentials {
    Credentials {
        ca: ca.then(|| "ca.crt".into()),
        token: token.then(|| "token".into()),
        ..Credentials::default()
    }
}

#[test]
fn a_url_is_checked_with_what_belongs_to_it() {
    let target = |url: &str, ca, token| Target::new(url, credentials(ca, token)).map(|target| target.port);
    assert_eq!(target("http://127.0.0.1:9901", false, false), Ok(9901));
    assert_eq!(target("http://[::1]:9901/", false, false), Ok(9901));
    assert_eq!(target("https://controller.weir", true, true), Ok(443));
    let url = |url: &str| Err(TargetError::Url(url.to_owned()));
    for wrong in ["127.0.0.1:9901", "ftp://a", "http://a/path", "https://user@a", "not a url", ""] {
        assert_eq!(target(wrong, true, false), url(wrong), "{wrong}");
    }
    assert_eq!(target("https://a", false, true), Err(TargetError::CaMissing("https://a".into())));
    assert_eq!(
        target("http://a", false, true),
        Err(TargetError::TokenInPlaintext("http://a".into())),
        "nobody on the way may read a token"
    );
    let pointless = TargetError::PointlessInPlaintext { flag: "--controller-ca", url: "http://a".into() };
    assert_eq!(target("http://a", true, false), Err(pointless));
    let named = Credentials { name: Some("no name".into()), ..credentials(true, false) };
    assert_eq!(
        Target::new("https://10.0.0.1:1", named).map(|target| target.port),
        Err(TargetError::Name("no name".into()))
    );
}

#[test]
fn addresses_take_turns_and_the_one_that_failed_is_the_last() {
    let all: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([127, 0, 0, n], 1))).collect();
    let turn = |all: &[SocketAddr], turn, bad: Option<SocketAddr>| {
        in_turn(all.to_vec(), turn, |address| Some(*address) == bad)
    };
    assert_eq!(turn(&all, 3, None), all);
    assert_eq!(turn(&all, 4, None), [all[1], all[2], all[0]]);
    assert_eq!(turn(&all, 4, Some(all[1])), [all[2], all[0], all[1]]);
    let many: Vec<_> = (1..=20).map(|n| SocketAddr::from(([127, 0, 0, n], 1))).collect();
    assert_eq!(turn(&many, 19, None).len(), ADDRESSES_MAX);
    assert_eq!(turn(&[], 5, None), []);
}

/// An authority, and a folder with what a proxy is given.
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
    fn sign(&self, name: &str, years: (i32, i32)) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().expect("randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn good(&self, name: &str) -> (String, String) {
        self.sign(name, (2000, 4000))
    }
}

/// What stands at the other end: TLS, and nothing above it.
async fn server(pair: (String, String), alpn: &[u8], clients: Option<&Authority>) -> SocketAddr {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM");
            roots.add(root).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.0.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).expect("PEM");
    let mut config = builder.with_single_cert(chain, key).expect("a pair");
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(socket).await {
                    while stream.read_u8().await.is_ok() {}
                }
            });
        }
    });
    address
}

fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("a writable folder");
    file
}

fn target(address: SocketAddr, ca: &Path, name: Option<&str>, client: Option<ClientFiles>) -> Target {
    let credentials =
        Credentials { ca: Some(ca.to_path_buf()), name: name.map(str::to_owned), token: None, client };
    Target::new(&format!("https://{address}"), credentials).expect("good flags")
}

async fn dial(target: Target) -> Result<Link, String> {
    let linked = Dialer::from(target).dial(&mut Random::default()).await;
    linked.map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_is_wrong_with_a_controller_s_certificate_is_said_with_what_to_do() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), TempDir::new().expect("a folder"));
    let ca = write(&folder, "ca.crt", &authority.pem);
    let name = "127.0.0.1";
    let cases = [
        (authority.good(name), &b"h2"[..], None, None),
        (authority.good("weir.example"), b"h2", Some("weir.example"), None),
        (authority.good("weir.example"), b"h2", None, Some("set --controller-name")),
        (other.good(name), b"h2", None, Some("given by --controller-ca, has signed")),
        (authority.sign(name, (2000, 2001)), b"h2", None, Some("has expired")),
        (authority.sign(name, (3000, 3001)), b"h2", None, Some("not valid yet")),
        (authority.good(name), b"http/1.1", None, Some("no controller")),
    ];
    for (pair, alpn, name, expected) in cases {
        let address = server(pair, alpn, None).await;
        let failure = dial(target(address, &ca, name, None)).await.err();
        match (failure, expected) {
            (None, None) => {}
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{said}"),
            (failure, expected) => panic!("{failure:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn files_are_read_at_each_dial_and_what_is_wrong_with_one_names_it() {
    let (authority, folder) = (Authority::new(), TempDir::new().expect("a folder"));
    let address = server(authority.good("127.0.0.1"), b"h2", None).await;
    let ca = folder.path().join("ca.crt");
    let mut dialer = Dialer::from(target(address, &ca, None, None));
    let mut random = Random::default();
    let expected = [
        (None, Some("cannot read ")),
        (Some(""), Some("no PEM certificate")),
        (Some("-----BEGIN CERTIFICATE-----\nhunter2"), Some("given by --controller-ca")),
        (Some(authority.pem.as_str()), None),
    ];
    for (text, expected) in expected {
        if let Some(text) = text {
            write(&folder, "ca.crt", text);
        }
        let said = dialer.dial(&mut random).await.err().map(|error| error.to_string());
        match (&said, expected) {
            (None, None) => {}
            (Some(said), Some(expected)) => {
                assert!(said.contains(expected) && said.contains("ca.crt"), "{said}");
                assert!(!said.contains("hunter2"), "{said}");
            }
            _ => panic!("{said:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_is_one_line_and_is_never_quoted() {
    let (authority, folder) = (Authority::new(), TempDir::new().expect("a folder"));
    let address = server(authority.good("127.0.0.1"), b"h2", None).await;
    let ca = write(&folder, "ca.crt", &authority.pem);
    let token = folder.path().join("token");
    let credentials = Credentials { ca: Some(ca), token: Some(token.clone()), ..Credentials::default() };
    let target = Target::new(&format!("https://{address}"), credentials).expect("good flags");
    let mut dialer = Dialer::from(target);
    let mut random = Random::default();
    let wrong = ["", " \n", "hunter2 hunter2", "hunter2\nhunter2", "hunter2\u{e9}"];
    for text in wrong {
        write(&folder, "token", text);
        let said = dialer.dial(&mut random).await.expect_err("refused").to_string();
        assert!(said.contains("given by --token-file") && !said.contains("hunter2"), "{said}");
    }
    write(&folder, "token", "abc.def\n");
    let Ok(link) = dialer.dial(&mut random).await else { panic!("a good token") };
    let request = link.request(());
    let value = request.metadata().get("authorization").expect("the token");
    assert_eq!(value.to_str().ok(), Some("Bearer abc.def"));
    assert!(!format!("{request:?}").contains("abc.def"), "it is marked as sensitive");
}

#[tokio::test]
async fn a_file_has_a_size_that_is_never_passed() {
    let (authority, folder) = (Authority::new(), TempDir::new().expect("a folder"));
    let address = server(authority.good("127.0.0.1"), b"h2", None).await;
    let mut text = authority.pem.clone();
    text.push_str(&"\n".repeat(usize::try_from(tls::FILE_BYTES_MAX).expect("small") - text.len()));
    let ca = write(&folder, "ca.crt", &text);
    assert!(dial(target(address, &ca, None, None)).await.is_ok());
    text.push('\n');
    let ca = write(&folder, "ca.crt", &text);
    let said = dial(target(address, &ca, None, None)).await.expect_err("refused");
    assert!(said.contains("larger than 1 MiB"), "{said}");
}

/// With TLS 1.3 the refusal of a client's certificate comes after the handshake, as the end of the connection.
async fn refused_later(target: Target) -> String {
    let Ok(link) = dial(target).await else { panic!("the handshake itself succeeds") };
    let mut client = weir_proto::push::push_client::PushClient::new(link.channel.clone());
    let status = client.connect(link.request(tokio_stream::pending())).await.expect_err("refused");
    link.explain(&status)
}

#[tokio::test]
async fn a_refusal_of_the_client_s_certificate_is_said_although_it_comes_late() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), TempDir::new().expect("a folder"));
    let address = server(authority.good("127.0.0.1"), b"h2", Some(&authority)).await;
    let ca = write(&folder, "ca.crt", &authority.pem);
    let client = |name: &str, (certificate, key): (String, String)| ClientFiles {
        certificate: write(&folder, &format!("{name}.crt"), &certificate),
        key: write(&folder, &format!("{name}.key"), &key),
    };
    assert!(refused_later(target(address, &ca, None, None)).await.contains("give --client-cert"));
    let foreign = client("foreign", other.good("proxy"));
    let said = refused_later(target(address, &ca, None, Some(foreign))).await;
    assert!(said.contains("foreign.crt") && said.contains("--client-ca"), "{said}");
    let expired = client("expired", authority.sign("proxy", (2000, 2001)));
    let said = refused_later(target(address, &ca, None, Some(expired))).await;
    assert!(said.contains("expired.crt has expired"), "{said}");
    let mut crossed = client("crossed", authority.good("proxy"));
    crossed.key = client("other", authority.good("proxy")).key;
    let said = dial(target(address, &ca, None, Some(crossed))).await.expect_err("refused here already");
    assert!(said.contains("other.key") && said.contains("not the key"), "{said}");
}

#[tokio::test]
async fn another_address_is_dialled_when_the_first_fails() {
    let closed = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        listener.local_addr().expect("bound")
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let open = listener.local_addr().expect("bound");
    let target = |address: SocketAddr| {
        Target::new(&format!("http://{address}"), Credentials::default()).expect("a URL")
    };
    let unknown = Target::new("http://no-such-name.invalid:1", Credentials::default()).expect("a URL");
    let mut dialer = Dialer::of(vec![target(closed), unknown, target(open)]).expect("three");
    for turn in 0..4 {
        assert!(dialer.dial(&mut Random::of(turn)).await.is_ok(), "whoever's turn it is");
        assert_eq!(dialer.last, Some(open));
    }
    let mut dialer = Dialer::from(target(closed));
    let failed = dialer.dial(&mut Random::default()).await;
    assert_eq!((dialer.last, dialer.is_last_bad), (Some(closed), true));
    assert!(matches!(failed, Err(DialError::Connect { address, .. }) if address == closed));
    assert!(Dialer::of(Vec::new()).is_none());
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_from_what_does() {
    let (authority, folder) = (Authority::new(), TempDir::new().expect("a folder"));
    let ca = write(&folder, "ca.crt", &authority.pem);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    let said = dial(target(address, &ca, None, None)).await.expect_err("refused");
    assert!(said.contains("does not speak TLS"), "{said}");
}

#[test]
fn a_cause_that_was_quoted_is_not_said_again() {
    let cause = || io::Error::new(io::ErrorKind::NotFound, "no such file");
    let quoting = io::Error::other(format!("cannot open it: {}", cause()));
    assert_eq!(with_causes(&quoting), "cannot open it: no such file");
    let file = PathBuf::from("ca.crt");
    let plain = DialError::Read { flag: "--controller-ca", file, source: cause() };
    assert_eq!(with_causes(&plain), "cannot read ca.crt, given by --controller-ca: no such file");
    #[derive(Debug, thiserror::Error)]
    #[error("it failed: {0}")]
    struct Quoting(#[source] io::Error);
    assert_eq!(with_causes(&Quoting(cause())), "it failed: no such file");
}
