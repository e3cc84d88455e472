//! A process that gets no more file descriptors: who is there is served, who comes waits, and when there are
//! descriptors again all is as before.

use futures_util::future::join_all;
use tokio::net::TcpStream;

use crate::harness::{Origin, Protocol, Site};

/// What the process may have: its listeners and pipes, and some connections.
const DESCRIPTORS: u64 = 64;

/// What is left of the upstream `pair` after failures that count: with one failure a server is left out.
const PAIR: &str = "[routes.pair]\npath = \"/pair/\"\nupstream = \"pair\"\n\
                    [upstreams.pair.ejection]\nfailures = 1\n\
                    [timeouts]\nhandshake = \"10m\"\n";

#[tokio::test]
async fn without_descriptors_who_is_there_is_served_and_who_comes_waits() {
    let site = Site::new().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let servers = format!("servers = [\"{}\", \"{}\"]", one.address, two.address);
    site.configure("", &format!("[upstreams.pair]\n{servers}\n{PAIR}"));
    let mut gateway = site.run_within(DESCRIPTORS).await;
    let mut kept = gateway.device().keep(Protocol::Http1).await.unwrap();
    // From now on there is a connection to the origin.
    assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);

    let silent = (0..2 * DESCRIPTORS).map(|_| TcpStream::connect(gateway.edge));
    let silent: Vec<_> = join_all(silent)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    gateway.process.says("cannot accept connections").await;
    for _ in 0..10 {
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
        // There is none for a connection to these, which is no fault of theirs.
        assert_eq!(kept.get("/pair/m", &[]).await.unwrap().status, 503);
    }
    assert_eq!(gateway.process.lines_with("cannot accept connections"), 1);

    drop(silent);
    let device = gateway.device();
    assert_eq!(device.get("/http/m").await.unwrap().status, 200);
    for _ in 0..4 {
        assert_eq!(device.get("/pair/m").await.unwrap().status, 200);
    }
    assert!(!one.requests().is_empty() && !two.requests().is_empty());
    let (_, page) = gateway.admin("/metrics").await;
    let ejections = |line: &&str| line.starts_with("portcullis_upstream_server_ejections_total{");
    let none = page
        .lines()
        .filter(ejections)
        .all(|line| line.ends_with(" 0"));
    assert!(none, "{page}");
}
