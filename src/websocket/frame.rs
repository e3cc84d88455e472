//! Where frames begin and end in a stream of them (RFC 6455 §5.2), and nothing else about them.

/// Follows the frames of one direction. Bytes in, position out; payloads are skipped unseen.
#[derive(Debug, Default)]
pub(super) struct FrameScanner {
    /// The header being read.
    header: [u8; 10],
    have: usize,
    /// Payload bytes, and mask bytes before them, still to come of the present frame.
    skip: u64,
    close_seen: bool,
}

impl FrameScanner {
    /// Moves on by `bytes`, however they are split.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step =
                    usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.skip -= step as u64;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            let (first, rest) = (bytes[0], &bytes[1..]);
            self.header[self.have] = first;
            self.have += 1;
            bytes = rest;
            if self.have == self.header_length() {
                self.begin_payload();
            }
        }
    }

    /// Whether the next byte is the first of a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// Whether a Close frame has begun.
    pub(super) fn close_seen(&self) -> bool {
        self.close_seen
    }

    /// Of the two fixed bytes and the extended length, once it is known whether there is one.
    fn header_length(&self) -> usize {
        match self.header[1] & 0x7f {
            _ if self.have < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn begin_payload(&mut self) {
        let [first, second, extended @ ..] = self.header;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([extended[0], extended[1]])),
            127 => u64::from_be_bytes(extended),
            short => u64::from(short),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        self.skip = length.saturating_add(mask);
        self.close_seen |= first & 0x0f == 8;
        self.have = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found_however_the_stream_is_split() {
        let frames: [&[u8]; 5] = [
            &[0x81, 0x01, b'a'],
            &[0x82, 0x82, 1, 2, 3, 4, 5, 6],
            &[&[0x82, 126, 1, 0][..], &[0; 256]].concat(),
            &[&[0x02, 127, 0, 0, 0, 0, 0, 0, 0, 3][..], &[9; 3]].concat(),
            &[0x88, 0x80, 0, 0, 0, 0],
        ];
        let stream = frames.concat();
        let mut ends = Vec::new();
        for frame in frames {
            ends.push(ends.last().unwrap_or(&0) + frame.len());
        }
        for step in 1..40 {
            let mut scanner = FrameScanner::default();
            let mut at = 0;
            for part in stream.chunks(step) {
                scanner.advance(part);
                at += part.len();
                assert_eq!(
                    scanner.at_boundary(),
                    ends.contains(&at),
                    "at {at} by {step}"
                );
            }
            assert!(scanner.close_seen());
        }
    }
}
