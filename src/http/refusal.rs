//! How HTTP says no: every cause has one status and one problem document (RFC 9457).
//!
//! A client whose credential is refused learns that and no more: the body is the same whatever was
//! wrong, and the reason goes to the log under the request's id.

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use thiserror::Error;

use super::body::AnswerBody;
use super::exchange::Exchange;
use super::field_rules::Author;
use super::headers::{X_REQUEST_ID, ascii};
use super::request_scan::Offence;
use super::target::TargetError;
use crate::access::Refusal;
use crate::callout::Objection;
use crate::quota::Overrun;
use crate::route::NotFound;
use crate::token::Flaw;
use crate::upstream::UpstreamError;
use crate::websocket::OpeningError;

/// Why a request was not answered by its upstream.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Offence(#[from] Offence),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the path and query are longer than limits.uri_bytes")]
    UriTooLong,
    #[error("the request has more header fields than limits.header_count")]
    TooManyFields,
    #[error(
        "the request's head is longer than limits.header_bytes, or has more fields than limits.header_count"
    )]
    HeadTooLarge,
    #[error("the request's head is malformed")]
    Malformed,
    #[error("a transfer coding that is not chunked, once")]
    TransferCoding,
    #[error("CONNECT and TRACE are not served")]
    Method,
    #[error("the host belongs to another TLS policy than the connection")]
    Misdirected,
    #[error("no route")]
    NoRoute,
    #[error("no route for this method")]
    NotAllowed {
        /// Those that there are routes for.
        allow: HeaderValue,
    },
    #[error("a page of an origin that the route does not list opens a WebSocket")]
    Origin,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the body is longer than the route allows")]
    BodyTooLarge,
    #[error("the body did not arrive in time")]
    BodyStalled,
    #[error("the client broke off its body")]
    BodyBroken,
    #[error(transparent)]
    Opening(#[from] OpeningError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Limited(#[from] Overrun),
    #[error("the answer did not begin within the route's total_timeout")]
    Overdue,
    #[error("the upstream answered the WebSocket opening with a wrong Sec-WebSocket-Accept")]
    BadUpgrade,
}

/// What a client is told.
struct Outcome {
    status: StatusCode,
    /// Stable, for programs.
    code: &'static str,
}

