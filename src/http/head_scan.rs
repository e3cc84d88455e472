//! Looks at an HTTP/1 head as it stands on the wire for what the parser forgives (RFC 9112 §2.2,
//! §3.2, §5.2, §6.3): both lengths at once, a bare LF, a folded line, a fragment. Somebody behind us may read these
//! otherwise than we do, and that is how requests are smuggled.
//!
//! Bytes in, one verdict out; however they are split, the verdict is the same.

use thiserror::Error;

/// What a head did that no honest client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Offence {
    /// `Content-Length` and `Transfer-Encoding` together.
    #[error("Content-Length and Transfer-Encoding together")]
    TwoLengths,
    /// A line ended by LF alone.
    #[error("a line of the head ends without CR")]
    BareLineFeed,
    /// A field continued on the next line.
    #[error("a header field is folded")]
    FoldedLine,
    /// `#` in the request line: no target has a fragment (RFC 9112 §3.2), and the parser drops it.
    #[error("the request's target holds a fragment")]
    Fragment,
}

impl Offence {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::TwoLengths => 1,
            Self::BareLineFeed => 2,
            Self::FoldedLine => 3,
            Self::Fragment => 4,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [
            Self::TwoLengths,
            Self::BareLineFeed,
            Self::FoldedLine,
            Self::Fragment,
        ]
        .into_iter()
        .find(|offence| offence.code() == code)
    }
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Reads one head and stops at its end.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// The beginning of the line being read, as long as it can matter.
    start: [u8; TRANSFER_ENCODING.len()],
    /// Bytes of the line so far, its end not counted.
    length: usize,
    last: u8,
    lines: u32,
    content_length: bool,
    transfer_encoding: bool,
    offence: Option<Offence>,
    ended: bool,
}

impl HeadScan {
    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !self.ended {
            let Some(at) = memchr::memchr(b'\n', bytes) else {
                self.take(bytes);
                return;
            };
            let (line, rest) = bytes.split_at(at);
            self.take(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    /// What was wrong so far.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        self.offence
    }

    fn take(&mut self, part: &[u8]) {
        let Some(last) = part.last() else {
            return;
        };
        if let Some(room) = self.start.get_mut(self.length..) {
            let fits = room.len().min(part.len());
            room[..fits].copy_from_slice(&part[..fits]);
        }
        if self.lines == 0 && memchr::memchr(b'#', part).is_some() {
            self.offence.get_or_insert(Offence::Fragment);
        }
        self.length = self.length.saturating_add(part.len());
        self.last = *last;
    }

    fn end_line(&mut self) {
        let carriage_return = self.length > 0 && self.last == b'\r';
        let length = self.length - usize::from(carriage_return);
        if !carriage_return {
            self.offence.get_or_insert(Offence::BareLineFeed);
        }
        if length == 0 {
            // Empty lines before the request line are skipped (RFC 9112 §2.2).
            self.ended = self.lines > 0;
        } else {
            self.look_at_line(length);
            self.lines = self.lines.saturating_add(1);
        }
        self.length = 0;
    }

    fn look_at_line(&mut self, length: usize) {
        if self.lines > 0 && matches!(self.start[0], b' ' | b'\t') {
            self.offence.get_or_insert(Offence::FoldedLine);
        }
        self.content_length |= self.line_is(CONTENT_LENGTH, length);
        self.transfer_encoding |= self.line_is(TRANSFER_ENCODING, length);
        if self.content_length && self.transfer_encoding {
            self.offence.get_or_insert(Offence::TwoLengths);
        }
    }

    fn line_is(&self, name: &[u8], length: usize) -> bool {
        length >= name.len() && self.start[..name.len()].eq_ignore_ascii_case(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], step: usize) -> Option<Offence> {
        let mut scan = HeadScan::default();
        for part in bytes.chunks(step) {
            scan.feed(part);
        }
        scan.offence()
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_head_is_split() {
        for (head, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], None),
            (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", None),
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                None,
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Some(Offence::TwoLengths),
            ),
            (
                b"POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length: 5\r\n\r\n",
                Some(Offence::TwoLengths),
            ),
            (
                b"GET / HTTP/1.1\nHost: a\r\n\r\n",
                Some(Offence::BareLineFeed),
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n\n",
                Some(Offence::BareLineFeed),
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
                Some(Offence::FoldedLine),
            ),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            (
                b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
                Some(Offence::Fragment),
            ),
            (b"GET /a HTTP/1.1\r\nReferer: b#c\r\n\r\n", None),
            // What follows the head is not the head.
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 5\r\n\n",
                None,
            ),
            (
                b"GET / HTTP/1.1\r\nX-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                None,
            ),
        ] {
            for step in 1..=head.len() {
                assert_eq!(scan(head, step), expected, "{head:?} by {step}");
            }
        }
    }
}
