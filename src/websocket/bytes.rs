//! [`ByteStream`]: the binary messages of a WebSocket as a stream of bytes, seen from either end.
//!
//! For protocols whose packets need not align with messages (MQTT 5.0 §6). Pings are answered, a
//! Close is answered and ends the stream, and whatever breaks RFC 6455 ends it with the code for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{self, Event, Opcode, Role, Unwrapped, Unwrapper, Violation};

/// Most bytes that one frame of ours carries; what is written beyond waits for the next.
const CHUNK: usize = 16 * 1024;

/// A WebSocket that carries bytes.
#[derive(Debug)]
pub struct ByteStream<IO> {
    io: IO,
    role: Role,
    unwrapper: Unwrapper,
    /// Frames on their way out.
    out: Vec<u8>,
    written: usize,
    close_code: u16,
    /// A Close of ours is on its way or out.
    closed: bool,
    /// The other side has ended, by Close or by force.
    ended: bool,
}

impl<IO> ByteStream<IO> {
    /// The server's end of a connection that has been upgraded; a client's message may have
    /// `max_message` bytes.
    pub fn of_server(io: IO, max_message: u64) -> Self {
        Self::new(io, Role::Server, Unwrapper::new(Role::Client, max_message))
    }

    /// The client's end. A message of the server may be of any size, since none of it is kept.
    pub fn of_client(io: IO) -> Self {
        Self::new(io, Role::Client, Unwrapper::new(Role::Server, u64::MAX))
    }

    fn new(io: IO, role: Role, unwrapper: Unwrapper) -> Self {
        Self {
            io,
            role,
            unwrapper,
            out: Vec::new(),
            written: 0,
            close_code: 1000,
            closed: false,
            ended: false,
        }
    }

    /// Sets the code that shutting down will close with (RFC 6455 §7.4.1).
    pub fn close_with(&mut self, code: u16) {
        self.close_code = code;
    }

    fn queue_close(&mut self, code: u16) {
        if !self.closed {
            self.closed = true;
            self.queue(Opcode::Close, &code.to_be_bytes());
        }
    }

    fn queue(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = match self.role {
            Role::Client => Some(random_mask()),
            Role::Server => None,
        };
        frame::append(&mut self.out, opcode, payload, mask);
    }

    fn refuse(&mut self, violation: Violation) {
        tracing::debug!(%violation, "a WebSocket is closed");
        self.ended = true;
        self.queue_close(violation.close_code());
    }

    /// Takes the payload out of `raw` and moves it to its front; says how long it is.
    fn unwrap(&mut self, raw: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        loop {
            let rest = raw.get_mut(at..).unwrap_or_default();
            let Unwrapped { taken, event } = match self.unwrapper.advance(rest) {
                Ok(unwrapped) => unwrapped,
                Err(violation) => {
                    self.refuse(violation);
                    return kept;
                }
            };
            match event {
                None => return kept,
                Some(Event::Payload(range)) => {
                    let length = range.len();
                    raw.copy_within(at + range.start..at + range.end, kept);
                    kept += length;
                }
                Some(Event::Ping(ping)) if !self.closed => {
                    self.queue(Opcode::Pong, ping.as_bytes());
                }
                Some(Event::Ping(_) | Event::Pong) => {}
                Some(Event::Close(code)) => {
                    self.ended = true;
                    self.queue_close(code.unwrap_or(1000));
                    return kept;
                }
            }
            at += taken;
        }
    }
}

