//! The upstream's side of one request: sent once, answered in time, both bodies streamed.

use std::convert::identity;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Body as _;
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::Session;
use super::body::{Fault, RequestBody, Upload};
use super::early_hints::EarlyHints;
use super::handler::Received;
use super::refusal::Failure;
use crate::access::Admission;
use crate::credential::ForwardedQuery;
use crate::route::{PathError, Route, Target};
use crate::upstream::{CommonFields, Opened, Repeatable, ResponseBody, UpstreamError};

/// Sends the request and waits for the head of the answer, until `deadline` at most. Demands the proof that
/// the gate has said yes, although nothing in it is needed any more: the fields are set already.
pub(super) async fn forward(
    admission: &Admission,
    session: &Session,
    route: &Arc<Route>,
    mut request: Box<Received<'_>>,
    common: &CommonFields,
    deadline: Option<Instant>,
) -> Result<Response<ResponseBody>, Failure> {
    let upload: Arc<Upload> = Arc::default();
    let upstream = session.edge.upstream(route).ok_or(Failure::NoRoute)?;
    let interim = request.interim;
    let hints = takes_hints(route, &request.head)
        .then(|| EarlyHints::of(&mut request.head, Arc::clone(route)));
    let request = outgoing(session, route, request, &upload, Repeatable::once)?;
    let client = || session.connection.introduction();
    let device = upstream
        .servers()
        .device(|| admission.device(&session.connection));
    let sent = {
        let patience = pin!(response_timeout(session, route, &upload, deadline));
        let mut sent = pin!(upstream.send(request, common, client, device, patience));
        match hints {
            None => sent.await,
            Some(hints) => {
                let interim = interim.unwrap_or(session.progress.interim());
                Box::pin(hints.pass_on_until(sent.as_mut(), interim)).await
            }
        }
    };
    let response = sent.map_err(|error| failure(error, &upload))?;
    // Nothing asked for another protocol: `Upgrade` has been removed.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::BadUpgrade);
    }
    Ok(response)
}

/// As [`forward`], on a connection of its own that the answer may upgrade.
pub(super) async fn open(
    admission: &Admission,
    session: &Session,
    route: &Route,
    request: Box<Received<'_>>,
    common: &CommonFields,
) -> Result<Opened, Failure> {
    let upload: Arc<Upload> = Arc::default();
    let request = outgoing(session, route, request, &upload, identity)?;
    let upstream = session.edge.upstream(route).ok_or(Failure::NoRoute)?;
    let client = session.connection.introduction();
    let device = upstream
        .servers()
        .device(|| admission.device(&session.connection));
    let patience = response_timeout(session, route, &upload, None);
    upstream
        .open(request, common, &client, device, patience)
        .await
        .map_err(|error| failure(error, &upload))
}

/// Whether the client is told what its answer will need. Those of HTTP/1.0 might take that for the
/// answer (RFC 8297 §3).
fn takes_hints(route: &Route, head: &Parts) -> bool {
    route.early_hints && head.version >= Version::HTTP_11
}

/// The request with the limits of its body, which is sent as `sent` makes of it. One that announces
/// itself as too long is refused before a byte is sent.
fn outgoing<B>(
    session: &Session,
    route: &Route,
    request: Box<Received<'_>>,
    upload: &Arc<Upload>,
    sent: impl FnOnce(RequestBody) -> B,
) -> Result<Box<Request<B>>, Failure> {
    let Received { mut head, body, .. } = *request;
    let stall = session.edge.rules.limits.stall_timeout;
    let upload = Arc::clone(upload);
    let progress = Arc::clone(&session.progress);
    let body = RequestBody::new(body, route.max_body, stall, upload, progress);
    if body.size_hint().lower() > route.max_body {
        return Err(Failure::BodyTooLarge);
    }
    head.version = Version::HTTP_11;
    Ok(Box::new(Request::from_parts(head, sent(body))))
}

/// Ends when the answer is overdue by the server's fault. It begins anew as long as the request's body still
/// moves, or its client owes more of it, which is for its own limit to end: a long upload is not a slow
/// upstream.
fn response_timeout(
    session: &Session,
    route: &Route,
    upload: &Upload,
    deadline: Option<Instant>,
) -> impl Future<Output = ()> {
    let limit = route.response_timeout;
    let mut before = upload.sent();
    let next = Instant::now() + limit;
    let next = deadline.map_or(next, |deadline| deadline.min(next));
    let mut alarm = session.edge.alarms.at(next);
    async move {
        loop {
            (&mut alarm).await;
            let now = upload.sent();
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if (is_over || now == before) && !upload.is_awaited() {
                return;
            }
            before = now;
            alarm.postpone(Instant::now() + limit);
        }
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
