//! A body in chunks (RFC 9112 §7.1): sizes and trailers are read by `httparse`, what is between them
//! passes uncopied.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// Most bytes of the line before a chunk. Extensions are of no use to anybody (§7.1.1).
const MOST_LINE: usize = 1 << 10;

/// Most bytes of the trailers, and most of them.
const MOST_TRAILER_BYTES: usize = 16 << 10;
const MOST_TRAILERS: usize = 64;

/// How far a body has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The line that says how long the next chunk is.
    Size,
    /// So much of a chunk is still to come.
    Data(u64),
    /// The end of a chunk's line.
    DataEnd,
    /// What follows the last chunk.
    Trailers,
    Over,
}

/// Reads a body in chunks.
#[derive(Debug)]
pub struct Chunked(State);

/// What a body in chunks consists of.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of it.
    Data(Bytes),
    /// Fields at its end.
    Trailers(HeaderMap),
}

impl Default for Chunked {
    fn default() -> Self {
        Self(State::Size)
    }
}

impl Chunked {
    /// Takes the next piece off the front of `input`; `None` if that is not there, or nothing is to
    /// come any more.
    ///
    /// # Errors
    /// `InvalidData` if it is no body in chunks.
    pub fn take(&mut self, input: &mut BytesMut) -> io::Result<Option<Piece>> {
        loop {
            match self.0 {
                State::Size => {
                    let Some(size) = take_size(input)? else {
                        return Ok(None);
                    };
                    self.0 = match size {
                        0 => State::Trailers,
                        size => State::Data(size),
                    };
                }
                State::Data(_) if input.is_empty() => return Ok(None),
                State::Data(left) => {
                    let there = input.len() as u64;
                    let length = usize::try_from(left.min(there)).unwrap_or(input.len());
                    let data = input.split_to(length).freeze();
                    self.0 = match left - length as u64 {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    // What follows it is read at once, so that its end is known with its last byte.
                    self.skip_ends(input)?;
                    return Ok(Some(Piece::Data(data)));
                }
                State::DataEnd => {
                    if input.len() < 2 {
                        return Ok(None);
                    }
                    self.skip_ends(input)?;
                }
                State::Trailers => return self.take_trailers(input),
                State::Over => return Ok(None),
            }
        }
    }

    /// Whether it has been read to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0 == State::Over
    }

    /// Takes the end of a chunk off, and that of the body if nothing but it follows.
    fn skip_ends(&mut self, input: &mut BytesMut) -> io::Result<()> {
        const LAST: &[u8] = b"0\r\n\r\n";
        if self.0 != State::DataEnd || input.len() < 2 {
            return Ok(());
        }
        if !input.starts_with(b"\r\n") {
            return Err(malformed());
        }
        input.advance(2);
        self.0 = State::Size;
        if input.starts_with(LAST) {
            input.advance(LAST.len());
            self.0 = State::Over;
        }
        Ok(())
    }

    fn take_trailers(&mut self, input: &mut BytesMut) -> io::Result<Option<Piece>> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
        let (length, fields) = match httparse::parse_headers(input, &mut fields) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) if input.len() < MOST_TRAILER_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(malformed()),
        };
        let mut trailers = HeaderMap::new();
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed())?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| malformed())?;
            trailers.append(name, value);
        }
        input.advance(length);
        self.0 = State::Over;
        Ok((!trailers.is_empty()).then_some(Piece::Trailers(trailers)))
    }
}

