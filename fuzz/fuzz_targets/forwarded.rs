//! What proxies in front say of a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_proxy::fuzz::forwarded(bytes));
