//! The PROXY protocol: from proxies in front, and to backends.

mod backends;
mod clients;

/// How a header of version 2 begins.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for TCP over IPv4, from this address and port to 203.0.113.9:443.
fn v2(address: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = [V2, &[0x21, 0x11, 0, 12], &address, &[203, 0, 113, 9]].concat();
    bytes.extend(port.to_be_bytes());
    bytes.extend(443_u16.to_be_bytes());
    bytes
}
