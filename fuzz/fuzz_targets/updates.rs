//! Messages of a controller, up to what a snapshot is made of.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::updates(bytes));
