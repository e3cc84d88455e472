//! Shares of the work.

use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, Version, Wire};
use crate::harness::{Client, Protocol};

use super::{brokers, counts, lab, origins, problem};

/// A port where nothing listens.
const NOBODY: &str = "127.0.0.1:1";

#[tokio::test]
async fn requests_take_turns_by_weight_over_connections_that_stay_with_their_server() {
    let origins = origins::<3>().await;
    let [one, two, three] = origins.each_ref().map(|origin| origin.address);
    let servers = [
        format!("{one}"),
        format!("{two} weight=2"),
        format!("{three} weight=5"),
    ];
    let lab = lab(&servers, "").await;
    // One connection belongs to one worker, which keeps the order.
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for _ in 0..40 {
        assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
    }
    assert_eq!(counts(&origins), [5, 10, 25]);
    for origin in &origins {
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn the_less_busy_of_two_servers_gets_more() {
    let origins = origins::<2>().await;
    let addresses = origins.each_ref().map(|origin| origin.address);
    let lab = lab(&addresses, "balance = \"least_busy\"").await;
    let mut sockets = Vec::new();
    while counts(&origins)[0] < 3 {
        sockets.push(lab.device().open_websocket("/many/ws", &[]).await.unwrap());
    }
    // As many at the other, less those that follow.
    let [before, other] = counts(&origins);
    assert!(other.abs_diff(before) <= 3, "{before} {other}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_passed_over_whoever_is_picked() {
    for balance in ["round_robin", "least_busy"] {
        let [origin] = origins().await;
        let up = origin.address.to_string();
        let lab = lab(
            &[NOBODY, &up, "127.0.0.1:2"],
            &format!("balance = \"{balance}\""),
        )
        .await;
        let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
        for _ in 0..10 {
            assert_eq!(kept.get("/many/m", &[]).await.unwrap().status, 200);
        }
        assert_eq!(origin.requests().len(), 10);
        assert!(lab.device().open_websocket("/many/ws", &[]).await.is_ok());
    }
}

#[tokio::test]
async fn where_no_server_can_be_reached_the_answer_is_502() {
    let lab = lab(&[NOBODY, "127.0.0.1:2"], "").await;
    let answer = lab.device().get("/many/m").await.unwrap();
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn sessions_are_spread_over_brokers() {
    let brokers = brokers::<2>().await;
    let addresses = brokers.each_ref().map(|broker| broker.address);
    let lab = lab(&addresses, "balance = \"least_busy\"").await;
    let device = lab.authority.device(SECRET);
    let client = Client::new(lab.address_of("many"), lab.authority.der(), Some(device));
    let mut wires = Vec::new();
    for _ in 0..40 {
        let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
        let connect = Connect::with_password(Version::V5, SECRET);
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.unwrap(), Version::V5.accepted());
        wires.push(wire);
    }
    // They stay open, so each goes where there are fewer, but for those drawn twice.
    for broker in &brokers {
        let sessions = broker.conversations().len();
        assert!((15..=25).contains(&sessions), "{sessions}");
    }
}

#[tokio::test]
async fn a_weight_or_a_balance_that_makes_no_sense_is_refused() {
    for (servers, lines, expected) in [
        (["a:1 weight=0", "b:1"], "", "weight=1 to weight=100"),
        (["a:1 wait=2", "b:1"], "", "is not host:port"),
        (["a:1", "a:1 weight=2"], "", "\"a:1\" is named twice"),
        (
            ["a:1", "b:1"],
            "balance = \"random\"",
            "upstreams.many.balance: must be",
        ),
    ] {
        let problem = problem(&servers, lines).await;
        assert!(problem.contains(expected), "{problem}");
    }
}
