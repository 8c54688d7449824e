//! An authority, as in a Host field.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::authority(bytes));
