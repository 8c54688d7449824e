//! Changes after which a port is served by another pool than before, under load.

use weir_tests::harness::folder::Folder;
use weir_tests::harness::load::{Clients, Load};
use weir_tests::harness::manifest::PoolText;
use weir_tests::harness::services::{Samples, Service, wait_for_backend};
use weir_tests::harness::{ports, wait};

#[test]
fn a_pool_is_renamed_under_load_and_no_request_fails() {
    let (old, new) = (Samples::start("old", 1), Samples::start("new", 1));
    let port = ports::free();
    let folder = Folder::new();
    // To a name that sorts before and to one that sorts behind.
    folder.write("pool.yaml", &PoolText::new("middle", port, &old.equal()).yaml());
    let _weir = Service::standalone(folder.path(), &[]);
    wait_for_backend(port, "/", "old");
    let load = Load::start(port, Clients { kept: 4, fresh: 2 });
    for (name, samples, answers) in [("first", &new, "new"), ("second", &old, "old"), ("first", &new, "new")]
    {
        wait::until("the load should flow", || (load.seen().good > 50).then_some(()));
        folder.write("pool.yaml", &PoolText::new(name, port, &samples.equal()).yaml());
        wait_for_backend(port, "/", answers);
    }
    assert_eq!(load.stop().failures, Vec::<String>::new());
}
