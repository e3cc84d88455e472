//! One server, and what all workers know of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpStream;

use crate::telemetry::ServerMetrics;

/// A server as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// `host:port`, with a name or an address.
    pub name: String,
    /// Its share beside the others'; at least 1.
    pub weight: u32,
}

/// A server that can be connected to.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    /// `None` for a name that nobody has resolved yet: every connection then does.
    address: Option<SocketAddr>,
    /// Failures since it last was fine.
    failures: AtomicU32,
    pub(super) metrics: ServerMetrics,
}

impl Server {
    /// The server `name` as configured, which may be an address, or is at this one.
    pub(super) fn new(name: &str, address: Option<SocketAddr>, metrics: ServerMetrics) -> Self {
        Self {
            name: name.to_owned(),
            address: address.or_else(|| name.parse().ok()),
            failures: AtomicU32::new(0),
            metrics,
        }
    }

    /// `host:port` as configured.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The host of its name, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        let host = self.name().rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// How many requests, WebSockets and sessions it is busy with.
    pub(super) fn load(&self) -> u64 {
        u64::try_from(self.metrics.busy.get()).unwrap_or(0)
    }

    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect(self.name()).await,
        }
    }

    /// Forgets earlier failures. What is shared is written only if there were any.
    pub(super) fn fared_well(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure, and gives the number of them in a row.
    pub(super) fn failed(&self) -> u32 {
        self.metrics.failures.inc();
        self.failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }
}

/// One request, WebSocket or session that a server is busy with, until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Server>);

impl Busy {
    /// One more, unless `server` is busy with `most` already. All workers count together.
    ///
    /// # Errors
    /// The server, if it is.
    pub(super) fn with(server: Arc<Server>, most: Option<u32>) -> Result<Self, Arc<Server>> {
        let before = server.metrics.busy.inc();
        if most.is_some_and(|most| before >= i64::from(most)) {
            server.metrics.busy.dec();
            return Err(server);
        }
        Ok(Self(server))
    }

    /// `host:port` of the server, as configured.
    #[must_use]
    pub fn server(&self) -> &str {
        self.0.name()
    }

    pub(super) fn at(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.metrics.busy.dec();
    }
}
