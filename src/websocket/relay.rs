//! The relay between two open WebSockets: bytes both ways with back-pressure, no memory held while
//! nothing moves, and a Close frame of our own said only where a frame may begin.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frame::FrameScanner;

/// How long a peer has to answer our Close.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Read at once; on the stack, so that a silent socket holds no buffer.
const CHUNK: usize = 8 * 1024;

/// Why the gateway closes a WebSocket (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// 1001: the gateway drains, or nothing has moved for too long.
    GoingAway,
    /// 1008: the client's right to the connection has ended.
    PolicyViolation,
}

impl CloseCode {
    fn value(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::PolicyViolation => 1008,
        }
    }

    /// A Close frame from a server.
    fn unmasked(self) -> Vec<u8> {
        let [high, low] = self.value().to_be_bytes();
        vec![0x88, 2, high, low]
    }

    /// A Close frame from a client. The mask protects caches from scripts (RFC 6455 §10.3), of
    /// which there are none here: zero will do.
    fn masked(self) -> Vec<u8> {
        let [high, low] = self.value().to_be_bytes();
        vec![0x88, 0x82, 0, 0, 0, 0, high, low]
    }
}

/// Two open WebSockets, the client's and the upstream's.
#[derive(Debug)]
pub struct Relay<C, U> {
    client: C,
    upstream: U,
    upward: Pipe,
    downward: Pipe,
    idle: Duration,
    last_moved: Instant,
    close_by: Option<Instant>,
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// A relay that closes when nothing has moved for `idle`.
    pub fn new(client: C, upstream: U, idle: Duration) -> Self {
        Self {
            client,
            upstream,
            upward: Pipe::default(),
            downward: Pipe::default(),
            idle,
            last_moved: Instant::now(),
            close_by: None,
        }
    }

    /// Says Close to both sides as soon as a frame may begin.
    pub fn close(&mut self, code: CloseCode) {
        self.close_by = Some(Instant::now() + CLOSE_GRACE);
        self.upward.farewell = Some(code.masked());
        self.downward.farewell = Some(code.unmasked());
    }

    /// Whether [`Self::close`] has been called.
    pub fn is_closing(&self) -> bool {
        self.close_by.is_some()
    }

    /// Carries bytes until both sides have ended. Cancel-safe: call it again to go on.
    ///
    /// # Errors
    /// What either socket reports.
    pub async fn run(&mut self) -> io::Result<()> {
        loop {
            let deadline = self.close_by.unwrap_or(self.last_moved + self.idle);
            let moved = tokio::time::timeout_at(deadline, poll_fn(|cx| self.poll(cx)));
            match moved.await {
                Ok(outcome) => return outcome,
                Err(_) if self.is_closing() => return Ok(()),
                Err(_) if self.last_moved.elapsed() >= self.idle => {
                    self.close(CloseCode::GoingAway)
                }
                Err(_) => {}
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let up = self.upward.poll(cx, &mut self.client, &mut self.upstream)?;
        let down = self
            .downward
            .poll(cx, &mut self.upstream, &mut self.client)?;
        if std::mem::take(&mut self.upward.moved) | std::mem::take(&mut self.downward.moved) {
            self.last_moved = Instant::now();
        }
        // Once the client has answered our Close nothing more will come of it.
        if self.downward.said_farewell && self.upward.frames.close_seen() {
            ready!(Pin::new(&mut self.client).poll_shutdown(cx))?;
            return Poll::Ready(Ok(()));
        }
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    frames: FrameScanner,
    /// Read but not yet written; empty unless the receiver is slow.
    pending: Vec<u8>,
    written: usize,
    unflushed: bool,
    moved: bool,
    farewell: Option<Vec<u8>>,
    said_farewell: bool,
    ended: bool,
    finished: bool,
}

impl Pipe {
    /// Moves what can be moved; ready when `from` has ended and `to` has been told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.ended {
            ready!(self.poll_write_pending(cx, to))?;
            if self.frames.at_boundary()
                && let Some(farewell) = self.farewell.take()
            {
                self.pending = farewell;
                self.said_farewell = true;
                continue;
            }
            match self.poll_read(cx, from, to)? {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => {}
                Poll::Pending => {
                    ready!(self.poll_flush(cx, to))?;
                    return Poll::Pending;
                }
            }
        }
        if !self.finished {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, writing on at once what the receiver takes. Zero is the end.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut chunk = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        self.frames.advance(bytes);
        self.moved = true;
        // After our Close no byte may follow it (RFC 6455 §5.5.1); what comes is read and dropped.
        if !self.said_farewell && !bytes.is_empty() {
            let written = match Pin::new(to).poll_write(cx, bytes)? {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            };
            self.unflushed = true;
            self.pending
                .extend_from_slice(bytes.get(written..).unwrap_or_default());
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_pending(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .pending
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.moved = true;
            self.unflushed = true;
        }
        if self.written > 0 {
            self.pending = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A relay with the far ends of its two sockets.
    fn relay(
        idle: Duration,
    ) -> (
        Relay<DuplexStream, DuplexStream>,
        DuplexStream,
        DuplexStream,
    ) {
        let (client, near_client) = duplex(64);
        let (upstream, near_upstream) = duplex(64);
        (
            Relay::new(near_client, near_upstream, idle),
            client,
            upstream,
        )
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_is_passed_on() {
        let (mut relay, mut client, mut upstream) = relay(HOUR);
        let running = tokio::spawn(async move { relay.run().await });
        let large = vec![7; 100_000];
        let frame: Vec<u8> = [&[0x82, 127][..], &100_000u64.to_be_bytes(), &large].concat();
        let (sent, echoed) = tokio::join!(client.write_all(&frame), async {
            let mut got = vec![0; frame.len()];
            upstream.read_exact(&mut got).await.map(|_| got)
        });
        sent.unwrap();
        assert_eq!(echoed.unwrap(), frame);
        upstream.write_all(&[0x89, 0]).await.unwrap();
        let mut ping = [0; 2];
        client.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        drop(client);
        assert_eq!(upstream.read(&mut [0; 1]).await.unwrap(), 0);
        drop(upstream);
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_close_of_ours_waits_for_the_end_of_the_frame() {
        let (mut relay, mut client, mut upstream) = relay(HOUR);
        upstream.write_all(&[0x82, 4, 1, 2]).await.unwrap();
        let mut got = [0; 4];
        tokio::select! {
            _ = relay.run() => panic!("the relay ended"),
            read = client.read_exact(&mut got) => drop(read.unwrap()),
        }
        relay.close(CloseCode::GoingAway);
        let running = tokio::spawn(async move { relay.run().await });
        upstream.write_all(&[3, 4]).await.unwrap();
        let mut rest = [0; 6];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest, [3, 4, 0x88, 2, 0x03, 0xe9]);
        let mut farewell = [0; 8];
        upstream.read_exact(&mut farewell).await.unwrap();
        assert_eq!(farewell, [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
        client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_relay_and_traffic_does_not() {
        let (mut relay, mut client, mut upstream) = relay(Duration::from_secs(60));
        let running = tokio::spawn(async move { relay.run().await });
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            client.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
            upstream.read_exact(&mut [0; 6]).await.unwrap();
        }
        let mut farewell = [0; 4];
        client.read_exact(&mut farewell).await.unwrap();
        assert_eq!(farewell, [0x88, 2, 0x03, 0xe9]);
        running.await.unwrap().unwrap();
    }
}
