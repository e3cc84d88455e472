//! The head of an answer (RFC 9112 §2, §4, §5), and what it says of the body (§6.3). Where two readers
//! could find another end, there is none: the answer is refused.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::BytesMut;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, StatusCode};
use thiserror::Error;

/// Most bytes of a head.
const MOST_BYTES: usize = u16::MAX as usize;

/// Most fields of a head.
const MOST_FIELDS: usize = 128;

/// What is wrong with the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Flaw {
    /// It is no HTTP/1.
    #[error("is malformed: {0}")]
    Syntax(httparse::Error),
    /// It is longer, or has more fields, than a head may.
    #[error("is too large")]
    TooLarge,
    /// `Content-Length` is no number, or two numbers.
    #[error("has no length that can be read")]
    Length,
    /// The body is coded in another way than `chunked`, or has a length as well.
    #[error("leaves the end of its body in doubt")]
    Coding,
}

/// Where the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// Where its last chunk does.
    Chunked,
    /// With the connection.
    Close,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub(super) status: StatusCode,
    /// If it is not the usual one.
    pub(super) reason: Option<ReasonPhrase>,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// Whether the connection can serve again, if the body ends before it.
    pub(super) keeps_alive: bool,
}

/// Where something stands in the bytes of a head: [`MOST_BYTES`] are counted by it. Small, since there is
/// room for all fields that a head may have.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    from: u16,
    to: u16,
}

impl Span {
    /// Where `part` stands in `whole`, of which it is a part.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let from = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        // What does not fit is refused before it is looked up.
        let from = u16::try_from(from).unwrap_or(u16::MAX);
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        Self {
            from,
            to: from.saturating_add(length),
        }
    }

    fn range(self) -> Range<usize> {
        self.from.into()..self.to.into()
    }
}

/// Where a field stands.
#[derive(Debug, Clone, Copy, Default)]
struct Field {
    name: Span,
    value: Span,
}

/// What the fields say of the message that they stand in.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps: bool,
}

impl Head {
    /// Takes a head off the front of `input`, the answer to HEAD if `to_head`; `None` if it is not all
    /// there.
    ///
    /// # Errors
    /// [`Flaw`], also of a head that would become too long.
    pub fn take(input: &mut BytesMut, to_head: bool) -> Result<Option<Self>, Flaw> {
        let mut fields = [Field::default(); MOST_FIELDS];
        let Some(line) = locate(input, &mut fields)? else {
            return if input.len() < MOST_BYTES {
                Ok(None)
            } else {
                Err(Flaw::TooLarge)
            };
        };
        let bytes = input.split_to(line.length).freeze();
        let fields = fields.get(..line.fields).unwrap_or_default();
        // Two are added on the way to the client.
        let mut headers = HeaderMap::with_capacity(fields.len() + 2);
        let mut said = Said::default();
        for field in fields {
            let name = bytes.get(field.name.range()).unwrap_or_default();
            let name = HeaderName::from_bytes(name).map_err(|_| SYNTAX)?;
            let value = bytes.slice(field.value.range());
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| SYNTAX)?;
            // Of interim answers, and of what switches, nothing but the status counts (RFC 9112 §6.3).
            if line.status.is_informational() || said.hear(&name, &value)? {
                headers.append(name, value);
            }
        }
        let framing = said.framing(line.status, to_head, line.is_http10)?;
        let may_stay = if line.is_http10 {
            said.keeps && !said.closes
        } else {
            !said.closes
        };
        // What follows 101 is no HTTP.
        let switches = line.status == StatusCode::SWITCHING_PROTOCOLS;
        let reason = line
            .reason
            .and_then(|reason| ReasonPhrase::try_from(bytes.get(reason.range())?).ok());
        Ok(Some(Self {
            status: line.status,
            reason,
            headers,
            framing,
            keeps_alive: may_stay && !switches,
        }))
    }

    /// Whether the answer is still to come (RFC 9110 §15.2).
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Where the body ends.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }
}

const SYNTAX: Flaw = Flaw::Syntax(httparse::Error::HeaderName);

/// The first line of a head, and how much there is of the rest.
struct Line {
    status: StatusCode,
    is_http10: bool,
    /// Where the reason stands, if it is not the usual one.
    reason: Option<Span>,
    fields: usize,
    length: usize,
}

