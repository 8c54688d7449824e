//! The sealed cookie of a session.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::session(bytes));
