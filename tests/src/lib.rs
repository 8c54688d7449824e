//! What the tests of the whole stand on.

pub mod harness;

#[cfg(test)]
mod ratchets;
