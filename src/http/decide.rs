//! What is decided of a request before anything goes upstream: whether it may pass, where to, and what
//! the upstream is told.

use std::sync::Arc;

use hyper::header::{HeaderValue, ORIGIN, TE, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Uri};

use super::answer::Answer;
use super::assertion::Client;
use super::exchange::Exchange;
use super::field_rules::{change_request, changes};
use super::forward::rewrite_target;
use super::headers;
use super::limits::{of_address, of_client};
use super::own_answer;
use super::presented::presented;
use super::refusal::Failure;
use super::shape::preflight;
use super::target::{Destination, Host, TargetError};
use super::watch::Standing;
use super::{Protocol, Session};
use crate::access::Admission;
use crate::callout;
use crate::credential::Presented;
use crate::quota::Overrun;
use crate::route::{self, Cors, Route, Sought, Target, normalise};
use crate::upstream::{CommonFields, Upstream};
use crate::websocket::{Opening, OpeningError, is_websocket_connect};

/// A request that may pass.
pub(super) enum Passage {
    /// To the upstream, with its fields as that will get them.
    Forward {
        admission: Admission,
        route: Arc<Route>,
        opening: Option<Opening>,
        common: Arc<CommonFields>,
    },
    /// To speak MQTT with the gateway, and present more there.
    Mqtt(ToMqtt),
    /// Nowhere: the gateway has answered.
    Answered(Answer),
}

/// A client that will speak MQTT inside the WebSocket that it opens.
pub(super) struct ToMqtt {
    pub(super) presented: Presented,
    pub(super) route: Arc<Route>,
    pub(super) opening: Opening,
    /// Whether its address may ask for it.
    pub(super) counted: Result<(), Overrun>,
}

/// The steps in the order that security asks for: what the request is for, who may do that, and
/// only then what the upstream is told. Nothing here costs the upstream anything.
pub(super) async fn decide(
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
        match Box::pin(countable.count()).await {
            Ok(place) => exchange.counts(place),
            Err(overrun) => return over_limit(&route, head, overrun),
        }
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
        return Ok(Box::new(Passage::Mqtt(ToMqtt {
            presented,
            route,
            opening,
            counted: Ok(()),
        })));
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

/// Nothing that such a request presents is looked at. MQTT inside a WebSocket says so itself.
fn over_limit(route: &Arc<Route>, head: &Parts, overrun: Overrun) -> Result<Box<Passage>, Failure> {
    match Opening::of(head) {
        Ok(Some(opening)) if route.protocol == route::Protocol::Mqtt => {
            check_origin(route, &head.headers)?;
            Ok(Box::new(Passage::Mqtt(ToMqtt {
                presented: Presented::nothing(),
                route: Arc::clone(route),
                opening,
                counted: Err(overrun),
            })))
        }
        Ok(_) | Err(_) => Err(overrun.into()),
    }
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
    if session.protocol == Protocol::Http2
        && list_bytes(head) > session.edge.rules.limits.header_bytes
    {
        return Err(Failure::HeadTooLarge);
    }
    // HTTP/2 has none (RFC 9113 §8.2.2).
    if session.protocol == Protocol::Http1 && !is_plainly_framed(&head.headers) {
        return Err(Failure::TransferCoding);
    }
    Ok(())
}

/// The size of a header list, but for its pseudo-fields, of which the longest has a limit of its own (RFC 9113
/// §6.5.2).
fn list_bytes(head: &Parts) -> usize {
    const OF_EACH: usize = 32;
    let fields = head.headers.iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len() + OF_EACH)
        .sum()
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
