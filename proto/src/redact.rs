//! Key material stays out of logs: `Debug` of a certificate shows where it came from, never the key, and that of a
//! chunk, which may hold one, shows no payload, and that of a key ring nothing.

use crate::push::{Certificate, ConfigChunk, KeyRing};
use std::fmt;

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("source", &self.source)
            .field("chain_pem", &format_args!("{} bytes", self.chain_pem.len()))
            .field("key_pem", &format_args!("redacted"))
            .finish()
    }
}

impl fmt::Debug for ConfigChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigChunk")
            .field("pool", &self.pool)
            .field("version", &self.version)
            .field("index", &self.index)
            .field("last", &self.last)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_holds_the_key() {
        let certificate = Certificate {
            source: "ns/name".into(),
            chain_pem: b"chain".to_vec(),
            key_pem: b"hunter2".to_vec(),
        };
        let shown = format!("{certificate:?}");
        assert!(shown.contains("ns/name") && !shown.contains("hunter2"), "{shown}");
        let chunk = ConfigChunk { payload: b"hunter2"[..].into(), ..ConfigChunk::default() };
        assert!(!format!("{chunk:?}").contains("hunter2"));
        let key = || b"hunter2".to_vec();
        let ring = KeyRing { previous: key(), current: key(), next: key() };
        let shown = format!("{ring:?}");
        // As text, and as the numbers that a derived Debug would write.
        assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
    }
}
