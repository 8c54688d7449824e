//! Files as people write them, right and wrong.

use super::*;

const POOL: &str = "\
apiVersion: weir.dev/v1alpha1
kind: LoadBalancerPool
metadata:
  name: shop
spec:
  listeners:
  - name: http
    port: 80
    protocol: HTTP
  backendSets:
  - name: web
    service: {name: web, port: 80}
";

fn read(text: &str) -> Parsed {
    Reader::new().expect("the schema can be read").read(&"a.yaml".into(), text)
}

fn problems(text: &str) -> Vec<String> {
    read(text).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_five_kinds_are_read_and_the_namespace_defaults() {
    let text = format!(
        "{POOL}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, creationTimestamp: null}}\n\
         spec: {{ports: [{{port: 80, targetPort: http}}], unheardOf: 1}}\n\
         ---\n{{\"apiVersion\": \"discovery.k8s.io/v1\", \"kind\": \"EndpointSlice\", \"metadata\": {{\"name\": \"web-1\"}},\n\
         \"addressType\": \"IPv4\", \"endpoints\": []}}\n\
         ---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: tls}}\n\
         data: {{tls.crt: YQ==, tls.key: Yg==}}\nstringData: {{tls.key: c}}\n\
         ---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: pools, namespace: shop}}\n\
         spec:\n  from: [{{group: weir.dev, kind: LoadBalancerPool, namespace: default}}]\n  to: [{{group: '', kind: Service}}]\n"
    );
    let parsed = read(&text);
    assert_eq!(parsed.problems, []);
    let keys: Vec<_> =
        parsed.manifests.iter().map(|manifest| format!("{:?} {}", manifest.object, manifest.key)).collect();
    let expected = [
        "LoadBalancerPool default/shop",
        "Service shop/web",
        "EndpointSlice default/web-1",
        "Secret default/tls",
        "ReferenceGrant shop/pools",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        parsed.manifests.iter().map(|manifest| manifest.place.line).collect::<Vec<_>>(),
        [1, 13, 18, 21, 28]
    );
    let Object::Secret(secret) = &parsed.manifests[3].object else { panic!("a Secret") };
    let data = secret.data.as_ref().expect("data");
    assert_eq!(
        (&*data["tls.crt"].0, &*data["tls.key"].0),
        (&b"a"[..], &b"c"[..]),
        "stringData goes over data"
    );
    assert_eq!(parsed.manifests[0].fields["spec.listeners[0].port"], (8, 5));
}

#[test]
fn a_broken_document_holds_back_no_other() {
    let text = format!(
        "{POOL}---\na: [1\n---\n{}---\nb: 'x\n---\n{}",
        POOL.replace("shop", "b"),
        POOL.replace("shop", "c")
    );
    let parsed = read(&text);
    let names: Vec<_> = parsed.manifests.iter().map(|manifest| manifest.key.name.as_str()).collect();
    assert_eq!(names, ["shop", "b", "c"]);
    let lines: Vec<_> = parsed.problems.iter().map(|problem| problem.place.line).collect();
    assert!(
        lines.len() == 2 && (14..=15).contains(&lines[0]) && (28..=30).contains(&lines[1]),
        "{:?}",
        parsed.problems
    );
    assert!(parsed.problems[0].sentence.starts_with("the document cannot be read as YAML: "));
}

/// What to replace, by what, and how the problem begins.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "    port: 80",
        "    prot: 80",
        "a.yaml:8:5: spec.listeners[0].prot: is not a field of LoadBalancerPool: write \"port\"",
    ),
    (
        "  listeners:",
        "  listenerz:",
        "a.yaml:6:3: spec.listenerz: is not a field of LoadBalancerPool: write \"listeners\"",
    ),
    (
        "spec:",
        "colour: red\nspec:",
        "a.yaml:5:1: colour: is not a field of LoadBalancerPool: use one of apiVersion, kind, metadata, spec, status",
    ),
    ("port: 80}", "port: 80, colour: x}", "a.yaml:12:36: spec.backendSets[0].service.colour: is not a field"),
    (
        "    port: 80",
        "    port: eighty",
        "a.yaml:8:11: spec.listeners[0].port: eighty cannot be used here: use a whole number from 1 to 65535",
    ),
    (
        "    port: 80",
        "    port: 99999999999",
        "a.yaml:8:11: spec.listeners[0].port: 99999999999 cannot be used here: use a whole",
    ),
    (
        "    protocol: HTTP",
        "    protocol: SCTP",
        "a.yaml:9:15: spec.listeners[0].protocol: SCTP cannot be used here: use ",
    ),
    ("    protocol: HTTP\n", "", "a.yaml:7:5: spec.listeners[0].protocol: is missing: add it"),
    (
        "spec:",
        "spec:\n  healthCheck: {active: {tcp: {port: 1}}}",
        "a.yaml:6:32: spec.healthCheck.active.tcp.port: is not a field of LoadBalancerPool: remove it; there is none",
    ),
    (
        "spec:",
        "spec:\n  healthCheck: {active: {tcp: true}}",
        "a.yaml:6:31: spec.healthCheck.active.tcp: true cannot be used here: write {}",
    ),
    (
        "spec:",
        "spec:\n  timeouts: {request: 30}",
        "a.yaml:6:23: spec.timeouts.request: \"30\" is not a duration: write",
    ),
    (
        "spec:",
        "spec:\n  timeouts: {request: 30s, request: 3s}",
        "a.yaml:6:28: the document cannot be read as YAML: duplicate mapping key: request",
    ),
    (
        "kind: LoadBalancerPool",
        "kind: Ingress",
        "a.yaml:2:7: kind: \"Ingress\" is not a kind that is read here: use one of LoadBalancerPool, Service, EndpointSlice, Pod, Secret, ReferenceGrant",
    ),
    (
        "apiVersion: weir.dev/v1alpha1\nkind: LoadBalancerPool",
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: ReferenceGrant",
        "a.yaml:1:13: apiVersion: \"gateway.networking.k8s.io/v1alpha2\" is not the version of a ReferenceGrant: \
         use \"gateway.networking.k8s.io/v1\" or \"gateway.networking.k8s.io/v1beta1\"",
    ),
    (
        "weir.dev/v1alpha1",
        "weir.dev/v1",
        "a.yaml:1:13: apiVersion: \"weir.dev/v1\" is not the version of a LoadBalancerPool: use \"weir.dev/v1alpha1\"",
    ),
    ("kind: LoadBalancerPool\n", "", "a.yaml:1:1: kind: is missing"),
    ("  name: shop", "  labels: {}", "a.yaml:4:3: metadata.name: is missing"),
    ("  name: shop", "  name: Shop", "a.yaml:4:9: metadata.name: \"Shop\" is not the name of an object"),
    (
        "  name: shop",
        "  name: shop\n  namespace: a/b",
        "a.yaml:5:14: metadata.namespace: \"a/b\" is not the name of an object",
    ),
];

