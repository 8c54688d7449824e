//! Certificates as files: a folder in the folder, which holds what a Secret of type `kubernetes.io/tls` does.
//!
//! Its name is the Secret's, in the namespace `default`. Its files are named as where such a Secret is mounted
//! (`tls.crt`, `tls.key`, and `ca.crt` if there is one), or as certbot names them (`fullchain.pem`, `privkey.pem`).

use super::files::read_bytes;
use crate::compile::{DEFAULT_NAMESPACE, ObjectKey, is_object_name};
use crate::manifest::{Fields, Manifest, Object, Parsed, Place, Problem};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file of a certificate that is read, in bytes: what a Secret may have.
pub const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;
/// Folders in the folder that are looked into, the first ones by name.
pub const CERTIFICATE_FOLDERS_MAX: usize = 1_000;

/// Keys of a Secret, and the files that may hold each: the first that is there does.
const KEYS: [(&str, &[&str]); 3] = [
    ("tls.crt", &["tls.crt", "fullchain.pem"]),
    ("tls.key", &["tls.key", "privkey.pem"]),
    ("ca.crt", &["ca.crt"]),
];

/// Folders in a folder, whether or not they hold a certificate yet: nothing hidden, symbolic links followed.
pub(super) fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_folder(&entry)? {
            folders.push(entry.path());
        }
    }
    Ok(first_by_name(folders))
}

/// Whether this is a folder that may hold a certificate.
pub(super) fn is_folder(entry: &DirEntry) -> io::Result<bool> {
    let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    Ok(!is_hidden && !entry.file_type()?.is_file() && entry.path().is_dir())
}

/// As many of these as are looked into.
pub(super) fn first_by_name(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    folders.sort_unstable();
    folders.truncate(CERTIFICATE_FOLDERS_MAX);
    folders
}

/// Whether a folder holds a certificate or a key.
pub(super) fn is_certificate(path: &Path) -> bool {
    files(path).take(2).any(|(_, file)| file.is_some())
}

/// Whether a change of this file in a certificate's folder can change the certificate: what is hidden there is what a mounted
/// Secret's links lead through.
pub(super) fn is_part(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"..")
        || KEYS.iter().flat_map(|(_, names)| *names).any(|known| name == *known)
}

/// The files that count, by the Secret's keys.
pub(super) fn files(folder: &Path) -> impl Iterator<Item = (&'static str, Option<PathBuf>)> {
    KEYS.iter().map(|(key, names)| {
        let mut paths = names.iter().map(|name| folder.join(name));
        (*key, paths.find(|path| path.is_file()))
    })
}

/// The Secret that the folder stands for.
pub(super) fn read(name: &Arc<str>, folder: &Path) -> Parsed {
    let place = Place { file: Arc::clone(name), line: 0, column: 0 };
    match secret(folder) {
        Ok((key, secret)) => {
            let object = Object::Secret(Arc::new(secret));
            let manifest = Manifest { key, object, place, fields: Arc::new(Fields::new()) };
            Parsed { manifests: vec![manifest], problems: Vec::new() }
        }
        Err(sentence) => Parsed {
            manifests: Vec::new(),
            problems: vec![Problem { place, field: String::new(), sentence }],
        },
    }
}

fn secret(folder: &Path) -> Result<(ObjectKey, Secret), String> {
    let name = folder.file_name().and_then(OsStr::to_str).filter(|name| is_object_name(name));
    let name = name.ok_or(
        "is no name for a Secret: give the folder one of lower-case letters, digits, - and ., as certificateRefs say it",
    )?;
    let mut data = BTreeMap::new();
    for (key, file) in files(folder) {
        let Some(file) = file else {
            if key == "ca.crt" {
                continue;
            }
            return Err(format!(
                "has no file {key}: put the certificate's chain in tls.crt and its key in tls.key, both as PEM"
            ));
        };
        let bytes = read_bytes(&file, CERTIFICATE_BYTES_MAX);
        let bytes = bytes.map_err(|sentence| format!("{}: {sentence}", file.display()))?;
        data.insert(key.to_owned(), ByteString(bytes));
    }
    let key = ObjectKey::new(DEFAULT_NAMESPACE, name);
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        ..ObjectMeta::default()
    };
    let type_ = Some("kubernetes.io/tls".to_owned());
    Ok((key, Secret { metadata, data: Some(data), type_, ..Secret::default() }))
}
