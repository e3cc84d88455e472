//! Brokers that are slow, silent, gone or at fault, and what their clients hear of it.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::usual;
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{
    Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Wire, field, packet, publish,
};
use crate::harness::scripted::{Peer, websocket_answer};
use crate::harness::{Client, Lab, PATIENCE, Scripted};

const PING: [&[u8]; 2] = [&[0xc0, 0], &[0xd0, 0]];

/// A gateway whose listener and route `raw` lead to these brokers.
fn config(brokers: &[SocketAddr], lines: &str) -> Config {
    let servers: Vec<_> = brokers.iter().map(SocketAddr::to_string).collect();
    Config::x509().tables(&format!(
        "[upstreams.raw]\nservers = {servers:?}\n{lines}\n\
         [routes.raw]\npath = \"/raw\"\nprotocol = \"mqtt\"\nupstream = \"raw\"\n\
         [listeners.raw]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"raw\"\n"
    ))
}

fn tls(lab: &Lab) -> Client {
    let device = lab.authority.device(SECRET);
    Client::new(lab.address_of("raw"), lab.authority.der(), Some(device))
}

async fn client(lab: &Lab, transport: Transport) -> Wire {
    match transport {
        Transport::Tls => Wire::over_tls(&tls(lab), &["mqtt"]).await.unwrap(),
        Transport::WebSocket => {
            let fields = [("sec-websocket-protocol", "mqtt")];
            let opened = lab.device().open_websocket("/raw", &fields).await;
            Wire::of_websocket(opened.unwrap().0)
        }
    }
}

/// A client whose CONNECT has come to `broker`, which has not answered it.
async fn asked(
    lab: &Lab,
    broker: &Scripted,
    transport: Transport,
    connect: &Connect,
) -> (Wire, Peer) {
    let mut wire = client(lab, transport).await;
    let connect = connect.bytes();
    wire.send(&connect).await;
    let mut peer = broker.accept().await;
    assert_eq!(peer.bytes(connect.len()).await, connect);
    (wire, peer)
}

/// A client that `broker` has accepted with `connack`.
async fn opened(
    lab: &Lab,
    broker: &Scripted,
    transport: Transport,
    connect: &Connect,
    connack: &[u8],
) -> (Wire, Peer) {
    let (mut wire, mut peer) = asked(lab, broker, transport, connect).await;
    peer.stream.write_all(connack).await.unwrap();
    assert_eq!(wire.packet().await.as_deref(), Some(connack));
    (wire, peer)
}

