//! Rules on listeners of layer 4 and the rules that serve them.

use super::{pool, refusals};
use serde_json::{Value, json};

/// The pool with one more listener, `db`, and its rules as they are but for HTTP alone.
fn with_tcp() -> Value {
    let mut made = pool();
    let listeners = made["spec"]["listeners"].as_array_mut().expect("a list");
    let names: Vec<Value> = listeners.iter().map(|listener| listener["name"].clone()).collect();
    listeners.push(json!({"name": "db", "port": 5432, "protocol": "TCP"}));
    let rules = made["spec"]["rules"].as_array_mut().expect("a list");
    rules.iter_mut().for_each(|rule| rule["listeners"] = names.clone().into());
    rules.push(json!({"listeners": ["db"], "backendSets": [{"name": "web"}]}));
    made
}

fn last<'v>(made: &'v mut Value, list: &str) -> &'v mut Value {
    made["spec"][list].as_array_mut().and_then(|list| list.last_mut()).expect("not empty")
}

#[test]
fn what_tcp_has_passes() {
    assert_eq!(refusals(&with_tcp()), Vec::<String>::new());
    for (list, fields) in [
        ("listeners", json!({"limits": {"connections": 9, "connectionsPerSource": 3}})),
        ("listeners", json!({"proxyProtocol": {"trustedCIDRs": ["10.0.0.0/8"]}})),
        ("rules", json!({"timeouts": {"connectionIdle": "1s"}})),
        ("rules", json!({"timeouts": {"connectionIdle": "168h"}})),
        ("rules", json!({"sessionPersistence": {"type": "SourceIP"}, "retry": {"attempts": 1}})),
        (
            "rules",
            json!({"sessionPersistence": {"type": "None"}, "rateLimits": [], "ipRules": {"allow": ["10.0.0.0/8"]}}),
        ),
    ] {
        let mut made = with_tcp();
        let at = last(&mut made, list).as_object_mut().expect("an object");
        at.extend(fields.as_object().expect("an object").clone());
        assert_eq!(refusals(&made), Vec::<String>::new(), "{list} {fields}");
    }
    // A rule that says nothing of requests serves both.
    let mut made = with_tcp();
    made["spec"]["rules"] = json!([{"backendSets": [{"name": "web"}], "timeouts": {"connectionIdle": "2h"}}]);
    assert_eq!(refusals(&made), Vec::<String>::new());
}

#[test]
fn each_wrong_mix_is_refused() {
    let listener = "must not have tls, hostnames, clientAddress, httpsRedirect, hsts or paths";
    let limits = "has the limits connections and connectionsPerSource";
    let requests = "must have nothing that is of requests";
    for (list, fields, expected) in [
        ("listeners", json!({"tls": {"certificateRefs": [{"name": "c"}]}}), listener),
        ("listeners", json!({"hostnames": ["a.example"]}), listener),
        ("listeners", json!({"clientAddress": {"numTrustedHops": 1}}), listener),
        ("listeners", json!({"httpsRedirect": {}}), listener),
        ("listeners", json!({"hsts": {}}), listener),
        ("listeners", json!({"paths": {}}), listener),
        ("listeners", json!({"limits": {"uriBytes": 100}}), limits),
        ("listeners", json!({"limits": {"idleTimeout": "1s"}}), limits),
        ("listeners", json!({"limits": {"handshakesAtOnce": 1}}), limits),
        ("rules", json!({"hostnames": ["a.example"]}), "must not have hostnames"),
        ("rules", json!({"matches": [{"path": {"value": "/a"}}]}), requests),
        ("rules", json!({"filters": [{"type": "CORS", "cors": {"allowOrigins": ["*"]}}]}), requests),
        ("rules", json!({"limits": {"requestBodyBytes": 1}}), requests),
        ("rules", json!({"rateLimits": [{"name": "a", "requests": 1, "key": {"type": "Route"}}]}), requests),
        ("rules", json!({"sessionPersistence": {}}), requests),
        ("rules", json!({"timeouts": {"request": "1s"}}), requests),
        ("rules", json!({"timeouts": {"backendRequest": "1s"}}), requests),
        ("rules", json!({"timeouts": {"idle": "1s"}}), requests),
        ("rules", json!({"timeouts": {"total": "1s"}}), requests),
        ("rules", json!({"retry": {"codes": [503]}}), requests),
        ("rules", json!({"retry": {"hedgeAfter": "1s"}}), requests),
        (
            "rules",
            json!({"backendSets": [{"name": "web", "matches": [{"type": "Header", "name": "x"}]}]}),
            requests,
        ),
        ("rules", json!({"listeners": ["nobody"]}), "must be a name in spec.listeners"),
        (
            "rules",
            json!({"listeners": ["db", "http"], "hostnames": ["a.example"]}),
            "must not have hostnames",
        ),
        ("rules", json!({"timeouts": {"connectionIdle": "999ms"}}), "connectionIdle must be 1s to 168h"),
        ("rules", json!({"timeouts": {"connectionIdle": "169h"}}), "connectionIdle must be 1s to 168h"),
    ] {
        let mut made = with_tcp();
        let at = last(&mut made, list).as_object_mut().expect("an object");
        at.extend(fields.as_object().expect("an object").clone());
        let refusals = refusals(&made);
        assert!(refusals.iter().any(|refusal| refusal.contains(expected)), "{list} {fields}: {refusals:?}");
    }
}

