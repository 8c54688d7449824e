//! Clients that are to come by HTTPS: sent there, and told to stay.

use super::pair;
use weir_tests::harness::authority::Authority;
use weir_tests::harness::client::{Answer, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::scripted::Scripted;
use weir_tests::harness::services::Service;
use weir_tests::harness::{ports, tools};

const SHOP: &str = "shop.example";
const BLOG: &str = "blog.example";

/// Two pools on a port for HTTP and one for HTTPS, of which `shop` says something of HTTPS and `blog` nothing.
struct Site {
    plain: u16,
    secure: u16,
    folder: Folder,
    _weir: Service,
}

impl Site {
    fn start(plain_says: &str, secure_says: &str) -> Self {
        let backend = Scripted::start(|_, exchange| {
            while exchange.read_head().is_some() {
                let hsts = "Strict-Transport-Security: max-age=1\r\n";
                exchange.write(&format!("HTTP/1.1 200 OK\r\n{hsts}Content-Length: 2\r\n\r\nok"));
            }
        });
        let (folder, ca) = (Folder::new(), Authority::new());
        let (plain, secure) = (ports::free(), ports::free());
        for (name, host, plain_says, secure_says) in
            [("shop", SHOP, plain_says, secure_says), ("blog", BLOG, "", "")]
        {
            let pool = PoolText::new(name, plain, &[(backend.port, 1)]).yaml();
            let listeners = format!(
                "protocol: HTTP\n      hostnames: [{host}]\n{plain_says}    - name: https\n      port: {secure}\n      \
                 protocol: HTTPS\n      hostnames: [{host}]\n{secure_says}      tls: {{ certificateRefs: [{{ name: {name} }}] }}\n"
            );
            let pool = pool.replace("protocol: HTTP\n", &listeners);
            folder.write(&format!("{name}.yaml"), &format!("{pool}{}", pair(name, &ca.issue(name, &[host]))));
        }
        folder.write("ca.pem", &ca.certificate());
        let weir = Service::standalone(folder.path(), &[]);
        Self { plain, secure, folder, _weir: weir }
    }

    fn ask(&self, request: &str) -> Answer {
        let ask = |mut connection: Connection| connection.request(request);
        Connection::open(self.plain).and_then(ask).expect("an answer")
    }

    /// Headers of an answer over HTTPS, by curl.
    fn headers(&self, host: &str, version: &str) -> String {
        self.headers_of(host, version, "/")
    }

    fn headers_of(&self, host: &str, version: &str, path: &str) -> String {
        let resolve = format!("{host}:{}:127.0.0.1", self.secure);
        let url = format!("https://{host}:{}{path}", self.secure);
        let ca = self.folder.file("ca.pem");
        let ca = ca.to_str().expect("text");
        tools::curl([
            "-sS",
            version,
            "--cacert",
            ca,
            "--resolve",
            &resolve,
            "-o",
            "/dev/null",
            "-D",
            "-",
            &url,
        ])
        .to_ascii_lowercase()
    }
}

fn get(host: &str, fields: &str) -> String {
    format!("GET /a//b?c=d HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

#[test]
fn requests_are_sent_to_https_for_the_hosts_that_say_so_alone() {
    for (said, status, place) in [
        ("{}", 308, "https://shop.example/a/b?c=d"),
        ("{ statusCode: 301, port: 8443 }", 301, "https://shop.example:8443/a/b?c=d"),
    ] {
        let site = Site::start(&format!("      httpsRedirect: {said}\n"), "");
        for host in [SHOP, "SHOP.example", "shop.example:80"] {
            let answer = site.ask(&get(host, ""));
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{host}");
            let location = answer.header("location").map(str::to_ascii_lowercase);
            assert_eq!(location.as_deref(), Some(place), "{host}");
            assert_eq!(answer.header("x-weir-reason"), Some("https_redirect"));
            assert_eq!(answer.header("strict-transport-security"), None, "not over HTTP");
        }
        let other = site.ask(&get(BLOG, ""));
        assert_eq!((other.status, other.text().as_str()), (200, "ok"), "of another pool");
        assert_eq!(site.ask(&get("none.example", "")).status, 404);
    }
}

#[test]
fn a_connection_goes_on_after_a_redirect_and_a_body_that_nobody_wants_ends_it() {
    let site = Site::start("      httpsRedirect: {}\n", "");
    let mut connection = Connection::open(site.plain).expect("it listens");
    for _ in 0..2 {
        assert_eq!(connection.request(&get(SHOP, "")).expect("an answer").status, 308);
    }
    let post = format!("POST / HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(connection.request(&post).expect("an answer").status, 308);
    assert_eq!(connection.request(&get(BLOG, "")).expect("an answer").status, 200);
    let endless = format!("POST / HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 200000\r\n\r\n");
    let answer = connection.request(&endless).expect("an answer");
    assert!(answer.status == 308 && answer.closes(), "{answer:?}");
}

#[test]
fn what_a_trusted_proxy_took_over_https_is_served() {
    let says = "      httpsRedirect: {}\n      clientAddress: { trustedCIDRs: [127.0.0.0/8] }\n";
    let site = Site::start(says, "");
    for (fields, status) in [
        ("X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n", 200),
        ("X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: http\r\n", 308),
        ("", 308),
    ] {
        assert_eq!(site.ask(&get(SHOP, fields)).status, status, "{fields}");
    }
    let distrusting = Site::start("      httpsRedirect: {}\n", "");
    assert_eq!(distrusting.ask(&get(SHOP, "X-Forwarded-Proto: https\r\n")).status, 308);
}

#[test]
fn answers_over_https_say_once_that_clients_are_to_stay() {
    let says = "      hsts: { maxAge: 8760h, includeSubDomains: true }\n";
    let site = Site::start("", says);
    for version in ["--http1.1", "--http2"] {
        let headers = site.headers(SHOP, version);
        let said: Vec<_> = headers.lines().filter(|line| line.starts_with("strict-transport")).collect();
        assert_eq!(said, ["strict-transport-security: max-age=31536000; includesubdomains"], "{version}");
        let other = site.headers(BLOG, version);
        assert!(other.contains("strict-transport-security: max-age=1\r\n"), "its backend's own: {other}");
    }
    // What Weir answers itself says it too.
    let refused = site.headers_of(SHOP, "--http1.1", "/%2f");
    assert!(
        refused.starts_with("http/1.1 400 ") && refused.contains("strict-transport-security: max-age=31")
    );
    assert!(site.ask(&get(SHOP, "")).header("strict-transport-security") == Some("max-age=1"), "over HTTP");
}
