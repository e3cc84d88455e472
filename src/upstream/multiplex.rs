//! HTTP/2 (RFC 9113) connections of one worker to the servers of one upstream. Requests share them,
//! as many as a server lets each carry; a new one is opened when all are full. One that its server
//! is leaving (GOAWAY), or that has fallen silent, takes no more.
//!
//! What a server says it has not begun with is handed back to be sent again: a stream above the
//! last one of a GOAWAY (§6.8), one refused (§8.7), and whatever never left.

use std::error::Error as _;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use h2::Reason;
use http_body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Request, Uri, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::connect::{Link, Spoken};
use super::repeatable::{self, Repeatable};
use super::response_body::Content;
use super::server::Server;
use super::{Attempt, Servers};

/// Most requests at once on a connection, whatever more its server would take: their windows
/// together are the connection's, so that answers which nobody reads hold up no others.
const MOST_STREAMS: u32 = 100;

/// How much of an answer a server may send before any of it has been passed on; RFC 9113's own
/// default.
const STREAM_WINDOW: u32 = 65_535;

/// Most bytes of an answer's header list.
const MOST_HEADER_BYTES: u32 = 64 << 10;

/// A connection that is silent while requests wait is asked for a sign of life so often. Servers of
/// gRPC end connections that ask more often than every five minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(330);

/// How long it may take to give one.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a request that servers have not begun with is sent again.
const MOST_REPEATS: usize = 2;

/// Stands for how many streams a server allows as long as it has not said so: a number that none can say.
const UNSAID: usize = usize::MAX - 1;

/// The connections to all servers.
pub(super) struct Multiplex<B> {
    /// One for each server that has been connected to, in no order: there are few.
    shelves: Mutex<Vec<Shelf<B>>>,
}

struct Shelf<B> {
    server: Arc<Server>,
    bundle: Arc<Bundle<B>>,
}

/// The connections to one server.
struct Bundle<B> {
    lines: Mutex<Vec<Line<B>>>,
    /// One is opened at a time; what came of the last attempt if it failed, and when.
    opening: tokio::sync::Mutex<Option<(Instant, io::Error)>>,
}

/// One connection.
struct Line<B> {
    sender: SendRequest<Repeatable<B>>,
    /// How many streams at once its server allows; [`UNSAID`] until that has come.
    allowed: Box<dyn Fn() -> usize + Send + Sync>,
    traffic: Arc<Traffic>,
}

/// hyper's side of a connection; `None` when it has ended, which those who have its sender see by that.
type Connection<B> = Mutex<Option<http2::Connection<TokioIo<Link>, Repeatable<B>, TokioExecutor>>>;

/// A new connection, and what its first request needs of it.
type Opened<B> = (Line<B>, (SendRequest<Repeatable<B>>, Place));

/// What is on a connection.
#[derive(Debug)]
struct Traffic {
    active: AtomicU32,
    idle_since: Mutex<Instant>,
    /// When the last answer began, or anything else was said about a request.
    heard: Mutex<Instant>,
    /// It takes no more requests.
    is_left: AtomicBool,
}

/// A request's place on a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    traffic: Arc<Traffic>,
    since: Instant,
    /// It stands behind others, and their server had not said yet how many it allows.
    is_early: bool,
}

impl<B> fmt::Debug for Multiplex<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Multiplex")
    }
}

