//! From one policy's settings to rustls' `ServerConfig`: versions, ALPN, certificate, tickets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, UnixTime};
use thiserror::Error;

use super::client_verifier::{ClientVerifier, hints};
use super::policy::{ClientAuth, MinVersion, PolicySettings};
use super::signatures::KnownSignatures;
use super::trust::{Trust, TrustError, read_certificates};
use crate::clock::Clock;

/// Why a policy cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of certificates is unfit.
    #[error(transparent)]
    Certificates(#[from] TrustError),
    /// The private key cannot be read.
    #[error("cannot read the private key {path}: {detail}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What the decoder or the system said.
        detail: String,
    },
    /// Certificate and key do not belong together, or rustls cannot use them.
    #[error("certificate {certificate} and key {key} cannot be used: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// rustls' own words.
        source: rustls::Error,
    },
    /// The library refused the combination of settings.
    #[error("TLS policy \"{policy}\": {source}")]
    Policy {
        /// The policy's name.
        policy: String,
        /// rustls' own words.
        source: rustls::Error,
    },
    /// As above, for connections to servers.
    #[error("TLS to servers: {0}")]
    Initiator(#[source] rustls::Error),
}

/// Builds the configuration and, where clients show certificates, their verifier.
pub(super) fn config(
    policy: &PolicySettings,
    alpn: &[&str],
    clock: &Arc<dyn Clock>,
) -> Result<(ServerConfig, Option<Arc<ClientVerifier>>), TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |source| TlsError::Policy {
        policy: policy.name.clone(),
        source,
    };
    let key = certified_key(policy, &provider)?;
    let verifier = verifier(policy, &provider, clock.now())?;
    let time = Arc::new(ClockTime(Arc::clone(clock)));
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
        .with_protocol_versions(versions(policy.min_version))
        .map_err(unusable)?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is enough for a device; each costs the sealing of its whole chain.
    config.send_tls13_tickets = usize::from(policy.resumption);
    if policy.resumption {
        // Keys of its own for every policy and every reload: what one policy has verified opens
        // no other, and nothing once trust has changed.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(unusable)?;
    }
    Ok((config, verifier))
}

pub(super) fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        MinVersion::Tls12 => &FROM_TLS12,
        MinVersion::Tls13 => &FROM_TLS12[..1],
    }
}

fn certified_key(
    policy: &PolicySettings,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(&policy.certificate)?;
    let key = read_key(&policy.key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
        certificate: policy.certificate.clone(),
        key: policy.key.clone(),
        source,
    })
}

/// The private key of a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::Key {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

fn verifier(
    policy: &PolicySettings,
    provider: &rustls::crypto::CryptoProvider,
    now: u64,
) -> Result<Option<Arc<ClientVerifier>>, TlsError> {
    let mandatory = match policy.client_auth {
        ClientAuth::Off => return Ok(None),
        ClientAuth::Optional => false,
        ClientAuth::Required => true,
    };
    let trust = Trust::read(&policy.client_ca, now)?;
    Ok(Some(Arc::new(ClientVerifier {
        hints: hints(&trust),
        trust,
        algorithms: provider.signature_verification_algorithms,
        known: KnownSignatures::default(),
        mandatory,
        legacy: policy.legacy_certificates,
        max_depth: policy.max_chain_depth,
    })))
}

/// Our clock as rustls' source of time.
#[derive(Debug)]
pub(super) struct ClockTime(pub(super) Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            self.0.now(),
        )))
    }
}
