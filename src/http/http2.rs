//! HTTP/2 (RFC 9113) with clients: each request in a task of its own, and the streams of tunnels
//! (RFC 8441). The protocol is h2's; here is what a request makes of its stream.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, DATE, EXPECT, HeaderValue};
use hyper::http::response;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

use super::body::{AnswerBody, ClientBody};
use super::early_hints::Interim;
use super::handler::{self, Received};
use super::request_scan::Offence;
use super::tunnel::Upgrade;
use super::watch::Progress;
use super::{Session, date};
use crate::socket::hand_over;

/// Most bytes of bodies that a client may send before they are read, of one request and of all.
const WINDOW: u32 = 1 << 20;

/// Most bytes of answers that wait in each stream for the client to take them.
const MOST_WAITING: usize = 400 << 10;

/// How many times as large as it may be a header list is read all the same, for a refusal that says as much as
/// every other. Of a larger one, h2 says nothing but the status.
const READ_TO_REFUSE: usize = 4;

/// Streams that a client may have the gateway reset for its own errors, before it is taken for an
/// attacker (CVE-2025-8671).
const MOST_RESET: usize = 1024;

/// One client's connection. Ends when that does.
pub(super) struct Serving<IO> {
    state: State<IO>,
    session: Arc<Session>,
    is_finishing: bool,
}

enum State<IO> {
    Opening(Handshake<IO, Bytes>),
    Open(Connection<IO, Bytes>),
}

impl<IO> Serving<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(io: IO, session: Arc<Session>) -> Self {
        let limits = session.edge.rules.limits;
        let list = limits.header_bytes.saturating_mul(READ_TO_REFUSE);
        let list = u32::try_from(list).unwrap_or(u32::MAX);
        let opening = Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buffer_size(MOST_WAITING)
            .max_local_error_reset_streams(Some(MOST_RESET))
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(list)
            // RFC 8441: WebSockets in streams of this connection.
            .enable_connect_protocol()
            .handshake(io);
        Self {
            state: State::Opening(opening),
            session,
            is_finishing: false,
        }
    }

    /// Takes no request any more but those that are on their way (RFC 9113 §6.8).
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }
}

