//! Two controllers, each a pod with a token of its own, and proxies that dial either.

use super::fleet::{AUDIENCE, CONTROLLER, Fleet, with_token};
use super::site::{Site, load, wait_for_more};
use super::static_pool;
use std::net::SocketAddr;
use std::path::Path;
use weir_dial::{Credentials, Dialer, Random, Target};
use weir_proto::push::replica_message::Body;
use weir_proto::push::replicas_client::ReplicasClient;
use weir_proto::push::{PoolReport, ReplicaHello, ReplicaMessage};
use weir_tests::harness::certificates;
use weir_tests::harness::cluster::Cluster;
use weir_tests::harness::controller::Controller;
use weir_tests::harness::services::{Samples, Service};
use weir_tests::harness::{client, ports, tools, wait};

/// Shorter than the defaults, so that a dead holder is replaced in seconds.
const LEASE: [&str; 6] = ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry", "500ms"];

/// A replica as the pod of this name, which shows the pod's token to the others.
fn replica(site: &Site<'_>, fleet: &Fleet<'_>, name: &str) -> Controller {
    replica_on(site, fleet, name, ports::free())
}

/// The same on this port.
fn replica_on(site: &Site<'_>, fleet: &Fleet<'_>, name: &str, push: u16) -> Controller {
    replica_with(site, fleet, name, push, &[])
}

/// The same with more flags.
pub(crate) fn replica_with(
    site: &Site<'_>,
    fleet: &Fleet<'_>,
    name: &str,
    push: u16,
    flags: &[&str],
) -> Controller {
    let pod = site.system.pod(name, "weir-controller", &[]);
    let token = fleet.token_file(&pod, &site.system.token("weir-controller", name, AUDIENCE));
    let command = fleet.controller(&site.kubeconfig).watching(&site.shop).listening(push);
    let command =
        command.flags(LEASE).flags(flags).flags(["--pod-name", name, "--controller-name", CONTROLLER]);
    command.flags(["--controller-ca".as_ref(), fleet.ca.as_os_str()]).flags(with_token(&token)).start()
}

/// A proxy as a pod, at these controllers.
pub(crate) fn proxy(
    site: &Site<'_>,
    fleet: &Fleet<'_>,
    name: &str,
    controllers: &[&Controller],
) -> (SocketAddr, Service) {
    let pod = site.system.pod(name, "weir-proxy", &[]);
    let token = fleet.token_file(&pod, &site.system.token("weir-proxy", name, AUDIENCE));
    let urls = controllers.iter().map(|controller| format!("https://{}", client::local(controller.push)));
    let proxy = fleet.proxy_of(&pod, urls, &with_token(&token));
    ((pod.address, 0).into(), proxy)
}

/// Waits until this replica holds the Lease.
pub(crate) fn wait_for_holder(site: &Site<'_>, name: &str) {
    wait::patiently(&format!("{name} should hold the Lease"), || {
        let found = site.system.try_kubectl(&["get", "lease", "weir-controller", "--output=json"], "");
        let lease: serde_json::Value = serde_json::from_slice(&found.stdout).ok()?;
        let holder = lease["spec"]["holderIdentity"].as_str()?;
        holder.starts_with(&format!("{name}@")).then_some(())
    });
}

#[test]
fn when_the_leader_is_killed_under_load_no_request_fails_and_status_goes_on_from_the_other() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let fleet = Fleet::new(&site.system, site.push);
    let first = replica(&site, &fleet, "controller-0");
    wait_for_holder(&site, "controller-0");
    let second = replica(&site, &fleet, "controller-1");
    let (address, _one) = proxy(&site, &fleet, "proxy-0", &[&first]);
    let (_, _two) = proxy(&site, &fleet, "proxy-1", &[&second]);
    let (_, _either) = proxy(&site, &fleet, "proxy-2", &[&first, &second]);
    let server = SocketAddr::new(address.ip(), ports::free());
    site.deploy(server);
    site.wait_for_row(["2/2", "3/3", "Programmed"]);
    let load = load(server);

    let push = first.push;
    first.service.process.kill();
    wait_for_more(&load);
    wait_for_holder(&site, "controller-1");
    // Its proxies count no more, but for the one that has dialled the other replica.
    site.wait_for_row(["2/2", "2/2", "Programmed"]);
    site.scale(3);
    site.wait_for_row(["3/3", "2/2", "Programmed"]);
    wait_for_more(&load);

    // A third one comes, and brings back the proxy that had no other.
    let third = replica_on(&site, &fleet, "controller-2", push);
    site.wait_for_row(["3/3", "3/3", "Programmed"]);
    second.service.process.terminate();
    wait_for_holder(&site, "controller-2");
    site.scale(1);
    site.wait_for_row(["1/1", "2/2", "Programmed"]);
    wait_for_more(&load);
    load.assert_no_failure();
    drop(third);
}

