//! Tokens as the API server would have signed them at another time.

use super::{Cluster, servers};
use data_encoding::BASE64URL_NOPAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};

/// Bytes of each of the two numbers of an ES256 signature (RFC 7518, section 3.4).
const NUMBER_BYTES: usize = 32;

impl Cluster {
    /// The same token as one that expired years ago, signed as this one is: none that lasts less than ten minutes can be asked
    /// for.
    ///
    /// # Panics
    /// When it is no token of this cluster.
    #[must_use]
    pub fn expired(&self, token: &str) -> String {
        let parts: Vec<_> = token.split('.').collect();
        let [header, claims, _] = parts[..] else { panic!("a token has three parts") };
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).expect("base64");
        let mut claims: Value = serde_json::from_slice(&claims).expect("JSON");
        for (field, at) in [("iat", 1_600_000_000), ("nbf", 1_600_000_000), ("exp", 1_600_003_600)] {
            claims[field] = json!(at);
        }
        let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
        let key =
            std::fs::read_to_string(self.file(servers::ACCOUNT_KEY)).expect("it was written at the start");
        let key = KeyPair::from_pem(&key).expect("a key");
        let signature = raw(&key.sign(signed.as_bytes()).expect("a key that signs"));
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// Two numbers of fixed length, of a DER sequence of two integers below 128 bytes.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(NUMBER_BYTES)..];
        numbers.resize(numbers.len() + NUMBER_BYTES - number.len(), 0);
        numbers.extend_from_slice(number);
        rest = after;
    }
    numbers
}
