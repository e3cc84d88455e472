//! `[routes.X]`: which requests a route is for, what it demands of them and where they go.

use std::collections::HashSet;
use std::sync::Arc;

use super::bindings::{Bindings, Use};
use super::check::{MINUTE, REQUIREMENTS, patterns};
use super::destinations::destination;
use super::document::Section;
use super::value::{Raw, boolean, duration, list, one_of, size, text};
use super::{ListenerSettings, Service, claims};
use crate::route::{Destination, PathMatch, Protocol, Redirect, Requirement, Route, normalise};
use crate::upstream;

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("mqtt", Protocol::Mqtt)];

/// How a route's `path` is compared.
#[derive(Debug, Clone, Copy)]
enum MatchKind {
    Prefix,
    Exact,
}

const MATCH_KINDS: &[(&str, MatchKind)] =
    &[("prefix", MatchKind::Prefix), ("exact", MatchKind::Exact)];

/// All of them, in the order that everything else refers to, and those of listeners that redirect.
pub(super) fn routes(
    root: &Section<'_, '_>,
    listeners: &[ListenerSettings],
    upstreams: &[Arc<upstream::Settings>],
    bindings: &Bindings,
) -> Vec<Arc<Route>> {
    let all = root.section("routes");
    let mut routes: Vec<Arc<Route>> = Vec::new();
    let mut seen = HashSet::new();
    for (name, section) in all.named_sections() {
        let Some(mut route) = route(&section, name, routes.len(), upstreams, bindings) else {
            section.finish();
            continue;
        };
        settle_listeners(&section, &mut route, listeners);
        if !seen.insert(place(&route)) {
            section.problem(
                "path",
                "another route has the same path, hosts and listeners",
            );
        }
        section.finish();
        routes.push(Arc::new(route));
    }
    all.finish();
    for listener in listeners {
        let Some(redirect) = &listener.redirect else {
            continue;
        };
        let route = of_listener(routes.len(), &listener.name, redirect.clone());
        if !seen.insert(place(&route)) {
            let message = "leaves nothing to a route for everything on this listener";
            let key = format!("{}.redirect", listener.name);
            root.section("listeners").problem(&key, message);
        }
        routes.push(Arc::new(route));
    }
    routes
}

/// What no two routes may have in common.
fn place(route: &Route) -> (String, String, Vec<String>) {
    (
        format!("{:?}", route.path),
        format!("{:?}", route.hosts),
        route.listeners.clone(),
    )
}

/// A listener that redirects serves those routes alone that name it, or what is meant for TLS would
/// be served without.
fn settle_listeners(section: &Section<'_, '_>, route: &mut Route, listeners: &[ListenerSettings]) {
    for listener in &route.listeners {
        if !listeners.iter().any(|known| known.name == *listener) {
            section.problem("listeners", format!("no listener is called \"{listener}\""));
        }
    }
    let redirects = |listener: &ListenerSettings| listener.redirect.is_some();
    if !route.listeners.is_empty() || !listeners.iter().any(redirects) {
        return;
    }
    let serves = |listener: &&ListenerSettings| {
        listener.service == Service::Http && listener.redirect.is_none()
    };
    let serving = listeners.iter().filter(serves);
    route.listeners = serving.map(|listener| listener.name.clone()).collect();
    if route.listeners.is_empty() {
        let message = "is missing: every listener redirects, so nobody would meet the route";
        section.problem("listeners", message);
    }
}

/// The route of a listener that redirects, for whatever no other route of it is for.
fn of_listener(id: usize, listener: &str, redirect: Redirect) -> Route {
    Route {
        id,
        // No route that has a name of its own can have this one.
        name: format!("listeners.{listener}"),
        listeners: vec![listener.to_owned()],
        hosts: vec![],
        path: PathMatch::Prefix("/".to_owned()),
        protocol: Protocol::Http,
        strip_prefix: false,
        requirement: Requirement::None,
        binding: 0,
        claims: vec![],
        forward_claims: vec![],
        destination: Destination::Redirect(redirect),
        max_body: 0,
        response_timeout: MINUTE,
        idle_timeout: MINUTE,
        keep_query_credential: false,
    }
}

fn route(
    section: &Section<'_, '_>,
    name: String,
    id: usize,
    upstreams: &[Arc<upstream::Settings>],
    bindings: &Bindings,
) -> Option<Route> {
    let kind = section.read("match", MatchKind::Prefix, one_of(MATCH_KINDS));
    let path = section.read_required("path", route_path);
    let destination = destination(section, upstreams);
    let protocol = section.read("protocol", Protocol::Http, one_of(PROTOCOLS));
    let used = match protocol {
        Protocol::Http => Use::Http,
        Protocol::Mqtt => Use::MqttInWebSocket,
    };
    // What the gateway says itself, it says to anybody, unless told otherwise.
    let usual = match destination {
        Some(Destination::Redirect(_) | Destination::Answer(_)) => Requirement::None,
        Some(Destination::Upstream(_)) | None => Requirement::Client,
    };
    let route = Route {
        id,
        name,
        listeners: section.read("listeners", vec![], list),
        hosts: patterns(section, "hosts"),
        path: match (kind, path.clone().unwrap_or_default()) {
            (MatchKind::Prefix, path) => PathMatch::Prefix(path),
            (MatchKind::Exact, path) => PathMatch::Exact(path),
        },
        protocol,
        strip_prefix: section.read("strip_prefix", false, boolean),
        requirement: section.read("credential", usual, one_of(REQUIREMENTS)),
        binding: bindings.choose(section, used),
        claims: claims::rules(section),
        forward_claims: claims::forwarded(section),
        destination: destination.clone().unwrap_or(Destination::Upstream(0)),
        max_body: section.read("max_body", 5 << 20, size),
        response_timeout: section.read("response_timeout", MINUTE, duration),
        idle_timeout: section.read("idle_timeout", 60 * MINUTE, duration),
        keep_query_credential: section.read("keep_query_credential", false, boolean),
    };
    refuse_contradictions(section, &route);
    path.and(destination).map(|_| route)
}

/// The rules between the keys of one route.
fn refuse_contradictions(section: &Section<'_, '_>, route: &Route) {
    if route.protocol == Protocol::Mqtt && route.requirement == Requirement::None {
        section.problem(
            "credential",
            "must not be \"none\" where protocol = \"mqtt\"",
        );
    }
    if !route.requirement.takes_tokens() {
        let message = "are of tokens, which the route's credential does not take";
        if !route.claims.is_empty() {
            section.problem("claims", message);
        }
        if !route.forward_claims.is_empty() {
            section.problem("forward_claims", message);
        }
    }
    if route.protocol == Protocol::Mqtt && !route.forward_claims.is_empty() {
        let message = "must be empty where protocol = \"mqtt\", which has no fields";
        section.problem("forward_claims", message);
    }
    if route.keep_query_credential && route.requirement.takes_tokens() {
        let message = "must be false where bearer tokens are taken: no log shall show one";
        section.problem("keep_query_credential", message);
    }
    if route.binding != 0 && matches!(route.requirement, Requirement::User | Requirement::None) {
        let message = "binds clients, of whom the route's credential asks for none";
        section.problem("binding", message);
    }
}

/// Requests are compared after normalisation, so another form would never match.
fn route_path(raw: Raw) -> Result<String, String> {
    let path = text(raw)?;
    match normalise(&path) {
        Ok(normal) if normal == path => Ok(path),
        Ok(normal) => Err(format!("must be in its normal form, \"{normal}\"")),
        Err(error) => Err(format!("\"{path}\": {error}")),
    }
}
