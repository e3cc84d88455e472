//! An origin that says, byte for byte, what a test tells it to.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Longer than anything here takes; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listening origin without a will of its own.
pub struct Scripted {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// One connection of the gateway to it.
pub struct Peer<IO = TcpStream> {
    pub stream: IO,
    unread: Vec<u8>,
}

impl Scripted {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    /// An upstream of this origin and the route `/raw/` to it.
    pub fn tables(&self) -> String {
        tables(self.address)
    }

    /// Panics if the gateway has dialled. Connections are accepted in the order in which they were
    /// opened, so one of our own shows that none is on its way.
    pub async fn assert_undialled(&self) {
        let probe = TcpStream::connect(self.address).await.unwrap();
        let peer = self.accept().await;
        let first = peer.stream.peer_addr().unwrap();
        assert_eq!(
            first,
            probe.local_addr().unwrap(),
            "the gateway has dialled"
        );
    }

    /// The next connection of the gateway.
    pub async fn accept(&self) -> Peer {
        let arrival = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = arrival.await.expect("the gateway does not dial").unwrap();
        Peer::new(stream)
    }
}

/// An upstream at `address` and the route `/raw/` to it.
pub fn tables(address: SocketAddr) -> String {
    tables_with(address, "")
}

/// The same with these lines for the upstream.
pub fn tables_with(address: impl Display, lines: &str) -> String {
    format!(
        "[upstreams.raw]\nservers = [\"{address}\"]\n{lines}\n\
         [routes.raw]\npath = \"/raw/\"\nupstream = \"raw\"\n"
    )
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Peer<IO> {
    pub fn new(stream: IO) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// The next head, in lower case; panics if the gateway closes before its end.
    pub async fn head(&mut self) -> String {
        self.head_as_sent().await.to_ascii_lowercase()
    }

    /// The next head, letter for letter.
    pub async fn head_as_sent(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(4).position(|end| end == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..at + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let read = self.read().await.unwrap();
            assert_ne!(read, 0, "the gateway has closed");
        }
    }

    /// The next `count` bytes, whatever they are.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert_ne!(self.read().await.unwrap(), 0, "the gateway has closed");
        }
        self.unread.drain(..count).collect()
    }

    /// Sends these bytes.
    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        // TLS may have taken what the network has not yet.
        self.stream.flush().await.unwrap();
    }

    /// Waits until the gateway closes; panics if it says anything.
    pub async fn closed(mut self) {
        // A reset is an end as well.
        let read = self.read().await.unwrap_or(0);
        assert_eq!((read, self.unread.len()), (0, 0));
    }

    async fn read(&mut self) -> std::io::Result<usize> {
        tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.unread))
            .await
            .expect("the gateway says nothing")
    }
}

/// The 101 to a WebSocket's opening with this head.
pub fn websocket_answer(head: &str) -> String {
    let lower = head.to_ascii_lowercase();
    let (before, _) = lower.split_once("sec-websocket-key: ").expect("no key");
    let key = &head[before.len() + "sec-websocket-key: ".len()..];
    let key = key.lines().next().unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}
