//! Too many connections of one address, too many handshakes at once: who is over a limit is turned
//! away before TLS, and nobody else notices (S47).

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::{Client, Protocol};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, Transport, Version};
use crate::harness::{Lab, PATIENCE};

/// Two connections from each address, whoever stands in front.
fn two_each() -> Config {
    Config::x509().limits("connections_per_address = 2").tables(
        "[listeners.behind]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1\"]\n\
             [listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"",
    )
}

/// A device whose proxy says that it is at `address`.
fn device_at(lab: &Lab, address: &str) -> Client {
    let kind = if address.contains(':') {
        "TCP6"
    } else {
        "TCP4"
    };
    let local = if address.contains(':') {
        "2001:db8::9"
    } else {
        "192.0.2.9"
    };
    behind(lab, &format!("PROXY {kind} {address} {local} 1 2\r\n"))
}

fn behind(lab: &Lab, header: &str) -> Client {
    let device = lab.authority.device(SECRET);
    let client = Client::new(lab.address_of("behind"), lab.authority.der(), Some(device));
    client.behind(header)
}

/// Everything that a new connection is told before its client says anything.
async fn told(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut told = Vec::new();
    // A reset is an end as well.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told));
    let _ = read.await.expect("it stays open");
    told
}

/// Waits until the metrics say so.
async fn until(lab: &Lab, line: &str) {
    let said = async {
        while !lab
            .admin("/metrics")
            .await
            .1
            .contains(&format!("\n{line}\n"))
        {
            tokio::task::yield_now().await;
        }
    };
    let said = tokio::time::timeout(PATIENCE, said).await;
    assert!(
        said.is_ok(),
        "never {line}\n{}",
        lab.admin("/metrics").await.1
    );
}

