//! The way of one request, from its head to its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue, ORIGIN, TE, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout_at;

use super::answer::Answer;
use super::assertion::Client;
use super::body::{AnswerBody, ClientBody};
use super::early_hints::Interim;
use super::exchange::Exchange;
use super::field_rules::{change_request, changes};
use super::forward::{forward, open, rewrite_target};
use super::headers;
use super::limits::{of_address, of_client};
use super::own_answer;
use super::presented::presented;
use super::refusal::Failure;
use super::shape::preflight;
use super::target::{Destination, Host, TargetError};
use super::tunnel::{Tunnel, Upgrade};
use super::watch::Standing;
use super::{Protocol, Session};
use crate::access::Admission;
use crate::callout;
use crate::credential::Presented;
use crate::quota::Place;
use crate::route::{self, Cors, Route, Sought, Target, normalise};
use crate::upstream::{CommonFields, Opened, Upstream};
use crate::websocket::{Opening, OpeningError, is_websocket_connect};

/// A request as its client has sent it.
pub(super) struct Received<'a> {
    pub(super) head: Parts,
    pub(super) body: ClientBody,
    /// If it asks for another protocol.
    pub(super) upgrade: Option<Upgrade>,
    /// For what its client may have before the answer, if the connection has no place for that.
    pub(super) interim: Option<&'a Interim>,
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
    let offence = session.progress.begin(!request.body.is_end_stream());
    let mut exchange = Exchange::begin(session, &request.head);
    let passage = match offence {
        Some(offence) => Err(offence.into()),
        None => decide(session, &mut request.head, &mut exchange).await,
    };
    let answer = match passage {
        Ok(passage) => carry_out(session, passage, request, &exchange).await,
        Err(failure) => {
            discard(session, request.body);
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
    if is_unswitched && session.progress.is_finishing() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    if let Some(upgrade) = upgrade.filter(|_| is_unswitched) {
        session.progress.upgrade(false);
        end_unswitched(session, upgrade);
    }
    response
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

/// A request that may pass.
enum Passage {
    /// To the upstream, with its fields as that will get them.
    Forward {
        admission: Admission,
        route: Arc<Route>,
        opening: Option<Opening>,
        common: Arc<CommonFields>,
    },
    /// To speak MQTT with the gateway, and present more there.
    Mqtt {
        presented: Presented,
        route: Arc<Route>,
        opening: Opening,
    },
    /// Nowhere: the gateway has answered.
    Answered(Answer),
}

/// The steps in the order that security asks for: what the request is for, who may do that, and
/// only then what the upstream is told. Nothing here costs the upstream anything.
async fn decide(
    session: &Session,
    head: &mut Parts,
    exchange: &mut Exchange,
) -> Result<Box<Passage>, Failure> {
    check_standing(session)?;
    check_form(session, head)?;
    let destination = session.usual_destination.or_of(head, &session.connection)?;
    let Destination { host, is_covered } = &*destination;
    let uri = head.uri.clone();
    let path = normalise(uri.path()).map_err(TargetError::from)?;
    exchange.targets(host, &path);
    // RFC 9110 §7.4: a request for a host of another TLS policy does not belong on this connection,
    // or the handshake's demands could be walked around.
    if !is_covered {
        return Err(Failure::Misdirected);
    }
    let route = find_route(session, head, host, &path)?;
    exchange.routed(&route);
    let target = Target {
        matched: &route.path,
        host: host.name(),
        path: &path,
        query: None,
    };
    exchange.shapes(&route, head, &target);
    if let Some(countable) = of_address(session, &route) {
        // On the heap, so that those who are not counted carry nothing of it.
        exchange.counts(Box::pin(countable.count()).await?);
    }
    if let Some(answer) = answer_preflight(&route, head) {
        return Ok(Box::new(Passage::Answered(answer)));
    }
    let opening = Opening::of(head);
    let is_opening = matches!(opening, Ok(Some(_)));
    if is_opening {
        check_origin(&route, &head.headers)?;
    }
    let (presented, query) = presented(session, head, &route, is_opening);
    let id = exchange.request_id();
    let asked = asked_about(session, &route, head, &uri, &target, id);
    if route.upstream().is_none() {
        let admission = admit(session, &route, &presented, asked).await?;
        count_client(session, &route, &admission, exchange).await?;
        let query = own_answer::query(session, &uri);
        let query = query.as_deref();
        let target = Target { query, ..target };
        let answer = answer_here(session, &route, &target, opening?);
        return answer.map(Passage::Answered).map(Box::new);
    }
    if route.protocol == route::Protocol::Mqtt {
        Box::pin(admit_to_present(session, &route, &presented)).await?;
        let opening = opening?.ok_or(OpeningError::Missing)?;
        return Ok(Box::new(Passage::Mqtt {
            presented,
            route,
            opening,
        }));
    }
    let admission = admit(session, &route, &presented, asked).await?;
    count_client(session, &route, &admission, exchange).await?;
    let opening = opening?;
    let common = prepare(
        session,
        &route,
        head,
        &admission,
        host,
        &target,
        exchange.request_id(),
    );
    rewrite_target(head, &route, &target, &query).map_err(TargetError::from)?;
    Ok(Box::new(Passage::Forward {
        admission,
        route,
        opening,
        common,
    }))
}

/// Sends what may pass, and waits for the head of the answer.
async fn carry_out(
    session: &Arc<Session>,
    passage: Box<Passage>,
    request: Box<Received<'_>>,
    exchange: &Exchange,
) -> Result<Answer, Failure> {
    match *passage {
        Passage::Mqtt {
            presented,
            route,
            opening,
        } => open_mqtt(session, route, presented, &opening, request),
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
            let sent = forward(&admission, session, &route, request, &common);
            let (response, upload) = match exchange.deadline() {
                None => sent.await?,
                Some(deadline) => {
                    let sent = timeout_at(deadline, Box::pin(sent)).await;
                    sent.map_err(|_| Failure::Overdue)??
                }
            };
            Ok(Answer::of_upstream(response, Some(upload), route))
        }
        Passage::Answered(answer) => {
            discard(session, request.body);
            Ok(answer)
        }
    }
}

/// Lets the body of a refused HTTP/2 request run out, within bounds. Dropping it would reset the
/// stream, and some clients then lose the answer (RFC 9113 §8.1). HTTP/1.1 sees to it itself.
fn discard(session: &Session, mut body: ClientBody) {
    const MOST: usize = 64 * 1024;
    const LONGEST: Duration = Duration::from_secs(2);
    if session.protocol == Protocol::Http1 || body.is_end_stream() {
        return;
    }
    let rest = async move {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MOST {
                return;
            }
        }
    };
    session
        .edge
        .tasks
        .spawn(tokio::time::timeout(LONGEST, rest));
}

