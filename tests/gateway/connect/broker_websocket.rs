//! MQTT to a broker's WebSocket port: whatever the client came by, the broker sees a WebSocket.

use futures_util::{SinkExt, StreamExt};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{config, lab, mqtt_client, problem};
use crate::harness::lab::SECRET;
use crate::harness::mqtt::{
    Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Wire, publish,
};
use crate::harness::scripted::Peer;
use crate::harness::{PATIENCE, Scripted};

const LINES: &str = "websocket_path = \"/mqtt?tenant=1\"";

/// The broker's end of a WebSocket of the gateway.
struct Broker(WebSocketStream<TcpStream>);

impl Broker {
    /// Takes the gateway's opening as it should be, and gives its head.
    async fn accept(server: &Scripted) -> (Self, String) {
        let mut peer = server.accept().await;
        let head = peer.head_as_sent().await;
        peer.say(&answer(&head, "")).await;
        let socket = WebSocketStream::from_raw_socket(peer.stream, Role::Server, None).await;
        (Self(socket), head)
    }

    async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.0.next());
        next.await.expect("nothing comes").and_then(Result::ok)
    }

    /// The next bytes; panics unless they come in binary messages.
    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next().await {
                Some(Message::Binary(more)) => bytes.extend_from_slice(&more),
                other => panic!("{other:?} after {bytes:?}"),
            }
        }
        bytes
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let prefix = format!("{name}: ");
    let lines = head.lines();
    let found: Vec<_> = lines
        .filter(|line| line.to_ascii_lowercase().starts_with(&prefix))
        .collect();
    assert_eq!(found.len(), 1, "{name} in {head}");
    &found[0][prefix.len()..]
}

/// The 101 to `head`, but for what is left out.
fn answer(head: &str, without: &str) -> String {
    let fields = [
        "Upgrade: websocket".to_owned(),
        "Connection: Upgrade".to_owned(),
        format!(
            "Sec-WebSocket-Accept: {}",
            derive_accept_key(field(head, "sec-websocket-key").as_bytes())
        ),
        format!(
            "Sec-WebSocket-Protocol: {}",
            field(head, "sec-websocket-protocol")
        ),
    ];
    let fields = fields
        .into_iter()
        .filter(|field| !field.starts_with(without) || without.is_empty());
    let fields: Vec<String> = fields.collect();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n{}\r\n\r\n",
        fields.join("\r\n")
    )
}

/// A session of this client that the broker has accepted.
async fn session(server: &Scripted, wire: &mut Wire, version: Version) -> Broker {
    let connect = Connect::with_password(version, SECRET);
    wire.send(&connect.bytes()).await;
    let (mut broker, _) = Broker::accept(server).await;
    assert_eq!(broker.bytes(1).await, connect.bytes());
    broker.say(version.accepted()).await;
    assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
    broker
}

#[tokio::test]
async fn every_version_and_transport_reaches_the_brokers_websocket() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let server = Scripted::start().await;
            let lab = lab(&server, LINES).await;
            let mut wire = mqtt_client(&lab, transport).await;
            let connect = Connect::with_password(version, SECRET);
            wire.send(&connect.bytes()).await;
            let (mut broker, head) = Broker::accept(&server).await;
            assert!(
                head.starts_with("GET /mqtt?tenant=1 HTTP/1.1\r\n"),
                "{head}"
            );
            assert_eq!(field(&head, "host"), server.address.to_string());
            assert_eq!(field(&head, "sec-websocket-version"), "13");
            let subprotocol = match version {
                Version::V31 => "mqttv3.1",
                Version::V311 | Version::V5 => "mqtt",
            };
            assert_eq!(field(&head, "sec-websocket-protocol"), subprotocol);
            assert!(!head.contains(SECRET), "{head}");
            assert_eq!(broker.bytes(1).await, connect.bytes());
            broker.say(version.accepted()).await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
        }
    }
}