/// How often a broker of `raw` has failed.
async fn failures(lab: &Lab, broker: SocketAddr) -> u64 {
    let (_, page) = lab.admin("/metrics").await;
    let server = format!("server=\"{broker}\"");
    let is_meant = |line: &&str| line.contains("failures_total{") && line.contains(&server);
    let line = page.lines().find(is_meant).expect("no such server");
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Waits until this broker has failed once; its session may still have to hear of it.
async fn has_failed(lab: &Lab, broker: &Scripted) {
    let failing = async { while failures(lab, broker.address).await != 1 {} };
    let failed = tokio::time::timeout(PATIENCE, failing).await;
    failed.expect("the broker has not failed");
}

/// Ends the connection as one does that has crashed.
fn reset(peer: Peer) {
    let linger = Some(Duration::ZERO);
    SockRef::from(&peer.stream).set_linger(linger).unwrap();
}

/// A CONNACK of MQTT 5 that accepts, with this Server Keep Alive behind another property.
fn keeping_alive(seconds: u16) -> Vec<u8> {
    let mut properties = vec![0x26];
    properties.extend(field(b"name"));
    properties.extend(field(b"value"));
    properties.push(0x13);
    properties.extend(seconds.to_be_bytes());
    let length = u8::try_from(properties.len()).unwrap();
    packet(0x20, &[&[0, 0, length][..], &properties].concat())
}

#[tokio::test]
async fn the_brokers_keep_alive_goes_before_the_clients() {
    for transport in EVERY_TRANSPORT {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let hasty = usual(Version::V5).keep_alive(1);
        let (mut stays, mut peer) =
            opened(&lab, &broker, transport, &hasty, &keeping_alive(60)).await;
        let patient = usual(Version::V5).keep_alive(60);
        let (mut goes, _peer) = opened(&lab, &broker, transport, &patient, &keeping_alive(1)).await;
        goes.ends_with(&[0xe0, 2, 0x8d, 0]).await;
        // So long was the other silent, too.
        peer.stream.write_all(PING[1]).await.unwrap();
        assert_eq!(stays.packet().await.as_deref(), Some(PING[1]));
    }
}

#[tokio::test]
async fn a_client_that_waits_for_its_broker_to_read_is_not_silent() {
    for transport in EVERY_TRANSPORT {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let connect = usual(Version::V311).keep_alive(1);
        let connack = Version::V311.accepted();
        let (mut wire, mut peer) = opened(&lab, &broker, transport, &connect, connack).await;
        // More than the system's buffers hold.
        let message = publish(Version::V311, "t", &[b'x'; 1 << 20]);
        let sent = message.repeat(48);
        let sending = async {
            wire.send_in_parts(&sent, message.len()).await;
            wire.send(PING[0]).await;
        };
        let reading = async {
            for _ in 0..2 {
                // A client that is silent for its keep alive shows that the time is over.
                let (mut witness, _peer) =
                    opened(&lab, &broker, transport, &connect, connack).await;
                witness.end().await;
            }
            let bytes = peer.bytes(sent.len() + 2).await;
            assert!(bytes == [&sent[..], PING[0]].concat());
        };
        tokio::join!(sending, reading);
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_before_the_connack_is_answered_by_one() {
    let connect = usual(Version::V5).bytes();
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for (bytes, reason) in [
                (&connect[..], 0x82),
                // A packet of a type that there is not.
                (&[0, 0], 0x81),
                (&[0x30, 0xff, 0x7f], 0x95),
            ] {
                let broker = Scripted::start().await;
                let lab = config(&[broker.address], "")
                    .mqtt("max_packet = \"1KiB\"")
                    .start()
                    .await;
                let (mut wire, _peer) = asked(&lab, &broker, transport, &usual(version)).await;
                wire.send(bytes).await;
                match version {
                    Version::V31 | Version::V311 => wire.end().await,
                    Version::V5 => wire.ends_with(&[0x20, 3, 0, reason, 0]).await,
                };
                assert_eq!(failures(&lab, broker.address).await, 0);
            }
        }
    }
}

#[tokio::test]
async fn a_drain_before_the_connack_is_told_by_one() {
    let moved = [
        &[0x20, 21, 0, 0x9d, 18, 0x1c, 0, 15][..],
        b"example.com:888",
    ]
    .concat();
    for transport in EVERY_TRANSPORT {
        for (lines, version, expected) in [
            ("", Version::V311, vec![0x20, 2, 0, 3]),
            ("", Version::V5, vec![0x20, 3, 0, 0x88, 0]),
            (
                "server_reference = \"example.com:888\"",
                Version::V5,
                moved.clone(),
            ),
        ] {
            let broker = Scripted::start().await;
            let lab = config(&[broker.address], "")
                .drain_timeout("500ms")
                .mqtt(lines)
                .start()
                .await;
            let (mut wire, _peer) = asked(&lab, &broker, transport, &usual(version)).await;
            let goodbye = async {
                wire.ends_with(&expected).await;
                drop(wire);
            };
            tokio::join!(lab.drain(Duration::from_secs(20)), goodbye);
        }
    }
}

#[tokio::test]
async fn a_broker_that_ends_without_a_connack_is_unavailable_and_has_failed() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for by_force in [false, true] {
                let broker = Scripted::start().await;
                let lab = config(&[broker.address], "").start().await;
                let (mut wire, peer) = asked(&lab, &broker, transport, &usual(version)).await;
                if by_force {
                    reset(peer);
                } else {
                    drop(peer);
                }
                wire.ends_with(&version.refused(3, 0x88)).await;
                has_failed(&lab, &broker).await;
            }
        }
    }
}

#[tokio::test]
async fn a_broker_that_does_not_begin_with_a_connack_is_unavailable_and_has_failed() {
    for first in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], PING[1]] {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let (mut wire, mut peer) = asked(&lab, &broker, Transport::Tls, &usual(Version::V5)).await;
        peer.stream.write_all(first).await.unwrap();
        wire.ends_with(&Version::V5.refused(3, 0x88)).await;
        has_failed(&lab, &broker).await;
    }
}

#[tokio::test]
async fn a_broker_that_refuses_a_client_has_not_failed() {
    for (version, code) in [(Version::V311, 5), (Version::V5, 0x87)] {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let (mut wire, mut peer) = asked(&lab, &broker, Transport::Tls, &usual(version)).await;
        let refusal = version.refused(code, code);
        peer.stream.write_all(&refusal).await.unwrap();
        drop(peer);
        wire.ends_with(&refusal).await;
        assert_eq!(failures(&lab, broker.address).await, 0);
    }
}

