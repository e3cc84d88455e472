//! Stand-in adapters for a demo of the gateway: HTTP, WebSocket, MQTT and MQTT over WebSocket on
//! one message bus, in one process. Any non-empty client secret is good here; who may do what is
//! for real adapters to know. Nothing outlives the process, and nothing is encrypted: run it
//! behind the gateway, on addresses that only the gateway can reach.
//! Start reading here, then `adapters/bus.rs`.

#[path = "adapters/bus.rs"]
mod bus;
#[path = "adapters/credential.rs"]
mod credential;
#[path = "adapters/echo.rs"]
mod echo;
#[path = "adapters/http.rs"]
mod http;
#[path = "adapters/mqtt.rs"]
mod mqtt;
#[path = "adapters/mqtt_codec.rs"]
mod mqtt_codec;
#[path = "adapters/mqtt_link.rs"]
mod mqtt_link;
#[path = "adapters/mqtt_session.rs"]
mod mqtt_session;
#[path = "adapters/mqtt_ws.rs"]
mod mqtt_ws;
#[path = "adapters/refusal.rs"]
mod refusal;
#[path = "adapters/server.rs"]
mod server;
#[path = "adapters/topic.rs"]
mod topic;
#[path = "adapters/upgrade.rs"]
mod upgrade;
#[path = "adapters/ws.rs"]
mod ws;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::bus::Bus;
use crate::mqtt::Broker;
use crate::server::accept_each;

/// Stand-in HTTP, WebSocket and MQTT adapters for a demo of the gateway.
#[derive(Parser)]
struct Arguments {
    /// Address of the HTTP adapter; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8008")]
    http: SocketAddr,
    /// Address of the WebSocket adapter.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8186")]
    ws: SocketAddr,
    /// Address of the MQTT broker.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// Address of the MQTT broker over WebSocket.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    mqtt_ws: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = Stop::on_signals().context("cannot listen for signals")?;
    let listeners = Listeners::bind(&arguments).await?;
    listeners.announce().context("cannot print the addresses")?;
    tokio::select! {
        () = listeners.serve() => {}
        () = stop.asked() => {}
    }
    Ok(())
}

/// What a script or a test reads to find the ports.
#[derive(Serialize)]
struct Addresses {
    http: SocketAddr,
    ws: SocketAddr,
    mqtt: SocketAddr,
    mqtt_ws: SocketAddr,
}

struct Listeners {
    http: TcpListener,
    ws: TcpListener,
    mqtt: TcpListener,
    mqtt_ws: TcpListener,
}

impl Listeners {
    async fn bind(arguments: &Arguments) -> anyhow::Result<Self> {
        Ok(Self {
            http: bind("--http", arguments.http).await?,
            ws: bind("--ws", arguments.ws).await?,
            mqtt: bind("--mqtt", arguments.mqtt).await?,
            mqtt_ws: bind("--mqtt-ws", arguments.mqtt_ws).await?,
        })
    }

    /// The one line on stdout: everything listens now, and this is where.
    fn announce(&self) -> io::Result<()> {
        let line = serde_json::to_string(&Addresses {
            http: self.http.local_addr()?,
            ws: self.ws.local_addr()?,
            mqtt: self.mqtt.local_addr()?,
            mqtt_ws: self.mqtt_ws.local_addr()?,
        })?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }

    async fn serve(self) {
        let bus = Arc::new(Bus::default());
        let broker = Arc::new(Broker::new(Arc::clone(&bus)));
        tokio::join!(
            accept_each(self.http, |stream| http::serve(Arc::clone(&bus), stream)),
            accept_each(self.ws, |stream| ws::serve(Arc::clone(&bus), stream)),
            accept_each(self.mqtt, |stream| Arc::clone(&broker).serve_tcp(stream)),
            accept_each(self.mqtt_ws, |stream| mqtt_ws::serve(
                Arc::clone(&broker),
                stream
            )),
        );
    }
}

async fn bind(option: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address} (change it with {option})"))
}

/// SIGINT and SIGTERM, caught from the moment this exists.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn on_signals() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn asked(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
