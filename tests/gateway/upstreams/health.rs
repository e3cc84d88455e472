//! Servers are asked whether they are well.

use futures_util::{SinkExt, StreamExt};
use hyper::StatusCode;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, Version, Wire};
use crate::harness::scripted::websocket_answer;
use crate::harness::streams::{Line, Streams};
use crate::harness::{Authority, Client, Lab, Protocol, Scripted, Secure};

use super::{Absent, brokers, counts, lab, metric, origins, problem, until_in_service};

/// Quick checks of this kind, and no ejection beside them.
fn checks(lines: &str) -> String {
    format!(
        "[upstreams.many.ejection]\nfailures = 0\n\
         [upstreams.many.health]\ninterval = \"20ms\"\n{lines}"
    )
}

#[tokio::test]
async fn a_server_that_accepts_no_connection_is_out_until_it_does() {
    let [up] = origins().await;
    let absent = Absent::new();
    let down = absent.address;
    let lab = lab(&[down, up.address], &checks("check = \"tcp\"")).await;
    until_in_service(&lab, down, false).await;
    let failures = metric(&lab, "failures", down).await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for _ in 0..6 {
        assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
    }
    assert_eq!(
        metric(&lab, "failures", down).await,
        failures,
        "it was dialled"
    );
    assert_eq!(up.requests().len(), 6);
    let back = absent.appear();
    until_in_service(&lab, down, true).await;
    for _ in 0..6 {
        assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
    }
    assert_eq!(back.requests().len(), 3);
    assert!(metric(&lab, "checks_failed", down).await >= Some(3));
}

#[tokio::test]
async fn a_server_whose_answer_is_not_the_expected_one_is_out() {
    let [one] = origins().await;
    let address = one.address;
    for (path, status, is_well) in [
        ("/status/200", "\"2xx\"", true),
        ("/status/204", "\"204\"", true),
        ("/status/503", "\"2xx\"", false),
        ("/status/204", "\"200\", \"3xx\"", false),
        ("/silent", "\"2xx\"", false),
    ] {
        let lines = format!(
            "check = \"http\"\npath = \"{path}\"\nstatus = [{status}]\ntimeout = \"100ms\""
        );
        let asked = one.requests().len();
        let lab = lab(&[address], &checks(&lines)).await;
        if is_well {
            while one.requests().len() < asked + 6 {
                tokio::task::yield_now().await;
            }
        }
        until_in_service(&lab, address, is_well).await;
        // All that there are being out, they are tried all the same.
        assert_eq!(lab.device().get("/many/m").await.unwrap().status, 200);
    }
    let asked = one.requests();
    let probe = asked.iter().find(|request| request.target == "/status/204");
    let probe = probe.unwrap();
    assert_eq!(probe.method, "GET");
    assert_eq!(probe.all("host"), [address.to_string()]);
    assert!(probe.all("authorization").is_empty());
}

#[tokio::test]
async fn a_server_that_hangs_keeps_no_other_waiting() {
    let silent = Scripted::start().await;
    let [other] = origins().await;
    let lines = "check = \"http\"\npath = \"/status/503\"\ntimeout = \"10m\"";
    let lab = lab(&[silent.address, other.address], &checks(lines)).await;
    let mut peer = silent.accept().await;
    assert!(peer.head().await.starts_with("get /status/503 "));
    // It takes several bad answers.
    until_in_service(&lab, other.address, false).await;
    // And is not asked again before it has answered.
    silent.assert_undialled().await;
    assert_eq!(metric(&lab, "in_service", silent.address).await, Some(1));
}

#[tokio::test]
async fn a_check_asks_for_the_host_that_is_named() {
    let [one] = origins().await;
    let lines = "check = \"http\"\npath = \"/well?deep\"\nhost = \"adapter.internal\"";
    let _lab = lab(&[one.address], &checks(lines)).await;
    while one.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    let probe = one.requests().remove(0);
    assert_eq!(probe.target, "/well?deep");
    assert_eq!(probe.all("host"), ["adapter.internal"]);
}

#[tokio::test]
async fn a_broker_is_asked_in_mqtt() {
    let [broker] = brokers().await;
    let [other] = origins().await;
    // An HTTP server is no broker, although it accepts connections.
    let lab = lab(
        &[broker.address, other.address],
        &checks("check = \"mqtt\""),
    )
    .await;
    until_in_service(&lab, other.address, false).await;
    assert_eq!(metric(&lab, "in_service", broker.address).await, Some(1));
    let asked = broker.ended(0).await;
    let (connect, farewell) = asked.split_at(asked.len() - 2);
    assert_eq!(connect[..7], [0x10, 28, 0, 4, b'M', b'Q', b'T'][..]);
    assert!(
        connect.ends_with(b"\x02\x00\x0a\x00\x10portcullis-probe"),
        "{connect:?}"
    );
    assert_eq!(farewell, [0xe0, 0]);
    let device = lab.authority.device(SECRET);
    let client = Client::new(lab.address_of("many"), lab.authority.der(), Some(device));
    for _ in 0..4 {
        let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
        wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
            .await;
        assert_eq!(wire.packet().await.unwrap(), Version::V5.accepted());
    }
}

