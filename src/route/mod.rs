//! Where a request goes, and what it takes to get there.
//!
//! The most specific route wins: an exact host before a wildcard before any host, then an exact
//! path before a prefix, then the longer prefix. Paths are compared after [`normalise`], and the
//! upstream gets that same form.

mod claims;
mod destination;
mod path;
mod template;

use std::sync::Arc;
use std::time::Duration;

pub use claims::{ClaimPath, ClaimRule, ClaimTest, ForwardedClaim};
pub use destination::{Destination, FixedAnswer, Location, LocationError, Redirect};
pub use path::{PathError, normalise};
pub use template::{Target, TemplateError};

use crate::host::HostPattern;

/// What a route demands of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A known client: by certificate or by client secret, as `auth` says.
    Client,
    /// A user: by a bearer token.
    User,
    /// A user, if there is a bearer token, or else a client.
    Any,
    /// A client, and a user as well.
    Both,
    /// Nothing; what the client presents passes through untouched.
    None,
}

impl Requirement {
    /// Whether a bearer token is demanded, or taken where there is one.
    #[must_use]
    pub fn takes_tokens(self) -> bool {
        match self {
            Self::User | Self::Any | Self::Both => true,
            Self::Client | Self::None => false,
        }
    }
}

/// What a client must be, and what its token must say if it is known by one.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// What the client must be.
    pub requirement: Requirement,
    /// What its token must say, all of it.
    pub claims: &'a [ClaimRule],
    /// How what it presents is bound to its certificate, an index into the list of bindings.
    pub binding: usize,
}

/// What stands behind a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, and WebSockets as they are.
    Http,
    /// MQTT inside a WebSocket (MQTT 5.0 §6), which the gateway takes out of it: the upstream is a
    /// broker's TCP port.
    Mqtt,
}

/// The paths that a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path alone.
    Exact(String),
    /// This path and everything below it. A prefix that ends in `/` does not match itself
    /// without the slash; one that does not end in `/` ends where a segment ends.
    Prefix(String),
}

/// One route as configured, and as it serves.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its place in the list of all routes.
    pub id: usize,
    /// Its name in the configuration, the logs and the metrics.
    pub name: String,
    /// The listeners that it is for; none means all.
    pub listeners: Vec<String>,
    /// The hosts that it is for; none means any.
    pub hosts: Vec<HostPattern>,
    /// The paths that it is for.
    pub path: PathMatch,
    /// What its upstream speaks.
    pub protocol: Protocol,
    /// Whether the upstream sees the path without the prefix.
    pub strip_prefix: bool,
    /// What a client must be.
    pub requirement: Requirement,
    /// How what it presents is bound to its certificate, an index into the list of bindings.
    pub binding: usize,
    /// What a user's token must say.
    pub claims: Vec<ClaimRule>,
    /// What upstream is told of it.
    pub forward_claims: Vec<ForwardedClaim>,
    /// Where it leads.
    pub destination: Destination,
    /// Most bytes in a request's body.
    pub max_body: u64,
    /// How long the upstream may take until its response begins.
    pub response_timeout: Duration,
    /// How long a WebSocket may stay silent in both directions.
    pub idle_timeout: Duration,
    /// Whether the `authorization` query parameter stays in the forwarded URI.
    pub keep_query_credential: bool,
}

impl Route {
    /// What it demands.
    #[must_use]
    pub fn demand(&self) -> Demand<'_> {
        Demand {
            requirement: self.requirement,
            claims: &self.claims,
            binding: self.binding,
        }
    }

    /// The upstream, as an index into the list of upstreams; `None` if the gateway itself answers.
    #[must_use]
    pub fn upstream(&self) -> Option<usize> {
        match self.destination {
            Destination::Upstream(index) => Some(index),
            Destination::Redirect(_) | Destination::Answer(_) => None,
        }
    }

    /// The path that the upstream sees for `path`, which this route has matched.
    #[must_use]
    pub fn upstream_path<'a>(&self, path: &'a str) -> &'a str {
        match &self.path {
            PathMatch::Prefix(prefix) if self.strip_prefix => {
                // What is left keeps its leading slash: the prefix's own last one, if it has it.
                let cut = prefix.trim_end_matches('/').len();
                path.get(cut..)
                    .filter(|rest| !rest.is_empty())
                    .unwrap_or("/")
            }
            PathMatch::Prefix(_) | PathMatch::Exact(_) => path,
        }
    }

    fn matches_path(&self, path: &str) -> bool {
        match &self.path {
            PathMatch::Exact(exact) => path == exact,
            PathMatch::Prefix(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
            }),
        }
    }

    /// How specific the route is about the path; greater is tried first.
    fn path_rank(&self) -> (bool, usize) {
        match &self.path {
            PathMatch::Exact(path) => (true, path.len()),
            PathMatch::Prefix(path) => (false, path.len()),
        }
    }
}

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
        routes.sort_by_key(|route| std::cmp::Reverse(route.path_rank()));
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
            if better && route.matches_path(path) {
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
    use super::*;

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

    #[test]
    fn a_stripped_prefix_leaves_an_absolute_path() {
        for (path, request, upstream) in [
            (prefix("/http/"), "/http/m/d/c/ch", "/m/d/c/ch"),
            (prefix("/http/"), "/http/", "/"),
            (prefix("/http"), "/http", "/"),
            (prefix("/http"), "/http/m", "/m"),
            (prefix("/"), "/m", "/m"),
            (PathMatch::Exact("/a".into()), "/a", "/a"),
        ] {
            assert_eq!(
                route("r", &[], path).upstream_path(request),
                upstream,
                "{request}"
            );
        }
    }
}