/// A connection that has been told to end takes what its client may have sent before it heard of that,
/// but not what nobody could send today: another connection may (RFC 9110 §15.5.20).
fn check_standing(session: &Session) -> Result<(), Failure> {
    let stands = match session.progress.standing() {
        Standing::Good => true,
        Standing::Doubtful => session.is_still_trusted(),
        Standing::Lost => false,
    };
    if stands {
        Ok(())
    } else {
        Err(Failure::Misdirected)
    }
}

/// What can be said of a request by itself.
fn check_form(session: &Session, head: &Parts) -> Result<(), Failure> {
    let is_method_refused = match head.method {
        Method::CONNECT => !is_websocket_connect(head),
        Method::TRACE => true,
        _ => false,
    };
    if is_method_refused {
        return Err(Failure::Method);
    }
    let length = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if length > session.edge.rules.limits.uri_bytes {
        return Err(Failure::UriTooLong);
    }
    // hyper counts for HTTP/1.1 alone; an HTTP/2 header block makes many fields of few bytes.
    if head.headers.len() > session.edge.rules.limits.header_count {
        return Err(Failure::TooManyFields);
    }
    // HTTP/2 has none (RFC 9113 §8.2.2).
    if session.protocol == Protocol::Http1 && !is_plainly_framed(&head.headers) {
        return Err(Failure::TransferCoding);
    }
    Ok(())
}