#[tokio::test]
async fn a_broker_of_mqtt_5_alone_is_well_unless_it_says_that_it_is_not() {
    // Unsupported protocol version, and server unavailable (MQTT 5.0 §3.2.2.2).
    for (code, is_well) in [(0x84, true), (0x88, false)] {
        let broker = Scripted::start().await;
        let lab = lab(&[broker.address], &checks("check = \"mqtt\"\nfall = 1")).await;
        for _ in 0..2 {
            let mut peer = broker.accept().await;
            peer.bytes(30).await;
            peer.stream.write_all(&[0x20, 3, 0, code, 0]).await.unwrap();
            assert_eq!(peer.bytes(2).await, [0xe0, 0]);
        }
        // The second question is asked when the first answer has counted.
        assert_eq!(
            metric(&lab, "in_service", broker.address).await,
            Some(u64::from(is_well))
        );
    }
}

/// A lab that asks this server in MQTT, inside WebSockets.
async fn asked_in_websockets(server: &Scripted) -> Lab {
    let lines = checks("check = \"mqtt\"\nfall = 1");
    let lines = format!("websocket_path = \"/mqtt?a\"\n{lines}");
    lab(&[server.address], &lines).await
}

#[tokio::test]
async fn a_broker_is_asked_in_mqtt_inside_its_websocket() {
    for (answer, is_well) in [(&[0x20, 2, 0, 5], true), (&[0x20, 2, 0, 3], false)] {
        let server = Scripted::start().await;
        let lab = asked_in_websockets(&server).await;
        for _ in 0..2 {
            let mut peer = server.accept().await;
            let head = peer.head_as_sent().await;
            assert!(head.starts_with("GET /mqtt?a HTTP/1.1\r\n"), "{head}");
            let agreed = "\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
            peer.say(&websocket_answer(&head).replace("\r\n\r\n", agreed))
                .await;
            let mut socket =
                WebSocketStream::from_raw_socket(peer.stream, Role::Server, None).await;
            let asked = socket.next().await.unwrap().unwrap();
            assert!(asked.is_binary());
            assert!(asked.into_data().ends_with(b"\x00\x10portcullis-probe"));
            let answer = Message::binary(answer.to_vec());
            socket.send(answer).await.unwrap();
            let farewell = socket.next().await.unwrap().unwrap();
            assert_eq!(farewell, Message::binary(vec![0xe0, 0]));
            assert!(socket.next().await.unwrap().unwrap().is_close());
        }
        // The second question is asked when the first answer has counted.
        assert_eq!(
            metric(&lab, "in_service", server.address).await,
            Some(u64::from(is_well))
        );
    }
}

#[tokio::test]
async fn a_broker_that_opens_no_websocket_is_not_well() {
    let server = Scripted::start().await;
    let lab = asked_in_websockets(&server).await;
    let mut peer = server.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        .await;
    until_in_service(&lab, server.address, false).await;
    peer.closed().await;
}

#[tokio::test]
async fn a_server_that_is_back_begins_with_a_small_share() {
    let [up] = origins().await;
    let absent = Absent::new();
    let down = absent.address;
    let rules = format!("slow_start = \"1h\"\n{}", checks("check = \"tcp\""));
    let lab = lab(&[down, up.address], &rules).await;
    until_in_service(&lab, down, false).await;
    let back = absent.appear();
    until_in_service(&lab, down, true).await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for _ in 0..22 {
        kept.get("/many/m", &[]).await.unwrap();
    }
    assert_eq!(counts(&[up, back]), [20, 2]);
}

#[tokio::test]
async fn a_check_that_cannot_be_carried_out_is_refused() {
    for (lines, expected) in [
        ("check = \"icmp\"", "health.check: must be"),
        ("path = \"health\"", "health.path"),
        ("status = [\"1xx\"]", "health.status"),
        ("status = []", "health.status"),
        ("host = \"a\\nb\"", "health.host"),
        ("host = \"a/b\"", "health.host"),
        ("host = \"a:99999\"", "health.host"),
        ("rise = 0", "health.rise"),
    ] {
        let problem = problem(&["a:1"], &format!("[upstreams.many.health]\n{lines}")).await;
        assert!(problem.contains(expected), "{problem}");
    }
}

#[tokio::test]
async fn servers_of_http2_are_asked_in_http2() {
    let server = Streams::start().await;
    let lines = format!(
        "protocol = \"h2\"\n{}",
        checks("check = \"http\"\nfall = 1")
    );
    let lab = lab(&[server.address], &lines).await;
    let mut line = server.accept().await;
    let probe = line.next().await;
    let expected = format!("http://{}/health", server.address);
    assert_eq!(probe.request.uri().to_string(), expected);
    probe.end(StatusCode::SERVICE_UNAVAILABLE, &[]);
    until_in_service(&lab, server.address, false).await;
}

#[tokio::test]
async fn a_check_in_http2_inside_tls_is_for_https() {
    let servers = Authority::new("Servers");
    let directory = TempDir::new().unwrap();
    let ca = directory.path().join("servers.crt");
    std::fs::write(&ca, servers.pem()).unwrap();
    let server = Secure::start(servers.server(&["127.0.0.1"])).await;
    let server = server.agreeing(&["h2"]);
    let lines = format!(
        "protocol = \"h2\"\n{}\n[upstreams.many.tls]\nca = [{ca:?}]",
        checks("check = \"http\"")
    );
    let _lab = lab(&[server.address], &lines).await;
    let peer = server.accept().await.unwrap();
    let mut line = Line::begin(peer.stream, 10).await;
    let probe = line.next().await;
    let expected = format!("https://{}/health", server.address);
    assert_eq!(probe.request.uri().to_string(), expected);
}
