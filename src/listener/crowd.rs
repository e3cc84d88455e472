//! Who is here already: connections, all of them and by their client's address, and handshakes under
//! way. All workers count together, when a connection begins and when it ends, and never for a request.
//!
//! What is over a limit is turned away before anything is spent on it; those who are here stay.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tally::{Counted, Tally};
use crate::telemetry::Shed;

/// How many there may be; `None` for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrowdLimits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: Option<usize>,
    /// TLS handshakes under way at once.
    pub handshakes: Option<usize>,
}

/// How many are told at once that there is no room. Each keeps its socket for so long, and no flood shall
/// take the descriptors of those who are here.
const MOST_TOLD: usize = 256;

/// Those who are here.
#[derive(Debug, Default)]
pub struct Crowd {
    connections: Count,
    addresses: Arc<Tally<IpAddr>>,
    handshakes: Count,
    told: Count,
}

/// A connection that is counted among those of its address, until it is dropped.
pub type Presence = Counted<IpAddr>;

/// How many there are of one kind now.
#[derive(Debug, Clone, Default)]
struct Count(Arc<AtomicUsize>);

/// One that is counted until it is dropped: a connection, a handshake that is under way, or one that is told
/// that there is no room.
#[derive(Debug)]
pub struct Place(Count);

impl Count {
    /// Counts one more, unless there are `most` already.
    fn join(&self, most: usize) -> Option<Place> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        // Counted in any case, so that its end can be.
        let place = Place(self.clone());
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crowd {
    /// Counts one more connection, unless there are `most` already.
    ///
    /// # Errors
    /// [`Shed::Connections`].
    pub fn enter(&self, most: usize) -> Result<Place, Shed> {
        self.connections.join(most).ok_or(Shed::Connections)
    }

    /// A place among those who are told that there is no room, if there is one.
    pub fn tell(&self) -> Option<Place> {
        self.told.join(MOST_TOLD)
    }

    /// Counts one more connection from `address`, unless there are `most` already. Nothing is
    /// counted without a limit.
    ///
    /// # Errors
    /// [`Shed::Address`].
    pub fn join(&self, address: IpAddr, most: Option<usize>) -> Result<Option<Presence>, Shed> {
        let Some(most) = most else {
            return Ok(None);
        };
        let presence = self.addresses.join(household(address), most);
        presence.map(Some).ok_or(Shed::Address)
    }

    /// Counts one more handshake, unless `most` are under way.
    ///
    /// # Errors
    /// [`Shed::Handshakes`].
    pub fn begin_handshake(&self, most: Option<usize>) -> Result<Option<Place>, Shed> {
        let Some(most) = most else {
            return Ok(None);
        };
        let place = self.handshakes.join(most);
        place.map(Some).ok_or(Shed::Handshakes)
    }
}

/// What is taken for one client: an IPv6 network gives every host at least 2^64 addresses to choose
/// from (RFC 4291 §2.5.1).
#[must_use]
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// Tells a client that speaks HTTP without TLS to come again later (RFC 9110 §15.6.4).
pub async fn turn_away(mut client: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\
                            Content-Length: 0\r\nConnection: close\r\n\r\n";
    /// Closing with bytes unread would reset the connection, and the answer might be lost.
    const LONGEST: Duration = Duration::from_secs(1);
    let said = async {
        client.write_all(ANSWER).await?;
        client.shutdown().await?;
        let mut rest = [0; 1024];
        while client.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // If it fails, the client is gone, or does not listen.
    let _ = tokio::time::timeout(LONGEST, said).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_known_as_long_as_a_connection_of_it_is_open() {
        let crowd = Crowd::default();
        let here: Vec<_> = (0..2)
            .map(|_| crowd.join(ip("192.0.2.1"), Some(2)))
            .collect();
        assert_eq!(
            crowd.join(ip("192.0.2.1"), Some(2)).unwrap_err(),
            Shed::Address
        );
        assert!(crowd.join(ip("192.0.2.2"), Some(2)).is_ok());
        drop(here);
        assert!(crowd.addresses.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        for (one, other, are_one) in [
            ("2001:db8::1", "2001:db8::ffff:0:0:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(household(ip(one)) == household(ip(other)), are_one, "{one}");
        }
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let crowd = Crowd::default();
        let here = [crowd.enter(2).unwrap(), crowd.enter(2).unwrap()];
        for _ in 0..3 {
            assert_eq!(crowd.enter(2).unwrap_err(), Shed::Connections);
        }
        assert!(crowd.enter(3).is_ok(), "the limit may grow");
        drop(here);
        assert!(crowd.enter(1).is_ok());
    }

    #[test]
    fn a_flood_is_not_told_that_there_is_no_room() {
        let crowd = Crowd::default();
        let told: Vec<_> = (0..MOST_TOLD).map(|_| crowd.tell().unwrap()).collect();
        assert!(crowd.tell().is_none());
        drop(told);
        assert!(crowd.tell().is_some());
    }

    #[test]
    fn handshakes_are_counted_until_they_end() {
        let crowd = Crowd::default();
        let first = crowd.begin_handshake(Some(1)).unwrap();
        for _ in 0..3 {
            assert!(crowd.begin_handshake(Some(1)).is_err());
        }
        drop(first);
        assert!(crowd.begin_handshake(Some(1)).is_ok());
        assert!(crowd.begin_handshake(None).unwrap().is_none());
    }
}