#[test]
fn a_listener_of_tcp_has_one_rule_and_its_time_is_for_no_other() {
    let mut made = with_tcp();
    let rules = made["spec"]["rules"].as_array_mut().expect("a list");
    rules.push(json!({"listeners": ["db"], "backendSets": [{"name": "web"}]}));
    assert!(refusals(&made).iter().any(|refusal| refusal.contains("must have one rule")));
    let mut made = with_tcp();
    made["spec"]["rules"][0]["timeouts"] = json!({"connectionIdle": "1h"});
    let refusals = refusals(&made);
    assert!(
        refusals.iter().any(|refusal| refusal.contains("timeouts.connectionIdle is for rules")),
        "{refusals:?}"
    );
}

/// The pool with the listener `db` of protocol TLS, and this of its `tls`.
fn with_tls(tls: &Value) -> Value {
    let mut made = with_tcp();
    let listener = last(&mut made, "listeners");
    listener["protocol"] = "TLS".into();
    listener["tls"] = tls.clone();
    last(&mut made, "rules")["hostnames"] = json!(["a.example"]);
    made
}

#[test]
fn tls_has_certificates_or_is_passed_on_and_its_rules_have_hostnames() {
    let (own, passed) = (json!({"certificateRefs": [{"name": "c"}]}), json!({"mode": "Passthrough"}));
    for tls in [&own, &passed, &json!({"mode": "Terminate", "certificateRefs": [{"name": "c"}]})] {
        assert_eq!(refusals(&with_tls(tls)), Vec::<String>::new(), "{tls}");
    }
    for (tls, expected) in [
        (json!({}), "tls must have certificateRefs, and must not with mode Passthrough"),
        (json!({"mode": "Terminate"}), "tls must have certificateRefs, and must not with mode Passthrough"),
        (
            json!({"mode": "Passthrough", "certificateRefs": [{"name": "c"}]}),
            "tls must have certificateRefs, and must not with mode Passthrough",
        ),
        (json!({"mode": "Passthrough", "minVersion": "1.3"}), "mode Passthrough must not have minVersion"),
    ] {
        let refusals = refusals(&with_tls(&tls));
        assert!(refusals.iter().any(|refusal| refusal.contains(expected)), "{tls}: {refusals:?}");
    }
    for (list, fields, expected) in [
        ("listeners", json!({"paths": {}}), "protocol TLS must not have clientAddress"),
        ("listeners", json!({"limits": {"headTimeout": "1s"}}), "protocol TLS has limits of connections"),
        ("listeners", json!({"protocol": "HTTPS"}), "tls.mode Passthrough is for protocol TLS"),
        ("rules", json!({"matches": [{"path": {"value": "/a"}}]}), "must have nothing that is of requests"),
    ] {
        let mut made = with_tls(&passed);
        let at = last(&mut made, list).as_object_mut().expect("an object");
        at.extend(fields.as_object().expect("an object").clone());
        let refusals = refusals(&made);
        assert!(refusals.iter().any(|refusal| refusal.contains(expected)), "{list} {fields}: {refusals:?}");
    }
    let mut without = with_tls(&own);
    last(&mut without, "listeners").as_object_mut().expect("an object").remove("tls");
    assert!(refusals(&without).iter().any(|refusal| refusal.contains("those or mode Passthrough")));
}

/// The pool with the listener `db` of protocol UDP, on a port that one of HTTP has.
fn with_udp() -> Value {
    let mut made = with_tcp();
    let listener = last(&mut made, "listeners");
    listener["protocol"] = "UDP".into();
    listener["port"] = 80.into();
    made
}

#[test]
fn udp_has_a_port_of_its_own_and_what_is_of_connections_is_refused() {
    assert_eq!(refusals(&with_udp()), Vec::<String>::new());
    let mut made = with_udp();
    last(&mut made, "rules")["timeouts"] = json!({"flowIdle": "1h"});
    assert_eq!(refusals(&made), Vec::<String>::new());
    for (list, fields, expected) in [
        (
            "listeners",
            json!({"proxyProtocol": {"trustedCIDRs": ["10.0.0.0/8"]}}),
            "protocol UDP must not have proxyProtocol",
        ),
        (
            "listeners",
            json!({"hostnames": ["a.example"]}),
            "protocol TCP or UDP must not have tls, hostnames",
        ),
        ("rules", json!({"hostnames": ["a.example"]}), "must not have hostnames"),
        ("rules", json!({"matches": [{"path": {"value": "/a"}}]}), "must have nothing that is of requests"),
        ("rules", json!({"timeouts": {"flowIdle": "3601s"}}), "flowIdle must be 1s to 1h"),
        (
            "rules",
            json!({"timeouts": {"connectionIdle": "1h"}}),
            "connectionIdle is for rules that serve a listener with protocol TCP or TLS",
        ),
    ] {
        let mut made = with_udp();
        let at = last(&mut made, list).as_object_mut().expect("an object");
        at.extend(fields.as_object().expect("an object").clone());
        let refusals = refusals(&made);
        assert!(refusals.iter().any(|refusal| refusal.contains(expected)), "{list} {fields}: {refusals:?}");
    }
    let mut made = with_tcp();
    made["spec"]["rules"][0]["timeouts"] = json!({"flowIdle": "1s"});
    assert!(refusals(&made).iter().any(|refusal| refusal.contains("flowIdle is for rules that serve")));
}
