//! One HTTP/2 connection of a client, with what its libraries hide: extended CONNECT (RFC 8441) and
//! the peer's settings.

use std::io;

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Client, PATIENCE};

/// An open connection.
pub struct Multiplexed {
    pub sender: SendRequest<Bytes>,
    pub host: String,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A WebSocket in a stream.
pub type Socket = WebSocketStream<DuplexStream>;

/// What came instead of a WebSocket.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub body: Vec<u8>,
}

impl Client {
    /// Opens a connection and waits for the gateway's settings.
    pub async fn multiplex(&self) -> io::Result<Multiplexed> {
        let stream = self.connect(&["h2"]).await?;
        let (sender, mut connection) = h2::client::handshake(stream).await.unwrap();
        let mut ping = connection.ping_pong().unwrap();
        let connection = tokio::spawn(connection);
        // The answer comes behind the settings.
        let answer = tokio::time::timeout(PATIENCE, ping.ping(h2::Ping::opaque()));
        answer
            .await
            .expect("no pong comes")
            .map_err(io::Error::other)?;
        Ok(Multiplexed {
            sender,
            host: self.host.clone(),
            connection,
        })
    }
}

impl Multiplexed {
    /// A request with this method and, for CONNECT, this `:protocol`.
    pub fn request(
        &self,
        method: Method,
        protocol: Option<&'static str>,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Request<()> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.host));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        if let Some(protocol) = protocol {
            request
                .extensions_mut()
                .insert(Protocol::from_static(protocol));
        }
        request
    }

    /// Sends `request`; its stream stays open.
    pub async fn send(
        &mut self,
        request: Request<()>,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        let (answer, stream) = self.sender.send_request(request, false)?;
        let answer = tokio::time::timeout(PATIENCE, answer);
        Ok((answer.await.expect("no answer comes")?, stream))
    }

    /// GET, and the whole answer.
    pub async fn get(&mut self, path: &str) -> Result<(StatusCode, Vec<u8>), h2::Error> {
        let request = self.request(Method::GET, None, path, &[]);
        poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        let (answer, _) = self.sender.send_request(request, true)?;
        let (head, body) = answer.await?.into_parts();
        Ok((head.status, read(body).await?))
    }

    /// A WebSocket by extended CONNECT, or why there is none.
    pub async fn open_websocket(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<(Socket, HeaderMap), Refused> {
        let all = [&[("sec-websocket-version", "13")], fields].concat();
        let request = self.request(Method::CONNECT, Some("websocket"), path, &all);
        let (answer, stream) = self.send(request).await.unwrap();
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(Refused {
                status: head.status,
                body: read(body).await.unwrap(),
            });
        }
        let bytes = as_bytes(body, stream);
        let socket = WebSocketStream::from_raw_socket(bytes, Role::Client, None).await;
        Ok((socket, head.headers))
    }
}

async fn read(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Both halves of a stream as one stream of bytes.
fn as_bytes(mut body: RecvStream, mut stream: SendStream<Bytes>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (mut out, mut into) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(data)) = body.data().await {
            let length = data.len();
            if into.write_all(&data).await.is_err() {
                return;
            }
            let _ = body.flow_control().release_capacity(length);
        }
        let _ = into.shutdown().await;
    });
    tokio::spawn(async move {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let length = out.read(&mut chunk).await.unwrap_or(0);
            let mut rest = Bytes::copy_from_slice(&chunk[..length]);
            if length == 0 {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                match poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(room)) => {
                        let part = rest.split_to(room.min(rest.len()));
                        if stream.send_data(part, false).is_err() {
                            return;
                        }
                    }
                    _ => return stream.send_reset(Reason::CANCEL),
                }
            }
        }
    });
    near
}
