//! What surrounds MQTT: ALPN, the WebSocket's opening and frames, and the configuration.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use super::{accepted, session, usual};
use crate::harness::client::Refused;
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Transport, Version, Wire};
use crate::harness::{Lab, PATIENCE, Protocol, Site};

#[tokio::test]
async fn a_client_that_speaks_mqtt_or_does_not_say_what_is_let_in() {
    let lab = Lab::x509().await;
    let client = lab.mqtts_client(Some(lab.authority.device(SECRET)));
    for alpn in [&["mqtt"][..], &[], &["http/1.1", "mqtt"]] {
        let wire = Wire::over_tls(&client, alpn).await.unwrap();
        accepted(&lab, wire, &usual(Version::V5), Version::V5).await;
    }
}

#[tokio::test]
async fn a_client_that_speaks_something_else_is_refused_in_the_handshake() {
    let lab = Lab::x509().await;
    let client = lab.mqtts_client(Some(lab.authority.device(SECRET)));
    for alpn in [&["http/1.1"][..], &["h2", "http/1.1"], &["x-amzn-mqtt-ca"]] {
        let error = client.connect(alpn).await.unwrap_err();
        assert!(
            error.to_string().contains("NoApplicationProtocol"),
            "{error}"
        );
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn both_subprotocols_of_mqtt_are_spoken() {
    let lab = Lab::x509().await;
    for (offered, chosen) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("mqttv3.1, mqtt", "mqtt"),
        ("x, mqttv3.1", "mqttv3.1"),
    ] {
        let fields = [("sec-websocket-protocol", offered)];
        let (socket, answer) = lab.device().open_websocket("/mqtt", &fields).await.unwrap();
        assert_eq!(answer.headers["sec-websocket-protocol"], chosen);
        let wire = Wire::of_websocket(socket);
        accepted(&lab, wire, &usual(Version::V31), Version::V31).await;
    }
}

#[tokio::test]
async fn a_subprotocol_in_another_spelling_is_another() {
    let lab = Lab::x509().await;
    for offered in ["MQTT", "mqttV3.1", "Mqtt, x"] {
        let fields = [("sec-websocket-protocol", offered)];
        let Err(Refused::Answered(answer)) = lab.device().open_websocket("/mqtt", &fields).await
        else {
            panic!("{offered} is taken for mqtt");
        };
        assert_eq!(answer.status, 400);
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn no_extension_is_agreed_on_that_would_unfold_frames() {
    let lab = Lab::x509().await;
    let fields = [
        ("sec-websocket-protocol", "mqtt"),
        ("sec-websocket-extensions", "permessage-deflate"),
    ];
    let (socket, answer) = lab.device().open_websocket("/mqtt", &fields).await.unwrap();
    assert!(!answer.headers.contains_key("sec-websocket-extensions"));
    let wire = Wire::of_websocket(socket);
    accepted(&lab, wire, &usual(Version::V5), Version::V5).await;
}

#[tokio::test]
async fn an_opening_for_something_else_than_mqtt_is_refused() {
    let lab = Lab::x509().await;
    for fields in [
        &[][..],
        &[("sec-websocket-protocol", "mqttv5")],
        &[("sec-websocket-protocol", "chat, superchat")],
    ] {
        match lab.device().open_websocket("/mqtt", fields).await {
            Err(Refused::Answered(answer)) => assert_eq!(answer.status, 400, "{fields:?}"),
            other => panic!("{fields:?}: {other:?}"),
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_request_that_opens_no_websocket_is_told_to() {
    let lab = Lab::x509().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answer = lab.device().send(protocol, "/mqtt", &[]).await.unwrap();
        assert_eq!(answer.status, 426, "{protocol:?}");
    }
    lab.broker.assert_untouched().await;
    lab.origin.assert_untouched();
}

/// An MQTT session's WebSocket as bare bytes.
async fn raw_socket(lab: &Lab) -> TlsStream<TcpStream> {
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let opening = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(opening.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

/// A short frame with the mask 0.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[first, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
}

#[tokio::test]
async fn frames_that_break_the_rules_close_the_websocket_with_their_code() {
    let text = masked(0x81, b"text");
    let unmasked = vec![0x82, 2, 0x10, 0x20];
    let reserved = masked(0xc2, b"x");
    let unknown = masked(0x83, b"x");
    let stray = masked(0x80, b"x");
    let fragmented_ping = masked(0x09, b"x");
    let interrupted = [masked(0x02, &[0x10]), masked(0x82, &[0x20])].concat();
    for (bytes, code) in [
        (text, 1003_u16),
        (unmasked, 1002),
        (reserved, 1002),
        (unknown, 1002),
        (stray, 1002),
        (fragmented_ping, 1002),
        (interrupted, 1002),
    ] {
        let lab = Lab::x509().await;
        let mut stream = raw_socket(&lab).await;
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        // A reset is an end as well.
        let _ = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("no end");
        let [high, low] = code.to_be_bytes();
        assert_eq!(answer, [0x88, 2, high, low], "{bytes:02x?}");
        lab.broker.assert_untouched().await;
    }
}

#[tokio::test]
async fn frames_that_break_the_rules_end_an_open_session_too() {
    for (bytes, code) in [
        (masked(0x81, b"text"), 1003_u16),
        (vec![0x82, 2, 0xc0, 0], 1002),
    ] {
        let lab = Lab::x509().await;
        let mut stream = raw_socket(&lab).await;
        let connect = usual(Version::V311).bytes();
        for part in connect.chunks(100) {
            stream.write_all(&masked(0x82, part)).await.unwrap();
        }
        let mut connack = [0; 6];
        stream.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, [0x82, 4, 0x20, 2, 0, 0]);
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("no end");
        let [high, low] = code.to_be_bytes();
        assert_eq!(answer, [0x88, 2, high, low]);
        drop(stream);
        assert_eq!(lab.broker.ended(0).await, connect);
        lab.broker.close(0);
        // Like every other breach of the protocol, once.
        let line = "portcullis_refusals_total{reason=\"mqtt_breach\"} 1\n";
        let counted = async { while !lab.admin("/metrics").await.1.contains(line) {} };
        let counted = tokio::time::timeout(PATIENCE, counted).await;
        counted.expect("it is not counted");
    }
}

#[tokio::test]
async fn pings_are_answered_before_and_behind_connect() {
    let lab = Lab::x509().await;
    let fields = [("sec-websocket-protocol", "mqtt")];
    let (mut socket, _) = lab.device().open_websocket("/mqtt", &fields).await.unwrap();
    for (name, before) in [("one", None), ("two", Some(usual(Version::V5).bytes()))] {
        if let Some(connect) = before {
            socket.send(Message::binary(connect)).await.unwrap();
            let connack = socket.next().await.unwrap().unwrap();
            assert_eq!(connack, Message::binary(Version::V5.accepted()));
        }
        socket.send(Message::Ping(name.into())).await.unwrap();
        let pong = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
        assert_eq!(pong.unwrap().unwrap(), Message::Pong(name.into()));
    }
    assert_eq!(
        lab.broker.received(0, 1).await,
        usual(Version::V5).bytes(),
        "nothing else"
    );
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go_all_the_same() {
    let lab = Config::x509()
        .mqtt("connect_timeout = \"1s\"")
        .limits("connections_per_address = 1")
        .start()
        .await;
    let stream = raw_socket(&lab).await;
    let (_unread, mut writer) = tokio::io::split(stream);
    // Until the pongs fill what lies between, and beyond.
    let pings = masked(0x89, &[b'p'; 125]).repeat(1000);
    let flood = async {
        while writer.write_all(&pings).await.is_ok() {}
        std::future::pending().await
    };
    tokio::select! {
        () = flood => {}
        () = until_gone(&lab) => {}
    }
    lab.broker.assert_untouched().await;
}

/// Waits until there is room for another connection.
async fn until_gone(lab: &Lab) {
    let gone = async {
        while lab.device().get("/http/m").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "it is still there");
}

#[tokio::test]
async fn what_ends_a_websocket_before_its_connect_is_logged_for_what_it_is() {
    let site = Site::new().await;
    let broker = "[upstreams.broker]\nservers = [\"127.0.0.1:1\"]\n\
                  [routes.mqtt]\npath = \"/mqtt\"\nprotocol = \"mqtt\"\nupstream = \"broker\"";
    site.configure("", broker);
    let mut gateway = site.run(&[]).await;
    let client = gateway.device();
    let fields = [("sec-websocket-protocol", "mqtt")];
    for (message, logged) in [
        (Message::text("hello"), "complete: a text message"),
        (
            Message::Close(None),
            "ended before its CONNECT was complete",
        ),
    ] {
        let opened = client.open_websocket("/mqtt", &fields);
        let (mut socket, _) = opened.await.unwrap();
        socket.send(message).await.unwrap();
        gateway.process.says(logged).await;
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let lab = Lab::x509().await;
    let mut stream = raw_socket(&lab).await;
    stream
        .write_all(&masked(0x88, &[0x0f, 0xa1]))
        .await
        .unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("no end");
    assert_eq!(answer, [0x88, 2, 0x0f, 0xa1]);
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn metrics_count_open_sessions() {
    let lab = Lab::x509().await;
    let wire = session(&lab, Transport::WebSocket, Version::V311).await;
    let (_, page) = lab.admin("/metrics").await;
    assert!(page.contains("mqtt_sessions_active 1"), "{page}");
    drop(wire);
    lab.broker.ended(0).await;
    let counted = async {
        while !lab
            .admin("/metrics")
            .await
            .1
            .contains("mqtt_sessions_active 0")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counted)
        .await
        .expect("the session stays counted");
}

/// Why these tables do not belong into a configuration.
async fn problems(auth: Config, tables: &str) -> String {
    let mut lab = auth.start().await;
    lab.config = lab.config.clone().tables(tables);
    lab.settings().map(drop).unwrap_err().to_string()
}

#[tokio::test]
async fn listeners_of_mqtt_are_configured_whole_or_not_at_all() {
    let plain = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtt\"";
    let with_upstream = format!("{plain}\nupstream = \"broker\"");
    let problem = problems(Config::x509(), &with_upstream).await;
    assert!(problem.contains("listeners.plain.protocol"), "{problem}");
    let problem = problems(Config::key(), plain).await;
    assert!(problem.contains("listeners.plain.upstream"), "{problem}");
    let unknown = format!("{plain}\nupstream = \"brokre\"");
    let problem = problems(Config::key(), &unknown).await;
    assert!(problem.contains("brokre"), "{problem}");
    let tls = plain.replace("\"mqtt\"", "\"mqtts\"");
    let problem = problems(Config::x509(), &tls).await;
    assert!(problem.contains("listeners.plain.upstream"), "{problem}");
    Config::key().tables(&with_upstream).start().await;
}

#[tokio::test]
async fn a_route_of_mqtt_always_asks_for_a_credential() {
    let route = "[routes.open]\npath = \"/open\"\nprotocol = \"mqtt\"\nupstream = \"broker\"";
    let open = format!("{route}\ncredential = \"none\"");
    let problem = problems(Config::x509(), &open).await;
    assert!(problem.contains("routes.open.credential"), "{problem}");
    Config::x509().tables(route).start().await;
}
