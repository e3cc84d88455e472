//! Follows the requests of an HTTP/1.1 connection as they stand on the wire, and looks at each head for
//! what the parser forgives (RFC 9112 §2.2, §3.2, §5.2, §6.3): both lengths at once, a bare LF, a folded
//! line, a fragment. Somebody behind us may read these otherwise than we do, and that is how requests
//! are smuggled.
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
    /// `Content-Length` that is not one number (RFC 9110 §8.6).
    #[error("Content-Length is not one number")]
    Length,
    /// The body before the head was not chunked as it should be, so where it ended is in doubt.
    #[error("the chunks of the request before it are malformed")]
    Chunks,
}

impl Offence {
    const ALL: [Self; 6] = [
        Self::TwoLengths,
        Self::BareLineFeed,
        Self::FoldedLine,
        Self::Fragment,
        Self::Length,
        Self::Chunks,
    ];

    pub(super) fn code(self) -> u8 {
        match self {
            Self::TwoLengths => 1,
            Self::BareLineFeed => 2,
            Self::FoldedLine => 3,
            Self::Fragment => 4,
            Self::Length => 5,
            Self::Chunks => 6,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|offence| offence.code() == code)
    }
}

/// Follows one connection's requests, up to the first that offends: none is read after that.
#[derive(Debug, Default)]
pub struct RequestScan {
    head: Head,
    body: Body,
    /// Heads that have ended.
    heads: u32,
    offence: Option<Offence>,
}

/// What is left of a body.
#[derive(Debug, Default)]
enum Body {
    #[default]
    Nothing,
    /// So many bytes.
    Sized(u64),
    Chunked(Chunks),
}

impl RequestScan {
    /// Reads on.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.offence.is_none() {
            bytes = match &mut self.body {
                Body::Nothing => self.feed_head(bytes),
                Body::Sized(left) => {
                    let part = (bytes.len() as u64).min(*left);
                    *left -= part;
                    if *left == 0 {
                        self.body = Body::Nothing;
                    }
                    let part = usize::try_from(part).unwrap_or(bytes.len());
                    bytes.get(part..).unwrap_or_default()
                }
                Body::Chunked(chunks) => match chunks.feed(bytes) {
                    Ok(None) => return,
                    Ok(Some(rest)) => {
                        self.body = Body::Nothing;
                        rest
                    }
                    Err(Malformed) => {
                        self.offence = Some(Offence::Chunks);
                        return;
                    }
                },
            };
        }
    }

    /// What was wrong, and with which head: as many as this came before.
    #[must_use]
    pub fn offence(&self) -> Option<(u32, Offence)> {
        self.offence.map(|offence| (self.heads, offence))
    }

    /// Whether part of a head has been read, and not its end.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        self.head.begun
    }

    fn feed_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let rest = self.head.feed(bytes);
        self.offence = self.head.offence;
        if self.head.ended && self.offence.is_none() {
            self.body = self.head.body();
            self.head = Head::default();
            self.heads = self.heads.wrapping_add(1);
        }
        rest
    }
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Bytes of a line that can matter: the name of a length, a blank, and all digits of a number.
const START: usize = 40;

/// One head, read to its end.
#[derive(Debug)]
struct Head {
    /// The beginning of the line being read, as long as it can matter.
    start: [u8; START],
    /// Bytes of the line so far, its end not counted.
    length: usize,
    last: u8,
    lines: u32,
    content_length: Option<u64>,
    transfer_encoding: bool,
    offence: Option<Offence>,
    begun: bool,
    ended: bool,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            start: [0; START],
            length: 0,
            last: 0,
            lines: 0,
            content_length: None,
            transfer_encoding: false,
            offence: None,
            begun: false,
            ended: false,
        }
    }
}

impl Head {
    /// Reads on, up to the end of the head; what comes after that.
    fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        self.begun = true;
        while !self.ended {
            let Some(at) = memchr::memchr(b'\n', bytes) else {
                self.take(bytes);
                return &[];
            };
            let (line, rest) = bytes.split_at(at);
            self.take(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        bytes
    }

    /// What follows it. Of both lengths, which is an offence, neither counts.
    fn body(&self) -> Body {
        match (self.transfer_encoding, self.content_length) {
            (true, _) => Body::Chunked(Chunks::default()),
            (false, None | Some(0)) => Body::Nothing,
            (false, Some(length)) => Body::Sized(length),
        }
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
        if self.line_is(CONTENT_LENGTH, length) {
            let said = self.start.get(CONTENT_LENGTH.len()..length);
            let said = said.and_then(number);
            // Said twice, it must be the same (RFC 9110 §8.6).
            if said.is_none() || self.content_length.is_some_and(|known| Some(known) != said) {
                self.offence.get_or_insert(Offence::Length);
            }
            self.content_length = said.or(Some(0));
        }
        self.transfer_encoding |= self.line_is(TRANSFER_ENCODING, length);
        if self.content_length.is_some() && self.transfer_encoding {
            self.offence.get_or_insert(Offence::TwoLengths);
        }
    }

    fn line_is(&self, name: &[u8], length: usize) -> bool {
        length >= name.len() && self.start[..name.len()].eq_ignore_ascii_case(name)
    }
}

/// Digits and nothing else, but for blanks around them.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let are_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok())?
}

