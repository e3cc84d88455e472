//! Thousands of clients that hardly say anything, beside one that means it (S47).

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use super::usual;
use crate::harness::mqtt::{Version, Wire, publish};
use crate::harness::process::Running;
use crate::harness::{Broker, Site};

/// Clients of each transport, where the system gives that many descriptors.
const MOST: u64 = 5_000;
/// What is left for all other tests of this process.
const OTHERS: u64 = 6_000;
/// How long they have for their CONNECT. In this time they send a byte a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many of each transport this machine lets a test open.
fn crowd() -> usize {
    let descriptors = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    // The gateway has as many, and keeps half of them for connections to servers.
    let each = (descriptors.saturating_sub(OTHERS) / 4).min(MOST);
    assert!(each > 100, "too few file descriptors: {descriptors}");
    usize::try_from(each).unwrap()
}

async fn configured(broker: SocketAddr) -> Site {
    let site = Site::new().await;
    let timeout = CONNECT_TIMEOUT.as_secs();
    site.configure(
        "auth = \"key\"",
        &format!(
            "[limits]\nconnections = 20000\n[mqtt]\nconnect_timeout = \"{timeout}s\"\n\
             [listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtt\"\n\
             upstream = \"broker\"\n\
             [listeners.web]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
             [routes.mqtt]\npath = \"/mqtt\"\nprotocol = \"mqtt\"\nupstream = \"broker\"\n\
             [upstreams.broker]\nservers = [\"{broker}\"]\n"
        ),
    );
    site
}

/// Opens all of them, in batches that the listen queue holds. Each trickles from its opening on, since its
/// time runs from there, and a slow machine takes a while to open all.
async fn gather(gateway: &Running<'_>, each: usize) -> Vec<JoinHandle<()>> {
    const BATCH: usize = 250;
    let (plain, web) = (gateway.address_of("plain"), gateway.address_of("web"));
    let mut tricklers = Vec::new();
    for begun in (0..each).step_by(BATCH) {
        let batch = BATCH.min(each - begun);
        let tcp = (0..batch).map(|_| async { Wire::over_tcp(plain).await.unwrap() });
        let wires = join_all(tcp).await.into_iter();
        tricklers.extend(wires.map(|wire| tokio::spawn(trickle(wire))));
        let websockets = (0..batch).map(|_| Wire::over_plain_websocket(web));
        let wires = join_all(websockets).await.into_iter();
        tricklers.extend(wires.map(|wire| tokio::spawn(trickle(wire))));
    }
    tricklers
}

/// Sends a byte a second of a CONNECT that will not be complete in time, until the gateway closes.
async fn trickle(mut wire: Wire) {
    let bytes = usual(Version::V311).bytes();
    let mut pace = interval(Duration::from_secs(1));
    for (sent, byte) in bytes.into_iter().enumerate() {
        tokio::select! {
            packet = wire.packet() => {
                assert_eq!(packet, None);
                // All of the crowd were there for some seconds.
                assert!(sent > 3, "closed after {sent} bytes");
                return;
            }
            _ = pace.tick() => {}
        }
        wire.send(&[byte]).await;
    }
    panic!("the whole CONNECT was waited for");
}

/// Publishes, and waits until the broker has each message, until the crowd is gone; how many there
/// were, and the longest that one took.
async fn publish_until(
    gone: impl Future<Output = ()>,
    wire: &mut Wire,
    broker: &Broker,
) -> (u32, Duration) {
    let message = publish(Version::V311, "m/d/c/ch", b"25.1");
    let mut expected = usual(Version::V311).bytes();
    let mut count = 0;
    let mut longest = Duration::ZERO;
    let mut pace = interval(Duration::from_millis(20));
    tokio::pin!(gone);
    loop {
        tokio::select! {
            () = &mut gone => return (count, longest),
            _ = pace.tick() => {}
        }
        let begun = Instant::now();
        wire.send(&message).await;
        expected.extend_from_slice(&message);
        assert!(broker.received(0, expected.len()).await == expected);
        longest = longest.max(begun.elapsed());
        count += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_that_trickle_do_not_hold_up_one_that_publishes() {
    let each = crowd();
    let broker = Broker::start().await;
    let site = configured(broker.address).await;
    let gateway = site.run(&[]).await;
    let mut healthy = Wire::over_tcp(gateway.address_of("plain")).await.unwrap();
    healthy.send(&usual(Version::V311).bytes()).await;
    assert_eq!(healthy.packet().await.unwrap(), Version::V311.accepted());

    let tricklers = gather(&gateway, each).await;
    let gone = async {
        for trickler in tricklers {
            trickler.await.unwrap();
        }
    };
    let (count, longest) = publish_until(gone, &mut healthy, &broker).await;
    // A client that waits for those that trickle waits for their deadline.
    assert!(longest < CONNECT_TIMEOUT / 2, "{longest:?}");
    assert!(count > 20, "{count} messages");
    broker.assert_fewer_than(2).await;
}
