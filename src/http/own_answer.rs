//! The answers of routes without an upstream: redirects (RFC 9110 §15.4), fixed answers, and the keys of
//! assertions. Who may have them has been decided before.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Response, Uri};

use super::refusal::Failure;
use super::target::TargetError;
use super::{Rules, Session};
use crate::assertion::{Asserter, KEY_SET_CACHING, KEY_SET_TYPE};
use crate::credential::{ForwardedQuery, Presented, split_credentials};
use crate::route::{Destination, FixedAnswer, PathError, Redirect, Requirement, Route, Target};

/// The query of `uri` as a location, or another service, may have it. Browsers and logs keep both, so
/// no credential gets there, whether or not the route has asked for it.
pub(super) fn query(session: &Session, uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let token_name = session.edge.rules.token_places.query.as_deref();
    match split_credentials(query, token_name, &mut Presented::nothing()) {
        ForwardedQuery::Unchanged => Some(query.to_owned()),
        ForwardedQuery::Without(rest) => rest,
    }
}

/// What `route` answers itself to a request for `target`.
pub(super) fn of(
    rules: &Rules,
    route: &Route,
    target: &Target<'_>,
) -> Result<Response<Bytes>, Failure> {
    let mut response = match &route.destination {
        Destination::Upstream(_) => return Err(Failure::NoRoute),
        Destination::Redirect(redirect) => redirection(redirect, target)?,
        Destination::Answer(answer) => fixed(answer),
        Destination::KeySet => key_set(rules.asserter.as_deref().ok_or(Failure::NoRoute)?),
    };
    if route.requirement != Requirement::None || route.callout.is_some() {
        // A cache does not know who may have it: a certificate is no field.
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

fn redirection(redirect: &Redirect, target: &Target<'_>) -> Result<Response<Bytes>, TargetError> {
    let location = redirect.location.of(target);
    let location = HeaderValue::try_from(location).map_err(|_| PathError::Ambiguous)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// RFC 7517 §8.5.2.
fn key_set(asserter: &Asserter) -> Response<Bytes> {
    let mut response = Response::new(asserter.key_set());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(KEY_SET_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEY_SET_CACHING));
    response
}

fn fixed(answer: &FixedAnswer) -> Response<Bytes> {
    let mut response = Response::new(answer.body.clone());
    *response.status_mut() = answer.status;
    if let Some(kind) = &answer.content_type {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response
}
