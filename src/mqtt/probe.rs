//! How a broker is asked whether it is well: by a CONNECT without credentials.

use std::io;

use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use super::broker::subprotocol;
use super::codec::{Connack, DISCONNECT_V3, Version, first_packet, probe_connect};
use crate::upstream::{Dialogue, Inside, Link, Tunnel};
use crate::websocket;

/// The one that most brokers speak.
const VERSION: Version = Version::V311;

/// What a broker is asked. It is well if it answers with a CONNACK: refusing a client without
/// credentials is its duty, and so is a version that it does not speak; saying that it is unavailable
/// (MQTT 3.1.1 §3.2.2.3, MQTT 5.0 §3.2.2.2) is not. It is asked inside a WebSocket if there is a path for
/// one.
#[must_use]
pub fn probe(websocket_path: Option<PathAndQuery>) -> Dialogue {
    let question = probe_connect(VERSION, "portcullis-probe");
    let inside = |path| Inside {
        path,
        open: |link, host, path| Box::pin(open_websocket(link, host, path)),
    };
    Dialogue {
        question: question.unwrap_or_default(),
        judge,
        farewell: &DISCONNECT_V3,
        inside: websocket_path.map(inside),
    }
}

async fn open_websocket(
    link: Link,
    host: HeaderValue,
    path: PathAndQuery,
) -> io::Result<Box<dyn Tunnel>> {
    let opening = websocket::open(link, host, &path, subprotocol(VERSION));
    let socket = opening.await.map_err(io::Error::other)?;
    Ok(Box::new(socket))
}

/// Whatever version the broker speaks: one that has MQTT 5 alone refuses in its own form (MQTT 5.0
/// §3.1.2.2).
fn judge(answer: &[u8]) -> Option<bool> {
    const CONNACK: u8 = 0x20;
    /// The longest fixed header.
    const LONGEST: usize = 5;
    if answer.first().is_some_and(|first| *first != CONNACK) {
        return Some(false);
    }
    match first_packet(answer) {
        Some(length) => answer.get(..length).map(is_well),
        None => (answer.len() >= LONGEST).then_some(false),
    }
}

fn is_well(connack: &[u8]) -> bool {
    let connack = Connack::read_strictly(connack);
    connack.is_some_and(|connack| !connack.is_unavailable() && !connack.points_elsewhere())
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn any_connack_is_a_sign_of_life_but_those_that_say_otherwise() {
        for (answer, expected) in [
            (&[][..], None),
            (&[0x20], None),
            (&[0x20, 2, 0], None),
            (&[0x20, 2, 0, 0], Some(true)),
            (&[0x20, 2, 0, 5], Some(true)),
            (&[0x20, 2, 0, 3], Some(false)),
            (&[0x20, 3, 0, 0x84], None),
            (&[0x20, 3, 0, 0x84, 0], Some(true)),
            (&[0x20, 3, 0, 0, 0], Some(true)),
            (&[0x20, 6, 1, 0, 3, 0x13, 0, 9], Some(true)),
            (&[0x20, 3, 0, 0x88, 0], Some(false)),
            (&[0x20, 3, 0, 0x89, 0], Some(false)),
            (&[0x20, 3, 0, 0x9c, 0], Some(false)),
            (&[0x20, 7, 0, 0x9d, 4, 0x1c, 0, 1, b'a'], Some(false)),
        ] {
            assert_eq!(judge(answer), expected, "{answer:x?}");
        }
    }

    #[test]
    fn what_is_no_connack_to_its_end_is_no_sign_of_life() {
        for answer in [
            &b"HTTP"[..],
            &[0x21, 2, 0, 0],
            &[0x20, 0],
            &[0x20, 1, 0],
            &[0x20, 2, 2, 0],
            &[0x20, 3, 0, 0, 1],
            &[0x20, 4, 0, 0, 0, 0],
            &[0x20, 4, 0, 0, 1, 0x7f],
            &[0x20, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(judge(answer), Some(false), "{answer:x?}");
        }
    }
}
