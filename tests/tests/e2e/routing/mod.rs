//! Which rule has a request, and what filters make of it: real processes, over both versions of HTTP.

mod answers;
mod cors;
mod documents;
mod edits;
mod headers;
mod matches;
mod mirror;

use crate::http2_client::{over_http2, read};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use serde_json::Value;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

/// A proxy before the sets `first`, `second` and so on, with a sample backend each.
struct Site {
    port: u16,
    weir: Service,
    folder: Folder,
    samples: Samples,
}

const SETS: [&str; 4] = ["first", "second", "third", "fourth"];

impl Site {
    /// With these rules, each in flow style.
    fn start(listener: &str, rules: &[&str]) -> Self {
        let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("routed", SETS.len()));
        folder.write("pool.yaml", &text(port, &samples, listener, rules));
        let weir = Service::standalone(folder.path(), &[]);
        Self { port, weir, folder, samples }
    }

    /// One request over each version of HTTP; both have to be answered alike.
    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &'static str) -> Answered {
        let first = over_http1(self.port, method, target, fields, body);
        let second = over_http2(self.port, async |mut send| {
            http2(&mut send, self.port, method, target, fields, body).await
        });
        assert_eq!((first.status, &first.content()), (second.status, &second.content()), "{method} {target}");
        first
    }

    fn get(&self, target: &str, fields: &[(&str, &str)]) -> Answered {
        self.ask("GET", target, fields, "")
    }
}

fn text(port: u16, samples: &Samples, listener: &str, rules: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{ name: routed, namespace: default }}\n\
         spec:\n  listeners: [{{ name: http, port: {port}, protocol: HTTP{listener} }}]\n  rules:\n"
    );
    rules.iter().for_each(|rule| text.push_str(&format!("    - {rule}\n")));
    text.push_str("  backendSets:\n");
    for (name, port) in SETS.iter().zip(&samples.ports) {
        let backends = format!("[{{ address: 127.0.0.1, port: {port} }}]");
        text.push_str(&format!("    - {{ name: {name}, static: {{ backends: {backends} }} }}\n"));
    }
    text
}

/// What a client saw.
struct Answered {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answered {
    /// All fields of a name, joined.
    fn header(&self, name: &str) -> Option<String> {
        let found: Vec<_> =
            self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} {error}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The position of the set that answered.
    fn set(&self) -> usize {
        let name = self.json()["name"].as_str().expect("a sample backend").to_owned();
        let digits = name.rsplit('-').next().expect("a number");
        digits.parse::<usize>().expect("a number") - 1
    }

    /// What the backend was sent of a header.
    fn seen(&self, name: &str) -> Option<String> {
        self.json()["request"]["headers"][name].as_str().map(str::to_owned)
    }

    /// The path and query that the backend was asked.
    fn asked(&self) -> String {
        let request = &self.json()["request"];
        let path = request["path"].as_str().expect("a path");
        request["query"].as_str().map_or(path.to_owned(), |query| format!("{path}?{query}"))
    }

    /// The body but for what tells connections apart.
    fn content(&self) -> String {
        match serde_json::from_slice::<Value>(&self.body) {
            Ok(json) if json["name"].is_string() => format!("{} {}", json["name"], self.asked()),
            _ => String::from_utf8_lossy(&self.body).into_owned(),
        }
    }
}

fn over_http1(port: u16, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Answered {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: shop.example:{port}\r\n");
    fields.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str(&format!("Connection: close\r\n\r\n{body}"));
    let mut connection = weir_tests::harness::client::Connection::open(port).expect("serves");
    let answer = connection.request(&request).expect("an answer");
    let headers = answer.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    Answered { status: answer.status, headers: headers.collect(), body: answer.body }
}

async fn http2(
    send: &mut SendRequest<Bytes>,
    port: u16,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &'static str,
) -> Answered {
    let mut request = Request::builder().method(method).uri(format!("http://shop.example:{port}{target}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let (response, mut stream) = send.send_request(request, body.is_empty()).expect("a stream");
    if !body.is_empty() {
        stream.send_data(Bytes::from_static(body.as_bytes()), true).expect("room for it");
    }
    let (head, body) = response.await.expect("an answer").into_parts();
    let text = |headers: &HeaderMap| {
        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().expect("text").to_owned())
        };
        headers.iter().map(field).collect()
    };
    Answered { status: head.status.as_u16(), headers: text(&head.headers), body: read(body).await }
}
