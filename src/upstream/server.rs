//! One server, and what all workers know of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpStream;

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
    settings: ServerSettings,
    /// `None` if it has a name, which is resolved at every new connection.
    address: Option<SocketAddr>,
    busy: AtomicU32,
}

impl Server {
    pub(super) fn new(settings: ServerSettings) -> Self {
        Self {
            address: settings.name.parse().ok(),
            settings,
            busy: AtomicU32::new(0),
        }
    }

    /// `host:port` as configured.
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// The host of that, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        let host = self.name().rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn weight(&self) -> u32 {
        self.settings.weight
    }

    /// How many requests, WebSockets and sessions it is busy with.
    pub(super) fn load(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect(self.name()).await,
        }
    }
}

/// One request, WebSocket or session that a server is busy with, until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Server>);

impl Busy {
    pub(super) fn with(server: Arc<Server>) -> Self {
        server.busy.fetch_add(1, Ordering::Relaxed);
        Self(server)
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
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
