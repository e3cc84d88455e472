//! [`VerifiedToken`]: the proof that a token was verified, and what it says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

/// Made by [`super::Verifier`] alone.
#[derive(PartialEq, Eq)]
pub struct VerifiedToken {
    pub(super) provider: Arc<str>,
    pub(super) subject: Option<String>,
    pub(super) expires: Option<u64>,
    pub(super) certificate: Option<String>,
    pub(super) claims: Map<String, Value>,
    pub(super) recheck: Option<Duration>,
}

impl VerifiedToken {
    /// The name of the provider that vouches for it.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Whose it is.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When it ends (`exp`), in seconds since the Unix epoch.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The certificate that whoever presents it must have shown (RFC 8705 §3), by the SHA-256 of its
    /// DER in lower-case hexadecimal; `None` if anybody may present it.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// How often whoever can take it back is asked whether it has, while its user stays; `None` if nobody
    /// is.
    #[must_use]
    pub fn recheck(&self) -> Option<Duration> {
        self.recheck
    }

    /// Everything it says.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Claims are personal data: names, addresses, roles.
impl fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedToken")
            .field("provider", &self.provider)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
