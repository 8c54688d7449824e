//! Who may ask, how often, and who the client is: real processes, and what a client and a backend see.

mod clients;
mod documents;
mod limits;
pub(crate) mod shares;

use weir_tests::harness::client::{Answer, Connection};
use weir_tests::harness::folder::Folder;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

/// A proxy before one sample backend.
struct Site {
    port: u16,
    folder: Folder,
    weir: Service,
    samples: Samples,
}

impl Site {
    /// With these fields of the specification, and this `clientAddress` of its listener, all in flow style.
    fn start(workers: usize, client_address: &str, fields: &[&str]) -> Self {
        let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("member", 1));
        folder.write("pool.yaml", &text(port, &samples, client_address, fields));
        let weir = Service::standalone_of(workers, folder.path(), &[]);
        Self { port, folder, weir, samples }
    }

    fn change(&self, client_address: &str, fields: &[&str]) {
        self.folder.write("pool.yaml", &text(self.port, &self.samples, client_address, fields));
    }

    fn ask(&self, fields: &str) -> Answer {
        ask(self.port, "/", fields)
    }

    fn statuses(&self, fields: &str, times: usize) -> Vec<u16> {
        (0..times).map(|_| self.ask(fields).status).collect()
    }
}

fn text(port: u16, samples: &Samples, client_address: &str, fields: &[&str]) -> String {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let pool = PoolText { spec: fields, ..PoolText::new("guarded", port, &samples.equal()) }.yaml();
    let listener = "      protocol: HTTP\n";
    match client_address {
        "" => pool,
        said => pool.replace(listener, &format!("{listener}      clientAddress: {said}\n")),
    }
}

/// One GET with these lines in its head.
fn ask(port: u16, target: &str, fields: &str) -> Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{fields}Connection: close\r\n\r\n");
    Connection::open(port).and_then(|mut connection| connection.request(&request)).expect("an answer")
}

/// What the backend was sent of a header.
fn seen(answer: &Answer, name: &str) -> Option<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["request"]["headers"][name].as_str().map(str::to_owned)
}