#[tokio::test]
async fn a_broker_is_asked_for_the_host_that_its_upstream_says() {
    let server = Scripted::start().await;
    let by_name = format!("localhost:{}", server.address.port());
    for (host, expected) in [
        ("as_is", &*by_name),
        ("server", &*by_name),
        ("broker.internal", "broker.internal"),
        ("broker.internal:81", "broker.internal:81"),
    ] {
        let lines = format!("{LINES}\nhost = \"{host}\"");
        let lab = config(&by_name, &lines).start().await;
        for transport in EVERY_TRANSPORT {
            let mut wire = mqtt_client(&lab, transport).await;
            wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
                .await;
            let (_broker, head) = Broker::accept(&server).await;
            assert_eq!(field(&head, "host"), expected, "{host}");
        }
        // Whoever asks whether it is well, too.
        let lines = format!("{lines}\n[upstreams.raw.health]\ncheck = \"mqtt\"");
        let _lab = config(&by_name, &lines).start().await;
        let (_broker, head) = Broker::accept(&server).await;
        assert_eq!(field(&head, "host"), expected, "{host}");
    }
}

#[tokio::test]
async fn large_packets_pass_both_ways() {
    for transport in EVERY_TRANSPORT {
        let server = Scripted::start().await;
        let lab = lab(&server, LINES).await;
        let mut wire = mqtt_client(&lab, transport).await;
        let mut broker = session(&server, &mut wire, Version::V5).await;
        let payload: Vec<u8> = (0..1 << 20_u32).map(|n| (n % 251) as u8).collect();
        let large = publish(Version::V5, "m/d/c/ch", &payload);
        let ((), received) = tokio::join!(wire.send(&large), broker.bytes(large.len()));
        assert!(received == large, "{transport:?}");
        let ((), received) = tokio::join!(broker.say(&large), wire.packet());
        assert!(received.unwrap() == large, "{transport:?}");
    }
}

#[tokio::test]
async fn packets_and_messages_need_not_align() {
    let server = Scripted::start().await;
    let lab = lab(&server, LINES).await;
    let mut wire = mqtt_client(&lab, Transport::Tls).await;
    let mut broker = session(&server, &mut wire, Version::V311).await;
    let packet = publish(Version::V311, "t", b"hello");
    let three = packet.repeat(3);
    for part in three.chunks(4) {
        broker.say(part).await;
        let ping = Message::Ping("there?".into());
        broker.0.send(ping).await.unwrap();
        assert_eq!(broker.next().await, Some(Message::Pong("there?".into())));
    }
    broker.say(&three).await;
    for _ in 0..6 {
        assert_eq!(wire.packet().await, Some(packet.clone()));
    }
}

#[tokio::test]
async fn each_side_hears_of_the_others_end() {
    for transport in EVERY_TRANSPORT {
        let server = Scripted::start().await;
        let lab = lab(&server, LINES).await;
        let mut wire = mqtt_client(&lab, transport).await;
        let mut broker = session(&server, &mut wire, Version::V5).await;
        wire.close().await;
        match broker.next().await {
            Some(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Normal),
            other => panic!("{other:?} instead of Close"),
        }

        let mut wire = mqtt_client(&lab, transport).await;
        let mut broker = session(&server, &mut wire, Version::V5).await;
        broker.0.close(None).await.unwrap();
        wire.end().await;
    }
}

#[tokio::test]
async fn a_broker_that_breaks_off_its_websocket_is_told_from_one_that_closes_it() {
    // A Close; an end without one; what no broker sends.
    for (bytes, code) in [
        (&b"\x88\x02\x03\xe8"[..], 1000),
        (b"", 1011),
        (b"\x82\x7f", 1011),
        (b"\x81\x01x", 1011),
    ] {
        let server = Scripted::start().await;
        let lab = lab(&server, LINES).await;
        let mut wire = mqtt_client(&lab, Transport::WebSocket).await;
        let mut broker = session(&server, &mut wire, Version::V5).await;
        let stream = broker.0.get_mut();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(wire.end().await, Some(code), "{bytes:02x?}");
    }
}

