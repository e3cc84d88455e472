//! The keys that say which requests a route is for.

use std::collections::HashMap;

use hyper::Method;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};

use super::document::Section;
use super::value::{Raw, list, one_of, text};
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
        methods: section.read("methods", vec![], |raw| {
            list(raw)?.iter().map(|item| method(item)).collect()
        }),
        headers: section.read("match_headers", vec![], |raw| {
            list(raw)?.iter().map(|item| header(item)).collect()
        }),
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

/// What no two routes may have in common, but for methods.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    path: String,
    hosts: String,
    listeners: Vec<String>,
    headers: String,
}

impl Place {
    fn of(route: &Route) -> Self {
        let headers = &route.conditions.headers;
        let mut headers: Vec<String> = headers.iter().map(|it| format!("{it:?}")).collect();
        headers.sort();
        Self {
            path: route.path.shape(),
            hosts: format!("{:?}", route.hosts),
            listeners: route.listeners.clone(),
            headers: headers.concat(),
        }
    }
}

/// The places that are taken, with the methods of each route there.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<Place, Vec<Vec<Method>>>);

impl Places {
    /// Takes the route's place, and says whether it was free.
    pub(super) fn take(&mut self, route: &Route) -> bool {
        let methods = &route.conditions.methods;
        let others = self.0.entry(Place::of(route)).or_default();
        let shared = |other: &Vec<Method>| {
            let both_any = methods.is_empty() && other.is_empty();
            both_any || methods.iter().any(|method| other.contains(method))
        };
        let is_free = !others.iter().any(shared);
        others.push(methods.clone());
        is_free
    }
}
