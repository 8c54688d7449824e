//! The push protocol with both ends of it: as two state machines with everything that can happen between them, and
//! over real gRPC up to the snapshot that requests are served from.

mod divergence;
mod fixtures;
mod fleet;
mod last_good;
mod pair;
mod replicas;
mod scripted;
mod secure;
mod shares;
mod simulation;
mod stuck;
