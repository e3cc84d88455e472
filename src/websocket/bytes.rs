//! [`ByteStream`]: the binary messages of a WebSocket as a stream of bytes, seen from either end.
//!
//! For protocols whose packets need not align with messages (MQTT 5.0 §6). Pings are answered, a
//! Close is answered and ends the stream. Whatever breaks RFC 6455 is answered with the code for it, and
//! is an error to the reader, as an end without a Close is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{self, Event, Opcode, Role, Unwrapped, Unwrapper, Violation};

/// Most bytes that one frame of ours carries; what is written beyond waits for the next.
const CHUNK: usize = 16 * 1024;

/// Most bytes of pongs on their way out while more is read: who sends pings and reads no pongs waits.
const MOST_PONGS: usize = 1024;

/// A WebSocket that carries bytes.
#[derive(Debug)]
pub struct ByteStream<IO> {
    io: IO,
    role: Role,
    unwrapper: Unwrapper,
    /// Frames on their way out.
    out: Vec<u8>,
    written: usize,
    /// What was written has yet to leave the connection below.
    unflushed: bool,
    /// How much of `out` answers pings.
    pongs: usize,
    /// What writing has met while there was something to be read; told to whoever writes next.
    failure: Option<io::Error>,
    close_code: u16,
    /// A Close of ours is on its way or out.
    closed: bool,
    /// The other side has ended.
    ended: Option<End>,
    /// The connection below is told that nothing follows.
    shut: bool,
}

/// How the other side has ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// By a Close.
    Closed,
    /// Without one.
    BrokenOff,
    /// By what it may not send.
    Violation(Violation),
}

impl End {
    /// What its reader hears, behind all bytes.
    fn heard(self) -> io::Result<()> {
        match self {
            Self::Closed => Ok(()),
            Self::BrokenOff => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Violation(violation) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, violation))
            }
        }
    }
}

impl<IO> ByteStream<IO> {
    /// The server's end of a connection that has been upgraded.
    pub fn of_server(io: IO) -> Self {
        Self::new(io, Role::Server, Role::Client)
    }

    /// The client's end.
    pub fn of_client(io: IO) -> Self {
        Self::new(io, Role::Client, Role::Server)
    }

