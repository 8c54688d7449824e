//! A kubeconfig in a Secret.
#![no_main]

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use weir_controller::cluster::kubeconfig;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // It asks nobody, so it never waits.
    let read = pin!(kubeconfig::read(bytes)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(read, Poll::Ready(_)));
});
