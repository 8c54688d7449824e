//! The generated definition: equal to the types, described, small, and strict.

mod layer4;
mod policies;

use kube_cel::Validator;
use serde_json::{Value, json};
use std::path::Path;

fn schema() -> Value {
    let mut definition = weir_crds::definition().expect("the definition can be written as JSON");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

#[test]
fn the_definition_equals_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(weir_crds::DEFINITION_FILE);
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let generated = weir_crds::definition_yaml().expect("the definition can be written as YAML");
    assert!(
        kept == generated,
        "{} is not what the types generate: run `cargo run -p weir-crds --bin weir-crdgen` and commit the file",
        path.display()
    );
}

#[test]
fn the_definition_leaves_room_to_grow() {
    let bytes = weir_crds::definition().expect("the definition can be written as JSON").to_string().len();
    assert!(bytes < weir_crds::DEFINITION_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn every_property_is_described() {
    let mut bare = Vec::new();
    visit(&schema(), "", &mut |path, property| {
        let is_bare = property["description"].as_str().is_none_or(str::is_empty);
        // The values of a map are described with the map.
        if is_bare && !path.ends_with("{}") {
            bare.push(path.to_owned());
        }
    });
    assert_eq!(bare, Vec::<String>::new(), "add a doc comment to each of these fields");
}

#[test]
fn only_scalars_have_defaults_of_their_own_and_nothing_is_nullable() {
    let mut wrong = Vec::new();
    visit(&schema(), "", &mut |path, property| {
        let default = &property["default"];
        // An empty object is filled by the defaults of its scalars.
        let is_filled = default.as_object().is_some_and(|fields| !fields.is_empty());
        if is_filled || default.is_array() || !property["nullable"].is_null() {
            wrong.push(path.to_owned());
        }
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_list_map_and_text_of_the_specification_is_bounded() {
    // The API server multiplies the cost of each rule by these bounds, and refuses a definition without them.
    let mut unbounded = Vec::new();
    visit(&schema()["properties"]["spec"], "spec", &mut |path, property| {
        let is_bounded = match property["type"].as_str() {
            Some("array") => property["maxItems"].is_number(),
            Some("string") => property["maxLength"].is_number() || property["enum"].is_array(),
            Some("object") => {
                property["additionalProperties"].is_null() || property["maxProperties"].is_number()
            }
            _ => true,
        };
        if !is_bounded {
            unbounded.push(path.to_owned());
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn every_word_of_the_specification_can_be_written_without_quotes() {
    // kubectl reads YAML 1.1, where these are booleans; whoever writes one would be told of a type.
    let booleans = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let mut wrong = Vec::new();
    visit(&schema(), "", &mut |path, property| {
        let words = property["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let boolean = words.filter(|word| booleans.contains(&word.to_ascii_lowercase().as_str()));
        wrong.extend(boolean.map(|word| format!("{path}: {word}")));
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn each_column_shows_a_field_that_there_is() {
    let definition = weir_crds::definition().expect("the definition can be written as JSON");
    let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().expect("columns");
    let named = |wide: bool| {
        let shown = columns.iter().filter(move |column| (column["priority"] == json!(1)) == wide);
        shown.map(|column| column["name"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(named(false), ["Algorithm", "Ready", "Proxies", "Status", "Age"]);
    assert_eq!(named(true), ["Lag", "Message"]);
    for column in columns.iter().filter(|column| column["name"] != "Age") {
        let path = column["jsonPath"].as_str().expect("a path").replace('.', "/properties/");
        assert!(schema().pointer(&path).is_some(), "{path}");
    }
}

fn visit(schema: &Value, path: &str, found: &mut impl FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        found(&path, property);
        visit(property, &path, found);
        visit(&property["items"], &format!("{path}[]"), found);
        let values = &property["additionalProperties"];
        if values.is_object() {
            found(&format!("{path}{{}}"), values);
            visit(values, &format!("{path}{{}}"), found);
        }
    }
}

fn pool() -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "LoadBalancerPool",
        "metadata": {"name": "shop"},
        "spec": {
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP"},
                {"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}},
            ],
            "rules": [{
                "matches": [{"path": {"value": "/api"}}],
                "backendSets": [{"name": "web", "weight": 3}, {"name": "static"}],
                "timeouts": {"request": "1m30s"},
            }],
            "backendSets": [
                {"name": "web", "service": {"name": "web", "port": "http"}},
                {"name": "static", "static": {"backends": [{"address": "10.0.0.1", "port": 80}]}},
            ],
            "timeouts": {"connect": "3s"},
            "connectionPool": {},
            "loadBalancing": {},
            "healthCheck": {"active": {"tcp": {}}, "passive": {}},
            "dataPlane": {"className": "edge", "selector": {"matchLabels": {"app": "web", "example.com/tier": ""}}},
        },
    })
}

#[test]
fn a_pool_that_does_not_say_its_algorithm_shows_it_all_the_same() {
    // The API server fills the empty object with the default of its field.
    let load_balancing = &schema()["properties"]["spec"]["properties"]["loadBalancing"];
    assert_eq!(load_balancing["default"], json!({}));
    assert_eq!(load_balancing["properties"]["algorithm"]["default"], json!("LeastRequest"));
}

#[test]
fn names_that_the_compile_step_refuses_have_a_pattern() {
    let spec = schema()["properties"]["spec"]["properties"].take();
    let secret = "/listeners/items/properties/tls/properties/certificateRefs/items/properties/name";
    let service = "/backendSets/items/properties/service/properties";
    let labels = "/dataPlane/properties/selector/properties/matchLabels";
    for (path, expected) in [
        (secret.to_owned(), weir_crds::pool::OBJECT_NAME_PATTERN),
        (format!("{service}/name"), weir_crds::pool::OBJECT_NAME_PATTERN),
        (secret.replace("/name", "/namespace"), weir_crds::pool::NAME_PATTERN),
        (format!("{service}/namespace"), weir_crds::pool::NAME_PATTERN),
        (format!("{service}/port"), weir_crds::pool::NAME_PATTERN),
        ("/dataPlane/properties/className".to_owned(), weir_crds::pool::NAME_PATTERN),
        (format!("{labels}/additionalProperties"), weir_crds::pool::LABEL_VALUE_PATTERN),
    ] {
        assert_eq!(spec.pointer(&path).expect("a property")["pattern"], expected, "{path}");
    }
}

/// Sentences of the rules that refuse an object, after defaults.
fn refusals(pool: &Value) -> Vec<String> {
    match Validator::new().validate_with_defaults(&schema(), pool, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .map(|error| format!("{}: {}", error.field_path, error.message))
            .collect(),
    }
}

#[test]
fn a_good_pool_passes_every_rule() {
    assert_eq!(refusals(&pool()), Vec::<String>::new());
    let mut minimal = pool();
    minimal["spec"].as_object_mut().expect("an object").remove("rules");
    minimal["spec"].as_object_mut().expect("an object").remove("dataPlane");
    assert_eq!(refusals(&minimal), Vec::<String>::new());
    for policy in [
        json!({"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Header", "name": "X-User"}}}),
        json!({"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "Host", "maxLoadPercent": 0}}}),
        json!({"loadBalancing": {"algorithm": "ConsistentHash", "consistentHash": {"key": "SourceIP", "maxLoadPercent": 105}}}),
        json!({"loadBalancing": {"slowStart": {"window": "1h"}, "locality": "Hints", "panicBelowPercent": 50}}),
        json!({"healthCheck": {}}),
        json!({"healthCheck": {"active": {"http": {"method": "HEAD", "expectedStatuses": ["200", "200-200", "300-399"]}}}}),
        json!({"healthCheck": {"active": {"http": {"bodyContains": "é".repeat(2048)}, "interval": "100ms", "timeout": "5m"}}}),
        json!({"healthCheck": {"active": {"grpc": {"service": "shop.v1.Cart"}, "interval": "1h", "timeout": "10ms"}}}),
        json!({"healthCheck": {"active": {"tls": {}}, "passive": {"window": "1s", "baseEjection": "1h", "maxEjection": "1h"}}}),
        json!({"healthCheck": {"passive": {"maxFailurePercent": 100, "consecutiveFailures": 0, "consecutiveConnectFailures": 0}}}),
    ] {
        for parent in ["/spec", "/spec/backendSets/0"] {
            let mut changed = pool();
            let fields = changed.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
            fields.extend(policy.as_object().expect("an object").clone());
            assert_eq!(refusals(&changed), Vec::<String>::new(), "{parent} {policy}");
        }
    }
}

fn dns(more: &Value) -> Value {
    let mut source = json!({ "hostname": "a.example", "port": 80 });
    for (name, value) in more.as_object().expect("fields") {
        source[name] = value.clone();
    }
    json!({ "name": "static", "dns": source })
}

#[test]
fn each_rule_refuses_what_it_is_for() {
    let cases = [
        (
            "/spec/listeners/0/tls",
            json!({"certificateRefs": [{"name": "c"}]}),
            "protocol HTTP must not have tls",
        ),
        ("/spec/listeners/0/protocol", json!("HTTPS"), "protocol HTTPS must have tls.certificateRefs"),
        ("/spec/listeners/1/port", json!(80), "two listeners must not have the same port"),
        ("/spec/rules/0/backendSets/1/name", json!("nowhere"), "must be a name in spec.backendSets"),
        ("/spec/rules/0/backendSets", json!([{"name": "web", "weight": 0}]), "must have a weight above 0"),
        (
            "/spec/backendSets/0/static",
            json!({"backends": []}),
            "exactly one of service, endpointSelector, static and dns",
        ),
        (
            "/spec/backendSets/1",
            json!({"name": "static"}),
            "exactly one of service, endpointSelector, static and dns",
        ),
        (
            "/spec/backendSets/1",
            json!({"name": "static", "static": {"backends": []}, "dns": {"hostname": "a.example", "port": 80}}),
            "exactly one of service, endpointSelector, static and dns",
        ),
        ("/spec/backendSets/1", dns(&json!({"hostname": "10.0.0.1"})), "must not be an IP address"),
        ("/spec/backendSets/1", dns(&json!({"hostname": "10.0.0.1."})), "must not be an IP address"),
        ("/spec/backendSets/1", dns(&json!({"minRefresh": "999ms"})), "minRefresh must be 1s to 1h"),
        ("/spec/backendSets/1", dns(&json!({"maxRefresh": "61m"})), "maxRefresh must be 1s to 1h"),
        (
            "/spec/backendSets/1",
            dns(&json!({"minRefresh": "2s", "maxRefresh": "1s"})),
            "minRefresh must not be longer than maxRefresh",
        ),
        ("/spec/timeouts/connect", json!("0s"), "connect timeout must be above 0s"),
        ("/spec/connectionPool/idleTimeout", json!("0m"), "idle timeout must be above 0s"),
        ("/spec/dataPlane/selector/matchLabels", json!({"a b": "c"}), "the name of a label must be"),
        ("/spec/dataPlane/selector/matchLabels", json!({"A.com/b": "c"}), "the name of a label must be"),
        ("/spec/dataPlane/selector/matchLabels", json!({"a/b/c": "d"}), "the name of a label must be"),
        (
            "/spec/dataPlane/selector/matchLabels",
            json!({("a".repeat(64)): "b"}),
            "the name of a label must be",
        ),
        (
            "/spec/dataPlane/selector/matchLabels",
            json!({(format!("{}/a", "b".repeat(254))): "c"}),
            "the name of a label must be",
        ),
    ];
    assert_refused(&cases);
}

#[test]
fn each_rule_of_matches_and_filters_refuses_what_it_is_for() {
    let cases = [
        ("/spec/rules/0/matches/0/path/value", json!("a"), "must start with a slash"),
        ("/spec/rules/0/matches/0/path/value", json!("/a b?#"), "percent-encode it"),
        ("/spec/rules/0/matches/0/path/value", json!("/{"), "percent-encode it"),
        ("/spec/rules/0", json!({}), "must have backendSets, or a filter"),
        (
            "/spec/rules/0/filters",
            json!([{"type": "DirectResponse", "directResponse": {}}]),
            "that answers, and not both",
        ),
        ("/spec/rules/0/filters", json!([{"type": "URLRewrite", "cors": {}}]), "the field of its type"),
        (
            "/spec/rules/0/filters",
            json!(vec![json!({"type": "CORS", "cors": {"allowOrigins": ["*"]}}); 2]),
            "two filters of one type",
        ),
        (
            "/spec/rules/0/filters",
            json!([{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath"}}}]),
            "the field of its type, replaceFullPath",
        ),
        (
            "/spec/rules/0/filters",
            json!([{"type": "RequestMirror", "requestMirror": {"backendSet": "web", "percent": 1, "fraction": {"numerator": 1}}}]),
            "both percent and fraction",
        ),
        ("/spec/rules/0/matches/0/path/value", json!("/a//b"), "empty segment"),
        ("/spec/rules/0/matches/0/path/value", json!("/a/../b"), "segment . or .."),
        ("/spec/rules/0/matches/0/path/value", json!("/a/.."), "segment . or .."),
        ("/spec/rules/0/matches/0/path/value", json!("/a%2fb"), "encoded slash"),
    ];
    assert_refused(&cases);
}

#[test]
fn a_selector_of_pods_says_something_that_its_operators_can_hold() {
    let cases = [
        (
            "/spec/backendSets/1",
            json!({"name": "static", "endpointSelector": {"port": 80}}),
            "an empty selector would take every pod",
        ),
        (
            "/spec/backendSets/1",
            json!({"name": "static", "endpointSelector": {"matchLabels": {}, "matchExpressions": [], "port": 80}}),
            "an empty selector would take every pod",
        ),
        (
            "/spec/backendSets/1",
            json!({"name": "static", "endpointSelector":
                {"matchExpressions": [{"key": "a", "operator": "In"}], "port": 80}}),
            "operators In and NotIn need values",
        ),
        (
            "/spec/backendSets/1",
            json!({"name": "static", "endpointSelector":
                {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}], "port": 80}}),
            "Exists and DoesNotExist must have none",
        ),
        (
            "/spec/backendSets/1",
            json!({"name": "static", "service": {"name": "web", "port": 80}, "endpointSelector":
                {"matchLabels": {"a": "b"}, "port": 80}}),
            "exactly one of service, endpointSelector, static and dns",
        ),
    ];
    assert_refused(&cases);
}

/// Each change of the pool is refused with its sentence.
fn assert_refused(cases: &[(&str, Value, &str)]) {
    for (path, value, expected) in cases {
        let mut changed = pool();
        let (parent, name) = path.rsplit_once('/').expect("a path below the root");
        let parent = changed.pointer_mut(parent).expect("a path that is there");
        match parent {
            Value::Array(entries) => entries[name.parse::<usize>().expect("an index")] = value.clone(),
            parent => parent[name] = value.clone(),
        }
        let refusals = refusals(&changed);
        assert!(refusals.iter().any(|refusal| refusal.contains(*expected)), "{path} = {value}: {refusals:?}");
    }
}

/// A field of the specification and of a set, what is wrong with it, and what its rule says.
fn wrong_policies() -> Vec<(&'static str, Value, &'static str)> {
    let hash = |hash: Value| json!({"algorithm": "ConsistentHash", "consistentHash": hash});
    let active = |active: Value| json!({"active": active});
    let http = |http: Value| json!({"active": {"http": http}});
    let passive = |passive: Value| json!({"passive": passive});
    let name = "must have name, and no other key may";
    let off = json!({
        "maxFailurePercent": 100, "consecutiveFailures": 0, "consecutiveConnectFailures": 0, "grayFailures": false,
    });
    vec![
        ("loadBalancing", json!({"algorithm": "ConsistentHash"}), "must have consistentHash"),
        ("loadBalancing", json!({"consistentHash": {"key": "Host"}}), "must have consistentHash"),
        (
            "loadBalancing",
            json!({"algorithm": "ConsistentHash", "consistentHash": {"key": "Host"}, "slowStart": {"window": "1s"}}),
            "slowStart is not for algorithm ConsistentHash",
        ),
        ("loadBalancing", hash(json!({"key": "Cookie"})), name),
        ("loadBalancing", hash(json!({"key": "Host", "name": "x"})), name),
        (
            "loadBalancing",
            hash(json!({"key": "Host", "maxLoadPercent": 104})),
            "must be 0 (no bound), or 105 to 1000",
        ),
        ("loadBalancing", json!({"slowStart": {"window": "0s"}}), "window must be above 0s and at most 1h"),
        (
            "loadBalancing",
            json!({"slowStart": {"window": "1h1ms"}}),
            "window must be above 0s and at most 1h",
        ),
        ("healthCheck", active(json!({})), "exactly one of http, tcp, tls and grpc"),
        ("healthCheck", active(json!({"tcp": {}, "grpc": {}})), "exactly one of http, tcp, tls and grpc"),
        ("healthCheck", active(json!({"tcp": {}, "interval": "99ms"})), "interval must be 100ms to 1h"),
        ("healthCheck", active(json!({"tcp": {}, "interval": "1h1ms"})), "interval must be 100ms to 1h"),
        ("healthCheck", active(json!({"tcp": {}, "timeout": "9ms"})), "timeout must be 10ms to 5m"),
        ("healthCheck", active(json!({"tcp": {}, "timeout": "5m1ms"})), "timeout must be 10ms to 5m"),
        ("healthCheck", http(json!({"method": "CONNECT"})), "CONNECT asks for a tunnel"),
        (
            "healthCheck",
            http(json!({"method": "HEAD", "bodyContains": "ok"})),
            "the answer to HEAD has no body",
        ),
        ("healthCheck", http(json!({"bodyContains": "é".repeat(2049)})), "at most 4096 bytes"),
        (
            "healthCheck",
            http(json!({"headers": [{"name": "HOST", "value": "a"}]})),
            "writes this header field itself",
        ),
        (
            "healthCheck",
            http(json!({"expectedStatuses": ["200", "299-200"]})),
            "must have the lower one first",
        ),
        ("healthCheck", passive(json!({"window": "999ms"})), "window must be 1s to 10m"),
        ("healthCheck", passive(json!({"window": "10m1ms"})), "window must be 1s to 10m"),
        ("healthCheck", passive(json!({"baseEjection": "99ms"})), "baseEjection must be 100ms to 1h"),
        ("healthCheck", passive(json!({"maxEjection": "1h1ms"})), "maxEjection must be at most 1h"),
        (
            "healthCheck",
            passive(json!({"maxEjection": "1s"})),
            "maxEjection must not be shorter than baseEjection",
        ),
        ("healthCheck", passive(off), "everything switched off"),
    ]
}

#[test]
fn each_rule_of_a_policy_refuses_what_it_is_for_in_the_pool_and_in_a_set() {
    for (field, value, expected) in wrong_policies() {
        for parent in ["/spec", "/spec/backendSets/0"] {
            let mut changed = pool();
            changed.pointer_mut(parent).expect("a path that is there")[field] = value.clone();
            let refusals = refusals(&changed);
            assert!(refusals.len() == 1 && refusals[0].contains(expected), "{parent} {value}: {refusals:?}");
        }
    }
}

#[test]
fn the_types_read_what_the_schema_accepts() {
    let read: weir_crds::LoadBalancerPool = serde_json::from_value(pool()).expect("the pool is good");
    assert_eq!(read.spec.timeouts.map(|timeouts| timeouts.request.as_millis()), Some(30_000));
    assert_eq!(read.spec.connection_pool, Some(weir_crds::pool::ConnectionPool::default()));
    assert_eq!(read.spec.rules[0].backend_sets[1].weight, 1);
    assert_eq!(read.spec.data_plane.map(|data_plane| data_plane.class_name).as_deref(), Some("edge"));
    let path = read.spec.rules[0].matches[0].path.as_ref().expect("a path");
    assert_eq!(path.kind, weir_crds::pool::PathMatchType::PathPrefix);
}
