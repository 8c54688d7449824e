//! The API server over one kept connection: for changes that come faster than kubectl starts, and for objects that the API
//! server itself would refuse.

use super::{Namespace, programs, servers};
use crate::harness::client::{Answer, Connection};
use crate::harness::process::Process;
use crate::harness::wait;
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects that were written past the API server so far: each has a uid.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// What is written, by the place of its objects in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `LoadBalancerPool`
    Pool,
    /// `EndpointSlice`
    Slice,
    /// `ReferenceGrant`, where its definition is installed.
    Grant,
}

/// The administrator's requests, through `kubectl proxy`.
#[derive(Debug)]
pub struct Api {
    _proxy: Process,
    connection: Connection,
    namespace: String,
}

impl Resource {
    /// The path of the API group's version, and the plural.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Pool => ("/apis/weir.dev/v1alpha1", "loadbalancerpools"),
            Self::Slice => ("/apis/discovery.k8s.io/v1", "endpointslices"),
            Self::Grant => ("/apis/gateway.networking.k8s.io/v1beta1", "referencegrants"),
        }
    }

    /// Where the API server keeps its objects in etcd.
    fn kept(self) -> &'static str {
        match self {
            Self::Pool => "weir.dev/loadbalancerpools",
            Self::Slice => "endpointslices",
            Self::Grant => "gateway.networking.k8s.io/referencegrants",
        }
    }
}

impl Namespace<'_> {
    /// The API server, for objects of this namespace.
    ///
    /// # Panics
    /// When kubectl does not start.
    #[must_use]
    pub fn api(&self) -> Api {
        let kubeconfig = self.cluster().admin_kubeconfig();
        let arguments =
            ["--kubeconfig".as_ref(), kubeconfig.as_os_str(), "proxy".as_ref(), "--port=0".as_ref()];
        let proxy = Process::leashed(programs::path("kubectl"), arguments);
        let port = wait::until("kubectl proxy should serve", || {
            proxy.stdout().trim().rsplit_once(':').and_then(|(_, port)| port.parse().ok())
        });
        let connection = Connection::open(port).expect("it says that it serves");
        Api { _proxy: proxy, connection, namespace: self.name.clone() }
    }

    /// Writes an object into etcd, past everything that the API server checks: as one that an older definition or another
    /// version let in. Whoever watches hears of it from the API server.
    ///
    /// # Panics
    /// When etcd refuses it.
    pub fn write_past_the_api_server(&self, resource: Resource, name: &str, mut object: Value) {
        let key = format!("/registry/{}/{}/{name}", resource.kept(), self.name);
        let metadata = object["metadata"].as_object_mut().expect("an object");
        metadata.insert("name".to_owned(), json!(name));
        metadata.insert("namespace".to_owned(), json!(self.name));
        // What the API server itself says of an object; without it, it takes none for one that is there.
        for (field, value) in [
            (
                "uid",
                json!(format!("00000000-0000-4000-8000-{:012x}", WRITTEN.fetch_add(1, Ordering::Relaxed))),
            ),
            ("creationTimestamp", json!("2026-01-01T00:00:00Z")),
            ("generation", json!(1)),
        ] {
            metadata.entry(field).or_insert(value);
        }
        // It is kept by etcd.
        metadata.remove("resourceVersion");
        let put = json!({
            "key": BASE64.encode(key.as_bytes()),
            "value": BASE64.encode(object.to_string().as_bytes()),
        });
        let mut etcd = Connection::open_at(servers::etcd_address()).expect("etcd serves");
        let answer = post(&mut etcd, "/v3/kv/put", &put);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

impl Api {
    /// Creates an object.
    ///
    /// # Panics
    /// When the API server refuses it, with its sentence.
    pub fn create(&mut self, resource: Resource, object: &Value) {
        let path = self.path(resource, "");
        good("POST", &path, &post(&mut self.connection, &path, object));
    }

    /// Changes the fields of an object that a merge patch (RFC 7386) names.
    ///
    /// # Panics
    /// When the API server refuses it, with its sentence.
    pub fn patch(&mut self, resource: Resource, name: &str, patch: &Value) {
        let path = self.path(resource, name);
        let answer = send(&mut self.connection, "PATCH", &path, "application/merge-patch+json", patch);
        good("PATCH", &path, &answer);
    }

    /// Removes an object.
    ///
    /// # Panics
    /// When it is not there.
    pub fn delete(&mut self, resource: Resource, name: &str) {
        let path = self.path(resource, name);
        good("DELETE", &path, &send(&mut self.connection, "DELETE", &path, "application/json", &json!({})));
    }

    fn path(&self, resource: Resource, name: &str) -> String {
        let (group, plural) = resource.place();
        let path = format!("{group}/namespaces/{}/{plural}", self.namespace);
        if name.is_empty() { path } else { format!("{path}/{name}") }
    }
}

fn post(connection: &mut Connection, path: &str, body: &Value) -> Answer {
    send(connection, "POST", path, "application/json", body)
}

fn send(connection: &mut Connection, method: &str, path: &str, media_type: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.request(&request).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn good(method: &str, path: &str, answer: &Answer) {
    assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
}
