//! One request and its answer, from the first to the last byte: numbered when it begins, counted
//! and logged when it ends, however it ends.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

use super::field_rules::{Author, Direction, change_answer, changes, is_guarded};
use super::shape::Shape;
use super::target::Host;
use super::{Protocol, Session};
use crate::quota::Place;
use crate::route::{Route, Target};
use crate::telemetry::AccessRecord;

/// The reason of requests whose client did not wait for the end of the answer.
const GIVEN_UP: &str = "aborted";

/// What is logged and counted as the status where nobody is there to get one, as nginx has it.
fn given_up() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

/// Ends, and is logged, when it is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    session: Arc<Session>,
    request_id: HeaderValue,
    started: Instant,
    method: Method,
    route: Option<Arc<Route>>,
    /// What the route makes of the answer.
    shape: Option<Box<Shape>>,
    status: StatusCode,
    bytes_out: u64,
    /// What it counts as while it lasts.
    places: Vec<Place>,
    reason: Option<&'static str>,
    /// Whether the answer waits for its client.
    held: bool,
    line: Option<Box<Line>>,
}

/// What only the access log needs.
#[derive(Debug, Default)]
struct Line {
    host: String,
    path: String,
    server: Option<String>,
}

impl Exchange {
    /// Begins with the arrival of a request. On the heap, since it goes from hand to hand until the answer
    /// has been sent.
    pub(super) fn begin(session: &Arc<Session>, head: &Parts) -> Box<Self> {
        Box::new(Self {
            request_id: session.request_id(),
            started: Instant::now(),
            method: head.method.clone(),
            route: None,
            shape: None,
            status: given_up(),
            bytes_out: 0,
            places: vec![],
            reason: Some(GIVEN_UP),
            held: false,
            line: session.edge.access_log.is_some().then(Box::default),
            session: Arc::clone(session),
        })
    }

    /// Notes where the request goes.
    pub(super) fn targets(&mut self, host: &Host, path: &str) {
        if let Some(line) = &mut self.line {
            host.name().clone_into(&mut line.host);
            path.clone_into(&mut line.path);
        }
    }

    /// Notes the route that was found.
    pub(super) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    /// Notes what the route that was found makes of the answer, whatever that is.
    pub(super) fn shapes(&mut self, route: &Route, head: &Parts, target: &Target<'_>) {
        self.shape = Shape::of(route, &self.session, head, target, &self.request_id);
    }

    /// The head of the answer as the client gets it.
    pub(super) fn finish(&self, headers: &mut HeaderMap, author: Author) {
        // What a client has sent may be in it, whose meaning no browser shall guess.
        if author == Author::Gateway {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        if let Some(hsts) = &self.session.edge.rules.hsts {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        if let (Some(shape), Some(route)) = (&self.shape, &self.route) {
            shape.give(route, headers, author);
        }
        let rules = &self.session.edge.rules.answer_fields;
        if self.route.is_none() && !rules.is_empty() {
            let (session, id) = (&self.session, &self.request_id);
            let changes = changes(rules, session, None, &self.method, id);
            change_answer(headers, &changes, author);
        }
    }

    /// What of an upstream's trailers the client gets: nothing that ends at this hop, frames the answer or is
    /// the gateway's to say, and nothing that the operator has replaced in its head.
    pub(super) fn trim(&self, trailers: &mut HeaderMap) {
        let replaced = |name: &HeaderName| {
            self.shape
                .as_ref()
                .is_some_and(|shape| shape.replaces(name))
        };
        let names: Vec<HeaderName> = trailers.keys().cloned().collect();
        for name in names {
            if is_guarded(&name, Direction::Answer) || replaced(&name) {
                trailers.remove(name);
            }
        }
    }

    /// Counts for as long as it lasts.
    pub(super) fn counts(&mut self, place: Option<Place>) {
        self.places.extend(place);
    }

    /// What it counts as, for what lasts longer.
    pub(super) fn places(&self) -> Vec<Place> {
        self.places.clone()
    }

    /// When the answer must have ended; `None` if the route lets it take its time.
    pub(super) fn deadline(&self) -> Option<tokio::time::Instant> {
        let limit = self.route.as_ref()?.total_timeout?;
        Some((self.started + limit).into())
    }

    /// Whether the answer should have ended.
    pub(super) fn is_overdue(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| deadline <= tokio::time::Instant::now())
    }

    /// Notes the answer's status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status;
        self.reason = None;
    }

    /// Notes which server the answer is of.
    pub(super) fn served_by(&mut self, server: Option<&str>) {
        if let Some(line) = &mut self.line {
            line.server = server.map(str::to_owned);
        }
    }

    /// Notes why the request was refused or failed.
    pub(super) fn failed(&mut self, reason: &'static str) {
        self.reason = Some(reason);
    }

    /// Notes that the client has not waited for the end of the answer, unless that is another's fault.
    pub(super) fn given_up(&mut self) {
        self.reason.get_or_insert(GIVEN_UP);
    }

    /// Notes whether more of the answer is there than its client has taken.
    pub(super) fn hold(&mut self, held: bool) {
        match (self.held, held) {
            (false, true) => self.session.progress.hold(),
            (true, false) => self.session.progress.release(),
            (true, true) | (false, false) => {}
        }
        self.held = held;
    }

    /// Notes that the client takes more of the answer.
    pub(super) fn asked(&self) {
        self.session.progress.asked();
    }

    /// Notes bytes of the answer's body.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// Whether the answer must have no body (RFC 9110 §9.3.2).
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether the connection carries one request after the other.
    pub(super) fn is_http1(&self) -> bool {
        self.session.protocol == Protocol::Http1
    }

    /// The id that the client and the upstream are given.
    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    fn log(&self) {
        let (Some(log), Some(line)) = (&self.session.edge.access_log, &self.line) else {
            return;
        };
        let connection = &self.session.connection;
        log.record(&AccessRecord {
            time: SystemTime::now(),
            request_id: self.request_id.to_str().unwrap_or_default(),
            listener: &self.session.edge.rules.listener,
            client_ip: connection.remote().ip().to_canonical(),
            client_port: connection.remote().port(),
            protocol: self.session.protocol.name(),
            method: self.method.as_str(),
            host: &line.host,
            path: &line.path,
            status: self.status.as_u16(),
            bytes_out: self.bytes_out,
            duration_ms: (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            server: line.server.as_deref(),
            route: self.route.as_ref().map(|route| route.name.as_str()),
            cert_fp_sha256: connection.fingerprint(),
            reason: self.reason,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let edge = &self.session.edge;
        let metrics = self
            .route
            .as_ref()
            .and_then(|route| edge.routed.get(route.id));
        metrics
            .unwrap_or(&edge.unrouted)
            .observe(self.status.as_u16(), self.started.elapsed().as_secs_f64());
        if let Some(reason) = self.reason {
            edge.metrics.refused(reason);
        }
        self.log();
        self.hold(false);
        self.session.progress.end();
    }
}
