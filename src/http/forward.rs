//! The upstream's side of one request: sent once, answered in time, both bodies streamed.

use std::pin::pin;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri, Version};

use super::Session;
use super::body::{Fault, RequestBody, Upload};
use super::early_hints::EarlyHints;
use super::refusal::Failure;
use crate::access::Admission;
use crate::credential::ForwardedQuery;
use crate::route::{PathError, Route, Target};
use crate::upstream::{CommonFields, Opened, ResponseBody, UpstreamError};

/// Sends the request and waits for the head of the answer. Demands the proof that the gate has
/// said yes, although nothing in it is needed any more: the fields are set already.
pub(super) async fn forward(
    admission: &Admission,
    session: &Session,
    route: &Arc<Route>,
    mut head: Box<Parts>,
    common: &CommonFields,
    body: Incoming,
) -> Result<(Response<ResponseBody>, Arc<Upload>), Failure> {
    let upload: Arc<Upload> = Arc::default();
    let body = request_body(session, route, body, &upload)?;
    let upstream = session.edge.upstream(route).ok_or(Failure::NoRoute)?;
    let hints = takes_hints(route, &head).then(|| EarlyHints::of(&mut head, Arc::clone(route)));
    head.version = Version::HTTP_11;
    let client = || session.connection.introduction();
    let device = upstream
        .servers()
        .device(|| admission.device(&session.connection));
    let sent = {
        let patience = pin!(response_timeout(route, &upload));
        let mut sent = pin!(upstream.send(head, body, common, client, device, patience));
        match hints {
            None => sent.await,
            Some(hints) => {
                let interim = session.progress.interim();
                Box::pin(hints.pass_on_until(sent.as_mut(), interim)).await
            }
        }
    };
    let response = sent.map_err(|error| failure(error, &upload))?;
    // Nothing asked for another protocol: `Upgrade` has been removed.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::BadUpgrade);
    }
    Ok((response, upload))
}

/// As [`forward`], on a connection of its own that the answer may upgrade.
pub(super) async fn open(
    admission: &Admission,
    session: &Session,
    route: &Route,
    mut head: Box<Parts>,
    common: &CommonFields,
    body: Incoming,
) -> Result<Opened, Failure> {
    let upload: Arc<Upload> = Arc::default();
    let body = request_body(session, route, body, &upload)?;
    let upstream = session.edge.upstream(route).ok_or(Failure::NoRoute)?;
    let client = session.connection.introduction();
    head.version = Version::HTTP_11;
    let request = Request::from_parts(*head, body);
    let device = upstream
        .servers()
        .device(|| admission.device(&session.connection));
    let patience = response_timeout(route, &upload);
    upstream
        .open(request, common, &client, device, patience)
        .await
        .map_err(|error| failure(error, &upload))
}

/// Whether the client is told what its answer will need. Those of HTTP/1.0 might take that for the
/// answer (RFC 8297 §3), and in HTTP/2 it cannot be sent.
fn takes_hints(route: &Route, head: &Parts) -> bool {
    route.early_hints && head.version == Version::HTTP_11
}

/// The body with its limits. What announces itself as too long is refused before a byte is sent.
fn request_body(
    session: &Session,
    route: &Route,
    body: Incoming,
    upload: &Arc<Upload>,
) -> Result<RequestBody, Failure> {
    if body.size_hint().lower() > route.max_body {
        return Err(Failure::BodyTooLarge);
    }
    let stall = session.edge.rules.limits.stall_timeout;
    Ok(RequestBody::new(
        body,
        route.max_body,
        stall,
        Arc::clone(upload),
        Arc::clone(&session.progress),
    ))
}

/// Ends when the answer is overdue. It begins anew as long as the request's body still moves: a long
/// upload is not a slow upstream.
async fn response_timeout(route: &Route, upload: &Upload) {
    let mut before = upload.sent();
    loop {
        tokio::time::sleep(route.response_timeout).await;
        let now = upload.sent();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Tells a client's broken body from a broken upstream.
fn failure(error: UpstreamError, upload: &Upload) -> Failure {
    match upload.fault() {
        Some(Fault::TooLarge) => Failure::BodyTooLarge,
        Some(Fault::Stalled) => Failure::BodyStalled,
        Some(Fault::Broken) => Failure::BodyBroken,
        None => Failure::Upstream(error),
    }
}

/// The target in origin form, as the upstream sees it: the normalised path, and the query without
/// the credential unless the route keeps it.
pub(super) fn rewrite_target(
    head: &mut Parts,
    route: &Route,
    target: &Target<'_>,
    query: &ForwardedQuery,
) -> Result<(), PathError> {
    let path = route.upstream_path(target)?;
    let query = match query {
        ForwardedQuery::Without(rest) if !route.keep_query_credential => rest.as_deref(),
        ForwardedQuery::Without(_) | ForwardedQuery::Unchanged => head.uri.query(),
    };
    // A URI with a host may leave out the slash that begins its path (RFC 9110 §4.2.3).
    let is_whole = |target: &PathAndQuery| target.as_str().starts_with('/');
    let same_path = path == head.uri.path() && head.uri.path_and_query().is_some_and(is_whole);
    if !(same_path && query == head.uri.query()) {
        let target = match query {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(&*path),
        };
        head.uri = Uri::from(target.map_err(|_| PathError::Ambiguous)?);
    }
    Ok(())
}
