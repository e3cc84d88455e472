//! [`Flaw`]: why a token is not accepted, in no protocol's words. For the log; clients learn less.

use thiserror::Error;

/// The parts of a JWS in compact form (RFC 7515 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The JOSE header.
    Header,
    /// The claims.
    Payload,
    /// The signature or MAC.
    Signature,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Flaw {
    /// Longer than is read.
    #[error("the token is longer than tokens.max_size")]
    TooLarge,
    /// Not three parts between dots.
    #[error("the token is no JWT")]
    NotCompact,
    /// A JWE (RFC 7516), or a header that speaks of encryption.
    #[error("the token is encrypted")]
    Encrypted,
    /// A part is not Base64url without padding.
    #[error("the token's {0} is not Base64url")]
    Encoding(Part),
    /// A part is not a JSON object, or holds a number that no computer has room for.
    #[error("the token's {0} is not a JSON object")]
    Json(Part),
    /// A name occurs twice in one object, so that two readers read two things (RFC 8725 §2.4).
    #[error("the token's {0} has a name twice")]
    Duplicate(Part),
    /// `alg` is absent or not a string.
    #[error("the token names no algorithm")]
    NoAlgorithm,
    /// `alg` is `none` in some spelling (RFC 8725 §2.1).
    #[error("the token is not signed: its algorithm is none")]
    Unsigned,
    /// `alg` is none of those that are spoken here.
    #[error("the token's algorithm is not known")]
    UnknownAlgorithm,
    /// The token brings its own key, or says where to fetch one (RFC 8725 §3.10).
    #[error("the token's header holds {0}")]
    ForeignKey(&'static str),
    /// `crit` (RFC 7515 §4.1.11): nothing that could stand there is understood.
    #[error("the token's header holds crit")]
    Critical,
    /// `typ` says that it is something else than an access token (RFC 8725 §3.11).
    #[error("the token's typ is not JWT or at+jwt")]
    MediaType,
    /// `kid` is not a string.
    #[error("the token's kid is not a string")]
    KeyId,
    /// `iss` is absent or not a string.
    #[error("the token names no issuer")]
    NoIssuer,
    /// No provider is for its issuer.
    #[error("no provider is for the token's issuer")]
    UnknownIssuer,
    /// The issuer's provider has no key of this id.
    #[error("no key has the token's key id")]
    UnknownKey,
    /// The key is not for this algorithm.
    #[error("the token's algorithm is not its key's")]
    WrongAlgorithm,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is absent where it is demanded.
    #[error("the token never expires")]
    NoExpiry,
    /// A time is not a number, or none that a calendar has.
    #[error("the token's {0} is no date")]
    Time(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is to come.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// It is for others, or says for whom it is where nobody is known here (RFC 7519 §4.1.3).
    #[error("the token is for another audience")]
    Audience,
    /// It is a refresh, recovery, invitation or identity token, or does not say what it is.
    #[error("the token is no access token")]
    Kind,
    /// `cnf` binds it to something else than a certificate, or to more than that.
    #[error("the token is bound to something that is not proven here")]
    Confirmation,
    /// Its issuer says that it does not hold, whatever it is (RFC 7662 §2.2).
    #[error("the token is not active")]
    Inactive,
    /// It is on the list of those that hold no longer, whatever it says.
    #[error("the token is revoked")]
    Revoked,
    /// It is an API key that nobody has.
    #[error("no API key is like this")]
    UnknownApiKey,
    /// The keys to verify it with, or its issuer's word, cannot be had now.
    #[error("the provider's keys cannot be had")]
    Unavailable,
    /// The subject is not a string, or empty.
    #[error("the token names no subject")]
    Subject,
}

impl Flaw {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::NotCompact => "token_malformed",
            Self::Encrypted => "token_encrypted",
            Self::Encoding(_) => "token_encoding",
            Self::Json(_) => "token_json",
            Self::Duplicate(_) => "token_duplicate_name",
            Self::NoAlgorithm => "token_no_algorithm",
            Self::Unsigned => "token_unsigned",
            Self::UnknownAlgorithm => "token_unknown_algorithm",
            Self::ForeignKey(_) => "token_foreign_key",
            Self::Critical => "token_critical_header",
            Self::MediaType => "token_media_type",
            Self::KeyId => "token_key_id",
            Self::NoIssuer => "token_no_issuer",
            Self::UnknownIssuer => "token_unknown_issuer",
            Self::UnknownKey => "token_unknown_key",
            Self::WrongAlgorithm => "token_wrong_algorithm",
            Self::Signature => "token_signature",
            Self::NoExpiry => "token_no_expiry",
            Self::Time(_) => "token_time",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::IssuedInFuture => "token_issued_in_future",
            Self::Audience => "token_audience",
            Self::Kind => "token_kind",
            Self::Subject => "token_no_subject",
            Self::Confirmation => "token_confirmation",
            Self::Inactive => "token_inactive",
            Self::Revoked => "token_revoked",
            Self::UnknownApiKey => "api_key_unknown",
            Self::Unavailable => "token_keys_unavailable",
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}
