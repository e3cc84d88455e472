//! [`Refusal`]: why the gate said no, in no protocol's words. For the log; clients learn less.

use thiserror::Error;

use crate::callout::Objection;
use crate::credential::Source;
use crate::identity::SubjectError;
use crate::token::Flaw;

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
    /// It did not present what its certificate has to agree with.
    #[error("{0} is missing, and has to match the client certificate")]
    Missing(Source),
    /// Its certificate gives no single value to forward.
    #[error("the client certificate gives no single value for {0}")]
    Unfillable(Source),
    /// It presented nothing.
    #[error("no client secret")]
    NoCredential,
    /// It presented something that holds no client secret.
    #[error("{0} holds no client secret")]
    MalformedCredential(Source),
    /// It presented two different secrets.
    #[error("two different client secrets")]
    Conflict,
    /// It presented no token.
    #[error("no bearer token")]
    NoToken,
    /// It presented something that is no token.
    #[error("{0} holds no bearer token")]
    NotAToken(Source),
    /// It presented two different tokens.
    #[error("two different bearer tokens")]
    TokenConflict,
    /// Its token does not hold.
    #[error(transparent)]
    Token(#[from] Flaw),
    /// Its token is bound to a certificate that this connection has not shown (RFC 8705 §3).
    #[error("the token is bound to another client certificate")]
    TokenBinding,
    /// Its token does not say what the route asks for.
    #[error("the token's claims do not suffice")]
    Claims,
    /// It has stayed where something else is demanded now, or nothing is served any more.
    #[error("what is demanded there has changed")]
    OtherDemand,
    /// The call-out does not say yes.
    #[error(transparent)]
    Callout(#[from] Objection),
    /// It is known neither as a client nor by a token.
    #[error("neither a client nor a bearer token")]
    Nobody,
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
            Self::Missing(_) => "missing",
            Self::Unfillable(_) => "unfillable",
            Self::NoCredential => "no_credential",
            Self::MalformedCredential(_) => "malformed_credential",
            Self::Conflict => "conflict",
            Self::NoToken => "no_token",
            Self::NotAToken(_) => "not_a_token",
            Self::TokenConflict => "token_conflict",
            Self::Token(flaw) => flaw.code(),
            Self::TokenBinding => "token_binding",
            Self::Claims => "claims",
            Self::OtherDemand => "other_demand",
            Self::Callout(Objection::Refused) => "callout_refused",
            Self::Callout(Objection::Forbidden) => "callout_forbidden",
            Self::Callout(Objection::Ambiguous) => "callout_ambiguous",
            Self::Callout(Objection::Undecided) => "callout_undecided",
            Self::Nobody => "nobody",
        }
    }
}
