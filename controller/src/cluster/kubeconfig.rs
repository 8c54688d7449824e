//! A kubeconfig that somebody else wrote, read so that it can do no more than name an API server and prove who asks.
//!
//! Kubeconfigs are made for the machine of the person who uses them: they run programs, read files, go through proxies.
//! One that comes in a Secret was written by whoever may write Secrets of a namespace, and is used by the controller. So
//! what is not known to be harmless is refused by its name, fields that come to be one day included. Nothing of what a
//! field holds is in a sentence.

use http::Uri;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Map, Value};

/// Bytes of a kubeconfig. One with a certificate and its chain has 10 KB.
pub const KUBECONFIG_BYTES_MAX: usize = 64 << 10;

/// Fields of a cluster that may be there.
const CLUSTER_FIELDS: [&str; 5] =
    ["server", "certificate-authority-data", "tls-server-name", "disable-compression", "extensions"];
/// Fields of a user that may be there.
const USER_FIELDS: [&str; 4] = ["token", "client-certificate-data", "client-key-data", "extensions"];

/// Why fields are refused that kubectl knows; what is in neither list is not read at all.
const REFUSED: [(&str, &str); 14] = [
    ("exec", "would run a program in the controller: write a token or a client certificate"),
    (
        "auth-provider",
        "would run code of a provider in the controller: write a token or a client certificate",
    ),
    ("tokenFile", "names a file of another machine: write what it holds as token"),
    ("client-certificate", "names a file of another machine: write what it holds as client-certificate-data"),
    ("client-key", "names a file of another machine: write what it holds as client-key-data"),
    (
        "certificate-authority",
        "names a file of another machine: write what it holds as certificate-authority-data",
    ),
    (
        "insecure-skip-tls-verify",
        "would let anybody answer for the cluster: write certificate-authority-data",
    ),
    ("proxy-url", "leads through a proxy, which is not done: remove it"),
    (
        "as",
        "asks in the name of somebody else: write the credentials of a ServiceAccount with the rights that are needed",
    ),
    (
        "as-uid",
        "asks in the name of somebody else: write the credentials of a ServiceAccount with the rights that are needed",
    ),
    (
        "as-groups",
        "asks in the name of others: write the credentials of a ServiceAccount with the rights that are needed",
    ),
    (
        "as-user-extra",
        "asks in the name of others: write the credentials of a ServiceAccount with the rights that are needed",
    ),
    (
        "username",
        "is for basic authentication, which API servers do not have: write a token or a client certificate",
    ),
    (
        "password",
        "is for basic authentication, which API servers do not have: write a token or a client certificate",
    ),
];

/// What is wrong with a kubeconfig; who wrote it can fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct KubeconfigFault {
    /// Where, for example `users[0].user.exec`.
    pub field: String,
    /// The rule and what to do; reads on from the field.
    pub rule: String,
}

/// One entry of a list of named things.
struct Entry<'a> {
    /// `users[0].user`
    field: String,
    fields: &'a Map<String, Value>,
}

/// Reads the current context of a kubeconfig. Asks the API server nothing.
///
/// # Errors
/// The first thing that is wrong with the context, its cluster or its user; others are not looked at.
pub async fn read(bytes: &[u8]) -> Result<Config, KubeconfigFault> {
    if bytes.len() > KUBECONFIG_BYTES_MAX {
        return Err(fault(
            "kubeconfig",
            format!("is larger than {KUBECONFIG_BYTES_MAX} bytes: leave other clusters out"),
        ));
    }
    let unreadable =
        || fault("kubeconfig", "is not YAML of clusters, users and contexts: write it as kubectl does");
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable())?;
    // Without the parser's reason, which may quote what is there.
    let document: Value = serde_saphyr::from_str(text).map_err(|_| unreadable())?;
    let current = document.get("current-context").and_then(Value::as_str).filter(|name| !name.is_empty());
    let current =
        current.ok_or_else(|| fault("current-context", "is missing: name the context that is meant"))?;
    let context = entry(&document, ("contexts", "context"), ("current-context", current))?;
    let cluster = named(&document, &context, ("clusters", "cluster"))?;
    let user = named(&document, &context, ("users", "user"))?;
    check_fields(&cluster, &CLUSTER_FIELDS)?;
    check_fields(&user, &USER_FIELDS)?;
    check_server(&cluster)?;
    check_credentials(&user)?;
    if cluster.text("certificate-authority-data").is_none() {
        let rule = "is missing: write the certificates of the authority that signed the API server's";
        return Err(cluster.fault("certificate-authority-data", rule));
    }
    let kubeconfig: Kubeconfig = serde_json::from_value(document.clone()).map_err(|_| unreadable())?;
    let options = KubeConfigOptions { context: Some(current.to_owned()), ..KubeConfigOptions::default() };
    // All that is left to fail is what the certificates hold.
    let unusable = |_| {
        cluster.fault("certificate-authority-data", "holds no certificates: write them as PEM, in base64")
    };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable)
}

