//! A chunked body with its trailers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::chunked_body(bytes));
