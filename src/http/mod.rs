//! HTTP/1.1 and HTTP/2 (RFC 9110, 9112, 9113): from a decrypted stream to answered requests.
//!
//! Read [`handler`] for the way of one request. This file holds what a connection carries for its
//! requests and the loop that keeps its deadlines.

mod alarm;
mod answer;
mod assertion;
mod body;
mod certificate;
mod date;
mod decide;
mod drive;
mod early_hints;
mod exchange;
mod field_rules;
mod forward;
mod handler;
mod headers;
mod http2;
mod limits;
mod own_answer;
mod presented;
mod refusal;
mod request_scan;
mod shape;
mod target;
mod tunnel;
mod unparsed;
mod watch;

use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use alarm::Alarms;
pub use body::{AnswerBody, BodyError, RequestBody};
use drive::drive;
pub use field_rules::{Direction, is_guarded};
use headers::ConnectionFields;
pub use headers::{ends_here, is_identity, is_reserved};
use target::UsualDestination;
use watch::{Progress, Verdict, Watch, Watched};

pub use request_scan::RequestScan;

use crate::access::{Connection, Gate};
use crate::assertion::Asserter;
use crate::clock::Clock;
use crate::listener::{Announcement, Permit, Remote};
use crate::mqtt;
use crate::quota::Quotas;
use crate::route::{FieldRules, Route, RouteTable};
use crate::telemetry::{AccessLog, Metrics, RequestMetrics};
use crate::tls::Terminator;
use crate::upstream::Upstream;

/// Bounds on what one client may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of a request's head (HTTP/1.1) or header list (HTTP/2).
    pub header_bytes: usize,
    /// Most header fields of a request.
    pub header_count: usize,
    /// Most bytes of a request's path and query.
    pub uri_bytes: usize,
    /// Most requests at once on an HTTP/2 connection.
    pub streams: u32,
    /// Most requests of a connection, one after the other; `None` for any number.
    pub requests: Option<u64>,
    /// How long a connection takes requests; `None` for as long as it likes.
    pub age: Option<Duration>,
    /// How long a request's head may take to arrive.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a body may stand still while it arrives, or a client not read its answer.
    pub stall_timeout: Duration,
}

/// Where tokens may stand when a WebSocket is opened, since browsers set no fields then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenPlaces {
    /// A query parameter.
    pub query: Option<String>,
    /// An entry of `Sec-WebSocket-Protocol` that begins so.
    pub subprotocol: Option<String>,
}

/// What is the same for every request of a listener until the configuration is replaced.
#[derive(Debug)]
pub struct Rules {
    /// The listener's name.
    pub listener: String,
    /// The port that clients connect to.
    pub port: u16,
    /// Who may pass.
    pub gate: Gate,
    /// Where to.
    pub routes: RouteTable,
    /// Who signs what upstreams are told; `None` if none is told so.
    pub asserter: Option<Arc<Asserter>>,
    /// Where tokens may stand when a WebSocket is opened.
    pub token_places: TokenPlaces,
    /// The fields in which upstreams are told of clients; none of them is a client's.
    pub claim_fields: Vec<HeaderName>,
    /// What is changed in the fields of answers to requests that no route is for.
    pub answer_fields: FieldRules,
    /// What browsers are told of TLS (RFC 6797); `None` without TLS, where they would not listen.
    pub hsts: Option<HeaderValue>,
    /// How much each client may ask for of each route, by [`crate::route::Route::id`].
    pub quotas: Arc<[Quotas]>,
    /// Bounds.
    pub limits: Limits,
}

/// The rules with one worker's means of carrying them out.
#[derive(Debug)]
pub struct Edge {
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// This worker's connections to each upstream.
    pub upstreams: Arc<[Upstream<RequestBody>]>,
    /// How MQTT inside WebSockets is treated.
    pub mqtt: mqtt::Edge,
    /// For checking tunnels again when trust has changed; `None` without TLS.
    pub terminator: Option<Arc<Terminator>>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// This worker's timers for the deadlines of answers.
    pub alarms: Alarms,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// Counters of each route, by [`crate::route::Route::id`].
    pub routed: Vec<RequestMetrics>,
    /// Counters of the requests that found no route.
    pub unrouted: RequestMetrics,
    /// `None` if the access log is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// Everything that must end before the process does.
    pub tasks: TaskTracker,
}

