//! The PROXY protocol as it is read from those who stand in front, versions 1 and 2 of HAProxy's
//! `proxy-protocol.txt`: whom a connection is really from.
//!
//! It is believed from listed peers alone, and from them it is demanded: whoever may leave it out
//! can be anybody. Nothing is read beyond it, so that the socket goes on as any other does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The two ends of a connection, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client's address.
    pub remote: SocketAddr,
    /// The address that it has connected to.
    pub local: SocketAddr,
}

/// Why a peer that must say whom it connects for is not believed.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// Not one byte has come.
    #[error("it has closed without a PROXY header")]
    Absent,
    /// It broke off in the middle, or the network failed.
    #[error("its PROXY header broke off: {0}")]
    Broken(#[source] io::Error),
    /// Not complete in time.
    #[error("its PROXY header was not complete within {0:?}")]
    Timeout(Duration),
    /// More than anybody has to say.
    #[error("its PROXY header is longer than {LONGEST} bytes")]
    TooLong,
    /// No header, or one that breaks the specification.
    #[error("what it sends first is no valid PROXY header")]
    Malformed,
    /// Version 2 carries a checksum that does not hold.
    #[error("the checksum of its PROXY header does not hold")]
    Checksum,
    /// For datagrams, which is not what has come.
    #[error("its PROXY header is for datagrams")]
    Datagrams,
}

