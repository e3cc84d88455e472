//! [`Watched`]: the stream of a connection, which notes what passes, and writes what hyper cannot.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::super::early_hints;
use super::super::request_scan::RequestScan;
use super::super::{Protocol, Session, unparsed};
use super::Progress;
use crate::socket::hand_over;

/// A stream that notes what passes.
#[derive(Debug)]
pub(in crate::http) struct Watched<IO> {
    io: IO,
    progress: Arc<Progress>,
    /// `None` for HTTP/2, whose heads are not lines.
    scan: Option<RequestScan>,
    /// What has been read already, to be read again.
    put_back: Bytes,
    /// The rest of what goes before whatever else is written: an interim head, or a refusal.
    interim: Bytes,
    /// Whom refusals are of that hyper would send by itself.
    session: Option<Arc<Session>>,
    /// How many requests had begun when all of them were last seen to be answered, and that written.
    settled: Option<u32>,
    /// HTTP/2: in which turn nothing was left to be read.
    dry_in: Option<u32>,
    farewell: Farewell,
}

/// How far the end of a connection has come.
#[derive(Debug, Default)]
enum Farewell {
    #[default]
    NotSaid,
    /// Nothing more is sent; what the client still sends is dropped until it ends.
    Lingering(Linger),
    Done,
}

/// A client that may go on sending although nothing is read any more. Closing with bytes unread would
/// reset the connection, and what it has not read yet would be lost (RFC 9112 §9.6).
#[derive(Debug)]
struct Linger {
    quiet: Pin<Box<Sleep>>,
    until: Instant,
}

impl Linger {
    /// How long it may be silent.
    const QUIET: Duration = Duration::from_secs(2);

    /// How long it may go on in any case.
    const LONGEST: Duration = Duration::from_secs(30);

    fn new() -> Self {
        Self {
            quiet: Box::pin(tokio::time::sleep(Self::QUIET)),
            until: Instant::now() + Self::LONGEST,
        }
    }

    /// Reads and drops until the client ends, or has had its time.
    fn poll(&mut self, io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut chunk = [0; 4096];
            let mut buffer = ReadBuf::new(&mut chunk);
            match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let quiet = Instant::now() + Self::QUIET;
                    self.quiet.as_mut().reset(quiet.min(self.until));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.quiet.as_mut().poll(cx),
            }
        }
    }
}

impl<IO> Watched<IO> {
    pub(in crate::http) fn new(io: IO, protocol: Protocol, progress: Arc<Progress>) -> Self {
        let scan = match protocol {
            Protocol::Http1 => Some(RequestScan::default()),
            Protocol::Http2 => None,
        };
        Self {
            io,
            progress,
            scan,
            put_back: Bytes::new(),
            interim: Bytes::new(),
            session: None,
            settled: Some(0),
            dry_in: None,
            farewell: Farewell::default(),
        }
    }

    /// Has a say where hyper would answer by itself.
    pub(in crate::http) fn speaking_for(mut self, session: &Arc<Session>) -> Self {
        if self.scan.is_some() {
            self.session = Some(Arc::clone(session));
        }
        self
    }

    /// Notes that hyper has nothing left to write.
    fn note_flush(&mut self) {
        let begun = self.progress.begun.load(Ordering::Relaxed);
        self.settled = (!self.progress.is_active()).then_some(begun);
    }

    /// Whether what is written now is said to no request.
    fn is_unasked(&self) -> bool {
        let begun = self.progress.begun.load(Ordering::Relaxed);
        self.settled == Some(begun) && self.progress.may_finish()
    }

    /// What is to be written instead of what hyper says to no request.
    fn in_own_words(&self, written: &[u8]) -> Option<Bytes> {
        let session = self.session.as_ref()?;
        Some(unparsed::refuse(session, unparsed::status(written)?))
    }

    /// Whether it has been read dry in this turn. hyper asks before each of the requests that have come
    /// together, and decryption and socket need not be asked again for each: whatever comes meanwhile
    /// begins another turn. HTTP/1.1 does not ask so, and is read without turns while it rests.
    fn is_dry(&self) -> bool {
        self.dry_in == Some(self.progress.turns.load(Ordering::Relaxed))
    }

    fn note_dry(&mut self) {
        if self.scan.is_none() {
            self.dry_in = Some(self.progress.turns.load(Ordering::Relaxed));
        }
    }

    /// Has these bytes, which were read last, read once more. Copied: even if there are none, they would
    /// hold the whole buffer that they stand in.
    pub(in crate::http) fn put_back(&mut self, bytes: &[u8]) {
        self.put_back = Bytes::copy_from_slice(bytes);
    }

    /// Notes what has arrived, unless it is not HTTP any more. As long as another protocol is asked for and
    /// not spoken, it may be the next request.
    fn note_arrival(&mut self, bytes: &[u8]) {
        if let Some(scan) = &mut self.scan
            && !bytes.is_empty()
            && !self.progress.switched.load(Ordering::Relaxed)
        {
            scan.feed(bytes);
            self.progress.read(scan.is_in_head(), scan.offence());
        }
    }

    /// Whether its client may send more although all has been said. In HTTP/2 it tells how far it has read
    /// the last answers.
    fn may_be_sent_more(&self) -> bool {
        let is_http2 = self.scan.is_none();
        let is_told = self.progress.farewell.load(Ordering::Relaxed);
        self.progress.linger.load(Ordering::Relaxed) || is_http2 && is_told
    }

