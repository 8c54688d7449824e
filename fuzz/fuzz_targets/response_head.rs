//! The head of a backend's HTTP/1 response.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::response_head(bytes));
