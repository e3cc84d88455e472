//! The fixed header that every packet begins with: MQTT 5.0 §2.1.

use super::field::{BadVarint, read_varint};

/// A control packet type, §2.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's own")]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type in the high four bits of a packet's first byte; `None` for type 0.
    #[must_use]
    pub fn of(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The flags that §2.1.3 asks of this type; `None` for PUBLISH, whose flags have a meaning.
    pub(super) fn required_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            Self::Connect
            | Self::Connack
            | Self::Puback
            | Self::Pubrec
            | Self::Pubcomp
            | Self::Suback
            | Self::Unsuback
            | Self::Pingreq
            | Self::Pingresp
            | Self::Disconnect
            | Self::Auth => Some(0),
        }
    }
}

/// The sizes that a fixed header announces, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The fixed header: two to five bytes.
    pub(super) header: u8,
    /// The remaining length: all that follows the fixed header.
    pub(super) remaining: u32,
}

impl Extent {
    /// Reads the remaining length behind a packet's first byte; `None` while it is incomplete.
    pub(super) fn read(packet: &[u8]) -> Result<Option<Self>, BadVarint> {
        let length = packet.get(1..).unwrap_or_default();
        let extent = read_varint(length)?.map(|(remaining, size)| Self {
            header: 1 + size,
            remaining,
        });
        Ok(extent)
    }

    /// The whole packet; at most 5 + 268 435 455, so it cannot overflow.
    pub(super) fn packet(self) -> u32 {
        u32::from(self.header) + self.remaining
    }
}

/// How long the packet at the front of `bytes` is, whether all of it is there or not; `None` while
/// its fixed header is not, or is none.
#[must_use]
pub fn first_packet(bytes: &[u8]) -> Option<usize> {
    let extent = Extent::read(bytes).ok()??;
    usize::try_from(extent.packet()).ok()
}
