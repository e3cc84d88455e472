//! WebSockets in streams of an HTTP/2 connection (RFC 8441): the same gate, the same tunnels, the
//! same ends as in HTTP/1.1.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::{Method, StatusCode};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_VERSION};
use crate::harness::multiplexed::{Refused, Socket};
use crate::harness::{Authority, Lab, Multiplexed, PATIENCE, Scripted};

async fn next(socket: &mut Socket) -> Option<Message> {
    let next = tokio::time::timeout(PATIENCE, socket.next());
    next.await.expect("nothing comes").and_then(Result::ok)
}

async fn echoed(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.unwrap();
    assert_eq!(next(socket).await, Some(message));
}

async fn closes_with(socket: &mut Socket, code: CloseCode) {
    match next(socket).await {
        Some(Message::Close(Some(frame))) => assert_eq!(frame.code, code),
        other => panic!("{other:?} instead of Close"),
    }
}

async fn open(connection: &mut Multiplexed, path: &str) -> Socket {
    connection.open_websocket(path, &[]).await.unwrap().0
}

async fn refusal(connection: &mut Multiplexed, path: &str, fields: &[(&str, &str)]) -> Refused {
    connection.open_websocket(path, fields).await.unwrap_err()
}

#[tokio::test]
async fn a_websocket_in_a_stream_reaches_an_http_1_upstream() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    assert!(connection.sender.is_extended_connect_protocol_enabled());
    let fields = [
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://example.com"),
        ("sec-websocket-key", "a client's key is not looked at"),
    ];
    let opened = connection.open_websocket("/ws/m?topic=a", &fields).await;
    let (mut socket, headers) = opened.unwrap();
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    echoed(&mut socket, Message::text("hello")).await;
    echoed(&mut socket, Message::binary(vec![7; 300_000])).await;

    let request = lab.origin.only_request();
    assert_eq!((&*request.method, &*request.target), ("GET", "/m?topic=a"));
    for (name, value) in [
        ("authorization", &*format!("Client {SECRET}")),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://example.com"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(request.all(name), [value], "{name}");
    }
    let key = request.all("sec-websocket-key");
    assert!(key.len() == 1 && key[0].len() == 24, "{key:?}");
}

#[tokio::test]
async fn websockets_and_requests_share_a_connection() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let mut one = open(&mut connection, "/ws/1").await;
    let mut two = open(&mut connection, "/ws/2").await;
    echoed(&mut one, Message::text("1")).await;
    assert_eq!(connection.get("/http/bytes/3").await.unwrap().1, b"xxx");
    echoed(&mut two, Message::text("2")).await;
    one.close(None).await.unwrap();
    while next(&mut one).await.is_some() {}
    echoed(&mut two, Message::text("still")).await;
}

#[tokio::test]
async fn no_more_websockets_are_open_at_once_than_streams_are_allowed() {
    let lab = Config::x509().limits("streams = 2").start().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    assert_eq!(connection.sender.current_max_send_streams(), 2);
    let mut one = open(&mut connection, "/ws/1").await;
    let mut two = open(&mut connection, "/ws/2").await;
    {
        let mut third = std::pin::pin!(connection.open_websocket("/ws/3", &[]));
        echoed(&mut two, Message::text("2")).await;
        assert!(third.as_mut().now_or_never().is_none());
        one.close(None).await.unwrap();
        while next(&mut one).await.is_some() {}
        drop(one);
        let (mut socket, _) = third.await.unwrap();
        echoed(&mut socket, Message::text("3")).await;
    }
    assert_eq!(lab.origin.requests().len(), 3);
}

#[tokio::test]
async fn the_gate_is_the_same_as_for_openings_by_upgrade() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let other = [("authorization", "Client another")];
    let refused = refusal(&mut connection, "/ws/m", &other).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let refused = refusal(&mut connection, "/ws/m?authorization=another", &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let refused = refusal(&mut connection, "/nowhere", &[]).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    let basic = [("authorization", "Basic YTpi")];
    assert!(
        refusal(&mut connection, "/ws/m", &basic)
            .await
            .status
            .is_client_error()
    );
    lab.origin.assert_untouched();

    let same = [("authorization", &*format!("Client {SECRET}"))];
    let (mut socket, _) = connection.open_websocket("/ws/m", &same).await.unwrap();
    echoed(&mut socket, Message::text("open")).await;
}

