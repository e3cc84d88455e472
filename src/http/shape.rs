//! What a route makes of the head of every answer, whoever writes it: its operator's changes, and the
//! word to pages of other origins.

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Response, StatusCode};

use bytes::Bytes;

use super::Session;
use super::field_rules::{Author, change_answer, changes};
use crate::route::{Cors, FieldChange, Leave, Route, Target};

/// The same for one request, as far as it depends on that.
#[derive(Debug)]
pub(super) struct Shape {
    changes: Vec<FieldChange>,
    leave: Leave,
}

impl Shape {
    /// What `route` makes of answers to `head`; `None` if nothing.
    pub(super) fn of(
        route: &Route,
        session: &Session,
        head: &Parts,
        target: &Target<'_>,
        request_id: &HeaderValue,
    ) -> Option<Box<Self>> {
        let rules = &route.answer_fields;
        if rules.is_empty() && route.cors.is_none() {
            return None;
        }
        let leave = route.cors.as_ref().map(|cors| cors.leave(&head.headers));
        Some(Box::new(Self {
            changes: changes(rules, session, Some(target), &head.method, request_id),
            leave: leave.unwrap_or(Leave::Nobody),
        }))
    }

    /// Whether what an upstream says by this name is not what the client gets.
    pub(super) fn replaces(&self, name: &HeaderName) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| change.replaces && change.name == *name)
    }

    /// Gives it to the head of an answer of `route`.
    pub(super) fn give(&self, route: &Route, headers: &mut HeaderMap, author: Author) {
        change_answer(headers, &self.changes, author);
        let Some(cors) = &route.cors else {
            return;
        };
        if author == Author::Upstream {
            Cors::remove_others(headers);
        }
        cors.set(headers, &self.leave);
    }
}

/// The answer to a preflight, which carries no credentials, so that nobody is asked for any.
pub(super) fn preflight(cors: &Cors, head: &Parts) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    cors.set_preflight(response.headers_mut(), &cors.leave(&head.headers));
    response
}
