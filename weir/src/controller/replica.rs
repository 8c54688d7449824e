//! Flags of one of several replicas: the Lease, what they tell each other, and the keys that proxies share.

use crate::dialing::CredentialArgs;
use crate::duration;
use anyhow::{Context as _, bail};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_controller::cluster::Cluster;
use weir_controller::keys::{Keeper, Ring};
use weir_controller::lease::{Candidate, Holder, Leader, Leadership, Timing};
use weir_controller::replicas::{Peers, Reporter};
use weir_controller::store::{Store, random_epoch};

/// How this replica stands to the others.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplicaArgs {
    /// Lease in the controller's namespace; the replica that holds it writes status
    #[arg(long, value_name = "NAME", default_value = "weir-controller", env = "WEIR_LEASE_NAME")]
    lease_name: String,
    /// How long replicas wait for a holder that gives no sign of life
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    lease_duration: Duration,
    /// A holder that could not renew the Lease for this long stops writing
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    lease_renew_deadline: Duration,
    /// Time between two attempts to renew or to get the Lease
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    lease_retry: Duration,
    /// This is the only controller: it takes no Lease and always writes
    #[arg(long)]
    no_lease: bool,
    /// Where other replicas reach this one [default: POD_IP with the port of --listen]
    #[arg(long, value_name = "ADDRESS:PORT", env = "WEIR_ADVERTISE")]
    advertise: Option<SocketAddr>,
    /// Address of this pod
    #[arg(long, value_name = "ADDRESS", env = "POD_IP", hide = true)]
    pod_ip: Option<IpAddr>,
    /// Time between two changes of the keys that proxies share for TLS sessions
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = duration::parse)]
    key_rotation: Duration,
    // Towards the replica that holds the Lease. The same flags as a proxy's, since it dials the same port.
    #[command(flatten)]
    credentials: CredentialArgs,
}

/// Which replica this is.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Of the pod; unique among the replicas.
    pub name: &'a str,
    /// Where proxies dial.
    pub listen: SocketAddr,
    /// Whether that port has TLS, here and at the other replicas.
    pub is_tls: bool,
}

/// A replica among others.
#[derive(Debug)]
pub struct Replica {
    leadership: Leadership,
    keeper: Keeper,
    store: Arc<Store>,
    /// `None` where the other replicas cannot be dialled.
    reporter: Option<Reporter>,
}

impl Replica {
    /// Whether this replica may write.
    #[must_use]
    pub fn may_write(&self) -> watch::Receiver<bool> {
        self.leadership.may_write()
    }

    /// Runs until `shutdown` completes, and then gives the Lease back. To be waited for before the process ends.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let ring = self.keeper.ring();
        let report = async {
            if let Some(reporter) = self.reporter {
                reporter.run().await;
            }
        };
        let sharing = share(self.leadership.leader(), &self.store);
        let others = async {
            let keys = self.keeper.run(std::future::pending());
            tokio::join!(keys, hand_on(ring, &self.store), report, sharing);
        };
        tokio::select! {
            () = self.leadership.run(shutdown) => {}
            () = others => {}
        }
    }
}

/// Gives proxies their shares of limits while this replica holds the Lease.
async fn share(mut leader: watch::Receiver<Leader>, store: &Store) {
    loop {
        if leader.borrow_and_update().is_me {
            // Another tenure is another allocator: what proxies have is to be heard anew.
            store.desk().give(random_epoch(), Instant::now().into_std());
        } else {
            store.desk().ask();
        }
        if leader.changed().await.is_err() {
            return;
        }
    }
}

/// From the Secret to the streams.
async fn hand_on(mut ring: watch::Receiver<Option<Arc<Ring>>>, store: &Store) {
    while ring.changed().await.is_ok() {
        if let Some(ring) = ring.borrow_and_update().clone() {
            store.use_ring(ring);
        }
    }
}

