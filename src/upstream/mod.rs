//! The servers behind the gateway: [`Upstream::send`] for a request, [`Upstream::open`] for a
//! connection of one's own.
//!
//! HTTP/1.1 (RFC 9112) with keep-alive. Each worker has its own pool, so no lock is ever contended
//! and a connection stays on the core that opened it. Who may send is not asked here.

mod pool;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

pub use pool::Lease;
use pool::Pool;

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

/// One group of servers, taking turns.
#[derive(Debug)]
pub struct Servers {
    settings: Arc<Settings>,
    next: AtomicUsize,
}

impl Servers {
    /// All servers that `settings` names.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let next = AtomicUsize::new(0);
        Self { settings, next }
    }

    /// Opens a connection to the next server, or to the first after it that answers.
    ///
    /// # Errors
    /// [`UpstreamError::Unreachable`] with what the last one tried said.
    pub async fn dial(&self) -> Result<TcpStream, UpstreamError> {
        let servers = &self.settings.servers;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for offset in 0..servers.len() {
            let server = &servers[first.wrapping_add(offset) % servers.len()];
            match self.dial_one(server).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        let upstream = self.settings.name.clone();
        Err(UpstreamError::Unreachable {
            upstream,
            source: failure,
        })
    }

    async fn dial_one(&self, server: &str) -> io::Result<TcpStream> {
        let limit = self.settings.connect_timeout;
        let stream = tokio::time::timeout(limit, TcpStream::connect(server))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        Ok(stream)
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
    /// A group with no connection open yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let pool = Arc::new(Pool::new(settings.max_idle, settings.idle_timeout));
        let servers = Servers::new(settings);
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
    /// another one tried; a request of which a byte was written is never repeated.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn send(
        &self,
        mut request: Request<B>,
    ) -> Result<(Response<Incoming>, Lease<B>), UpstreamError> {
        loop {
            let (mut sender, reused) = match self.pool.take().await {
                Some(sender) => (sender, true),
                None => (self.connect().await?, false),
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

    /// Sends `request` over a connection of its own, which the response may upgrade
    /// (RFC 9110 §7.8). It never comes back to the pool, whatever the answer.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn open(&self, request: Request<B>) -> Result<Response<Incoming>, UpstreamError> {
        let (mut sender, connection) = self.handshake().await?;
        tokio::spawn(async move {
            // Its end is seen by whoever reads the response or the upgraded stream.
            let _ = connection.with_upgrades().await;
        });
        sender
            .send_request(request)
            .await
            .map_err(|source| self.exchange(source))
    }

    async fn connect(&self) -> Result<SendRequest<B>, UpstreamError> {
        let (sender, connection) = self.handshake().await?;
        tokio::spawn(async move {
            // As above: the sender and the body tell.
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn handshake(
        &self,
    ) -> Result<(SendRequest<B>, http1::Connection<TokioIo<TcpStream>, B>), UpstreamError> {
        let stream = self.servers.dial().await?;
        http1::handshake(TokioIo::new(stream))
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