    /// A message of the other side may be of any size, since none of it is kept: what is too large is
    /// for the protocol inside to say.
    fn new(io: IO, role: Role, other: Role) -> Self {
        Self {
            io,
            role,
            unwrapper: Unwrapper::new(other),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            pongs: 0,
            failure: None,
            close_code: 1000,
            closed: false,
            ended: None,
            shut: false,
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
        self.ended = Some(End::Violation(violation));
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
                    let before = self.out.len();
                    self.queue(Opcode::Pong, ping.as_bytes());
                    self.pongs += self.out.len() - before;
                }
                Some(Event::Ping(_) | Event::Pong) => {}
                Some(Event::Close(code)) => {
                    self.ended = Some(End::Closed);
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
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        if self.written > 0 {
            self.forget_out();
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn forget_out(&mut self) {
        self.out = Vec::new();
        self.written = 0;
        self.pongs = 0;
    }

    /// Writes what there is on behalf of a reader, whom it concerns only that something is left. That
    /// nobody takes it any more is told to whoever writes next: what the other side has sent before
    /// is to be read all the same.
    fn poll_out_aside(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.failure.is_some() {
            return Poll::Ready(());
        }
        if let Err(failure) = ready!(self.poll_out(cx)) {
            self.forget_out();
            self.unflushed = false;
            self.failure = Some(failure);
        }
        Poll::Ready(())
    }

    /// Ends the connection below behind a Close that both sides have said: the server is the first to
    /// (RFC 6455 §7.1.1), and at once.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.shut = true;
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
            // Bytes of ours that the other side does not take do not keep us from reading: it may be
            // waiting for the same.
            let out = this.poll_out_aside(cx);
            if out.is_pending() && this.pongs > MOST_PONGS {
                return Poll::Pending;
            }
            if let Some(end) = this.ended {
                if out.is_ready() && this.unwrapper.is_closed() && this.role == Role::Server {
                    // Whether it can be is of no matter to a stream that is at its end.
                    let _ = this.poll_hang_up(cx);
                }
                return Poll::Ready(end.heard());
            }
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let raw = buf.initialize_unfilled();
            let mut read = ReadBuf::new(raw);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            let length = read.filled().len();
            if length == 0 {
                this.ended = Some(End::BrokenOff);
                continue;
            }
            let kept = this.unwrap(raw.get_mut(..length).unwrap_or_default());
            if kept > 0 {
                buf.advance(kept);
                // What is left of it goes out with the next poll of either side.
                let _ = this.poll_out_aside(cx);
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
        self.poll_hang_up(cx)
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
        (ByteStream::of_server(near), far)
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
        ] {
            let (mut stream, mut client) = pair();
            client.write_all(&bytes).await.unwrap();
            let end = stream.read(&mut [0; 64]).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::InvalidData);
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
    async fn bytes_are_read_though_nobody_takes_the_answer_to_the_close_behind_them() {
        let (near, mut far) = duplex(1 << 16);
        let mut server = ByteStream::of_server(near);
        let sent = [masked(0x82, b"last"), masked(0x88, &[0x03, 0xe8])].concat();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last");
        assert!(server.write_all(b"x").await.is_err());

        let (near, mut far) = duplex(1 << 16);
        let mut client = ByteStream::of_client(near);
        far.write_all(b"\x82\x04last\x88\x02\x03\xe8")
            .await
            .unwrap();
        drop(far);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last");
    }

    #[tokio::test]
    async fn bytes_are_read_though_nobody_takes_the_answer_to_the_ping_before_them() {
        let (near, mut far) = duplex(1 << 16);
        let mut server = ByteStream::of_server(near);
        let sent = [masked(0x89, b"?"), masked(0x82, b"last")].concat();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut read = Vec::new();
        let end = server.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(read, b"last");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "without a Close");
    }

    #[tokio::test]
    async fn who_reads_nothing_is_read_on() {
        for of_server in [true, false] {
            let (near, mut far) = duplex(64);
            let (mut stream, frame) = if of_server {
                (ByteStream::of_server(near), masked(0x82, b"up"))
            } else {
                (ByteStream::of_client(near), b"\x82\x02up".to_vec())
            };
            stream.write_all(&[b'x'; 1000]).await.unwrap();
            for _ in 0..100 {
                far.write_all(&frame).await.unwrap();
                let mut read = [0; 2];
                stream.read_exact(&mut read).await.unwrap();
                assert_eq!(&read, b"up");
            }
        }
    }

    #[tokio::test]
    async fn who_sends_pings_and_reads_no_pongs_is_not_read_without_end() {
        let (near, mut far) = duplex(64);
        let mut stream = ByteStream::of_server(near);
        let pings = masked(0x89, &[b'p'; 100]).repeat(1000);
        let mut read = [0; 256];
        let many_turns = async {
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = stream.read(&mut read) => panic!("there is nothing to be read"),
            _ = far.write_all(&pings) => panic!("all was read"),
            () = many_turns => {}
        }
        assert!(stream.out.len() < MOST_PONGS + 512, "{}", stream.out.len());
    }

    /// Takes all bytes at once, and flushes them at the second time of asking.
    #[derive(Debug, Default)]
    struct Lazy {
        unread: Vec<u8>,
        asked: bool,
        unflushed: bool,
    }

    impl AsyncRead for Lazy {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.unread.is_empty() {
                return Poll::Pending;
            }
            buf.put_slice(&std::mem::take(&mut self.unread));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Lazy {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            (self.asked, self.unflushed) = (false, true);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.asked, true) {
                self.unflushed = false;
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_pong_is_flushed_by_whoever_waits_for_what_comes_next() {
        let mut stream = ByteStream::of_server(Lazy {
            unread: masked(0x89, b"?"),
            ..Lazy::default()
        });
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..2 {
            let mut buf = [0; 64];
            let read = Pin::new(&mut stream).poll_read(&mut cx, &mut ReadBuf::new(&mut buf));
            assert!(read.is_pending());
        }
        assert!(!stream.io.unflushed);
    }

    #[tokio::test]
    async fn behind_a_close_of_both_sides_the_server_hangs_up_at_once() {
        let (mut stream, mut client) = pair();
        client
            .write_all(&masked(0x88, &[0x03, 0xe8]))
            .await
            .unwrap();
        assert_eq!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 0x03, 0xe8]);
        stream.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_message_may_be_of_any_size() {
        let (mut stream, mut client) = pair();
        let head = [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        client
            .write_all(&[&head[..], b"begun"].concat())
            .await
            .unwrap();
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"begun");
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
        let (mut client, mut server) = (ByteStream::of_client(near), ByteStream::of_server(far));
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
