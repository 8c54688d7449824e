//! Flags of `weir-controller`: how the stream to proxies is protected, and which proxies may see what.

use crate::duration;
use crate::exit::Failure;
use anyhow::{Context as _, anyhow};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use weir_controller::cluster::Cluster;
use weir_controller::push::{Asked, Files, Pods, Protection, Security};

/// Shortest age of a stream: each end of one is a TLS handshake and a question to the API server.
pub const STREAM_AGE_MIN: Duration = Duration::from_secs(1);

/// The stream to proxies. `docs/security.md` has the table of what these flags add up to.
#[derive(Debug, Clone, clap::Args)]
pub struct SecurityArgs {
    /// This controller's certificate chain as PEM, leaf first; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "WEIR_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "WEIR_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// PEM certificates of the authorities that sign proxies' certificates; read again when it changes
    #[arg(long, value_name = "FILE", env = "WEIR_CLIENT_CA")]
    client_ca: Option<PathBuf>,
    /// Audience that proxies' ServiceAccount tokens must be made for
    #[arg(long, value_name = "TEXT", default_value = "weir.dev/controller", env = "WEIR_TOKEN_AUDIENCE")]
    token_audience: String,
    /// Proxies in this namespace may serve the pools of every namespace; repeatable [default: the controller's own]
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', env = "WEIR_GATEWAY_NAMESPACES")]
    gateway_namespace: Vec<String>,
    /// A proxy proves who it is again after this long, and a little earlier
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = stream_age)]
    stream_age_max: Duration,
    /// Let proxies on other machines dial although the stream is not encrypted
    #[arg(long)]
    allow_plaintext: bool,
}

impl SecurityArgs {
    /// What can be said of the flags before a file is opened.
    ///
    /// # Errors
    /// A sentence for who started the process.
    pub fn check(&self, listen: SocketAddr, is_cluster: bool) -> anyhow::Result<()> {
        self.protection(listen, is_cluster).map(drop)
    }

    /// What the flags add up to for a controller that listens on `listen`. `cluster` is `None` where manifests come
    /// from a folder.
    ///
    /// # Errors
    /// [`Failure::Usage`] where they would give away what the stream carries; [`Failure::Failed`] when a file cannot
    /// be used.
    pub fn security(&self, listen: SocketAddr, cluster: Option<&Cluster>) -> Result<Security, Failure> {
        let protection = self.protection(listen, cluster.is_some()).map_err(Failure::Usage)?;
        let namespaces = self.gateway_namespaces(cluster);
        let security = match (self.files(), cluster) {
            (Some(files), Some(cluster)) if protection.asks_for_pods() => {
                Security::tls_for_pods(files, Pods::new(cluster.client.clone(), self.token_audience.clone()))
            }
            (Some(files), _) => Security::tls(files),
            (None, _) => Ok(Security::plaintext()),
        };
        let security = security.context("cannot serve proxies over TLS").map_err(Failure::Failed)?;
        tracing::info!(?protection, gateway_namespaces = ?namespaces, "the stream to proxies");
        Ok(security.with_gateway_namespaces(namespaces).with_stream_age_max(self.stream_age_max))
    }

    /// Whether the port has TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls_cert.is_some()
    }

    fn protection(&self, listen: SocketAddr, is_cluster: bool) -> anyhow::Result<Protection> {
        let asked = Asked {
            is_cluster,
            is_loopback: listen.ip().is_loopback(),
            has_certificate: self.tls_cert.is_some(),
            has_client_ca: self.client_ca.is_some(),
            allows_plaintext: self.allow_plaintext,
        };
        Protection::choose(asked).map_err(|unprotected| anyhow!("--listen {listen}: {unprotected}"))
    }

    fn files(&self) -> Option<Files> {
        // clap asks for both or neither.
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(Files { certificate, key, client_ca: self.client_ca.clone() })
    }

    fn gateway_namespaces(&self, cluster: Option<&Cluster>) -> BTreeSet<String> {
        if self.gateway_namespace.is_empty() {
            return cluster.map(|cluster| cluster.namespace.clone()).into_iter().collect();
        }
        self.gateway_namespace.iter().cloned().collect()
    }
}

fn stream_age(text: &str) -> Result<Duration, String> {
    let age = duration::parse(text)?;
    if age < STREAM_AGE_MIN {
        return Err(format!(
            "`{text}` is too short: a stream lives for {} s at least",
            STREAM_AGE_MIN.as_secs()
        ));
    }
    Ok(age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches as _};

    fn parse(flags: &[&str]) -> Result<SecurityArgs, clap::Error> {
        let command = SecurityArgs::augment_args(Command::new("weir-controller"));
        let matches = command.try_get_matches_from([&["weir-controller"], flags].concat())?;
        SecurityArgs::from_arg_matches(&matches)
    }

    fn protection(listen: &str, flags: &[&str]) -> Result<Protection, String> {
        let listen = listen.parse().expect("an address");
        parse(flags).expect("parsed").protection(listen, false).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_that_others_reach_needs_tls_or_consent() {
        assert_eq!(protection("127.0.0.1:9901", &[]), Ok(Protection::Plaintext));
        assert_eq!(protection("[::1]:9901", &[]), Ok(Protection::Plaintext));
        let refused = protection("0.0.0.0:9901", &[]).expect_err("refused");
        assert!(refused.contains("0.0.0.0:9901") && refused.contains("private keys"), "{refused}");
        assert!(refused.contains("--tls-cert") && refused.contains("--allow-plaintext"), "{refused}");
        assert_eq!(protection("10.0.0.1:9901", &["--allow-plaintext"]), Ok(Protection::Plaintext));
        let tls = ["--tls-cert", "a.crt", "--tls-key", "a.key"];
        let refused = protection("10.0.0.1:9901", &tls).expect_err("refused");
        assert!(refused.contains("--client-ca"), "{refused}");
        let mutual = [&tls[..], &["--client-ca", "ca.crt"]].concat();
        assert_eq!(protection("10.0.0.1:9901", &mutual), Ok(Protection::Certificate));
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        assert!(parse(&["--tls-cert", "a.crt"]).is_err());
        assert!(parse(&["--tls-key", "a.key"]).is_err());
    }

    #[test]
    fn gateway_namespaces_are_the_named_ones_or_none_without_a_cluster() {
        let named = |flags: &[&str]| parse(flags).expect("parsed").gateway_namespaces(None);
        assert!(named(&[]).is_empty());
        let two = named(&["--gateway-namespace", "edge", "--gateway-namespace", "inner"]);
        assert_eq!(two.into_iter().collect::<Vec<_>>(), ["edge", "inner"]);
    }

    #[test]
    fn a_stream_lives_for_a_second_at_least() {
        assert_eq!(stream_age("1s"), Ok(STREAM_AGE_MIN));
        assert!(stream_age("999ms").is_err_and(|refusal| refusal.contains("999ms")));
    }
}
