//! The servers behind the gateway: [`Upstream::send`] for a request, [`Upstream::open`] for a
//! connection of one's own, [`Servers::dial`] for one that carries something else.
//!
//! [`group`] is what all workers know of an upstream, [`server`] of one of its servers. [`balance`]
//! says which server is next, [`ejection`] when one that fails is left out, [`health`] how servers are
//! asked whether they are well; how a connection is made stands in [`mod@connect`].
//!
//! HTTP/1.1 (RFC 9112) with keep-alive, or HTTP/2, see [`multiplex`]. Each worker has its own pool,
//! so no lock is ever contended and a connection stays on the core that opened it. Who may send is
//! not asked here.

mod balance;
mod common_fields;
mod connect;
mod connection_auth;
mod device;
mod ejection;
mod group;
mod health;
mod host_field;
mod http1;
mod multiplex;
mod pool;
mod proxy_protocol;
mod repeatable;
mod resolve;
mod response_body;
mod retries;
mod server;

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::header::HeaderValue;
use hyper::http::response;
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{HeaderMap, Request, Response, StatusCode};
use thiserror::Error;

pub use balance::Balance;
use balance::{Chance, Search};
pub use common_fields::CommonFields;
use connect::connect;
pub use connect::{Link, Spoken};
pub use device::DeviceKey;
pub use ejection::{EjectionSettings, Outcome};
pub use group::Group;
pub use health::{Dialogue, HealthSettings, Inside, Opening, Probe, Tunnel};
pub use host_field::HostField;
pub use http1::{Chunked, ExchangeError, Flaw, Framing, Head, OnInterim, Piece, Switched};
use http1::{Connection, Failure};
use multiplex::Multiplex;
use pool::Pool;
pub use proxy_protocol::{IntroducedTls, Introduction, ProxyProtocol, Shown};
pub use repeatable::Repeatable;
use response_body::Content;
pub use response_body::ResponseBody;
pub use retries::RetrySettings;
use retries::{Repeats, Spare};
use server::Server;
pub use server::{Busy, ServerSettings};

use crate::tls::{Initiator, InitiatorSettings};

/// One group of servers as configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the configuration, the logs and the metrics.
    pub name: String,
    /// Its servers, at least one.
    pub servers: Vec<ServerSettings>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How often names are resolved.
    pub resolve_interval: Duration,
    /// When one that fails is left out.
    pub ejection: EjectionSettings,
    /// How servers are asked whether they are well; `None` if they are not.
    pub health: Option<HealthSettings>,
    /// Most requests, WebSockets and sessions at once of each server; `None` for any number.
    pub max_busy: Option<u32>,
    /// When a request is sent once more; `None` for never.
    pub retries: Option<RetrySettings>,
    /// How long one that has come back into service gets less than its share.
    pub slow_start: Option<Duration>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Most unused connections to each server that a worker keeps.
    pub max_idle: usize,
    /// What requests are sent in.
    pub http: HttpVersion,
    /// Which host requests name.
    pub host: HostField,
    /// Whether servers are told whom a connection is opened for. If so, none is shared.
    pub proxy_protocol: ProxyProtocol,
    /// Where brokers take MQTT inside WebSockets; `None` for their TCP port.
    pub websocket_path: Option<PathAndQuery>,
    /// `None` without TLS.
    pub tls: Option<InitiatorSettings>,
}

/// What requests are sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 (RFC 9113): inside TLS by ALPN, otherwise by prior knowledge.
    Http2,
}

/// Why the upstream gave no response.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// No server of the group could be reached.
    #[error("no server of upstream \"{upstream}\" can be reached: {source}")]
    Unreachable {
        /// The group.
        upstream: String,
        /// What the last one tried said.
        source: io::Error,
    },
    /// Every server that is in service has as much to do as it may have.
    #[error("every server of upstream \"{upstream}\" is busy")]
    Overloaded {
        /// The group.
        upstream: String,
    },
    /// It did not answer in time.
    #[error("upstream \"{upstream}\" did not answer in time")]
    TimedOut {
        /// The group.
        upstream: String,
    },
    /// The exchange failed on an open connection, or the request's own body did.
    #[error("upstream \"{upstream}\": {source}")]
    Exchange {
        /// The group.
        upstream: String,
        /// What went wrong.
        source: ExchangeError,
    },
}

