//! The file as bytes. Pure.
//!
//! ```text
//! magic 8 | format version 4 | bytes of the payload 8 | XXH3-64 of all that and the payload 8 | payload
//! ```
//!
//! Numbers are little-endian. The payload is a protobuf message, [`Stored`]. The checksum finds accidents; who may write
//! the file is a matter of its owner and its mode.

use bytes::Bytes;
use prost::Message;
use std::fmt;
use weir_proto::limits::POOLS_MAX;
use weir_proto::push::PoolUpdate;
use xxhash_rust::xxh3::Xxh3;

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// Largest file that is written or read, in bytes: four pools of the largest size.
pub const FILE_BYTES_MAX: usize = 256 << 20;

const MAGIC: [u8; 8] = *b"WEIRGOOD";
const SUMMED_BYTES: usize = MAGIC.len() + 4 + 8;
/// What stands before the payload.
pub(super) const HEADER_BYTES: usize = SUMMED_BYTES + 8;

/// Why there is nothing to restore though there is a file.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a file of ours, or its first bytes are damaged.
    #[error("it does not begin as a file of this kind does")]
    Foreign,
    /// A later proxy wrote it.
    #[error("it is of format {0}, and this proxy knows format {FORMAT} only")]
    Format(u32),
    /// Cut off, or with something behind it.
    #[error("it has {found} bytes where it says {said}: it was not written to its end")]
    Torn {
        /// By its header.
        said: u64,
        /// By the file system.
        found: u64,
    },
    /// Above [`FILE_BYTES_MAX`].
    #[error("it has {0} bytes, above the limit of {FILE_BYTES_MAX}")]
    TooLarge(u64),
    /// Bits are others than were written.
    #[error("its checksum does not match: it is damaged")]
    Checksum,
    /// What the checksum belongs to is no message of ours.
    #[error("its content cannot be read")]
    Content(#[from] prost::DecodeError),
    /// More than [`POOLS_MAX`].
    #[error("it has {0} pools, above the limit of {POOLS_MAX}")]
    Pools(usize),
    /// A pool without a name or a configuration, or one name twice.
    #[error("pool {0:?} in it has no name, no configuration, or is there twice")]
    Pool(String),
    /// Others may have written it, or may read keys in it.
    #[error("it is open to others (mode {0:03o})")]
    Open(u32),
    /// It belongs to another user.
    #[error("it belongs to user {0}, not to this process's")]
    Owner(u32),
    /// A folder, a pipe or the like.
    #[error("it is no plain file")]
    Kind,
    /// The system could not read it.
    #[error("it cannot be read")]
    Read(#[from] std::io::Error),
}

/// Everything that is kept.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Stored {
    /// A [`Record`] each, encoded: those that did not change are written again as they are.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) pools: Vec<Bytes>,
    /// A `KeyRing`, encoded: what proxies share.
    #[prost(message, optional, tag = "2")]
    pub(super) ring: Option<Secret>,
}

/// One pool.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    /// The configuration in force, without private keys, and the contents of its sets.
    #[prost(message, optional, tag = "1")]
    pub(super) update: Option<PoolUpdate>,
    /// [`Keys`], encoded; unset where there are none or where they are left out.
    #[prost(message, optional, tag = "2")]
    pub(super) keys: Option<Secret>,
}

/// Private keys of a pool, in the order of its listeners and their certificates.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Keys {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) pem: Vec<Vec<u8>>,
}

/// What not everybody who reads the file may know. One of the two.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct Secret {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) sealed: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) plain: Vec<u8>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("pools", &self.pools.len()).field("ring", &self.ring).finish()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The file; `None` where it would be above [`FILE_BYTES_MAX`].
pub(super) fn encode(stored: &Stored) -> Option<Vec<u8>> {
    encode_within(stored, FILE_BYTES_MAX)
}

