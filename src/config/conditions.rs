//! The keys that say which requests a route is for.

use std::collections::HashMap;

use hyper::Method;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};

use super::document::Section;
use super::value::{Raw, each, one_of, text};
use crate::host::HostPattern;
use crate::route::{Conditions, HeaderCondition, PathMatch, Pattern, Route, normalise};

/// How a route's `path` is compared.
#[derive(Debug, Clone, Copy)]
enum MatchKind {
    Prefix,
    Exact,
    Pattern,
}

const MATCH_KINDS: &[(&str, MatchKind)] = &[
    ("prefix", MatchKind::Prefix),
    ("exact", MatchKind::Exact),
    ("pattern", MatchKind::Pattern),
];

/// The paths.
pub(super) fn path(section: &Section<'_, '_>) -> Option<PathMatch> {
    let kind = section.read("match", MatchKind::Prefix, one_of(MATCH_KINDS));
    section.read_required("path", |raw| match kind {
        MatchKind::Prefix => fixed(raw).map(PathMatch::Prefix),
        MatchKind::Exact => fixed(raw).map(PathMatch::Exact),
        MatchKind::Pattern => {
            let path = text(raw)?;
            let pattern = Pattern::parse(&path);
            let pattern = pattern.map_err(|error| format!("\"{path}\": {error}"))?;
            Ok(PathMatch::Pattern(pattern))
        }
    })
}

/// Requests are compared after normalisation, so another form would never match.
fn fixed(raw: Raw) -> Result<String, String> {
    let path = text(raw)?;
    if path.contains(['{', '}']) {
        return Err(format!(
            "\"{path}\" has variables, which are for match = \"pattern\""
        ));
    }
    match normalise(&path) {
        Ok(normal) if normal == path => Ok(path),
        Ok(normal) => Err(format!("must be in its normal form, \"{normal}\"")),
        Err(error) => Err(format!("\"{path}\": {error}")),
    }
}

/// What else there is to ask of a request.
pub(super) fn conditions(section: &Section<'_, '_>) -> Conditions {
    Conditions {
        methods: section.read("methods", vec![], |raw| each(raw, method)),
        headers: section.read("match_headers", vec![], |raw| each(raw, header)),
    }
}

pub(super) fn method(name: &str) -> Result<Method, String> {
    let method: Option<Method> = name.parse().ok();
    // RFC 9110 §9.1: names differ by case, and no method in use has a small letter.
    let method = method.filter(|_| !name.bytes().any(|byte| byte.is_ascii_lowercase()));
    match method {
        Some(Method::CONNECT | Method::TRACE) => Err(format!("\"{name}\" is not served")),
        Some(method) => Ok(method),
        None => Err(format!("\"{name}\" is no method, as \"GET\" is")),
    }
}

fn header(entry: &str) -> Result<HeaderCondition, String> {
    let wrong = || format!("\"{entry}\" is not a field, as in \"x-canary\" or \"x-version: 2\"");
    let (name, value) = match entry.split_once(':') {
        Some((name, value)) => (name, Some(value.trim())),
        None => (entry, None),
    };
    let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
    if name == HOST {
        return Err("\"host\" is what `hosts` is for".into());
    }
    if name == AUTHORIZATION && value.is_some() {
        return Err("\"authorization\" is what `credential` is for".into());
    }
    if value == Some("") {
        return Err(wrong());
    }
    let value = value.map(HeaderValue::try_from).transpose();
    let value = value.map_err(|_| wrong())?;
    Ok(HeaderCondition { name, value })
}

/// What routes have in common that may get in each other's way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    path: String,
    headers: String,
    listeners: usize,
}

impl Place {
    fn of(route: &Route) -> Self {
        let headers = &route.conditions.headers;
        let mut headers: Vec<String> = headers.iter().map(|it| format!("{it:?}")).collect();
        headers.sort();
        Self {
            path: route.path.shape(),
            headers: headers.concat(),
            // One for fewer of them goes first.
            listeners: route.listeners.len(),
        }
    }
}

/// The places that are taken, and by which routes.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<Place, Vec<Occupant>>);

/// What else of a route says whether another may stand beside it.
#[derive(Debug)]
struct Occupant {
    name: String,
    hosts: Vec<HostPattern>,
    listeners: Vec<String>,
    methods: Vec<Method>,
}

impl Occupant {
    /// Whether there are requests for which neither goes before the other.
    fn is_in_the_way_of(&self, other: &Self) -> bool {
        share(&self.hosts, &other.hosts)
            && share(&self.listeners, &other.listeners)
            && share(&self.methods, &other.methods)
    }
}

/// Whether both hold for everything, or the same thing is named by both.
fn share<T: PartialEq>(these: &[T], those: &[T]) -> bool {
    let are_both_any = these.is_empty() && those.is_empty();
    are_both_any || these.iter().any(|this| those.contains(this))
}

impl Places {
    /// Takes the route's place, and yields the name of the route that is there already, if any.
    pub(super) fn take(&mut self, route: &Route) -> Option<String> {
        let occupant = Occupant {
            name: route.name.clone(),
            hosts: route.hosts.clone(),
            listeners: route.listeners.clone(),
            methods: route.conditions.methods.clone(),
        };
        let others = self.0.entry(Place::of(route)).or_default();
        let other = others
            .iter()
            .find(|other| other.is_in_the_way_of(&occupant));
        let other = other.map(|other| other.name.clone());
        others.push(occupant);
        other
    }
}
