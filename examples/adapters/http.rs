//! The HTTP adapter: `POST` publishes a message, `/health` answers, `/echo` shows what arrived.
//! Order of checks: path, method, credential, content type, body; nothing of the body is read
//! before the credential is there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bus::{Bus, MAX_MESSAGE, Message, Qos, Source};
use crate::credential::Presented;
use crate::echo;
use crate::refusal::{Answer, Refusal, json_answer};
use crate::server::serve_http;
use crate::topic::Topic;

const BODY_LIMIT: Duration = Duration::from_secs(60);
const CONTENT_TYPES: [&str; 3] = [
    "application/senml+json",
    "application/json",
    "application/senml+cbor",
];

pub(crate) async fn serve(bus: Arc<Bus>, stream: TcpStream) {
    serve_http(stream, |request| handle(&bus, request)).await;
}

async fn handle(bus: &Bus, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path();
    if path == "/health" {
        return health(request.method());
    }
    if path == "/echo" || path.starts_with("/echo/") {
        return echo(request).await;
    }
    publish(bus, request).await
}

/// Also the WebSocket adapter's.
pub(crate) fn health(method: &Method) -> Result<Answer, Refusal> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" });
    }
    Ok(json_answer(StatusCode::OK, &json!({ "status": "pass" })))
}

async fn echo(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let body = read(body).await?;
    Ok(json_answer(
        StatusCode::OK,
        &echo::describe(&head, body.len()),
    ))
}

async fn publish(bus: &Bus, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let topic = Topic::from_path(request.uri().path()).ok_or(Refusal::NoSuchPath)?;
    if request.method() != Method::POST {
        return Err(Refusal::MethodNotAllowed { allow: "POST" });
    }
    let _presented = Presented::in_headers(request.headers())?;
    let content_type = accepted_content_type(request.headers())?;
    let payload = read(request.into_body()).await?;

    let mut message = Message::new(topic, payload, Qos::AtLeastOnce);
    message.properties.content_type = Some(content_type.into());
    bus.publish(Source::Http, None, message);
    Ok(accepted())
}

fn accepted_content_type(headers: &HeaderMap) -> Result<&'static str, Refusal> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::UnsupportedContentType);
    };
    let value = value.to_str().unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let accepted = CONTENT_TYPES
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(media_type));
    accepted.ok_or(Refusal::UnsupportedContentType)
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    // An announced size is refused unread; an unannounced one when it is passed.
    if body.size_hint().lower() > MAX_MESSAGE as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let collected = timeout(BODY_LIMIT, Limited::new(body, MAX_MESSAGE).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Ok(Err(_)) | Err(_) => Err(Refusal::BodyUnreadable),
    }
}

fn accepted() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}