impl UpstreamError {
    /// Whether there is no room for another request, at the servers or here, for the time being.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        match self {
            Self::Overloaded { .. } => true,
            Self::Unreachable { source, .. } => lacks_descriptor(source),
            Self::TimedOut { .. } | Self::Exchange { .. } => false,
        }
    }
}

/// A new connection to a server that is busy with it from now on.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: Link,
    /// To be kept for as long as the connection.
    pub busy: Busy,
}

/// One group of servers, as one worker connects to them.
#[derive(Debug)]
pub struct Servers {
    group: Arc<Group>,
    /// `None` for servers without TLS.
    tls: Option<Arc<Initiator>>,
    chance: Chance,
}

impl Servers {
    fn new(group: Arc<Group>, tls: Option<Arc<Initiator>>) -> Self {
        let chance = Chance::default();
        Self { group, tls, chance }
    }

    /// Opens a connection for `client` to the next server, or to the first after it that answers,
    /// to speak `spoken`. A known device comes to its own server.
    ///
    /// # Errors
    /// [`UpstreamError::Unreachable`] with what the last one tried said, or
    /// [`UpstreamError::Overloaded`].
    pub async fn dial(
        &self,
        spoken: Spoken,
        client: &Introduction<'_>,
        device: Option<DeviceKey>,
    ) -> Result<Dialled, UpstreamError> {
        self.dialling(spoken, client, device).next().await
    }

    /// The same as a search that goes on where what comes first on a connection fails.
    pub fn dialling<'a>(
        &'a self,
        spoken: Spoken,
        client: &'a Introduction<'a>,
        device: Option<DeviceKey>,
    ) -> Dialling<'a> {
        Dialling {
            servers: self,
            spoken,
            client,
            search: Search::new(device),
            failure: io::ErrorKind::NotFound.into(),
        }
    }

    /// The device, asked for only where servers are chosen by it.
    pub fn device(&self, ask: impl FnOnce() -> Option<DeviceKey>) -> Option<DeviceKey> {
        let matters = self.settings().balance == Balance::Device;
        matters.then(ask).flatten()
    }

    /// Notes how a server has fared with what it was dialled for.
    pub fn note(&self, busy: &Busy, outcome: Outcome) {
        self.group.note(busy.at(), outcome);
    }

    /// Where the servers take WebSockets that carry MQTT; `None` if they take MQTT itself.
    #[must_use]
    pub fn websocket_path(&self) -> Option<&PathAndQuery> {
        self.settings().websocket_path.as_ref()
    }

    /// Which host a WebSocket asks the server for that the gateway opens there itself.
    ///
    /// # Errors
    /// The server's name, if it can be asked for by none.
    pub fn host(&self, busy: &Busy) -> io::Result<HeaderValue> {
        let is_tls = self.tls.is_some();
        self.settings().host.of_gateway(busy.at(), is_tls)
    }

    /// How long each step of opening a connection may take.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.settings().connect_timeout
    }

    fn settings(&self) -> &Settings {
        &self.group.settings
    }

    /// The next server that has room, busy with one more from now on.
    fn next(&self, search: &mut Search) -> Option<Busy> {
        let Settings {
            balance, max_busy, ..
        } = self.settings();
        loop {
            let server = search.next(&self.group.lineup(), *balance, &self.chance)?;
            match Busy::with(server, *max_busy) {
                Ok(busy) => return Some(busy),
                Err(full) => search.pass_over_full(full),
            }
        }
    }

    async fn connect(
        &self,
        server: &Server,
        spoken: Spoken,
        client: Option<&Introduction<'_>>,
    ) -> io::Result<Link> {
        connect(self.settings(), self.tls.as_deref(), server, spoken, client).await
    }

    /// After the last server; `source` is what the last one that was tried has said.
    fn give_up(&self, search: &Search, source: io::Error) -> UpstreamError {
        let upstream = self.settings().name.clone();
        if search.has_met_full() {
            self.group.is_overloaded();
            UpstreamError::Overloaded { upstream }
        } else {
            UpstreamError::Unreachable { upstream, source }
        }
    }

    fn name_host(&self, fields: &mut HeaderMap, server: &Server) {
        self.settings().host.set(fields, server, self.tls.is_some());
    }

    /// By what the servers are reached.
    fn scheme(&self) -> Scheme {
        match self.tls {
            Some(_) => Scheme::HTTPS,
            None => Scheme::HTTP,
        }
    }

    /// Whether a connection is opened for one client and serves no other.
    fn introduces_clients(&self) -> bool {
        self.settings().proxy_protocol != ProxyProtocol::Off
    }
}

