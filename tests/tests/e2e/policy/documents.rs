//! The examples of the documentation do what it says when they are pasted.

use super::ask;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

/// The first example of a page, with ports that are free here.
fn example(page: &str, port: u16, samples: &Samples) -> String {
    let begin = page.find("```yaml\n").expect("an example") + "```yaml\n".len();
    let text = &page[begin..];
    let text = &text[..text.find("```").expect("its end")];
    assert!(text.contains("port: 8080") && text.contains("port: 9001"), "{text}");
    text.replace("port: 8080", &format!("port: {port}"))
        .replace("port: 9001", &format!("port: {}", samples.ports[0]))
}

fn pasted(page: &str) -> (u16, Folder, Service, Samples) {
    let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("member", 1));
    folder.write("pool.yaml", &example(page, port, &samples));
    let weir = Service::standalone(folder.path(), &[]);
    (port, folder, weir, samples)
}

#[test]
fn the_example_of_rate_limits_limits() {
    let (port, ..) = &pasted(include_str!("../../../../docs/rate-limits.md"));
    let statuses: Vec<u16> = (0..12).map(|_| ask(*port, "/login", "").status).collect();
    assert_eq!(statuses, [[200; 5].as_slice(), &[429; 7]].concat());
    assert_eq!(ask(*port, "/", "").status, 200);
    assert_eq!(ask(*port, "/internal", "").status, 403);
}

#[test]
fn the_example_of_client_addresses_names_the_client() {
    let (port, ..) = &pasted(include_str!("../../../../docs/client-addresses.md"));
    let answer = ask(*port, "/", "X-Forwarded-For: 198.51.100.7\r\n");
    assert_eq!(super::seen(&answer, "x-real-ip").as_deref(), Some("198.51.100.7"));
}
