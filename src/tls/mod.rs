//! TLS for clients: [`Terminator::accept`] turns a socket into a [`Accepted`] stream, with the
//! client's certificate as a [`VerifiedPeer`] if it showed one. TLS to servers: [`Initiator`].
//!
//! A *policy* is what one group of server names demands (certificate, client authentication,
//! versions). It is chosen by the name in the ClientHello, never by anything that comes later, and
//! each has its own session tickets. Who the peer is, and what it may do, is decided further on.

mod client_verifier;
mod initiator;
mod own_certificate;
mod peer;
mod plain_http;
mod policy;
mod server;
mod signatures;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

pub use client_verifier::{ClientCertificateError, Reason};
pub use initiator::{IdentityFiles, Initiator, InitiatorSettings, NameError};
pub use peer::VerifiedPeer;
pub use policy::{
    ClientAuth, DEFAULT_POLICY, MinVersion, Policies, Policy, PolicyError, PolicySettings, Settings,
};
pub use server::TlsError;
pub use trust::TrustError;

use plain_http::{Beginning, PlainHttp};

use crate::clock::Clock;

/// Accepts TLS on one listener, under policies that can be replaced while it runs.
#[derive(Debug)]
pub struct Terminator {
    policies: ArcSwap<Policies>,
    clock: Arc<dyn Clock>,
}

/// A connection whose handshake is done and whose peer has passed every check of its policy.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The decrypted stream.
    pub stream: TlsStream<IO>,
    /// The client's certificate chain; `None` where the policy allows its absence.
    pub peer: Option<VerifiedPeer>,
    /// The policy that the handshake was made under.
    pub policy: Arc<Policy>,
    /// All policies that were in force then.
    pub policies: Arc<Policies>,
    /// How the session came about.
    pub kind: Resumed,
    /// What both sides have agreed on.
    pub agreed: Agreed,
}

/// What a handshake has agreed on, for those who are told of the client.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// The version, as OpenSSL writes it.
    pub version: &'static str,
    /// The protocol, by ALPN (RFC 7301).
    pub protocol: Option<&'static str>,
    /// The server name that the client asked for (RFC 6066 §3).
    pub server_name: Option<Box<str>>,
}

impl Agreed {
    fn of(session: &ServerConnection) -> Self {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let protocol = match session.alpn_protocol() {
            Some(b"h2") => Some("h2"),
            Some(b"http/1.1") => Some("http/1.1"),
            Some(b"http/1.0") => Some("http/1.0"),
            Some(b"mqtt") => Some("mqtt"),
            _ => None,
        };
        Self {
            version,
            protocol,
            server_name: session.server_name().map(Into::into),
        }
    }
}

/// Whether a session was resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// A full handshake: the client has proven possession of its key now.
    No,
    /// A ticket was accepted: the client proved it when the ticket was issued.
    Yes,
}

/// Why a connection got no further than its handshake.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The handshake was not complete in time.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The client named no server and `tls.without_server_name` refuses that.
    #[error("the client sent no server name (SNI) and tls.without_server_name is \"refuse\"")]
    NoServerName,
    /// The client has sent a request as it is, and been told.
    #[error("the client speaks HTTP without TLS")]
    PlainHttp,
    /// The peer or the network failed; holds rustls' own error.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The client's certificate does not pass, now or, in a resumed session, any longer.
    #[error(transparent)]
    Peer(#[from] ClientCertificateError),
}

impl HandshakeError {
    /// What was wrong with the client's certificate, if that was the cause.
    #[must_use]
    pub fn certificate(&self) -> Option<&ClientCertificateError> {
        match self {
            Self::Peer(error) => Some(error),
            Self::Timeout(_) | Self::NoServerName | Self::PlainHttp | Self::Io(_) => None,
        }
    }
}

impl Terminator {
    /// Serves `policies` until they are replaced.
    #[must_use]
    pub fn new(policies: Policies, clock: Arc<dyn Clock>) -> Self {
        Self {
            policies: ArcSwap::from_pointee(policies),
            clock,
        }
    }

