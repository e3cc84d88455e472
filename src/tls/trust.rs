//! Trust anchors for client certificates, read from the operator's files and nowhere else.
//!
//! A file that is missing, empty or not what it should be is an error, never a smaller or a larger
//! trust: system roots are not consulted.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::client_verifier::fingerprint;

/// SHA-256 of the public keys whose private keys lie in public source repositories, with the
/// place that published them. Whoever trusts one of these trusts everybody.
const PUBLISHED_KEYS: [(&str, &str); 13] = [
    (
        "309ebf6d576628061361faa8cd68f0f954baa72821380a9a9f2538be0f67e238",
        "absmach/supermq, docker/ssl/certs",
    ),
    (
        "0249d76b052f0583f1f9d55a6d8a59d8a41f75fc5788f5d43fee80602bededf1",
        "absmach/magistrala, docker/ssl/certs",
    ),
    (
        "06386cb5e4c140ef5e0ceafe15cf16d331486a5ee8174ca46f1ce65e9258b77c",
        "absmach/magistrala, docker/ssl/certs",
    ),
    (
        "72376304485c5a309e8ba9f8c6fc61a59974ecd8afc3a29aa22bba2f61fc1d1a",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "40c71e25b97ad01fef18208942147789610e04ad3a8efe8f944b06020dc1a491",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "ac3d441c6ca599a90e82d055eef3a0b6543a8fbbeb379f967c59c0e543970468",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "879534aafa4b91c4cb14e1e5578b00febdada1bad25bae0a526f7dfcf78d5105",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "ab5b95d9679666aaf5647080df37bb64a88e8b05634d9268a89bf31176afa80c",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "0af0c80726b3633f404d431a7fcfaf66b3a6d145c55013e9b4c271e5f3b9b08d",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "82ea1e4c958a0427e4a769e16f2522fe82314da5103b229938f050f09b4c5fd0",
        "mainflux/mainflux, docker/ssl/certs",
    ),
    (
        "9f978ef9eaad4829082246c04433931be3e41940722abf7b5112fea5ef1209ea",
        "absmach/mgate, ssl/certs",
    ),
    (
        "b51acd6a60ccd56058fac81ec197b5314302a4eb68742956909d7eee18235c1c",
        "absmach/mgate, ssl/certs",
    ),
    (
        "9779c544cb36c469cce0defda314a1daa320ee5200b5dcef7885baf79a8e83f2",
        "absmach/mgate, ssl/certs",
    ),
];

/// Why a bundle of certificate authorities cannot be trusted.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not PEM, or a block of it is damaged.
    #[error("{path} is not a PEM file of certificates: {detail}")]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        detail: String,
    },
    /// The file holds no certificate.
    #[error("{path} holds no certificate")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in the file may not sign others (RFC 5280 §4.2.1.9).
    #[error("{path}: {subject} is not a certificate authority (version 3 with CA:TRUE)")]
    NotAnAuthority {
        /// The file.
        path: PathBuf,
        /// Whose certificate.
        subject: String,
    },
    /// The authority's private key is public.
    #[error(
        "{path}: {subject} is refused: its private key is published ({place}), so anyone can sign \
         certificates with it; make your own with `make ca`"
    )]
    PublishedKey {
        /// The file.
        path: PathBuf,
        /// Whose certificate.
        subject: String,
        /// Where the key can be found.
        place: &'static str,
    },
    /// Every authority of the bundle has expired.
    #[error("every certificate authority in {path} has expired")]
    Expired {
        /// The file.
        path: PathBuf,
    },
}

/// The authorities of one policy: for path building, and parsed for the legacy check.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) roots: RootCertStore,
    pub(super) authorities: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Reads every authority of `files`, leaving out those that have expired at `now`; or says what is
    /// wrong with each file that is unfit.
    pub(super) fn read(files: &[PathBuf], now: u64) -> Result<Self, Vec<TrustError>> {
        let mut trust = Self {
            roots: RootCertStore::empty(),
            authorities: Vec::new(),
        };
        let errors: Vec<_> = files
            .iter()
            .filter_map(|path| trust.add_file(path, now).err())
            .collect();
        if errors.is_empty() {
            Ok(trust)
        } else {
            Err(errors)
        }
    }

    fn add_file(&mut self, path: &Path, now: u64) -> Result<(), TrustError> {
        let certificates = read_certificates(path)?;
        let before = self.authorities.len();
        for certificate in certificates {
            if check_authority(path, &certificate, now)? {
                let garbage = |error: rustls::Error| garbage(path, error);
                self.roots.add(certificate.clone()).map_err(garbage)?;
                self.authorities.push(certificate);
            }
        }
        if self.authorities.len() == before {
            return Err(TrustError::Expired { path: path.into() });
        }
        Ok(())
    }
}

/// All certificates of a PEM file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let text = std::fs::read(path).map_err(|source| TrustError::Unreadable {
        path: path.into(),
        source,
    })?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| garbage(path, error))?;
    if certificates.is_empty() {
        return Err(TrustError::Empty { path: path.into() });
    }
    Ok(certificates)
}

/// Whether the authority is still valid; an error if it must not be trusted at all.
fn check_authority(path: &Path, der: &CertificateDer<'_>, now: u64) -> Result<bool, TrustError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| garbage(path, error))?;
    let subject = certificate.subject().to_string();
    let may_sign = certificate.version() == X509Version::V3 && certificate.is_ca();
    if !may_sign {
        return Err(TrustError::NotAnAuthority {
            path: path.into(),
            subject,
        });
    }
    if let Some(place) = published(certificate.public_key().raw) {
        return Err(TrustError::PublishedKey {
            path: path.into(),
            subject,
            place,
        });
    }
    let expires = certificate.validity().not_after.timestamp();
    let valid = i64::try_from(now).is_ok_and(|now| now <= expires);
    if !valid {
        tracing::warn!(%subject, path = %path.display(), "certificate authority has expired and is left out");
    }
    Ok(valid)
}

fn published(public_key: &[u8]) -> Option<&'static str> {
    let digest = fingerprint(public_key);
    PUBLISHED_KEYS
        .iter()
        .find(|(key, _)| *key == digest)
        .map(|(_, place)| *place)
}

fn garbage(path: &Path, detail: impl std::fmt::Display) -> TrustError {
    TrustError::Garbage {
        path: path.into(),
        detail: detail.to_string(),
    }
}
