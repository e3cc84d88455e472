//! A device's place among servers: a consistent hash, so that it keeps its server, and so that few
//! devices move when a server comes or goes.

use std::fmt;
use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA256, digest};
use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};

use crate::secret::Secret;

/// What tells devices apart when servers are chosen: not whose it is, nor a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceKey([u8; 8]);

impl DeviceKey {
    /// Of the device with the certificate of this fingerprint.
    #[must_use]
    pub fn of_certificate(fingerprint: &str) -> Self {
        Self::of(fingerprint.as_bytes())
    }

    /// Of the device with this secret. Eight bytes of a digest lead nobody back to it.
    #[must_use]
    pub fn of_secret(secret: &Secret) -> Self {
        Self::of(secret.expose().as_bytes())
    }

    fn of(bytes: &[u8]) -> Self {
        let mut key = [0; 8];
        key.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..8]);
        Self(key)
    }
}

/// The ring of the servers whose addresses are known (ketama, as nginx and memcached have it).
pub(super) struct Ring {
    continuum: Continuum,
    /// No more points than these: the continuum itself goes round for ever.
    points: usize,
}

impl Ring {
    /// Of servers by address and weight, of which none is zero.
    pub(super) fn new(servers: impl Iterator<Item = (SocketAddr, u32)>) -> Self {
        let weighed: Vec<(SocketAddr, u32)> = servers.collect();
        let bucket = |(address, weight): &(SocketAddr, u32)| Bucket::new(*address, *weight);
        let buckets: Vec<Bucket> = weighed.iter().map(bucket).collect();
        let weights: u32 = weighed.iter().map(|(_, weight)| weight).sum();
        let points = (weights * DEFAULT_POINT_MULTIPLE) as usize;
        Self {
            continuum: Continuum::new(&buckets),
            points,
        }
    }

    /// Servers in the order in which this device takes them, most of them many times.
    pub(super) fn walk(&self, device: DeviceKey) -> impl Iterator<Item = SocketAddr> {
        let nodes = self.continuum.node_iter(&device.0);
        nodes.take(self.points).copied()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("points", &self.points)
            .finish_non_exhaustive()
    }
}
