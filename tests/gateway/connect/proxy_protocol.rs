//! The PROXY protocol to servers: its header tells of the one client that the connection is for.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{lab, problem};
use crate::harness::client::Client;
use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, Version};
use crate::harness::scripted::Peer;
use crate::harness::{Lab, Scripted};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;

/// A header of version 2, read as `proxy-protocol.txt` §2.2 says.
#[derive(Debug)]
struct Header {
    source: SocketAddr,
    destination: SocketAddr,
    fields: Vec<(u8, Vec<u8>)>,
}

impl Header {
    async fn read(peer: &mut Peer) -> Self {
        let front = peer.bytes(16).await;
        assert_eq!(front[..12], *SIGNATURE);
        assert_eq!(front[12..14], [0x21, 0x11], "PROXY, TCP over IPv4");
        let length = u16::from_be_bytes([front[14], front[15]]);
        let rest = peer.bytes(length.into()).await;
        let address = |ip: usize, port: usize| {
            let ip: [u8; 4] = rest[ip..ip + 4].try_into().unwrap();
            let port: [u8; 2] = rest[port..port + 2].try_into().unwrap();
            SocketAddr::from((ip, u16::from_be_bytes(port)))
        };
        Self {
            source: address(0, 8),
            destination: address(4, 10),
            fields: fields(&rest[12..]),
        }
    }

    fn field(&self, kind: u8) -> Option<&[u8]> {
        field(&self.fields, kind)
    }

    /// The flags, the verdict and the fields of what TLS has shown.
    fn ssl(&self) -> (u8, u32, Vec<(u8, Vec<u8>)>) {
        let ssl = self.field(SSL).unwrap();
        let verdict = u32::from_be_bytes(ssl[1..5].try_into().unwrap());
        (ssl[0], verdict, fields(&ssl[5..]))
    }
}

fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((&[kind, high, low], rest)) = bytes.split_first_chunk() {
        let (value, rest) = rest.split_at(u16::from_be_bytes([high, low]).into());
        found.push((kind, value.to_vec()));
        bytes = rest;
    }
    assert_eq!(bytes, b"");
    found
}

fn field(fields: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
    let found = fields.iter().find(|(known, _)| *known == kind);
    found.map(|(_, value)| value.as_slice())
}

/// An MQTT client that has sent `connect`.
async fn mqtt(lab: &Lab, client: &Client, connect: &Connect) -> TlsStream<TcpStream> {
    let mut stream = client.connect(&["mqtt"]).await.unwrap();
    stream.write_all(&connect.bytes()).await.unwrap();
    let peer = stream.get_ref().0.peer_addr().unwrap();
    assert_eq!(peer, lab.address_of("raw"));
    stream
}

fn device(lab: &Lab) -> Client {
    let device = lab.authority.device(SECRET);
    Client::new(lab.address_of("raw"), lab.authority.der(), Some(device))
}

fn source(stream: &TlsStream<TcpStream>) -> SocketAddr {
    stream.get_ref().0.local_addr().unwrap()
}

#[tokio::test]
async fn version_1_says_both_addresses_before_the_connect() {
    let broker = Scripted::start().await;
    let lab = lab(&broker, "proxy_protocol = \"v1\"").await;
    let connect = Connect::with_password(Version::V5, SECRET);
    let stream = mqtt(&lab, &device(&lab), &connect).await;
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        source(&stream).port(),
        lab.address_of("raw").port()
    );
    let mut peer = broker.accept().await;
    let header = peer.bytes(expected.len()).await;
    assert_eq!(String::from_utf8(header).unwrap(), expected);
    assert_eq!(peer.bytes(connect.bytes().len()).await, connect.bytes());
}

#[tokio::test]
async fn version_2_says_what_tls_has_shown_but_not_the_secret() {
    let broker = Scripted::start().await;
    let lab = lab(&broker, "proxy_protocol = \"v2\"").await;
    let connect = Connect::with_password(Version::V311, SECRET);
    let stream = mqtt(&lab, &device(&lab), &connect).await;
    let mut peer = broker.accept().await;
    let header = Header::read(&mut peer).await;
    assert_eq!(header.source, source(&stream));
    assert_eq!(header.destination, lab.address_of("raw"));
    assert_eq!(header.field(ALPN), Some(&b"mqtt"[..]));
    assert_eq!(header.field(AUTHORITY), Some(&b"localhost"[..]));
    let (flags, verdict, ssl) = header.ssl();
    assert_eq!((flags, verdict), (0b111, 0), "TLS, a certificate, verified");
    assert_eq!(field(&ssl, SSL_VERSION), Some(&b"TLSv1.3"[..]));
    assert_eq!(field(&ssl, SSL_CN), None);
    assert_eq!(peer.bytes(connect.bytes().len()).await, connect.bytes());
}

