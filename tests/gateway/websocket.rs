//! WebSockets (RFC 6455): which openings are passed on, what flows through an open one, and how it
//! ends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::client::Refused;
use crate::harness::lab::{Config, SECRET};
use crate::harness::scripted::{Peer, websocket_answer};
use crate::harness::{Answer, Authority, Client, Lab, Protocol, Scripted};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Longer than anything here takes; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open(client: &Client, path: &str) -> Socket {
    client.open_websocket(path, &[]).await.unwrap().0
}

async fn refusal(client: &Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    match client.open_websocket(path, fields).await {
        Err(Refused::Answered(answer)) => *answer,
        other => panic!("{path} {fields:?}: {other:?}"),
    }
}

/// What comes next, Pong aside.
async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next())
            .await
            .expect("nothing comes");
        if !matches!(message, Some(Ok(Message::Pong(_)))) {
            return message;
        }
    }
}

async fn echoed(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    assert_eq!(next(socket).await.unwrap().unwrap(), Message::text(text));
}

async fn closes_with(socket: &mut Socket, code: CloseCode) {
    match next(socket).await {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(frame.code, code),
        other => panic!("{other:?} instead of Close"),
    }
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// An opening as bytes, with this method and these last fields.
fn opening(method: &str, connection: &str, fields: &str) -> String {
    format!(
        "{method} /ws/m HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n{connection}\r\n\
         {fields}\r\n"
    )
}

fn usual_fields() -> String {
    format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n")
}

/// Sends bytes and reads the head of the answer.
async fn head_of_answer(client: &Client, bytes: &str) -> (TlsStream<TcpStream>, String) {
    let mut stream = client.connect(&["http/1.1"]).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("no answer");
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    (stream, head)
}

#[tokio::test]
async fn an_opening_is_recognised_whatever_else_connection_says() {
    let lab = Lab::x509().await;
    for connection in [
        "Connection: Upgrade",
        "Connection: upgrade",
        "Connection: keep-alive, Upgrade",
        "Connection: keep-alive\r\nConnection: Upgrade",
        "Connection: Upgrade, authorization",
    ] {
        let bytes = opening("GET", connection, &usual_fields());
        let (_, head) = head_of_answer(&lab.device(), &bytes).await;
        assert!(head.starts_with("http/1.1 101"), "{connection}: {head}");
        let accept = derive_accept_key(KEY.as_bytes()).to_ascii_lowercase();
        assert!(head.contains(&accept), "{head}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("connection"), ["Upgrade"]);
        assert_eq!(request.all("upgrade"), ["websocket"]);
        assert_eq!(request.all("authorization"), [format!("Client {SECRET}")]);
    }
}

#[tokio::test]
async fn what_asks_for_no_websocket_opens_none() {
    let lab = Lab::x509().await;
    for connection in ["X: y", "Connection: keep-alive", "Connection: Upgraded"] {
        let bytes = opening("GET", connection, &usual_fields());
        let (_, head) = head_of_answer(&lab.device(), &bytes).await;
        assert!(head.starts_with("http/1.1 200"), "{connection}: {head}");
        let request = lab.origin.requests().pop().unwrap();
        assert!(!request.headers.contains_key("upgrade"));
    }
}

#[tokio::test]
async fn subprotocols_and_extensions_are_between_the_two_ends() {
    let lab = Lab::x509().await;
    let fields = [
        ("sec-websocket-protocol", "mqtt"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "https://example.com"),
    ];
    let (_, answer) = lab.device().open_websocket("/ws/m", &fields).await.unwrap();
    assert_eq!(answer.headers["sec-websocket-protocol"], "mqtt");
    let request = lab.origin.only_request();
    for (name, value) in fields {
        assert_eq!(request.all(name), [value]);
    }
}

#[tokio::test]
async fn an_opening_of_another_version_is_told_which_one_is_spoken() {
    let lab = Lab::x509().await;
    for version in [
        "Sec-WebSocket-Version: 8\r\n",
        "Sec-WebSocket-Version: 14\r\n",
        "",
    ] {
        let fields = format!("{version}Sec-WebSocket-Key: {KEY}\r\n");
        let bytes = opening("GET", "Connection: Upgrade", &fields);
        let (_, head) = head_of_answer(&lab.device(), &bytes).await;
        assert!(head.starts_with("http/1.1 426"), "{head}");
        assert!(head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_malformed_opening_is_refused() {
    let lab = Lab::x509().await;
    let version = "Sec-WebSocket-Version: 13\r\n";
    let usual = usual_fields();
    for (method, fields) in [
        ("GET", version.to_owned()),
        ("GET", format!("{version}Sec-WebSocket-Key: short\r\n")),
        ("GET", format!("{version}Sec-WebSocket-Key: !!!!\r\n")),
        ("GET", format!("{usual}Sec-WebSocket-Key: {KEY}\r\n")),
        ("POST", format!("{usual}Content-Length: 0\r\n")),
        ("PUT", usual.clone()),
        ("GET", format!("{usual}Content-Length: 5\r\n\r\nhello")),
        (
            "GET",
            format!("{usual}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
        ),
    ] {
        let bytes = opening(method, "Connection: Upgrade", &fields);
        let (_, head) = head_of_answer(&lab.device(), &bytes).await;
        assert!(
            head.starts_with("http/1.1 400"),
            "{method} {fields}: {head}"
        );
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn an_opening_without_the_right_credential_never_reaches_the_upstream() {
    let lab = Lab::x509().await;
    let answer = refusal(&lab.device(), "/ws/m", &[("authorization", "x")]).await;
    assert_eq!(answer.status, 403);
    lab.origin.assert_untouched();
    let lab = Lab::key().await;
    let answer = refusal(&lab.anonymous(), "/ws/m", &[]).await;
    assert_eq!(answer.status, 401);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn an_upstream_that_refuses_an_opening_is_heard() {
    let lab = Lab::x509().await;
    let device = lab.device();
    assert_eq!(refusal(&device, "/ws/refuse", &[]).await.status, 403);
    assert_eq!(refusal(&device, "/ws/plain-200", &[]).await.status, 200);
    // Nothing of them is left to be used again.
    let before = lab.origin.connections();
    echoed(&mut open(&device, "/ws/m").await, "hello").await;
    assert_eq!(lab.origin.connections(), before + 1);
}

#[tokio::test]
async fn an_answer_that_only_looks_like_agreement_opens_nothing() {
    let lab = Lab::x509().await;
    let answer = refusal(&lab.device(), "/ws/wrong-accept", &[]).await;
    assert_eq!(answer.status, 502);
    for fields in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n",
        "Connection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: ACCEPT\r\n",
    ] {
        let upstream = Scripted::start().await;
        let lab = Config::x509().tables(&upstream.tables()).start().await;
        let bytes = opening("GET", "Connection: Upgrade", &usual_fields()).replace("/ws/", "/raw/");
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            let fields = fields.replace("ACCEPT", &derive_accept_key(KEY.as_bytes()));
            peer.say(&format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))
                .await;
            peer.closed().await;
        };
        let device = lab.device();
        let ((_, head), ()) = tokio::join!(head_of_answer(&device, &bytes), origin);
        assert!(head.starts_with("http/1.1 502"), "{fields}: {head}");
    }
}

#[tokio::test]
async fn messages_of_every_size_arrive_both_ways() {
    let lab = Lab::x509().await;
    let mut socket = open(&lab.device(), "/ws/m").await;
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        socket.send(Message::binary(bytes.clone())).await.unwrap();
        let echo = next(&mut socket).await.unwrap().unwrap();
        assert!(echo == Message::binary(bytes), "{length}");
    }
    socket.close(None).await.unwrap();
    assert!(matches!(
        next(&mut socket).await,
        Some(Ok(Message::Close(_)))
    ));
}

fn fragment(payload: &'static str, data: Data, is_final: bool) -> Message {
    let header = FrameHeader {
        is_final,
        opcode: OpCode::Data(data),
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    Message::Frame(Frame::from_payload(header, payload.into()))
}

#[tokio::test]
async fn fragments_with_pings_between_them_arrive() {
    let lab = Lab::x509().await;
    let mut socket = open(&lab.device(), "/ws/m").await;
    socket
        .send(fragment("one ", Data::Text, false))
        .await
        .unwrap();
    socket.send(Message::Ping("p".into())).await.unwrap();
    let pong = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert_eq!(pong.unwrap().unwrap(), Message::Pong("p".into()));
    socket
        .send(fragment("two ", Data::Continue, false))
        .await
        .unwrap();
    socket
        .send(fragment("three", Data::Continue, true))
        .await
        .unwrap();
    assert_eq!(
        next(&mut socket).await.unwrap().unwrap(),
        Message::text("one two three")
    );
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_the_end() {
    const COUNT: usize = 64;
    let lab = Lab::x509().await;
    let socket = open(&lab.device(), "/ws/m").await;
    let (mut sink, mut stream) = socket.split();
    let (full, is_full) = tokio::sync::oneshot::channel();
    // Nothing is read until sending has come to a stop: more than all buffers on the way hold.
    let sender = tokio::spawn(async move {
        let message = || Message::binary(vec![7; 1 << 20]);
        let mut full = Some(full);
        for _ in 0..COUNT {
            let mut sending = std::pin::pin!(sink.send(message()));
            if tokio::time::timeout(Duration::from_millis(500), &mut sending)
                .await
                .is_err()
            {
                if let Some(full) = full.take() {
                    full.send(()).unwrap();
                }
                sending.await.unwrap();
            }
        }
    });
    is_full.await.expect("64 MiB fit somewhere on the way");
    for _ in 0..COUNT {
        let message = tokio::time::timeout(PATIENCE, stream.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(message.len(), 1 << 20);
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn silence_ends_a_websocket_and_traffic_does_not() {
    let lab = Config::x509()
        .route("idle_timeout = \"300ms\"")
        .start()
        .await;
    let mut socket = open(&lab.device(), "/ws/m").await;
    for _ in 0..10 {
        echoed(&mut socket, "hello").await;
    }
    closes_with(&mut socket, CloseCode::Away).await;
}

#[tokio::test]
async fn a_drain_says_goodbye_between_two_frames() {
    let lab = Lab::x509().await;
    let mut socket = open(&lab.device(), "/ws/m").await;
    echoed(&mut socket, "hello").await;
    let drain = tokio::spawn(lab.drain(PATIENCE));
    closes_with(&mut socket, CloseCode::Away).await;
    assert!(next(&mut socket).await.is_none());
    assert_eq!(drain.await.unwrap(), 0);
}

/// A lab with an open WebSocket between a bare client and a scripted upstream.
async fn bare_tunnel() -> (Lab, TlsStream<TcpStream>, Peer) {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let bytes = opening("GET", "Connection: Upgrade", &usual_fields()).replace("/ws/", "/raw/");
    let origin = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        let accept = derive_accept_key(KEY.as_bytes());
        peer.say(&format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ))
        .await;
        peer
    };
    let device = lab.device();
    let ((client, head), peer) = tokio::join!(head_of_answer(&device, &bytes), origin);
    assert!(head.starts_with("http/1.1 101"), "{head}");
    (lab, client, peer)
}

#[tokio::test]
async fn a_drain_waits_for_the_end_of_a_frame() {
    let (lab, mut client, mut peer) = bare_tunnel().await;
    // Half of a text frame of four bytes.
    peer.stream.write_all(&[0x81, 4, b'a', b'b']).await.unwrap();
    let mut half = [0; 4];
    client.read_exact(&mut half).await.unwrap();
    let drain = tokio::spawn(lab.drain(PATIENCE));
    // Upwards a frame may begin, so the upstream hears of it at once; it is a client's Close.
    let mut close = [0; 8];
    peer.stream.read_exact(&mut close).await.unwrap();
    assert_eq!(close, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
    peer.stream.write_all(b"cd").await.unwrap();
    let mut rest = [0; 6];
    client.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, [b'c', b'd', 0x88, 2, 0x03, 0xe9]);
    client
        .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9])
        .await
        .unwrap();
    assert_eq!(drain.await.unwrap(), 0);
}

#[tokio::test]
async fn a_websocket_survives_a_reload_that_keeps_its_authority() {
    let lab = Lab::x509().await;
    let mut socket = open(&lab.device(), "/ws/m").await;
    for _ in 0..3 {
        lab.reload().unwrap();
        echoed(&mut socket, "hello").await;
    }
}

#[tokio::test]
async fn an_opening_that_is_under_way_survives_a_reload() {
    let server = Scripted::start().await;
    let lab = Config::x509().tables(&server.tables()).start().await;
    let device = lab.device();
    let opening = async {
        let (mut socket, _) = device.open_websocket("/raw/m", &[]).await.unwrap();
        assert_eq!(
            next(&mut socket).await.unwrap().unwrap(),
            Message::text("hi")
        );
    };
    let origin = async {
        let mut peer = server.accept().await;
        let head = peer.head_as_sent().await;
        // A connection without a request ends when it hears of the reload.
        let mut idle = lab.device().connect(&["http/1.1"]).await.unwrap();
        lab.reload().unwrap();
        assert_eq!(idle.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        peer.say(&websocket_answer(&head)).await;
        peer.stream.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
        peer
    };
    tokio::join!(opening, origin);
}

#[tokio::test]
async fn a_websocket_ends_when_its_authority_is_removed() {
    let lab = Lab::x509().await;
    let mut socket = open(&lab.device(), "/ws/m").await;
    echoed(&mut socket, "hello").await;
    lab.write("certs/ca.crt", Authority::new("Another CA").pem());
    lab.reload().unwrap();
    closes_with(&mut socket, CloseCode::Policy).await;
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_upstreams_side() {
    let (_lab, client, peer) = bare_tunnel().await;
    drop(client);
    tokio::time::timeout(PATIENCE, peer.closed()).await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_vanishes_ends_the_clients_side() {
    let (_lab, mut client, peer) = bare_tunnel().await;
    drop(peer);
    let mut nothing = Vec::new();
    // With or without TLS's own goodbye.
    let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut nothing))
        .await
        .unwrap();
    assert_eq!(nothing, b"");
}

#[tokio::test]
async fn two_hundred_websockets_at_once_stay_apart() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(open(&device, "/ws/m").await);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let text = Message::text(format!("message {number}"));
        socket.send(text).await.unwrap();
    }
    for (number, socket) in sockets.iter_mut().enumerate().rev() {
        let echo = next(socket).await.unwrap().unwrap();
        assert_eq!(echo, Message::text(format!("message {number}")));
    }
    let open = lab.admin("/metrics").await.1;
    assert!(
        open.contains("portcullis_websockets_active 200\n"),
        "{open}"
    );
}

#[tokio::test]
async fn an_opening_over_http2_is_no_way_around_the_gate() {
    let lab = Lab::x509().await;
    let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", KEY)];
    let answer = lab
        .device()
        .send(Protocol::Http2, "/ws/m", &fields)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let request = lab.origin.only_request();
    assert!(!request.headers.contains_key("upgrade"));
}

#[tokio::test]
async fn a_connection_whose_opening_was_refused_ends_as_tls_connections_should() {
    let lab = Config::x509().timeouts("idle = \"200ms\"").start().await;
    for fields in [
        "authorization: Client another\r\n",
        "sec-websocket-version: 8\r\n",
    ] {
        let request = format!(
            "GET /ws/m HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
        );
        // Reading to the end fails where the end of TLS, close_notify, is missing.
        let answer = lab.device().raw(request.as_bytes()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
