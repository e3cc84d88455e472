//! The relay between two open connections that speak the same framed protocol: bytes both ways with
//! back-pressure, no memory held while nothing moves, and a farewell of our own said only where a
//! frame may begin.
//!
//! What a frame is, and which may not pass, is for a [`Framing`] to know.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long one side has to end once the other has, or to answer a farewell.
const GRACE: Duration = Duration::from_secs(5);

/// Read at once; on the stack, so that a silent connection holds no buffer.
const CHUNK: usize = 8 * 1024;

/// Chunks of one side that are moved in one turn. A task that uses up its turn is told that nothing is ready
/// any more (tokio's cooperative budget): the other side, and whoever would end the relay, would never be
/// heard while one floods.
const CHUNKS_AT_ONCE: u32 = 8;

/// Most bytes that a framing keeps back: the front of a frame's head.
const MAX_HELD: usize = 8;

/// Follows the frames of one direction.
pub trait Framing {
    /// What is wrong with a frame, or with an end.
    type Fault: fmt::Display;

    /// Moves on by `bytes`, which begin with those that the last call did not pass on, and says how
    /// many of them may pass now; the rest, a few at most, are the front of a head.
    ///
    /// # Errors
    /// [`Breach`] at a frame that may not pass.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Breach<Self::Fault>>;

    /// Whether what has passed so far ends with a frame.
    fn at_boundary(&self) -> bool;

    /// How many of the next `bytes` belong to the frame that has been begun; all of them, if it does not
    /// end there.
    fn under_way(&self, bytes: &[u8]) -> usize;

    /// Whether the sender has said that nothing follows.
    fn has_ended(&self) -> bool;

    /// Whether the sender may end where it has.
    ///
    /// # Errors
    /// What is missing.
    fn check_end(&self) -> Result<(), Self::Fault>;

    /// What the receiver is told, if anything, when the relay ends for `cause`.
    fn farewell(&mut self, cause: &Cause<Self::Fault>) -> Vec<u8>;
}

/// A frame that may not pass. The relay ends there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach<F> {
    /// How many bytes before it may still pass; they end with a frame.
    pub pass: usize,
    /// What is wrong with it.
    pub fault: F,
}

/// Why a relay ends before both sides are done.
#[derive(Debug)]
pub enum Cause<F> {
    /// The client sent what may not pass.
    Client(F),
    /// The upstream did, or ended where it may not, or its connection failed.
    Upstream(io::Error),
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides are done, or were told to be.
    Done,
    /// The client sent what may not pass.
    Breach(String),
    /// The client's connection failed, and the upstream was told that it has ended.
    Client(io::Error),
    /// The upstream did, or ended where it may not, or its connection failed.
    Upstream(io::Error),
}

/// What counts as a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Bytes in either direction within this time.
    Either(Duration),
    /// Bytes from the client within this time.
    Client(Duration),
    /// Silence is allowed.
    Never,
}

/// What is said to each side when the gateway ends a relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Farewell {
    /// To the client.
    pub client: Vec<u8>,
    /// To the upstream.
    pub upstream: Vec<u8>,
}

/// Two open connections, the client's and the upstream's.
#[derive(Debug)]
pub struct Relay<C, U, F: Framing> {
    client: C,
    upstream: U,
    upward: Pipe<F>,
    downward: Pipe<F>,
    idle: Idle,
    last_moved: Instant,
    end_by: Option<Instant>,
    closing: bool,
    before_end: fn(&mut C, &Cause<F::Fault>),
    cause: Option<Cause<F::Fault>>,
    /// How the client's connection has failed.
    client_failure: Option<io::Error>,
}

impl<C, U, F> Relay<C, U, F>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    F: Framing,
{
    /// A relay whose client's frames `upward` follows and whose upstream's frames `downward`.
    pub fn new(client: C, upstream: U, upward: F, downward: F, idle: Idle) -> Self {
        Self {
            client,
            upstream,
            upward: Pipe::new(upward),
            downward: Pipe::new(downward),
            idle,
            last_moved: Instant::now(),
            end_by: None,
            closing: false,
            before_end: |_, _| {},
            cause: None,
            client_failure: None,
        }
    }

    /// Has the client's connection told of a cause before it is closed for it, for what only that
    /// knows to say.
    #[must_use]
    pub fn before_end(mut self, tell: fn(&mut C, &Cause<F::Fault>)) -> Self {
        self.before_end = tell;
        self
    }