/// The servers of a group that are dialled one after the other.
#[derive(Debug)]
pub struct Dialling<'a> {
    servers: &'a Servers,
    spoken: Spoken,
    client: &'a Introduction<'a>,
    search: Search,
    /// What the last one has said.
    failure: io::Error,
}

impl Dialling<'_> {
    /// A connection to the next server that can be reached.
    ///
    /// # Errors
    /// As [`Servers::dial`], when no server is left.
    pub async fn next(&mut self) -> Result<Dialled, UpstreamError> {
        while let Some(busy) = self.servers.next(&mut self.search) {
            let connecting = self
                .servers
                .connect(busy.at(), self.spoken, Some(self.client));
            match connecting.await {
                Ok(stream) => return Ok(Dialled { stream, busy }),
                Err(error) => self.pass_over(&busy, error),
            }
        }
        let failure = std::mem::replace(&mut self.failure, io::ErrorKind::NotFound.into());
        Err(self.servers.give_up(&self.search, failure))
    }

    /// Does without this server, which has failed.
    pub fn pass_over(&mut self, busy: &Busy, failure: io::Error) {
        self.servers.note(busy, of_connecting(&failure));
        self.search.pass_over(Arc::clone(busy.at()));
        self.failure = failure;
    }
}

/// One group of servers and one worker's connections to them, for requests with bodies `B`.
#[derive(Debug)]
pub struct Upstream<B> {
    servers: Servers,
    pool: Arc<Pool>,
    /// `None` for servers of HTTP/1.1.
    multiplex: Option<Multiplex<Repeatable<B>>>,
}

/// A request's search for a server that takes it.
struct Sending<'a, B> {
    original: Spare<B>,
    repeats: Repeats<'a>,
    search: Search,
    manner: Manner<'a>,
}

/// How a request is sent, whichever server takes it.
struct Manner<'a> {
    /// What it says besides.
    common: &'a CommonFields,
    /// `None` if it has a connection of its own.
    pool: Option<&'a Arc<Pool>>,
    /// The client, if the servers may be told of it.
    client: Option<Box<Introduction<'a>>>,
}

impl Manner<'_> {
    fn pooled(&self, server: &Arc<Server>) -> Option<Box<Connection>> {
        self.pool?.take(server)
    }
}

/// The answer to a request that has asked for another protocol.
#[derive(Debug)]
pub enum Opened {
    /// It is spoken from here on; the server is busy with it.
    Switched(response::Parts, Switched, Busy),
    /// The server has answered something else.
    Declined(Response<ResponseBody>),
}

/// How a request fared with one server.
enum Attempt<B> {
    Answered(response::Parts, Content),
    /// Nothing was done about it.
    Unsent(Box<Request<B>>, io::Error),
    Failed(ExchangeError),
    TimedOut,
}