impl Edge {
    /// The upstream that `route` leads to.
    fn upstream(&self, route: &Route) -> Option<&Upstream<RequestBody>> {
        self.upstreams.get(route.upstream()?)
    }
}

/// One client connection, for as long as a request or a tunnel of it lives.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) edge: Arc<Edge>,
    pub(crate) connection: Connection,
    /// As it is called in logs.
    name: String,
    /// Counts the connection for as long as anything of it lives.
    _permit: Permit,
    pub(crate) lifecycle: Remote,
    protocol: Protocol,
    fields: ConnectionFields,
    usual_destination: UsualDestination,
    progress: Arc<Progress>,
    requests: AtomicU64,
}

/// What a connection speaks, as agreed by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

impl Session {
    /// The id of the next request: the connection's, and which one of it.
    fn request_id(&self) -> HeaderValue {
        let mut number = itoa::Buffer::new();
        let number = number.format(self.next_request());
        let mut id = BytesMut::with_capacity(self.name.len() + 1 + number.len());
        for part in [&self.name, "-", number] {
            id.extend_from_slice(part.as_bytes());
        }
        let id = HeaderValue::from_maybe_shared(id.freeze());
        let mut id = id.unwrap_or(HeaderValue::from_static("unknown"));
        // RFC 7541 §7.1.3: no table of HPACK remembers it, where it would push out what comes again.
        id.set_sensitive(true);
        id
    }

    /// Numbers a request. If it is the last that the connection may have, no other is taken.
    fn next_request(&self) -> u64 {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let most = self.edge.rules.limits.requests;
        if most.is_some_and(|most| before + 1 >= most) {
            self.progress.finish();
        }
        before
    }

    /// Whether its client would be let in today: no handshake visits an open connection again.
    fn is_still_trusted(&self) -> bool {
        let now = self.edge.clock.now();
        self.edge.terminator.as_ref().is_none_or(|terminator| {
            let policies = terminator.policies();
            self.connection.check_again(now, &policies).is_ok()
        })
    }
}

/// Serves one connection until it ends, its deadlines pass, or the gateway drains.
pub async fn serve<IO>(
    io: IO,
    protocol: Protocol,
    edge: Arc<Edge>,
    connection: Connection,
    permit: Permit,
    lifecycle: Remote,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::new(Progress::default());
    let fields = ConnectionFields::new(&connection, edge.rules.port);
    let limits = edge.rules.limits;
    let session = Arc::new(Session {
        edge,
        name: connection.id().to_string(),
        connection,
        _permit: permit,
        lifecycle: lifecycle.clone(),
        protocol,
        fields,
        usual_destination: UsualDestination::default(),
        progress: Arc::clone(&progress),
        requests: AtomicU64::new(0),
    });
    let io = Watched::new(io, protocol, Arc::clone(&progress)).speaking_for(&session);
    // A fleet that has come at once is not sent away at once.
    let share = session.connection.id().share();
    let age = limits.age.map(|age| age.mul_f64(1.0 - share / 10.0));
    let deadlines = Deadlines {
        watch: progress.watch(&Limits { age, ..limits }, protocol),
        limits,
        progress,
        lifecycle,
    };
    match protocol {
        Protocol::Http1 => serve_http1(TokioIo::new(io), session, deadlines).await,
        // Boxed: an HTTP/2 connection's state is large, and most devices speak HTTP/1.1.
        Protocol::Http2 => Box::pin(serve_http2(io, session, deadlines)).await,
    }
}

/// A connection between requests does without hyper's state and buffers, which are most of what it
/// takes: it rests, and begins anew with the next request.
async fn serve_http1<IO>(
    mut io: TokioIo<Watched<IO>>,
    session: Arc<Session>,
    mut deadlines: Deadlines,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    while let Some(resting) = serve_until_rest(io, &session, &mut deadlines).await {
        io = resting;
        if !deadlines.rest(io.inner_mut()).await {
            return;
        }
    }
}

