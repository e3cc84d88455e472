//! Connections that have had their share: they end in good order, and no request is lost.

use std::future::Future;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, Transport, Version};
use crate::harness::{Answer, Lab, PATIENCE, Protocol, Scripted};

const HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn says_close(answer: &Answer) -> bool {
    let field = answer.headers.get("connection");
    field.is_some_and(|value| value == "close")
}

/// Waits until the listener `edge` has no connection any more.
async fn until_none(lab: &Lab) {
    let line = "portcullis_connections_active{listener=\"edge\"} 0\n";
    within(async {
        while !lab.admin("/metrics").await.1.contains(line) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.expect("the connection stays open")
}

/// Waits for longer than a connection of `lab` may take requests: twice, since one may be sent away
/// earlier than another.
async fn outlive_one(lab: &Lab) {
    for _ in 0..2 {
        let mut idle = lab.device().connect(&["http/1.1"]).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::io::AsyncReadExt::read_to_end(&mut idle, &mut rest);
        within(end).await.unwrap();
        assert_eq!(rest, b"");
    }
}

#[tokio::test]
async fn the_last_request_of_a_connection_says_that_it_is() {
    let lab = Config::x509()
        .limits("requests_per_connection = 3")
        .start()
        .await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    // Whether they are answered here or by the upstream.
    for (path, is_last) in [("/http/m", false), ("/nowhere", false), ("/http/m", true)] {
        let answer = kept.get(path, &[]).await.unwrap();
        assert_eq!(says_close(&answer), is_last, "{path}");
    }
    assert!(kept.get("/http/m", &[]).await.is_err());
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for is_last in [false, false, true] {
        let answer = kept.get("/nowhere", &[]).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(says_close(&answer), is_last);
    }
}

#[tokio::test]
async fn an_http2_connection_finishes_what_it_has_and_leaves() {
    let lab = Config::x509()
        .limits("requests_per_connection = 3")
        .start()
        .await;
    let mut kept = lab.device().keep(Protocol::Http2).await.unwrap();
    assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    let asking = (0..4).map(|_| {
        let mut kept = kept.share();
        async move { kept.get("/http/m", &[]).await.unwrap() }
    });
    for answer in join_all(asking).await {
        assert_eq!(answer.status, 200);
        assert!(!says_close(&answer), "HTTP/2 has no such field");
    }
    until_none(&lab).await;
    assert!(kept.get("/http/m", &[]).await.is_err());
}

#[tokio::test]
async fn a_websocket_may_be_the_last_request_of_a_connection() {
    let lab = Config::x509()
        .limits("requests_per_connection = 1")
        .start()
        .await;
    let (mut socket, _) = lab.device().open_websocket("/ws/m", &[]).await.unwrap();
    for _ in 0..3 {
        socket.send(Message::text("on")).await.unwrap();
        let echo = within(socket.next()).await.unwrap().unwrap();
        assert_eq!(echo, Message::text("on"));
    }
}

#[tokio::test]
async fn a_connection_that_has_been_open_for_long_enough_ends() {
    let lab = Config::x509()
        .timeouts("connection_age = \"200ms\"")
        .start()
        .await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
        until_none(&lab).await;
        assert!(kept.get("/http/m", &[]).await.is_err());
        assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_request_that_outlives_its_connections_age_is_answered() {
    let upstream = Scripted::start().await;
    let lab = Config::x509()
        .timeouts("connection_age = \"200ms\"")
        .tables(&upstream.tables())
        .start()
        .await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            outlive_one(&lab).await;
            peer.say(OK).await;
        };
        let (answer, ()) = tokio::join!(kept.get("/raw/m", &[]), origin);
        let answer = answer.unwrap();
        assert_eq!(answer.body, "ok", "{protocol:?}");
        assert_eq!(says_close(&answer), protocol == Protocol::Http1);
        assert!(kept.get("/http/m", &[]).await.is_err(), "{protocol:?}");
    }
}

#[tokio::test]
async fn websockets_and_sessions_outlive_their_connections_age() {
    let lab = Config::x509()
        .timeouts("connection_age = \"200ms\"")
        .start()
        .await;
    let (mut socket, _) = lab.device().open_websocket("/ws/m", &[]).await.unwrap();
    let mut wires = Vec::new();
    for transport in [Transport::Tls, Transport::WebSocket] {
        let mut wire = lab.mqtt_device(transport).await;
        let connect = Connect::with_password(Version::V5, SECRET);
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        wires.push(wire);
    }
    outlive_one(&lab).await;
    socket.send(Message::text("on")).await.unwrap();
    let echo = within(socket.next()).await.unwrap().unwrap();
    assert_eq!(echo, Message::text("on"));
    const PING: [u8; 2] = [0xc0, 0];
    for (index, wire) in wires.iter_mut().enumerate() {
        let before = lab.broker.conversations()[index].len();
        wire.send(&PING).await;
        let heard = lab.broker.received(index, before + 2).await;
        assert!(heard.ends_with(&PING));
    }
}

#[tokio::test]
async fn without_these_limits_a_connection_serves_on() {
    let lab = Lab::x509().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for _ in 0..200 {
            let answer = kept.get("/http/m", &[]).await.unwrap();
            assert!(!says_close(&answer));
        }
    }
}

#[tokio::test]
async fn shares_that_make_no_sense_are_refused() {
    let mut lab = Lab::x509().await;
    for (config, key) in [
        (
            Config::x509().limits("requests_per_connection = -1"),
            "limits.requests_per_connection: must be a whole number",
        ),
        (
            Config::x509().timeouts("connection_age = \"0s\""),
            "timeouts.connection_age: must be longer than 0",
        ),
    ] {
        lab.config = config;
        let error = lab.settings().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}
