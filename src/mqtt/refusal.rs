//! How MQTT says no: a CONNACK where the version has one for the cause (MQTT 3.1.1 §3.2.2.3, MQTT
//! 5.0 §3.2.2.2), and the end of the connection.

use std::time::Duration;

use thiserror::Error;

use super::Ending;
use super::codec::{
    ConnackReason, ConnectError, Fault, Note, ReturnCode, RewriteError, Version, connack_v3,
    connack_v5,
};
use crate::access::Refusal;
use crate::callout::Objection;
use crate::credential::Source;
use crate::quota::Overrun;
use crate::token::Flaw;
use crate::upstream::UpstreamError;

/// Why a client's CONNECT did not reach a broker.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("no complete CONNECT within {0:?}")]
    Timeout(Duration),
    #[error("the client ended before its CONNECT was complete")]
    Gone,
    #[error("the client broke off before its CONNECT was complete: {0}")]
    Broken(std::io::Error),
    #[error("the gateway drains")]
    Draining,
    #[error("the client is no longer trusted")]
    Untrusted,
    #[error("malformed CONNECT: {0}")]
    Malformed(#[from] ConnectError),
    #[error("enhanced authentication is not offered")]
    AuthenticationMethod,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Limited(#[from] Overrun),
    #[error("the password cannot be set: {0}")]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    Broker(#[from] UpstreamError),
    #[error("the broker did not take the CONNECT: {0}")]
    BrokerBroken(std::io::Error),
}

/// What is known of a client by the time it is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The version that it speaks.
    pub(super) version: Version,
    /// Whether it may be told why in a sentence.
    pub(super) reason_string: bool,
    /// The largest packet that it takes.
    pub(super) maximum_packet_size: Option<u32>,
}

impl Failure {
    /// The CONNACK, or none where the version has none for it, or nothing is known of the client.
    /// What a malformed CONNECT asks for cannot be known, so `reason_strings` alone decides there; a
    /// CONNACK may have one in any case (MQTT 5.0 §3.1.2.11.7).
    pub(super) fn answer(&self, asked: Option<Asked>, reason_strings: bool) -> Option<Vec<u8>> {
        if let Self::Malformed(error) = self {
            return error.answer(reason_strings);
        }
        let asked = asked?;
        let (reason, code) = self.codes()?;
        match asked.version {
            Version::V31 | Version::V311 => Some(connack_v3(code).to_vec()),
            Version::V5 => {
                let sentence = self.to_string();
                let note = Note {
                    reason_string: asked.reason_string.then_some(&sentence),
                    maximum_packet_size: asked.maximum_packet_size,
                    ..Note::default()
                };
                Some(connack_v5(reason, &note))
            }
        }
    }

    fn codes(&self) -> Option<(ConnackReason, ReturnCode)> {
        use {ConnackReason as R, ReturnCode as C};
        match self {
            Self::Timeout(_)
            | Self::Gone
            | Self::Broken(_)
            | Self::Draining
            | Self::Untrusted
            | Self::Malformed(_) => None,
            Self::AuthenticationMethod => Some((R::BadAuthenticationMethod, C::NotAuthorized)),
            Self::Refused(refusal) => Some(refused(refusal)),
            Self::Limited(Overrun::Pace(_)) => {
                Some((R::ConnectionRateExceeded, C::ServerUnavailable))
            }
            Self::Limited(Overrun::AtOnce) => Some((R::QuotaExceeded, C::ServerUnavailable)),
            Self::Rewrite(_) => Some((R::NotAuthorized, C::NotAuthorized)),
            Self::Broker(UpstreamError::Overloaded { .. }) => {
                Some((R::ServerBusy, C::ServerUnavailable))
            }
            Self::Broker(
                UpstreamError::Unreachable { .. }
                | UpstreamError::Exchange { .. }
                | UpstreamError::TimedOut { .. },
            )
            | Self::BrokerBroken(_) => Some((R::ServerUnavailable, C::ServerUnavailable)),
        }
    }

    /// What a transport is told.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Malformed(ConnectError {
                fault: Fault::TooLarge { .. },
                ..
            }) => Ending::TooLarge,
            Self::Malformed(_) => Ending::Malformed,
            Self::Timeout(_)
            | Self::Gone
            | Self::Broken(_)
            | Self::Untrusted
            | Self::AuthenticationMethod
            | Self::Refused(_)
            | Self::Limited(_)
            | Self::Rewrite(_) => Ending::Refused,
            Self::Draining | Self::Broker(_) | Self::BrokerBroken(_) => Ending::GoingAway,
        }
    }

    /// A stable name for logs and metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "connect_timeout",
            Self::Gone | Self::Broken(_) => "connect_incomplete",
            Self::Draining => "draining",
            Self::Untrusted => "no_longer_trusted",
            Self::Malformed(_) => "malformed_connect",
            Self::AuthenticationMethod => "authentication_method",
            Self::Refused(refusal) => refusal.code(),
            Self::Limited(Overrun::Pace(_)) => "too_often",
            Self::Limited(Overrun::AtOnce) => "too_many_at_once",
            Self::Rewrite(_) => "unusable_password",
            Self::Broker(UpstreamError::Overloaded { .. }) => "upstream_overloaded",
            Self::Broker(_) => "upstream_unreachable",
            Self::BrokerBroken(_) => "upstream_failed",
        }
    }

    /// Whether the cause lies behind the gateway, where its operator can mend it.
    pub(super) fn is_upstreams(&self) -> bool {
        matches!(
            self,
            Self::Broker(_)
                | Self::BrokerBroken(_)
                | Self::Refused(
                    Refusal::Token(Flaw::Unavailable) | Refusal::Callout(Objection::Undecided)
                )
        )
    }
}

/// Two answers for all refusals, as in HTTP: who you are is not known, or it does not suffice.
fn refused(refusal: &Refusal) -> (ConnackReason, ReturnCode) {
    match refusal {
        Refusal::Token(Flaw::Unavailable) | Refusal::Callout(Objection::Undecided) => (
            ConnackReason::ServerUnavailable,
            ReturnCode::ServerUnavailable,
        ),
        Refusal::Mismatch(Source::ClientId) | Refusal::Missing(Source::ClientId) => (
            ConnackReason::ClientIdentifierNotValid,
            ReturnCode::IdentifierRejected,
        ),
        Refusal::NoCredential
        | Refusal::MalformedCredential(_)
        | Refusal::NoToken
        | Refusal::NotAToken(_)
        | Refusal::Token(_)
        | Refusal::TokenBinding
        | Refusal::Callout(Objection::Refused)
        | Refusal::Nobody => (
            ConnackReason::BadUserNameOrPassword,
            ReturnCode::BadUserNameOrPassword,
        ),
        Refusal::NoCertificate
        | Refusal::UnusableCertificate(_)
        | Refusal::CertificateExpired
        | Refusal::Mismatch(_)
        | Refusal::Missing(_)
        | Refusal::Unfillable(_)
        | Refusal::Conflict
        | Refusal::TokenConflict
        | Refusal::Callout(Objection::Forbidden | Objection::Ambiguous)
        | Refusal::OtherDemand
        | Refusal::Claims => (ConnackReason::NotAuthorized, ReturnCode::NotAuthorized),
    }
}
