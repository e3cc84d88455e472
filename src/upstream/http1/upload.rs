//! A request on its way to a server: its head, and its body as that comes (RFC 9112 §2, §6, §7).

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice, Write as _};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::Body;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Method, Request};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep};

use super::{ExchangeError, Failure};
use crate::upstream::common_fields::{CommonFields, write_field};

/// Pieces of a body up to this size are copied behind one another, so that one write carries several.
const COPIED: usize = 2 << 10;

/// When so much has been put together, it is written.
const GATHERED: usize = 8 << 10;

/// Room for what most heads need.
const HEAD_ROOM: usize = 1 << 10;

/// How long a server that has begun to answer may leave what follows of the request unread.
const LONGEST_STALL: Duration = Duration::from_secs(60);

/// How the server finds the end of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

/// Why no more of a request is sent.
pub(super) enum Stop {
    /// Its own body broke off.
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The server takes no more; why, is kept.
    Link,
}

/// One request, as far as it has not been sent.
pub(super) struct Upload<B> {
    /// `None` when its body, if there was one, has ended.
    request: Option<Box<Request<B>>>,
    framing: Framing,
    /// Bytes to be written, from `written` on, and `piece` after them.
    gathered: Vec<u8>,
    written: usize,
    piece: Bytes,
    /// How many bytes have been written.
    total: u64,
    broken: Option<io::Error>,
    is_flushed: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    /// Begins with the head of `request` and `common`, in `room`.
    pub(super) fn begin(
        request: Box<Request<B>>,
        common: &CommonFields,
        mut room: Vec<u8>,
    ) -> Self {
        let body = request.body();
        let framing = if body.is_end_stream() {
            Framing::None
        } else {
            match body.size_hint().exact() {
                Some(0) => Framing::None,
                Some(length) => Framing::Length(length),
                None => Framing::Chunked,
            }
        };
        room.clear();
        room.reserve(HEAD_ROOM);
        encode(&request, common, framing, &mut room);
        Self {
            request: Some(request),
            framing,
            gathered: room,
            written: 0,
            piece: Bytes::new(),
            total: 0,
            broken: None,
            is_flushed: false,
        }
    }
}

impl<B> Upload<B> {
    /// Whether nothing of it is left to be sent, or the server takes no more.
    pub(super) fn is_over(&self) -> bool {
        self.is_flushed || self.is_broken()
    }

    /// Whether the server has not taken all of it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// What the failure to read an answer, of which something had come unless it `is_silent`, comes from.
    pub(super) fn blame(self, error: ExchangeError, is_silent: bool) -> Failure<B> {
        let is_closed = matches!(error, ExchangeError::Closed | ExchangeError::Broken(_));
        let may_repeat = |request: &Request<B>| request.method().is_idempotent();
        // What has a body has used it up.
        let request = self.request.filter(|_| self.framing == Framing::None);
        match (self.broken, request) {
            (Some(broken), Some(request)) if self.total == 0 => Failure::Unsent(request, broken),
            (broken, Some(request)) if is_silent && is_closed && may_repeat(&request) => {
                Failure::Closed(request, broken.map_or(error, ExchangeError::from))
            }
            (Some(broken), _) => Failure::Failed(broken.into()),
            (None, _) => Failure::Failed(error),
        }
    }

