//! [`Connection`]: what is known once per connection, before any request on it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::identity::{DeviceIdentity, SubjectError};
use crate::tls::VerifiedPeer;

/// Names a connection in logs and request ids; no two of a process are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The next one. Ids start at a random place, so that those of two runs do not meet.
    #[must_use]
    pub fn next(counter: &AtomicU64) -> Self {
        Self(counter.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Whom the handshake has shown.
#[derive(Debug, Clone)]
pub enum ClientIdentity {
    /// Nobody: no certificate was asked for or given.
    Absent,
    /// A device.
    Device(Arc<DeviceIdentity>),
    /// A certificate that passed every check of its chain, but whose subject names no client.
    Unusable(SubjectError),
}

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    remote: SocketAddr,
    identity: ClientIdentity,
    fingerprint: Option<Arc<str>>,
}

impl Connection {
    /// The connection from `remote` whose handshake yielded `peer`.
    #[must_use]
    pub fn new(id: ConnectionId, remote: SocketAddr, peer: Option<&VerifiedPeer>) -> Self {
        let identity = match peer.map(DeviceIdentity::from_peer) {
            None => ClientIdentity::Absent,
            Some(Ok(device)) => ClientIdentity::Device(Arc::new(device)),
            Some(Err(error)) => ClientIdentity::Unusable(error),
        };
        let fingerprint = peer.map(|peer| Arc::clone(peer.fingerprint()));
        Self {
            id,
            remote,
            identity,
            fingerprint,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The peer's address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whom the handshake has shown.
    #[must_use]
    pub fn identity(&self) -> &ClientIdentity {
        &self.identity
    }

    /// The certificate's fingerprint, for logs.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }
}
