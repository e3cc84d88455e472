//! What a request presents to the gate, wherever it says it.

use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;

use super::{Session, headers};
use crate::credential::{self, ForwardedQuery, Presented, query_values, split_credentials};
use crate::route::{Requirement, Route};

/// Everything the client presents, and the query string without it. A route that demands nothing
/// passes on whatever there is.
pub(super) fn presented(
    session: &Session,
    head: &mut Parts,
    route: &Route,
    is_opening: bool,
) -> (Presented, ForwardedQuery) {
    let requirement = route.requirement;
    let mut presented = Presented::nothing();
    if requirement == Requirement::None {
        return (presented, ForwardedQuery::Unchanged);
    }
    for place in session.edge.rules.gate.places(route.demand()) {
        add_names(&mut presented, place, head);
    }
    for value in head.headers.get_all(AUTHORIZATION) {
        presented.add_authorization(value.as_bytes());
    }
    let places = &session.edge.rules.token_places;
    let mut token_parameter = None;
    if requirement.takes_tokens() && is_opening {
        token_parameter = places.query.as_deref();
        if let Some(prefix) = &places.subprotocol {
            headers::take_subprotocol_tokens(&mut head.headers, prefix, &mut presented);
        }
    }
    let query = match head.uri.query() {
        Some(query) => split_credentials(query, token_parameter, &mut presented),
        None => ForwardedQuery::Unchanged,
    };
    (presented, query)
}

/// What the request says at a place that its client's certificate has to agree with.
fn add_names(presented: &mut Presented, place: &credential::Place, head: &Parts) {
    match place {
        credential::Place::UserName => {
            for value in head.headers.get_all(AUTHORIZATION) {
                presented.add_basic_user_name(value.as_bytes());
            }
        }
        credential::Place::Header(name) => {
            for value in head.headers.get_all(name) {
                presented.add_name(place.clone(), value.as_bytes());
            }
        }
        credential::Place::Query(name) => {
            for value in query_values(head.uri.query().unwrap_or_default(), name) {
                presented.add_name(place.clone(), &value);
            }
        }
        credential::Place::ClientId => {}
    }
}