fn fault(field: &str, rule: impl Into<String>) -> KubeconfigFault {
    KubeconfigFault { field: field.to_owned(), rule: rule.into() }
}

/// What a context names.
fn named<'a>(
    document: &'a Value,
    context: &Entry<'_>,
    (list, kind): (&str, &str),
) -> Result<Entry<'a>, KubeconfigFault> {
    let Some(name) = context.text(kind) else { return Err(context.fault(kind, "is missing: name one")) };
    entry(document, (list, kind), (&format!("{}.{kind}", context.field), name))
}

/// The first entry of a name, as kubectl takes it; `said` is where the name is, and the name.
fn entry<'a>(
    document: &'a Value,
    (list, kind): (&str, &str),
    said: (&str, &str),
) -> Result<Entry<'a>, KubeconfigFault> {
    let entries = document.get(list).and_then(Value::as_array).into_iter().flatten();
    let found =
        entries.enumerate().find(|(_, entry)| entry.get("name").and_then(Value::as_str) == Some(said.1));
    let found = found.and_then(|(index, entry)| Some((index, entry.get(kind)?.as_object()?)));
    match found {
        Some((index, fields)) => Ok(Entry { field: format!("{list}[{index}].{kind}"), fields }),
        None => Err(fault(said.0, format!("names none of {list}: write that one, or name another"))),
    }
}

fn check_fields(entry: &Entry<'_>, allowed: &[&str]) -> Result<(), KubeconfigFault> {
    for (name, value) in entry.fields {
        let is_off = name == "insecure-skip-tls-verify" && value == &Value::Bool(false);
        if value.is_null() || is_off || allowed.contains(&name.as_str()) {
            continue;
        }
        let rule = REFUSED.iter().find(|(refused, _)| refused == name);
        let rule = rule.map_or("is not a field that is read here: remove it", |(_, rule)| rule);
        // An unknown name is not repeated: it could be anything, a token that slipped among the names included.
        let name = if REFUSED.iter().any(|(refused, _)| refused == name) { name } else { "(a field)" };
        return Err(entry.fault(name, rule));
    }
    Ok(())
}

fn check_server(cluster: &Entry<'_>) -> Result<(), KubeconfigFault> {
    let Some(server) = cluster.text("server") else {
        return Err(cluster.fault("server", "is missing: write the URL of the API server"));
    };
    let uri = server.parse::<Uri>().ok();
    let is_https = uri.as_ref().and_then(Uri::scheme_str) == Some("https");
    let is_plain = uri.and_then(|uri| uri.authority().map(|authority| !authority.as_str().contains('@')));
    match (is_https, is_plain) {
        (true, Some(true)) => Ok(()),
        (false, _) => Err(cluster
            .fault("server", "is not an https:// URL: without TLS anybody could answer for the cluster")),
        (true, _) => {
            Err(cluster.fault("server", "is not the URL of a host and port: write https://HOST:PORT"))
        }
    }
}

fn check_credentials(user: &Entry<'_>) -> Result<(), KubeconfigFault> {
    let certificate = (user.text("client-certificate-data"), user.text("client-key-data"));
    match (user.text("token"), certificate) {
        (Some(token), _) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(user.fault("token", "is not a token: it has characters that no header can have"))
        }
        (_, (Some(_), None)) => {
            Err(user.fault("client-key-data", "is missing beside client-certificate-data"))
        }
        (_, (None, Some(_))) => {
            Err(user.fault("client-certificate-data", "is missing beside client-key-data"))
        }
        (None, (None, None)) => {
            Err(user.fault("token", "is missing: write one, or client-certificate-data and client-key-data"))
        }
        _ => Ok(()),
    }
}