/// RFC 9112 §6.1, §7: `chunked` once is the one transfer coding there is here. hyper looks at the
/// last alone, and what another one has made of the body would be passed on as the body.
fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

fn find_route(
    session: &Session,
    head: &Parts,
    host: &Host,
    path: &str,
) -> Result<Arc<Route>, Failure> {
    let sought = Sought {
        host: host.name(),
        path,
        method: method(head),
        headers: &head.headers,
    };
    let routes = &session.edge.rules.routes;
    // A preflight is about another request, and asks for the route of that.
    if let Some(method) = &Cors::preflighted(head)
        && let Ok(route) = routes.find(&Sought { method, ..sought })
        && route.cors.is_some()
    {
        return Ok(Arc::clone(route));
    }
    routes.find(&sought).cloned().map_err(Failure::from)
}

/// RFC 8441 §5: an extended CONNECT stands for the GET of HTTP/1.1.
fn method(head: &Parts) -> &Method {
    match head.method {
        Method::CONNECT => &Method::GET,
        _ => &head.method,
    }
}

/// RFC 6455 §10.2: a browser shows the user's certificate whatever page opens a WebSocket, and says
/// only here which one it was. Devices say nothing, so nothing is demanded.
fn check_origin(route: &Route, headers: &HeaderMap) -> Result<(), Failure> {
    if route.origins.is_empty() {
        return Ok(());
    }
    let mut named = headers.get_all(ORIGIN).iter();
    match (named.next(), named.next()) {
        (None, _) => Ok(()),
        (Some(field), None) if route.origins.iter().any(|origin| origin.is(field)) => Ok(()),
        (Some(_), _) => Err(Failure::Origin),
    }
}

/// What another service may be told of the request, if one is asked.
fn asked_about<'a>(
    session: &Session,
    route: &Route,
    head: &'a mut Parts,
    uri: &Uri,
    target: &Target<'a>,
    request_id: &'a HeaderValue,
) -> Option<Box<callout::Request<'a>>> {
    route.callout?;
    if session.protocol == Protocol::Http2 {
        headers::join_cookies(&mut head.headers);
    }
    // On the heap, so that those about whom nobody is asked carry nothing of it.
    Some(Box::new(callout::Request {
        method: method(head),
        host: target.host,
        path: target.path,
        query: own_answer::query(session, uri),
        headers: &head.headers,
        id: request_id.to_str().unwrap_or_default(),
    }))
}

async fn admit(
    session: &Session,
    route: &Route,
    presented: &Presented,
    asked: Option<Box<callout::Request<'_>>>,
) -> Result<Admission, Failure> {
    let now = session.edge.clock.now();
    let gate = &session.edge.rules.gate;
    let connection = &session.connection;
    let admission = gate.admit(connection, route.demand(), presented, asked.as_deref(), now);
    Ok(admission.await?)
}

/// Counts the request among those of its client, if there is room for it.
async fn count_client(
    session: &Session,
    route: &Route,
    admission: &Admission,
    exchange: &mut Exchange,
) -> Result<(), Failure> {
    if let Some(countable) = of_client(session, route, admission) {
        // On the heap, so that those who are not counted carry nothing of it.
        exchange.counts(Box::pin(countable.count()).await?);
    }
    Ok(())
}

/// For a client that will present its credential inside the WebSocket.
async fn admit_to_present(
    session: &Session,
    route: &Route,
    presented: &Presented,
) -> Result<(), Failure> {
    let now = session.edge.clock.now();
    let gate = &session.edge.rules.gate;
    let admission = gate.admit_to_present(&session.connection, route.demand(), presented, now);
    Ok(admission.await?)
}

/// The answer to a browser that asks whether it may ask, before anybody has to say who they are.
fn answer_preflight(route: &Arc<Route>, head: &Parts) -> Option<Answer> {
    let cors = route.cors.as_ref()?;
    Cors::preflighted(head)?;
    Some(Answer::of_our_own(preflight(cors, head), Arc::clone(route)))
}