impl<IO: AsyncWrite + Unpin> ByteStream<IO> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        if self.written > 0 {
            self.out = Vec::new();
            self.written = 0;
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            // Before more is read: who sends pings and reads no pongs waits.
            ready!(this.poll_out(cx))?;
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let raw = buf.initialize_unfilled();
            let mut read = ReadBuf::new(raw);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            let length = read.filled().len();
            if length == 0 {
                this.ended = true;
                return Poll::Ready(Ok(()));
            }
            let kept = this.unwrap(raw.get_mut(..length).unwrap_or_default());
            if kept > 0 {
                buf.advance(kept);
                // What control frames have queued goes out with the next poll of either side.
                let _ = this.poll_out(cx)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ByteStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_out(cx))?;
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let chunk = buf.get(..buf.len().min(CHUNK)).unwrap_or_default();
        this.queue(Opcode::Binary, chunk);
        // Taken, whether it has left already or not: flushing sees to it.
        let _ = this.poll_out(cx)?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let code = self.close_code;
        self.queue_close(code);
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// RFC 6455 §5.3: not to be foreseen by whoever chooses the payload (§10.3). Without randomness it
/// protects no cache in between, which is no reason to end a session.
fn random_mask() -> [u8; 4] {
    let mut mask = [0; 4];
    let _ = aws_lc_rs::rand::fill(&mut mask);
    mask
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair() -> (ByteStream<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        (ByteStream::of_server(near, 1024), far)
    }

    /// A client's frame, masked with 1, 2, 3, 4.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![
            first,
            0x80 | u8::try_from(payload.len()).unwrap(),
            1,
            2,
            3,
            4,
        ];
        frame.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ [1, 2, 3, 4][at % 4]),
        );
        frame
    }

    #[tokio::test]
    async fn bytes_come_out_of_frames_however_those_are_cut() {
        let stream = [
            masked(0x82, b"one "),
            masked(0x02, b"tw"),
            masked(0x89, b"ping"),
            masked(0x80, b"o "),
            masked(0x82, b""),
            masked(0x82, b"three"),
            masked(0x88, &[0x03, 0xe8]),
        ]
        .concat();
        for step in 1..stream.len() {
            let (mut bytes, mut client) = pair();
            let writer = async {
                for part in stream.chunks(step) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let mut read = Vec::new();
            let (got, ()) = tokio::join!(bytes.read_to_end(&mut read), writer);
            got.unwrap();
            assert_eq!(read, b"one two three", "by {step}");
            drop(bytes);
            let mut answers = Vec::new();
            client.read_to_end(&mut answers).await.unwrap();
            assert_eq!(
                answers,
                [&[0x8a, 4][..], b"ping", &[0x88, 2, 0x03, 0xe8]].concat()
            );
        }
    }

    #[tokio::test]
    async fn what_breaks_the_rules_ends_the_stream_with_its_code() {
        for (bytes, code) in [
            (masked(0x81, b"text"), 1003_u16),
            (vec![0x82, 1, b'x'], 1002),
            (masked(0xc2, b"x"), 1002),
            (masked(0x80, b"x"), 1002),
            (
                [&[0x82, 0xfe, 0x08, 0x00, 0, 0, 0, 0][..], &[0; 2048]].concat(),
                1009,
            ),
        ] {
            let (mut stream, mut client) = pair();
            client.write_all(&bytes).await.unwrap();
            assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
            stream.flush().await.unwrap();
            let mut close = [0; 4];
            client.read_exact(&mut close).await.unwrap();
            assert_eq!(
                close,
                [0x88, 2, code.to_be_bytes()[0], code.to_be_bytes()[1]]
            );
        }
    }

    #[tokio::test]
    async fn written_bytes_become_binary_frames_and_shutting_down_closes() {
        let (mut stream, mut client) = pair();
        stream.write_all(b"hello").await.unwrap();
        stream.close_with(1008);
        stream.shutdown().await.unwrap();
        drop(stream);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(
            read,
            [&[0x82, 5][..], b"hello", &[0x88, 2, 0x03, 0xf0]].concat()
        );
    }

    #[tokio::test]
    async fn both_ends_understand_each_other() {
        let (near, far) = duplex(1 << 16);
        let (mut client, mut server) = (
            ByteStream::of_client(near),
            ByteStream::of_server(far, 1 << 20),
        );
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        for _ in 0..2 {
            let mut got = vec![0; bytes.len()];
            let (sent, received) = tokio::join!(
                async {
                    client.write_all(&bytes).await?;
                    client.flush().await
                },
                server.read_exact(&mut got)
            );
            sent.and(received.map(drop)).unwrap();
            assert!(got == bytes);
            let (sent, received) = tokio::join!(
                async {
                    server.write_all(&bytes).await?;
                    server.flush().await
                },
                client.read_exact(&mut got)
            );
            sent.and(received.map(drop)).unwrap();
            assert!(got == bytes);
        }
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn no_two_frames_of_a_client_have_the_same_mask() {
        let (near, mut far) = duplex(1 << 16);
        let mut client = ByteStream::of_client(near);
        let mut masks = Vec::new();
        for _ in 0..2 {
            client.write_all(b"x").await.unwrap();
            let mut frame = [0; 7];
            far.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame[..2], [0x82, 0x81]);
            masks.push(frame[2..6].to_vec());
        }
        assert_ne!(masks[0], masks[1]);
    }
}
