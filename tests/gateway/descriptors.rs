//! A process that gets few file descriptors lets in as many clients as these carry. If they run out all the
//! same, who is there is served, who comes waits, and when there are descriptors again all is as before.

use std::io;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::process::Running;
use crate::harness::{Answer, Kept, Origin, Protocol, Site};

/// What the process may have: its listeners and pipes, and some connections.
const DESCRIPTORS: u64 = 128;

/// How many clients these carry: a client takes two, and 73 are kept back.
const CLIENTS: usize = 27;

/// What is left of the upstream `pair` after failures that count: with one failure a server is left out.
const PAIR: &str = "[routes.pair]\npath = \"/pair/\"\nupstream = \"pair\"\n\
                    [upstreams.pair.ejection]\nfailures = 1\n\
                    [timeouts]\nhandshake = \"10m\"\n";

/// So many connections that say nothing.
async fn silent(gateway: &Running<'_>, count: usize) -> Vec<TcpStream> {
    let silent = (0..count).map(|_| TcpStream::connect(gateway.edge));
    let silent = join_all(silent).await.into_iter();
    silent.collect::<Result<_, _>>().unwrap()
}

/// One client with a connection to a server for each of its requests, which has as many as there can be.
async fn greedy(gateway: &Running<'_>) -> (Kept, JoinSet<io::Result<Answer>>) {
    let client = gateway.device().keep(Protocol::Http2).await.unwrap();
    let mut requests = JoinSet::new();
    for _ in 0..DESCRIPTORS {
        let mut client = client.share();
        requests.spawn(async move { client.get("/slow/silent", &[]).await });
    }
    let first = requests.join_next().await.unwrap();
    assert_eq!(first.unwrap().unwrap().status, 503);
    (client, requests)
}

#[tokio::test]
async fn who_is_let_in_finds_descriptors_left() {
    let site = Site::new().await;
    site.configure("", "[timeouts]\nhandshake = \"10m\"\n");
    let mut gateway = site.run_within(DESCRIPTORS).await;
    let in_force = format!("\"connections\":{CLIENTS}");
    assert_eq!(gateway.process.lines_with(&in_force), 1);
    let mut kept = gateway.device().keep(Protocol::Http1).await.unwrap();
    let silent = silent(&gateway, 2 * CLIENTS).await;
    let shed = format!("reason=\"connections\"}} {}", silent.len() + 1 - CLIENTS);
    while !gateway.admin("/metrics").await.1.contains(&shed) {}
    assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    assert_eq!(gateway.admin("/healthz").await.0, 200);
    assert_eq!(gateway.process.lines_with("cannot accept connections"), 0);

    gateway.process.signal("HUP").await;
    gateway.process.says("configuration reloaded").await;
    assert_eq!(gateway.process.lines_with(&in_force), 2);
}

#[tokio::test]
async fn what_descriptors_carry_is_not_lowered() {
    let site = Site::new().await;
    site.configure("", &format!("[limits]\nconnections = {CLIENTS}\n"));
    let gateway = site.run_within(DESCRIPTORS).await;
    assert_eq!(gateway.process.lines_with("fewer file descriptors"), 0);
}

#[tokio::test]
async fn without_descriptors_who_is_there_is_served_and_who_comes_waits() {
    let site = Site::new().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let slow = Origin::start().await;
    let servers = format!("servers = [\"{}\", \"{}\"]", one.address, two.address);
    let slow = format!(
        "[upstreams.slow]\nservers = [\"{}\"]\n\
         [routes.slow]\npath = \"/slow/\"\nupstream = \"slow\"\nstrip_prefix = true\n",
        slow.address
    );
    let pair = format!("[upstreams.pair]\n{servers}\n{PAIR}");
    site.configure("", &format!("{slow}{pair}"));
    let mut gateway = site.run_within(DESCRIPTORS).await;
    let mut kept = gateway.device().keep(Protocol::Http1).await.unwrap();
    // From now on there is a connection to the origin.
    assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);

    let greedy = greedy(&gateway).await;
    let silent = silent(&gateway, 2).await;
    gateway.process.says("cannot accept connections").await;
    for _ in 0..10 {
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
        // There is none for a connection to these, which is no fault of theirs.
        assert_eq!(kept.get("/pair/m", &[]).await.unwrap().status, 503);
    }
    assert_eq!(gateway.process.lines_with("cannot accept connections"), 1);

    drop((silent, greedy));
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

#[tokio::test]
async fn a_server_that_cannot_be_asked_for_want_of_descriptors_is_not_held_to_be_unwell() {
    let site = Site::new().await;
    let (slow, asked) = (Origin::start().await, Origin::start().await);
    let tables = format!(
        "[upstreams.slow]\nservers = [\"{}\"]\n\
         [routes.slow]\npath = \"/slow/\"\nupstream = \"slow\"\nstrip_prefix = true\n\
         [upstreams.asked]\nservers = [\"{}\"]\n\
         [upstreams.asked.health]\ncheck = \"tcp\"\ninterval = \"1ms\"\nfall = 1\n\
         [routes.asked]\npath = \"/asked/\"\nupstream = \"asked\"\n\
         [timeouts]\nhandshake = \"10m\"\n",
        slow.address, asked.address
    );
    site.configure("", &tables);
    let mut gateway = site.run_within(DESCRIPTORS).await;
    let mut kept = gateway.device().keep(Protocol::Http1).await.unwrap();
    let greedy = greedy(&gateway).await;
    let silent = silent(&gateway, 5).await;
    gateway.process.says("cannot accept connections").await;
    for _ in 0..20 {
        // Answered by the gateway itself, while it asks the server again and again.
        assert_eq!(kept.get("/nowhere", &[]).await.unwrap().status, 404);
    }
    drop((silent, greedy));
    let device = gateway.device();
    assert_eq!(device.get("/asked/m").await.unwrap().status, 200);
    assert_eq!(gateway.process.lines_with("is not well"), 0);
    let (_, page) = gateway.admin("/metrics").await;
    let failed = |line: &str| line.starts_with("portcullis_upstream_server_checks_failed_total{");
    let counts: Vec<&str> = page.lines().filter(|line| failed(line)).collect();
    assert!(!counts.is_empty() && counts.iter().all(|line| line.ends_with(" 0")));
}
