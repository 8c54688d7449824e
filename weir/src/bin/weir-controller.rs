//! `weir-controller`: compiles LoadBalancerPools and streams them to proxies.

use clap::Parser as _;
use std::process::ExitCode;
use weir::controller::{self, Args};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    controller::main(Args::parse())
}
