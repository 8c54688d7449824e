//! One pool as a controller sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::pool_update(bytes));
