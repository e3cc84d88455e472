//! What can be wrong with a CONNECT, and how MQTT says so: MQTT 5.0 §4.13, MQTT 3.1.1 §3.1.4.
//!
//! No fault holds bytes that the client sent, but single flags and numbers, so all may be logged.

use thiserror::Error;

use super::answer::{ConnackReason, Note, connack_v3, connack_v5};
use super::connect::Version;
use super::property::PropertyId;

/// A CONNECT that is refused, with the version in which to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault}")]
pub struct ConnectError {
    /// The version whose form an answer takes; `None` where the client's version is not known, so
    /// that there is nothing to say but to close.
    pub version: Option<Version>,
    /// The largest packet that the client takes, as far as that is known; `None` is no limit.
    pub maximum_packet_size: Option<u32>,
    /// What is wrong.
    pub fault: Fault,
}

impl ConnectError {
    /// The CONNACK to send before closing, or `None` where the connection is closed without one;
    /// with the fault in a sentence if that is wanted and the version has room for one.
    ///
    /// MQTT 3.x has answers to an unacceptable version and a refused client id only; a packet that
    /// does not conform is met by closing (\[MQTT-3.1.4-1\] of 3.1.1).
    #[must_use]
    pub fn answer(&self, in_a_sentence: bool) -> Option<Vec<u8>> {
        let reason = self.fault.connack_reason();
        match self.version? {
            Version::V5 => {
                let sentence = self.fault.to_string();
                let note = Note {
                    reason_string: in_a_sentence.then_some(&sentence),
                    maximum_packet_size: self.maximum_packet_size,
                    ..Note::default()
                };
                Some(connack_v5(reason, &note))
            }
            Version::V31 | Version::V311 => match self.fault {
                Fault::UnsupportedVersion { .. } | Fault::ClientIdMissing => {
                    Some(connack_v3(reason.return_code()?).to_vec())
                }
                _ => None,
            },
        }
    }
}

/// The rule that a CONNECT breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The first packet is of another type (\[MQTT-3.1.0-1\]), or the stream is not MQTT.
    #[error("the first byte is {first_byte:#04x}, not that of a CONNECT")]
    NotConnect {
        /// The byte that stands where 0x10 must.
        first_byte: u8,
    },
    /// The low four bits of the first byte are not zero, §2.1.3.
    #[error("the fixed header's reserved flags are {0:#x}, not zero")]
    HeaderFlags(u8),
    /// A Variable Byte Integer is over four bytes or not in its shortest form, §1.5.5.
    #[error("a variable byte integer is too long")]
    Varint,
    /// The packet is larger than the gateway takes.
    #[error("the packet is {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// The whole packet, fixed header included, in bytes.
        size: u32,
        /// The largest packet that is taken, in bytes.
        limit: u32,
    },
    /// The protocol name is neither `MQTT` nor `MQIsdp`, §3.1.2.1.
    #[error("the protocol name is not MQTT's")]
    UnknownProtocol,
    /// The protocol level is none that goes with the name, §3.1.2.2.
    #[error("the protocol level {level:#04x} is not supported")]
    UnsupportedVersion {
        /// The level as sent.
        level: u8,
    },
    /// Bit 0 of the connect flags is set (\[MQTT-3.1.2-3\]).
    #[error("the reserved connect flag is set")]
    ReservedFlag,
    /// The will's quality of service is 3 (\[MQTT-3.1.2-12\]).
    #[error("the will QoS is 3")]
    WillQos,
    /// `Will QoS` or `Will Retain` is set without the Will Flag (\[MQTT-3.1.2-11\], -13).
    #[error("will flags are set without a will")]
    WillFlags,
    /// MQTT 3.x has no password without a user name (\[MQTT-3.1.2-22\] of 3.1.1).
    #[error("a password is flagged without a user name")]
    PasswordWithoutUserName,
    /// A field reaches past the end of the packet or of its property list, or the packet is too
    /// short to be a CONNECT.
    #[error("a field reaches past the end of what holds it")]
    Truncated,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    TrailingBytes,
    /// A string is not UTF-8, or holds a control character or a noncharacter, §1.5.4.
    #[error("the {field} is not a string that MQTT allows")]
    Text {
        /// Which string.
        field: &'static str,
    },
    /// The will's topic is empty or has a wildcard, §4.7.
    #[error("the will topic is empty or has a wildcard")]
    WillTopic,
    /// A zero-length client id, in MQTT 3.1, or in 3.1.1 without clean session (\[MQTT-3.1.3-8\]).
    #[error("the client id is empty")]
    ClientIdMissing,
    /// A property that does not exist, or does not belong here, §2.2.2.2.
    #[error("property {0:#04x} is unknown here")]
    UnknownProperty(u32),
    /// A property stands twice, §2.2.2.2.
    #[error("property {0:?} is repeated")]
    RepeatedProperty(PropertyId),
    /// A property's value is one that its section forbids, §3.1.2.11, §3.1.3.2.
    #[error("property {0:?} has a value that is not allowed")]
    PropertyValue(PropertyId),
    /// Authentication Data without an Authentication Method, §3.1.2.11.10.
    #[error("authentication data without an authentication method")]
    AuthenticationMethodMissing,
}

impl Fault {
    /// The MQTT 5 reason code that names this fault, §3.2.2.2.
    #[must_use]
    pub fn connack_reason(&self) -> ConnackReason {
        match self {
            Self::UnknownProtocol | Self::UnsupportedVersion { .. } => {
                ConnackReason::UnsupportedProtocolVersion
            }
            Self::ClientIdMissing => ConnackReason::ClientIdentifierNotValid,
            Self::TooLarge { .. } => ConnackReason::PacketTooLarge,
            Self::NotConnect { .. }
            | Self::RepeatedProperty(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationMethodMissing => ConnackReason::ProtocolError,
            Self::HeaderFlags(_)
            | Self::Varint
            | Self::ReservedFlag
            | Self::WillQos
            | Self::WillFlags
            | Self::PasswordWithoutUserName
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Text { .. }
            | Self::WillTopic
            | Self::UnknownProperty(_) => ConnackReason::MalformedPacket,
        }
    }
}
