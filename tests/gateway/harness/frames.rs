//! HTTP/2 by hand (RFC 9113 §4.1), for what no library would send.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What a client sends: the preface, its settings, and frames.
#[derive(Clone)]
pub struct Frames(pub Vec<u8>);

impl Frames {
    pub fn new() -> Self {
        Self::with_settings(&[])
    }

    pub fn with_settings(settings: &[u8]) -> Self {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        Self(preface.to_vec()).add(SETTINGS, 0, 0, settings)
    }

    pub fn add(mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.0.extend_from_slice(&length[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload);
        self
    }
}

/// A request for `path` at localhost, over HTTPS (RFC 7541 §6.2.2, Appendix A): `GET` or `POST`.
pub fn head(method: &str, path: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [&[index, length], text.as_bytes()].concat()
    };
    let method = if method == "POST" { 0x83 } else { 0x82 };
    [
        vec![method, 0x87],
        literal(4, path),
        literal(1, "localhost"),
    ]
    .concat()
}

/// A frame as it was received.
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// `None` at the end, however it comes.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut header = [0; 9];
        reader.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        reader.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        Some(Self {
            kind: header[3],
            stream,
            payload,
        })
    }

    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = self.payload.len().min(8) - 4;
        u32::from_be_bytes(self.payload[at..][..4].try_into().unwrap())
    }
}

/// Asks for `path` on `stream` of a connection without answering anything that the gateway says, as only
/// a client by hand does; whether it is served.
pub async fn is_served(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stream: u32,
    path: &str,
) -> bool {
    let flags = END_HEADERS | END_STREAM;
    let request = Frames(Vec::new()).add(HEADERS, flags, stream, &head("GET", path));
    if connection.write_all(&request.0).await.is_err() {
        return false;
    }
    loop {
        match Frame::read(connection).await {
            // RFC 7541 Appendix A: `:status: 200`.
            Some(frame) if frame.stream == stream && frame.kind == HEADERS => {
                return frame.payload[0] == 0x88;
            }
            Some(frame) if frame.stream == stream && frame.kind == RST_STREAM => return false,
            Some(_) => {}
            None => return false,
        }
    }
}

/// Reads up to the next GOAWAY.
pub async fn until_goaway(connection: &mut (impl AsyncRead + Unpin)) {
    while Frame::read(connection).await.expect("the end").kind != GOAWAY {}
}
