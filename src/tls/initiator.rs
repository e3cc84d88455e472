//! TLS to servers: [`Initiator::connect`] turns a new connection into an encrypted one, once the
//! server has shown a certificate of a configured authority for the name that was asked for
//! (RFC 9525). There is no way to go on without that.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::policy::MinVersion;
use super::server::{ClockTime, TlsError, both, identity, setting, trust, versions};
use crate::clock::Clock;

/// TLS to the servers of one upstream, as configured.
#[derive(Debug, Clone)]
pub struct InitiatorSettings {
    /// PEM files of the authorities that issue the servers' certificates.
    pub ca: Vec<PathBuf>,
    /// The name that the certificates must be for; the name in the server's address if `None`.
    pub server_name: Option<ServerName<'static>>,
    /// What the gateway shows of itself, if it does.
    pub identity: Option<IdentityFiles>,
    /// The oldest TLS version.
    pub min_version: MinVersion,
}

/// The gateway's own certificate for servers that ask for one.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// PEM file: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the private key of that certificate.
    pub key: PathBuf,
}

/// Begins TLS with servers.
#[derive(Debug)]
pub struct Initiator {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// The host of a server's address is no name that a certificate could be for.
#[derive(Debug, Error)]
#[error("\"{host}\" is no name for a certificate: {source}")]
pub struct NameError {
    host: String,
    source: InvalidDnsNameError,
}

impl Initiator {
    /// Reads every file that `settings` names.
    ///
    /// # Errors
    /// [`TlsError`] for every file that is missing or unfit.
    pub fn load(
        settings: &InitiatorSettings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Vec<TlsError>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = |files: &IdentityFiles| identity(&files.certificate, &files.key, &provider);
        let (trust, own) = both(
            trust("ca", &settings.ca, clock.now()),
            settings.identity.as_ref().map(own).transpose(),
        )?;
        let time = Arc::new(ClockTime(Arc::clone(clock)));
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|source| vec![setting("min_version", source)])?
            .with_root_certificates(trust.roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        };
        // rustls verifies nothing on resumption, and what a session remembers of a certificate does
        // not change when the server renews it. So every connection verifies; most are pooled.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            server_name: settings.server_name.clone(),
        })
    }

    /// Carries out the handshake on `io`, a connection to `host`, to speak `protocol`; none is offered if
    /// that is `None`.
    ///
    /// # Errors
    /// What rustls says of the server's certificate, or [`NameError`].
    pub async fn connect<IO>(
        &self,
        io: IO,
        host: &str,
        protocol: Option<&'static str>,
    ) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host).map_err(io::Error::other)?,
        };
        let stream = TlsConnector::from(Arc::clone(&self.config))
            .with_alpn(protocol.into_iter().map(Vec::from).collect())
            .connect(name, io)
            .await?;
        // Servers of one protocol alone often know nothing of ALPN, and agree by their silence; but
        // HTTP/2 must be agreed on (RFC 9113 §3.2).
        if protocol == Some("h2") && stream.get_ref().1.alpn_protocol().is_none() {
            return Err(io::Error::other(
                "the server does not agree to speak HTTP/2",
            ));
        }
        Ok(stream)
    }
}

/// A DNS name, or an address with or without the brackets of RFC 3986 §3.2.2.
fn server_name(host: &str) -> Result<ServerName<'static>, NameError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match ServerName::try_from(bare) {
        Ok(name) => Ok(name.to_owned()),
        Err(source) => Err(NameError {
            host: host.to_owned(),
            source,
        }),
    }
}
