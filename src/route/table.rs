//! Which of a listener's routes a request takes.

use std::sync::Arc;

use super::Route;
use crate::host::HostPattern;

/// The routes of one listener, most specific path first.
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
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.rank()));
        Self { routes }
    }

    /// The route for a request to `path`, normalised, on `host`, without its port.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let mut best: Option<(HostRank, &Arc<Route>)> = None;
        for route in &self.routes {
            let Some(rank) = host_rank(&route.hosts, host) else {
                continue;
            };
            // Later routes are less specific about the path: they need a better host to win.
            let better = best.is_none_or(|(known, _)| rank > known);
            if better && route.path.matches(path) {
                best = Some((rank, route));
            }
            if matches!(best, Some((HostRank::Exact, _))) {
                break;
            }
        }
        best.map(|(_, route)| route)
    }
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
    use crate::route::{Destination, PathMatch, Protocol, Requirement};

    fn route(name: &str, hosts: &[&str], path: PathMatch) -> Arc<Route> {
        Arc::new(Route {
            id: 0,
            name: name.into(),
            listeners: vec![],
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            path,
            protocol: Protocol::Http,
            strip_prefix: true,
            requirement: Requirement::Client,
            binding: 0,
            claims: vec![],
            forward_claims: vec![],
            destination: Destination::Upstream(0),
            max_body: 0,
            response_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            keep_query_credential: false,
        })
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn found<'a>(table: &'a RouteTable, host: &str, path: &str) -> Option<&'a str> {
        table.find(host, path).map(|route| route.name.as_str())
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
}
