//! How a connection to a server behind the gateway is made, and what is said on it first.

mod broker_websocket;
mod connection_auth;
mod http2;
mod proxy_protocol;
mod tls;

use std::fmt::Display;

use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Transport, Wire};
use crate::harness::scripted::tables_with;
use crate::harness::{Client, Lab, Scripted};

/// A gateway in front of `server` with these lines in its upstream: requests and WebSockets below
/// `/raw/`, MQTT on the listener `raw` and inside WebSockets at `/raw_mqtt`.
async fn lab(server: &Scripted, lines: &str) -> Lab {
    config(server.address, lines).start().await
}

fn config(server: impl Display, lines: &str) -> Config {
    let tables = tables_with(server, lines);
    Config::x509().tables(&format!(
        "{tables}\
         [routes.raw_mqtt]\npath = \"/raw_mqtt\"\nprotocol = \"mqtt\"\nupstream = \"raw\"\n\
         [listeners.raw]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"raw\"\n"
    ))
}

/// A client of the listener or the route that leads to that upstream by MQTT.
async fn mqtt_client(lab: &Lab, transport: Transport) -> Wire {
    let device = lab.authority.device(SECRET);
    match transport {
        Transport::Tls => {
            let client = Client::new(lab.address_of("raw"), lab.authority.der(), Some(device));
            Wire::over_tls(&client, &["mqtt"]).await.unwrap()
        }
        Transport::WebSocket => {
            let fields = [("sec-websocket-protocol", "mqtt")];
            let opened = lab.device().open_websocket("/raw_mqtt", &fields).await;
            Wire::of_websocket(opened.unwrap().0)
        }
    }
}

/// What is wrong with these lines in an upstream.
async fn problem(lines: &str) -> String {
    let mut lab = Lab::x509().await;
    lab.config = config(lab.origin.address, lines);
    lab.settings().unwrap_err().to_string()
}
