//! What HTTP/2 has bytes for and HTTP/1.1 has none, sent by hand (RFC 9113 §8.2, §8.3): whoever took it over
//! to HTTP/1.1 as it is would write another request than its client's (S33, S34). It is refused and
//! reaches nobody.

use tokio::io::AsyncWriteExt;

use crate::harness::Lab;
use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM, head,
};

/// A field that is written out (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let length = u8::try_from(text.len()).unwrap();
        assert!(length < 127);
        field.push(length);
        field.extend_from_slice(text.as_bytes());
    }
    field
}

/// A request of these pseudo-fields in this order, and of what follows them.
fn request(pseudo: [(&str, &str); 4], rest: &[Vec<u8>]) -> Vec<u8> {
    let mut block: Vec<u8> = pseudo
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    block.extend(rest.concat());
    block
}

const USUAL: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/http/m"),
    (":authority", "localhost"),
];

/// `USUAL` with another value for one of them.
fn with(name: &str, value: &'static str) -> Vec<u8> {
    let mut pseudo = USUAL;
    let found = pseudo.iter_mut().find(|(known, _)| *known == name);
    found.unwrap().1 = value;
    request(pseudo, &[])
}

/// How the gateway answers what is sent on stream 1.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Ok,
    /// An answer of another status, a reset, a farewell, or the end.
    Refused,
}

async fn reply(lab: &Lab, frames: &Frames) -> Reply {
    let mut stream = lab.device().connect(&["h2"]).await.unwrap();
    // The gateway may have closed before it has read all of it.
    let _ = stream.write_all(&frames.0).await;
    loop {
        match Frame::read(&mut stream).await {
            // RFC 7541 Appendix A: `:status: 200`.
            Some(frame) if frame.kind == HEADERS && frame.payload[0] == 0x88 => return Reply::Ok,
            Some(frame) if matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY) => {
                return Reply::Refused;
            }
            Some(_) => {}
            None => return Reply::Refused,
        }
    }
}

fn alone(block: &[u8]) -> Frames {
    Frames::new().add(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

#[tokio::test]
async fn what_http1_has_no_bytes_for_is_refused() {
    let lab = Lab::x509().await;
    let beside = |name, value| request(USUAL, &[field(name, value)]);
    let mut wrong = Vec::new();
    for (what, block) in [
        ("a line in a value", beside("x-a", "b\r\nx-forged: 1")),
        ("LF in a value", beside("x-a", "b\nc")),
        ("CR in a value", beside("x-a", "b\rc")),
        ("NUL in a value", beside("x-a", "b\0c")),
        ("a line in a name", beside("x-a: b\r\nx-forged", "1")),
        ("a colon in a name", beside("x-a:b", "c")),
        ("a space in a name", beside("x a", "c")),
        ("capitals in a name", beside("X-A", "c")),
        ("no name", beside("", "c")),
        ("NUL in a name", beside("x\0a", "c")),
        (
            "a line in the path",
            with(":path", "/http/m HTTP/1.1\r\nX: y\r\n\r\n"),
        ),
        ("a space in the path", with(":path", "/http/m m")),
        ("no path", with(":path", "")),
        ("an asterisk", with(":path", "*")),
        ("a path without its slash", with(":path", "http/m")),
        (
            "a whole URL as the path",
            with(":path", "http://other/http/m"),
        ),
        (
            "a line in the method",
            with(":method", "GET /public/m HTTP/1.1\r\nX:"),
        ),
        ("a space in the method", with(":method", "GET /public/m")),
        ("a method of the gateway's own", with(":method", "TRACE")),
        (
            "a line in the authority",
            with(":authority", "localhost\r\nX: y"),
        ),
        ("a space in the authority", with(":authority", "local host")),
        (
            "a user in the authority",
            with(":authority", "user@localhost"),
        ),
        (
            "a path in the authority",
            with(":authority", "localhost/http"),
        ),
        ("no authority", with(":authority", "")),
        ("connection", beside("connection", "x-a")),
        ("transfer-encoding", beside("transfer-encoding", "chunked")),
        ("upgrade", beside("upgrade", "websocket")),
        ("keep-alive", beside("keep-alive", "1")),
        ("proxy-connection", beside("proxy-connection", "close")),
        ("a te that is not trailers", beside("te", "gzip")),
        ("two hosts", beside("host", "other")),
        ("a pseudo-field twice", beside(":path", "/http/m")),
        (
            "a pseudo-field behind others",
            request(USUAL, &[field("x", "y"), field(":path", "/a")]),
        ),
        ("a pseudo-field that is none", beside(":x", "y")),
        ("one of an answer", beside(":status", "200")),
    ] {
        let before = lab.origin.requests().len();
        let reply = reply(&lab, &alone(&block)).await;
        let arrived = lab.origin.requests().split_off(before);
        if reply != Reply::Refused || !arrived.is_empty() {
            wrong.push((what, reply, arrived));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    lab.origin.assert_untouched();
    let usual = request(USUAL, &[field("x-a", "b"), field("te", "trailers")]);
    assert_eq!(reply(&lab, &alone(&usual)).await, Reply::Ok);
}

#[tokio::test]
async fn a_fragment_is_not_part_of_the_path_for_anybody() {
    let lab = Lab::x509().await;
    let block = with(":path", "/http/m#/../../public/");
    assert_eq!(reply(&lab, &alone(&block)).await, Reply::Ok);
    assert_eq!(lab.origin.only_request().target, "/m");
}

#[tokio::test]
async fn a_body_is_as_long_as_its_content_length_says() {
    let lab = Lab::x509().await;
    let post = |lengths: &[&str], body: &[u8]| {
        let fields = lengths.iter().map(|length| field("content-length", length));
        let block = [head("POST", "/http/m"), fields.collect::<Vec<_>>().concat()].concat();
        Frames::new()
            .add(HEADERS, END_HEADERS, 1, &block)
            .add(DATA, END_STREAM, 1, body)
    };
    for (lengths, body) in [
        (&["5"][..], &b"hell"[..]),
        (&["5"], b"hello!"),
        (&["5"], b""),
        (&["0"], b"GET /http/smuggled HTTP/1.1\r\n\r\n"),
        (&["5", "6"], b"hello"),
        (&["5, 6"], b"hello"),
        (&["+5"], b"hello"),
        (&["5 "], b"hello"),
        (&[""], b"hello"),
        (&["-1"], b""),
        (&["18446744073709551621"], b"hello"),
    ] {
        let reply = reply(&lab, &post(lengths, body)).await;
        assert_eq!(reply, Reply::Refused, "{lengths:?} {body:?}");
        // A body that breaks off is no request there.
        assert!(lab.origin.requests().is_empty(), "{lengths:?} {body:?}");
    }
    assert_eq!(reply(&lab, &post(&["5"], b"hello")).await, Reply::Ok);
    assert_eq!(lab.origin.only_request().body, "hello");
}
