//! The data types of MQTT, taken one after another from a packet: MQTT 5.0 §1.5.
//!
//! A field that reaches past the end is [`Fault::Truncated`]; nothing here can panic.

use super::fault::Fault;

/// The largest number that a Variable Byte Integer holds, and so the largest remaining length.
pub(super) const MAX_VARINT: u32 = 268_435_455;

/// What is left of a packet, read from the front.
pub(super) struct Fields<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            all: bytes,
            rest: bytes,
        }
    }

    /// Everything that was read so far.
    pub(super) fn taken(&self) -> &'a [u8] {
        let count = self.all.len() - self.rest.len();
        self.all.get(..count).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses bytes behind the last field.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Fault::TrailingBytes)
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn two_bytes(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn four_bytes(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer, §1.5.5.
    pub(super) fn varint(&mut self) -> Result<u32, Fault> {
        let (value, size) = read_varint(self.rest)
            .map_err(|BadVarint| Fault::Varint)?
            .ok_or(Fault::Truncated)?;
        self.take(usize::from(size))?;
        Ok(value)
    }

    /// Binary Data, §1.5.6: two bytes of length, then that many bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let size = self.two_bytes()?;
        self.take(usize::from(size))
    }

    /// A UTF-8 Encoded String, §1.5.4, under the rules of [`as_text`].
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        as_text(self.binary()?).ok_or(Fault::Text { field })
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// A string that MQTT may carry, or `None`.
///
/// Ill-formed UTF-8 (surrogates included) and U+0000 are MUSTs (\[MQTT-1.5.4-1\], -2). Control
/// characters and noncharacters are a SHOULD NOT that the receiver MAY treat as malformed; we do,
/// as mosquitto does, since they have no honest use in a name and would reach logs and brokers.
pub(super) fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars().all(is_text).then_some(text)
}

fn is_text(character: char) -> bool {
    let noncharacter =
        matches!(character, '\u{FDD0}'..='\u{FDEF}') || u32::from(character) & 0xFFFE == 0xFFFE;
    !character.is_control() && !noncharacter
}

/// Whether a message can be published to this topic: not empty, no wildcard, §4.7.1 and §4.7.3.
pub(super) fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['#', '+'])
}

/// A Variable Byte Integer that is longer than it may be: over four bytes, or not the shortest
/// form (\[MQTT-1.5.5-1\]; we ask it of every version, as two forms invite two readings).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadVarint;

/// The number at the front of `bytes` and how many bytes it takes; `None` while it is incomplete.
pub(super) fn read_varint(bytes: &[u8]) -> Result<Option<(u32, u8)>, BadVarint> {
    let mut value = 0;
    for (index, &byte) in (0_u8..4).zip(bytes) {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = index == 0 || byte != 0;
            return if shortest {
                Ok(Some((value, index + 1)))
            } else {
                Err(BadVarint)
            };
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(BadVarint)
    }
}

/// Appends `value`, which is at most [`MAX_VARINT`].
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    debug_assert!(value <= MAX_VARINT);
    while value > 0x7F {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7F) as u8);
}

/// Appends two bytes of length, then `bytes`, of which the caller has checked that they fit.
pub(super) fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    debug_assert_eq!(usize::from(size), bytes.len());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(size)));
}

#[cfg(test)]
mod tests {
    use super::{BadVarint, MAX_VARINT, as_text, is_topic_name, read_varint, write_varint};

    #[test]
    fn varints_read_back_as_written() {
        for value in [
            0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152, MAX_VARINT,
        ] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            for cut in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..cut]), Ok(None));
            }
            assert_eq!(read_varint(&bytes), Ok(Some((value, bytes.len() as u8))));
        }
    }

    #[test]
    fn long_varints_are_refused() {
        let bad: [&[u8]; 6] = [
            &[0x80, 0x00],
            &[0xFF, 0x00],
            &[0x80, 0x80, 0x00],
            &[0x80, 0x80, 0x80, 0x00],
            &[0xFF, 0xFF, 0xFF, 0xFF],
            &[0x80, 0x80, 0x80, 0x80, 0x01],
        ];
        for bytes in bad {
            assert_eq!(read_varint(bytes), Err(BadVarint), "{bytes:x?}");
        }
    }

    #[test]
    fn text_is_well_formed_and_printable() {
        let good = [
            "",
            "plain",
            "Grüße/温度",
            "\u{FEFF}bom stays",
            "\u{FFFD}",
            "😀",
            " ",
        ];
        for text in good {
            assert_eq!(as_text(text.as_bytes()), Some(text));
        }
        let bad: [&[u8]; 10] = [
            b"nul\0",
            b"\x1F",
            b"\x7F",
            "\u{85}".as_bytes(),
            "\u{FFFE}".as_bytes(),
            "\u{FFFF}".as_bytes(),
            "\u{10FFFF}".as_bytes(),
            "\u{FDD0}".as_bytes(),
            b"\xED\xA0\x80",
            b"\xC0\x80",
        ];
        for bytes in bad {
            assert_eq!(as_text(bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn topic_names_hold_no_wildcard() {
        assert!(is_topic_name("a/b") && is_topic_name("/"));
        assert!(!is_topic_name("") && !is_topic_name("a/#") && !is_topic_name("+/b"));
    }
}