impl<B> Multiplex<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new() -> Self {
        Self {
            shelves: Mutex::new(Vec::new()),
        }
    }

    /// Sends `request`, which is as HTTP/1.1 would have it, to `server`, one of `servers`, and over a connection
    /// of its own if it has to be `alone`.
    pub(super) async fn send(
        &self,
        mut request: Box<Request<B>>,
        servers: &Servers,
        server: &Arc<Server>,
        alone: bool,
    ) -> Attempt<B> {
        if let Err(error) = translate(&mut request, servers.scheme()) {
            return Attempt::Unsent(request, error);
        }
        let bundle = self.bundle(server);
        let mut attempts = 0;
        loop {
            let found = if alone {
                Bundle::open(servers, server).await.map(|(_, found)| found)
            } else {
                bundle.place(servers, server).await
            };
            let (mut sender, place) = match found {
                Ok(found) => found,
                Err(error) => return Attempt::Unsent(request, error),
            };
            let mut copy = request.map(Repeatable::once);
            let original = repeatable::keep(&mut copy);
            let failure = match sender.try_send_request(copy).await {
                Ok(response) => {
                    place.traffic.note();
                    let (mut head, body) = response.into_parts();
                    head.version = Version::HTTP_11;
                    return Attempt::Answered(head, Content::Http2(body, Some(place)));
                }
                Err(failure) => failure.into_error(),
            };
            // One of too many that could not know of it has not been turned down yet.
            if !(place.is_early && is_refused(&failure)) {
                attempts += 1;
            }
            let may_repeat = attempts <= MOST_REPEATS && is_untouched(&failure);
            if let Some(cause) = cause(&failure).filter(|cause| cause.is_remote()) {
                place.traffic.note();
                if cause.is_go_away() {
                    place.traffic.leave();
                }
            }
            match original.take_back().filter(|_| may_repeat) {
                Some(untouched) => request = Box::new(untouched),
                None => return Attempt::Failed(failure.into()),
            }
        }
    }

    fn bundle(&self, server: &Arc<Server>) -> Arc<Bundle<B>> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shelves
            .iter()
            .find(|shelf| Arc::ptr_eq(&shelf.server, server));
        if let Some(shelf) = known {
            return Arc::clone(&shelf.bundle);
        }
        // Those of servers that are not picked any more would otherwise stay for ever.
        shelves.retain(|shelf| Arc::strong_count(&shelf.bundle) > 1 || !shelf.bundle.is_empty());
        let bundle = Arc::new(Bundle::new());
        shelves.push(Shelf {
            server: Arc::clone(server),
            bundle: Arc::clone(&bundle),
        });
        bundle
    }
}

impl<B> Bundle<B> {
    fn new() -> Self {
        Self {
            lines: Mutex::new(Vec::new()),
            opening: tokio::sync::Mutex::default(),
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line<B>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no connection is open.
    fn is_empty(&self) -> bool {
        !self.lines().iter().any(Line::is_open)
    }

    /// A place on a connection that has room: the first of them, so that the last run empty.
    fn free(&self) -> Option<(SendRequest<Repeatable<B>>, Place)> {
        let mut lines = self.lines();
        lines.retain(Line::is_open);
        lines.iter().find_map(Line::enter)
    }
}

impl<B> Bundle<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A new connection, with a place on it.
    async fn open(servers: &Servers, server: &Server) -> io::Result<Opened<B>> {
        let link = servers.connect(server, Spoken::Http2, None).await?;
        open(link, servers.settings().idle_timeout).await
    }

    async fn place(
        &self,
        servers: &Servers,
        server: &Server,
    ) -> io::Result<(SendRequest<Repeatable<B>>, Place)> {
        if let Some(found) = self.free() {
            return Ok(found);
        }
        let asked = Instant::now();
        let mut last_failure = self.opening.lock().await;
        if let Some(found) = self.free() {
            return Ok(found);
        }
        // Whoever has waited for an attempt that failed does not wait for another one.
        if let Some((_, error)) = last_failure.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(alike(error));
        }
        match Self::open(servers, server).await {
            Ok((line, found)) => {
                *last_failure = None;
                self.lines().push(line);
                Ok(found)
            }
            Err(error) => {
                *last_failure = Some((Instant::now(), alike(&error)));
                Err(error)
            }
        }
    }
}

/// An error that says the same, for another who waits.
fn alike(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// A connection with the first place on it, which ends when it has been idle for `idle_timeout`. Its preface
/// is sent, and the server's not waited for.
async fn open<B>(link: Link, idle_timeout: Duration) -> io::Result<Opened<B>>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * MOST_STREAMS)
        .max_header_list_size(MOST_HEADER_BYTES)
        .initial_max_send_streams(UNSAID)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(TokioIo::new(link))
        .await
        .map_err(io::Error::other)?;
    let connection: Arc<Connection<B>> = Arc::new(Mutex::new(Some(connection)));
    let asked = Arc::clone(&connection);
    let line = Line {
        sender,
        // Asked for each request: the server may change its mind, and need not answer any to say so.
        allowed: Box::new(move || {
            let connection = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let allowed = connection.as_ref().map(|it| it.current_max_send_streams());
            allowed.unwrap_or(0)
        }),
        traffic: Arc::new(Traffic::new()),
    };
    let first = (line.sender.clone(), Place::on(&line.traffic, false));
    let traffic = Arc::clone(&line.traffic);
    tokio::spawn(async move {
        tokio::select! {
            () = poll_fn(|cx| drive(&connection, cx)) => {}
            // Who enters it does so in this thread, so nobody has meanwhile.
            () = traffic.has_been_idle(idle_timeout) => {
                *connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
    });
    Ok((line, first))
}

/// Keeps a connection going until it ends.
fn drive<B>(connection: &Connection<B>, cx: &mut Context<'_>) -> Poll<()>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(going) = connection.as_mut() {
        // Whoever waits for an answer hears of an error.
        let _ = ready!(Pin::new(going).poll(cx));
    }
    *connection = None;
    Poll::Ready(())
}

