//! Which of a listener's routes a request takes: of those whose host, path and conditions it meets,
//! the one that is the most specific about the host, then the path, then has the most conditions, then
//! is for the fewest listeners.

use std::cmp::Reverse;
use std::sync::Arc;

use hyper::{HeaderMap, Method};

use super::Route;
use crate::host::HostPattern;

/// What a route is sought for.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// The host, without its port.
    pub host: &'a str,
    /// The path, normalised.
    pub path: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The fields, as they came.
    pub headers: &'a HeaderMap,
}

/// Why there is no route for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound {
    /// None is for its host, path and fields.
    Nothing,
    /// Only for requests with one of these methods.
    Method(Vec<Method>),
}

/// The routes of one listener: most specific path first, of the same path, most conditions, and of as
/// many, fewest listeners.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
}

/// How specific a route is about the host; greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    Wildcard,
    Exact,
}

impl RouteTable {
    /// The routes of `all` that serve the listener named `listener`.
    #[must_use]
    pub fn for_listener(all: &[Arc<Route>], listener: &str) -> Self {
        let serves = |route: &&Arc<Route>| {
            route.listeners.is_empty() || route.listeners.iter().any(|name| name == listener)
        };
        let mut routes: Vec<_> = all.iter().filter(serves).cloned().collect();
        let rank = |route: &Arc<Route>| {
            let listeners = match route.listeners.len() {
                0 => usize::MAX,
                some => some,
            };
            let said = (route.path.rank(), route.conditions.count());
            (said, Reverse(listeners))
        };
        // Of two that say as much, the first stays so: they come in the order of their names.
        routes.sort_by_cached_key(|route| Reverse(rank(route)));
        Self { routes }
    }

    /// The route for a request. Nothing is allocated unless there is none.
    ///
    /// # Errors
    /// [`NotFound`] if there is none.
    pub fn find(&self, sought: &Sought<'_>) -> Result<&Arc<Route>, NotFound> {
        let mut best: Option<(HostRank, &Arc<Route>)> = None;
        for route in &self.routes {
            let Some(rank) = host_rank(&route.hosts, sought.host) else {
                continue;
            };
            // Later routes are less specific about the path: they need a better host to win.
            let better = best.is_none_or(|(known, _)| rank > known);
            if better && is_for(route, sought) && route.conditions.allow(sought.method) {
                best = Some((rank, route));
            }
            if matches!(best, Some((HostRank::Exact, _))) {
                break;
            }
        }
        best.map(|(_, route)| route)
            .ok_or_else(|| self.why_not(sought))
    }

    /// RFC 9110 §15.5.6: the methods, if the request lacks nothing else.
    fn why_not(&self, sought: &Sought<'_>) -> NotFound {
        let mut methods: Vec<Method> = Vec::new();
        let others = self
            .routes
            .iter()
            .filter(|route| host_rank(&route.hosts, sought.host).is_some())
            .filter(|route| is_for(route, sought));
        for method in others.flat_map(|route| &route.conditions.methods) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        if methods.is_empty() {
            NotFound::Nothing
        } else {
            NotFound::Method(methods)
        }
    }
}

/// Whether `route` is for the request, but for the host and the method.
fn is_for(route: &Route, sought: &Sought<'_>) -> bool {
    route.path.matches(sought.path) && route.conditions.hold_for(sought.headers)
}

fn host_rank(patterns: &[HostPattern], host: &str) -> Option<HostRank> {
    if patterns.is_empty() {
        return Some(HostRank::Any);
    }
    let rank = |pattern: &HostPattern| match pattern.is_wildcard() {
        true => HostRank::Wildcard,
        false => HostRank::Exact,
    };
    patterns
        .iter()
        .filter(|pattern| pattern.matches(host))
        .map(rank)
        .max()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::route::{Conditions, Destination, FieldRules, PathMatch, Protocol, Requirement};

    fn route(name: &str, hosts: &[&str], path: PathMatch) -> Arc<Route> {
        Arc::new(Route {
            id: 0,
            name: name.into(),
            listeners: vec![],
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            path,
            conditions: Conditions::default(),
            protocol: Protocol::Http,
            strip_prefix: true,
            rewrite: None,
            requirement: Requirement::Client,
            binding: 0,
            callout: None,
            claims: vec![],
            forward_claims: vec![],
            forward_certificate: vec![],
            forward_assertion: None,
            request_fields: FieldRules::default(),
            answer_fields: FieldRules::default(),
            cors: None,
            destination: Destination::Upstream(0),
            origins: vec![],
            quotas: crate::quota::Settings::default(),
            max_body: 0,
            response_timeout: Duration::ZERO,
            total_timeout: None,
            idle_timeout: Duration::ZERO,
            keep_query_credential: false,
            early_hints: false,
        })
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn found<'a>(table: &'a RouteTable, host: &str, path: &str) -> Option<&'a str> {
        let headers = HeaderMap::new();
        let sought = Sought {
            host,
            path,
            method: &Method::GET,
            headers: &headers,
        };
        table.find(&sought).ok().map(|route| route.name.as_str())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let table = RouteTable::for_listener(
            &[
                route("all", &[], prefix("/")),
                route("http", &[], prefix("/http/")),
                route("status", &[], PathMatch::Exact("/http/status".into())),
                route("tenant", &["*.example.com"], prefix("/")),
                route("api", &["api.example.com"], prefix("/http")),
            ],
            "edge",
        );
        for (host, path, expected) in [
            ("x", "/", "all"),
            ("x", "/http/m", "http"),
            ("x", "/http", "all"),
            ("x", "/httpx", "all"),
            ("x", "/http/status", "status"),
            ("x", "/http/status/", "http"),
            ("a.example.com", "/http/m", "tenant"),
            ("api.example.com", "/http/m", "api"),
            ("API.example.com", "/http", "api"),
            ("api.example.com", "/httpx", "tenant"),
        ] {
            assert_eq!(found(&table, host, path), Some(expected), "{host} {path}");
        }
    }

    #[test]
    fn a_request_that_no_route_is_for_finds_none() {
        let table = RouteTable::for_listener(&[route("http", &["a.b"], prefix("/http/"))], "edge");
        assert_eq!(found(&table, "a.b", "/ws/"), None);
        assert_eq!(found(&table, "c.d", "/http/"), None);
        assert_eq!(found(&table, "a.b", "/HTTP/"), None);
    }

    #[test]
    fn a_route_serves_its_listeners_only() {
        let mut inner = Route::clone(&route("inner", &[], prefix("/")));
        inner.listeners = vec!["inside".into()];
        let all = [Arc::new(inner)];
        assert_eq!(
            found(&RouteTable::for_listener(&all, "edge"), "x", "/"),
            None
        );
        assert_eq!(
            found(&RouteTable::for_listener(&all, "inside"), "x", "/"),
            Some("inner")
        );
    }
    #[test]
    fn of_two_that_say_as_much_the_one_for_fewer_listeners_wins() {
        let of = |name: &str, listeners: &[&str]| {
            let mut route = Route::clone(&route(name, &[], prefix("/")));
            route.listeners = listeners.iter().map(|name| (*name).into()).collect();
            Arc::new(route)
        };
        let all = [
            of("all", &[]),
            of("both", &["edge", "inside"]),
            of("inner", &["inside"]),
        ];
        for (listener, expected) in [("edge", "both"), ("inside", "inner"), ("other", "all")] {
            let table = RouteTable::for_listener(&all, listener);
            assert_eq!(found(&table, "x", "/"), Some(expected), "{listener}");
        }
    }
}
