//! A manifest as a user or a tenant writes it.
#![no_main]

use std::sync::{Arc, LazyLock};
use weir_controller::manifest::Reader;

static READER: LazyLock<Reader> = LazyLock::new(|| Reader::new().expect("our own definition"));

libfuzzer_sys::fuzz_target!(|text: &str| {
    let file: Arc<str> = "fuzz.yaml".into();
    let _ = READER.read(&file, text);
});