    /// The room that it has used, for the next.
    pub(super) fn into_room(self) -> Vec<u8> {
        self.gathered
    }
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends as much as there is and the server takes; ready when that was all.
    pub(super) fn poll<W>(&mut self, cx: &mut Context<'_>, link: &mut W) -> Poll<Result<(), Stop>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.is_over() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let waits = self.gather(cx)?.is_pending();
            if !self.is_blocked() {
                if let Err(error) = ready!(Pin::new(&mut *link).poll_flush(cx)) {
                    return Poll::Ready(Err(self.break_off(error)));
                }
                if waits {
                    return Poll::Pending;
                }
                self.is_flushed = true;
                return Poll::Ready(Ok(()));
            }
            match ready!(self.poll_write(cx, link)) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return Poll::Ready(Err(self.break_off(error)));
                }
                Ok(length) => self.wrote(length),
                Err(error) => return Poll::Ready(Err(self.break_off(error))),
            }
        }
    }

    /// Sends the rest, however long that takes, as long as the server takes it.
    pub(super) async fn finish(mut self, mut link: impl AsyncWrite + Unpin) {
        let mut overdue = pin!(sleep(LONGEST_STALL));
        poll_fn(|cx| {
            let before = self.total;
            // Whoever reads the answer sees what comes of it.
            if self.poll(cx, &mut link).is_ready() {
                return Poll::Ready(());
            }
            if self.total != before || !self.is_blocked() {
                overdue.as_mut().reset(Instant::now() + LONGEST_STALL);
            }
            overdue.as_mut().poll(cx)
        })
        .await;
    }

    fn break_off(&mut self, error: io::Error) -> Stop {
        self.broken = Some(error);
        Stop::Link
    }

    /// Puts together what is written next; pending if its body has more to come that is not there.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if self.framing == Framing::None {
            return Poll::Ready(Ok(()));
        }
        while self.piece.is_empty() && self.gathered.len() < GATHERED {
            let Some(request) = &mut self.request else {
                break;
            };
            match ready!(Pin::new(request.body_mut()).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers are no data, and end here.
                    if let Ok(data) = frame.into_data() {
                        self.add(data)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(Stop::Body(error.into()))),
                None => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn add(&mut self, data: Bytes) -> Result<(), Stop> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Length(left) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or_else(mismatch)?;
                // Nobody asks it for more.
                if *left == 0 {
                    self.request = None;
                }
            }
            Framing::Chunked => {
                // Writing to a Vec cannot fail.
                let _ = write!(self.gathered, "{:x}\r\n", data.len());
            }
            Framing::None => return Err(mismatch()),
        }
        if data.len() <= COPIED {
            self.gathered.extend_from_slice(&data);
            self.close_chunk();
        } else {
            self.piece = data;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        match self.framing {
            Framing::Length(1..) => return Err(mismatch()),
            Framing::Length(0) | Framing::None => {}
            Framing::Chunked => self.gathered.extend_from_slice(b"0\r\n\r\n"),
        }
        self.request = None;
        Ok(())
    }
}

impl<B> Upload<B> {
    /// Whether there is something that the server has not taken.
    fn is_blocked(&self) -> bool {
        self.written < self.gathered.len() || !self.piece.is_empty()
    }

    fn close_chunk(&mut self) {
        if self.framing == Framing::Chunked {
            self.gathered.extend_from_slice(b"\r\n");
        }
    }