#[tokio::test]
async fn behind_a_clients_farewell_it_matters_to_nobody_how_its_broker_ends() {
    for (bytes, by_websocket) in [(&b""[..], true), (b"\x81\x01x", true), (b"", false)] {
        let server = Scripted::start().await;
        let lines = if by_websocket { LINES } else { "" };
        let lab = lab(&server, lines).await;
        let mut wire = mqtt_client(&lab, Transport::WebSocket).await;
        let connect = Connect::with_password(Version::V5, SECRET).bytes();
        let mut peer = if by_websocket {
            let mut broker = session(&server, &mut wire, Version::V5).await;
            wire.send(&[0xe0, 0]).await;
            assert_eq!(broker.bytes(1).await, [0xe0, 0]);
            Peer::new(broker.0.into_inner())
        } else {
            wire.send(&connect).await;
            let mut peer = server.accept().await;
            peer.bytes(connect.len()).await;
            peer.stream.write_all(Version::V5.accepted()).await.unwrap();
            wire.packet().await.unwrap();
            wire.send(&[0xe0, 0]).await;
            peer.bytes(2).await;
            peer
        };
        peer.stream.write_all(bytes).await.unwrap();
        if !by_websocket {
            let linger = Some(std::time::Duration::ZERO);
            SockRef::from(&peer.stream).set_linger(linger).unwrap();
        }
        drop(peer);
        assert_eq!(wire.end().await, Some(1000), "{bytes:02x?}");
    }
}

#[tokio::test]
async fn a_broker_that_opens_no_websocket_is_unavailable() {
    for version in EVERY_VERSION {
        for fault in [
            "404",
            "200",
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Protocol",
            "an extension",
        ] {
            let server = Scripted::start().await;
            let lab = lab(&server, LINES).await;
            let mut wire = mqtt_client(&lab, Transport::Tls).await;
            let connect = Connect::with_password(version, SECRET);
            wire.send(&connect.bytes()).await;
            let mut peer = server.accept().await;
            let head = peer.head_as_sent().await;
            let answer = match fault {
                "404" | "200" => format!("HTTP/1.1 {fault} No\r\nContent-Length: 0\r\n\r\n"),
                "an extension" => answer(&head, "").replace(
                    "\r\n\r\n",
                    "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
                ),
                field => answer(&head, field),
            };
            peer.say(&answer).await;
            wire.ends_with(&version.refused(3, 0x88)).await;
            // Nothing of the CONNECT has been sent.
            peer.closed().await;
        }
    }
}

#[tokio::test]
async fn a_broker_that_never_answers_the_opening_is_given_up() {
    let server = Scripted::start().await;
    let lines = format!("{LINES}\nconnect_timeout = \"200ms\"");
    let lab = lab(&server, &lines).await;
    let mut wire = mqtt_client(&lab, Transport::Tls).await;
    let connect = Connect::with_password(Version::V5, SECRET);
    wire.send(&connect.bytes()).await;
    let mut peer = server.accept().await;
    peer.head().await;
    wire.ends_with(&Version::V5.refused(3, 0x88)).await;
    peer.closed().await;
}

#[tokio::test]
async fn a_broker_that_breaks_the_rules_of_frames_ends_the_session() {
    // A text message; a masked frame; a reserved bit.
    for (bytes, code) in [
        (&b"\x81\x01x"[..], CloseCode::Unsupported),
        (&b"\x82\x81\0\0\0\0x"[..], CloseCode::Protocol),
        (&b"\xc2\x01x"[..], CloseCode::Protocol),
    ] {
        let server = Scripted::start().await;
        let lab = lab(&server, LINES).await;
        let mut wire = mqtt_client(&lab, Transport::Tls).await;
        let mut broker = session(&server, &mut wire, Version::V5).await;
        broker.0.get_mut().write_all(bytes).await.unwrap();
        match broker.next().await {
            Some(Message::Close(Some(frame))) => assert_eq!(frame.code, code),
            other => panic!("{other:?} instead of Close"),
        }
        wire.end().await;
    }
}

#[tokio::test]
async fn a_refused_client_reaches_no_websocket() {
    let server = Scripted::start().await;
    let lab = lab(&server, LINES).await;
    let mut wire = mqtt_client(&lab, Transport::Tls).await;
    let connect = Connect::with_password(Version::V5, "another");
    wire.send(&connect.bytes()).await;
    wire.ends_with(&Version::V5.not_authorized()).await;
    server.assert_undialled().await;
}

#[tokio::test]
async fn a_path_that_is_none_is_refused() {
    for path in ["mqtt", "/a b", "http://broker/mqtt", "/a#b"] {
        let problem = problem(&format!("websocket_path = \"{path}\"")).await;
        assert!(
            problem.contains("upstreams.raw.websocket_path"),
            "{problem}"
        );
    }
}
