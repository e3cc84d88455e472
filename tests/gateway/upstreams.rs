//! Which server of an upstream gets a request, a WebSocket or a session.

mod balance;

use std::fmt::Display;

use crate::harness::lab::Config;
use crate::harness::{Broker, Lab, Origin};

/// A gateway in front of `servers` with these lines in their upstream: requests below `/many/`,
/// WebSockets below the same, MQTT on the listener `many`.
async fn lab(servers: &[impl Display], lines: &str) -> Lab {
    config(servers, lines).start().await
}

fn config(servers: &[impl Display], lines: &str) -> Config {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    Config::x509().tables(&format!(
        "[upstreams.many]\nservers = [{}]\n{lines}\n\
         [routes.many]\npath = \"/many/\"\nupstream = \"many\"\nstrip_prefix = true\n\
         [listeners.many]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"many\"\n",
        servers.join(", ")
    ))
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