#[test]
fn each_problem_has_its_place_and_field() {
    for (from, to, expected) in WRONG {
        let problems = problems(&POOL.replacen(from, to, 1));
        assert!(
            problems.first().is_some_and(|problem| problem.starts_with(expected)),
            "{to:?}: {problems:?}"
        );
    }
}

#[test]
fn a_grant_that_leaves_out_a_part_grants_nothing() {
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g}\nspec:\n  \
                 from: [{group: weir.dev, kind: LoadBalancerPool, namespace: a}]\n  to: [{group: '', kind: Secret}]\n";
    assert_eq!(problems(grant), Vec::<String>::new());
    for (from, expected) in [
        (", namespace: a", "spec.from[0].namespace: is missing: add it"),
        ("group: '', ", "spec.to[0].group: is missing: add it"),
        ("  to: [{group: '', kind: Secret}]\n", "spec.to: is missing: add it"),
    ] {
        let problems = problems(&grant.replacen(from, "", 1));
        assert!(problems.len() == 1 && problems[0].ends_with(expected), "{problems:?}");
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let text =
        format!("# comment\n\n---\n{POOL}---\n# another\n{}", POOL.replace("    port: 80", "    port: x"));
    let problems = problems(&text);
    assert!(
        problems.len() == 1 && problems[0].starts_with("a.yaml:25:11: spec.listeners[0].port: "),
        "{problems:?}"
    );
}

#[test]
fn a_problem_of_a_secret_shows_none_of_it() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: tls}\n";
    for wrong in
        ["data: {tls.key: hunter2}", "data: {tls.key: [hunter2]}", "stringData: hunter2", "data: hunter2"]
    {
        let problems = problems(&format!("{text}{wrong}\n"));
        assert!(problems.len() == 1 && !problems[0].contains("hunter2"), "{problems:?}");
        assert!(problems[0].contains("is not what a Secret holds here"), "{problems:?}");
    }
}

#[test]
fn documents_have_a_limit_and_one_past_it_is_said() {
    let document = "---\nkind: x\n";
    assert_eq!(problems(&document.repeat(DOCUMENTS_PER_FILE_MAX)).len(), DOCUMENTS_PER_FILE_MAX);
    let past = problems(&document.repeat(DOCUMENTS_PER_FILE_MAX + 5));
    assert_eq!(past.len(), DOCUMENTS_PER_FILE_MAX + 1);
    assert!(
        past.last().is_some_and(|problem| problem.contains("has more than 10000 documents")),
        "{:?}",
        past.last()
    );
}

#[test]
fn hostile_text_is_a_problem_and_never_a_panic() {
    let deep = format!("a: {}", "[".repeat(100_000));
    let bomb = format!(
        "a: &a [x]\n{}",
        (0..40).map(|n| format!("b{n}: &b{n} [*a, *a, *a, *a, *a, *a]\n")).collect::<String>()
    );
    for text in [
        deep.as_str(),
        bomb.as_str(),
        "\0",
        "---\n- 1",
        "\"",
        "? {a: b}\n: c",
        "!!binary x",
        "- &a *a",
        "<<: 1",
    ] {
        assert!(!read(text).problems.is_empty(), "{:?}", text.get(..20));
    }
}

#[test]
fn json_is_read_with_its_own_layout() {
    let text = "{\n\t\"apiVersion\": \"weir.dev/v1alpha1\",\n\t\"kind\": \"LoadBalancerPool\",\n\t\"metadata\": {\"name\": \"shop\"},\n\
                \t\"spec\": {\n\t\t\"listeners\": [{\"name\": \"http\", \"port\": 80, \"protocol\": \"HTTP\"}],\n\
                \t\t\"backendSets\": [{\"name\": \"a\", \"static\": {\"backends\": []}}]\n\t}\n}\n";
    assert_eq!(problems(text), Vec::<String>::new());
}
