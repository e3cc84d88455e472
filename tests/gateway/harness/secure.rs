//! A server behind the gateway that speaks TLS, as strictly as a test wants it to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::scripted::Peer;
use super::{Authority, Identity, PATIENCE};

/// A listening server with a certificate.
pub struct Secure {
    pub address: SocketAddr,
    listener: TcpListener,
    config: ServerConfig,
}

impl Secure {
    /// With this certificate, asking for none.
    pub async fn start(identity: Identity) -> Self {
        Self::speaking(rustls::ALL_VERSIONS, identity, None).await
    }

    /// With this certificate, demanding one of `authority`.
    pub async fn demanding(identity: Identity, authority: &Authority) -> Self {
        Self::speaking(rustls::ALL_VERSIONS, identity, Some(authority)).await
    }

    /// The same in these versions of TLS.
    pub async fn speaking(
        versions: &[&'static SupportedProtocolVersion],
        identity: Identity,
        authority: Option<&Authority>,
    ) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match authority {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().clone()).unwrap();
                let provider = Arc::new(default_provider());
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let config = builder.with_single_cert(identity.chain, identity.key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            config: config.unwrap(),
        }
    }

    /// Agreeing on one of these protocols alone.
    pub fn agreeing(mut self, alpn: &[&str]) -> Self {
        self.config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// The next connection of the gateway, before its handshake.
    pub async fn accept_tcp(&self) -> TcpStream {
        let arrival = tokio::time::timeout(PATIENCE, self.listener.accept());
        arrival.await.expect("the gateway does not dial").unwrap().0
    }

    /// Carries out the handshake on a connection of the gateway.
    pub async fn shake_hands(&self, stream: TcpStream) -> io::Result<Peer<TlsStream<TcpStream>>> {
        let acceptor = TlsAcceptor::from(Arc::new(self.config.clone()));
        let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream));
        Ok(Peer::new(stream.await.expect("no handshake comes")?))
    }

    /// The next connection of the gateway.
    pub async fn accept(&self) -> io::Result<Peer<TlsStream<TcpStream>>> {
        let stream = self.accept_tcp().await;
        self.shake_hands(stream).await
    }
}
