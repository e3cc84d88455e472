//! `client_limit` and `address_limit`: how much one client may ask for, over all its connections.

use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;

use crate::harness::client::{Answer, EVERY_PROTOCOL, Refused};
use crate::harness::issuer::{KEY, PLATFORM, claims, signed};
use crate::harness::kept::whole;
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Wire};
use crate::harness::{Client, Identity, Lab, PATIENCE, Protocol, Scripted};

const HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Two at once, and one more every five seconds.
const TWO: &str = "requests = 2\ninterval = \"10s\"\n";

/// The routes `/http/`, `/ws/` and `/public/` with this limit, each for itself.
fn limited(config: Config, kind: &str, lines: &str) -> Config {
    ["http", "ws", "public"]
        .iter()
        .fold(config, |config, route| {
            config.tables(&format!("[routes.{route}.{kind}]\n{lines}"))
        })
}

async fn statuses(client: &Client, path: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for at in 0..count {
        let answer = client.send(HTTP[at % 2], path, &[]).await.unwrap();
        statuses.push(answer.status.as_u16());
    }
    statuses
}

/// Waits until a request, sent again and again, has this status.
async fn until(client: &Client, protocol: Protocol, path: &str, status: u16) {
    let tried = async {
        while client.send(protocol, path, &[]).await.unwrap().status != status {
            tokio::task::yield_now().await;
        }
    };
    let tried = tokio::time::timeout(PATIENCE, tried).await;
    tried.unwrap_or_else(|_| panic!("never {status}"));
}

