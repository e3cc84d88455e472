//! The packets that a gateway sends of its own: CONNACK and DISCONNECT to say no, and those with
//! which it asks after a broker's health. MQTT 5.0 §3.2, §3.14; MQTT 3.1.1 §3.2.

use super::connect::{Flags, Version};
use super::field::{MAX_VARINT, as_text, write_binary, write_varint};
use super::packet::PacketType;

/// A client's DISCONNECT, MQTT 3.1.1 §3.14; in MQTT 5 the same bytes say "normal". An MQTT 3.x
/// server has no DISCONNECT to send: it closes.
pub const DISCONNECT_V3: [u8; 2] = [0xE0, 0];

const REASON_STRING: u8 = 0x1F;
const SERVER_REFERENCE: u8 = 0x1C;

/// Why MQTT 3.x refuses a connection: MQTT 3.1.1 §3.2.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum ReturnCode {
    UnacceptableProtocolVersion = 1,
    IdentifierRejected = 2,
    ServerUnavailable = 3,
    BadUserNameOrPassword = 4,
    NotAuthorized = 5,
}

/// Why MQTT 5 refuses a connection, §3.2.2.2. Only the codes that a refusal can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum ConnackReason {
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    BadAuthenticationMethod = 0x8C,
    TopicNameInvalid = 0x90,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QosNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    ConnectionRateExceeded = 0x9F,
}

impl ConnackReason {
    /// The MQTT 3.x code that comes closest; `None` where 3.x closes without a word.
    #[must_use]
    pub fn return_code(self) -> Option<ReturnCode> {
        match self {
            Self::UnsupportedProtocolVersion => Some(ReturnCode::UnacceptableProtocolVersion),
            Self::ClientIdentifierNotValid => Some(ReturnCode::IdentifierRejected),
            Self::BadUserNameOrPassword => Some(ReturnCode::BadUserNameOrPassword),
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => {
                Some(ReturnCode::NotAuthorized)
            }
            Self::UnspecifiedError
            | Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => Some(ReturnCode::ServerUnavailable),
            Self::MalformedPacket
            | Self::ProtocolError
            | Self::TopicNameInvalid
            | Self::PacketTooLarge
            | Self::PayloadFormatInvalid
            | Self::RetainNotSupported
            | Self::QosNotSupported => None,
        }
    }
}

/// Why a server ends an MQTT 5 connection, §3.14.2.1. Only codes that a server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum DisconnectReason {
    NormalDisconnection = 0x00,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    NotAuthorized = 0x87,
    ServerBusy = 0x89,
    ServerShuttingDown = 0x8B,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
}

/// What an MQTT 5 answer may say beside its reason code.
///
/// It is advice: a string that MQTT cannot carry is left out, and all of it where the packet would
/// be larger than the client takes (\[MQTT-3.1.2-25\], \[MQTT-3.2.2-19\]). Where even the bare packet
/// is, there is nothing to be said but to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Note<'a> {
    /// A sentence for diagnosis, §3.2.2.3.9.
    pub reason_string: Option<&'a str>,
    /// Another server to use, §3.2.2.3.16.
    pub server_reference: Option<&'a str>,
    /// The client's Maximum Packet Size in bytes; `None` is no limit.
    pub maximum_packet_size: Option<u32>,
}

impl Note<'_> {
    fn properties(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, text) in [
            (REASON_STRING, self.reason_string),
            (SERVER_REFERENCE, self.server_reference),
        ] {
            let Some(text) = text.filter(|text| is_string(text)) else {
                continue;
            };
            out.push(id);
            write_binary(&mut out, text.as_bytes());
        }
        out
    }

    fn allows(&self, packet: &[u8]) -> bool {
        self.maximum_packet_size
            .is_none_or(|limit| u32::try_from(packet.len()).is_ok_and(|size| size <= limit))
    }
}

/// Whether `text` can be a UTF-8 Encoded String (§1.5.4), here without control characters.
#[must_use]
pub fn is_string(text: &str) -> bool {
    u16::try_from(text.len()).is_ok() && as_text(text.as_bytes()).is_some()
}

/// The CONNACK with which MQTT 3.1 and 3.1.1 refuse; session present is 0 (\[MQTT-3.2.2-4\] of
/// 3.1.1).
#[must_use]
pub fn connack_v3(code: ReturnCode) -> [u8; 4] {
    [(PacketType::Connack as u8) << 4, 2, 0, code as u8]
}

/// The CONNACK with which MQTT 5 refuses; session present is 0 (\[MQTT-3.2.2-6\]). Empty for a client
/// that takes no packet so large.
#[must_use]
pub fn connack_v5(reason: ConnackReason, note: &Note<'_>) -> Vec<u8> {
    noted(PacketType::Connack, &[0, reason as u8], note)
}

/// The DISCONNECT with which an MQTT 5 server ends a connection. Empty for a client that takes no
/// packet so large.
#[must_use]
pub fn disconnect_v5(reason: DisconnectReason, note: &Note<'_>) -> Vec<u8> {
    noted(PacketType::Disconnect, &[reason as u8], note)
}

fn noted(kind: PacketType, head: &[u8], note: &Note<'_>) -> Vec<u8> {
    let forms = [&note.properties()[..], &[]];
    let mut packets = forms
        .map(|properties| with_properties(kind, head, properties))
        .into_iter();
    packets
        .find(|packet| note.allows(packet))
        .unwrap_or_default()
}