/// Serves requests until none has come for a while, and gives the stream back then.
async fn serve_until_rest<IO>(
    io: TokioIo<Watched<IO>>,
    session: &Arc<Session>,
    deadlines: &mut Deadlines,
) -> Option<TokioIo<Watched<IO>>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = deadlines.limits;
    let its = Arc::clone(session);
    let service = service_fn(move |request| handler::handle(Arc::clone(&its), request));
    let connection = http1::Builder::new()
        .max_headers(limits.header_count)
        .max_header_size(limits.header_bytes)
        // Deadlines are kept by one coarse tick for the whole connection, see `watch`.
        .header_read_timeout(None)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = Box::new(connection);
    let kept = deadlines.keep(session, Pin::new(&mut *connection), |connection| {
        connection.graceful_shutdown();
    });
    if kept.await == Kept::Ended {
        return None;
    }
    let mut parts = connection.into_parts()?;
    parts.io.inner_mut().put_back(&parts.read_buf);
    Some(parts.io)
}

async fn serve_http2<IO>(io: Watched<IO>, session: Arc<Session>, mut deadlines: Deadlines)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = pin!(http2::Serving::new(io, Arc::clone(&session)));
    deadlines
        .keep(&session, connection, |connection| {
            connection.get_mut().finish();
        })
        .await;
}

/// The deadlines of one connection and what it must hear of meanwhile.
struct Deadlines {
    limits: Limits,
    watch: Watch,
    progress: Arc<Progress>,
    lifecycle: Remote,
}

/// Why a connection is no longer driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Ended,
    /// It is between requests.
    Resting,
}

impl Deadlines {
    /// Drives `connection` to its end, or until it may rest. It is told to finish when it has been
    /// idle for too long or open for long enough, when it has had its share of requests, when the
    /// configuration is replaced and when the gateway drains; it is dropped, and with it the socket,
    /// when a head or the reading of an answer takes too long, or the client does not go.
    async fn keep<C, E>(
        &mut self,
        session: &Session,
        mut connection: Pin<&mut C>,
        finish: impl Fn(Pin<&mut C>),
    ) -> Kept
    where
        C: Future<Output = Result<(), E>>,
        E: Error + 'static,
    {
        let progress = Arc::clone(&self.progress);
        let finish = |connection: Pin<&mut C>, watch: &Watch| {
            progress.bid_farewell();
            if progress.may_finish() && !watch.is_request_due() {
                finish(connection);
            } else {
                // With the answer, if that does not switch.
                progress.finish();
            }
        };
        let mut draining = false;
        let mut finishing = false;
        let mut tick = pin!(tokio::time::sleep(self.watch.tick()));
        loop {
            tokio::select! {
                biased;
                () = self.progress.finishing(), if !finishing => {
                    finishing = true;
                    finish(connection.as_mut(), &self.watch);
                }
                heard = self.lifecycle.changed(), if !draining => {
                    match heard {
                        // Every request is looked at by itself.
                        Announcement::Revoked => continue,
                        Announcement::Reloaded => self.progress.doubt(),
                        Announcement::Superseded => self.progress.close(),
                        Announcement::Draining => draining = true,
                    }
                    finishing = true;
                    finish(connection.as_mut(), &self.watch);
                }
                // After what ends it: it may use up the task's turn (tokio's cooperative budget), and
                // nothing else is heard then but a tick that asks for none.
                outcome = drive(connection.as_mut(), &self.progress, session.protocol) => {
                    if let Err(error) = outcome {
                        report(session, &error);
                    }
                    return Kept::Ended;
                }
                () = unconstrained(tick.as_mut()) => {
                    match self.watch.check() {
                        Verdict::Fine => {}
                        Verdict::Resting if finishing => {}
                        Verdict::Resting => return Kept::Resting,
                        Verdict::Over => {
                            finishing = true;
                            finish(connection.as_mut(), &self.watch);
                        }
                        Verdict::Stalled => return Kept::Ended,
                    }
                    tick.as_mut().reset(Instant::now() + self.watch.tick());
                }
            }
        }
    }

