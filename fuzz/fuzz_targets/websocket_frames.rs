//! Any bytes as WebSocket frames: no panic, and the same payload, events and frame ends however
//! the stream is split.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::websocket::frame::{Event, FrameScanner, Role, Unwrapper, Violation, close, pong};

fuzz_target!(|data: &[u8]| {
    let Some((&seed, stream)) = data.split_first() else {
        return;
    };
    let sender = if seed & 1 == 0 {
        Role::Client
    } else {
        Role::Server
    };
    let uneven = |round: usize| round.wrapping_mul(usize::from(seed) | 1) % 19 + 1;

    let whole = unwrap(sender, stream, |_| usize::MAX);
    assert_eq!(unwrap(sender, stream, |_| 1), whole);
    assert_eq!(unwrap(sender, stream, uneven), whole);

    let ends = frame_ends(stream, |_| usize::MAX);
    assert_eq!(frame_ends(stream, |_| 1), ends);
    assert_eq!(frame_ends(stream, uneven), ends);
});

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    payload: Vec<u8>,
    /// What was said besides, and after how much payload.
    said: Vec<(usize, Vec<u8>)>,
    fault: Option<Violation>,
}

fn unwrap(sender: Role, stream: &[u8], piece: impl Fn(usize) -> usize) -> Seen {
    let mut seen = Seen::default();
    let mut unwrapper = Unwrapper::new(sender);
    let mut stream = stream.to_vec();
    let mut unread = stream.as_mut_slice();
    let mut round = 0;
    while !unread.is_empty() {
        round += 1;
        let size = piece(round).min(unread.len());
        let (read, behind) = unread.split_at_mut(size);
        unread = behind;
        if let Err(fault) = take_all(&mut unwrapper, read, &mut seen) {
            assert_eq!(unwrapper.advance(&mut [0x82]), Err(fault));
            let _ = close(fault.close_code(), &fault.to_string());
            seen.fault = Some(fault);
            break;
        }
    }
    seen
}

fn take_all(
    unwrapper: &mut Unwrapper,
    mut buffer: &mut [u8],
    seen: &mut Seen,
) -> Result<(), Violation> {
    loop {
        let step = unwrapper.advance(buffer)?;
        let at = seen.payload.len();
        match step.event {
            None => {
                assert_eq!(step.taken, buffer.len());
                return Ok(());
            }
            Some(Event::Payload(range)) => {
                assert!(!range.is_empty() && range.end == step.taken);
                seen.payload.extend_from_slice(&buffer[range]);
            }
            Some(Event::Ping(payload)) => seen.said.push((at, pong(&payload))),
            Some(Event::Pong) => seen.said.push((at, b"pong".to_vec())),
            Some(Event::Close(code)) => {
                assert!(unwrapper.is_closed());
                seen.said.push((at, format!("close {code:?}").into_bytes()));
            }
        }
        buffer = &mut buffer[step.taken..];
    }
}

/// The last frame end in the stream, whether the stream ends there, and whether a Close was seen.
fn frame_ends(stream: &[u8], piece: impl Fn(usize) -> usize) -> (usize, bool, bool) {
    let mut scanner = FrameScanner::new();
    let (mut at, mut last, mut round) = (0, 0, 0);
    while at < stream.len() {
        round += 1;
        let end = at.saturating_add(piece(round)).min(stream.len());
        if let Some(boundary) = scanner.advance(&stream[at..end]) {
            last = at + boundary;
        }
        at = end;
    }
    assert_eq!(scanner.at_boundary(), last == stream.len());
    (last, scanner.at_boundary(), scanner.close_seen())
}