fn encode_within(stored: &Stored, bytes_max: usize) -> Option<Vec<u8>> {
    let payload_bytes = stored.encoded_len();
    if payload_bytes > bytes_max - HEADER_BYTES {
        return None;
    }
    let mut file = Vec::with_capacity(HEADER_BYTES + payload_bytes);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    file.extend_from_slice(&(payload_bytes as u64).to_le_bytes());
    file.extend_from_slice(&[0; HEADER_BYTES - SUMMED_BYTES]);
    stored.encode(&mut file).expect("a vector grows");
    let sum = checksum(&file);
    file[SUMMED_BYTES..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    Some(file)
}

/// Strict: what was not written by [`encode`] is refused, whatever it is.
pub(super) fn decode(file: &[u8]) -> Result<Stored, Refusal> {
    decode_within(file, FILE_BYTES_MAX)
}

fn decode_within(file: &[u8], bytes_max: usize) -> Result<Stored, Refusal> {
    let found = file.len() as u64;
    if file.len() > bytes_max {
        return Err(Refusal::TooLarge(found));
    }
    let (magic, rest) = file.split_first_chunk().ok_or(Refusal::Foreign)?;
    if *magic != MAGIC {
        return Err(Refusal::Foreign);
    }
    let torn = Refusal::Torn { said: HEADER_BYTES as u64, found };
    let Some((format, rest)) = rest.split_first_chunk() else { return Err(torn) };
    // Before all else of the header: a later format may mean something else by it.
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(Refusal::Format(format));
    }
    let Some((payload_bytes, rest)) = rest.split_first_chunk() else { return Err(torn) };
    let Some((sum, payload)) = rest.split_first_chunk() else { return Err(torn) };
    let said = u64::from_le_bytes(*payload_bytes).saturating_add(HEADER_BYTES as u64);
    if said != found {
        return Err(Refusal::Torn { said, found });
    }
    if u64::from_le_bytes(*sum) != checksum(file) {
        return Err(Refusal::Checksum);
    }
    let stored = Stored::decode(payload)?;
    if stored.pools.len() > POOLS_MAX {
        return Err(Refusal::Pools(stored.pools.len()));
    }
    Ok(stored)
}

/// Of a whole file, without the checksum that stands in it.
fn checksum(file: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(&file[..SUMMED_BYTES]);
    sum.update(&file[HEADER_BYTES..]);
    sum.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Vec<u8> {
        let secret = |sealed: &[u8]| Some(Secret { sealed: sealed.to_vec(), plain: Vec::new() });
        let record = Record { update: Some(PoolUpdate::default()), keys: secret(b"sealed") };
        let pools = vec![record.encode_to_vec().into(), Bytes::from_static(b"another")];
        encode(&Stored { pools, ring: secret(b"ring") }).expect("small")
    }

    #[test]
    fn what_was_written_is_read() {
        let file = small();
        let stored = decode(&file).expect("as written");
        assert_eq!((stored.pools.len(), &*stored.pools[1]), (2, &b"another"[..]));
        assert_eq!(encode(&stored), Some(file));
        let empty = encode(&Stored::default()).expect("small");
        assert_eq!(empty.len(), HEADER_BYTES);
        assert_eq!(decode(&empty).expect("as written"), Stored::default());
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        let file = small();
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let refused = decode(&damaged).expect_err("damaged");
            let is_right = match bit / 8 {
                0..8 => matches!(refused, Refusal::Foreign),
                8..12 => matches!(refused, Refusal::Format(_)),
                12..20 => matches!(refused, Refusal::Torn { .. }),
                _ => matches!(refused, Refusal::Checksum),
            };
            assert!(is_right, "bit {bit}: {refused}");
        }
    }

    #[test]
    fn every_truncation_and_every_byte_too_many_is_noticed() {
        let file = small();
        for bytes in 0..file.len() {
            let refused = decode(&file[..bytes]).expect_err("torn");
            let is_right = match bytes {
                0..8 => matches!(refused, Refusal::Foreign),
                _ => matches!(refused, Refusal::Torn { .. }),
            };
            assert!(is_right, "{bytes} bytes: {refused}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(matches!(decode(&longer), Err(Refusal::Torn { .. })));
    }

    #[test]
    fn a_later_format_is_named() {
        let mut file = small();
        file[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let refused = decode(&file).expect_err("of the future");
        assert!(matches!(refused, Refusal::Format(2)), "{refused}");
        assert!(refused.to_string().contains("format 2"), "{refused}");
    }

    #[test]
    fn a_file_may_be_as_large_as_its_limit_and_no_larger() {
        let mut file = small();
        let stored = decode(&file).expect("as written");
        let limit = file.len();
        assert_eq!(encode_within(&stored, limit).as_ref(), Some(&file));
        assert!(encode_within(&stored, limit - 1).is_none());
        assert_eq!(decode_within(&file, limit).expect("at the limit"), stored);
        file.push(0);
        assert!(matches!(decode_within(&file, limit), Err(Refusal::TooLarge(_))));
    }

    #[test]
    fn there_are_as_many_pools_as_a_stream_may_have() {
        let pools = |count| encode(&Stored { pools: vec![Bytes::new(); count], ring: None }).expect("small");
        assert_eq!(decode(&pools(POOLS_MAX)).expect("at the limit").pools.len(), POOLS_MAX);
        assert!(matches!(decode(&pools(POOLS_MAX + 1)), Err(Refusal::Pools(_))));
    }

    /// A header that is right for any payload.
    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut file = [&MAGIC[..], &FORMAT.to_le_bytes(), &(payload.len() as u64).to_le_bytes()].concat();
        file.extend([0; 8]);
        file.extend(payload);
        let sum = checksum(&file);
        file[SUMMED_BYTES..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        file
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_payload_is_read_or_refused(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(stored) = decode(&framed(&payload)) {
                for pool in stored.pools {
                    let _ = Record::decode(pool);
                }
            }
        }
    }
}