impl Failure {
    fn outcome(&self) -> Outcome {
        use StatusCode as S;
        let (status, code) = match self {
            Self::Offence(_)
            | Self::Target(_)
            | Self::TransferCoding
            | Self::Malformed
            | Self::BodyBroken => (S::BAD_REQUEST, "bad_request"),
            Self::UriTooLong => (S::URI_TOO_LONG, "uri_too_long"),
            Self::TooManyFields | Self::HeadTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "request_header_fields_too_large",
            ),
            Self::Method | Self::NotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Misdirected => (S::MISDIRECTED_REQUEST, "misdirected_request"),
            Self::NoRoute => (S::NOT_FOUND, "not_found"),
            Self::Origin => (S::FORBIDDEN, "forbidden"),
            Self::Refused(refusal) => return refused(refusal),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "content_too_large"),
            Self::BodyStalled => (S::REQUEST_TIMEOUT, "request_timeout"),
            Self::Opening(OpeningError::Version | OpeningError::Missing) => {
                (S::UPGRADE_REQUIRED, "upgrade_required")
            }
            Self::Opening(OpeningError::Malformed | OpeningError::Subprotocol) => {
                (S::BAD_REQUEST, "bad_request")
            }
            Self::Upstream(error) => of_upstream(error),
            Self::Limited(_) => (S::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::Overdue => (S::GATEWAY_TIMEOUT, "gateway_timeout"),
            Self::BadUpgrade => (S::BAD_GATEWAY, "bad_gateway"),
        };
        Outcome { status, code }
    }

    /// A stable name for logs and metrics; finer than what the client sees.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Offence(_) | Self::TransferCoding => "ambiguous_request",
            Self::Target(_) => "bad_target",
            Self::UriTooLong => "uri_too_long",
            Self::TooManyFields => "too_many_fields",
            Self::HeadTooLarge => "head_too_large",
            Self::Malformed => "malformed",
            Self::Method | Self::NotAllowed { .. } => "method",
            Self::Misdirected => "misdirected",
            Self::NoRoute => "no_route",
            Self::Origin => "origin",
            Self::Refused(refusal) => refusal.code(),
            Self::BodyTooLarge => "body_too_large",
            Self::BodyStalled => "body_stalled",
            Self::BodyBroken => "body_broken",
            Self::Opening(_) => "bad_websocket_opening",
            Self::Upstream(UpstreamError::Unreachable { .. }) => "upstream_unreachable",
            Self::Upstream(UpstreamError::Overloaded { .. }) => "upstream_overloaded",
            Self::Upstream(UpstreamError::Exchange { .. }) => "upstream_failed",
            Self::Upstream(UpstreamError::TimedOut { .. }) => "upstream_timeout",
            Self::Limited(Overrun::Pace(_)) => "too_often",
            Self::Limited(Overrun::AtOnce) => "too_many_at_once",
            Self::Overdue => "overdue",
            Self::BadUpgrade => "upstream_bad_upgrade",
        }
    }

    /// Whether the cause lies behind the gateway, where its operator can mend it.
    pub(super) fn is_upstreams(&self) -> bool {
        matches!(
            self,
            Self::Upstream(_)
                | Self::Overdue
                | Self::BadUpgrade
                | Self::Refused(
                    Refusal::Token(Flaw::Unavailable) | Refusal::Callout(Objection::Undecided)
                )
        )
    }

    /// Whether what follows on the connection can no longer be told apart from this request.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Offence(_)
            | Self::Target(_)
            | Self::TransferCoding
            | Self::Malformed
            | Self::BodyTooLarge
            | Self::BodyStalled
            | Self::BodyBroken
            | Self::Method => true,
            Self::UriTooLong
            | Self::TooManyFields
            | Self::HeadTooLarge
            | Self::Misdirected
            | Self::NoRoute
            | Self::NotAllowed { .. }
            | Self::Origin
            | Self::Refused(_)
            | Self::Opening(_)
            | Self::Upstream(_)
            | Self::Limited(_)
            | Self::Overdue
            | Self::BadUpgrade => false,
        }
    }

    fn allowed(&self) -> HeaderValue {
        if let Self::NotAllowed { allow } = self {
            return allow.clone();
        }
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    }

    /// The answer, as it is sent.
    pub(super) fn into_response(self, mut exchange: Box<Exchange>) -> Response<AnswerBody> {
        let answer = self.into_answer(&mut exchange);
        answer.map(|body| AnswerBody::own(body, exchange))
    }

    /// The answer, with the fields that its status calls for.
    pub(super) fn into_answer(self, exchange: &mut Exchange) -> Response<Bytes> {
        let Outcome { status, code } = self.outcome();
        exchange.answered(status);
        exchange.failed(self.reason());
        let id = exchange.request_id().clone();
        let document = problem(status, code, &id);
        let length = document.len();
        // In HTTP/2 it would be sent, and the client would take that for an error.
        let is_head = exchange.is_head();
        let body = if is_head { Bytes::new() } else { document };
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, id);
        if is_head {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        match status {
            // RFC 9110 §15.5.6, §15.5.22.
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, self.allowed());
            }
            StatusCode::UPGRADE_REQUIRED => {
                // RFC 9113 §8.2.2: HTTP/2 has no such fields.
                if exchange.is_http1() {
                    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                }
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        if let Self::Refused(refusal) = &self {
            for challenge in challenges(refusal) {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        if matches!(&self, Self::Upstream(error) if error.is_overload()) {
            // RFC 9110 §15.6.4.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Self::Limited(overrun) = &self {
            // RFC 6585 §4.
            headers.insert(RETRY_AFTER, wait(overrun).into());
        }
        if self.ends_connection() && exchange.is_http1() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.finish(&mut headers, Author::Gateway);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl From<NotFound> for Failure {
    fn from(not_found: NotFound) -> Self {
        match not_found {
            NotFound::Nothing => Self::NoRoute,
            NotFound::Method(methods) => {
                let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
                let allow = ascii(&methods.join(", "));
                Self::NotAllowed { allow }
            }
        }
    }
}

/// Whole seconds, and not fewer than one has to wait.
fn wait(overrun: &Overrun) -> u64 {
    match overrun {
        Overrun::Pace(time) => time.as_secs() + u64::from(time.subsec_nanos() > 0),
        Overrun::AtOnce => 1,
    }
}

fn of_upstream(error: &UpstreamError) -> (StatusCode, &'static str) {
    match error {
        _ if error.is_overload() => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        UpstreamError::Unreachable { .. }
        | UpstreamError::Overloaded { .. }
        | UpstreamError::Exchange { .. } => (StatusCode::BAD_GATEWAY, "bad_gateway"),
        UpstreamError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout"),
    }
}

/// Two answers for all refusals: who you are is not known, or it is and does not suffice.
fn refused(refusal: &Refusal) -> Outcome {
    match refusal {
        // Not the client's fault, and not for the client to mend.
        Refusal::Token(Flaw::Unavailable) | Refusal::Callout(Objection::Undecided) => Outcome {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "unavailable",
        },
        Refusal::Callout(Objection::Ambiguous) => Outcome {
            status: StatusCode::BAD_REQUEST,
            code: "bad_request",
        },
        Refusal::NoCertificate
        | Refusal::NoCredential
        | Refusal::MalformedCredential(_)
        | Refusal::NoToken
        | Refusal::NotAToken(_)
        | Refusal::Token(_)
        | Refusal::TokenBinding
        | Refusal::Callout(Objection::Refused)
        | Refusal::Nobody => Outcome {
            status: StatusCode::UNAUTHORIZED,
            code: "unauthenticated",
        },
        Refusal::UnusableCertificate(_)
        | Refusal::CertificateExpired
        | Refusal::Mismatch(_)
        | Refusal::Missing(_)
        | Refusal::Unfillable(_)
        | Refusal::Conflict
        | Refusal::TokenConflict
        | Refusal::Callout(Objection::Forbidden)
        | Refusal::OtherDemand
        | Refusal::Claims => Outcome {
            status: StatusCode::FORBIDDEN,
            code: "forbidden",
        },
    }
}

/// What a 401 says about how to be known (RFC 9110 §11.6.1). A token that does not hold is named as
/// such, a request without one is not (RFC 6750 §3.1).
fn challenges(refusal: &Refusal) -> &'static [&'static str] {
    const CLIENT: &str = "Client realm=\"portcullis\"";
    const BEARER: &str = "Bearer realm=\"portcullis\"";
    const INVALID: &str = "Bearer realm=\"portcullis\", error=\"invalid_token\"";
    const INSUFFICIENT: &str = "Bearer realm=\"portcullis\", error=\"insufficient_scope\"";
    match refusal {
        Refusal::NoCertificate
        | Refusal::NoCredential
        | Refusal::MalformedCredential(_)
        | Refusal::Callout(Objection::Refused) => &[CLIENT],
        Refusal::NoToken | Refusal::NotAToken(_) => &[BEARER],
        Refusal::Token(Flaw::Unavailable) | Refusal::Callout(Objection::Undecided) => &[],
        // RFC 8705 §3: a token that is bound elsewhere is an invalid one.
        Refusal::Token(_) | Refusal::TokenBinding => &[INVALID],
        // RFC 6750 §3.1.
        Refusal::Claims => &[INSUFFICIENT],
        Refusal::Nobody => &[CLIENT, BEARER],
        Refusal::UnusableCertificate(_)
        | Refusal::CertificateExpired
        | Refusal::Mismatch(_)
        | Refusal::Missing(_)
        | Refusal::Unfillable(_)
        | Refusal::Conflict
        | Refusal::TokenConflict
        | Refusal::OtherDemand
        | Refusal::Callout(Objection::Forbidden | Objection::Ambiguous) => &[],
    }
}

/// RFC 9457; the id leads to the reason in the log.
fn problem(status: StatusCode, code: &str, request_id: &HeaderValue) -> Bytes {
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "request_id": request_id.to_str().unwrap_or_default(),
    });
    Bytes::from(document.to_string())
}
