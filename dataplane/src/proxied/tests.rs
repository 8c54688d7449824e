use super::*;

const BOTH: Versions = Versions { v1: true, v2: true };

fn ends(from: &str, to: &str) -> Ends {
    let address = |text: &str| text.parse().expect("an address with a port");
    Ends { from: address(from), to: address(to) }
}

/// A header of version 2 for TCP over IPv4, with so many bytes behind the addresses.
fn v2(command: u8, family: u8, more: usize) -> Vec<u8> {
    let mut bytes = V2.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(12 + more).expect("small").to_be_bytes());
    bytes.extend([192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb]);
    bytes.resize(bytes.len() + more, 4);
    bytes
}

#[test]
fn headers_of_both_versions_are_read_to_their_end_and_no_further() {
    let client = Introduced::Client(ends("192.0.2.1:12345", "10.0.0.1:443"));
    let v6 = Introduced::Client(ends("[2001:db8::1]:1", "[2001:db8::2]:2"));
    let mapped = Introduced::Client(ends("192.0.2.1:12345", "10.0.0.1:443"));
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 443\r\n".to_vec(), client),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(), v6),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:10.0.0.1 12345 443\r\n".to_vec(), mapped),
        (b"PROXY UNKNOWN\r\n".to_vec(), Introduced::Itself),
        (b"PROXY UNKNOWN ffff:f...f:ffff 65535\r\n".to_vec(), Introduced::Itself),
        (v2(0x21, 0x11, 0), client),
        (v2(0x21, 0x11, 300), client),
        (v2(0x20, 0x11, 0), Introduced::Itself),
        (v2(0x20, 0x00, 0), Introduced::Itself),
        (v2(0x21, 0x11, PROXY_HEADER_BYTES_MAX - 28), client),
    ] {
        let length = header.len();
        let followed = [header.as_slice(), b"\x16\x03\x01PROXY "].concat();
        assert_eq!(parse(&followed, BOTH), Ok(Some((expected, length))), "{}", header.escape_ascii());
        for cut in 0..length {
            assert_eq!(parse(&header[..cut], BOTH), Ok(None), "{cut} of {}", header.escape_ascii());
        }
    }
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_shows() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
    assert!(matches!(parse(longest.as_bytes(), BOTH), Ok(Some(_))), "of 107 bytes");
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 15));
    for wrong in [
        b"G".to_vec(),
        b"PUT / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01".to_vec(),
        b"\r\n\r\nGET".to_vec(),
        b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 10.0.0.1 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\rx".to_vec(),
        too_long.into_bytes(),
        "PROXY TCP4 ".bytes().chain([b'1'; 200]).collect(),
        v2(0x11, 0x11, 0),
        v2(0x22, 0x11, 0),
        v2(0x21, 0x12, 0),
        v2(0x21, 0x21, 0),
        v2(0x21, 0x41, 0),
        v2(0x21, 0x11, PROXY_HEADER_BYTES_MAX - 27),
    ] {
        assert_eq!(parse(&wrong, BOTH), Err(Malformed), "{}", wrong.escape_ascii());
    }
}

#[test]
fn a_version_that_is_not_taken_is_refused() {
    let (text, binary) = (b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, 0));
    for (takes, of_text, of_binary) in
        [(Versions { v1: true, v2: false }, true, false), (Versions { v1: false, v2: true }, false, true)]
    {
        assert_eq!(parse(&text, takes).is_ok(), of_text);
        assert_eq!(parse(&binary, takes).is_ok(), of_binary);
    }
}

#[test]
fn what_is_told_is_understood_also_of_two_families() {
    for version in [ProxyHeaderVersion::V1, ProxyHeaderVersion::V2] {
        for told in [
            ends("192.0.2.1:1", "10.0.0.1:2"),
            ends("[2001:db8::1]:1", "[2001:db8::2]:2"),
            ends("192.0.2.1:1", "[2001:db8::2]:2"),
            ends("[2001:db8::1]:0", "10.0.0.1:65535"),
        ] {
            let bytes = header(version, Some(told));
            assert_eq!(parse(&bytes, BOTH), Ok(Some((Introduced::Client(told), bytes.len()))), "{told:?}");
        }
        let bytes = header(version, None);
        assert_eq!(parse(&bytes, BOTH), Ok(Some((Introduced::Itself, bytes.len()))));
    }
}

#[test]
fn a_header_that_comes_in_pieces_is_taken_and_what_follows_it_stays() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let (mut server, _) = listener.accept().await.expect("a client");
        let send = async {
            use tokio::io::AsyncWriteExt as _;
            for byte in v2(0x21, 0x11, 9) {
                client.write_all(&[byte]).await.expect("it reads");
                tokio::task::yield_now().await;
            }
            client.write_all(b"rest").await.expect("it reads");
            client.shutdown().await.expect("open");
        };
        let ((), introduced) = tokio::join!(send, read(&server, BOTH));
        assert_eq!(introduced, Some(Introduced::Client(ends("192.0.2.1:12345", "10.0.0.1:443"))));
        let mut rest = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut server, &mut rest).await.expect("an end");
        assert_eq!(rest, "rest");
    });
}
