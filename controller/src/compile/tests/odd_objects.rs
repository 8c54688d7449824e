//! Services and EndpointSlices as an API server would never let them be: nothing panics, and what comes out can be
//! relied on.

use super::*;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use std::net::SocketAddr;
use weir_proto::limits::{HINTS_MAX, NODE_NAME_BYTES_MAX, ZONE_BYTES_MAX};

fn name() -> impl Strategy<Value = Option<String>> {
    let odd = prop_oneof![
        Just("http".to_owned()),
        Just("metrics".to_owned()),
        Just(String::new()),
        Just("x".repeat(100_000)),
        ".{0,8}"
    ];
    proptest::option::weighted(0.8, odd)
}

fn protocol() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![
        Just("TCP".to_owned()),
        Just("UDP".to_owned()),
        Just("SCTP".to_owned()),
        ".{0,4}"
    ])
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), Just(80), Just(8080), Just(65_535), Just(65_536), Just(-1), any::<i32>()]
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0_u8..4, 0_u8..4).prop_map(|(a, b)| format!("10.0.{a}.{b}")),
        2 => (0_u16..4).prop_map(|a| format!("fd00::{a:x}")),
        1 => Just("fe80::1%eth0".to_owned()),
        1 => Just("9".repeat(100_000)),
        1 => ".{0,12}",
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let condition = || proptest::option::of(any::<bool>());
    let conditions = (condition(), condition(), condition())
        .prop_map(|(ready, serving, terminating)| EndpointConditions { ready, serving, terminating });
    let hints = (proptest::collection::vec(name(), 0..12), proptest::collection::vec(name(), 0..3)).prop_map(
        |(zones, nodes)| EndpointHints {
            for_zones: Some(zones.into_iter().flatten().map(|name| ForZone { name }).collect()),
            for_nodes: Some(nodes.into_iter().flatten().map(|name| ForNode { name }).collect()),
        },
    );
    (
        proptest::collection::vec(address(), 0..3),
        proptest::option::of(conditions),
        name(),
        name(),
        proptest::option::of(hints),
    )
        .prop_map(|(addresses, conditions, zone, node_name, hints)| Endpoint {
            addresses,
            conditions,
            zone,
            node_name,
            hints,
            ..Endpoint::default()
        })
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (name(), proptest::option::of(number()), protocol(), name())
        .prop_map(|(name, port, protocol, app_protocol)| EndpointPort { name, port, protocol, app_protocol });
    let kind = prop_oneof![
        4 => Just("IPv4".to_owned()),
        2 => Just("IPv6".to_owned()),
        1 => Just("FQDN".to_owned()),
        1 => ".{0,4}",
    ];
    (
        kind,
        proptest::option::weighted(0.9, proptest::collection::vec(port, 0..4)),
        proptest::collection::vec(endpoint(), 0..6),
    )
        .prop_map(|(address_type, ports, endpoints)| {
            let labels = [("kubernetes.io/service-name".to_owned(), "web".to_owned())];
            let mut slice = EndpointSlice { address_type, endpoints, ports, ..EndpointSlice::default() };
            slice.metadata.labels = Some(labels.into());
            slice
        })
}

fn any_service() -> impl Strategy<Value = Service> {
    let port = (name(), number(), protocol(), name()).prop_map(|(name, port, protocol, app_protocol)| {
        ServicePort { name, port, protocol, app_protocol, ..ServicePort::default() }
    });
    let families = proptest::collection::vec(
        prop_oneof![Just("IPv4".to_owned()), Just("IPv6".to_owned()), ".{0,4}"],
        0..3,
    );
    let spec = (proptest::collection::vec(port, 0..4), proptest::option::of(families), name()).prop_map(
        |(mut ports, ip_families, type_)| {
            ports.push(ServicePort { name: Some("http".to_owned()), port: 80, ..ServicePort::default() });
            ServiceSpec { ports: Some(ports), ip_families, type_, ..ServiceSpec::default() }
        },
    );
    proptest::option::weighted(0.95, spec).prop_map(|spec| Service { spec, ..Service::default() })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        rng_seed: proptest::test_runner::RngSeed::Fixed(11),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_is_written_what_comes_out_can_be_relied_on(
        service in any_service(),
        slices in proptest::collection::vec(any_slice(), 0..5),
        turn in any::<prop::sample::Index>(),
    ) {
        let mut objects = objects(SHOP);
        objects.remove_slice(&key("web-1"));
        objects.services.insert(key("web"), Arc::new(service));
        let put = |slices: &[EndpointSlice]| {
            let mut objects = objects.clone();
            for (index, slice) in slices.iter().enumerate() {
                objects.insert_slice(key(&format!("web-{index}")), Arc::new(slice.clone()));
            }
            world(&objects, None)
        };
        let world = put(&slices);
        let pool = &world.pools[&key("shop")];
        let content = &pool.sets["web"].content;
        for pair in content.backends.windows(2) {
            prop_assert!(pair[0].id < pair[1].id, "sorted and each once");
        }
        for backend in &content.backends {
            let address: SocketAddr = backend.address.parse().expect("IP and port");
            prop_assert!(address.port() > 0);
            prop_assert_eq!(backend.weight, 1);
            prop_assert!(backend.state() != BackendState::Unspecified);
            prop_assert!(backend.zone.len() <= ZONE_BYTES_MAX && backend.node.len() <= NODE_NAME_BYTES_MAX);
            for (hints, bytes_max) in
                [(&backend.hint_zones, ZONE_BYTES_MAX), (&backend.hint_nodes, NODE_NAME_BYTES_MAX)]
            {
                prop_assert!(hints.len() <= HINTS_MAX && hints.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(hints.iter().all(|hint| !hint.is_empty() && hint.len() <= bytes_max));
            }
        }
        prop_assert_eq!(content.digest, weir_proto::digest::set(&content.backends));
        let families: std::collections::BTreeSet<_> =
            content.backends.iter().map(|backend| backend.address.starts_with('[')).collect();
        prop_assert!(families.len() <= 1, "one family");
        // A sentence for each kind of fault at most, and none that repeats a whole object.
        prop_assert!(pool.sets["web"].warnings.len() <= 6);
        for warning in world.warnings() {
            prop_assert!(warning.to_string().len() < 10_000, "{} bytes", warning.to_string().len());
        }

        // Only where nothing says which family matters do names of slices decide anything.
        let mut turned = slices.clone();
        if !turned.is_empty() {
            turned.rotate_left(turn.index(slices.len()));
        }
        if slices.iter().all(|slice| slice.address_type == slices[0].address_type) {
            let turned = put(&turned);
            prop_assert_eq!(turned.pools[&key("shop")].sets["web"].content.digest, content.digest);
        }
    }

    #[test]
    fn the_order_in_which_slices_come_decides_nothing(
        slices in proptest::collection::vec(any_slice(), 0..6),
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut worlds = Vec::new();
        for order in [(0..6).collect::<Vec<_>>(), order] {
            let mut objects = objects(SHOP);
            objects.secrets.clear();
            for index in order.into_iter().filter(|index| *index < slices.len()) {
                objects.insert_slice(key(&format!("web-{index}")), Arc::new(slices[index].clone()));
            }
            worlds.push(world(&objects, None));
        }
        prop_assert_eq!(&worlds[0], &worlds[1]);
    }
}
