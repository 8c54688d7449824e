//! How private keys are kept on disk: sealed, in memory only, or not at all.

use super::format::Secret;
use crate::ring::{DerivedRing, Ring, Use};
use aws_lc_rs::aead::AES_256_GCM;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use weir_proto::limits::KEY_BYTES;

/// Largest file with a key that is read, in bytes. One in base64 with line ends fits.
pub const KEY_FILE_BYTES_MAX: u64 = 128;

/// Bytes of a key's name in what it has sealed.
const NAME_BYTES: usize = 8;

/// Why a file is of no use as a key; who started the process can fix it.
#[derive(Debug, thiserror::Error)]
pub enum StateKeyError {
    /// It is not there, or not ours to read.
    #[error("cannot read the key in {path}")]
    Read {
        /// As it was named.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{0} holds no key: put {KEY_BYTES} random bytes there, as they are or in base64")]
    Form(PathBuf),
}

/// Seals what is kept on disk.
#[derive(Debug, Clone)]
pub struct StateKey(Ring);

impl StateKey {
    /// Reads [`KEY_BYTES`] bytes, or as many in base64 with blanks or line ends around it.
    ///
    /// # Errors
    /// [`StateKeyError`].
    pub fn read(path: &Path) -> Result<Self, StateKeyError> {
        let mut bytes = Vec::new();
        let file = File::open(path);
        let read = file.and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|source| StateKeyError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes).ok_or_else(|| StateKeyError::Form(path.to_owned()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let key = match bytes.len() {
            KEY_BYTES => bytes.to_vec(),
            _ => STANDARD.decode(bytes.trim_ascii()).ok()?,
        };
        // One key, where the ring has room for those before and after it.
        Ring::new(&key, &key, &key).map(Self)
    }

    /// Bound to what it is about, so that nothing opens as something else.
    fn derive(&self, about: &str) -> Option<DerivedRing<NAME_BYTES>> {
        let bound_to: &[&[u8]] = &[about.as_bytes()];
        let of = Use { salt: b"weir last known good v1", bound_to, algorithm: &AES_256_GCM };
        DerivedRing::derive(&self.0, of).ok()
    }
}

/// What is done with private keys.
#[derive(Debug, Clone)]
pub(super) enum Care {
    /// Sealed with a key that is not on the same disk.
    Sealed(StateKey),
    /// As they are: the folder is in memory, and the file its owner's alone.
    Memory,
    /// Not written.
    LeftOut,
}

impl Care {
    /// What to write; `None` for nothing.
    pub(super) fn keep(&self, about: &str, plain: Vec<u8>) -> Option<Secret> {
        match self {
            Self::Sealed(key) => {
                let sealed = key.derive(about)?.current().seal(plain)?;
                Some(Secret { sealed, plain: Vec::new() })
            }
            Self::Memory => Some(Secret { sealed: Vec::new(), plain }),
            Self::LeftOut => None,
        }
    }

    /// Whether [`Self::keep`] would write it in this form.
    pub(super) fn keeps_as(&self, secret: &Secret) -> bool {
        match self {
            Self::Sealed(_) => !secret.sealed.is_empty(),
            Self::Memory => secret.sealed.is_empty(),
            Self::LeftOut => false,
        }
    }

    /// What was written; `None` where it is sealed with another key, or damaged.
    pub(super) fn open(&self, about: &str, secret: Secret) -> Option<Vec<u8>> {
        let Secret { mut sealed, plain } = secret;
        if sealed.is_empty() {
            return Some(plain);
        }
        let Self::Sealed(key) = self else { return None };
        let ring = key.derive(about)?;
        Some(ring.key_of(&sealed)?.open(&mut sealed)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing(byte: u8) -> Care {
        Care::Sealed(StateKey::parse(&[byte; KEY_BYTES]).expect("a key"))
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_pool_alone() {
        let secret = sealing(1).keep("ns/a", b"hunter2".to_vec()).expect("sealed");
        assert!(secret.plain.is_empty());
        assert!(!secret.sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(sealing(1).open("ns/a", secret.clone()).as_deref(), Some(&b"hunter2"[..]));
        assert_eq!(sealing(1).open("ns/b", secret.clone()), None);
        assert_eq!(sealing(2).open("ns/a", secret.clone()), None);
        assert_eq!(Care::Memory.open("ns/a", secret.clone()), None);
        for byte in 0..secret.sealed.len() {
            let mut damaged = secret.clone();
            damaged.sealed[byte] ^= 1;
            assert_eq!(sealing(1).open("ns/a", damaged), None, "byte {byte}");
        }
        let short = Secret { sealed: secret.sealed[..NAME_BYTES + 3].to_vec(), plain: Vec::new() };
        assert_eq!(sealing(1).open("ns/a", short), None);
    }

    #[test]
    fn in_memory_keys_are_as_they_are_and_elsewhere_they_are_not_at_all() {
        let secret = Care::Memory.keep("ns/a", b"hunter2".to_vec()).expect("kept");
        assert_eq!(Care::Memory.open("ns/a", secret.clone()).as_deref(), Some(&b"hunter2"[..]));
        assert_eq!(sealing(1).open("ns/a", secret).as_deref(), Some(&b"hunter2"[..]), "to be sealed next");
        assert_eq!(Care::LeftOut.keep("ns/a", b"hunter2".to_vec()), None);
    }

    #[test]
    fn a_key_is_32_bytes_or_as_many_in_base64() {
        let key = [7; KEY_BYTES];
        let text = STANDARD.encode(key);
        for good in [key.to_vec(), text.clone().into_bytes(), format!("\n{text}\r\n").into_bytes()] {
            let care = Care::Sealed(StateKey::parse(&good).expect("a key"));
            let secret = care.keep("p", b"x".to_vec()).expect("sealed");
            assert!(sealing(7).open("p", secret).is_some());
        }
        let short = STANDARD.encode([7; KEY_BYTES - 1]);
        for bad in [&[][..], &[7; KEY_BYTES - 1], &[7; KEY_BYTES + 1], b"correct horse", short.as_bytes()] {
            assert!(StateKey::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_without_a_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let refused = |path| StateKey::read(path).expect_err("no key").to_string();
        assert!(refused(&path).starts_with("cannot read the key in"), "{}", refused(&path));
        std::fs::write(&path, "hunter2").expect("written");
        let sentence = refused(&path);
        assert!(sentence.contains("holds no key") && !sentence.contains("hunter2"), "{sentence}");
        let padded = |blanks| format!("{}{}", STANDARD.encode([7; KEY_BYTES]), " ".repeat(blanks));
        let fits = usize::try_from(KEY_FILE_BYTES_MAX).expect("small") - padded(0).len();
        std::fs::write(&path, padded(fits)).expect("written");
        assert!(StateKey::read(&path).is_ok());
        std::fs::write(&path, padded(fits + 1)).expect("written");
        assert!(StateKey::read(&path).is_ok(), "blanks are cut at the limit and are blanks still");
        std::fs::write(&path, format!("{}x", padded(fits))).expect("written");
        assert!(StateKey::read(&path).is_err(), "one past the limit");
        assert!(!format!("{:?}", sealing(104)).contains("104"));
    }
}