impl<B> Attempt<B> {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Answered(head, _) => head.status.into(),
            Self::Failed(error) => of_exchange(error),
            Self::Unsent(_, error) => of_connecting(error),
            Self::TimedOut => Outcome::Faulty,
        }
    }

    /// Whether the request was sent and nothing has come of it that would do.
    fn is_in_vain(&self, repeats: &Repeats<'_>) -> bool {
        match self {
            Self::Answered(head, _) => repeats.count_as_none(head.status),
            Self::Failed(_) => true,
            Self::Unsent(..) | Self::TimedOut => false,
        }
    }
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A group with no connection open yet; `tls` is what the group's settings have been loaded
    /// to.
    #[must_use]
    pub fn new(group: Arc<Group>, tls: Option<Arc<Initiator>>) -> Self {
        let settings = &group.settings;
        let pool = Arc::new(Pool::new(settings.max_idle, settings.idle_timeout));
        let multiplex = match settings.http {
            HttpVersion::Http1 => None,
            HttpVersion::Http2 => Some(Multiplex::new()),
        };
        let servers = Servers::new(group, tls);
        Self {
            servers,
            pool,
            multiplex,
        }
    }

    /// Whether requests are sent in HTTP/2.
    #[must_use]
    pub fn speaks_http2(&self) -> bool {
        self.multiplex.is_some()
    }

    /// The servers, for connections that carry something else than requests.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Sends `request` with `common` to the next server, or to the first after it that can be reached, and
    /// waits for the head of the response until `patience` ends. A known device comes to its own server.
    ///
    /// A pooled connection that turns out closed leaves the request unsent, or unanswered if it is idempotent and
    /// without a body, and only then is another one tried; a request of which a byte was written is not
    /// repeated otherwise, unless its server says in HTTP/2 that it has done nothing about it, or the upstream
    /// has [`retries`]. Where servers are told whom a
    /// connection is for, or a client authenticates it, a request has one of its own.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub fn send<'a>(
        &'a self,
        mut request: Box<Request<Repeatable<B>>>,
        common: &'a CommonFields,
        client: impl FnOnce() -> Introduction<'a>,
        device: Option<DeviceKey>,
        patience: Pin<&'a mut impl Future<Output = ()>>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, UpstreamError>> {
        let alone =
            self.servers.introduces_clients() || connection_auth::is_used(request.headers());
        let repeats = self.servers.group.repeats(&request);
        let mut sending = Sending {
            original: repeats.keep(&mut request),
            repeats,
            search: Search::new(device),
            manner: Manner {
                common,
                pool: (!alone).then_some(&self.pool),
                client: alone.then(|| Box::new(client())),
            },
        };
        async move { self.search(request, &mut sending, patience).await }
    }

    async fn search(
        &self,
        mut request: Box<Request<Repeatable<B>>>,
        sending: &mut Sending<'_, B>,
        mut patience: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        let Sending {
            original,
            repeats,
            search,
            manner,
        } = sending;
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        loop {
            let Some(busy) = self.servers.next(search) else {
                // What is repeated may come to the same server again, if there is no other.
                if repeats.may_return() {
                    search.start_over();
                    continue;
                }
                return Err(self.servers.give_up(search, failure));
            };
            let attempt = tokio::select! {
                biased;
                attempt = self.attempt(request, busy.at(), manner) => attempt,
                () = &mut patience => Attempt::TimedOut,
            };
            self.servers.note(&busy, attempt.outcome());
            if attempt.is_in_vain(repeats)
                && let Some(again) = repeats.again(original.take())
            {
                request = again;
                *original = repeats.keep(&mut request);
                search.pass_over(Arc::clone(busy.at()));
                continue;
            }
            match attempt {
                Attempt::Answered(head, content) => {
                    let body = ResponseBody::new(content, busy);
                    return Ok(Response::from_parts(head, body));
                }
                Attempt::TimedOut => return Err(self.timed_out()),
                Attempt::Failed(source) => return Err(self.exchange(source)),
                Attempt::Unsent(unsent, error) => (request, failure) = (unsent, error),
            }
            search.pass_over(Arc::clone(busy.at()));
        }
    }

    async fn attempt(
        &self,
        mut request: Box<Request<Repeatable<B>>>,
        server: &Arc<Server>,
        manner: &Manner<'_>,
    ) -> Attempt<Repeatable<B>> {
        self.servers.name_host(request.headers_mut(), server);
        if let Some(multiplex) = &self.multiplex {
            // Boxed: each request would have room for it.
            manner.common.set(request.headers_mut());
            let alone = manner.pool.is_none();
            return Box::pin(multiplex.send(request, &self.servers, server, alone)).await;
        }
        let mut pooled = manner.pooled(server);
        loop {
            let is_new = pooled.is_none();
            let connection = match pooled {
                Some(connection) => connection,
                None => match Box::pin(self.connect(server, manner)).await {
                    Ok(connection) => connection,
                    Err(error) => return Attempt::Unsent(request, error),
                },
            };
            match connection.exchange(request, manner.common).await {
                Ok((head, body)) => {
                    let is_shared = !connection_auth::is_asked_for(&head.headers);
                    let pool = manner.pool.filter(|_| is_shared);
                    return Attempt::Answered(head, Content::Http1(body, pool.cloned()));
                }
                Err(Failure::Failed(error)) => return Attempt::Failed(error),
                Err(Failure::Closed(_, error)) if is_new => return Attempt::Failed(error),
                Err(Failure::Unsent(unsent, error)) if is_new => {
                    return Attempt::Unsent(unsent, error);
                }
                Err(Failure::Closed(again, _) | Failure::Unsent(again, _)) => request = again,
            }
            pooled = manner.pooled(server);
        }
    }

    async fn connect(
        &self,
        server: &Arc<Server>,
        manner: &Manner<'_>,
    ) -> io::Result<Box<Connection>> {
        let client = manner.client.as_deref();
        let link = self.servers.connect(server, Spoken::Http1, client).await?;
        Ok(Connection::on(link))
    }

    /// Sends `request` with `common` over a connection of its own, which the response may upgrade
    /// (RFC 9110 §7.8), and waits as [`Self::send`] does. It never comes back to the pool, whatever
    /// the answer.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn open(
        &self,
        mut request: Box<Request<B>>,
        common: &CommonFields,
        client: &Introduction<'_>,
        device: Option<DeviceKey>,
        patience: impl Future<Output = ()>,
    ) -> Result<Opened, UpstreamError> {
        let mut patience = pin!(patience);
        let Dialled { stream, busy } = tokio::select! {
            biased;
            dialled = self.servers.dial(Spoken::Http1, client, device) => dialled?,
            () = &mut patience => return Err(self.timed_out()),
        };
        self.servers.name_host(request.headers_mut(), busy.at());
        let opened = tokio::select! {
            biased;
            opened = Connection::on(stream).exchange(request, common) => opened,
            () = &mut patience => {
                self.servers.note(&busy, Outcome::Faulty);
                return Err(self.timed_out());
            }
        };
        match opened {
            Ok((head, body)) => {
                self.servers.note(&busy, head.status.into());
                if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    let stream = body.switch().ok_or(ExchangeError::Closed);
                    let stream = stream.map_err(|error| self.exchange(error))?;
                    return Ok(Opened::Switched(head, stream, busy));
                }
                let body = ResponseBody::new(Content::Http1(body, None), busy);
                Ok(Opened::Declined(Response::from_parts(head, body)))
            }
            Err(failure) => {
                let source = match failure {
                    Failure::Closed(_, error) | Failure::Failed(error) => error,
                    Failure::Unsent(_, error) => error.into(),
                };
                self.servers.note(&busy, of_exchange(&source));
                Err(self.exchange(source))
            }
        }
    }

    fn exchange(&self, source: ExchangeError) -> UpstreamError {
        let upstream = self.servers.settings().name.clone();
        UpstreamError::Exchange { upstream, source }
    }

    fn timed_out(&self) -> UpstreamError {
        let upstream = self.servers.settings().name.clone();
        UpstreamError::TimedOut { upstream }
    }
}

/// Whose fault it is that there is no connection: no server's, if the gateway has no file descriptor
/// left for one.
fn of_connecting(error: &io::Error) -> Outcome {
    match lacks_descriptor(error) {
        true => Outcome::Unknown,
        false => Outcome::Faulty,
    }
}

fn lacks_descriptor(error: &io::Error) -> bool {
    /// ENFILE and EMFILE, whose numbers are the same on every Unix.
    const NO_DESCRIPTOR: [i32; 2] = [23, 24];
    let code = error.raw_os_error();
    code.is_some_and(|code| NO_DESCRIPTOR.contains(&code))
}

/// Whose fault it is that an exchange failed: a request's body breaks off on the client's side.
fn of_exchange(error: &ExchangeError) -> Outcome {
    match error {
        ExchangeError::Body(_) => Outcome::Unknown,
        ExchangeError::Http2(error) if error.is_user() || multiplex::is_given_up(error) => {
            Outcome::Unknown
        }
        ExchangeError::Http2(_)
        | ExchangeError::Closed
        | ExchangeError::Broken(_)
        | ExchangeError::Malformed(_) => Outcome::Faulty,
    }
}
