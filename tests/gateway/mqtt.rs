//! MQTT over TLS and inside WebSockets: the same clients, the same gate, the same answers. Every
//! test goes over both, and in every version where versions differ.

mod brokers;
mod connect;
mod credentials;
mod crowd;
mod offsets;
mod opening;
mod sessions;

use crate::harness::Lab;
use crate::harness::mqtt::{Connect, Transport, Version, Wire};

/// The fields of a device's CONNECT, with the usual secret.
fn usual(version: Version) -> Connect {
    Connect::with_password(version, crate::harness::lab::SECRET)
}

/// Sends a CONNECT and waits for the broker's consent.
async fn accepted(lab: &Lab, mut wire: Wire, connect: &Connect, version: Version) -> Wire {
    let before = lab.broker.conversations().len();
    wire.send(&connect.bytes()).await;
    let answer = wire.packet().await;
    assert_eq!(answer.as_deref(), Some(version.accepted()), "{connect:?}");
    assert_eq!(lab.broker.conversations().len(), before + 1);
    wire
}

/// A session of the usual device that is open, the only one of its lab so far.
async fn session(lab: &Lab, transport: Transport, version: Version) -> Wire {
    session_with(lab, transport, version, &usual(version)).await
}

async fn session_with(
    lab: &Lab,
    transport: Transport,
    version: Version,
    connect: &Connect,
) -> Wire {
    let wire = lab.mqtt_device(transport).await;
    accepted(lab, wire, connect, version).await
}