async fn until_active(lab: &Lab, listener: &str, count: usize) {
    let name = format!("portcullis_connections_active{{listener=\"{listener}\"}}");
    until(lab, &format!("{name} {count}")).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away_until_one_leaves() {
    let config = Config::x509().limits("connections = 2");
    let plain = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"";
    let lab = config.tables(plain).start().await;
    let mut one = lab.device().keep(Protocol::Http1).await.unwrap();
    let mut two = lab.device().keep(Protocol::Http2).await.unwrap();
    for _ in 0..3 {
        assert_eq!(told(lab.address()).await, b"");
    }
    let answer = told(lab.address_of("plain")).await;
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
    for kept in [&mut one, &mut two] {
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    }
    drop(one);
    until_active(&lab, "edge", 1).await;
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    let shed = |listener: &str, count: usize| {
        let name = "portcullis_connections_shed_total";
        format!("{name}{{listener=\"{listener}\",reason=\"connections\"}} {count}")
    };
    until(&lab, &shed("edge", 3)).await;
    until(&lab, &shed("plain", 1)).await;
}

#[tokio::test]
async fn a_reload_changes_how_many_connections_there_may_be() {
    let mut lab = Config::x509().limits("connections = 1").start().await;
    // One that has not even begun its handshake counts, and stays where it is.
    let silent = TcpStream::connect(lab.address()).await.unwrap();
    until_active(&lab, "edge", 1).await;
    assert_eq!(told(lab.address()).await, b"");
    lab.config.limits = "connections = 2\n".into();
    lab.reload().unwrap();
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    drop(silent);
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_its_share() {
    let lab = two_each().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut one = lab.device().keep(protocol).await.unwrap();
        let mut two = lab.device().keep(protocol).await.unwrap();
        for _ in 0..3 {
            assert_eq!(told(lab.address()).await, b"");
        }
        for kept in [&mut one, &mut two] {
            assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
        }
        drop(one);
        until_active(&lab, "edge", 1).await;
        assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
        drop(two);
        until_active(&lab, "edge", 0).await;
    }
    let shed = "portcullis_connections_shed_total{listener=\"edge\",reason=\"address\"} 6";
    until(&lab, shed).await;
}

#[tokio::test]
async fn without_tls_the_answer_is_to_come_again_later() {
    let lab = two_each().start().await;
    let plain = lab.address_of("plain");
    let here = [
        TcpStream::connect(plain).await.unwrap(),
        TcpStream::connect(plain).await.unwrap(),
    ];
    until_active(&lab, "plain", 2).await;
    let mut third = TcpStream::connect(plain).await.unwrap();
    third
        .write_all(b"GET /http/m HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
    drop(here);
    until_active(&lab, "plain", 0).await;
    assert_eq!(told_after_request(plain).await, "HTTP/1.1 401");
}

/// The beginning of the answer to a request without credentials.
async fn told_after_request(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /http/m HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test]
async fn websockets_and_sessions_count_as_long_as_they_are_open() {
    let lab = two_each().start().await;
    let (mut socket, _) = lab.device().open_websocket("/ws/m", &[]).await.unwrap();
    let mut wire = lab.mqtt_device(Transport::Tls).await;
    let connect = Connect::with_password(Version::V5, SECRET);
    wire.send(&connect.bytes()).await;
    assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
    for listener in ["edge", "mqtts"] {
        assert_eq!(told(lab.address_of(listener)).await, b"");
    }
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("still here")
    );
    socket.close(None).await.unwrap();
    drop(socket);
    until(&lab, "portcullis_websockets_active 0").await;
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_address_is_the_one_that_a_listed_proxy_tells() {
    let lab = two_each().start().await;
    let mut kept = Vec::new();
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        for _ in 0..2 {
            kept.push(
                device_at(&lab, address)
                    .keep(Protocol::Http1)
                    .await
                    .unwrap(),
            );
        }
        assert!(device_at(&lab, address).get("/http/m").await.is_err());
    }
    // Another address of the same network, and another network.
    let neighbour = device_at(&lab, "2001:db8::ffff:1");
    assert!(neighbour.get("/http/m").await.is_err());
    let stranger = device_at(&lab, "2001:db8:0:1::1");
    assert_eq!(stranger.get("/http/m").await.unwrap().status, 200);
    for kept in &mut kept {
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_proxy_that_connects_for_its_own_sake_is_no_client() {
    let lab = two_each().start().await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        let proxy = behind(&lab, "PROXY UNKNOWN\r\n");
        kept.push(proxy.keep(Protocol::Http1).await.unwrap());
    }
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn handshakes_over_the_limit_are_closed_and_connections_that_are_open_serve_on() {
    let lab = Config::x509()
        .limits("handshakes = 2")
        .tables("[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"")
        .start()
        .await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
        // A client is done with its handshake before the gateway is (RFC 8446 §2).
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
        open.push(kept);
    }
    let silent = [
        TcpStream::connect(lab.address()).await.unwrap(),
        TcpStream::connect(lab.address_of("mqtts")).await.unwrap(),
    ];
    until_active(&lab, "edge", 5).await;
    until_active(&lab, "mqtts", 1).await;
    assert_eq!(told(lab.address()).await, b"");
    assert!(lab.device().get("/http/m").await.is_err());
    let shed = "portcullis_connections_shed_total{listener=\"edge\",reason=\"handshakes\"} 2";
    until(&lab, shed).await;
    for kept in &mut open {
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    }
    // Nobody shakes hands there.
    assert_eq!(
        told_after_request(lab.address_of("plain")).await,
        "HTTP/1.1 401"
    );
    drop(silent);
    until_active(&lab, "edge", 4).await;
    until_active(&lab, "mqtts", 0).await;
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_reload_changes_the_limit_for_those_who_come_then() {
    let mut lab = two_each().start().await;
    let (mut socket, _) = lab.device().open_websocket("/ws/m", &[]).await.unwrap();
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    lab.config = two_each();
    lab.config.limits = "connections_per_address = 1".to_owned();
    lab.reload().unwrap();
    until_active(&lab, "edge", 1).await;
    assert_eq!(told(lab.address()).await, b"");
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("still here")
    );
}

#[tokio::test]
async fn any_number_is_welcome_where_there_is_no_limit() {
    let lab = Lab::x509().await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(lab.device().keep(Protocol::Http1).await.unwrap());
    }
    until_active(&lab, "edge", 20).await;
    let (_, page) = lab.admin("/metrics").await;
    let shed = |line: &&str| line.starts_with("portcullis_connections_shed_total{");
    assert!(
        page.lines().filter(shed).all(|line| line.ends_with(" 0")),
        "{page}"
    );
}

#[tokio::test]
async fn limits_that_are_no_numbers_are_refused() {
    let mut lab = Lab::x509().await;
    for key in ["connections_per_address", "handshakes"] {
        lab.config = Config::x509().limits(&format!("{key} = -1"));
        let error = lab.settings().unwrap_err().to_string();
        assert!(
            error.contains(&format!("limits.{key}: must be a whole number")),
            "{error}"
        );
    }
}
