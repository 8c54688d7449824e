//! Chunks that are on their way: how much of configurations a proxy may have to take in before it hears of a backend.

use std::collections::VecDeque;
use weir_proto::limits::{CHUNK_BYTES_IN_FLIGHT_MAX, CHUNK_BYTES_MAX, CHUNKS_IN_FLIGHT_MAX};
use weir_proto::push::{ChunkReceived, ConfigChunk};

/// Oldest first, with the bytes of each.
#[derive(Debug, Default)]
pub(super) struct Window {
    chunks: VecDeque<(ChunkReceived, usize)>,
    bytes: usize,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether there is room for another one, however large it is.
    pub(super) fn has_room(&self) -> bool {
        self.chunks.len() < CHUNKS_IN_FLIGHT_MAX && self.bytes + CHUNK_BYTES_MAX <= CHUNK_BYTES_IN_FLIGHT_MAX
    }

    pub(super) fn sent(&mut self, chunk: &ConfigChunk) {
        let received = ChunkReceived { pool: chunk.pool.clone(), version: chunk.version, index: chunk.index };
        self.bytes += chunk.payload.len();
        self.chunks.push_back((received, chunk.payload.len()));
    }

    /// This one has arrived, and with it all before it. False where it is not on its way.
    pub(super) fn arrived(&mut self, chunk: &ChunkReceived) -> bool {
        let Some(at) = self.chunks.iter().position(|(sent, _)| sent == chunk) else { return false };
        self.bytes -= self.chunks.drain(..=at).map(|(_, bytes)| bytes).sum::<usize>();
        true
    }
}
