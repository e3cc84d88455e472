//! What a gateway has to know of a broker's CONNACK: MQTT 5.0 §3.2, MQTT 3.1.1 §3.2.

use super::fault::Fault;
use super::field::Fields;
use super::packet::{Extent, PacketType};

const SERVER_KEEP_ALIVE: u32 = 0x13;

/// A broker's answer to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connack {
    /// The return code of MQTT 3, or the reason code of MQTT 5; zero accepts.
    pub code: u8,
    /// The keep alive in seconds that goes before the client's, MQTT 5 §3.2.2.3.14.
    pub server_keep_alive: Option<u16>,
}

impl Connack {
    /// Reads a whole packet; `None` if it is no CONNACK. What comes behind the code is the client's
    /// affair: where it cannot be read, it says nothing here.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let kind = PacketType::of(*packet.first()?)?;
        let extent = Extent::read(packet).ok()??;
        let body = packet.get(usize::from(extent.header)..)?;
        let [_, code, properties @ ..] = body else {
            return None;
        };
        (kind == PacketType::Connack).then(|| Self {
            code: *code,
            server_keep_alive: server_keep_alive(properties).unwrap_or_default(),
        })
    }

    /// Reads a whole packet; `None` if it is no CONNACK to its end, in the form of MQTT 3, which has
    /// nothing behind the code, or in that of MQTT 5, which has properties there.
    #[must_use]
    pub fn read_strictly(packet: &[u8]) -> Option<Self> {
        let extent = Extent::read(packet).ok()??;
        match packet.get(usize::from(extent.header)..)? {
            [0 | 1, _] => Self::read(packet),
            [0 | 1, _, properties @ ..] => {
                check_properties(properties).ok()?;
                Self::read(packet)
            }
            _ => None,
        }
    }

    /// Whether the session is open.
    #[must_use]
    pub fn accepts(&self) -> bool {
        self.code == 0
    }

    /// Whether the broker says that it cannot serve: unavailable (MQTT 3.1.1 §3.2.2.3, MQTT 5.0
    /// §3.2.2.2) or busy. Anything else is about the client.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.code, 0x03 | 0x88 | 0x89)
    }

    /// Whether the broker sends all clients to another one, for now or for good (MQTT 5.0 §4.13).
    #[must_use]
    pub fn points_elsewhere(&self) -> bool {
        matches!(self.code, 0x9C | 0x9D)
    }
}

/// Their length must be that of the packet's rest, and each must be one.
fn check_properties(properties: &[u8]) -> Result<(), Fault> {
    let mut fields = Fields::new(properties);
    let length = fields.varint()?;
    let length = usize::try_from(length).map_err(|_| Fault::Truncated)?;
    let mut properties = Fields::new(fields.take(length)?);
    fields.finish()?;
    while !properties.is_empty() {
        let id = properties.varint()?;
        step_over(id, &mut properties)?;
    }
    Ok(())
}

/// Before MQTT 5 there are no properties, and so nothing to be read.
fn server_keep_alive(properties: &[u8]) -> Result<Option<u16>, Fault> {
    let mut fields = Fields::new(properties);
    if fields.is_empty() {
        return Ok(None);
    }
    fields.varint()?;
    while !fields.is_empty() {
        match fields.varint()? {
            SERVER_KEEP_ALIVE => return fields.two_bytes().map(Some),
            id => step_over(id, &mut fields)?,
        }
    }
    Ok(None)
}

/// Steps over a property's value, by its type, §2.2.2.2.
fn step_over(id: u32, fields: &mut Fields<'_>) -> Result<(), Fault> {
    match id {
        0x24 | 0x25 | 0x28..=0x2A => fields.byte().map(drop),
        SERVER_KEEP_ALIVE | 0x21 | 0x22 => fields.two_bytes().map(drop),
        0x11 | 0x27 => fields.four_bytes().map(drop),
        0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => fields.binary().map(drop),
        0x26 => fields.binary().and_then(|_| fields.binary()).map(drop),
        _ => Err(Fault::UnknownProperty(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::Connack;

    #[test]
    fn the_code_is_read_in_every_version() {
        for (packet, code) in [
            (&[0x20, 2, 0, 0][..], 0),
            (&[0x20, 2, 1, 5], 5),
            (&[0x20, 3, 0, 0x87, 0], 0x87),
        ] {
            let connack = Connack::read(packet).expect("a CONNACK");
            assert_eq!((connack.code, connack.server_keep_alive), (code, None));
            assert_eq!(connack.accepts(), code == 0);
        }
        for packet in [
            &[][..],
            &[0x20],
            &[0x20, 0],
            &[0x20, 1, 0],
            &[0x30, 2, 0, 0],
        ] {
            assert_eq!(Connack::read(packet), None, "{packet:x?}");
        }
    }

    #[test]
    fn the_servers_keep_alive_is_found_behind_every_other_property() {
        let others: [&[u8]; 16] = [
            &[0x24, 1],
            &[0x25, 1],
            &[0x28, 1],
            &[0x29, 1],
            &[0x2A, 1],
            &[0x21, 0, 9],
            &[0x22, 0, 9],
            &[0x11, 0, 0, 0, 9],
            &[0x27, 0, 0, 0, 9],
            &[0x12, 0, 2, 0x13, 1],
            &[0x15, 0, 1, b'x'],
            &[0x16, 0, 1, 0xFF],
            &[0x1A, 0, 0],
            &[0x1C, 0, 1, b'x'],
            &[0x1F, 0, 1, b'x'],
            &[0x26, 0, 1, b'k', 0, 2, 0x13, 1],
        ];
        let properties = [&others.concat()[..], &[0x13, 0x02, 0x58]].concat();
        let length = u8::try_from(properties.len()).expect("short");
        let body = [&[0, 0, length][..], &properties].concat();
        let packet = [&[0x20, length + 3][..], &body].concat();
        let connack = Connack::read(&packet).expect("a CONNACK");
        assert_eq!(connack.server_keep_alive, Some(600));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for properties in [&[3, 0x13, 0][..], &[3, 0x7F, 0, 1], &[0xFF]] {
            let packet = [&[0x20, 2 + properties.len() as u8, 0, 0], properties].concat();
            let connack = Connack::read(&packet).expect("a CONNACK");
            assert_eq!(connack.server_keep_alive, None, "{packet:x?}");
        }
    }

    #[test]
    fn only_a_broker_that_cannot_serve_says_so() {
        for (code, expected) in [
            (0, false),
            (3, true),
            (5, false),
            (0x87, false),
            (0x88, true),
        ] {
            let connack = Connack {
                code,
                server_keep_alive: None,
            };
            assert_eq!(connack.is_unavailable(), expected, "{code:#x}");
        }
    }
}
