//! How a connection to a server behind the gateway is made, and what is said on it first.

mod broker_websocket;
mod proxy_protocol;

use crate::harness::lab::Config;
use crate::harness::{Lab, Scripted};

/// A gateway in front of `server` with these lines in its upstream: requests and WebSockets below
/// `/raw/`, MQTT on the listener `raw` and inside WebSockets at `/raw_mqtt`.
async fn lab(server: &Scripted, lines: &str) -> Lab {
    let tables = server.tables_with(lines);
    Config::x509()
        .tables(&format!(
            "{tables}\
             [routes.raw_mqtt]\npath = \"/raw_mqtt\"\nprotocol = \"mqtt\"\nupstream = \"raw\"\n\
             [listeners.raw]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"raw\"\n"
        ))
        .start()
        .await
}

/// What is wrong with these lines in an upstream.
async fn problem(lines: &str) -> String {
    let server = Scripted::start().await;
    let mut lab = Lab::x509().await;
    lab.config = Config::x509().tables(&server.tables_with(lines));
    lab.settings().unwrap_err().to_string()
}
