//! MQTT packets without I/O: bytes in, values out, and back.
//!
//! Owns: reading one CONNECT strictly ([`Connect`]), passing it on with other credentials
//! ([`Connect::rewrite`]), the answers a gateway gives itself ([`connack_v3`], [`connack_v5`],
//! [`disconnect_v5`]), what matters of a broker's CONNACK ([`Connack`]), and following packet boundaries
//! in a relay ([`PacketScanner`]).
//! Does not own: sockets, time, policy, or any packet's payload after the CONNECT.
//! Rules: MQTT 3.1 (2010), MQTT 3.1.1 and MQTT 5.0 (OASIS). Section numbers are those of MQTT 5.0
//! where nothing else is said.
//!
//! Why our own: the published codecs turn a CONNECT into owned values and encode it anew, so it
//! cannot be passed on byte for byte, and they let through what a gateway must refuse (bytes after
//! the last field, reserved flags, repeated properties, U+0000).
//!
//! ```
//! use portcullis::mqtt::codec::{Changes, Connect, Limits, Progress};
//!
//! let received = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03dev\xc0\x00";
//! let Progress::Complete(connect) = Connect::read(received, &Limits::default())? else {
//!     panic!("there is more to read");
//! };
//! assert_eq!(connect.client_id(), "dev");
//! let behind = &received[connect.as_bytes().len()..];
//! assert_eq!(behind, b"\xc0\x00", "a PINGREQ, for the relay");
//!
//! let to_broker = connect.rewrite(&Changes { password: Some(b"key"), ..Changes::default() })?;
//! assert!(to_broker.ends_with(b"\x00\x03dev\x00\x00\x00\x03key"));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod connack;
mod connect;
mod fault;
mod field;
mod packet;
mod property;
mod rewrite;
#[cfg(test)]
mod samples;
mod scanner;
#[cfg(test)]
mod tests;

pub use answer::{
    ConnackReason, DISCONNECT_V3, DisconnectReason, Note, ReturnCode, connack_v3, connack_v5,
    disconnect_v5, is_string, probe_connect,
};
pub use connack::Connack;
pub use connect::{Connect, Limits, Progress, QualityOfService, Version, Will};
pub use fault::{ConnectError, Fault};
pub use packet::{PacketType, first_packet};
pub use property::{Properties, Property, PropertyId, Value};
pub use rewrite::{Changes, RewriteError};
pub use scanner::{Observed, PacketScanner, PacketStart, ScanError, ScanFault};
