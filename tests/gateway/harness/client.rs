//! Clients: HTTP/1.1, HTTP/2 and WebSocket over TLS, and the bare TLS stream for bytes that no
//! library would send.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

use super::Identity;

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    WebSocket,
}

pub const EVERY_PROTOCOL: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::WebSocket];

/// One client; each request opens a connection of its own, so that each meets a handshake.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub server_name: ServerName<'static>,
    pub host: String,
    config: ClientConfig,
    /// What a proxy in front says before the handshake.
    preface: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Client {
    pub fn new(
        address: SocketAddr,
        authority: &CertificateDer<'static>,
        identity: Option<Identity>,
    ) -> Self {
        Self::with_versions(address, authority, identity, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(
        address: SocketAddr,
        authority: &CertificateDer<'static>,
        identity: Option<Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        Self::with_provider(address, authority, identity, versions, default_provider())
    }

    /// A client with other cryptography than the usual.
    pub fn with_provider(
        address: SocketAddr,
        authority: &CertificateDer<'static>,
        identity: Option<Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        provider: CryptoProvider,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(identity) => builder.with_client_cert_resolver(shows_always(identity)),
            None => builder.with_no_client_auth(),
        };
        let server_name = ServerName::try_from("localhost").unwrap();
        Self {
            address,
            server_name,
            host: format!("localhost:{}", address.port()),
            config,
            preface: Vec::new(),
        }
    }

    /// The same client behind a proxy that says this first.
    pub fn behind(mut self, preface: impl Into<Vec<u8>>) -> Self {
        self.preface = preface.into();
        self
    }

    /// The same client asking for another server, in SNI and Host.
    pub fn asking_for(mut self, name: &'static str) -> Self {
        self.server_name = ServerName::try_from(name).unwrap();
        self.host = name.to_owned();
        self
    }

    /// The same client naming another host than in SNI.
    pub fn with_host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// The same client sending no SNI.
    pub fn without_server_name(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    /// The TLS configuration, for what only one test needs.
    pub fn tls(&mut self) -> &mut ClientConfig {
        &mut self.config
    }

    /// An open TLS stream that offers `alpn`.
    pub async fn connect(&self, alpn: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.preface).await?;
        TlsConnector::from(Arc::new(config))
            .connect(self.server_name.clone(), stream)
            .await
    }

    /// The alert that a connection ends with. A client of TLS 1.3 takes its handshake for done
    /// before it is refused, so it sends a request and meets the refusal where the answer would be.
    pub async fn alert(&self) -> AlertDescription {
        let error = self.refusal().await;
        match alert_in(&error) {
            Some(alert) => alert,
            None => panic!("the connection ended without an alert: {error}"),
        }
    }

    /// How a connection that is refused ends; panics if it is answered.
    pub async fn refusal(&self) -> io::Error {
        let mut stream = match self.connect(&["http/1.1"]).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let request = format!("GET /http/m HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        // A refusal that is already under way shows in the read.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 64];
        match stream.read(&mut answer).await {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(length) => panic!("answered: {}", String::from_utf8_lossy(&answer[..length])),
            Err(error) => error,
        }
    }

    /// GET over HTTP/1.1.
    pub async fn get(&self, path: &str) -> io::Result<Answer> {
        self.send(Protocol::Http1, path, &[]).await
    }

    /// A request by any protocol, to the same path under the prefix for it.
    pub async fn send(
        &self,
        protocol: Protocol,
        path: &str,
        fields: &[(&str, &str)],
    ) -> io::Result<Answer> {
        match protocol {
            Protocol::Http1 | Protocol::Http2 => {
                self.request(protocol, Method::GET, path, fields, Bytes::new())
                    .await
            }
            Protocol::WebSocket => match self.open_websocket(path, fields).await {
                Ok((_, answer)) => Ok(answer),
                Err(Refused::Answered(answer)) => Ok(*answer),
                Err(Refused::Broken(error)) => Err(error),
            },
        }
    }

    /// Any request by HTTP/1.1 or HTTP/2.
    pub async fn request(
        &self,
        protocol: Protocol,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Bytes,
    ) -> io::Result<Answer> {
        let mut request = Request::builder().method(method);
        request = match protocol {
            Protocol::Http2 => request.uri(format!("https://{}{path}", self.host)),
            Protocol::Http1 | Protocol::WebSocket => request.uri(path).header("host", &self.host),
        };
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let alpn = if protocol == Protocol::Http2 {
            "h2"
        } else {
            "http/1.1"
        };
        let io = TokioIo::new(self.connect(&[alpn]).await?);
        let response = if protocol == Protocol::Http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// A WebSocket, or why there is none.
    pub async fn open_websocket(
        &self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<(WebSocketStream<TlsStream<TcpStream>>, Answer), Refused> {
        let mut request = Request::get(format!("wss://{}{path}", self.host))
            .header("host", &self.host)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header(
                "sec-websocket-key",
                tungstenite::handshake::client::generate_key(),
            );
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let stream = self.connect(&["http/1.1"]).await.map_err(Refused::Broken)?;
        match tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await {
            Ok((socket, response)) => Ok((socket, answer(response))),
            Err(tungstenite::Error::Http(response)) => {
                Err(Refused::Answered(Box::new(answer(*response))))
            }
            Err(error) => Err(Refused::Broken(io::Error::other(error))),
        }
    }

    /// Sends bytes as they are, over HTTP/1.1's ALPN, and reads until the gateway closes.
    pub async fn raw(&self, bytes: &[u8]) -> io::Result<String> {
        let mut stream = self.connect(&["http/1.1"]).await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Shows `identity` whatever it is and whatever the server asks for, as an attacker would: rustls
/// itself refuses a certificate of version 1 and one that its key does not belong to.
fn shows_always(identity: Identity) -> Arc<dyn ResolvesClientCert> {
    let key = default_provider()
        .key_provider
        .load_private_key(identity.key)
        .unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(
        identity.chain,
        key,
    )))
}

fn alert_in(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// Why a WebSocket did not open.
#[derive(Debug)]
pub enum Refused {
    Answered(Box<Answer>),
    Broken(io::Error),
}

fn answer(response: hyper::Response<Option<Vec<u8>>>) -> Answer {
    let (head, body) = response.into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.unwrap_or_default().into(),
    }
}

/// GET without TLS.
pub async fn plain_get(address: SocketAddr, path: &str) -> (u16, String) {
    plain(address, "GET", path, &[("host", "admin")], "").await
}

/// Any request without TLS, on a connection of its own: status and body.
pub async fn plain(
    address: SocketAddr,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
