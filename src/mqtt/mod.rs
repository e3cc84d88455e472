//! MQTT 3.1, 3.1.1 and 5: one CONNECT is read, admitted or refused in the protocol's own words, and
//! only then a broker is dialled. What follows is relayed as it is, watched at packet boundaries.
//!
//! [`codec`] knows the bytes, [`session`] the way of one connection, [`refusal`] how MQTT says no.
//! Who may pass is for [`crate::access`] to say.

mod broker;
pub mod codec;
mod frames;
mod probe;
mod refusal;
mod session;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};

pub use probe::probe;
pub use session::{Entrance, serve};

use crate::access::Gate;
use crate::clock::Clock;
use crate::quota::Quotas;
use crate::route::ListenerDemand;
use crate::socket::Socket;
use crate::telemetry::Metrics;
use crate::tls::Terminator;
use crate::websocket::ByteStream;

/// What is the same for every MQTT connection of a listener until the configuration is replaced.
#[derive(Debug)]
pub struct Edge {
    /// Who may pass.
    pub gate: Gate,
    /// What is demanded of a client of a listener for MQTT alone.
    pub demand: ListenerDemand,
    /// How CONNECT is treated.
    pub settings: Settings,
    /// How much each client of the listener may ask for.
    pub quotas: Quotas,
    /// How sessions end when the gateway drains, as is in force then.
    pub drain: Arc<ArcSwap<Drain>>,
    /// For checking sessions again when trust has changed; `None` without TLS.
    pub terminator: Option<Arc<Terminator>>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// All counters.
    pub metrics: Arc<Metrics>,
}

/// How sessions end when the gateway drains, whenever they have begun.
#[derive(Debug, Clone)]
pub struct Drain {
    /// How long that may take: they end spread over it.
    pub timeout: Duration,
    /// Where MQTT 5 clients are sent.
    pub server_reference: Option<String>,
}

/// How CONNECT, and what follows it, is treated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a client may take until its CONNECT is complete, and a broker for its CONNACK.
    pub connect_timeout: Duration,
    /// Most bytes of a CONNECT.
    pub max_connect: u32,
    /// Most bytes of any other packet from a client.
    pub max_packet: u32,
    /// What happens to a client that is known by its certificate and sends no password.
    pub missing_password: MissingPassword,
    /// Whether enhanced authentication (MQTT 5.0 §4.12) is left to the broker; it is refused
    /// otherwise.
    pub enhanced_auth: bool,
    /// Whether MQTT 5 clients that do not ask otherwise are told why in a sentence.
    pub reason_strings: bool,
    /// Where MQTT 5 clients are sent when the gateway drains (MQTT 5.0 §4.13).
    pub server_reference: Option<String>,
    /// Whether mosquitto's bridge levels are let through.
    pub bridges: bool,
}

/// What happens to a client that is known by its certificate and sends no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingPassword {
    /// The broker gets the certificate's secret as the password.
    Fill,
    /// It is refused.
    Refuse,
}

/// A connection that MQTT can be spoken on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Sets what is said when the connection is shut down, where it can say anything.
    fn end_with(&mut self, ending: Ending);
}

/// Why a connection ends, as far as a transport can say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client may not pass, or no longer.
    Refused,
    /// The client breaks the protocol.
    Malformed,
    /// The client sends more than is taken.
    TooLarge,
    /// The gateway drains, has no broker to offer, or has waited for too long for either side.
    GoingAway,
    /// The broker breaks off, or breaks the protocol.
    BrokerFailed,
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn end_with(&mut self, ending: Ending) {
        (**self).end_with(ending);
    }
}

impl Transport for Socket {
    fn end_with(&mut self, _: Ending) {}
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Transport for tokio_rustls::server::TlsStream<IO> {
    fn end_with(&mut self, _: Ending) {}
}

/// RFC 6455 §7.4.1.
impl<IO: AsyncRead + AsyncWrite + Unpin> Transport for ByteStream<IO> {
    fn end_with(&mut self, ending: Ending) {
        self.close_with(match ending {
            Ending::Refused => 1008,
            Ending::Malformed => 1002,
            Ending::TooLarge => 1009,
            Ending::GoingAway => 1001,
            Ending::BrokerFailed => 1011,
        });
    }
}

/// Says `answer`, ends the connection and reads on, so that the answer arrives: closing with bytes
/// unread would reset the connection. Within bounds, since the client may neither read nor end.
async fn let_go(mut client: impl Transport, answer: &[u8]) {
    const MOST: u64 = 64 * 1024;
    const LONGEST: Duration = Duration::from_secs(1);
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let farewell = async {
        client.write_all(answer).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(MOST), &mut tokio::io::sink()).await
    };
    // The connection ends either way.
    let _ = tokio::time::timeout(LONGEST, farewell).await;
}