/// Finds everything in a head; `None` if it is not all there.
fn locate(input: &[u8], places: &mut [Field; MOST_FIELDS]) -> Result<Option<Line>, Flaw> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let rules = httparse::ParserConfig::default();
    let parsed = rules.parse_response_with_uninit_headers(&mut answer, input, &mut fields);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length > MOST_BYTES => {
            return Err(Flaw::TooLarge);
        }
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Flaw::TooLarge),
        Err(error) => return Err(Flaw::Syntax(error)),
    };
    let at = |part: &[u8]| Span::of(part, input);
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Flaw::Syntax(httparse::Error::Status))?;
    let reason = answer.reason.unwrap_or_default();
    let is_usual = reason.is_empty() || status.canonical_reason() == Some(reason);
    for (place, field) in places.iter_mut().zip(answer.headers.iter()) {
        *place = Field {
            name: at(field.name.as_bytes()),
            value: match field.value {
                // It stands nowhere.
                [] => Span::default(),
                value => at(value),
            },
        };
    }
    Ok(Some(Line {
        status,
        is_http10: answer.version == Some(0),
        reason: (!is_usual).then(|| at(reason.as_bytes())),
        fields: answer.headers.len(),
        length,
    }))
}

impl Said {
    /// Whether the field is to be kept: a length that is said twice is kept once.
    fn hear(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<bool, Flaw> {
        if *name == CONTENT_LENGTH {
            let length = number(value.as_bytes()).ok_or(Flaw::Length)?;
            return match self.length.replace(length) {
                None => Ok(true),
                Some(before) if before == length => Ok(false),
                Some(_) => Err(Flaw::Length),
            };
        }
        if *name == TRANSFER_ENCODING {
            let is_plain = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !is_plain || self.is_chunked {
                return Err(Flaw::Coding);
            }
            self.is_chunked = true;
        } else if *name == CONNECTION {
            for option in value.as_bytes().split(|byte| *byte == b',') {
                let option = option.trim_ascii();
                self.closes |= option.eq_ignore_ascii_case(b"close");
                self.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(true)
    }

    /// RFC 9112 §6.3.
    fn framing(&self, status: StatusCode, to_head: bool, is_http10: bool) -> Result<Framing, Flaw> {
        // §6.1: with a length as well, or by a server that does not know it, a coding is an attack or
        // a mistake.
        if self.is_chunked && (self.length.is_some() || is_http10) {
            return Err(Flaw::Coding);
        }
        let has_none = to_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            _ if has_none => Framing::Length(0),
            _ if self.is_chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        })
    }
}

/// RFC 9110 §8.6: digits alone.
fn number(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_plain)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, Flaw> {
        let mut input = BytesMut::from(text);
        let head = Head::take(&mut input, false)?.expect("it is all there");
        assert!(input.is_empty());
        Ok(head)
    }

    fn with(fields: &str) -> Result<Head, Flaw> {
        read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_head_says() {
        for (fields, expected) in [
            ("Content-Length: 5\r\n", Framing::Length(5)),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                Framing::Length(5),
            ),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("transfer-encoding: CHUNKED\r\n", Framing::Chunked),
            ("", Framing::Close),
        ] {
            assert_eq!(with(fields).unwrap().framing, expected, "{fields}");
        }
    }

