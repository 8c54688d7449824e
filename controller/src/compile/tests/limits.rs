//! What a pool says of clients and of paths.

use super::*;
use weir_proto::limits::NO_BODY_PACE;
use weir_proto::push;

fn compiled(listener: &str, spec: &str, rule: &str) -> Result<push::PoolConfig, Vec<String>> {
    let pool = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool\nmetadata: {{name: shop}}\nspec: {{listeners: [{{name: l, \
         port: 80, protocol: HTTP{listener}}}], backendSets: [{{name: web, static: {{backends: []}}}}], \
         rules: [{{backendSets: [{{name: web}}]{rule}}}, {{backendSets: [{{name: web}}]}}]{spec}}}"
    );
    let world = world(&objects(&pool), None);
    match world.pools.get(&key("shop")) {
        Some(pool) => Ok((*pool.config).clone()),
        None => Err(shown(world.rejections.values().flatten())),
    }
}

fn limits(own: &str) -> push::ListenerLimits {
    let config =
        compiled(&format!(", limits: {own}"), "", "").unwrap_or_else(|refused| panic!("{own}: {refused:?}"));
    config.listeners[0].limits.expect("limits")
}

#[test]
fn what_a_listener_says_goes_onto_the_wire_and_what_it_leaves_out_is_left_out() {
    assert_eq!(compiled("", "", "").expect("a pool").listeners[0].limits, None);
    assert_eq!(limits("{}"), push::ListenerLimits::default());
    let all = limits(
        "{uriBytes: 64, headBytes: 1024, headers: 8, streamsPerConnection: 1, resetsPerSecond: 2, \
         controlFramesPerSecond: 10, connections: 3, connectionsPerSource: 4, handshakesPerSourcePerSecond: 5, \
         handshakesAtOnce: 7, handshakesAtOncePerSource: 8, \
         headTimeout: 1s, idleTimeout: 2s, minBodyBytesPerSecond: 6}",
    );
    let expected = push::ListenerLimits {
        uri_bytes_max: 64,
        head_bytes_max: 1_024,
        headers_max: 8,
        streams_max: 1,
        resets_per_second_max: 2,
        control_frames_per_second_max: 10,
        connections_max: 3,
        connections_per_source_max: 4,
        handshakes_per_source_max: 5,
        head_timeout_ms: 1_000,
        idle_timeout_ms: 2_000,
        body_bytes_per_second_min: 6,
        handshakes_at_once_max: 7,
        handshakes_at_once_per_source_max: 8,
    };
    assert_eq!(all, expected);
    assert_eq!(limits("{minBodyBytesPerSecond: 0}").body_bytes_per_second_min, NO_BODY_PACE);
}

#[test]
fn a_limit_out_of_its_range_is_refused_by_name() {
    for (field, least, most) in [
        ("uriBytes", 64, 65_536),
        ("headBytes", 1_024, 65_536),
        ("headers", 8, 100),
        ("streamsPerConnection", 1, 1_000),
        ("resetsPerSecond", 1, 100_000),
        ("controlFramesPerSecond", 10, 1_000_000),
        ("connections", 1, 10_000_000),
        ("connectionsPerSource", 1, 10_000_000),
        ("handshakesPerSourcePerSecond", 1, 100_000),
        ("handshakesAtOnce", 1, 1_000_000),
        ("handshakesAtOncePerSource", 1, 1_000_000),
        ("minBodyBytesPerSecond", 0, 1_000_000),
    ] {
        for within in [least, most] {
            limits(&format!("{{{field}: {within}}}"));
        }
        for past in [least - 1, most + 1] {
            let refused = compiled(&format!(", limits: {{{field}: {past}}}"), "", "").expect_err(field);
            assert!(refused.concat().contains(&format!("spec.listeners[0].limits.{field}")), "{refused:?}");
        }
    }
    for (field, past) in [("headTimeout", "99ms"), ("headTimeout", "3601s"), ("idleTimeout", "0s")] {
        let refused = compiled(&format!(", limits: {{{field}: {past}}}"), "", "").expect_err(field);
        assert!(refused.concat().contains(field), "{refused:?}");
    }
}

#[test]
fn a_rules_limit_for_bodies_goes_before_the_pools() {
    let of = |spec: &str, rule: &str| {
        let config = compiled("", spec, rule).unwrap_or_else(|refused| panic!("{spec} {rule}: {refused:?}"));
        [0, 1].map(|nth: usize| config.rules[nth].request_body_bytes_max)
    };
    assert_eq!(of("", ""), [0, 0]);
    assert_eq!(of(", limits: {requestBodyBytes: 9}", ""), [9, 9]);
    assert_eq!(of(", limits: {requestBodyBytes: 9}", ", limits: {requestBodyBytes: 5}"), [5, 9]);
    assert_eq!(of(", limits: {requestBodyBytes: 9}", ", limits: {requestBodyBytes: 0}"), [0, 9]);
    for past in ["-1", "1125899906842625"] {
        let refused = compiled("", "", &format!(", limits: {{requestBodyBytes: {past}}}")).expect_err(past);
        assert!(refused.concat().contains("spec.rules[0].limits.requestBodyBytes"), "{refused:?}");
    }
}

#[test]
fn a_policy_for_paths_says_all_of_it() {
    let config = compiled(", paths: {doubleSlashes: Keep}", "", "").expect("a pool");
    let paths = config.listeners[0].paths.expect("a policy");
    assert_eq!(paths.dot_segments(), push::DotSegments::Resolve);
    assert_eq!(paths.double_slashes(), push::DoubleSlashes::Keep);
    assert_eq!(paths.encoded_slashes(), push::EncodedSlashes::Refuse);
}
