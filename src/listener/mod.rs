//! The accept loop: hands each socket on.
//!
//! Whom a connection is from, if another stands in front, [`proxied`] reads; how many there may be
//! [`crowd`] knows; what happens on it is not known here.

pub mod crowd;
mod lifecycle;
pub mod proxied;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crowd::{Place, Presence};
pub use lifecycle::{Announcement, Lifecycle, Remote};

use crate::telemetry::OpenConnection;

/// How many connections the kernel keeps ready to be accepted.
const BACKLOG: i32 = 4096;

/// Pause after an error of `accept` that a new attempt would meet again at once, such as having
/// no file descriptor left.
const BACK_OFF: Duration = Duration::from_millis(50);

/// How often the log says so while it lasts.
const REMINDER: Duration = Duration::from_secs(10);

/// A socket that has been accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, without Nagle's delay.
    pub stream: TcpStream,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// What counts a connection among all, and among those of its address; to be kept as long as it
/// lives.
#[derive(Debug)]
pub struct Permit {
    _place: Place,
    _open: OpenConnection,
    presence: Option<Presence>,
}

impl Permit {
    /// Counts a connection that has a place among all, and is shown as open.
    #[must_use]
    pub fn new(place: Place, open: OpenConnection) -> Self {
        Self {
            _place: place,
            _open: open,
            presence: None,
        }
    }

    /// Counts the connection among those of its address as well.
    pub fn is_from(&mut self, presence: Option<Presence>) {
        self.presence = presence;
    }
}

/// Makes sure that nobody else listens on `address`. Sockets that share an address do not refuse
/// each other, so a second gateway would otherwise take half of the first one's connections.
///
/// # Errors
/// What the system says, most often that the port is in use or not permitted.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    socket(address)?.bind(&address.into())
}

/// Listens on `address`; several sockets may share it (`SO_REUSEPORT`), one for each worker. Peers that
/// have vanished without a word are noticed.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    // What is accepted inherits it.
    socket.set_tcp_keepalive(&crate::socket::keep_alive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of a former run that are still ending do not stand in the way.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // "[::]:8443" means IPv4 as well, wherever the system's default differs.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Accepts until `until` is done, giving each arrival to `serve`.
pub async fn accept_loop(
    listener: &TcpListener,
    until: impl Future<Output = ()>,
    mut serve: impl FnMut(Arrival),
) {
    tokio::pin!(until);
    let mut said = None;
    loop {
        tokio::select! {
            biased;
            () = &mut until => return,
            arrival = arrive(listener) => match arrival {
                Ok(arrival) => serve(arrival),
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => {
                    if said.is_none_or(|said: Instant| said.elapsed() >= REMINDER) {
                        tracing::error!(%error, "cannot accept connections; trying again");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
            },
        }
    }
}

async fn arrive(listener: &TcpListener) -> io::Result<Arrival> {
    let (stream, remote) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(Arrival { stream, remote })
}

/// The peer was gone before it was accepted: nothing is wrong on this side.
fn concerns_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_has_vanished_is_noticed() {
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = TcpListener::from_std(socket).unwrap();
        let peer = TcpStream::connect(address).await.unwrap();
        let arrival = arrive(&listener).await.unwrap();
        assert!(SockRef::from(&arrival.stream).keepalive().unwrap());
        assert!(!SockRef::from(&peer).keepalive().unwrap());
    }
}