impl Entry<'_> {
    /// What a field holds, unless that is nothing.
    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn fault(&self, name: &str, rule: &str) -> KubeconfigFault {
        fault(&format!("{}.{name}", self.field), rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What must be in no sentence.
    const SECRET: &str = "c2VjcmV0LXRoYXQtbm9ib2R5LXNlZXM";

    fn authority() -> String {
        let made = rcgen::generate_simple_self_signed(["cluster.example".to_owned()]).expect("a certificate");
        // As kubectl writes it; there is no other use of base64 here.
        let pem = serde_json::to_value(k8s_openapi::ByteString(made.cert.pem().into_bytes()));
        pem.expect("text").as_str().expect("text").to_owned()
    }

    fn kubeconfig() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "east",
            "clusters": [
                { "name": "other", "cluster": { "server": "http://other.example" } },
                { "name": "c", "cluster": { "server": "https://east.example:6443", "certificate-authority-data": authority() } },
            ],
            "users": [
                { "name": "other", "user": { "exec": { "command": "sh" } } },
                { "name": "u", "user": { "token": SECRET } },
            ],
            "contexts": [{ "name": "east", "context": { "cluster": "c", "user": "u", "namespace": "n" } }],
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut document = kubeconfig();
        let (parent, name) = path.rsplit_once('/').expect("a path");
        let parent = document.pointer_mut(parent).expect("it is there").as_object_mut().expect("fields");
        match value {
            Value::Null => drop(parent.remove(name)),
            value => drop(parent.insert(name.to_owned(), value)),
        }
        document
    }

    async fn refused(document: &Value) -> String {
        let fault = read(document.to_string().as_bytes()).await.expect_err("refused").to_string();
        assert!(!fault.contains(SECRET), "{fault}");
        fault
    }

    #[tokio::test]
    async fn a_kubeconfig_with_all_that_is_needed_is_read_and_other_contexts_are_not_looked_at() {
        let config = read(kubeconfig().to_string().as_bytes()).await.expect("it is right");
        assert_eq!(config.cluster_url.to_string(), "https://east.example:6443/");
        assert!(config.root_cert.is_some() && !config.accept_invalid_certs);
        assert!(!format!("{config:?}").contains(SECRET), "a token is not shown");
        for (path, value) in [
            ("/users/1/user/extensions", json!([])),
            ("/clusters/1/cluster/tls-server-name", json!("kubernetes")),
            ("/clusters/1/cluster/insecure-skip-tls-verify", json!(false)),
            ("/clusters/1/cluster/certificate-authority", Value::Null),
        ] {
            assert!(read(with(path, value).to_string().as_bytes()).await.is_ok(), "{path}");
        }
        let certificate = json!({ "client-certificate-data": SECRET, "client-key-data": SECRET });
        assert!(read(with("/users/1/user", certificate).to_string().as_bytes()).await.is_ok());
    }

    #[tokio::test]
    async fn what_could_do_more_than_prove_who_asks_is_refused_by_its_name() {
        let (user, cluster) = ("/users/1/user", "/clusters/1/cluster");
        for (parent, name, value, sentence) in [
            (user, "exec", json!({ "command": "sh", "args": [SECRET] }), "would run a program"),
            (user, "auth-provider", json!({ "name": "gcp" }), "would run code of a provider"),
            (
                user,
                "tokenFile",
                json!("/etc/passwd"),
                "names a file of another machine: write what it holds as token",
            ),
            (user, "client-certificate", json!("/a"), "names a file"),
            (user, "client-key", json!("/a"), "names a file"),
            (user, "as", json!("system:admin"), "asks in the name of somebody else"),
            (user, "as-uid", json!("1"), "asks in the name of somebody else"),
            (user, "as-groups", json!(["system:masters"]), "asks in the name of others"),
            (user, "as-user-extra", json!({ "a": ["b"] }), "asks in the name of others"),
            (user, "username", json!("admin"), "is for basic authentication"),
            (user, "password", json!(SECRET), "is for basic authentication"),
            (cluster, "certificate-authority", json!("/a"), "names a file"),
            (cluster, "insecure-skip-tls-verify", json!(true), "would let anybody answer"),
            (cluster, "insecure-skip-tls-verify", json!("false"), "would let anybody answer"),
            (cluster, "proxy-url", json!("http://127.0.0.1:1"), "leads through a proxy"),
        ] {
            let refused = refused(&with(&format!("{parent}/{name}"), value)).await;
            let field = if parent == user { "users[1].user" } else { "clusters[1].cluster" };
            assert!(
                refused.starts_with(&format!("{field}.{name} ")) && refused.contains(sentence),
                "{refused}"
            );
        }
        let unknown = refused(&with(&format!("{user}/{SECRET}"), json!("x"))).await;
        assert_eq!(unknown, "users[1].user.(a field) is not a field that is read here: remove it");
        assert!(
            refused(&with("/clusters/1/cluster/new-field", json!("x")))
                .await
                .contains("not a field that is read")
        );
    }

    #[tokio::test]
    async fn what_is_missing_or_leads_nowhere_is_named() {
        let (user, cluster) = ("/users/1/user", "/clusters/1/cluster");
        let at = |parent: &str, name: &str, value: Value| with(&format!("{parent}/{name}"), value);
        for (document, sentence) in [
            (at("", "current-context", Value::Null), "current-context is missing"),
            (at("", "current-context", json!("")), "current-context is missing"),
            (at("", "current-context", json!("west")), "current-context names none of contexts"),
            (
                at("/contexts/0/context", "cluster", json!("west")),
                "contexts[0].context.cluster names none of clusters",
            ),
            (
                at("/contexts/0/context", "user", json!("west")),
                "contexts[0].context.user names none of users",
            ),
            (at("/contexts/0/context", "user", Value::Null), "contexts[0].context.user is missing"),
            (at(cluster, "server", Value::Null), "clusters[1].cluster.server is missing"),
            (
                at(cluster, "server", json!("http://east.example")),
                "clusters[1].cluster.server is not an https:// URL",
            ),
            (
                at(cluster, "server", json!("east.example:6443")),
                "clusters[1].cluster.server is not an https:// URL",
            ),
            (
                at(cluster, "server", json!("https://a:b@east.example")),
                "clusters[1].cluster.server is not the URL of a host",
            ),
            (at(cluster, "certificate-authority-data", Value::Null), "certificate-authority-data is missing"),
            (
                at(cluster, "certificate-authority-data", json!("%%")),
                "certificate-authority-data holds no certificates",
            ),
            (at(user, "token", Value::Null), "users[1].user.token is missing: write one, or client"),
            (at(user, "token", json!("a b")), "users[1].user.token is not a token"),
            (at(user, "token", json!("a\nX-Header: b")), "users[1].user.token is not a token"),
            (
                at(user, "client-key-data", json!(SECRET)),
                "users[1].user.client-certificate-data is missing beside",
            ),
            (
                at(user, "client-certificate-data", json!(SECRET)),
                "users[1].user.client-key-data is missing beside",
            ),
            (json!([SECRET]), "current-context is missing"),
            (json!(SECRET), "current-context is missing"),
        ] {
            let refused = refused(&document).await;
            assert!(refused.contains(sentence), "{refused}: {sentence}");
        }
        for broken in ["\u{0}", ": :", "a: [", &format!("a: {SECRET}\n  b: c")] {
            let fault = read(broken.as_bytes()).await.expect_err("refused").to_string();
            assert!(!fault.contains(SECRET), "{fault}");
        }
        assert!(read(&[0xff]).await.expect_err("refused").rule.starts_with("is not YAML"));
    }

    #[tokio::test]
    async fn a_kubeconfig_has_a_limit() {
        let text = kubeconfig().to_string();
        let padded = |bytes: usize| format!("{text}{}", " ".repeat(bytes - text.len()));
        assert!(read(padded(KUBECONFIG_BYTES_MAX).as_bytes()).await.is_ok());
        let past = read(padded(KUBECONFIG_BYTES_MAX + 1).as_bytes()).await.expect_err("refused");
        assert_eq!(past.rule, "is larger than 65536 bytes: leave other clusters out");
    }
}
