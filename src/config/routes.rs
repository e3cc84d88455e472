//! `[routes.X]`: which requests a route is for, what it demands of them and where they go.

use std::sync::Arc;

use super::bindings::Use;
use super::check::{Doors, MINUTE, REQUIREMENTS, patterns};
use super::conditions::{Places, conditions, path};
use super::cors::cors;
use super::destinations::{destination, rewrite};
use super::document::Section;
use super::field_rules::Fields;
use super::quotas::quotas;
use super::value::{Raw, boolean, duration, each, list, one_of, size};
use super::{ListenerSettings, Service, assertions, claims};
use crate::quota;
use crate::route::{
    CertificateDialect, Conditions, Destination, FieldRules, PathMatch, Protocol, Redirect,
    Requirement, Route, Scope, WebOrigin,
};

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("mqtt", Protocol::Mqtt)];

const DIALECTS: &[(&str, CertificateDialect)] = &[
    ("rfc9440", CertificateDialect::Rfc9440),
    ("xfcc", CertificateDialect::Xfcc),
    ("nginx", CertificateDialect::Nginx),
    ("traefik", CertificateDialect::Traefik),
];

/// All of them, in the order that everything else refers to, and those of listeners that redirect.
pub(super) fn routes(
    root: &Section<'_, '_>,
    listeners: &[ListenerSettings],
    doors: &Doors<'_>,
    shared: &Fields,
) -> Vec<Arc<Route>> {
    let all = root.section("routes");
    let mut routes: Vec<Arc<Route>> = Vec::new();
    let mut places = Places::default();
    for (name, section) in all.named_sections() {
        let Some(mut route) = route(&section, name, routes.len(), doors, shared) else {
            section.finish();
            continue;
        };
        settle_listeners(root, &section, &mut route, listeners);
        if let Some(other) = places.take(&route) {
            let message = format!(
                "routes.{other} has the same path and conditions for the same host and listener"
            );
            section.problem("path", message);
        }
        section.finish();
        routes.push(Arc::new(route));
    }
    all.finish();
    for listener in listeners {
        let Some(redirect) = &listener.redirect else {
            continue;
        };
        let route = of_listener(routes.len(), &listener.name, redirect.clone(), shared);
        if places.take(&route).is_some() {
            let message = "leaves nothing to a route for everything on this listener";
            let key = format!("{}.redirect", listener.name);
            root.section("listeners").problem(&key, message);
        }
        routes.push(Arc::new(route));
    }
    routes
}