fn with_properties(kind: PacketType, head: &[u8], properties: &[u8]) -> Vec<u8> {
    let mut body = head.to_vec();
    write_length(&mut body, properties);
    body.extend_from_slice(properties);
    packet(kind, &body)
}

fn packet(kind: PacketType, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![(kind as u8) << 4];
    write_length(&mut packet, body);
    packet.extend_from_slice(body);
    packet
}

/// Appends the length of `counted`: two strings at most, far below what a varint holds.
fn write_length(out: &mut Vec<u8>, counted: &[u8]) {
    write_varint(out, u32::try_from(counted.len()).unwrap_or(MAX_VARINT));
}

/// A CONNECT to ask after a broker's health: clean, without a will or credentials, keep alive
/// 10 s. A broker that refuses it with a CONNACK is alive all the same. `None` where `client_id`
/// is not one that MQTT carries, or is empty, which MQTT 3.1 does not allow.
#[must_use]
pub fn probe_connect(version: Version, client_id: &str) -> Option<Vec<u8>> {
    if client_id.is_empty() || !is_string(client_id) {
        return None;
    }
    let head: &[u8] = match version {
        Version::V31 => b"\x00\x06MQIsdp\x03",
        Version::V311 => b"\x00\x04MQTT\x04",
        Version::V5 => b"\x00\x04MQTT\x05",
    };
    let mut body = head.to_vec();
    body.extend_from_slice(&[Flags::CLEAN_START, 0, 10]);
    if version == Version::V5 {
        body.push(0);
    }
    write_binary(&mut body, client_id.as_bytes());
    Some(packet(PacketType::Connect, &body))
}

#[cfg(test)]
mod tests {
    use super::super::connect::{Connect, Limits, Progress, Version};
    use super::{
        ConnackReason, DisconnectReason, Note, ReturnCode, connack_v3, connack_v5, disconnect_v5,
        probe_connect,
    };

    #[test]
    fn refusals_stand_as_the_specification_draws_them() {
        assert_eq!(connack_v3(ReturnCode::NotAuthorized), [0x20, 2, 0, 5]);
        let bare = Note::default();
        assert_eq!(
            connack_v5(ConnackReason::NotAuthorized, &bare),
            [0x20, 3, 0, 0x87, 0]
        );
        assert_eq!(
            disconnect_v5(DisconnectReason::ServerShuttingDown, &bare),
            [0xE0, 2, 0x8B, 0]
        );
    }

    #[test]
    fn a_note_becomes_properties() {
        let note = Note {
            reason_string: Some("no"),
            server_reference: Some("b:1"),
            maximum_packet_size: Some(16),
        };
        let expected = [
            0x20, 14, 0, 0x9C, 11, 0x1F, 0, 2, b'n', b'o', 0x1C, 0, 3, b'b', b':', b'1',
        ];
        assert_eq!(connack_v5(ConnackReason::UseAnotherServer, &note), expected);
    }

    #[test]
    fn a_note_which_does_not_fit_is_left_out() {
        let long = "x".repeat(65_536);
        let unfit = [
            Note {
                reason_string: Some(&long),
                ..Note::default()
            },
            Note {
                reason_string: Some("nul\0"),
                ..Note::default()
            },
            Note {
                reason_string: Some("no"),
                maximum_packet_size: Some(9),
                ..Note::default()
            },
        ];
        for note in unfit {
            assert_eq!(
                connack_v5(ConnackReason::Banned, &note),
                [0x20, 3, 0, 0x8A, 0]
            );
        }
    }

    #[test]
    fn nothing_is_said_to_a_client_that_takes_no_packet_so_large() {
        let note = |limit| Note {
            reason_string: Some("no"),
            maximum_packet_size: Some(limit),
            ..Note::default()
        };
        let connack = |limit| connack_v5(ConnackReason::Banned, &note(limit));
        assert_eq!(connack(5), [0x20, 3, 0, 0x8A, 0]);
        assert!(connack(4).is_empty());
        let disconnect = |limit| disconnect_v5(DisconnectReason::ServerBusy, &note(limit));
        assert_eq!(disconnect(4), [0xE0, 2, 0x89, 0]);
        assert!(disconnect(3).is_empty());
    }

    #[test]
    fn a_long_note_takes_a_long_length() {
        let text = "x".repeat(65_535);
        let note = Note {
            reason_string: Some(&text),
            ..Note::default()
        };
        let packet = disconnect_v5(DisconnectReason::ServerBusy, &note);
        assert_eq!(
            packet.get(..5),
            Some([0xE0, 0x86, 0x80, 0x04, 0x89].as_slice())
        );
        assert_eq!(packet.len(), 4 + 1 + 3 + 3 + 65_535);
    }

    #[test]
    fn a_probe_is_a_connect() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let bytes = probe_connect(version, "portcullis-probe").expect("a plain client id");
            let Ok(Progress::Complete(connect)) = Connect::read(&bytes, &Limits::default()) else {
                panic!("the probe is refused");
            };
            assert_eq!(connect.version(), version);
            assert_eq!(connect.as_bytes(), bytes);
            assert!(connect.clean_start() && connect.password().is_none());
        }
        assert_eq!(probe_connect(Version::V31, ""), None);
        assert_eq!(probe_connect(Version::V5, "nul\0"), None);
    }
}