    /// Gives the upstream these bytes of the client before any other, such as those that were read
    /// together with the opening.
    pub fn begin_with(&mut self, bytes: Vec<u8>) {
        self.upward.given = bytes;
    }

    /// Counts silence in another way, and from now.
    pub fn set_idle(&mut self, idle: Idle) {
        self.idle = idle;
        self.last_moved = Instant::now();
    }

    /// The client's connection, for what only it knows to say at the end.
    pub fn client_mut(&mut self) -> &mut C {
        &mut self.client
    }

    /// What has been seen of the upstream's frames.
    pub fn downward(&self) -> &F {
        &self.downward.framing
    }

    /// Ends the relay: says farewell to both sides as soon as a frame may begin.
    pub fn close(&mut self, farewell: Farewell) {
        self.closing = true;
        self.end_by = Some(Instant::now() + GRACE);
        self.upward.farewell = Some(farewell.upstream);
        self.downward.farewell = Some(farewell.client);
    }

    /// Whether [`Self::close`] has been called.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Carries bytes until both sides have ended. `None` when nothing has moved for too long: close
    /// the relay then and call again. Cancel-safe.
    pub async fn run(&mut self) -> Option<End> {
        loop {
            let deadline = self.deadline();
            let moved = poll_fn(|cx| self.poll(cx));
            let outcome = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, moved).await,
                None => Ok(moved.await),
            };
            match outcome {
                Ok(Step::Ended) => return Some(self.end()),
                Ok(Step::NewDeadline) => {}
                Err(_) if self.end_by.is_some_and(|by| by <= Instant::now()) => {
                    return Some(self.end());
                }
                Err(_) if self.is_silent() => return None,
                Err(_) => {}
            }
        }
    }

    fn end(&mut self) -> End {
        match (self.cause.take(), self.client_failure.take()) {
            (Some(Cause::Client(fault)), _) => End::Breach(fault.to_string()),
            (Some(Cause::Upstream(error)), _) => End::Upstream(error),
            (None, Some(error)) => End::Client(error),
            (None, None) => End::Done,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let silence = match self.idle {
            Idle::Either(limit) | Idle::Client(limit) if !self.closing => {
                Some(self.last_moved + limit)
            }
            Idle::Either(_) | Idle::Client(_) | Idle::Never => None,
        };
        self.end_by.into_iter().chain(silence).min()
    }

    fn is_silent(&mut self) -> bool {
        match self.idle {
            _ if self.closing => false,
            Idle::Client(_) if self.upward.is_held_up() => {
                // It may say much that is not read, since the upstream does not take what was.
                self.last_moved = Instant::now();
                false
            }
            Idle::Either(limit) | Idle::Client(limit) => self.last_moved.elapsed() >= limit,
            Idle::Never => false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let mut up = self.upward.poll(cx, &mut self.client, &mut self.upstream);
        if let Some(trouble) = self.upward.trouble.take() {
            self.client_is_in_trouble(trouble);
            up = self.upward.poll(cx, &mut self.client, &mut self.upstream);
        }
        let mut down = self.downward.poll(cx, &mut self.upstream, &mut self.client);
        if let Some(trouble) = self.downward.trouble.take() {
            self.upstream_is_in_trouble(trouble);
            down = self.downward.poll(cx, &mut self.upstream, &mut self.client);
        }
        if self.upward.framing.has_ended() && self.downward.framing.has_ended() {
            self.upward.ended = true;
            self.downward.ended = true;
            up = self.upward.poll(cx, &mut self.client, &mut self.upstream);
            down = self.downward.poll(cx, &mut self.upstream, &mut self.client);
        }
        self.note_movement();
        self.step(up.is_ready(), down.is_ready())
    }

    fn step(&mut self, up: bool, down: bool) -> Poll<Step> {
        // A client that has answered our farewell sends nothing more.
        let answered = self.upward.framing.has_ended() || (self.closing && up);
        if (self.downward.finished && answered) || (up && down) {
            return Poll::Ready(Step::Ended);
        }
        let is_half = self.upward.finished || self.downward.finished;
        if is_half && self.end_by.is_none() {
            self.end_by = Some(Instant::now() + GRACE);
            return Poll::Ready(Step::NewDeadline);
        }
        Poll::Pending
    }

    fn client_is_in_trouble(&mut self, trouble: Trouble<F::Fault>) {
        match trouble {
            Trouble::Fault(fault) => self.break_off(Cause::Client(fault)),
            // It is gone: an end like any other.
            Trouble::Failure(error) => self.client_failure = Some(error),
        }
    }

    fn upstream_is_in_trouble(&mut self, trouble: Trouble<F::Fault>) {
        let client_has_ended = self.upward.ended || self.upward.framing.has_ended();
        if client_has_ended && self.downward.ended {
            // Nobody misses anything.
            return;
        }
        self.break_off(Cause::Upstream(match trouble {
            Trouble::Fault(fault) => io::Error::other(fault.to_string()),
            Trouble::Failure(error) => error,
        }));
    }

    fn note_movement(&mut self) {
        let up = std::mem::take(&mut self.upward.moved);
        let down = std::mem::take(&mut self.downward.moved);
        if up || (down && !matches!(self.idle, Idle::Client(_))) {
            self.last_moved = Instant::now();
        }
        if (up || down) && self.end_by.is_some() && !self.closing {
            self.end_by = Some(Instant::now() + GRACE);
        }
    }

    /// One side is at fault: the client is told so, and the upstream hears no more of it.
    fn break_off(&mut self, cause: Cause<F::Fault>) {
        if self.closing {
            return;
        }
        (self.before_end)(&mut self.client, &cause);
        let client = self.downward.framing.farewell(&cause);
        self.close(Farewell {
            client,
            upstream: Vec::new(),
        });
        self.cause = Some(cause);
    }
}

/// Why a poll came to something.
enum Step {
    /// Both sides have ended.
    Ended,
    /// There is a new time to wake up at.
    NewDeadline,
}

/// Why a pipe has stopped, for the relay to see to before it goes on.
#[derive(Debug)]
enum Trouble<F> {
    /// The sender has said, or left unsaid, what it may not.
    Fault(F),
    /// The sender's connection has failed.
    Failure(io::Error),
}

/// One direction.
#[derive(Debug)]
struct Pipe<F: Framing> {
    framing: F,
    /// Bytes to be taken before any are read.
    given: Vec<u8>,
    /// The front of a head, kept back by the framing.
    held: Vec<u8>,
    /// Passed but not yet written; empty unless the receiver is slow.
    pending: Vec<u8>,
    written: usize,
    unflushed: bool,
    moved: bool,
    farewell: Option<Vec<u8>>,
    said_farewell: bool,
    trouble: Option<Trouble<F::Fault>>,
    ended: bool,
    finished: bool,
}

impl<F: Framing> Pipe<F> {
    fn new(framing: F) -> Self {
        Self {
            framing,
            given: Vec::new(),
            held: Vec::new(),
            pending: Vec::new(),
            written: 0,
            unflushed: false,
            moved: false,
            farewell: None,
            said_farewell: false,
            trouble: None,
            ended: false,
            finished: false,
        }
    }

    /// Whether the receiver has not taken all that it was given.
    fn is_held_up(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Moves what can be moved; ready when `from` has ended and `to` has been told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<()> {
        loop {
            match self.poll_move(cx, from, to) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => self.give_up_on_receiver(),
            }
        }
    }

    /// Nothing reaches the receiver any more. What still comes is read and dropped; that the connection
    /// has failed is seen by who reads from it, behind all that it has said before.
    fn give_up_on_receiver(&mut self) {
        self.pending = Vec::new();
        self.written = 0;
        self.farewell = None;
        self.said_farewell = true;
        self.finished = true;
        self.unflushed = false;
    }

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        let mut left = CHUNKS_AT_ONCE;
        loop {
            ready!(self.poll_write_pending(cx, to))?;
            if !self.finished && self.say_farewell() {
                continue;
            }
            if self.said_farewell || self.ended {
                // What still comes is read and dropped, so that the farewell arrives.
                ready!(self.poll_finish(cx, to))?;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match self.poll_pass(cx, from, to)? {
                Poll::Ready(()) if self.trouble.is_some() => return Poll::Pending,
                Poll::Ready(()) if left > 1 => left -= 1,
                Poll::Ready(()) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => {
                    ready!(self.poll_flush(cx, to))?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Tells the receiver, once, that nothing follows.
    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.finished = true;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, passing on at once what the receiver takes. An error is the receiver's.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if !self.given.is_empty() {
            let given = std::mem::take(&mut self.given);
            return Poll::Ready(self.pass(cx, &given, to));
        }
        // Not zeroed first: that would cost more than moving a small message does.
        let mut chunk = [const { MaybeUninit::uninit() }; CHUNK + MAX_HELD];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        buffer.put_slice(&self.held);
        let before = buffer.filled().len();
        match ready!(Pin::new(from).poll_read(cx, &mut buffer)) {
            Ok(()) if buffer.filled().len() > before => {
                self.held.clear();
                Poll::Ready(self.pass(cx, buffer.filled(), to))
            }
            outcome => {
                self.end(outcome);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// The sender has ended, by itself or by a failure of its connection.
    fn end(&mut self, outcome: io::Result<()>) {
        self.ended = true;
        let outcome = outcome.map_err(Trouble::Failure);
        let outcome = outcome.and_then(|()| self.framing.check_end().map_err(Trouble::Fault));
        self.trouble = outcome.err();
    }

    /// Has the farewell, if there is one, written next where a frame may begin; whether that is so.
    fn say_farewell(&mut self) -> bool {
        if !self.framing.at_boundary() {
            return false;
        }
        let Some(farewell) = self.farewell.take() else {
            return false;
        };
        self.pending.extend_from_slice(&farewell);
        self.said_farewell = true;
        true
    }

    /// Passes `bytes` on, or where a farewell waits, those of the frame that it waits for.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let passing = match (self.said_farewell, &self.farewell) {
            (true, _) => 0,
            (false, Some(_)) => self.framing.under_way(bytes),
            (false, None) => bytes.len(),
        };
        let (bytes, behind) = bytes.split_at_checked(passing).unwrap_or((bytes, &[]));
        if !bytes.is_empty() {
            self.pass_allowed(cx, bytes, to)?;
        }
        if !behind.is_empty() {
            self.say_farewell();
            // Nothing may follow it. The framing goes on, to see an answer.
            let _ = self.framing.advance(behind);
        }
        Ok(())
    }

    /// Passes on as much of `bytes` as the framing allows; what the receiver does not take is kept.
    fn pass_allowed(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        self.moved = true;
        let passing = match self.framing.advance(bytes) {
            Ok(passing) => {
                self.held
                    .extend_from_slice(bytes.get(passing..).unwrap_or_default());
                passing
            }
            Err(Breach { pass, fault }) => {
                self.trouble = Some(Trouble::Fault(fault));
                pass
            }
        };
        let bytes = bytes.get(..passing).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        let written = match Pin::new(to).poll_write(cx, bytes)? {
            Poll::Ready(written) => written,
            Poll::Pending => 0,
        };
        self.unflushed = true;
        self.pending
            .extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(())
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, join, repeat, sink};

    use super::*;

    /// Frames of a length byte and that many bytes; length 255 may not pass, length 0 is the last.
    #[derive(Debug, Default)]
    struct Counted {
        left: usize,
        ended: bool,
    }

    impl Framing for Counted {
        type Fault = &'static str;

        fn advance(&mut self, bytes: &[u8]) -> Result<usize, Breach<&'static str>> {
            for (at, byte) in bytes.iter().enumerate() {
                match (self.left, byte) {
                    (0, 255) => {
                        return Err(Breach {
                            pass: at,
                            fault: "255",
                        });
                    }
                    (0, length) => {
                        self.left = usize::from(*length);
                        self.ended = *length == 0;
                    }
                    (_, _) => self.left -= 1,
                }
            }
            Ok(bytes.len())
        }

        fn at_boundary(&self) -> bool {
            self.left == 0
        }

        fn under_way(&self, bytes: &[u8]) -> usize {
            self.left.min(bytes.len())
        }

        fn has_ended(&self) -> bool {
            self.ended
        }

        fn check_end(&self) -> Result<(), &'static str> {
            if self.left == 0 { Ok(()) } else { Err("torn") }
        }

        fn farewell(&mut self, cause: &Cause<&'static str>) -> Vec<u8> {
            match cause {
                Cause::Client(_) => vec![1, b'!'],
                Cause::Upstream(_) => vec![1, b'?'],
            }
        }
    }

    type Tested = Relay<DuplexStream, DuplexStream, Counted>;

    /// A relay with the far ends of its two connections.
    fn relay(idle: Idle) -> (Tested, DuplexStream, DuplexStream) {
        let (client, near_client) = duplex(64);
        let (upstream, near_upstream) = duplex(64);
        let (up, down) = (Counted::default(), Counted::default());
        (
            Relay::new(near_client, near_upstream, up, down, idle),
            client,
            upstream,
        )
    }

    fn farewell() -> Farewell {
        Farewell {
            client: vec![1, b'c'],
            upstream: vec![1, b'u'],
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_is_passed_on() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        relay.begin_with(vec![1, 9]);
        let running = tokio::spawn(async move { relay.run().await });
        let frames: Vec<u8> = [&[200][..], &[7; 200]].concat().repeat(500);
        let (sent, received) = tokio::join!(client.write_all(&frames), async {
            let mut got = vec![0; frames.len() + 2];
            upstream.read_exact(&mut got).await.map(|_| got)
        });
        sent.unwrap();
        assert_eq!(received.unwrap(), [&[1, 9][..], &frames].concat());
        upstream.write_all(&[1, 2]).await.unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [1, 2]);
        drop(client);
        assert_eq!(upstream.read(&mut [0; 1]).await.unwrap(), 0);
        drop(upstream);
        assert!(matches!(running.await.unwrap(), Some(End::Done)));
    }

    #[tokio::test]
    async fn a_farewell_waits_for_the_end_of_the_frame() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        upstream.write_all(&[4, 1, 2]).await.unwrap();
        let mut got = [0; 3];
        tokio::select! {
            _ = relay.run() => panic!("the relay ended"),
            read = client.read_exact(&mut got) => drop(read.unwrap()),
        }
        relay.close(farewell());
        let running = tokio::spawn(async move { relay.run().await });
        upstream.write_all(&[3, 4]).await.unwrap();
        let mut rest = [0; 4];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest, [3, 4, 1, b'c']);
        let mut to_upstream = [0; 2];
        upstream.read_exact(&mut to_upstream).await.unwrap();
        assert_eq!(to_upstream, [1, b'u']);
        client.write_all(&[0]).await.unwrap();
        assert!(matches!(running.await.unwrap(), Some(End::Done)));
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn nothing_passes_behind_the_frame_that_a_farewell_waits_for() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        for side in [&mut client, &mut upstream] {
            side.write_all(&[4, 1, 2]).await.unwrap();
        }
        let mut got = [[0; 3]; 2];
        let [up, down] = &mut got;
        let begun = async {
            upstream.read_exact(up).await.unwrap();
            client.read_exact(down).await.unwrap();
        };
        tokio::select! {
            _ = relay.run() => panic!("the relay ended"),
            () = begun => {}
        }
        relay.close(farewell());
        let running = tokio::spawn(async move { relay.run().await });
        // The end of a frame and the beginning of another, each time.
        for side in [&mut client, &mut upstream] {
            side.write_all(&[3, 4, 4, 5, 6]).await.unwrap();
            side.write_all(&[7, 8, 0]).await.unwrap();
        }
        for (side, told) in [(&mut client, b'c'), (&mut upstream, b'u')] {
            let mut rest = Vec::new();
            side.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [3, 4, 1, told]);
        }
        assert!(matches!(running.await.unwrap(), Some(End::Done)));
    }

    #[tokio::test]
    async fn a_frame_that_may_not_pass_ends_the_relay_and_what_stood_before_it_passes() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        let running = tokio::spawn(async move { relay.run().await });
        client.write_all(&[1, 5, 255, 1, 1]).await.unwrap();
        let mut told = [0; 2];
        client.read_exact(&mut told).await.unwrap();
        assert_eq!(told, [1, b'!']);
        drop(client);
        let mut passed = Vec::new();
        upstream.read_to_end(&mut passed).await.unwrap();
        assert_eq!(passed, [1, 5]);
        drop(upstream);
        assert!(matches!(running.await.unwrap(), Some(End::Breach(reason)) if reason == "255"));
    }

    #[tokio::test]
    async fn a_side_that_floods_holds_up_neither_the_other_nor_who_would_end_it() {
        let (client, mut to_client) = duplex(64);
        let (upstream, mut of_upstream) = duplex(64);
        // Frames of a byte without end, and a server that takes them all.
        let client = join(repeat(1), client);
        let upstream = join(upstream, sink());
        let framing = Counted::default;
        let mut relay = Relay::new(client, upstream, framing(), framing(), Idle::Never);
        let passed = async {
            of_upstream.write_all(&[2, 5, 6]).await.unwrap();
            let mut got = [0; 3];
            to_client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [2, 5, 6]);
        };
        let passed = tokio::time::timeout(Duration::from_secs(10), passed);
        tokio::select! {
            biased;
            _ = relay.run() => panic!("the relay ended"),
            passed = passed => passed.expect("nothing else is heard"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_reported_and_traffic_is_not_silence() {
        let minute = Duration::from_secs(60);
        let (mut relay, mut client, mut upstream) = relay(Idle::Either(minute));
        let started = Instant::now();
        let traffic = async {
            for _ in 0..3 {
                tokio::time::sleep(minute - Duration::from_secs(10)).await;
                client.write_all(&[0]).await.unwrap();
                upstream.read_exact(&mut [0]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            end = relay.run() => assert!(end.is_none()),
            () = traffic => {}
        }
        assert!(started.elapsed() >= Duration::from_secs(210));
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_outlives_the_other_is_given_a_grace() {
        let (mut relay, client, mut upstream) = relay(Idle::Never);
        let running = tokio::spawn(async move { relay.run().await });
        drop(upstream.shutdown().await);
        assert!(matches!(running.await.unwrap(), Some(End::Done)));
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_is_still_moving_outlives_the_other_for_as_long() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        let running = tokio::spawn(async move { relay.run().await });
        client.shutdown().await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
            upstream.write_all(&[1, 5]).await.unwrap();
            client.read_exact(&mut [0; 2]).await.unwrap();
        }
        let stopped = Instant::now();
        assert!(matches!(running.await.unwrap(), Some(End::Done)));
        assert_eq!(stopped.elapsed().as_secs(), GRACE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_upstream_takes_nothing_is_not_silent() {
        let minute = Duration::from_secs(60);
        let (mut relay, mut client, mut upstream) = relay(Idle::Client(minute));
        let frames = [1, 5].repeat(500);
        let slow = async {
            let sending = client.write_all(&frames);
            let taking = async {
                tokio::time::sleep(10 * minute).await;
                let mut got = vec![0; frames.len()];
                upstream.read_exact(&mut got).await.map(|_| got)
            };
            let (sent, got) = tokio::join!(sending, taking);
            sent.unwrap();
            assert_eq!(got.unwrap(), frames);
            Instant::now()
        };
        tokio::pin!(slow);
        let taken = tokio::select! {
            _ = relay.run() => panic!("the relay ended"),
            taken = &mut slow => taken,
        };
        assert!(relay.run().await.is_none(), "silent from here on");
        assert!(taken.elapsed() >= minute && taken.elapsed() < 2 * minute);
    }

    #[tokio::test]
    async fn an_upstream_at_fault_is_told_from_a_client_that_is() {
        // A frame that may not pass, and an end within one.
        for (bytes, passed) in [(&[1, 5, 255][..], &[1, 5, 1, b'?'][..]), (&[2, 5], &[2, 5])] {
            let (mut relay, mut client, mut upstream) = relay(Idle::Never);
            let running = tokio::spawn(async move { relay.run().await });
            upstream.write_all(bytes).await.unwrap();
            upstream.shutdown().await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, passed);
            drop(client);
            assert!(matches!(running.await.unwrap(), Some(End::Upstream(_))));
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_any_more_is_heard_to_its_end() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        let last = [1, 5].repeat(20);
        client.write_all(&last).await.unwrap();
        drop(client);
        upstream.write_all(&[1, 6]).await.unwrap();
        let running = tokio::spawn(async move { relay.run().await });
        let mut got = Vec::new();
        upstream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, last);
        drop(upstream);
        assert!(matches!(running.await.unwrap(), Some(End::Done)));
    }

    #[tokio::test]
    async fn two_sides_that_have_said_their_last_are_not_waited_for() {
        let (mut relay, mut client, mut upstream) = relay(Idle::Never);
        client.write_all(&[0]).await.unwrap();
        upstream.write_all(&[0]).await.unwrap();
        assert!(matches!(relay.run().await, Some(End::Done)));
        assert_eq!(client.read(&mut [1]).await.unwrap(), 1);
        assert_eq!(client.read(&mut [1]).await.unwrap(), 0);
        assert_eq!(upstream.read(&mut [1]).await.unwrap(), 1);
        assert_eq!(upstream.read(&mut [1]).await.unwrap(), 0);
    }
}