#[test]
fn a_proxy_cannot_report_as_a_replica_does() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let fleet = Fleet::new(&site.system, site.push);
    let controller = replica(&site, &fleet, "controller-0");
    site.shop.apply(&static_pool("shop", ports::free(), &[1]));
    wait_for_holder(&site, "controller-0");
    let report = |account: &str, name: &str| {
        let _ = site.system.pod(name, account, &[]);
        let file = cluster.file(&format!("{}-{name}.token", site.system.name));
        std::fs::write(&file, site.system.token(account, name, AUDIENCE)).expect("a file");
        report(controller.push, &fleet.ca, &file)
    };
    let refused = report("weir-proxy", "proxy-0").expect_err("it is no replica");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().contains("run as the ServiceAccount of this one"), "{refused}");
    report("weir-controller", "controller-7").expect("it is a replica, whatever its Hello says");
}

/// Tells of nine proxies, and hears whether that was taken.
fn report(push: u16, ca: &Path, token: &Path) -> Result<(), tonic::Status> {
    let credentials = Credentials {
        ca: Some(ca.into()),
        name: Some(CONTROLLER.into()),
        token: Some(token.into()),
        client: None,
    };
    let target = Target::new(&format!("https://{}", client::local(push)), credentials).expect("a URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let link = Dialer::from(target).dial(&mut Random::default()).await.expect("it is there");
        let hello = ReplicaHello { replica_id: "controller-0".into(), version: "0".into() };
        let told = PoolReport { pool: "shop/shop".into(), proxies: 9, ..PoolReport::default() };
        let messages = [Body::Hello(hello), Body::Pool(told)].map(|body| ReplicaMessage { body: Some(body) });
        let mut client = ReplicasClient::new(link.channel());
        client.report(link.request(futures_util::stream::iter(messages))).await.map(|_| ())
    })
}

#[test]
fn a_tls_session_of_one_proxy_is_resumed_at_another() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster);
    let fleet = Fleet::new(&site.system, site.push);
    let first = replica(&site, &fleet, "controller-0");
    wait_for_holder(&site, "controller-0");
    let second = replica(&site, &fleet, "controller-1");
    let secret = certificates::secret("shop-tls", "shop.example", &["shop.example"]);
    site.shop.apply(&secret.replace(", namespace: default", ""));
    site.shop.let_controller_read("shop-tls", &site.system);
    let (samples, port) = (Samples::start("web", 1), ports::free());
    let pool = static_pool("shop", port, &samples.ports);
    let tls = "protocol: HTTPS, tls: { certificateRefs: [{ name: shop-tls }] } }";
    site.shop.apply(&pool.replace("protocol: HTTP }", tls));
    let proxies = [proxy(&site, &fleet, "proxy-0", &[&first]), proxy(&site, &fleet, "proxy-1", &[&second])];
    let [here, there] = proxies.each_ref().map(|(address, _)| format!("{}:{port}", address.ip()));
    let session = cluster.file(&format!("{}-session", site.system.name)).display().to_string();
    wait::patiently("the keys should have reached both proxies", || {
        let shown = |server: &str, flag: &str| {
            let hello = ["s_client", "-tls1_2", "-servername", "shop.example", "-connect", server];
            let [a, b, c, d, e, f] = hello;
            let said = tools::run("openssl", [a, b, c, d, e, f, flag, &session]);
            String::from_utf8_lossy(&said.stdout).into_owned()
        };
        let new = shown(&here, "-sess_out");
        (new.contains("New, TLSv1.2") && shown(&there, "-sess_in").contains("Reused, TLSv1.2")).then_some(())
    });
}
