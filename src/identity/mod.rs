//! Who a device is, read from the DER of its verified certificate and from nothing else.
//!
//! The common name is the client secret, so it goes into a [`Secret`]; logs, metrics and balancing
//! know a device by the SHA-256 fingerprint of its certificate.

mod subject;

use std::sync::Arc;

pub use subject::{SubjectError, common_name};

use crate::secret::Secret;
use crate::tls::VerifiedPeer;

/// A device that has proven possession of its certificate's key.
#[derive(Debug)]
pub struct DeviceIdentity {
    fingerprint: Arc<str>,
    client_secret: Secret,
    not_after: u64,
}

impl DeviceIdentity {
    /// Reads the identity out of `peer`'s certificate.
    ///
    /// # Errors
    /// [`SubjectError`] if the subject does not hold exactly one usable common name.
    pub fn from_peer(peer: &VerifiedPeer) -> Result<Self, SubjectError> {
        Ok(Self {
            fingerprint: Arc::clone(peer.fingerprint()),
            client_secret: subject::common_name(peer.subject())?,
            not_after: peer.not_after(),
        })
    }

    /// SHA-256 of the certificate, lowercase hexadecimal: the name that logs use.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The secret that the certificate carries in its common name.
    #[must_use]
    pub fn client_secret(&self) -> &Secret {
        &self.client_secret
    }

    /// Whether the certificate has expired at `now` (seconds since the Unix epoch).
    #[must_use]
    pub fn has_expired(&self, now: u64) -> bool {
        now > self.not_after
    }

    /// When the certificate expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }
}