/// A listener that redirects serves those routes alone that name it, or what is meant for TLS would
/// be served without.
fn settle_listeners(
    root: &Section<'_, '_>,
    section: &Section<'_, '_>,
    route: &mut Route,
    listeners: &[ListenerSettings],
) {
    for name in &route.listeners {
        match listeners.iter().find(|known| known.name == *name) {
            Some(listener) if listener.service == Service::Http => {}
            Some(_) => {
                let message = format!("\"{name}\" speaks MQTT alone, and has no routes");
                section.problem("listeners", message);
            }
            // What is wrong with one that is there has been said.
            None if root.section("listeners").has(name) => {}
            None => section.problem("listeners", format!("no listener is called \"{name}\"")),
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

/// The paths of a route that a listener has of its own.
pub(super) fn everything() -> PathMatch {
    PathMatch::Prefix("/".to_owned())
}

/// The route of a listener that redirects, for whatever no other route of it is for.
fn of_listener(id: usize, listener: &str, redirect: Redirect, shared: &Fields) -> Route {
    Route {
        id,
        // No route that has a name of its own can have this one.
        name: format!("listeners.{listener}"),
        listeners: vec![listener.to_owned()],
        hosts: vec![],
        path: everything(),
        conditions: Conditions::default(),
        protocol: Protocol::Http,
        strip_prefix: false,
        rewrite: None,
        requirement: Requirement::None,
        binding: 0,
        callout: None,
        claims: vec![],
        forward_claims: vec![],
        forward_certificate: vec![],
        forward_assertion: None,
        request_fields: FieldRules::default(),
        answer_fields: shared.answers.clone(),
        cors: None,
        destination: Destination::Redirect(redirect),
        origins: vec![],
        quotas: quota::Settings::default(),
        max_body: 0,
        response_timeout: MINUTE,
        total_timeout: None,
        idle_timeout: MINUTE,
        keep_query_credential: false,
        early_hints: false,
    }
}

fn route(
    section: &Section<'_, '_>,
    name: String,
    id: usize,
    doors: &Doors<'_>,
    shared: &Fields,
) -> Option<Route> {
    let path = path(section);
    let matched = path.clone().unwrap_or_else(everything);
    let destination = destination(section, &matched, doors.upstreams);
    let protocol = section.read("protocol", Protocol::Http, one_of(PROTOCOLS));
    let used = match protocol {
        Protocol::Http => Use::Http,
        Protocol::Mqtt => Use::MqttInWebSocket,
    };
    // What the gateway says itself, it says to anybody, unless told otherwise.
    let usual = match destination {
        Some(Destination::Redirect(_) | Destination::Answer(_) | Destination::KeySet) => {
            Requirement::None
        }
        Some(Destination::Upstream(_)) | None => Requirement::Client,
    };
    let requirement = section.read("credential", usual, one_of(REQUIREMENTS));
    let fields = Fields::of_route(section, Scope::Route(&matched), shared);
    let route = Route {
        id,
        name,
        listeners: section.read("listeners", vec![], list),
        hosts: patterns(section, "hosts"),
        conditions: conditions(section),
        protocol,
        strip_prefix: section.read("strip_prefix", false, boolean),
        rewrite: rewrite(section, &matched),
        path: matched,
        requirement,
        binding: doors.bindings.choose(section, used),
        callout: doors.callouts.choose(section, used, requirement),
        claims: claims::rules(section),
        forward_claims: claims::forwarded(section),
        forward_certificate: section.read("forward_certificate", vec![], dialects),
        forward_assertion: assertions::forwarded(section, destination.as_ref(), doors.upstreams),
        request_fields: fields.requests,
        answer_fields: fields.answers,
        cors: cors(section).map(Box::new),
        destination: destination.clone().unwrap_or(Destination::Upstream(0)),
        origins: section.read("origins", vec![], origins),
        quotas: quotas(section),
        max_body: section.read("max_body", 5 << 20, size),
        response_timeout: section.read("response_timeout", MINUTE, duration),
        total_timeout: section.read_optional("total_timeout", duration),
        idle_timeout: section.read("idle_timeout", 60 * MINUTE, duration),
        keep_query_credential: section.read("keep_query_credential", false, boolean),
        early_hints: section.read("early_hints", false, boolean),
    };
    refuse_contradictions(section, &route);
    path.and(destination).map(|_| route)
}

fn origins(raw: Raw) -> Result<Vec<WebOrigin>, String> {
    let origin = |item: &str| item.parse().map_err(|error| format!("\"{item}\" {error}"));
    each(raw, origin)
}

fn dialects(raw: Raw) -> Result<Vec<CertificateDialect>, String> {
    each(raw, |word| one_of(DIALECTS)(Raw::Text(word.to_owned())))
}

/// The rules between the keys of one route.
fn refuse_contradictions(section: &Section<'_, '_>, route: &Route) {
    if route.strip_prefix && !matches!(route.path, PathMatch::Prefix(_)) {
        section.problem("strip_prefix", "must be false where `path` is no prefix");
    }
    if route.strip_prefix && route.rewrite.is_some() {
        section.problem(
            "rewrite",
            "stands beside strip_prefix; {rest} has no prefix either",
        );
    }
    if route.protocol == Protocol::Mqtt && route.rewrite.is_some() {
        section.problem("rewrite", "has no meaning where protocol = \"mqtt\"");
    }
    if route.protocol == Protocol::Mqtt && !route.conditions.methods.is_empty() {
        let message = "must be empty where protocol = \"mqtt\", which WebSockets alone open";
        section.problem("methods", message);
    }
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
    if route.protocol == Protocol::Mqtt && !route.forward_certificate.is_empty() {
        let message = "must be empty where protocol = \"mqtt\", which has no fields";
        section.problem("forward_certificate", message);
    }
    assertions::refuse_contradictions(section, route);
    if route.protocol == Protocol::Mqtt && route.total_timeout.is_some() {
        let message = "has no meaning where protocol = \"mqtt\", whose sessions last";
        section.problem("total_timeout", message);
    }
    if route.protocol == Protocol::Mqtt && section.has("cors") {
        let message = "has no meaning where protocol = \"mqtt\"; see origins";
        section.problem("cors", message);
    }
    if route.protocol == Protocol::Mqtt && section.has("request_headers") {
        let message = "has no meaning where protocol = \"mqtt\", which has no fields";
        section.problem("request_headers", message);
    }
    if route.protocol == Protocol::Mqtt && route.early_hints {
        let message = "must be false where protocol = \"mqtt\", which has no answers";
        section.problem("early_hints", message);
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
