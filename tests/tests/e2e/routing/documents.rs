//! The example of the documentation does what it says.

use super::over_http1;
use weir_tests::harness::folder::Folder;
use weir_tests::harness::ports;
use weir_tests::harness::services::{Samples, Service};

#[test]
fn the_example_of_routing_does_what_its_page_says() {
    let page = include_str!("../../../../docs/routing.md");
    let begin = page.find("```yaml\n").expect("an example") + "```yaml\n".len();
    let example = &page[begin..];
    let example = &example[..example.find("```").expect("its end")];
    let (port, folder, samples) = (ports::free(), Folder::new(), Samples::start("member", 1));
    let text = example.replace("port: 8080", &format!("port: {port}"));
    folder.write("pool.yaml", &text.replace("port: 9001", &format!("port: {}", samples.ports[0])));
    let _weir = Service::standalone(folder.path(), &[]);

    let ask =
        |method: &str, target: &str, fields: &[(&str, &str)]| over_http1(port, method, target, fields, "");
    assert_eq!(ask("GET", "/api/users", &[]).asked(), "/v1/users");
    let beta = ask("GET", "/api/users", &[("x-beta", "yes")]);
    assert_eq!((beta.asked().as_str(), beta.seen("x-stage").as_deref()), ("/api/users", Some("beta")));
    assert_eq!(ask("GET", "/v2/api/x", &[]).seen("x-stage").as_deref(), Some("beta"));
    assert_eq!(ask("PATCH", "/api/users", &[]).status, 405);
    let moved = ask("GET", "/old/x", &[]);
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, Some(format!("http://shop.example:{port}/new/x")))
    );
    assert_eq!(ask("GET", "/robots.txt", &[]).content(), "User-agent: *\nDisallow: /\n");
    assert_eq!(ask("GET", "/", &[]).status, 200);
}