impl<B> Line<B> {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.traffic.is_left.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Option<(SendRequest<Repeatable<B>>, Place)> {
        let allowed = (self.allowed)();
        let most = allowed.min(MOST_STREAMS as usize);
        let active = self.traffic.active.load(Ordering::Relaxed);
        let has_room = usize::try_from(active).is_ok_and(|active| active < most);
        let place = || Place::on(&self.traffic, allowed == UNSAID);
        has_room.then(|| (self.sender.clone(), place()))
    }
}

impl Traffic {
    fn new() -> Self {
        Self {
            active: AtomicU32::new(0),
            idle_since: Mutex::new(Instant::now()),
            heard: Mutex::new(Instant::now()),
            is_left: AtomicBool::new(false),
        }
    }

    fn note(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    fn has_heard_since(&self, time: Instant) -> bool {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) >= time
    }

    /// Waits until no request has been under way for `time`.
    async fn has_been_idle(&self, time: Duration) {
        loop {
            let left = time.saturating_sub(self.idle_for());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn idle_for(&self) -> Duration {
        if self.active.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let idle_since = self.idle_since.lock();
        idle_since.unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Place {
    fn on(traffic: &Arc<Traffic>, is_early: bool) -> Self {
        traffic.active.fetch_add(1, Ordering::Relaxed);
        Self {
            traffic: Arc::clone(traffic),
            since: Instant::now(),
            is_early,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let traffic = &self.traffic;
        // Nothing was heard of this request, nor of any other since: as HTTP/1.1 would, it takes
        // the connection with it. Otherwise all would go to a server that has vanished.
        if !traffic.has_heard_since(self.since) {
            traffic.leave();
        }
        let idle_since = traffic.idle_since.lock();
        *idle_since.unwrap_or_else(PoisonError::into_inner) = Instant::now();
        traffic.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the server says that it has done nothing about a request.
fn is_untouched(failure: &hyper::Error) -> bool {
    failure.is_canceled()
        || cause(failure).is_some_and(|cause| {
            // h2 gives the streams up to a GOAWAY's last one another error.
            cause.is_remote() && cause.is_go_away() || is_refused(failure)
        })
}

/// Whether the server has refused the stream (RFC 9113 §8.7).
fn is_refused(failure: &hyper::Error) -> bool {
    cause(failure)
        .is_some_and(|cause| cause.is_remote() && cause.reason() == Some(Reason::REFUSED_STREAM))
}

/// Whether this side has given a request up, which it does when the request's body breaks off.
pub(super) fn is_given_up(failure: &hyper::Error) -> bool {
    cause(failure)
        .is_some_and(|cause| cause.is_reset() && !cause.is_remote() && !cause.is_library())
}

fn cause(failure: &hyper::Error) -> Option<&h2::Error> {
    failure.source()?.downcast_ref()
}

/// From HTTP/1.1's form to HTTP/2's: Host becomes `:authority` (RFC 9113 §8.3.1). Other fields of
/// a connection are not there any more.
fn translate<B>(request: &mut Request<B>, scheme: Scheme) -> io::Result<()> {
    let host = request.headers().get(header::HOST);
    if request.version() == Version::HTTP_2 && host.is_none() {
        // It has been here before, on its way to another server that is asked for the same host.
        return Ok(());
    }
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme);
    parts.authority = authority;
    let uri = Uri::from_parts(parts);
    *request.uri_mut() = uri.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
    Ok(())
}