    /// The policies that new connections meet now.
    #[must_use]
    pub fn policies(&self) -> Arc<Policies> {
        self.policies.load_full()
    }

    /// Puts `policies` in force for every handshake from now on. Tickets of the former policies
    /// are worthless afterwards, because every policy holds its own ticket keys.
    pub fn replace(&self, policies: Policies) {
        self.policies.store(Arc::new(policies));
    }

    /// Carries out the handshake on `io`.
    ///
    /// # Errors
    /// [`HandshakeError`]; the peer has been sent the matching alert where TLS has one.
    pub async fn accept<IO>(&self, io: IO) -> Result<Accepted<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let most = self.policies.load().handshake_timeout;
        tokio::time::timeout(most, self.handshake(io))
            .await
            .unwrap_or(Err(HandshakeError::Timeout(most)))
    }

    async fn handshake<IO>(&self, mut io: IO) -> Result<Accepted<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = rustls::server::Acceptor::default();
        let accepted = LazyConfigAcceptor::new(hello, Beginning::of(&mut io))
            .await
            .map(|start| start.accepted);
        let start = match accepted {
            Ok(accepted) => StartHandshake::from_parts(accepted, io),
            Err(error) if PlainHttp::has_caused(&error) => {
                end_with(io, plain_http::ANSWER).await;
                return Err(HandshakeError::PlainHttp);
            }
            Err(error) => return Err(error.into()),
        };
        let policies = self.policies.load_full();
        let Some(policy) = policies.for_server_name(start.client_hello().server_name()) else {
            end_with(start.io, &FATAL_MISSING_EXTENSION).await;
            return Err(HandshakeError::NoServerName);
        };
        let policy = Arc::clone(policy);
        let handshake = start.into_stream(Arc::clone(&policy.config));
        let (outcome, refusal) = client_verifier::watch(handshake.into_fallible()).await;
        let stream = match outcome {
            Ok(stream) => stream,
            Err((error, io)) => {
                linger(io).await;
                return Err(refusal.map_or(error.into(), HandshakeError::Peer));
            }
        };
        let kind = match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Resumed) => Resumed::Yes,
            _ => Resumed::No,
        };
        let peer = match self.peer(&stream, &policy) {
            Ok(peer) => peer,
            Err(error) => {
                // The handshake is over, and rustls offers no alert but close_notify from here on.
                linger(stream).await;
                return Err(error.into());
            }
        };
        Ok(Accepted {
            agreed: Agreed::of(stream.get_ref().1),
            stream,
            peer,
            policy,
            policies,
            kind,
        })
    }

    /// Reads the chain of an established session. rustls runs no verifier on resumption, so what
    /// time can change about a certificate is checked here, on every connection alike; what an
    /// operator can change (trust, policy) takes the ticket keys with it.
    fn peer<IO>(
        &self,
        stream: &TlsStream<IO>,
        policy: &Policy,
    ) -> Result<Option<VerifiedPeer>, ClientCertificateError> {
        let Some(chain) = stream.get_ref().1.peer_certificates() else {
            return Ok(None);
        };
        let Some(verifier) = &policy.verifier else {
            return Ok(None);
        };
        verifier.established(chain, self.clock.now()).map(Some)
    }
}

/// RFC 6066 §3 has no alert for a missing name; RFC 8446 §6.2 `missing_extension` (109) says it.
const FATAL_MISSING_EXTENSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 109];

async fn end_with<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, last_words: &[u8]) {
    // The connection ends either way.
    let _ = io.write_all(last_words).await;
    linger(io).await;
}

/// Ends a refused connection so that its alert arrives: a TLS 1.3 client has sent its first request
/// before it is refused, and closing with that unread would answer with a reset instead.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    const MOST: u64 = 64 * 1024;
    const LONGEST: Duration = Duration::from_secs(1);
    let _ = io.shutdown().await;
    let mut rest = io.take(MOST);
    let _ = tokio::time::timeout(LONGEST, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
