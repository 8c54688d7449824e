//! The file of the last known good configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::disk(bytes));
