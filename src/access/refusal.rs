//! [`Refusal`]: why the gate said no, in no protocol's words. For the log; clients learn less.

use thiserror::Error;

use crate::credential::Source;
use crate::identity::SubjectError;

/// Why a client may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The client showed no certificate.
    #[error("no client certificate")]
    NoCertificate,
    /// Its certificate names no client.
    #[error("{0}")]
    UnusableCertificate(SubjectError),
    /// Its certificate has expired while the connection lived.
    #[error("the client certificate has expired")]
    CertificateExpired,
    /// It presented a secret that is not its certificate's.
    #[error("{0} does not match the client certificate")]
    Mismatch(Source),
    /// It presented nothing.
    #[error("no client secret")]
    NoCredential,
    /// It presented something that holds no client secret.
    #[error("{0} holds no client secret")]
    MalformedCredential(Source),
    /// It presented two different secrets.
    #[error("two different client secrets")]
    Conflict,
}

impl Refusal {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnusableCertificate(_) => "unusable_certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::Mismatch(_) => "mismatch",
            Self::NoCredential => "no_credential",
            Self::MalformedCredential(_) => "malformed_credential",
            Self::Conflict => "conflict",
        }
    }
}