/// Where in a chunked body (RFC 9112 §7.1) the next byte stands.
#[derive(Debug)]
enum Chunks {
    Size {
        /// So far; `None` before its first digit.
        size: Option<u64>,
        /// Its digits have ended, and something follows that does not matter.
        has_ended: bool,
    },
    /// After the CR of a size.
    SizeEnd(u64),
    Data(u64),
    /// After the last byte of a chunk, and after its CR.
    DataEnd {
        cr: bool,
    },
    /// A line after the last chunk.
    Trailer {
        is_empty: bool,
        cr: bool,
    },
    Over,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size {
            size: None,
            has_ended: false,
        }
    }
}

/// No body of chunks.
#[derive(Debug)]
struct Malformed;

impl Chunks {
    /// Reads on, up to the end of the body; if it has come, what follows it.
    fn feed<'a>(&mut self, mut bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Self::Data(left) = self {
                let part = (bytes.len() as u64).min(*left);
                *left -= part;
                if *left == 0 {
                    *self = Self::DataEnd { cr: false };
                }
                let part = usize::try_from(part).unwrap_or(bytes.len());
                bytes = bytes.get(part..).unwrap_or_default();
                continue;
            }
            *self = self.after(byte)?;
            bytes = rest;
            if matches!(self, Self::Over) {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn after(&self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size { size, .. }, b'\r') => Self::SizeEnd(size.ok_or(Malformed)?),
            (Self::Size { size, has_ended }, _) => Self::in_size(*size, *has_ended, byte)?,
            (Self::SizeEnd(0), b'\n') => Self::Trailer {
                is_empty: true,
                cr: false,
            },
            (Self::SizeEnd(size), b'\n') => Self::Data(*size),
            (Self::DataEnd { cr: false }, b'\r') => Self::DataEnd { cr: true },
            (Self::DataEnd { cr: true }, b'\n') => Self::default(),
            (
                Self::Trailer {
                    is_empty,
                    cr: false,
                },
                b'\r',
            ) => Self::Trailer {
                is_empty: *is_empty,
                cr: true,
            },
            (
                Self::Trailer {
                    is_empty: true,
                    cr: true,
                },
                b'\n',
            ) => Self::Over,
            (Self::Trailer { cr: true, .. }, b'\n') => Self::Trailer {
                is_empty: true,
                cr: false,
            },
            (Self::Trailer { cr: false, .. }, byte) if byte != b'\n' => Self::Trailer {
                is_empty: false,
                cr: false,
            },
            _ => return Err(Malformed),
        })
    }

    /// A byte of the line that says how long a chunk is.
    fn in_size(size: Option<u64>, has_ended: bool, byte: u8) -> Result<Self, Malformed> {
        let digit = char::from(byte).to_digit(16).filter(|_| !has_ended);
        if let Some(digit) = digit {
            let size = size.unwrap_or(0).checked_mul(16).ok_or(Malformed)?;
            return Ok(Self::Size {
                size: Some(size + u64::from(digit)),
                has_ended,
            });
        }
        let begins = matches!(byte, b';' | b' ' | b'\t');
        if size.is_none() || byte == b'\n' || !(has_ended || begins) {
            return Err(Malformed);
        }
        Ok(Self::Size {
            size,
            has_ended: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], step: usize) -> Option<Offence> {
        scan_all(bytes, step).map(|(_, offence)| offence)
    }

    fn scan_all(bytes: &[u8], step: usize) -> Option<(u32, Offence)> {
        let mut scan = RequestScan::default();
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
                b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nContent-Length: 5\r\n\n",
                None,
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                None,
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                Some(Offence::Length),
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
                Some(Offence::Length),
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length:                                        5\r\n\r\n",
                Some(Offence::Length),
            ),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
                Some(Offence::Length),
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

    #[test]
    fn each_head_of_a_connection_is_looked_at_and_no_body() {
        const BAD: &str = "GET /a#b HTTP/1.1\r\n\r\n";
        for before in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n#\n\r\n\r\n ",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n#\n#\n#\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0A;a=b\r\n0123456789\r\n1 \r\n\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: #\r\nb:\r\n\r\n",
        ] {
            let good = format!("{before}{before}GET / HTTP/1.1\r\n\r\n");
            let bad = format!("{before}{before}{BAD}{before}");
            for step in 1..=bad.len() {
                assert_eq!(scan_all(good.as_bytes(), step), None, "{good:?}");
                let found = scan_all(bad.as_bytes(), step);
                assert_eq!(found, Some((2, Offence::Fragment)), "{bad:?} by {step}");
            }
        }
    }

    #[test]
    fn after_malformed_chunks_no_head_is_believed() {
        for chunks in [
            "\r\n",
            "x\r\n",
            "5\n",
            "5;a\nb",
            "5\rx",
            "1\r\nab",
            "1\r\na\n",
            "0\r\na\nb",
            "0\r\na\rb",
            "+5\r\n",
            " 5\r\n",
            "5 6\n",
            "11111111111111111\r\n",
        ] {
            let all = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            for step in 1..=all.len() {
                let found = scan_all(all.as_bytes(), step);
                assert_eq!(found, Some((1, Offence::Chunks)), "{all:?} by {step}");
            }
        }
    }

    #[test]
    fn a_head_has_begun_until_it_ends() {
        let mut scan = RequestScan::default();
        for (part, is_in_head) in [
            ("\r", true),
            ("\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n", true),
            ("\r\n", false),
            ("ab", false),
            ("cG", true),
            ("ET / HTTP/1.1\r\n\r\n", false),
        ] {
            scan.feed(part.as_bytes());
            assert_eq!(scan.is_in_head(), is_in_head, "{part:?}");
        }
    }
}
