//! The PROXY protocol from those in front: whom a connection is from, before anything else is read.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Lab;
use crate::harness::client::{Client, EVERY_PROTOCOL, Protocol};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, Version, Wire};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x09\xdc\x04\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
/// With a block that would be none, and is to be ignored.
const V2_LOCAL_AND_MORE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\xff\x00\x03xyz";

/// Listeners that this machine, or nobody here, has to introduce its clients to.
async fn lab(config: Config) -> Lab {
    let listener = |name: &str, peers: &str, more: &str| {
        format!(
            "[listeners.{name}]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"{peers}\"]\n{more}"
        )
    };
    config
        .tables(&listener("behind", "127.0.0.0/8", ""))
        .tables(&listener("elsewhere", "192.0.2.7", ""))
        .tables(&listener("plain", "127.0.0.1", "protocol = \"http\""))
        .tables(&listener(
            "mqtts_behind",
            "127.0.0.1",
            "protocol = \"mqtts\"\nupstream = \"broker\"",
        ))
        .timeouts("handshake = \"300ms\"")
        .start()
        .await
}

fn device(lab: &Lab, listener: &str) -> Client {
    let identity = lab.authority.device(SECRET);
    Client::new(
        lab.address_of(listener),
        lab.authority.der(),
        Some(identity),
    )
}

fn path(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::WebSocket => "/ws/m",
        Protocol::Http1 | Protocol::Http2 => "/http/m",
    }
}

/// Sends these bytes and waits for the end; what comes until then.
async fn says(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn the_address_that_a_listed_peer_tells_is_the_clients() {
    let lab = lab(Config::x509()).await;
    for protocol in EVERY_PROTOCOL {
        for (header, expected) in [
            (V1, "192.0.2.1"),
            (V2, "192.0.2.1"),
            (V2_LOCAL, "127.0.0.1"),
            (V2_LOCAL_AND_MORE, "127.0.0.1"),
        ] {
            let client = device(&lab, "behind").behind(header);
            let answer = client.send(protocol, path(protocol), &[]).await.unwrap();
            assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.all("x-forwarded-for"), [expected], "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_listed_peer_that_does_not_say_whom_it_connects_for_is_refused() {
    let lab = lab(Config::x509()).await;
    let wrong = [
        &b""[..],
        b"PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 \r\n",
        b"PROXY TCP4 192.0.2.300 192.0.2.9 1 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c............",
    ];
    for header in wrong {
        let client = device(&lab, "behind").behind(header);
        assert!(client.get("/http/m").await.is_err(), "{header:?}");
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_header_that_is_not_complete_in_time_ends_the_connection() {
    let lab = lab(Config::x509()).await;
    for part in [&V1[..20], &V2[..20], &V1[..1], b""] {
        let ended = says(lab.address_of("behind"), part);
        let answer = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert_eq!(answer.unwrap(), b"", "{part:?}");
    }
}

#[tokio::test]
async fn a_header_from_a_peer_that_is_not_listed_is_no_header() {
    let lab = lab(Config::x509()).await;
    for listener in ["elsewhere", "edge"] {
        for header in [V1, V2] {
            let client = device(&lab, listener).behind(header);
            assert!(client.get("/http/m").await.is_err(), "{listener}");
        }
        let answer = device(&lab, listener).get("/http/m").await.unwrap();
        assert_eq!(answer.status, 200, "{listener}");
    }
    assert_eq!(lab.origin.requests().len(), 2);
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_with_what_follows_it() {
    let lab = lab(Config::key()).await;
    let request = format!(
        "GET /http/m HTTP/1.1\r\nHost: x\r\nAuthorization: Client {SECRET}\r\nConnection: close\r\n\r\n"
    );
    for header in [V1, V2] {
        let bytes = [header, request.as_bytes()].concat();
        for cut in 0..header.len() + 3 {
            let (first, second) = bytes.split_at(cut);
            let mut stream = TcpStream::connect(lab.address_of("plain")).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(second).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{cut} {answer}");
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.all("x-forwarded-for"), ["192.0.2.1"]);
        }
    }
}

#[tokio::test]
async fn mqtt_goes_through_a_proxy_in_front_as_well() {
    let lab = lab(Config::x509()).await;
    let version = Version::V5;
    let connect = Connect::with_password(version, SECRET);
    let client = device(&lab, "mqtts_behind").behind(V2);
    let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
    wire.send(&connect.bytes()).await;
    assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
    let unproxied = device(&lab, "mqtts_behind");
    assert!(Wire::over_tls(&unproxied, &["mqtt"]).await.is_err());
    assert_eq!(lab.broker.conversations().len(), 1);
}

#[tokio::test]
async fn what_is_no_network_is_a_mistake() {
    let mut lab = lab(Config::x509()).await;
    for wrong in ["10.0.0.0/33", "localhost", "10.0.0"] {
        let right = lab.config.tables.clone();
        lab.config.tables = right.replace("127.0.0.0/8", wrong);
        let error = lab.settings().unwrap_err().to_string();
        assert!(
            error.contains("listeners.behind.proxy_protocol_from"),
            "{error}"
        );
        lab.config.tables = right;
    }
}