/// The answer of a route without an upstream.
fn answer_here(
    session: &Session,
    route: &Arc<Route>,
    target: &Target<'_>,
    opening: Option<Opening>,
) -> Result<Answer, Failure> {
    let response = own_answer::of(&session.edge.rules, route, target)?;
    if opening.is_some_and(|opening| opening.is_mistaken_for_success(response.status())) {
        return Err(Failure::NoRoute);
    }
    Ok(Answer::of_our_own(response, Arc::clone(route)))
}

/// The fields as the upstream gets them: first everything that removes, then what is set. Those that go
/// with every request are apart.
fn prepare(
    session: &Session,
    route: &Route,
    head: &mut Parts,
    admission: &Admission,
    host: &Host,
    target: &Target<'_>,
    request_id: &HeaderValue,
) -> Arc<CommonFields> {
    let fields = &mut head.headers;
    let upstream = session.edge.upstream(route);
    // gRPC demands it on every hop.
    let with_trailers =
        upstream.is_some_and(Upstream::speaks_http2) && headers::takes_trailers(fields);
    headers::remove_what_ends_here(fields, &session.edge.rules.claim_fields);
    if with_trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    if session.protocol == Protocol::Http2 {
        headers::join_cookies(fields);
    }
    if !route.request_fields.is_empty() {
        let (rules, method) = (&route.request_fields, &head.method);
        change_request(
            fields,
            changes(rules, session, Some(target), method, request_id),
        );
    }
    let common = session.fields.set(fields, admission, host, request_id);
    headers::set_granted(fields, admission);
    headers::set_claims(fields, &route.forward_claims, admission);
    if !route.forward_certificate.is_empty() {
        let now = session.edge.clock.now();
        let dialects = &route.forward_certificate;
        session
            .fields
            .set_certificate(fields, dialects, &session.connection, now);
    }
    if let Some(asserter) = &session.edge.rules.asserter {
        let client = Client {
            admission,
            connection: &session.connection,
            now: session.edge.clock.now(),
        };
        session
            .fields
            .set_assertion(fields, asserter, route, &client);
    }
    common
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
            return Ok(Answer::of_upstream(response, None, Arc::clone(route)));
        }
    };
    if !opening.is_accepted(&head.headers) {
        return Err(Failure::BadUpgrade);
    }
    let tunnel = Tunnel::new(Arc::clone(session), Arc::clone(route), places);
    let standing = admission.into_standing(route.demand());
    let run = tunnel.run(client, upstream, busy, standing);
    session.edge.tasks.spawn(run);
    opening.pass_on(&mut head);
    Ok(Answer::switched(head, Arc::clone(route)))
}

/// Opens a WebSocket here, to take MQTT out of it (MQTT 5.0 §6).
fn open_mqtt(
    session: &Arc<Session>,
    route: Arc<Route>,
    presented: Presented,
    opening: &Opening,
    mut request: Box<Received<'_>>,
) -> Result<Answer, Failure> {
    /// MQTT 3.1.1 and 5, and what clients of MQTT 3.1 ask for.
    const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
    let fields = opening.answer(&request.head, &SUBPROTOCOLS)?;
    let client = take_client(&mut request)?;
    let tunnel = Tunnel::new(Arc::clone(session), Arc::clone(&route), vec![]);
    session.edge.tasks.spawn(tunnel.run_mqtt(client, presented));
    Ok(Answer::opened(opening.success(), fields, route))
}

/// The reason goes to the log, where the id that the client was given leads to it.
fn report(session: &Session, exchange: &Exchange, failure: &Failure) {
    let request_id = exchange.request_id().to_str().unwrap_or_default();
    let remote = session.connection.remote();
    if failure.is_upstreams() {
        tracing::warn!(request_id, reason = failure.reason(), "{failure}");
    } else {
        tracing::info!(request_id, %remote, reason = failure.reason(), "refused: {failure}");
    }
}