#[tokio::test]
async fn an_opening_that_is_not_as_it_should_be_is_refused() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let version = ("sec-websocket-version", "13");
    for (protocol, fields, status) in [
        (Some("websocket"), &[][..], 426),
        (Some("websocket"), &[("sec-websocket-version", "8")], 426),
        (Some("websocket"), &[version, version], 426),
        (Some("connect-udp"), &[version], 405),
        (Some("WebSocket2"), &[version], 405),
        (Some("websocket"), &[version, ("content-length", "5")], 400),
    ] {
        let request = connection.request(Method::CONNECT, protocol, "/ws/m", fields);
        let (answer, _) = connection.send(request).await.unwrap();
        assert_eq!(answer.status(), status, "{protocol:?} {fields:?}");
    }
    // RFC 9113 §8.5: without `:protocol` it names a host alone, and is the CONNECT of a proxy.
    let mut request = connection.request(Method::CONNECT, None, "/", &[]);
    *request.uri_mut() = connection.host.parse().unwrap();
    let (answer, _) = connection.send(request).await.unwrap();
    assert_eq!(answer.status(), 405);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn what_the_upstream_does_not_open_is_not_open() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let refused = refusal(&mut connection, "/ws/refuse", &[]).await;
    assert_eq!((refused.status.as_u16(), &*refused.body), (403, &b"no"[..]));
    // Any success would open it for the client.
    let refused = refusal(&mut connection, "/ws/plain-200", &[]).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    let refused = refusal(&mut connection, "/ws/wrong-accept", &[]).await;
    assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    let mut socket = open(&mut connection, "/ws/m").await;
    echoed(&mut socket, Message::text("open")).await;
}

#[tokio::test]
async fn mqtt_is_spoken_in_a_websocket_in_a_stream() {
    for version in EVERY_VERSION {
        let lab = Lab::x509().await;
        let mut connection = lab.device().multiplex().await.unwrap();
        let refused = refusal(&mut connection, "/mqtt", &[]).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "no subprotocol");
        let fields = [("sec-websocket-protocol", "mqtt")];
        let (mut socket, headers) = connection.open_websocket("/mqtt", &fields).await.unwrap();
        assert_eq!(headers["sec-websocket-protocol"], "mqtt");
        let connect = Connect::with_password(version, SECRET).bytes();
        socket.send(Message::binary(connect.clone())).await.unwrap();
        let answer = next(&mut socket).await;
        assert_eq!(answer, Some(Message::binary(version.accepted())));
        assert_eq!(lab.broker.received(0, connect.len()).await, connect);

        let (mut socket, _) = connection.open_websocket("/mqtt", &fields).await.unwrap();
        let connect = Connect::with_password(version, "another").bytes();
        socket.send(Message::binary(connect)).await.unwrap();
        let answer = next(&mut socket).await;
        assert_eq!(answer, Some(Message::binary(version.not_authorized())));
        closes_with(&mut socket, CloseCode::Policy).await;
        lab.broker.assert_fewer_than(2).await;
    }
}

#[tokio::test]
async fn each_side_hears_of_the_others_end() {
    let server = Scripted::start().await;
    let lab = Config::x509().tables(&server.tables()).start().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    for client_ends in [true, false] {
        let opening = connection.open_websocket("/raw/ws", &[]);
        let (opened, peer) = tokio::join!(opening, async {
            let mut peer = server.accept().await;
            let head = peer.head_as_sent().await;
            peer.say(&crate::harness::scripted::websocket_answer(&head))
                .await;
            peer
        });
        let (mut socket, _) = opened.unwrap();
        if client_ends {
            drop(socket);
            peer.closed().await;
        } else {
            drop(peer);
            assert_eq!(next(&mut socket).await, None);
        }
    }
}

#[tokio::test]
async fn a_drain_closes_the_websocket_and_then_the_connection() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let mut socket = open(&mut connection, "/ws/m").await;
    echoed(&mut socket, Message::text("open")).await;
    let drain = tokio::spawn(lab.drain(PATIENCE));
    closes_with(&mut socket, CloseCode::Away).await;
    while next(&mut socket).await.is_some() {}
    drop(socket);
    drop(connection.sender);
    assert_eq!(drain.await.unwrap(), 0);
    // What the client still says of its stream may come to a socket that is closed already; anything else
    // would be an error of the gateway's.
    if let Err(error) = connection.connection.await.unwrap() {
        assert!(error.is_io(), "{error}");
    }
}

#[tokio::test]
async fn a_reload_closes_the_websocket_of_a_client_that_is_no_longer_trusted() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let mut socket = open(&mut connection, "/ws/m").await;
    lab.reload().unwrap();
    echoed(&mut socket, Message::text("still trusted")).await;
    lab.write("certs/ca.crt", Authority::new("Another").pem());
    lab.reload().unwrap();
    closes_with(&mut socket, CloseCode::Policy).await;
}

#[tokio::test]
async fn a_connection_is_not_idle_while_a_websocket_is_open() {
    let lab = Config::x509()
        .timeouts("idle = \"100ms\"")
        .route("idle_timeout = \"1s\"")
        .start()
        .await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let mut socket = open(&mut connection, "/ws/m").await;
    // Its own limit ends it, much later than the connection's would have.
    closes_with(&mut socket, CloseCode::Away).await;
    let mut second = open(&mut connection, "/ws/m").await;
    echoed(&mut second, Message::text("open")).await;
    // The twin: with no WebSocket open, the connection ends.
    for mut socket in [socket, second] {
        let _ = socket.close(None).await;
        while next(&mut socket).await.is_some() {}
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), connection.connection);
    assert!(ended.await.is_ok(), "the connection stays open");
}
