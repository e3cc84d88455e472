//! One connection to one server: opened in time, and introduced if the server wants to know whom
//! it is for. Which server, and whether a connection serves again, is decided elsewhere.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Settings;
use super::proxy_protocol::{Introduction, ProxyProtocol};

/// Opens a connection to `server`, one of `settings`, for `client` or for the gateway's own sake.
///
/// # Errors
/// What the system says; `TimedOut` after `settings.connect_timeout`.
pub(super) async fn connect(
    settings: &Settings,
    server: &str,
    client: Option<&Introduction<'_>>,
) -> io::Result<TcpStream> {
    let connected = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        if settings.proxy_protocol != ProxyProtocol::Off {
            let header = settings.proxy_protocol.header(client)?;
            stream.write_all(&header).await?;
        }
        Ok(stream)
    };
    tokio::time::timeout(settings.connect_timeout, connected)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