    /// Until when a client's next byte is waited for.
    fn rested_until(&self) -> Instant {
        let over_at = self.watch.over_at();
        let fresh_until = self.watch.fresh_until();
        let fresh_until = fresh_until.filter(|_| self.progress.is_finishing());
        fresh_until.map_or(over_at, |until| until.min(over_at))
    }

    /// Waits for the client's next byte, for as long as a connection may be idle; whether it has come.
    /// Whatever else it waits for ends the connection, or has it end with its first request.
    async fn rest<IO>(&mut self, io: &mut Watched<IO>) -> bool
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let woken = loop {
            let until = self.rested_until();
            tokio::select! {
                biased;
                woken = io.wake() => break woken,
                heard = self.lifecycle.changed() => match heard {
                    // Every request is looked at by itself.
                    Announcement::Revoked => {}
                    Announcement::Reloaded | Announcement::Draining
                        if self.watch.is_request_due() && !self.progress.is_finishing() =>
                    {
                        self.progress.doubt();
                        self.progress.bid_farewell();
                        self.progress.finish();
                    }
                    _ => break false,
                },
                () = tokio::time::sleep_until(until) => break false,
            }
        };
        if !woken {
            // If it fails, the client is gone.
            let _ = tokio::time::timeout(self.limits.stall_timeout, io.shutdown()).await;
        }
        woken
    }
}

/// What is no HTTP is no request. In HTTP/1.1 it has been refused as if it were, see [`unparsed`], but for what
/// begins as HTTP/2 does.
fn report(session: &Session, error: &(dyn Error + 'static)) {
    let is_http1 = error
        .downcast_ref()
        .is_some_and(hyper::Error::is_parse_version_h2);
    let is_http2 = error
        .downcast_ref()
        .is_some_and(|error: &h2::Error| error.is_library());
    if is_http1 || is_http2 {
        let remote = session.connection.remote();
        session.edge.metrics.refused("malformed");
        tracing::info!(%remote, reason = "malformed", "refused: {error}");
    } else {
        tracing::debug!(%error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Lifecycle;

    #[tokio::test]
    async fn a_connection_rests_on_when_tokens_are_revoked_and_before_its_first_request() {
        type Announce = fn(&Lifecycle);
        for (announce, is_fresh, rests_on) in [
            (Lifecycle::revoked as Announce, false, true),
            (Lifecycle::reloaded, false, false),
            (Lifecycle::superseded, false, false),
            (Lifecycle::drain, false, false),
            (Lifecycle::revoked, true, true),
            (Lifecycle::reloaded, true, true),
            (Lifecycle::superseded, true, false),
            (Lifecycle::drain, true, true),
        ] {
            let lifecycle = Lifecycle::default();
            let limits = Limits {
                header_bytes: 0,
                header_count: 0,
                uri_bytes: 0,
                streams: 0,
                requests: None,
                age: None,
                header_timeout: Duration::MAX,
                idle_timeout: Duration::from_secs(60),
                stall_timeout: Duration::from_secs(60),
            };
            let progress = Arc::new(Progress::default());
            if !is_fresh {
                progress.begin(false);
                progress.end();
            }
            let (near, mut far) = tokio::io::duplex(8);
            let mut near = Watched::new(near, Protocol::Http1, Arc::clone(&progress));
            let mut deadlines = Deadlines {
                limits,
                watch: progress.watch(&limits, Protocol::Http1),
                progress,
                lifecycle: lifecycle.subscribe(),
            };
            let mut resting = pin!(deadlines.rest(&mut near));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(resting.as_mut().poll(&mut cx).is_pending());
            announce(&lifecycle);
            assert_eq!(resting.as_mut().poll(&mut cx).is_pending(), rests_on);
            if rests_on {
                far.write_all(b"x").await.unwrap();
                assert!(resting.await);
            }
        }
    }
}
