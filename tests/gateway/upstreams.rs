//! Which server of an upstream gets a request, a WebSocket or a session, and what happens when one
//! fails.

mod balance;
mod circuit;
mod device;
mod ejection;
mod health;
mod hosts;
mod names;
mod retries;

use std::fmt::Display;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::harness::lab::Config;
use crate::harness::{Broker, Lab, Origin, PATIENCE};

/// A gateway in front of `servers` with these lines in their upstream: requests and
/// WebSockets below `/many/`, and below `/brief/` with little patience; MQTT on the listener `many`.
async fn lab(servers: &[impl Display], lines: &str) -> Lab {
    config(servers, lines).start().await
}

fn config(servers: &[impl Display], lines: &str) -> Config {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    Config::x509().tables(&format!(
        "[upstreams.many]\nservers = [{}]\n{lines}\n\
         [routes.many]\npath = \"/many/\"\nupstream = \"many\"\nstrip_prefix = true\n\
         [routes.brief]\npath = \"/brief/\"\nupstream = \"many\"\nstrip_prefix = true\n\
         response_timeout = \"100ms\"\n\
         [listeners.many]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"many\"\n",
        servers.join(", ")
    ))
}

/// The sum of a number that `/metrics` tells of each of two servers.
async fn sum(lab: &Lab, name: &str, origins: &[Origin; 2]) -> u64 {
    let [one, other] = origins.each_ref().map(|origin| origin.address);
    metric(lab, name, one).await.unwrap() + metric(lab, name, other).await.unwrap()
}

/// What is wrong with these servers and lines of an upstream.
async fn problem(servers: &[&str], lines: &str) -> String {
    let mut lab = Lab::x509().await;
    lab.config = config(servers, lines);
    lab.settings().unwrap_err().to_string()
}

async fn origins<const N: usize>() -> [Origin; N] {
    let mut origins = Vec::new();
    for _ in 0..N {
        origins.push(Origin::start().await);
    }
    origins.try_into().ok().unwrap()
}

async fn brokers<const N: usize>() -> [Broker; N] {
    let mut brokers = Vec::new();
    for _ in 0..N {
        brokers.push(Broker::start().await);
    }
    brokers.try_into().ok().unwrap()
}

/// How many requests each has received.
fn counts<const N: usize>(origins: &[Origin; N]) -> [usize; N] {
    origins.each_ref().map(|origin| origin.requests().len())
}

/// An address that is taken, where nothing listens yet: connections are refused.
struct Absent {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Absent {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    fn appear(self) -> Origin {
        Origin::on(self.socket.listen(128).unwrap())
    }
}

/// A number that `/metrics` tells of a server; `None` if it tells of none.
async fn metric(lab: &Lab, name: &str, server: impl Display) -> Option<u64> {
    let (_, page) = lab.admin("/metrics").await;
    let label = format!("server=\"{server}\"");
    let of_server = |line: &&str| {
        let rest = line.strip_prefix("portcullis_upstream_server_");
        let rest = rest.and_then(|rest| rest.strip_prefix(name));
        // Counters have a suffix of their own.
        rest.is_some_and(|rest| rest.starts_with('{') || rest.starts_with("_total{"))
            && line.contains(&label)
    };
    let line = page.lines().find(of_server)?;
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until a server is in service, or out of it.
async fn until_in_service(lab: &Lab, server: impl Display, expected: bool) {
    let wait = async {
        while metric(lab, "in_service", &server).await != Some(u64::from(expected)) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{server} does not become {expected}");
}
