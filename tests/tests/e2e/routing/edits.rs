//! A thousand edits of a pool's rules while requests flow, each in force before the next.

use super::{Site, text};
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::{client, wait};

const EDITS: usize = 1000;
/// Rules that come and go beside those of the load.
const OTHERS: usize = 20;

/// What the load asks for, matched in every way there is; the most general rule alone stands in every edition.
const LOADED: [&str; 8] = [
    "{ path: { value: /load } }",
    "{ path: { type: Exact, value: /load } }",
    "{ path: { type: RegularExpression, value: '/lo[a-d]+' } }",
    "{ path: { value: /load }, method: GET }",
    "{ path: { value: / }, sourceIPs: [127.0.0.0/8] }",
    "{ path: { value: / }, headers: [{ name: Host, type: RegularExpression, value: '.+' }] }",
    "{ path: { value: /other } }",
    "{ path: { value: /load }, queryParams: [{ name: none, value: here }] }",
];

/// The rules of an edition, whose own path says that it is in force.
fn rules(edition: usize) -> Vec<String> {
    let set = super::SETS[edition % 3];
    let loaded = LOADED[edition % LOADED.len()];
    let mut rules = vec![
        "{ backendSets: [{ name: fourth }] }".to_owned(),
        format!("{{ matches: [{loaded}], backendSets: [{{ name: {set} }}] }}"),
        format!(
            "{{ matches: [{{ path: {{ type: Exact, value: /in-force }} }}], filters: [{{ type: DirectResponse, \
             directResponse: {{ status: 200, body: '{edition}' }} }}] }}"
        ),
    ];
    rules.extend((0..edition % OTHERS).map(|nth| {
        format!(
            "{{ hostnames: [h{nth}.example], matches: [{{ path: {{ value: /{edition} }} }}], filters: [{{ type: URLRewrite, \
             urlRewrite: {{ hostname: e{edition}.example }} }}], timeouts: {{ request: {}s }}, backendSets: [{{ name: {set} }}] }}",
            1 + edition % 7
        )
    }));
    // Neither the order of the rules nor that of their names decides.
    let turn = edition % rules.len();
    rules.rotate_left(turn);
    rules
}

#[test]
fn a_thousand_edits_of_routes_under_load_fail_nothing() {
    let begin = rules(0);
    let site = Site::start("", &begin.iter().map(String::as_str).collect::<Vec<_>>());
    let load = Load::start(site.port, Clients { kept: 3, fresh: 2 });
    for edition in 1..=EDITS {
        let rules = rules(edition);
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        site.folder.write("pool.yaml", &text(site.port, &site.samples, "", &rules));
        wait::until("the edition should be in force", || {
            let answer = client::fetch(site.port, "/in-force").expect("an answer");
            (answer.body == edition.to_string().as_bytes()).then_some(())
        });
        if edition % 100 == 0 {
            load.seen().assert_no_failure();
        }
    }
    let seen = load.stop();
    seen.assert_no_failure();
    assert!(seen.good > EDITS as u64, "{}", seen.good);
    assert_eq!(seen.answers.len(), super::SETS.len(), "rules led to all sets: {:?}", seen.answers);
}
