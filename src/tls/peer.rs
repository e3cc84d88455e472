//! [`VerifiedPeer`]: the proof that a client's chain has passed. Only this room makes one.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::client_verifier::{ClientCertificateError, Reason};

/// A certificate chain that a client has proven to own and that its policy accepts.
#[derive(Debug, Clone)]
pub struct VerifiedPeer {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) fingerprint: Arc<str>,
    pub(super) subject: Vec<u8>,
    pub(super) not_after: u64,
}

impl VerifiedPeer {
    /// SHA-256 of the leaf's DER in lowercase hexadecimal: what logs may show of it.
    #[must_use]
    pub fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// The leaf, DER.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf)
    }

    /// All that the client has sent, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's subject, the DER of an RFC 5280 `Name`.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// When the leaf expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The error that this peer's certificate counts no longer.
    pub(super) fn refused(&self, reason: Reason) -> ClientCertificateError {
        ClientCertificateError {
            fingerprint: self.fingerprint.to_string(),
            reason,
        }
    }
}