    #[test]
    fn a_length_that_is_said_twice_alike_is_passed_on_once() {
        let head = with("Content-Length: 5\r\nContent-Length: 5\r\n").unwrap();
        let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["5"]);
    }

    #[test]
    fn an_answer_whose_end_is_in_doubt_is_refused() {
        for (fields, flaw) in [
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Flaw::Length),
            ("Content-Length: 5, 5\r\n", Flaw::Length),
            ("Content-Length: +5\r\n", Flaw::Length),
            ("Content-Length: -5\r\n", Flaw::Length),
            ("Content-Length: 0x5\r\n", Flaw::Length),
            ("Content-Length:\r\n", Flaw::Length),
            ("Content-Length: 18446744073709551616\r\n", Flaw::Length),
            ("Transfer-Encoding: gzip\r\n", Flaw::Coding),
            ("Transfer-Encoding: gzip, chunked\r\n", Flaw::Coding),
            ("Transfer-Encoding: chunked, identity\r\n", Flaw::Coding),
            ("Transfer-Encoding: xchunked\r\n", Flaw::Coding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Flaw::Coding,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                Flaw::Coding,
            ),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Flaw::Coding,
            ),
        ] {
            assert_eq!(with(fields).unwrap_err(), flaw, "{fields}");
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old).unwrap_err(), Flaw::Coding);
    }

    #[test]
    fn answers_that_have_no_body_have_none_whatever_they_say() {
        for line in ["204 No Content", "304 Not Modified"] {
            let head = read(&format!("HTTP/1.1 {line}\r\nContent-Length: 5\r\n\r\n"));
            assert_eq!(head.unwrap().framing, Framing::Length(0), "{line}");
        }
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let head = Head::take(&mut input, true).unwrap().unwrap();
        assert_eq!(head.framing, Framing::Length(0));
        assert_eq!(head.headers[CONTENT_LENGTH], "5");
    }

    #[test]
    fn an_interim_answer_frames_nothing() {
        let fields = "Content-Length: x\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n";
        let head = read(&format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n")).unwrap();
        assert!(head.is_interim());
        assert_eq!(head.framing, Framing::Length(0));
    }

    #[test]
    fn a_connection_is_kept_where_both_sides_know_that() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n\r\n",
                false,
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
                false,
            ),
        ] {
            assert_eq!(read(text).unwrap().keeps_alive, expected, "{text}");
        }
    }

    #[test]
    fn a_reason_of_its_own_is_kept_and_the_usual_one_is_not() {
        let reason = |line: &str| read(&format!("HTTP/1.1 {line}\r\n\r\n")).unwrap().reason;
        assert_eq!(reason("200 Fine").unwrap().as_bytes(), b"Fine");
        assert_eq!(reason("200 OK"), None);
        assert_eq!(reason("200 "), None);
        assert_eq!(reason("200"), None);
    }

    #[test]
    fn what_is_no_head_of_an_answer_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(matches!(read(text), Err(Flaw::Syntax(_))), "{text:?}");
        }
    }

    #[test]
    fn a_head_has_its_limits() {
        let fields = |count| "X: y\r\n".repeat(count);
        assert!(with(&fields(MOST_FIELDS)).is_ok());
        assert_eq!(with(&fields(MOST_FIELDS + 1)).unwrap_err(), Flaw::TooLarge);
        let empty = with("X: \r\n").map(|_| "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len());
        let field = |length| format!("X: {}\r\n", "y".repeat(length));
        let most = MOST_BYTES - empty.unwrap();
        let head = with(&field(most)).unwrap();
        assert_eq!(head.headers["x"].len(), most);
        assert_eq!(with(&field(most + 1)).unwrap_err(), Flaw::TooLarge);
        let mut endless = BytesMut::from("HTTP/1.1 200 OK\r\nX: ");
        endless.resize(MOST_BYTES, b'y');
        assert_eq!(Head::take(&mut endless, false).unwrap_err(), Flaw::TooLarge);
    }

    #[test]
    fn a_head_is_the_same_however_it_is_cut_and_takes_nothing_behind_it() {
        let head = "HTTP/1.1 200 Fine\r\nA: 1\r\nB:\r\nContent-Length: 4\r\nA: 2\r\n\r\n";
        let text = format!("{head}body");
        for cut in 0..=text.len() {
            let mut input = BytesMut::from(&text[..cut]);
            let early = Head::take(&mut input, false).unwrap();
            assert_eq!(early.is_some(), cut >= head.len(), "{cut}");
            let taken = early.map_or(0, |_| head.len());
            assert_eq!(input, text[taken..cut], "{cut}");
            if taken == 0 {
                input.extend_from_slice(&text.as_bytes()[cut..]);
                let read = Head::take(&mut input, false).unwrap().unwrap();
                let both: Vec<_> = read.headers.get_all("a").iter().collect();
                assert_eq!(both, ["1", "2"]);
                assert_eq!(read.headers["b"], "");
                assert_eq!(input, "body", "{cut}");
            }
        }
    }
}
