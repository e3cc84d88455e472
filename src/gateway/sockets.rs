//! The sockets that the gateway listens on, bound before anything else is begun.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::Settings;
use crate::listener;

/// The sockets of each worker, in the order of the listeners, and the listeners' addresses.
pub(super) type Sockets = (Vec<Vec<TcpListener>>, Vec<(String, SocketAddr)>);

pub(super) fn bind_listeners(settings: &Settings) -> Result<Sockets, StartError> {
    let mut workers: Vec<Vec<_>> = (0..settings.workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for listener in &settings.listeners {
        let mut address = listener.address;
        probe(&listener.name, address)?;
        for worker in &mut workers {
            let socket = bind(&listener.name, address)?;
            // Port 0 becomes a real one with the first socket; the others share that.
            address = local_address(&socket)?;
            worker.push(socket);
        }
        addresses.push((listener.name.clone(), address));
    }
    Ok((workers, addresses))
}

pub(super) fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    probe("admin", address)?;
    bind("admin", address)
}

fn probe(what: &str, address: SocketAddr) -> Result<(), StartError> {
    listener::probe(address).map_err(|source| bind_error(what, address, source))
}

fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener::bind(address).map_err(|source| bind_error(what, address, source))
}

fn bind_error(what: &str, address: SocketAddr, source: io::Error) -> StartError {
    StartError::Bind {
        what: what.to_owned(),
        address,
        source,
    }
}

pub(super) fn local_address(socket: &TcpListener) -> Result<SocketAddr, StartError> {
    socket.local_addr().map_err(StartError::Worker)
}