/// Peers whose word is taken for whom they connect for.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Those whose addresses are in one of `networks`.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    /// Whether `peer` is one.
    #[must_use]
    pub fn contain(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

/// Of version 1, its end included (§2.1), and of version 2: addresses take at most 216 bytes, what
/// TLS has shown a few hundred.
const LONGEST_LINE: usize = 107;
const LONGEST: usize = 4096;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// As long as the shortest header there is, "PROXY UNKNOWN" and its end.
const SHORTEST: usize = 15;

/// Reads the header that `stream` must begin with, within `limit`; `ends` are those of the connection
/// itself, which stay where the peer connects for its own sake.
///
/// # Errors
/// [`HeaderError`]; what has been read is lost then.
pub async fn read(
    stream: &mut TcpStream,
    ends: Ends,
    limit: Duration,
) -> Result<Ends, HeaderError> {
    let bytes = tokio::time::timeout(limit, read_bytes(stream))
        .await
        .unwrap_or(Err(HeaderError::Timeout(limit)))?;
    Ok(parse(&bytes)?.unwrap_or(ends))
}

async fn read_bytes(stream: &mut TcpStream) -> Result<Vec<u8>, HeaderError> {
    let mut bytes = Vec::with_capacity(256);
    read_up_to(SHORTEST, stream, &mut bytes).await?;
    if bytes.starts_with(LINE_START) {
        while !bytes.ends_with(b"\n") {
            let rest = LONGEST_LINE.saturating_sub(bytes.len());
            let rest = up_to_end_of_line(stream, rest).await?;
            let length = bytes.len() + rest;
            read_up_to(length, stream, &mut bytes).await?;
        }
    } else if bytes.starts_with(SIGNATURE) {
        const FRONT: usize = 16;
        read_up_to(FRONT, stream, &mut bytes).await?;
        let length = FRONT + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > LONGEST {
            return Err(HeaderError::TooLong);
        }
        read_up_to(length, stream, &mut bytes).await?;
    } else {
        return Err(HeaderError::Malformed);
    }
    Ok(bytes)
}

/// Reads on until there are `length` bytes.
async fn read_up_to(
    length: usize,
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
) -> Result<(), HeaderError> {
    while bytes.len() < length {
        let missing = (length - bytes.len()) as u64;
        let read = stream.take(missing).read_buf(bytes).await;
        match read.map_err(HeaderError::Broken)? {
            0 if bytes.is_empty() => return Err(HeaderError::Absent),
            0 => return Err(HeaderError::Broken(io::ErrorKind::UnexpectedEof.into())),
            _ => {}
        }
    }
    Ok(())
}

/// How many of the bytes that have come belong to the line.
async fn up_to_end_of_line(stream: &TcpStream, most: usize) -> Result<usize, HeaderError> {
    let mut coming = [0; LONGEST_LINE];
    let room = coming.get_mut(..most).unwrap_or_default();
    if room.is_empty() {
        return Err(HeaderError::Malformed);
    }
    match stream.peek(room).await.map_err(HeaderError::Broken)? {
        0 => Err(HeaderError::Broken(io::ErrorKind::UnexpectedEof.into())),
        length => {
            let come = coming.get(..length).unwrap_or_default();
            Ok(memchr::memchr(b'\n', come).map_or(length, |at| at + 1))
        }
    }
}

/// The ends that a whole header tells of; `None` if the peer connects for its own sake (`LOCAL`,
/// `UNKNOWN`), or for a socket that has no address.
///
/// # Errors
/// [`HeaderError`] if it is not exactly one valid header.
pub fn parse(header: &[u8]) -> Result<Option<Ends>, HeaderError> {
    let malformed = |_| HeaderError::Malformed;
    if header.len() < SHORTEST || !is_strict_line(header) {
        return Err(HeaderError::Malformed);
    }
    if is_local(header) {
        return Ok(None);
    }
    let (parsed, length) = ProxyHeader::parse(header, ParseConfig::default()).map_err(malformed)?;
    if length != header.len() {
        return Err(HeaderError::Malformed);
    }
    if header.starts_with(SIGNATURE) {
        check_fields(header)?;
    }
    let Some(address) = parsed.proxied_address() else {
        return Ok(None);
    };
    match address.protocol {
        Protocol::Stream => Ok(Some(Ends {
            remote: address.source,
            local: address.destination,
        })),
        Protocol::Datagram => Err(HeaderError::Datagrams),
    }
}

/// Whether the peer connects for its own sake in version 2. All that stands behind is to be ignored then,
/// the family included (§2.2), whatever it says.
fn is_local(header: &[u8]) -> bool {
    const LOCAL: u8 = 0x20;
    let rest = header.strip_prefix(SIGNATURE);
    let Some(&[LOCAL, _family, high, low, ref ignored @ ..]) = rest else {
        return false;
    };
    ignored.len() == usize::from(u16::from_be_bytes([high, low]))
}

/// What §2.1 demands of a line and the library lets pass: one space behind `PROXY`, ports without
/// sign and leading zeros.
fn is_strict_line(header: &[u8]) -> bool {
    let Some(line) = header.strip_prefix(b"PROXY") else {
        return true;
    };
    let is_port = |port: &[u8]| {
        port.iter().all(u8::is_ascii_digit) && (port.len() == 1 || !port.starts_with(b"0"))
    };
    let mut fields = line.trim_ascii_end().split(|byte| *byte == b' ');
    let begins = fields.next() == Some(b"");
    begins
        && match fields.next() {
            Some(b"TCP4" | b"TCP6") => fields.skip(2).all(is_port),
            Some(family) => family == b"UNKNOWN",
            None => false,
        }
}

/// Walks through the fields behind the addresses (§2.2): they must fill the header exactly, and a
/// checksum among them must hold (§2.2.3).
fn check_fields(header: &[u8]) -> Result<(), HeaderError> {
    const CHECKSUM: u8 = 3;
    let addresses = match header.get(13) {
        Some(0x00) => 0,
        Some(0x11 | 0x12) => 12,
        Some(0x21 | 0x22) => 36,
        Some(0x31 | 0x32) => 216,
        Some(_) | None => return Err(HeaderError::Malformed),
    };
    let mut at = 16 + addresses;
    while at < header.len() {
        let field = header.get(at..).and_then(<[u8]>::split_first_chunk);
        let (&[kind, high, low], rest) = field.ok_or(HeaderError::Malformed)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..length).ok_or(HeaderError::Malformed)?;
        if kind == CHECKSUM {
            let told = value.try_into().map_err(|_| HeaderError::Malformed)?;
            check_sum(header, at + 3, u32::from_be_bytes(told))?;
        }
        at += 3 + length;
    }
    Ok(())
}