impl ReplicaArgs {
    /// Checks the flags and prepares everything; nothing is asked of the API server before [`Replica::run`].
    ///
    /// # Errors
    /// A sentence on the flag that is wrong.
    pub fn replica(&self, cluster: &Cluster, own: Own<'_>, store: &Arc<Store>) -> anyhow::Result<Replica> {
        let me = Holder { name: own.name.into(), address: self.advertised(own.listen)? };
        let timing = self.timing()?;
        let leadership = if self.no_lease {
            Leadership::alone(me)
        } else {
            let (namespace, lease) = (cluster.namespace.clone(), self.lease_name.clone());
            Leadership::campaign(cluster.client.clone(), Candidate { namespace, lease, me, timing })
        };
        let may_write = leadership.may_write();
        let reporter = self.reporter(own, &leadership, store)?;
        let keeper = Keeper::new(cluster.client.clone(), &cluster.namespace, self.key_rotation, may_write);
        Ok(Replica { leadership, keeper, store: Arc::clone(store), reporter })
    }

    /// What tells the holder of this replica's proxies.
    fn reporter(
        &self,
        own: Own<'_>,
        leadership: &Leadership,
        store: &Arc<Store>,
    ) -> anyhow::Result<Option<Reporter>> {
        if self.no_lease {
            return Ok(None);
        }
        if own.is_tls && self.credentials.lacks_authorities() {
            tracing::warn!(
                "without --controller-ca this replica cannot tell others of its proxies: while another replica holds \
                 the Lease, status does not count them. Give it, with --token-file, or say --no-lease if this is the \
                 only replica"
            );
            return Ok(None);
        }
        let peers = Peers::new(own.is_tls, self.credentials.clone().into())
            .context("cannot dial other replicas, at the addresses that the Lease names")?;
        let (me, leader) = (own.name.into(), leadership.leader());
        Ok(Some(Reporter { me, store: Arc::clone(store), leader, peers }))
    }

    fn timing(&self) -> anyhow::Result<Timing> {
        Timing::new(self.lease_duration, self.lease_renew_deadline, self.lease_retry)
            .context("--lease-duration, --lease-renew-deadline and --lease-retry do not fit together")
    }

    /// What the Lease says of where this replica is.
    fn advertised(&self, listen: SocketAddr) -> anyhow::Result<SocketAddr> {
        let address = match (self.advertise, self.pod_ip) {
            (Some(address), _) => address,
            (None, Some(ip)) => SocketAddr::new(ip, listen.port()),
            (None, None) => listen,
        };
        if address.ip().is_unspecified() && !self.no_lease {
            bail!(
                "--listen {listen} is no address that other replicas could dial: set POD_IP from status.podIP, or \
                 say --advertise ADDRESS:PORT, or --no-lease if this is the only replica"
            );
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Args {
        #[command(flatten)]
        replica: ReplicaArgs,
    }

    fn parse(flags: &[&str]) -> ReplicaArgs {
        Args::parse_from([&["weir-controller"], flags].concat()).replica
    }

    #[test]
    fn an_address_that_others_can_dial_is_found_or_asked_for() {
        let listen = "0.0.0.0:9901".parse().expect("an address");
        let advertised = |flags: &[&str]| parse(flags).advertised(listen).map(|address| address.to_string());
        assert_eq!(advertised(&["--pod-ip", "10.0.0.7"]).expect("found"), "10.0.0.7:9901");
        let both = ["--pod-ip", "10.0.0.7", "--advertise", "[fd00::7]:1"];
        assert_eq!(advertised(&both).expect("said"), "[fd00::7]:1");
        let refused = advertised(&[]).expect_err("nobody can dial 0.0.0.0").to_string();
        assert!(refused.contains("POD_IP") && refused.contains("--advertise"), "{refused}");
        assert!(advertised(&["--no-lease"]).is_ok());
        let loopback = "127.0.0.1:9901".parse().expect("an address");
        assert_eq!(parse(&[]).advertised(loopback).expect("on one machine"), loopback);
    }

    #[test]
    fn durations_that_do_not_fit_name_their_flags() {
        let flags = ["--lease-duration", "5s"];
        let timing = parse(&flags).timing().expect_err("the deadline is 10 s").to_string();
        assert!(timing.contains("--lease-renew-deadline"), "{timing}");
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
