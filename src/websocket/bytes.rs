//! [`ByteStream`]: the binary messages of a WebSocket as a stream of bytes, seen from its server.
//!
//! For protocols whose packets need not align with messages (MQTT 5.0 §6). Pings are answered, a
//! Close is answered and ends the stream, and whatever breaks RFC 6455 ends it with the code for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{self, Event, Opcode, Unwrapped, Unwrapper, Violation};

/// Most bytes that one frame of ours carries; what is written beyond waits for the next.
const CHUNK: usize = 16 * 1024;

/// A WebSocket that carries bytes.
#[derive(Debug)]
pub struct ByteStream<IO> {
    io: IO,
    unwrapper: Unwrapper,
    /// Frames on their way out.
    out: Vec<u8>,
    written: usize,
    close_code: u16,
    /// A Close of ours is on its way or out.
    closed: bool,
    /// The client's side has ended, by Close or by force.
    ended: bool,
}

impl<IO> ByteStream<IO> {
    /// The stream on a connection that has been upgraded; a message may have `max_message` bytes.
    pub fn new(io: IO, max_message: u64) -> Self {
        Self {
            io,
            unwrapper: Unwrapper::new(max_message),
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
            self.out.extend_from_slice(&frame::close(code, ""));
        }
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
                    self.out.extend_from_slice(&frame::pong(&ping));
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
            // Before more is read: a client that sends pings and reads no pongs waits.
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
        let head = frame::header(Opcode::Binary, chunk.len() as u64);
        this.out.reserve_exact(head.as_bytes().len() + chunk.len());
        this.out.extend_from_slice(head.as_bytes());
        this.out.extend_from_slice(chunk);
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair() -> (ByteStream<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        (ByteStream::new(near, 1024), far)
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
}