/// The sum is over the whole header, with zeros in its own place.
fn check_sum(header: &[u8], at: usize, told: u32) -> Result<(), HeaderError> {
    let (before, rest) = header.split_at(at);
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    let sum = crc32c::crc32c_append(sum, rest.get(4..).unwrap_or_default());
    if sum == told {
        Ok(())
    } else {
        Err(HeaderError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP4: &[u8] = b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x09\xdc\x04\x01\xbb";

    fn v2(rest: &[u8]) -> Vec<u8> {
        [SIGNATURE, rest].concat()
    }

    /// [`TCP4`] with these fields.
    fn with_fields(fields: &[u8]) -> Vec<u8> {
        let mut header = v2(TCP4);
        header[15] += u8::try_from(fields.len()).unwrap();
        header.extend_from_slice(fields);
        header
    }

    fn checked() -> Vec<u8> {
        let mut header = with_fields(&[4, 0, 1, 0, 3, 0, 4, 0, 0, 0, 0, 4, 0, 0]);
        let sum = crc32c::crc32c(&header).to_be_bytes();
        header[35..39].copy_from_slice(&sum);
        header
    }

    #[test]
    fn the_ends_are_those_that_the_header_tells() {
        let ends = |remote: &str, local: &str| {
            Some(Ends {
                remote: remote.parse().unwrap(),
                local: local.parse().unwrap(),
            })
        };
        let unix = [&b"\x21\x31\x00\xd8"[..], &[b'x'; 216]].concat();
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n".to_vec(),
                ends("192.0.2.1:56324", "192.0.2.9:443"),
            ),
            (
                b"PROXY TCP6 2001:DB8:0:0::1 2001:db8::9 1 0\r\n".to_vec(),
                ends("[2001:db8::1]:1", "[2001:db8::9]:0"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN anything at all 01\r\n".to_vec(), None),
            (v2(TCP4), ends("192.0.2.1:56324", "192.0.2.9:443")),
            (checked(), ends("192.0.2.1:56324", "192.0.2.9:443")),
            (v2(b"\x20\x00\x00\x00"), None),
            (v2(b"\x20\x11\x00\x0c............"), None),
            (v2(b"\x20\x11\x00\x00"), None),
            (v2(b"\x20\x01\x00\x00"), None),
            (v2(b"\x20\x10\x00\x02xx"), None),
            (v2(b"\x20\xff\x00\x00"), None),
            (v2(b"\x20\x00\x00\x03xxx"), None),
            (v2(b"\x20\x12\x00\x13............\x03\x00\x04xxxx"), None),
            (v2(b"\x21\x00\x00\x03\x04\x00\x00"), None),
            (v2(&unix), None),
        ] {
            assert_eq!(parse(&header).unwrap(), expected, "{header:?}");
        }
    }

    #[test]
    fn whatever_is_not_exactly_one_header_is_refused() {
        let mut wrong_sum = checked();
        wrong_sum[20] ^= 1;
        for header in [
            &b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\nx",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 0443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 +6324 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 66324 443\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.9 56324 443\r\n",
            b"PROXY TCP4 192.0.2.01 192.0.2.9 56324 443\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::9 56324 443\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.9 56324 443\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.9 56324 443\r\n",
            b"PROXY\tTCP4 192.0.2.1 192.0.2.9 56324 443\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"proxy UNKNOWN\r\n",
            b"PROXY UNKNOWN\r\r",
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
            &v2(b"\x11\x11\x00\x00"),
            &v2(b"\x21\x11\x00\x00"),
            &v2(b"\x21\xff\x00\x00"),
            &v2(b"\x21\x00\x00\x03xxx"),
            &v2(b"\x20\x00\x00\x03xx"),
            &v2(b"\x20\x00\x00\x03xxxx"),
            &v2(b"\x20\x00\x00"),
            &v2(b"\x22\x11\x00\x0c............"),
            &v2(b"\x21\x13\x00\x0c............"),
            &v2(b"\x21\x11\x00\x0b..........."),
            &v2(b"\x21\x21\x00\x0c............"),
            &v2(b"\x21\x12\x00\x0c............"),
            &v2(&[TCP4, b"x"].concat()),
            &v2(TCP4)[..27],
            &with_fields(b"\x04\x00"),
            &with_fields(b"\x04\x00\x02x"),
            &with_fields(b"\x03\x00\x03xxx"),
            &wrong_sum,
        ] {
            assert!(
                parse(header).is_err(),
                "{:?}",
                String::from_utf8_lossy(header)
            );
        }
    }

    #[test]
    fn peers_are_known_by_their_networks() {
        let networks = ["10.0.0.0/8", "2001:db8::/32"];
        let proxies = Proxies::new(networks.map(|network| network.parse().unwrap()).to_vec());
        for (peer, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("11.0.0.1", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(proxies.contain(peer.parse().unwrap()), expected, "{peer}");
        }
        assert!(!Proxies::default().contain("127.0.0.1".parse().unwrap()));
    }
}
