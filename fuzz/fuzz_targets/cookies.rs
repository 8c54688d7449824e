//! Cookies of clients and of backends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::cookies(bytes));
