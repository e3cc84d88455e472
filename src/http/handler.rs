//! The way of one request, from its head to its answer.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use super::body::{AnswerBody, Loan};
use super::exchange::Exchange;
use super::forward::{forward, open, rewrite_target};
use super::headers::{self, X_REQUEST_ID};
use super::refusal::Failure;
use super::target::Host;
use super::tunnel::Tunnel;
use super::{Protocol, Session};
use crate::access::Admission;
use crate::credential::{ForwardedQuery, Presented, split_credentials};
use crate::route::{Requirement, Route, normalise};
use crate::websocket::Opening;

/// Answers one request, whatever it is.
pub(super) async fn handle(
    session: Arc<Session>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let offence = session.progress.begin();
    let mut exchange = Exchange::begin(&session, &head);
    let answer = match offence {
        Some(offence) => Err(offence.into()),
        None => answer(&session, head, body, &mut exchange).await,
    };
    match answer {
        Ok(answer) => answer.into_response(exchange),
        Err(failure) => {
            report(&session, &exchange, &failure);
            failure.into_response(exchange)
        }
    }
}

/// The steps in the order that security asks for: what the request is for, who may do that, and
/// only then anything that costs the upstream.
async fn answer(
    session: &Arc<Session>,
    mut head: Parts,
    body: Incoming,
    exchange: &mut Exchange,
) -> Result<Answer, Failure> {
    check_form(session, &head)?;
    let host = Host::of(&head)?;
    let uri = head.uri.clone();
    let path = normalise(uri.path()).map_err(|error| Failure::Target(error.into()))?;
    exchange.targets(&host, &path);
    check_policy(session, &host)?;
    let route = find_route(session, &host, &path)?;
    exchange.routed(&route);
    let (presented, query) = presented(&head, route.requirement);
    let admission = admit(session, &route, &presented)?;
    let opening = Opening::of(&head)?;
    prepare(session, &mut head, &admission, &host, exchange.request_id());
    rewrite_target(&mut head, &route, &path, &query)
        .map_err(|error| Failure::Target(error.into()))?;
    match opening {
        Some(opening) => open_websocket(session, &route, &admission, opening, head, body).await,
        None => {
            let (response, loan) = forward(&admission, session, &route, head, body).await?;
            Ok(Answer {
                response,
                loan: Some(loan),
                route,
            })
        }
    }
}

/// What can be said of a request by itself.
fn check_form(session: &Session, head: &Parts) -> Result<(), Failure> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
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
    if !is_plainly_framed(&head.headers) {
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

/// RFC 9110 §7.4: a request for a host of another TLS policy does not belong on this connection,
/// or the handshake's demands could be walked around.
fn check_policy(session: &Session, host: &Host) -> Result<(), Failure> {
    let arrived = &session.arrived;
    if arrived.policies.covers(&arrived.policy, host.name()) {
        Ok(())
    } else {
        Err(Failure::Misdirected)
    }
}

fn find_route(session: &Session, host: &Host, path: &str) -> Result<Arc<Route>, Failure> {
    let routes = &session.edge.rules.routes;
    routes
        .find(host.name(), path)
        .cloned()
        .ok_or(Failure::NoRoute)
}

/// Everything the client presents, and the query string without it. A route that demands nothing
/// passes on whatever there is.
fn presented(head: &Parts, requirement: Requirement) -> (Presented, ForwardedQuery) {
    let mut presented = Presented::nothing();
    if requirement == Requirement::None {
        return (presented, ForwardedQuery::Unchanged);
    }
    for value in head.headers.get_all(AUTHORIZATION) {
        presented.add_authorization(value.as_bytes());
    }
    let query = match head.uri.query() {
        Some(query) => split_credentials(query, &mut presented),
        None => ForwardedQuery::Unchanged,
    };
    (presented, query)
}

fn admit(session: &Session, route: &Route, presented: &Presented) -> Result<Admission, Failure> {
    let now = session.edge.clock.now();
    let gate = &session.edge.rules.gate;
    Ok(gate.admit(
        &session.arrived.connection,
        route.requirement,
        presented,
        now,
    )?)
}

/// The fields as the upstream gets them: first everything that removes, then what is set.
fn prepare(
    session: &Session,
    head: &mut Parts,
    admission: &Admission,
    host: &Host,
    request_id: &HeaderValue,
) {
    let fields = &mut head.headers;
    headers::remove_hop_by_hop(fields);
    headers::remove_identity(fields);
    headers::remove_expect(fields);
    if session.protocol == Protocol::Http2 {
        headers::join_cookies(fields);
    }
    session.fields.set(fields, admission, host, request_id);
}

/// Opens a WebSocket at the upstream and, if it agrees, lets both sides talk (RFC 6455 §4).
async fn open_websocket(
    session: &Arc<Session>,
    route: &Arc<Route>,
    admission: &Admission,
    opening: Opening,
    mut head: Parts,
    body: Incoming,
) -> Result<Answer, Failure> {
    let client = opening.take_client(&mut head, &body)?;
    opening.set(&mut head.headers);
    let mut response = open(admission, session, route, head, body).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !opening.is_accepted(response.headers()) {
            return Err(Failure::BadUpgrade);
        }
        let upstream = hyper::upgrade::on(&mut response);
        let tunnel = Tunnel::new(Arc::clone(session), Arc::clone(route));
        session.edge.tasks.spawn(tunnel.run(client, upstream));
    }
    Ok(Answer {
        response,
        loan: None,
        route: Arc::clone(route),
    })
}

/// What the upstream answered, before it is the client's.
struct Answer {
    response: Response<Incoming>,
    loan: Option<Loan>,
    route: Arc<Route>,
}

impl Answer {
    fn into_response(self, mut exchange: Exchange) -> Response<AnswerBody> {
        let (mut head, incoming) = self.response.into_parts();
        exchange.answered(head.status);
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            headers::remove_hop_by_hop(&mut head.headers);
        }
        // The rest of the body would have to be told from the head of the next request.
        if self.loan.as_ref().is_some_and(Loan::is_uploading) {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        head.headers
            .insert(X_REQUEST_ID, exchange.request_id().clone());
        let body = AnswerBody::streamed(incoming, self.loan, self.route.idle_timeout, exchange);
        Response::from_parts(head, body)
    }
}

/// The reason goes to the log, where the id that the client was given leads to it.
fn report(session: &Session, exchange: &Exchange, failure: &Failure) {
    let request_id = exchange.request_id().to_str().unwrap_or_default();
    let remote = session.arrived.connection.remote();
    if failure.is_upstreams() {
        tracing::warn!(request_id, reason = failure.reason(), "{failure}");
    } else {
        tracing::info!(request_id, %remote, reason = failure.reason(), "refused: {failure}");
    }
}