    /// Waits until there is something to read; `false` at the end.
    pub(in crate::http) async fn wake(&mut self) -> bool
    where
        IO: AsyncRead + Unpin,
    {
        if !self.put_back.is_empty() {
            return true;
        }
        let mut first = [0; 64];
        match self.read(&mut first).await {
            Ok(length) => {
                self.put_back = Bytes::copy_from_slice(first.get(..length).unwrap_or_default())
            }
            // The client is gone.
            Err(_) => return false,
        }
        !self.put_back.is_empty()
    }

    fn note_write(&self, outcome: &Poll<io::Result<usize>>) {
        let blocked = match outcome {
            Poll::Pending => true,
            Poll::Ready(Ok(_)) => {
                self.progress.writes.fetch_add(1, Ordering::Relaxed);
                false
            }
            Poll::Ready(Err(_)) => false,
        };
        self.progress
            .write_blocked
            .store(blocked, Ordering::Relaxed);
    }
}

impl<IO: AsyncWrite + Unpin> Watched<IO> {
    /// Writes the rest of an interim head that has been begun.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let outcome = Pin::new(&mut self.io).poll_write(cx, &self.interim);
            self.note_write(&outcome);
            match ready!(outcome)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.put_back.is_empty() {
            hand_over(&mut self.put_back, buf);
            return Poll::Ready(Ok(()));
        }
        if self.is_dry() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let Poll::Ready(outcome) = Pin::new(&mut self.io).poll_read(cx, buf) else {
            self.note_dry();
            return Poll::Pending;
        };
        outcome?;
        if let Some(arrived) = buf.filled().get(before..) {
            self.note_arrival(arrived);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        if self.is_unasked()
            && let Some(refusal) = self.in_own_words(buf)
        {
            self.interim = refusal;
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note_write(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        if self.is_unasked()
            && let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
            && let Some(refusal) = self.in_own_words(first)
        {
            self.interim = refusal;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note_write(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when all that it had to write has been taken. If it waits for the answer to a
        // request then, this is the place for what comes before that.
        if let Some(fields) = self.progress.interim.take()
            && self.interim.is_empty()
        {
            self.interim = early_hints::encode(&fields);
        }
        self.note_flush();
        ready!(self.poll_interim(cx))?;
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.progress
            .write_blocked
            .store(outcome.is_pending(), Ordering::Relaxed);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.farewell, Farewell::NotSaid) {
            ready!(this.poll_interim(cx))?;
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.farewell = match this.may_be_sent_more() {
                true => Farewell::Lingering(Linger::new()),
                false => Farewell::Done,
            };
        }
        if let Farewell::Lingering(linger) = &mut this.farewell {
            ready!(linger.poll(&mut this.io, cx));
            this.farewell = Farewell::Done;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{HeaderValue, LINK};
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn an_interim_head_is_written_whole_before_anything_else() {
        let (near, mut far) = tokio::io::duplex(4);
        let progress = Arc::new(Progress::default());
        let mut near = Watched::new(near, Protocol::Http1, Arc::clone(&progress));
        let writing = async {
            near.write_all(b"before ").await.unwrap();
            let link = (LINK, HeaderValue::from_static("a"));
            progress.interim().offer(HeaderMap::from_iter([link]));
            // Begun, and not finished: there is room for four bytes.
            let flush = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_flush(cx)));
            assert!(flush.await.is_pending());
            progress.interim().withdraw();
            near.write_all(b"after").await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut all = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut all), writing);
        read.unwrap();
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n";
        assert_eq!(all, format!("before {interim}after"));
    }

    #[tokio::test]
    async fn a_dry_socket_is_asked_once_a_turn_in_http2_and_each_time_in_http1() {
        for (protocol, at_once) in [(Protocol::Http2, false), (Protocol::Http1, true)] {
            let (near, mut far) = tokio::io::duplex(4);
            let progress = Arc::new(Progress::default());
            let mut near = Watched::new(near, protocol, Arc::clone(&progress));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut is_read = || {
                let mut byte = [0];
                let mut buffer = ReadBuf::new(&mut byte);
                Pin::new(&mut near)
                    .poll_read(&mut cx, &mut buffer)
                    .is_ready()
            };
            progress.turn();
            assert!(!is_read());
            far.write_all(b"ab").await.unwrap();
            assert_eq!(is_read(), at_once, "{protocol:?}");
            progress.turn();
            assert!(is_read(), "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn the_end_lingers_where_the_client_may_send_more() {
        for (protocol, is_told, is_left, lingers) in [
            (Protocol::Http2, true, false, true),
            (Protocol::Http2, false, false, false),
            (Protocol::Http1, true, false, false),
            (Protocol::Http1, false, true, true),
        ] {
            let (near, mut far) = tokio::io::duplex(4);
            let progress = Arc::new(Progress::default());
            let mut near = Watched::new(near, protocol, Arc::clone(&progress));
            if is_told {
                progress.bid_farewell();
            }
            if is_left {
                progress.linger();
            }
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let shutdown = Pin::new(&mut near).poll_shutdown(&mut cx);
            assert_eq!(shutdown.is_pending(), lingers, "{protocol:?} {is_told}");
            if lingers {
                // More than there is room for unread.
                let ending = near.shutdown();
                let client = async move {
                    far.write_all(b"what nobody reads").await.unwrap();
                };
                let (ended, ()) = tokio::join!(ending, client);
                ended.unwrap();
            }
        }
    }
}
