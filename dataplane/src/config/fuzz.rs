//! What reads bytes of controllers and of disks, for `fuzz/`.

use super::replica::Replica;
use super::{convert, disk as kept};
use prost::Message as _;
use weir_proto::push::{ControllerMessage, PoolUpdate};

/// Messages of a stream, each behind its length, into the proxy's copy and from there to what a snapshot is made of.
pub fn updates(mut bytes: &[u8]) {
    let mut replica = Replica::default();
    replica.begin_stream("fuzz");
    while let Ok(message) = ControllerMessage::decode_length_delimited(&mut bytes) {
        if replica.on_message(message).is_err() {
            return;
        }
        let mut refused = Vec::new();
        for config in replica.candidates() {
            if convert::pool(config, &convert::Certificates::default()).is_err() {
                refused.push(config.pool.clone());
            }
            for set in &config.backend_sets {
                for backend in replica.backends(&config.pool, &set.name) {
                    let _ = convert::backend(&set.name, backend);
                }
            }
        }
        for pool in refused {
            replica.refused(&pool, "spec".to_owned(), "it is wrong".to_owned());
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// One pool as a controller sends it, put together from its chunks.
pub fn pool_update(bytes: &[u8]) {
    let Ok(update) = PoolUpdate::decode(bytes) else { return };
    if let Some(config) = &update.config
        && let Ok((_, certificates)) = convert::pool(config, &convert::Certificates::default())
    {
        assert!(convert::pool(config, &certificates).is_ok(), "what was taken once is taken again");
    }
    for set in &update.sets {
        for backend in &set.backends {
            let _ = convert::backend(&set.set, backend);
        }
    }
}

/// The file of the last known good configuration. The sum in its head is made right, or nothing behind it would be seen.
pub fn disk(bytes: &[u8]) {
    kept::fuzz(bytes);
}
