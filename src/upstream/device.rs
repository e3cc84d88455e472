//! A device's place among servers: a consistent hash, so that it keeps its server, and so that few
//! devices move when a server comes or goes.

use std::collections::HashMap;
use std::fmt;
use std::iter::Chain;
use std::net::SocketAddr;
use std::slice;

use aws_lc_rs::digest::{SHA256, digest};
use pingora_ketama::{Bucket, Continuum};

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
    /// Whose each point of the continuum is, by the server's place in its group.
    points: Box<[u16]>,
    /// How many servers have points, and one more than the last one's place.
    servers: usize,
    places: usize,
}

impl Ring {
    /// Of servers by place, address and weight, of which none is zero.
    pub(super) fn new(servers: impl Iterator<Item = (u16, SocketAddr, u32)>) -> Self {
        let servers: Vec<(u16, SocketAddr, u32)> = servers.collect();
        let bucket = |(_, address, weight): &(_, SocketAddr, u32)| Bucket::new(*address, *weight);
        let buckets: Vec<Bucket> = servers.iter().map(bucket).collect();
        let continuum = Continuum::new(&buckets);
        let places = servers.iter().map(|(place, address, _)| (*address, *place));
        let places: HashMap<SocketAddr, u16> = places.collect();
        Self {
            points: points(&continuum, &places),
            continuum,
            servers: places.len(),
            places: places
                .values()
                .max()
                .map_or(0, |last| usize::from(*last) + 1),
        }
    }

    /// The place of the server that this device takes first.
    pub(super) fn first(&self, device: DeviceKey) -> Option<u16> {
        self.points.get(self.at(device)).copied()
    }

    /// The places of all servers in the order in which this device takes them.
    pub(super) fn walk(&self, device: DeviceKey) -> Walk<'_> {
        let (before, from) = self.points.split_at(self.at(device));
        Walk {
            points: from.iter().chain(before),
            met: vec![false; self.places],
            left: self.servers,
        }
    }

    /// The point at which this device begins.
    fn at(&self, device: DeviceKey) -> usize {
        self.continuum.node_idx(&device.0).min(self.points.len())
    }
}

/// The points of one round, by address, of which `places` has each: the continuum goes round for ever.
fn points(continuum: &Continuum, places: &HashMap<SocketAddr, u16>) -> Box<[u16]> {
    let mut points = Vec::new();
    let mut next = 0;
    while let Some(address) = continuum.get_addr(&mut next) {
        points.extend(places.get(address));
        if next == 0 {
            break;
        }
    }
    points.into()
}

/// A device's way around a ring, which meets each server once and ends with the last of them: far
/// fewer points than there are, of which each server has thousands.
pub(super) struct Walk<'a> {
    points: Chain<slice::Iter<'a, u16>, slice::Iter<'a, u16>>,
    /// By place.
    met: Vec<bool>,
    left: usize,
}

impl Iterator for Walk<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let met = &mut self.met;
        let mut new = self.points.by_ref().filter(|place| {
            let met = met.get_mut(usize::from(**place));
            met.is_some_and(|met| !std::mem::replace(met, true))
        });
        new.next().copied()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("points", &self.points.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_around_the_ring_ends_when_all_have_been_met() {
        let address = |number: u16| SocketAddr::from(([192, 0, 2, 1], number));
        // Places need not be without gaps: there are servers without an address.
        let ring = Ring::new((0..20).map(|number| (2 * number, address(number), 100)));
        let mut visited = 0;
        for number in 0..100 {
            let mut walk = ring.walk(DeviceKey::of(&[number]));
            let mut met: Vec<u16> = walk.by_ref().collect();
            assert_eq!(met.first().copied(), ring.first(DeviceKey::of(&[number])));
            met.sort_unstable();
            assert!(met.into_iter().eq((0..20).map(|number| 2 * number)));
            visited += ring.points.len() - walk.points.count();
        }
        // Each new one is the harder to find the fewer are left: n * (1 + 1/2 + ... + 1/n) on average.
        assert!(visited / 100 < 100, "{visited}");
    }

    #[test]
    fn a_ring_of_nobody_leads_nowhere() {
        let ring = Ring::new(std::iter::empty());
        assert_eq!(ring.first(DeviceKey::of(b"any")), None);
        assert_eq!(ring.walk(DeviceKey::of(b"any")).next(), None);
    }
}