#[tokio::test]
async fn the_common_name_is_said_where_it_is_asked_for() {
    let broker = Scripted::start().await;
    let lines = "proxy_protocol = \"v2\"\nproxy_protocol_cn = true";
    let lab = lab(&broker, lines).await;
    let connect = Connect::with_password(Version::V311, SECRET);
    let _stream = mqtt(&lab, &device(&lab), &connect).await;
    let header = Header::read(&mut broker.accept().await).await;
    let (_, _, ssl) = header.ssl();
    assert_eq!(field(&ssl, SSL_CN), Some(SECRET.as_bytes()));
}

#[tokio::test]
async fn a_resumed_session_has_shown_its_certificate_earlier() {
    let broker = Scripted::start().await;
    let lab = lab(&broker, "proxy_protocol = \"v2\"").await;
    let connect = Connect::with_password(Version::V311, SECRET);
    let client = device(&lab);
    let mut expected = [0b111, 0b101].into_iter();
    for flags in expected.by_ref() {
        let mut stream = mqtt(&lab, &client, &connect).await;
        let mut peer = broker.accept().await;
        let header = Header::read(&mut peer).await;
        assert_eq!((header.ssl().0, header.ssl().1), (flags, 0));
        // The ticket comes with the first answer at the latest.
        peer.stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_not_called_verified() {
    let server = Scripted::start().await;
    let lines = "proxy_protocol = \"v2\"\nproxy_protocol_cn = true";
    let tables = crate::harness::scripted::tables_with(server.address, lines);
    let lab = crate::harness::lab::Config::key()
        .tables(&tables)
        .start()
        .await;
    let client = lab.anonymous();
    let request = async {
        let fields = [("authorization", "Client abc")];
        let protocol = crate::harness::Protocol::Http1;
        client.send(protocol, "/raw/m", &fields).await.unwrap()
    };
    let answer = async {
        let mut peer = server.accept().await;
        let header = Header::read(&mut peer).await;
        let (flags, verdict, ssl) = header.ssl();
        assert_eq!((flags, verdict), (0b001, 1));
        assert_eq!(field(&ssl, SSL_CN), None);
        assert_eq!(header.field(ALPN), Some(&b"http/1.1"[..]));
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        peer
    };
    let (answer, _peer) = tokio::join!(request, answer);
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn mqtt_inside_a_websocket_is_introduced_as_mqtt() {
    let broker = Scripted::start().await;
    let lab = lab(&broker, "proxy_protocol = \"v2\"").await;
    let fields = [("sec-websocket-protocol", "mqtt")];
    let opened = lab.device().open_websocket("/raw_mqtt", &fields).await;
    let mut wire = crate::harness::mqtt::Wire::of_websocket(opened.unwrap().0);
    let connect = Connect::with_password(Version::V5, SECRET);
    wire.send(&connect.bytes()).await;
    let mut peer = broker.accept().await;
    let header = Header::read(&mut peer).await;
    assert_eq!(header.field(ALPN), Some(&b"mqtt"[..]));
    assert_eq!(peer.bytes(connect.bytes().len()).await, connect.bytes());
}

#[tokio::test]
async fn every_request_has_a_connection_with_a_header_of_its_own() {
    let server = Scripted::start().await;
    let lab = lab(&server, "proxy_protocol = \"v1\"").await;
    let mut client = lab
        .device()
        .keep(crate::harness::Protocol::Http1)
        .await
        .unwrap();
    let mut ports = Vec::new();
    for _ in 0..2 {
        let answer = async {
            let mut peer = server.accept().await;
            let head = peer.head().await;
            let (header, request) = head.split_once("\r\n").unwrap();
            assert!(request.starts_with("get /raw/m http/1.1\r\n"), "{head}");
            let words: Vec<&str> = header.split(' ').collect();
            assert_eq!(words[..4], ["proxy", "tcp4", "127.0.0.1", "127.0.0.1"]);
            ports.push(words[4].to_owned());
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            peer.closed().await;
        };
        let (answered, ()) = tokio::join!(client.get("/raw/m", &[]), answer);
        assert_eq!(answered.unwrap().body, "ok");
    }
    assert_eq!(ports[0], ports[1], "one client, one address");
}

#[tokio::test]
async fn a_websocket_is_introduced_before_its_opening() {
    let server = Scripted::start().await;
    let lab = lab(&server, "proxy_protocol = \"v1\"").await;
    let device = lab.device();
    let opening = tokio::spawn(async move { device.open_websocket("/raw/ws", &[]).await });
    let head = server.accept().await.head().await;
    assert!(
        head.starts_with("proxy tcp4 127.0.0.1 127.0.0.1 "),
        "{head}"
    );
    assert!(head.contains("\r\nget /raw/ws http/1.1\r\n"), "{head}");
    opening.abort();
}

#[tokio::test]
async fn the_common_name_needs_the_version_that_can_carry_it() {
    for lines in ["", "proxy_protocol = \"v1\"\n"] {
        let problem = problem(&format!("{lines}proxy_protocol_cn = true")).await;
        assert!(
            problem.contains("upstreams.raw.proxy_protocol_cn"),
            "{problem}"
        );
    }
}
