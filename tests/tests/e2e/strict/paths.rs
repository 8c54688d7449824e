//! Paths: the rule that was found is that for what the backend reads.

use super::{Site, recorder};
use std::sync::mpsc;
use weir_tests::harness::client;
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::ports;

/// A proxy with one backend for /admin and one for all else, and this for `paths` of its listener.
fn guarded(paths: &str) -> Site {
    let (say, seen) = mpsc::channel();
    let (admin, open) = (recorder("admin: ", say.clone()), recorder("open: ", say));
    let pool = PoolText::new("paths", ports::free(), &[(open.port, 1)]);
    let change = |text: String| {
        let rule = "  rules:\n    - matches: [{ path: { type: PathPrefix, value: /admin } }]\n      \
                    backendSets: [{ name: admin }]\n";
        let set = format!(
            "  backendSets:\n    - name: admin\n      static: {{ backends: [{{ address: 127.0.0.1, port: {} }}] }}\n",
            admin.port
        );
        let protocol = format!("      protocol: HTTP\n      paths: {paths}\n");
        text.replace("  rules:\n", rule)
            .replace("\n  backendSets:\n", &format!("\n{set}"))
            .replace("      protocol: HTTP\n", &protocol)
    };
    Site::over(&pool, change, seen)
}

/// Who got it, and as what; or why nobody did.
fn asked(site: &Site, path: &str) -> Result<(String, String), u16> {
    let answer = client::fetch(site.port, path).expect("an answer");
    let arrived = site.arrived();
    match arrived.as_slice() {
        [] => Err(answer.status),
        [one] => {
            let (who, request) = one.split_once(": GET ").expect("a name");
            Ok((who.to_owned(), request.split(' ').next().unwrap_or_default().to_owned()))
        }
        more => panic!("{path}: {more:?}"),
    }
}

fn check(site: &Site, cases: &[(&str, Result<&str, u16>)]) {
    let mut wrong = Vec::new();
    for (path, want) in cases {
        let got = asked(site, path).map(|(who, path)| format!("{who} {path}"));
        if got.as_deref().map_err(|status| *status) != *want {
            wrong.push(format!("{path}: {got:?} and not {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_spelling_of_a_path_passes_by_its_rule() {
    check(
        &guarded("{}"),
        &[
            ("/admin", Ok("admin /admin")),
            ("/admin/", Ok("admin /admin/")),
            ("/admin/x?y=../z", Ok("admin /admin/x?y=../z")),
            ("/public/../admin", Ok("admin /admin")),
            ("/public/%2e%2e/admin", Ok("admin /admin")),
            ("/public/.%2E/admin", Ok("admin /admin")),
            ("/./admin", Ok("admin /admin")),
            ("//admin", Ok("admin /admin")),
            ("/public//../admin", Ok("admin /admin")),
            ("/%61dmin", Ok("admin /admin")),
            ("/%61%64%6D%69%6e/x", Ok("admin /admin/x")),
            ("/admin/../public", Ok("open /public")),
            ("/administrator", Ok("open /administrator")),
            ("/x?y=/../admin", Ok("open /x?y=/../admin")),
            ("/caf%c3%a9", Ok("open /caf%C3%A9")),
            ("/a%20b", Ok("open /a%20b")),
            ("/../admin", Err(400)),
            ("/public/..;/admin", Err(400)),
            ("/public/..%3B/admin", Err(400)),
            ("/public%2f..%2fadmin", Err(400)),
            ("/public/..%2fadmin", Err(400)),
            ("/public%5c..%5cadmin", Err(400)),
            ("/public\\..\\admin", Err(400)),
            ("/%2fadmin", Err(400)),
            ("/admin%00", Err(400)),
            ("/%", Err(400)),
            ("/%zz", Err(400)),
            ("/%u0061dmin", Err(400)),
        ],
    );
}

#[test]
fn a_listener_says_what_is_done_with_slashes_and_dots() {
    check(
        &guarded("{ encodedSlashes: Keep, doubleSlashes: Keep }"),
        &[
            ("/@scope%2fname", Ok("open /@scope%2Fname")),
            ("/a//b", Ok("open /a//b")),
            ("/public/..%2fadmin", Err(400)),
            ("/public%2f..%2fadmin", Err(400)),
            ("/public//../admin", Err(400)),
        ],
    );
    check(
        &guarded("{ encodedSlashes: Decode }"),
        &[
            ("/public%2f..%2fadmin", Ok("admin /admin")),
            ("/%5cadmin", Ok("admin /admin")),
            ("/a%252fb", Ok("open /a%252fb")),
        ],
    );
    check(
        &guarded("{ dotSegments: Refuse, doubleSlashes: Refuse }"),
        &[("/a/../admin", Err(400)), ("/a//b", Err(400)), ("/a/b.c/", Ok("open /a/b.c/"))],
    );
}
