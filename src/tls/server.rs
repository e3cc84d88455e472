//! From one policy's settings to rustls' `ServerConfig`: versions, ALPN, certificate, tickets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, UnixTime};
use thiserror::Error;
use zeroize::Zeroizing;

use super::client_verifier::{ClientVerifier, hints};
use super::own_certificate;
use super::policy::{ClientAuth, MinVersion, Policy, PolicySettings};
use super::signatures::KnownSignatures;
use super::trust::{Trust, TrustError, read_certificates};
use crate::clock::Clock;

/// Why a policy cannot be served, or TLS to servers not be spoken, beginning with the key that is at
/// fault.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of certificates is unfit.
    #[error("{key}: {source}")]
    Certificates {
        /// The key that names it.
        key: &'static str,
        /// What is wrong with it.
        source: TrustError,
    },
    /// The private key cannot be read.
    #[error("key: cannot read the private key {path}: {detail}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What the decoder or the system said.
        detail: String,
    },
    /// The private key wants a passphrase.
    #[error(
        "key: cannot read the private key {path}: it is encrypted, and nobody is asked for a passphrase \
         here; decrypt it (openssl pkey)"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or rustls cannot use them.
    #[error("key: certificate {certificate} and key {key} cannot be used: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// rustls' own words.
        source: rustls::Error,
    },
    /// The library refused a setting.
    #[error("{key}: {source}")]
    Setting {
        /// Its key.
        key: &'static str,
        /// rustls' own words.
        source: rustls::Error,
    },
}

/// Makes a policy of the files that it names; or says what is wrong with each of them.
pub(super) fn policy(
    settings: &PolicySettings,
    alpn: &[&str],
    clock: &Arc<dyn Clock>,
) -> Result<Policy, Vec<TlsError>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (key, verifier) = both(
        identity(&settings.certificate, &settings.key, &provider),
        verifier(settings, &provider, clock.now()),
    )?;
    let valid_until = key
        .end_entity_cert()
        .ok()
        .and_then(|leaf| own_certificate::judge(settings, leaf, clock.now()));
    let time = Arc::new(ClockTime(Arc::clone(clock)));
    let builder = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(versions(settings.min_version))
        .map_err(|source| vec![setting("min_version", source)])?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One is enough for a device; each costs the sealing of its whole chain.
    config.send_tls13_tickets = usize::from(settings.resumption);
    if settings.resumption {
        // Keys of its own for every policy and every reload: what one policy has verified opens
        // no other, and nothing once trust has changed.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|source| vec![setting("resumption", source)])?;
    }
    Ok(Policy {
        name: settings.name.clone(),
        server_names: settings.server_names.clone(),
        config: Arc::new(config),
        verifier,
        valid_until,
    })
}

/// Both, or everything that is wrong with either.
pub(super) fn both<A, B, E>(
    one: Result<A, Vec<E>>,
    other: Result<B, Vec<E>>,
) -> Result<(A, B), Vec<E>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => {
            let errors = one.err().into_iter().chain(other.err());
            Err(errors.flatten().collect())
        }
    }
}

pub(super) fn setting(key: &'static str, source: rustls::Error) -> TlsError {
    TlsError::Setting { key, source }
}

pub(super) fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match min {
        MinVersion::Tls12 => &FROM_TLS12,
        MinVersion::Tls13 => &FROM_TLS12[..1],
    }
}

/// A certificate, its intermediates and its private key.
pub(super) fn identity(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Vec<TlsError>> {
    let chain = read_certificates(certificate).map_err(|source| {
        vec![TlsError::Certificates {
            key: "certificate",
            source,
        }]
    });
    let (chain, private) = both(chain, read_key(key).map_err(|error| vec![error]))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|source| {
        vec![TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        }]
    })
}

/// The authorities of the files that `key` names.
pub(super) fn trust(
    key: &'static str,
    files: &[PathBuf],
    now: u64,
) -> Result<Trust, Vec<TlsError>> {
    Trust::read(files, now).map_err(|errors| {
        let named = |source| TlsError::Certificates { key, source };
        errors.into_iter().map(named).collect()
    })
}

/// The private key of a PEM file.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unreadable = |detail: String| TlsError::Key {
        path: path.to_owned(),
        detail,
    };
    let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = Zeroizing::new(text);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        if is_encrypted(&text) {
            TlsError::EncryptedKey {
                path: path.to_owned(),
            }
        } else {
            unreadable(error.to_string())
        }
    })
}

/// RFC 7468 §11, and as OpenSSL did it before (RFC 1421 §4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| memmem::find(pem, mark.as_bytes()).is_some())
}

fn verifier(
    policy: &PolicySettings,
    provider: &CryptoProvider,
    now: u64,
) -> Result<Option<Arc<ClientVerifier>>, Vec<TlsError>> {
    let mandatory = match policy.client_auth {
        ClientAuth::Off => return Ok(None),
        ClientAuth::Optional => false,
        ClientAuth::Required => true,
    };
    let trust = trust("client_ca", &policy.client_ca, now)?;
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
