//! Why an HTTP or WebSocket request is refused, and the JSON answer that says so.
//! It tells the client little: a stable code and one sentence, never what was presented.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::json;

pub(crate) type Answer = Response<Full<Bytes>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoSuchPath,
    MethodNotAllowed { allow: &'static str },
    NoCredential,
    UnsupportedContentType,
    BodyTooLarge,
    BodyUnreadable,
    NotAnUpgrade,
    BadUpgrade,
}

impl Refusal {
    pub(crate) fn answer(self) -> Answer {
        let (status, code, message) = self.parts();
        let mut answer = json_answer(status, &json!({ "error": code, "message": message }));
        if let Some((name, value)) = self.header() {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "not_found", "no such path"),
            Self::MethodNotAllowed { .. } => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "wrong method for this path",
            ),
            Self::NoCredential => (
                StatusCode::UNAUTHORIZED,
                "missing_credential",
                "send exactly one `Authorization: Client <secret>`",
            ),
            Self::UnsupportedContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                "send application/senml+json, application/json or application/senml+cbor",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "a message is at most 5 MiB",
            ),
            Self::BodyUnreadable => (
                StatusCode::BAD_REQUEST,
                "body_unreadable",
                "the body broke off or came too slowly",
            ),
            Self::NotAnUpgrade => (
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "this path speaks WebSocket",
            ),
            Self::BadUpgrade => (
                StatusCode::BAD_REQUEST,
                "bad_upgrade",
                "the WebSocket handshake is not valid",
            ),
        }
    }

    /// The field that RFC 9110 asks for beside the status.
    fn header(self) -> Option<(HeaderName, &'static str)> {
        match self {
            Self::MethodNotAllowed { allow } => Some((ALLOW, allow)),
            Self::NoCredential => Some((WWW_AUTHENTICATE, "Client")),
            Self::NotAnUpgrade => Some((UPGRADE, "websocket")),
            Self::NoSuchPath
            | Self::UnsupportedContentType
            | Self::BodyTooLarge
            | Self::BodyUnreadable
            | Self::BadUpgrade => None,
        }
    }
}

pub(crate) fn json_answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
