//! What is said of a head that cannot be read, or is beyond every bound (RFC 9112 §3, RFC 6585 §5). hyper answers
//! such by a bare status, and no request begins. That answer gives way to a refusal like every other: with
//! the fields that all have, counted and logged.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue};
use hyper::{Method, Request, StatusCode};

use super::exchange::Exchange;
use super::refusal::Failure;
use super::{Session, date, handler, headers};

/// The status of a refusal, if that is what `written` begins with.
pub(super) fn status(written: &[u8]) -> Option<StatusCode> {
    let status = written.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let status = StatusCode::from_bytes(status).ok();
    status.filter(StatusCode::is_client_error)
}

/// The answer that takes the place of one that says `status` and nothing else.
pub(super) fn refuse(session: &Arc<Session>, status: StatusCode) -> Bytes {
    let failure = match status {
        StatusCode::URI_TOO_LONG => Failure::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Failure::HeadTooLarge,
        _ => Failure::Malformed,
    };
    let (mut request, ()) = Request::new(()).into_parts();
    // As logs have it where nobody knows.
    request.method = Method::from_bytes(b"-").unwrap_or_default();
    session.progress.begin(false);
    let mut exchange = Exchange::begin(session, &request);
    handler::report(session, &exchange, &failure);
    // Its client may not have sent all of it.
    session.progress.linger();
    let (mut head, body) = failure.into_answer(&mut exchange).into_parts();
    exchange.sent(body.len() as u64);
    let close = HeaderValue::from_static("close");
    head.headers.insert(CONNECTION, close);
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    head.headers.insert(DATE, date::now());
    let mut answer = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    headers::write(&mut answer, &head.headers);
    answer.extend_from_slice(&body);
    answer.into()
}