/// The size of the next chunk.
fn take_size(input: &mut BytesMut) -> io::Result<Option<u64>> {
    // httparse takes no digit at all for zero, and any byte for a part of an extension: to another
    // reader that might be the end of the line.
    let begins_well = input.first().is_none_or(u8::is_ascii_hexdigit);
    let found = httparse::parse_chunk_size(input);
    match found {
        _ if !begins_well => Err(malformed()),
        Ok(httparse::Status::Complete((length, size))) => {
            let line = input.get(..length - 2).unwrap_or_default();
            if length > MOST_LINE || line.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
                return Err(malformed());
            }
            input.advance(length);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if input.len() <= MOST_LINE => Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => Err(malformed()),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunks are malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, its trailers, whether that was all, and what is left behind it.
    type Read = (Vec<u8>, Option<HeaderMap>, bool, Vec<u8>);

    /// What comes of these parts.
    fn read(parts: &[&[u8]]) -> io::Result<Read> {
        let mut chunks = Chunked::default();
        let mut input = BytesMut::new();
        let (mut body, mut trailers) = (Vec::new(), None);
        for part in parts {
            input.extend_from_slice(part);
            while let Some(piece) = chunks.take(&mut input)? {
                match piece {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::Trailers(fields) => trailers = Some(fields),
                }
            }
        }
        Ok((body, trailers, chunks.is_over(), input.to_vec()))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let text: &[u8] =
            b"5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\nrest";
        for first in 0..=text.len() {
            for second in [first, (first + 1).min(text.len()), text.len()] {
                let parts = [&text[..first], &text[first..second], &text[second..]];
                let (body, trailers, is_over, rest) = read(&parts).unwrap();
                assert_eq!(body, b"hello0123456789", "{first} {second}");
                let sums: Vec<_> = trailers.as_ref().unwrap().get_all("x-sum").iter().collect();
                assert_eq!(sums, ["1", "2"], "{first} {second}");
                assert_eq!((is_over, &rest[..]), (true, &b"rest"[..]));
            }
        }
    }

    #[test]
    fn the_end_is_known_with_the_last_byte_where_no_trailers_follow() {
        let mut input = BytesMut::from("2\r\nok\r\n0\r\n\r\nHTTP/1.1");
        let mut chunks = Chunked::default();
        let piece = chunks.take(&mut input).unwrap();
        assert_eq!(piece, Some(Piece::Data(Bytes::from_static(b"ok"))));
        assert!(chunks.is_over());
        assert_eq!(input, "HTTP/1.1");
    }

    #[test]
    fn a_body_that_breaks_off_is_not_over() {
        let text = b"2\r\nok\r\n0\r\n\r\n";
        for cut in 0..text.len() {
            assert!(!read(&[&text[..cut]]).unwrap().2, "{cut}");
        }
        assert!(read(&[text]).unwrap().2);
    }

    #[test]
    fn what_is_no_body_in_chunks_is_refused() {
        for text in [
            "\r\nok\r\n",
            ";x\r\nok\r\n",
            "+2\r\nok\r\n",
            "-2\r\nok\r\n",
            " 2\r\nok\r\n",
            "0x2\r\nok\r\n",
            "2\nok\r\n",
            "2\rok\r\n",
            "2;x\ny\r\nok\r\n",
            "2;x\0y\r\nok\r\n",
            "2 2\r\nok\r\n",
            "g\r\n",
            "2\r\nok!\r\n",
            "2\r\nokxx",
            "2\r\nok\n0\r\n\r\n",
            "10000000000000000\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX\r\n\r\n",
        ] {
            assert!(read(&[text.as_bytes()]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lines_and_trailers_have_their_limits() {
        let extended = |length: usize| format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(length));
        assert!(read(&[extended(MOST_LINE - 4).as_bytes()]).is_ok());
        assert!(read(&[extended(MOST_LINE - 3).as_bytes()]).is_err());
        let endless = format!("2;{}", "x".repeat(MOST_LINE));
        assert!(read(&[endless.as_bytes()]).is_err());
        let trailers = |count: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(count));
        assert!(read(&[trailers(MOST_TRAILERS).as_bytes()]).is_ok());
        assert!(read(&[trailers(MOST_TRAILERS + 1).as_bytes()]).is_err());
        let endless = format!("0\r\nX: {}", "y".repeat(MOST_TRAILER_BYTES));
        assert!(read(&[endless.as_bytes()]).is_err());
    }
}