impl<IO> Future for Serving<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.state {
                State::Opening(opening) => {
                    let mut connection = ready!(Pin::new(opening).poll(cx))?;
                    if self.is_finishing {
                        connection.graceful_shutdown();
                    }
                    self.state = State::Open(connection);
                }
                State::Open(connection) => match ready!(connection.poll_accept(cx)).transpose()? {
                    Some((request, respond)) => {
                        let (request, aside) = received(request);
                        let session = Arc::clone(&self.session);
                        let exchange = exchange(session, request, respond, aside);
                        // On the heap first: a task moves what it is made of several times.
                        tokio::spawn(Box::pin(exchange));
                    }
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

/// One request and its answer. If the client gives its stream up, so is whatever is done about it.
async fn exchange(
    session: Arc<Session>,
    mut request: Box<Received<'_>>,
    mut respond: SendResponse<Bytes>,
    aside: Aside,
) {
    let Aside { tunnel, leave } = aside;
    let interim = Interim::default();
    request.interim = Some(&interim);
    let answer = pin!(handler::answer(&session, request));
    let Some(answer) = unless_reset(answer, &mut respond, &interim, leave).await else {
        return;
    };
    let (head, mut body) = answer.into_parts();
    let sent = match begin(head, &body, &mut respond, tunnel) {
        Ok(Some(mut stream)) => send_body(&mut body, &mut stream, &session.progress).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a stream ended early");
    }
}

/// What waits for the stream of a tunnel.
type Waiting = (RecvStream, oneshot::Sender<Stream>);

/// What a request's stream is asked for beside its answer.
struct Aside {
    tunnel: Option<Waiting>,
    leave: Option<Leave>,
}

/// Told when the body is wanted that a client sends once it may (RFC 9110 §10.1.1).
type Leave = Arc<Notify>;

/// The request as it is handled. The stream of a CONNECT is no body, but what a tunnel would be made of.
fn received<'a>(request: Request<RecvStream>) -> (Box<Received<'a>>, Aside) {
    let (head, stream) = request.into_parts();
    let mut received = Box::new(Received {
        body: ClientBody::None,
        upgrade: None,
        interim: None,
        offence: None,
        head,
    });
    let mut aside = Aside {
        tunnel: None,
        leave: None,
    };
    let fields = &received.head.headers;
    if received.head.method == Method::CONNECT {
        let (sender, receiver) = oneshot::channel();
        // What it has announced as a body would be frames to one reader and none to another.
        let length = fields.get(CONTENT_LENGTH);
        let has_body = length.is_some_and(|length| length != "0");
        received.upgrade = (!has_body).then_some(Upgrade::Http2(receiver));
        aside.tunnel = Some((stream, sender));
    } else if !stream.is_end_stream() {
        let length = fields.get(CONTENT_LENGTH).map(length_of);
        received.offence = matches!(length, Some(None)).then_some(Offence::Length);
        aside.leave = waits_for_leave(fields).then(Leave::default);
        received.body = ClientBody::Http2(Incoming {
            stream,
            left: length.flatten(),
            leave: aside.leave.clone(),
        });
    }
    (received, aside)
}

/// What a body is said to be long. h2 counts that it is, where it understands what was said.
fn length_of(said: &HeaderValue) -> Option<u64> {
    said.to_str().ok()?.parse().ok()
}

fn waits_for_leave(fields: &HeaderMap) -> bool {
    let expected = fields.get(EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The answer, before which `interim` is sent, and leave to send the body when that is wanted; `None` if the
/// client has given up waiting.
async fn unless_reset(
    mut answer: Pin<&mut impl Future<Output = Response<AnswerBody>>>,
    respond: &mut SendResponse<Bytes>,
    interim: &Interim,
    leave: Option<Leave>,
) -> Option<Response<AnswerBody>> {
    // Whoever reads the body may do so in another task.
    let mut wanted = leave.as_ref().map(|leave| Box::pin(leave.notified()));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if wanted
            .as_mut()
            .is_some_and(|wanted| wanted.as_mut().poll(cx).is_ready())
        {
            wanted = None;
            inform(respond, StatusCode::CONTINUE, HeaderMap::new());
        }
        if let Some(fields) = interim.take() {
            inform(respond, StatusCode::EARLY_HINTS, fields);
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await
}

/// Sends what comes before an answer.
fn inform(respond: &mut SendResponse<Bytes>, status: StatusCode, fields: HeaderMap) {
    let mut word = Response::new(());
    *word.status_mut() = status;
    *word.headers_mut() = fields;
    // What it goes before follows.
    let _ = respond.send_informational(word);
}

/// Sends the head of an answer; where its body goes, if it has one.
fn begin(
    mut head: response::Parts,
    body: &AnswerBody,
    respond: &mut SendResponse<Bytes>,
    tunnel: Option<Waiting>,
) -> Result<Option<SendStream<Bytes>>, h2::Error> {
    let fields = &mut head.headers;
    fields.entry(DATE).or_insert_with(date::now);
    if let Some((recv, waiting)) = tunnel
        && head.status.is_success()
    {
        // RFC 9110 §8.6.
        fields.remove(CONTENT_LENGTH);
        let send = respond.send_response(Response::from_parts(head, ()), false)?;
        // Dropped, it resets the stream.
        let _ = waiting.send(Stream::new(send, recv));
        return Ok(None);
    }
    let is_empty = body.is_end_stream();
    if !is_empty && let Some(length) = body.size_hint().exact() {
        let said = fields.entry(CONTENT_LENGTH);
        said.or_insert_with(|| length.into());
    }
    match respond.send_response(Response::from_parts(head, ()), is_empty) {
        Ok(stream) => Ok((!is_empty).then_some(stream)),
        Err(error) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Err(error)
        }
    }
}

/// A part of a body. Small, since there is room for one in each task.
enum Part {
    /// `true` if it is the last.
    Data(Bytes, bool),
    Trailers(Box<HeaderMap>),
    /// There is no other.
    End,
    /// The rest will not come.
    Failed,
}

/// Sends a body as its client takes it.
async fn send_body(
    body: &mut AnswerBody,
    stream: &mut SendStream<Bytes>,
    progress: &Progress,
) -> Result<(), h2::Error> {
    loop {
        match next(body, stream).await? {
            Part::Data(data, true) if data.is_empty() => return stream.send_data(data, true),
            Part::Data(mut data, is_last) => {
                while !data.is_empty() {
                    let room = room(stream, data.len()).await?;
                    // However little it is, the client reads.
                    progress.asked();
                    let piece = data.split_to(room.min(data.len()));
                    stream.send_data(piece, is_last && data.is_empty())?;
                }
                if is_last {
                    return Ok(());
                }
            }
            Part::Trailers(trailers) => return stream.send_trailers(*trailers),
            Part::End => return stream.send_data(Bytes::new(), true),
            Part::Failed => {
                let_others_go_first().await;
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
}

/// Lets the connection write what it has: resetting a stream, h2 drops what waits of it, and a client would not
/// hear of the head of an answer that its request has had. The connection itself gives way once, see
/// [`mod@super::drive`].
async fn let_others_go_first() {
    for _ in 0..3 {
        yield_now().await;
    }
}

/// The next part of `body`, unless the client says that it wants none.
async fn next(body: &mut AnswerBody, stream: &mut SendStream<Bytes>) -> Result<Part, h2::Error> {
    poll_fn(|cx| {
        if let Poll::Ready(reason) = stream.poll_reset(cx)? {
            return Poll::Ready(Err(reason.into()));
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        Poll::Ready(Ok(match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Part::Data(data, body.is_end_stream()),
            Some(Ok(Err(frame))) => frame
                .into_trailers()
                .map_or(Part::End, |trailers| Part::Trailers(Box::new(trailers))),
            Some(Err(_)) => Part::Failed,
            None => Part::End,
        }))
    })
    .await
}

/// Waits until the client takes more, `most` bytes or fewer, and how many. They are sent at once: what one
/// stream holds of the connection's window, others cannot have.
async fn room(stream: &mut SendStream<Bytes>, most: usize) -> Result<usize, h2::Error> {
    stream.reserve_capacity(most);
    poll_fn(|cx| {
        if let Poll::Ready(reason) = stream.poll_reset(cx)? {
            return Poll::Ready(Err(reason.into()));
        }
        poll_room(stream, cx)
    })
    .await
}

fn poll_room(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    loop {
        match stream.capacity() {
            // It says once that there is some.
            0 => match ready!(stream.poll_capacity(cx)).transpose()? {
                Some(_) => {}
                None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
            },
            room => return Poll::Ready(Ok(room)),
        }
    }
}

/// A request's body as it comes.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    /// How much is still to come, if that has been said.
    left: Option<u64>,
    leave: Option<Leave>,
}

impl Incoming {
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if let Some(leave) = self.leave.take() {
            leave.notify_one();
        }
        let data = ready!(self.stream.poll_data(cx)).transpose()?;
        if let Some(data) = &data {
            let length = data.len();
            // If it fails, the stream has ended.
            let _ = self.stream.flow_control().release_capacity(length);
            self.left = self.left.map(|left| left.saturating_sub(length as u64));
        }
        Poll::Ready(data.map(Ok))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A stream that has become a tunnel (RFC 8441 §5).
#[derive(Debug)]
pub(super) struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// What has come and has not been read.
    unread: Bytes,
}

impl Stream {
    fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self {
            send,
            recv,
            unread: Bytes::new(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) if is_farewell(&error) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = hand_over(&mut self.unread, buf);
        // If it fails, the stream has ended.
        let _ = self.recv.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        let room = ready!(poll_room(&mut self.send, cx)).map_err(broken)?;
        let data = buf.get(..room.min(buf.len())).unwrap_or_default();
        let sent = self.send.send_data(Bytes::copy_from_slice(data), false);
        Poll::Ready(sent.map(|()| data.len()).map_err(broken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection does, in its own time.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.send.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(broken))
    }
}

/// Whether a client has let go of its stream, with no complaint.
fn is_farewell(error: &h2::Error) -> bool {
    matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL))
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::Other.into());
    }
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
