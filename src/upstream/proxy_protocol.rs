//! The PROXY protocol as it is spoken to servers, versions 1 and 2 of HAProxy's
//! `proxy-protocol.txt`: whom a connection is opened for, before anything else on it.
//!
//! A connection has one such header, so it carries one client; whoever pools connections opens
//! them without. Reading headers is for listeners.

use std::io;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};
use zeroize::Zeroizing;

use super::connect::Spoken;
use crate::secret::Secret;

/// Whether servers are told whom a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They are not.
    Off,
    /// Addresses, as a line of text.
    V1,
    /// Addresses and what TLS has shown, in binary.
    V2 {
        /// Whether the certificate's common name is among it, which is the client's secret.
        common_name: bool,
    },
}

/// The client that a connection is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Introduction<'a> {
    /// Its address.
    pub source: SocketAddr,
    /// The address of the gateway that it has connected to.
    pub destination: SocketAddr,
    /// What its handshake has shown, if it speaks TLS.
    pub tls: Option<IntroducedTls<'a>>,
}

/// What a client's handshake has shown.
#[derive(Debug, Clone, Copy)]
pub struct IntroducedTls<'a> {
    /// The version, as OpenSSL writes it: `TLSv1.3`.
    pub version: &'a str,
    /// The server name that the client asked for (RFC 6066 §3).
    pub server_name: Option<&'a str>,
    /// Whether and when a certificate was shown that passed every check.
    pub certificate: Shown,
    /// The common name of that certificate.
    pub common_name: Option<&'a Secret>,
}

/// Whether a client has shown a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It has not.
    Never,
    /// On this connection.
    Now,
    /// On the connection whose session this one resumes.
    Earlier,
}

impl ProxyProtocol {
    /// The header for a connection that is opened for `client` to speak `spoken`; for the gateway's own sake if that
    /// is `None`, in which case the receiver keeps to the connection's own addresses.
    ///
    /// # Errors
    /// A common name that no receiver would take.
    pub(super) fn header(
        self,
        client: Option<&Introduction<'_>>,
        spoken: Spoken,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        let encoded = match self {
            Self::Off => return Ok(bytes),
            Self::V1 => addressed(client).encode_v1(&mut bytes),
            Self::V2 { common_name } => {
                let mut header = addressed(client);
                if let Some(client) = client {
                    // §2.2.1: what comes behind the header, whatever the client itself speaks.
                    if let Some(alpn) = spoken.alpn() {
                        header.append_tlv(Tlv::Alpn(alpn.as_bytes().into()));
                    }
                    if let Some(tls) = &client.tls {
                        describe(tls, common_name, &mut header)?;
                    }
                }
                header.encode_v2(&mut bytes)
            }
        };
        encoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(bytes)
    }
}

fn addressed(client: Option<&Introduction<'_>>) -> ProxyHeader<'static> {
    let Some(client) = client else {
        return ProxyHeader::with_local();
    };
    let (source, destination) = of_one_family(client.source, client.destination);
    ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
}

/// Both addresses as IPv4 if both are, otherwise both as IPv6: a header has one family.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| address.ip().to_canonical();
    let (from, to) = match (canonical(source), canonical(destination)) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        alike => alike,
    };
    (
        SocketAddr::new(from, source.port()),
        SocketAddr::new(to, destination.port()),
    )
}

fn describe(
    tls: &IntroducedTls<'_>,
    common_name: bool,
    header: &mut ProxyHeader<'_>,
) -> io::Result<()> {
    /// Receivers keep a few KiB for a header, and the whole of one must fit 64 KiB.
    const LONGEST_NAME: usize = 1024;
    if let Some(name) = tls.server_name {
        header.append_tlv(Tlv::Authority(name.into()));
    }
    let (on_connection, in_session) = match tls.certificate {
        Shown::Never => (false, false),
        Shown::Now => (true, true),
        Shown::Earlier => (false, true),
    };
    // §2.2.6: zero says that a certificate was shown and has passed.
    let verify = u32::from(!in_session);
    let mut ssl = SslInfo::new(true, on_connection, in_session, verify);
    ssl.append_tlv(Tlv::SslVersion(tls.version.into()));
    if let Some(name) = tls.common_name.filter(|_| common_name) {
        if name.expose().len() > LONGEST_NAME {
            let message = "the common name is too long for a PROXY protocol header";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        ssl.append_tlv(Tlv::SslCn(name.expose().into()));
    }
    header.append_tlv(Tlv::Ssl(ssl));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> Introduction<'static> {
        Introduction {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            tls: None,
        }
    }

    #[test]
    fn a_header_has_addresses_of_one_family() {
        for (source, destination, expected) in [
            (
                "192.0.2.1:56324",
                "192.0.2.9:443",
                "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n",
            ),
            (
                "[::ffff:192.0.2.1]:1",
                "[::ffff:192.0.2.9]:2",
                "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n",
            ),
            (
                "[2001:db8::1]:1",
                "[2001:db8::2]:2",
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
            ),
            (
                "192.0.2.1:1",
                "[2001:db8::2]:2",
                "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n",
            ),
        ] {
            let client = client(source, destination);
            let header = ProxyProtocol::V1
                .header(Some(&client), Spoken::Mqtt)
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&header), expected);
        }
    }

    #[test]
    fn without_a_client_the_gateway_speaks_for_itself() {
        let header = ProxyProtocol::V1.header(None, Spoken::Mqtt).unwrap();
        assert_eq!(**header, *b"PROXY UNKNOWN\r\n");
        let v2 = ProxyProtocol::V2 { common_name: true };
        let header = v2.header(None, Spoken::Mqtt).unwrap();
        assert_eq!(header[12..], [0x20, 0, 0, 0]);
    }

    #[test]
    fn a_name_that_no_receiver_takes_is_refused() {
        let secret = Secret::new("x".repeat(1025));
        let tls = IntroducedTls {
            version: "TLSv1.3",
            server_name: None,
            certificate: Shown::Now,
            common_name: Some(&secret),
        };
        let client = Introduction {
            tls: Some(tls),
            ..client("192.0.2.1:1", "192.0.2.9:2")
        };
        let header =
            |common_name| ProxyProtocol::V2 { common_name }.header(Some(&client), Spoken::Mqtt);
        assert!(header(true).is_err());
        assert!(header(false).is_ok());
    }
}
