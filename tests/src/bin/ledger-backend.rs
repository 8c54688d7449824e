//! A backend in a process of its own, which a test kills: `ledger-backend ADDRESS:PORT FILE` enters each request into the file and
//! then answers it.

use std::path::Path;
use weir_tests::harness::ledger::Ledger;
use weir_tests::harness::scripted::Scripted;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(file)) = (arguments.next(), arguments.next()) else {
        panic!("usage: ledger-backend ADDRESS:PORT FILE");
    };
    let ledger = Ledger::open(Path::new(&file));
    let address = address.parse().expect("an address with a port");
    let _backend = Scripted::start_at(address, move |_, exchange| ledger.serve(exchange));
    loop {
        std::thread::park();
    }
}
