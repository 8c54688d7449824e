//! Key material stays out of logs: `Debug` of a certificate shows where it came from, never the key.

use crate::push::Certificate;
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
    }
}
