//! The servers behind the gateway: [`Upstream::send`] for a request, [`Upstream::open`] for a
//! connection of one's own. How one is made stands in [`mod@connect`].
//!
//! HTTP/1.1 (RFC 9112) with keep-alive. Each worker has its own pool, so no lock is ever contended
//! and a connection stays on the core that opened it. Who may send is not asked here.

mod connect;
mod pool;
mod proxy_protocol;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use thiserror::Error;

use connect::connect;
pub use connect::{Link, Spoken};
pub use pool::Lease;
use pool::Pool;
pub use proxy_protocol::{IntroducedTls, Introduction, ProxyProtocol, Shown};

use crate::tls::{Initiator, InitiatorSettings};

/// One group of servers as configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the configuration, the logs and the metrics.
    pub name: String,
    /// `host:port` of each server; names are resolved at every new connection.
    pub servers: Vec<String>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Most unused connections that a worker keeps.
    pub max_idle: usize,
    /// Whether servers are told whom a connection is opened for. If so, none is shared.
    pub proxy_protocol: ProxyProtocol,
    /// Where brokers take MQTT inside WebSockets; `None` for their TCP port.
    pub websocket_path: Option<PathAndQuery>,
    /// `None` without TLS.
    pub tls: Option<InitiatorSettings>,
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
    /// The exchange failed on an open connection, or the request's own body did.
    #[error("upstream \"{upstream}\": {source}")]
    Exchange {
        /// The group.
        upstream: String,
        /// hyper's own error; its source is the body's error if the body failed.
        source: hyper::Error,
    },
}

/// A new connection and the server that it leads to.
#[derive(Debug)]
pub struct Dialled<'a> {
    /// The connection.
    pub stream: Link,
    /// `host:port`, as configured.
    pub server: &'a str,
}

/// One group of servers, taking turns.
#[derive(Debug)]
pub struct Servers {
    settings: Arc<Settings>,
    /// `None` for servers without TLS.
    tls: Option<Arc<Initiator>>,
    next: AtomicUsize,
}

impl Servers {
    fn new(settings: Arc<Settings>, tls: Option<Arc<Initiator>>) -> Self {
        Self {
            settings,
            tls,
            next: AtomicUsize::new(0),
        }
    }

    /// Opens a connection for `client` to the next server, or to the first after it that answers,
    /// to speak `spoken`.
    ///
    /// # Errors
    /// [`UpstreamError::Unreachable`] with what the last one tried said.
    pub async fn dial(
        &self,
        spoken: Spoken,
        client: &Introduction<'_>,
    ) -> Result<Dialled<'_>, UpstreamError> {
        self.dial_for(spoken, Some(client)).await
    }

    /// Where the servers take WebSockets that carry MQTT; `None` if they take MQTT itself.
    #[must_use]
    pub fn websocket_path(&self) -> Option<&PathAndQuery> {
        self.settings.websocket_path.as_ref()
    }

    /// How long each step of opening a connection may take.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.settings.connect_timeout
    }

    async fn dial_for(
        &self,
        spoken: Spoken,
        client: Option<&Introduction<'_>>,
    ) -> Result<Dialled<'_>, UpstreamError> {
        let (servers, tls) = (&self.settings.servers, self.tls.as_deref());
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for offset in 0..servers.len() {
            let server = &servers[first.wrapping_add(offset) % servers.len()];
            match connect(&self.settings, tls, server, spoken, client).await {
                Ok(stream) => return Ok(Dialled { stream, server }),
                Err(error) => failure = error,
            }
        }
        let upstream = self.settings.name.clone();
        Err(UpstreamError::Unreachable {
            upstream,
            source: failure,
        })
    }

    /// Whether a connection is opened for one client and serves no other.
    fn introduces_clients(&self) -> bool {
        self.settings.proxy_protocol != ProxyProtocol::Off
    }
}

/// One group of servers and one worker's connections to them, for requests with bodies `B`.
#[derive(Debug)]
pub struct Upstream<B> {
    servers: Servers,
    pool: Arc<Pool<B>>,
}

impl<B> Upstream<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A group with no connection open yet; `tls` is what `settings.tls` has been loaded to.
    #[must_use]
    pub fn new(settings: Arc<Settings>, tls: Option<Arc<Initiator>>) -> Self {
        let pool = Arc::new(Pool::new(settings.max_idle, settings.idle_timeout));
        let servers = Servers::new(settings, tls);
        Self { servers, pool }
    }

    /// The servers, for connections that carry something else than requests.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Sends `request` over a pooled or new connection and waits for the head of the response.
    /// The lease belongs to the response's body: give it back when the body has ended.
    ///
    /// A pooled connection that turns out closed hands the request back unsent, and only then is
    /// another one tried; a request of which a byte was written is never repeated. Where servers
    /// are told whom a connection is for, each request has one of its own.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn send(
        &self,
        mut request: Request<B>,
        client: &Introduction<'_>,
    ) -> Result<(Response<Incoming>, Lease<B>), UpstreamError> {
        if self.servers.introduces_clients() {
            return self.send_alone(request, client).await;
        }
        loop {
            let (mut sender, reused) = match self.pool.take().await {
                Some(sender) => (sender, true),
                None => (self.connect(None).await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease::new(sender, &self.pool))),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(self.exchange(failure.into_error())),
                },
            }
        }
    }

    async fn send_alone(
        &self,
        request: Request<B>,
        client: &Introduction<'_>,
    ) -> Result<(Response<Incoming>, Lease<B>), UpstreamError> {
        let mut sender = self.connect(Some(client)).await?;
        match sender.send_request(request).await {
            Ok(response) => Ok((response, Lease::unshared(sender))),
            Err(source) => Err(self.exchange(source)),
        }
    }

    /// Sends `request` over a connection of its own, which the response may upgrade
    /// (RFC 9110 §7.8). It never comes back to the pool, whatever the answer.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn open(
        &self,
        request: Request<B>,
        client: &Introduction<'_>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let (mut sender, connection) = self.handshake(Some(client)).await?;
        tokio::spawn(async move {
            // Its end is seen by whoever reads the response or the upgraded stream.
            let _ = connection.with_upgrades().await;
        });
        sender
            .send_request(request)
            .await
            .map_err(|source| self.exchange(source))
    }

    async fn connect(
        &self,
        client: Option<&Introduction<'_>>,
    ) -> Result<SendRequest<B>, UpstreamError> {
        let (sender, connection) = self.handshake(client).await?;
        tokio::spawn(async move {
            // As above: the sender and the body tell.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn handshake(
        &self,
        client: Option<&Introduction<'_>>,
    ) -> Result<(SendRequest<B>, http1::Connection<TokioIo<Link>, B>), UpstreamError> {
        let dialled = self.servers.dial_for(Spoken::Http1, client).await?;
        http1::handshake(TokioIo::new(dialled.stream))
            .await
            .map_err(|source| self.exchange(source))
    }

    fn exchange(&self, source: hyper::Error) -> UpstreamError {
        UpstreamError::Exchange {
            upstream: self.servers.settings.name.clone(),
            source,
        }
    }
}
