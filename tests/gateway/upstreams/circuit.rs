//! How much may be asked of the servers at once, and what becomes of what is too much.

use hyper::StatusCode;
use tokio::task::JoinHandle;

use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, EVERY_VERSION, Version, Wire};
use crate::harness::streams::Streams;
use crate::harness::{Answer, Client, Lab, PATIENCE, Protocol};

use super::{Absent, brokers, counts, lab, metric, origins, problem, until_in_service};

const ONE: &str = "[upstreams.many.circuit]\nmax_requests = 1";

/// A request that is never answered.
fn occupy(lab: &Lab) -> JoinHandle<()> {
    let device = lab.device();
    tokio::spawn(async move {
        let _ = device.get("/many/silent").await;
    })
}

async fn until_busy(lab: &Lab, server: impl std::fmt::Display, count: u64) {
    let wait = async {
        while metric(lab, "busy", &server).await != Some(count) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{server} never has {count}");
}

fn assert_overloaded(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "5");
    assert_eq!(answer.json()["code"], "overloaded");
}

async fn overloads(lab: &Lab) -> u64 {
    let (_, page) = lab.admin("/metrics").await;
    let name = "portcullis_upstream_overloads_total{upstream=\"many\"} ";
    let mut lines = page.lines();
    lines
        .find_map(|line| line.strip_prefix(name))
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn what_no_server_has_room_for_is_to_come_again_later() {
    let [origin] = origins().await;
    let lab = lab(
        &[origin.address],
        "[upstreams.many.circuit]\nmax_requests = 2",
    )
    .await;
    let silent = [occupy(&lab), occupy(&lab)];
    until_busy(&lab, origin.address, 2).await;
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::WebSocket] {
        let answer = lab.device().send(protocol, "/many/m", &[]).await.unwrap();
        assert_overloaded(&answer);
    }
    assert_eq!(origin.connections(), 2);
    assert_eq!(overloads(&lab).await, 3);
    silent[0].abort();
    until_busy(&lab, origin.address, 1).await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for _ in 0..3 {
        assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
    }
    silent[1].abort();
}

#[tokio::test]
async fn a_server_with_room_takes_what_another_has_none_for() {
    for balance in ["round_robin", "least_busy", "device"] {
        let origins = origins::<2>().await;
        let addresses = origins.each_ref().map(|origin| origin.address);
        let lab = lab(&addresses, &format!("balance = \"{balance}\"\n{ONE}")).await;
        let _first = occupy(&lab);
        while counts(&origins) == [0, 0] {
            tokio::task::yield_now().await;
        }
        let free = usize::from(counts(&origins)[0] == 1);
        let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
        for _ in 0..6 {
            let answer = kept.get("/many/m", &[]).await.unwrap();
            assert_eq!(answer.status, 200, "{balance}");
        }
        assert_eq!(counts(&origins)[free], 6, "{balance}");
        let _second = occupy(&lab);
        until_busy(&lab, addresses[free], 1).await;
        assert_overloaded(&kept.get("/many/m", &[]).await.unwrap());
    }
}

#[tokio::test]
async fn a_websocket_counts_as_long_as_it_is_open() {
    let [origin] = origins().await;
    let lab = lab(&[origin.address], ONE).await;
    let (socket, _) = lab.device().open_websocket("/many/m", &[]).await.unwrap();
    assert_overloaded(&lab.device().get("/many/m").await.unwrap());
    drop(socket);
    until_busy(&lab, origin.address, 0).await;
    assert_eq!(lab.device().get("/many/m").await.unwrap().status, 200);
}

/// A device's CONNECT, and the answer.
async fn connect(lab: &Lab, version: Version) -> (Wire, Vec<u8>) {
    let device = lab.authority.device(SECRET);
    let client = Client::new(lab.address_of("many"), lab.authority.der(), Some(device));
    let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
    wire.send(&Connect::with_password(version, SECRET).bytes())
        .await;
    let answer = wire.packet().await.unwrap();
    (wire, answer)
}

#[tokio::test]
async fn a_session_that_no_broker_has_room_for_is_told_so() {
    let [broker] = brokers().await;
    let lab = lab(&[broker.address], ONE).await;
    let (session, answer) = connect(&lab, Version::V5).await;
    assert_eq!(answer, Version::V5.accepted());
    for version in EVERY_VERSION {
        let (mut wire, answer) = connect(&lab, version).await;
        assert_eq!(answer, version.refused(3, 0x89));
        wire.end().await;
    }
    assert_eq!(broker.conversations().len(), 1);
    assert_eq!(overloads(&lab).await, 3);
    drop(session);
    until_busy(&lab, broker.address, 0).await;
    assert_eq!(connect(&lab, Version::V5).await.1, Version::V5.accepted());
}

#[tokio::test]
async fn having_no_room_is_no_failure() {
    let [origin, other] = origins().await;
    let rules = format!("{ONE}\n[upstreams.many.ejection]\nfailures = 1");
    let lab = lab(&[origin.address, other.address], &rules).await;
    let _silent = [occupy(&lab), occupy(&lab)];
    for origin in [&origin, &other] {
        until_busy(&lab, origin.address, 1).await;
    }
    for _ in 0..10 {
        assert_overloaded(&lab.device().get("/many/m").await.unwrap());
    }
    for origin in [&origin, &other] {
        assert_eq!(metric(&lab, "failures", origin.address).await, Some(0));
        assert_eq!(metric(&lab, "in_service", origin.address).await, Some(1));
    }
}

#[tokio::test]
async fn a_server_that_is_left_out_is_no_way_out() {
    let [up] = origins().await;
    let absent = Absent::new();
    let down = absent.address;
    let rules = format!("{ONE}\n[upstreams.many.ejection]\nfailures = 1\ntime = \"5m\"");
    let lab = lab(&[down, up.address], &rules).await;
    for _ in 0..2 {
        assert_eq!(lab.device().get("/many/m").await.unwrap().status, 200);
    }
    until_in_service(&lab, down, false).await;
    let late = absent.appear();
    let _silent = occupy(&lab);
    until_busy(&lab, up.address, 1).await;
    assert_overloaded(&lab.device().get("/many/m").await.unwrap());
    late.assert_untouched();
}

#[tokio::test]
async fn streams_of_http2_count_alike() {
    let server = Streams::start().await;
    let lab = lab(&[server.address], &format!("protocol = \"h2\"\n{ONE}")).await;
    let mut kept = lab.device().keep(Protocol::Http2).await.unwrap();
    let mut first = kept.share();
    let first = tokio::spawn(async move { first.get("/many/m", &[]).await.unwrap() });
    let mut line = server.accept().await;
    let stream = line.next().await;
    assert_overloaded(&kept.get("/many/m", &[]).await.unwrap());
    stream.ok();
    assert_eq!(first.await.unwrap().body, "ok");
    until_busy(&lab, server.address, 0).await;
    let origin = async { line.next().await.ok() };
    let (answer, ()) = tokio::join!(kept.get("/many/m", &[]), origin);
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_limit_that_is_no_number_is_refused() {
    let lines = "[upstreams.many.circuit]\nmax_requests = -1";
    let problem = problem(&["a:1"], lines).await;
    let expected = "circuit.max_requests: must be a whole number";
    assert!(problem.contains(expected), "{problem}");
}
