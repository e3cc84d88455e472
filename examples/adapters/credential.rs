//! The one rule of HTTP and WebSocket alike: exactly one `Authorization: Client <secret>`.
//! A stand-in knows no accounts, so any non-empty secret will do; it is never kept nor printed.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use crate::refusal::Refusal;

/// Proof that the request carried a client secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented(());

impl Presented {
    pub(crate) fn in_headers(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        // Two fields may be read differently by two parties; refuse rather than choose.
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Refusal::NoCredential);
        };
        let secret = value
            .as_bytes()
            .strip_prefix(b"Client ")
            .unwrap_or_default();
        if secret.trim_ascii().is_empty() {
            return Err(Refusal::NoCredential);
        }
        Ok(Self(()))
    }
}
