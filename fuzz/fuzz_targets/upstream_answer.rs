//! What a server of HTTP/1.1 answers, head and chunks: nothing panics; an answer means the same however
//! it is cut; nothing is read behind its end.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portcullis::upstream::{Chunked, Flaw, Framing, Head, Piece};

/// What was read, as far as it goes, and whether all of it was there.
#[derive(Debug, PartialEq)]
enum Answer {
    Unfinished,
    Refused(Flaw),
    Malformed,
    Read(Framing, Vec<u8>, bool),
}

fuzz_target!(|data: &[u8]| {
    let whole = read(&[data]);
    let cut = data.first().map_or(0, |first| usize::from(*first) % data.len());
    let (front, back) = data.split_at(cut);
    assert_eq!(whole, read(&[front, back]));
    if data.len() < 512 {
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(whole, read(&bytes));
    }
});

fn read(parts: &[&[u8]]) -> Answer {
    let mut input = BytesMut::new();
    let mut head = None;
    let mut chunks = Chunked::default();
    let mut body = Vec::new();
    for part in parts {
        input.extend_from_slice(part);
        if head.is_none() {
            match Head::take(&mut input, false) {
                Ok(taken) => head = taken,
                Err(flaw) => return Answer::Refused(flaw),
            }
        }
        if head.as_ref().map(Head::framing) != Some(Framing::Chunked) {
            continue;
        }
        loop {
            match chunks.take(&mut input) {
                Ok(Some(Piece::Data(data))) => body.extend_from_slice(&data),
                Ok(Some(Piece::Trailers(_))) => {}
                Ok(None) => break,
                Err(_) => return Answer::Malformed,
            }
        }
    }
    match head {
        None => Answer::Unfinished,
        Some(head) => Answer::Read(head.framing(), body, chunks.is_over()),
    }
}
