//! The way of one request, from its head to its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, EXPECT, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::body::{AnswerBody, ClientBody, MOST_DROPPED};
use super::decide::{Passage, ToMqtt, decide};
use super::early_hints::Interim;
use super::exchange::Exchange;
use super::forward::{forward, open};
use super::refusal::Failure;
use super::request_scan::Offence;
use super::tunnel::{Tunnel, Upgrade};
use super::{Protocol, Session};
use crate::access::Admission;
use crate::quota::Place;
use crate::route::Route;
use crate::upstream::{CommonFields, Opened};
use crate::websocket::{Opening, OpeningError};

/// A request as its client has sent it.
pub(super) struct Received<'a> {
    pub(super) head: Parts,
    pub(super) body: ClientBody,
    /// If it asks for another protocol.
    pub(super) upgrade: Option<Upgrade>,
    /// For what its client may have before the answer, if the connection has no place for that.
    pub(super) interim: Option<&'a Interim>,
    /// What is wrong with its head, if that is known already.
    pub(super) offence: Option<Offence>,
}

/// Answers one request of HTTP/1.1, whatever it is.
pub(super) fn handle(
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Pin<Box<impl Future<Output = Result<Response<AnswerBody>, Infallible>>>> {
    let (mut head, body) = request.into_parts();
    // Both on the heap: the request is handed from step to step, and hyper keeps room for the future
    // while no request is there.
    let request = Box::new(Received {
        upgrade: head.extensions.remove().map(Upgrade::Http1),
        body: ClientBody::Http1(body),
        interim: None,
        offence: None,
        head,
    });
    Box::pin(async move { Ok(answer(&session, request).await) })
}

/// Answers one request, whatever it is.
pub(super) async fn answer(
    session: &Arc<Session>,
    mut request: Box<Received<'_>>,
) -> Response<AnswerBody> {
    let upgrade = match &request.upgrade {
        Some(Upgrade::Http1(upgrade)) => Some(upgrade.clone()),
        Some(Upgrade::Http2(_)) | None => None,
    };
    if upgrade.is_some() {
        session.progress.upgrade(true);
    }
    let is_http10 = request.head.version == Version::HTTP_10;
    let offence = session.progress.begin(!request.body.is_end_stream());
    let offence = offence.or(request.offence);
    let mut exchange = Exchange::begin(session, &request.head);
    let passage = match offence {
        Some(offence) => Err(offence.into()),
        None => decide(session, &mut request.head, &mut exchange).await,
    };
    let answer = match passage {
        Ok(passage) => carry_out(session, passage, request, &exchange).await,
        Err(failure) => {
            discard(session, request);
            Err(failure)
        }
    };
    let mut response = match answer {
        Ok(answer) => answer.into_response(exchange),
        Err(failure) => {
            report(session, &exchange, &failure);
            if failure.ends_connection() {
                session.progress.linger();
            }
            failure.into_response(exchange)
        }
    };
    let is_unswitched =
        session.protocol == Protocol::Http1 && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    // The rest of a body would have to be told from the head of the next request.
    let is_body_left = is_unswitched && session.progress.is_body_left();
    if is_body_left {
        session.progress.linger();
    }
    let is_unbounded = is_http10 && ends_with_connection(response.body());
    if is_body_left || is_unbounded || is_unswitched && session.progress.is_finishing() {
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    if is_http10 && response.headers().get(CONNECTION) == Some(&CLOSE) {
        // Or hyper would say as well that it is kept.
        *response.version_mut() = Version::HTTP_10;
    }
    if let Some(upgrade) = upgrade {
        if is_unswitched {
            session.progress.upgrade(false);
            end_unswitched(session, upgrade);
        } else {
            session.progress.switch();
        }
    }
    response
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Whether a client that knows no chunks finds the end of an answer by that of the connection (RFC 9112 §6.3).
fn ends_with_connection(body: &AnswerBody) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none()
}

/// hyper lets go of a connection whose request asked for an upgrade, whatever the answer was: it
/// ends here, and as TLS connections should (RFC 8446 §6.1).
fn end_unswitched(session: &Session, upgrade: OnUpgrade) {
    session.edge.tasks.spawn(async move {
        if let Ok(client) = upgrade.await {
            // If it fails, the client is gone.
            let _ = TokioIo::new(client).shutdown().await;
        }
    });
}

/// Sends what may pass, and waits for the head of the answer.
async fn carry_out(
    session: &Arc<Session>,
    passage: Box<Passage>,
    request: Box<Received<'_>>,
    exchange: &Exchange,
) -> Result<Answer, Failure> {
    match *passage {
        Passage::Mqtt(to_mqtt) => open_mqtt(session, to_mqtt, request, exchange.places()),
        Passage::Forward {
            admission,
            route,
            opening: Some(opening),
            common,
        } => {
            let places = exchange.places();
            let opened = open_websocket(
                session, &route, admission, opening, request, &common, places,
            );
            Box::pin(opened).await
        }
        Passage::Forward {
            admission,
            route,
            opening: None,
            common,
        } => {
            let deadline = exchange.deadline();
            let sent = forward(&admission, session, &route, request, &common, deadline);
            let response = match deadline {
                None => sent.await?,
                Some(deadline) => in_time(deadline, Box::pin(sent)).await?,
            };
            Ok(Answer::of_upstream(response, route))
        }
        Passage::Answered(answer) => {
            discard(session, request);
            Ok(answer)
        }
    }
}

/// The answer, if it comes before `deadline`. Whose fault it is otherwise has been noted by then.
async fn in_time<T>(
    deadline: Instant,
    sent: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match timeout_at(deadline, sent).await {
        Ok(Err(_)) if deadline <= Instant::now() => Err(Failure::Overdue),
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Overdue),
    }
}

/// Lets the body of a request that has its answer run out, within bounds. Dropping it would reset a
/// stream of HTTP/2, and some clients then lose the answer (RFC 9113 §8.1); in HTTP/1.1 it would end the
/// connection, which goes on so.
fn discard(session: &Session, request: Box<Received<'_>>) {
    let Received { head, body, .. } = *request;
    let is_http1 = session.protocol == Protocol::Http1;
    // RFC 9110 §10.1.1: whoever waits for leave to send it may send something else now.
    let may_not_come = head.headers.contains_key(EXPECT);
    if body.is_end_stream() || is_http1 && (may_not_come || body.size_hint().lower() > MOST_DROPPED)
    {
        return;
    }
    let progress = Arc::clone(&session.progress);
    progress.body_dropped();
    session.edge.tasks.spawn(async move {
        match body.run_out().await {
            true => progress.body_read(),
            false if is_http1 => progress.linger(),
            false => {}
        }
    });
}

/// The client's side, once it has been answered. A body of the request would be frames to one reader and
/// none to another.
fn take_client(request: &mut Received<'_>) -> Result<Upgrade, OpeningError> {
    if !request.body.is_end_stream() {
        return Err(OpeningError::Malformed);
    }
    request.upgrade.take().ok_or(OpeningError::Malformed)
}

/// Opens a WebSocket at the upstream and, if it agrees, lets both sides talk (RFC 6455 §4).
async fn open_websocket(
    session: &Arc<Session>,
    route: &Arc<Route>,
    admission: Admission,
    opening: Opening,
    mut request: Box<Received<'_>>,
    common: &CommonFields,
    places: Vec<Place>,
) -> Result<Answer, Failure> {
    let client = take_client(&mut request)?;
    opening.ask(&mut request.head);
    let (mut head, upstream, busy) = match open(&admission, session, route, request, common).await?
    {
        Opened::Switched(head, upstream, busy) => (head, upstream, busy),
        Opened::Declined(response) if opening.is_mistaken_for_success(response.status()) => {
            return Err(Failure::BadUpgrade);
        }
        Opened::Declined(response) => {
            return Ok(Answer::of_upstream(response, Arc::clone(route)));
        }
    };
    if !opening.is_accepted(&head.headers) {
        return Err(Failure::BadUpgrade);
    }
    let server = busy.server().to_owned();
    let tunnel = Tunnel::new(Arc::clone(session), Arc::clone(route), places);
    let standing = admission.into_standing(route.demand());
    let run = tunnel.run(client, upstream, busy, standing);
    session.edge.tasks.spawn(run);
    opening.pass_on(&mut head);
    Ok(Answer::switched(head, server, Arc::clone(route)))
}

/// Opens a WebSocket here, to take MQTT out of it (MQTT 5.0 §6).
fn open_mqtt(
    session: &Arc<Session>,
    to_mqtt: ToMqtt,
    mut request: Box<Received<'_>>,
    places: Vec<Place>,
) -> Result<Answer, Failure> {
    /// MQTT 3.1.1 and 5, and what clients of MQTT 3.1 ask for.
    const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
    let ToMqtt {
        presented,
        route,
        opening,
        counted,
    } = to_mqtt;
    let fields = opening.answer(&request.head, &SUBPROTOCOLS)?;
    let client = take_client(&mut request)?;
    let tunnel = Tunnel::new(Arc::clone(session), Arc::clone(&route), places);
    let run = tunnel.run_mqtt(client, presented, counted);
    session.edge.tasks.spawn(run);
    Ok(Answer::opened(opening.success(), fields, route))
}

/// The reason goes to the log, where the id that the client was given leads to it.
pub(super) fn report(session: &Session, exchange: &Exchange, failure: &Failure) {
    let request_id = exchange.request_id().to_str().unwrap_or_default();
    let remote = session.connection.remote();
    if failure.is_upstreams() {
        tracing::warn!(request_id, reason = failure.reason(), "{failure}");
    } else {
        tracing::info!(request_id, %remote, reason = failure.reason(), "refused: {failure}");
    }
}