#[tokio::test]
async fn a_broker_that_says_that_it_is_unavailable_has_failed() {
    for version in [Version::V311, Version::V5] {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let (mut wire, mut peer) = asked(&lab, &broker, Transport::Tls, &usual(version)).await;
        let refusal = version.refused(3, 0x88);
        peer.stream.write_all(&refusal).await.unwrap();
        drop(peer);
        wire.ends_with(&refusal).await;
        has_failed(&lab, &broker).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_connack_is_no_fault_of_the_broker() {
    let broker = Scripted::start().await;
    let lab = config(&[broker.address], "").start().await;
    let (wire, peer) = asked(&lab, &broker, Transport::Tls, &usual(Version::V5)).await;
    drop(wire);
    peer.closed().await;
    assert_eq!(failures(&lab, broker.address).await, 0);
}

#[tokio::test]
async fn a_broker_that_never_answers_the_connect_is_given_up_and_has_failed() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let broker = Scripted::start().await;
            let lab = config(&[broker.address], "")
                .mqtt("connect_timeout = \"400ms\"")
                .start()
                .await;
            let (mut wire, _peer) = asked(&lab, &broker, transport, &usual(version)).await;
            wire.ends_with(&version.refused(3, 0x88)).await;
            has_failed(&lab, &broker).await;
        }
    }
}

#[tokio::test]
async fn a_broker_that_refuses_the_opening_is_passed_over() {
    for refusal in ["HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", ""] {
        let (bad, good) = (Scripted::start().await, Scripted::start().await);
        let addresses = [bad.address, good.address];
        let lab = config(&addresses, "websocket_path = \"/mqtt\"")
            .start()
            .await;
        let refusing = async {
            loop {
                let mut peer = bad.accept().await;
                peer.head().await;
                peer.say(refusal).await;
            }
        };
        let served = async {
            for _ in 0..4 {
                let mut wire = client(&lab, Transport::Tls).await;
                wire.send(&usual(Version::V5).bytes()).await;
                let mut peer = good.accept().await;
                let head = peer.head_as_sent().await;
                let agreed = "\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
                let answer = websocket_answer(&head).replace("\r\n\r\n", agreed);
                peer.say(&answer).await;
                peer.stream
                    .write_all(&[0x82, 5, 0x20, 3, 0, 0, 0])
                    .await
                    .unwrap();
                assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
            }
        };
        tokio::select! {
            () = refusing => {}
            () = served => {}
        }
        assert!(failures(&lab, bad.address).await > 0);
        assert_eq!(failures(&lab, good.address).await, 0);
    }
}

#[tokio::test]
async fn a_broker_that_breaks_off_ends_the_websocket_with_a_code() {
    // A reset, and a packet that no broker sends.
    for by_force in [true, false] {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let transport = Transport::WebSocket;
        let version = Version::V5;
        let (mut wire, mut peer) = opened(
            &lab,
            &broker,
            transport,
            &usual(version),
            version.accepted(),
        )
        .await;
        if by_force {
            reset(peer);
        } else {
            peer.stream.write_all(PING[0]).await.unwrap();
        }
        assert_eq!(wire.end().await, Some(1011));
    }
}

#[tokio::test]
async fn a_broker_that_breaks_off_ends_tls_as_it_should() {
    for by_force in [true, false] {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let mut stream = tls(&lab).connect(&["mqtt"]).await.unwrap();
        let connect = usual(Version::V5).bytes();
        stream.write_all(&connect).await.unwrap();
        let mut peer = broker.accept().await;
        peer.bytes(connect.len()).await;
        peer.stream.write_all(Version::V5.accepted()).await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
        if by_force {
            reset(peer);
        } else {
            peer.stream.write_all(PING[0]).await.unwrap();
        }
        // An end without close_notify would be an error.
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_a_broker_says_last_arrives_though_it_resets() {
    for transport in EVERY_TRANSPORT {
        let broker = Scripted::start().await;
        let lab = config(&[broker.address], "").start().await;
        let version = Version::V5;
        let (mut wire, mut peer) = opened(
            &lab,
            &broker,
            transport,
            &usual(version),
            version.accepted(),
        )
        .await;
        wire.send(PING[0]).await;
        peer.bytes(2).await;
        let last = [0xe0, 2, 0x8e, 0];
        peer.stream.write_all(&last).await.unwrap();
        assert_eq!(wire.packet().await.as_deref(), Some(&last[..]));
        reset(peer);
        wire.end().await;
    }
}