fn assert_limited(answer: &Answer, wait: &str) {
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["code"], "too_many_requests");
    assert_eq!(answer.headers["retry-after"], wait);
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_device_that_asks_too_often_is_told_when_to_come_again() {
    let config = limited(Config::x509(), "client_limit", TWO);
    let lab = config.start().await;
    let device = lab.device();
    for protocol in EVERY_PROTOCOL {
        lab.clock.advance(Duration::from_secs(60));
        let path = if protocol == Protocol::WebSocket {
            "/ws/m"
        } else {
            "/http/m"
        };
        let before = lab.origin.requests().len();
        for wanted in [true, true, false] {
            let answer = device.send(protocol, path, &[]).await.unwrap();
            if wanted {
                assert!(matches!(answer.status.as_u16(), 101 | 200));
            } else {
                assert_limited(&answer, "5");
            }
        }
        lab.clock.advance(Duration::from_millis(1500));
        assert_limited(&device.send(protocol, path, &[]).await.unwrap(), "4");
        assert_eq!(lab.origin.requests().len(), before + 2);
        // Another device, from the same address, is not held up.
        let other = lab.device().send(protocol, path, &[]).await.unwrap();
        assert!(matches!(other.status.as_u16(), 101 | 200));
        lab.clock.advance(Duration::from_millis(3500));
        let answer = device.send(protocol, path, &[]).await.unwrap();
        assert!(matches!(answer.status.as_u16(), 101 | 200));
        assert_eq!(device.send(protocol, path, &[]).await.unwrap().status, 429);
    }
    let (_, metrics) = lab.admin("/metrics").await;
    for line in [
        "portcullis_limited_total{route=\"http\"} 6",
        "portcullis_limited_total{route=\"ws\"} 3",
        "portcullis_refusals_total{reason=\"too_often\"} 9",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(
        !metrics.contains("limited_total{route=\"mqtt\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_client_is_known_by_its_secret_and_a_user_by_its_token() {
    let config = limited(Config::key(), "client_limit", TWO);
    let lab = config
        .tables(PLATFORM)
        .route("credential = \"any\"")
        .start()
        .await;
    let user = |name: &str, id: u64| {
        let mut claims = claims(&lab);
        claims["user"] = json!(name);
        claims["jti"] = json!(id);
        format!("Bearer {}", signed(KEY, &claims))
    };
    // Two tokens of one user are one.
    for [first, again, other] in [
        [
            "Client one".to_owned(),
            "Client one".to_owned(),
            "Client two".to_owned(),
        ],
        [user("u1", 1), user("u1", 2), user("u2", 3)],
    ] {
        for protocol in HTTP {
            lab.clock.advance(Duration::from_secs(60));
            let client = lab.anonymous();
            for (authorization, status) in [
                (&first, 200),
                (&again, 200),
                (&again, 429),
                (&first, 429),
                (&other, 200),
            ] {
                let fields = [("authorization", authorization.as_str())];
                let answer = client.send(protocol, "/http/m", &fields).await.unwrap();
                assert_eq!(answer.status, status, "{authorization}");
            }
        }
    }
}

#[tokio::test]
async fn who_is_refused_has_asked_for_nothing_and_who_is_nobody_counts_for_its_address() {
    let config = Config::x509().tls("client_auth = \"optional\"");
    let lab = limited(config, "client_limit", TWO).start().await;
    assert_eq!(statuses(&lab.anonymous(), "/http/m", 4).await, [401; 4]);
    assert_eq!(statuses(&lab.device(), "/http/m", 3).await, [200, 200, 429]);
    // Each route counts for itself.
    assert_eq!(
        statuses(&lab.anonymous(), "/public/m", 3).await,
        [200, 200, 429]
    );
    assert_eq!(
        statuses(&lab.device(), "/public/m", 3).await,
        [200, 200, 429]
    );
}

#[tokio::test]
async fn an_address_counts_whoever_comes_from_there_and_before_the_gate() {
    let behind =
        "[listeners.behind]\naddress = \"127.0.0.1:0\"\nproxy_protocol_from = [\"127.0.0.1\"]\n";
    let config = Config::x509()
        .tls("client_auth = \"optional\"")
        .tables(behind);
    let lab = limited(config, "address_limit", TWO).start().await;
    let anonymous = lab.anonymous();
    assert_eq!(statuses(&anonymous, "/http/m", 3).await, [401, 401, 429]);
    assert_eq!(statuses(&lab.device(), "/http/m", 1).await, [429]);
    let at = |address: &str| {
        let device = lab.authority.device(SECRET);
        let client = Client::new(lab.address_of("behind"), lab.authority.der(), Some(device));
        client.behind(format!("PROXY TCP6 {address} 2001:db8::9 1 2\r\n"))
    };
    // A network of IPv6 is one.
    assert_eq!(statuses(&at("2001:db8::1"), "/http/m", 1).await, [200]);
    assert_eq!(
        statuses(&at("2001:db8::2:1"), "/http/m", 2).await,
        [200, 429]
    );
    assert_eq!(statuses(&at("2001:db8:0:1::1"), "/http/m", 1).await, [200]);
}

#[tokio::test]
async fn all_workers_count_together() {
    let lines = "requests = 10\ninterval = \"1h\"\n";
    let lab = limited(Config::x509(), "client_limit", lines).start().await;
    let device = lab.device();
    let asked = (0..40).map(|_| device.get("/http/m"));
    let answers = join_all(asked).await;
    let passed = answers
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().status == 200);
    assert_eq!(passed.count(), 10);
}

#[tokio::test]
async fn a_burst_can_be_more_or_less_than_the_pace() {
    for (burst, passed) in [(1, 1), (3, 3)] {
        let lines = format!("{TWO}burst = {burst}\n");
        let lab = limited(Config::x509(), "client_limit", &lines)
            .start()
            .await;
        let expected = [vec![200; passed], vec![429; 4 - passed]].concat();
        assert_eq!(statuses(&lab.device(), "/http/m", 4).await, expected);
    }
}

#[tokio::test]
async fn a_client_has_no_more_requests_under_way_than_it_may() {
    let upstream = Scripted::start().await;
    let limit = "[routes.raw.client_limit]\nat_once = 1\n";
    let config = Config::x509().tables(&upstream.tables()).tables(limit);
    let lab = config.start().await;
    for protocol in HTTP {
        let device = lab.device();
        let mut kept = device.keep(protocol).await.unwrap();
        let first = kept.begin(Method::GET, "/raw/m", &[], whole(""));
        let meanwhile = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            assert_limited(&device.send(protocol, "/raw/m", &[]).await.unwrap(), "1");
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                .await;
            peer
        };
        let (first, mut peer) = tokio::join!(first, meanwhile);
        // Its answer has begun, and is under way until its last byte.
        assert_eq!(
            device.send(protocol, "/raw/m", &[]).await.unwrap().status,
            429
        );
        peer.say("ok").await;
        drop(peer);
        drop(first.unwrap());
        let second = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.say("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                .await;
        };
        tokio::join!(until(&device, protocol, "/raw/m", 204), second);
    }
    let (_, metrics) = lab.admin("/metrics").await;
    assert!(
        metrics.contains("portcullis_limited_total{route=\"raw\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_websocket_counts_for_as_long_as_it_is_open() {
    let lab = limited(Config::x509(), "client_limit", "at_once = 1\n")
        .start()
        .await;
    let device = lab.device();
    let (socket, _) = device.open_websocket("/ws/m", &[]).await.unwrap();
    let second = device
        .send(Protocol::WebSocket, "/ws/m", &[])
        .await
        .unwrap();
    assert_limited(&second, "1");
    let mut connection = device.multiplex().await.unwrap();
    let refused = connection.open_websocket("/ws/m", &[]).await.unwrap_err();
    assert_eq!(refused.status, 429);
    let other = lab.device().send(Protocol::WebSocket, "/ws/m", &[]).await;
    assert_eq!(other.unwrap().status, 101);
    drop(socket);
    until(&device, Protocol::WebSocket, "/ws/m", 101).await;
}

#[tokio::test]
async fn a_reload_forgets_nothing_of_a_limit_that_stays() {
    let mut lab = limited(Config::x509(), "client_limit", TWO).start().await;
    let device = lab.device();
    assert_eq!(statuses(&device, "/http/m", 2).await, [200; 2]);
    lab.reload().unwrap();
    assert_eq!(statuses(&device, "/http/m", 1).await, [429]);
    lab.config = limited(
        Config::x509(),
        "client_limit",
        "requests = 3\ninterval = \"1h\"\n",
    );
    lab.reload().unwrap();
    assert_eq!(statuses(&device, "/http/m", 4).await, [200, 200, 200, 429]);
    lab.config = Config::x509();
    lab.reload().unwrap();
    assert_eq!(statuses(&device, "/http/m", 5).await, [200; 5]);
}

/// What a CONNECT is answered, with the session if it is accepted.
async fn connected(
    lab: &Lab,
    identity: &Identity,
    transport: Transport,
    version: Version,
) -> (Vec<u8>, Wire) {
    let mut wire = lab.mqtt(transport, Some(identity.clone())).await.unwrap();
    wire.send(&Connect::with_password(version, SECRET).bytes())
        .await;
    let answer = wire.packet().await.unwrap();
    (answer, wire)
}

/// The same limit for the listener and for the route to it.
fn limited_mqtt(kind: &str, lines: &str) -> Config {
    let tables = format!("[listeners.mqtts.{kind}]\n{lines}[routes.mqtt.{kind}]\n{lines}");
    Config::x509().tables(&tables)
}

#[tokio::test]
async fn a_device_that_connects_to_brokers_too_often_is_told_so() {
    for kind in ["client_limit", "address_limit"] {
        let lab = limited_mqtt(kind, TWO).start().await;
        let device = lab.authority.device(SECRET);
        for transport in EVERY_TRANSPORT {
            for version in EVERY_VERSION {
                lab.clock.advance(Duration::from_secs(60));
                for _ in 0..2 {
                    let (answer, _) = connected(&lab, &device, transport, version).await;
                    assert_eq!(answer, version.accepted());
                }
                let (answer, _) = connected(&lab, &device, transport, version).await;
                assert_eq!(answer, version.refused(3, 0x9F));
                lab.clock.advance(Duration::from_secs(5));
                let (answer, _) = connected(&lab, &device, transport, version).await;
                assert_eq!(answer, version.accepted());
            }
        }
        let (_, metrics) = lab.admin("/metrics").await;
        for name in ["listeners.mqtts", "mqtt"] {
            let line = format!("portcullis_limited_total{{route=\"{name}\"}} 3");
            assert!(metrics.contains(&line), "{metrics}");
        }
    }
}

#[tokio::test]
async fn an_opening_that_is_refused_counts_for_its_address_and_is_not_looked_at_beyond() {
    let lab = limited_mqtt("address_limit", TWO).start().await;
    let fields = [("sec-websocket-protocol", "mqtt")];
    let open = async |secret: &str| {
        let path = format!("/mqtt?authorization={secret}");
        lab.device().open_websocket(&path, &fields).await
    };
    for _ in 0..2 {
        let Err(Refused::Answered(answer)) = open("another").await else {
            panic!("it is open");
        };
        assert_eq!(answer.status, 403);
    }
    // Whatever it guesses, MQTT has a word for this.
    for secret in ["another", SECRET] {
        let opened = open(secret).await;
        let mut wire = Wire::of_websocket(opened.unwrap().0);
        wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
            .await;
        wire.ends_with(&Version::V5.refused(3, 0x9F)).await;
    }
    assert_eq!(statuses(&lab.device(), "/mqtt", 1).await, [429]);
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_device_has_no_more_sessions_than_it_may() {
    let lab = limited_mqtt("client_limit", "at_once = 1\n").start().await;
    let device = lab.authority.device(SECRET);
    let other = lab.authority.device(SECRET);
    for transport in EVERY_TRANSPORT {
        let (answer, first) = connected(&lab, &device, transport, Version::V5).await;
        assert_eq!(answer, Version::V5.accepted());
        for version in EVERY_VERSION {
            let (answer, _) = connected(&lab, &device, transport, version).await;
            assert_eq!(answer, version.refused(3, 0x97));
        }
        let (answer, _) = connected(&lab, &other, transport, Version::V5).await;
        assert_eq!(answer, Version::V5.accepted());
        drop(first);
        let again = async {
            while connected(&lab, &device, transport, Version::V5).await.0 != Version::V5.accepted()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, again)
            .await
            .expect("it stays full");
        let gone = async {
            while !lab
                .admin("/metrics")
                .await
                .1
                .contains("mqtt_sessions_active 0\n")
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("sessions stay");
    }
}

#[tokio::test]
async fn an_address_has_no_more_sessions_than_it_may() {
    let lab = limited_mqtt("address_limit", "at_once = 1\n").start().await;
    let device = lab.authority.device(SECRET);
    let version = Version::V5;
    for transport in EVERY_TRANSPORT {
        for _ in 0..2 {
            let first = async {
                loop {
                    let (answer, wire) = connected(&lab, &device, transport, version).await;
                    if answer == version.accepted() {
                        return wire;
                    }
                }
            };
            let first = tokio::time::timeout(PATIENCE, first).await;
            let mut first = first.expect("it stays full");
            for _ in 0..2 {
                let (answer, _) = connected(&lab, &device, transport, version).await;
                assert_eq!(answer, version.refused(3, 0x97));
            }
            lab.broker.close(lab.broker.conversations().len() - 1);
            first.end().await;
        }
    }
}

#[tokio::test]
async fn a_limit_that_makes_no_sense_stops_the_start() {
    for (lines, expected) in [
        (
            "burst = 1",
            "routes.http.client_limit.burst: has no meaning without requests",
        ),
        (
            "interval = \"1s\"",
            "routes.http.client_limit.interval: has no meaning without",
        ),
        (
            "requests = -1",
            "routes.http.client_limit.requests: must be a whole number",
        ),
        (
            "at_once = 10000000",
            "routes.http.client_limit.at_once: must be a whole number",
        ),
        (
            "requests = 1\ninterval = \"0s\"",
            "interval: must be longer than 0",
        ),
        ("concurrent = 1", "routes.http.client_limit.concurrent"),
    ] {
        let mut lab = Lab::x509().await;
        lab.config = Config::x509().tables(&format!("[routes.http.client_limit]\n{lines}\n"));
        let problem = lab.settings().map(drop).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
    let mut lab = Lab::x509().await;
    lab.config = Config::x509().tables("[listeners.edge.client_limit]\nrequests = 1\n");
    let problem = lab.settings().map(drop).unwrap_err().to_string();
    assert!(problem.contains("listeners.edge.client_limit"), "{problem}");
}