    fn poll_write<W>(&mut self, cx: &mut Context<'_>, link: &mut W) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin,
    {
        let gathered = self.gathered.get(self.written..).unwrap_or_default();
        let link = Pin::new(link);
        match (gathered.is_empty(), self.piece.is_empty()) {
            (false, true) => link.poll_write(cx, gathered),
            (true, _) => link.poll_write(cx, &self.piece),
            (false, false) => {
                let both = [IoSlice::new(gathered), IoSlice::new(&self.piece)];
                link.poll_write_vectored(cx, &both)
            }
        }
    }

    fn wrote(&mut self, length: usize) {
        self.total += length as u64;
        let gathered = (self.gathered.len() - self.written).min(length);
        self.written += gathered;
        if self.written == self.gathered.len() {
            self.gathered.clear();
            self.written = 0;
        }
        if length > gathered {
            self.piece.advance(length - gathered);
            if self.piece.is_empty() {
                self.close_chunk();
            }
        }
    }
}

/// Of a body that is not as long as it was said to be.
fn mismatch() -> Stop {
    Stop::Body("it is not as long as it was announced to be".into())
}

/// The head of `request`, with `common`. Where its body ends is said here and nowhere else.
fn encode<B>(request: &Request<B>, common: &CommonFields, framing: Framing, head: &mut Vec<u8>) {
    let target = request.uri().path_and_query();
    for part in [
        request.method().as_str(),
        " ",
        target.map_or("/", |target| target.as_str()),
        " HTTP/1.1\r\n",
    ] {
        head.extend_from_slice(part.as_bytes());
    }
    head.extend_from_slice(common.text());
    let mut is_announced = false;
    for (name, value) in request.headers() {
        if name == CONTENT_LENGTH {
            is_announced = true;
            continue;
        }
        if name == TRANSFER_ENCODING {
            continue;
        }
        write_field(head, name, value);
    }
    // RFC 9110 §8.6: methods that foresee a body say of none that it is empty.
    let foresees = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    match framing {
        Framing::None if is_announced || foresees => {
            head.extend_from_slice(b"content-length: 0\r\n");
        }
        Framing::None => {}
        Framing::Length(length) => {
            // Writing to a Vec cannot fail.
            let _ = write!(head, "content-length: {length}\r\n");
        }
        Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body::{Frame, SizeHint};
    use http_body_util::Full;
    use hyper::header::{HeaderName, HeaderValue};
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// A body of these parts, whose length is known before or not.
    struct Parts(VecDeque<Bytes>, Option<u64>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
        }

        fn size_hint(&self) -> SizeHint {
            self.1.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    fn post<B>(body: B) -> Box<Request<B>> {
        let request = Request::post("/a?b").header("x", "y");
        // What a client says of its body is said anew.
        let request = request
            .header("content-length", "9")
            .header("transfer-encoding", "z");
        Box::new(request.body(body).unwrap())
    }

    fn common() -> CommonFields {
        let value = HeaderValue::from_static("w");
        CommonFields::new(vec![(HeaderName::from_static("v"), value)])
    }

    /// What a server reads that takes `room` bytes at a time, and whether the upload came to its end.
    async fn sent(body: Parts, room: usize) -> (String, bool) {
        let (mut near, mut far) = duplex(room);
        let mut upload = Upload::begin(post(body), &common(), Vec::new());
        let sending = async {
            let outcome = poll_fn(|cx| upload.poll(cx, &mut near)).await;
            drop(near);
            outcome.is_ok()
        };
        let mut text = String::new();
        let (read, is_whole) = tokio::join!(far.read_to_string(&mut text), sending);
        read.unwrap();
        (text, is_whole)
    }

    fn parts(lengths: &[usize], length: Option<u64>) -> Parts {
        let parts = lengths
            .iter()
            .map(|length| Bytes::from("z".repeat(*length)));
        Parts(parts.collect(), length)
    }

    #[tokio::test]
    async fn a_body_of_known_length_follows_its_head_however_slowly_it_is_taken() {
        for room in [1, 7, 4096, 1 << 20] {
            for lengths in [&[5][..], &[1, 4], &[3000, 5, 0, 9000]] {
                let total: usize = lengths.iter().sum();
                let (text, is_whole) = sent(parts(lengths, Some(total as u64)), room).await;
                let head = format!(
                    "POST /a?b HTTP/1.1\r\nv: w\r\nx: y\r\ncontent-length: {total}\r\n\r\n"
                );
                assert_eq!(text, head + &"z".repeat(total));
                assert!(is_whole);
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_goes_in_chunks() {
        const HEAD: &str =
            "POST /a?b HTTP/1.1\r\nv: w\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n";
        for room in [1, 7, 4096, 1 << 20] {
            for (lengths, body) in [
                (&[][..], "0\r\n\r\n".to_owned()),
                (
                    &[2, 0, 17],
                    format!("2\r\nzz\r\n11\r\n{}\r\n0\r\n\r\n", "z".repeat(17)),
                ),
                (
                    &[4096, 1],
                    format!("1000\r\n{}\r\n1\r\nz\r\n0\r\n\r\n", "z".repeat(4096)),
                ),
            ] {
                let (text, is_whole) = sent(parts(lengths, None), room).await;
                assert_eq!(text, HEAD.to_owned() + &body, "{room}");
                assert!(is_whole);
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_as_long_as_announced_is_broken_off() {
        for lengths in [&[][..], &[4], &[3, 3], &[6]] {
            let (text, is_whole) = sent(parts(lengths, Some(5)), 1 << 20).await;
            assert!(!is_whole, "{lengths:?}");
            assert!(!text.ends_with("zzzzz"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_reads_no_more_is_given_up_and_one_that_is_slow_is_not() {
        let body = || Full::new(Bytes::from("z".repeat(1 << 10)));
        let begun = Instant::now();
        let (near, _far) = duplex(64);
        Upload::begin(post(body()), &common(), Vec::new())
            .finish(near)
            .await;
        assert_eq!(begun.elapsed(), LONGEST_STALL);
        let (near, mut far) = duplex(64);
        let reading = async {
            let mut buffer = [0; 64];
            while far.read(&mut buffer).await.unwrap() > 0 {
                sleep(LONGEST_STALL / 2).await;
            }
        };
        let begun = Instant::now();
        tokio::join!(
            Upload::begin(post(body()), &common(), Vec::new()).finish(near),
            reading
        );
        assert!(begun.elapsed() > 4 * LONGEST_STALL);
    }
}
