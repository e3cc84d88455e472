//! The path that upstream sees in place of the request's.

use super::{EVERY_HTTP, lab, problems};
use crate::harness::{Lab, Protocol};

/// A route that rewrites.
fn route(path: &str, kind: &str, rewrite: &str) -> String {
    format!(
        "[routes.x]\npath = \"{path}\"\nmatch = \"{kind}\"\nupstream = \"origin\"\n\
         rewrite = \"{rewrite}\"\n"
    )
}

/// What the origin sees of a request that comes as these bytes.
async fn seen(lab: &Lab, target: &str) -> String {
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = lab.device().raw(head.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    lab.origin.requests().pop().unwrap().target
}

#[tokio::test]
async fn the_upstream_sees_another_path_and_the_same_query() {
    for (path, kind, rewrite, cases) in [
        (
            "/t/{tenant}/files/{rest...}",
            "pattern",
            "/v2/{tenant}/{rest}",
            &[
                ("/t/a/files/b/c?x=1", "/v2/a/b/c?x=1"),
                ("/t/a%20b/files/", "/v2/a%20b/"),
                ("/t/a/files/b?authorization=SECRET&x=1", "/v2/a/b?x=1"),
            ][..],
        ),
        (
            "/api",
            "prefix",
            "/v2/{rest}",
            &[
                ("/api/x/y?", "/v2/x/y?"),
                ("/api", "/v2/"),
                ("/api/", "/v2/"),
            ],
        ),
        ("/a", "exact", "/b", &[("/a?x", "/b?x"), ("/c/../a", "/b")]),
        (
            "/p/",
            "prefix",
            "/{host}{path}",
            &[("/p/x", "/localhost/p/x")],
        ),
    ] {
        let lab = lab(&route(path, kind, rewrite)).await;
        for (target, expected) in cases {
            let target = target.replace("SECRET", crate::harness::lab::SECRET);
            assert_eq!(seen(&lab, &target).await, *expected, "{target}");
        }
    }
}

#[tokio::test]
async fn nothing_in_a_request_steps_out_of_its_place() {
    let lab = lab(&route(
        "/in/{name}/{rest...}",
        "pattern",
        "/own/{name}/{rest}",
    ))
    .await;
    for (target, expected) in [
        ("/in/a/%3Fb=c", "/own/a/%3Fb=c"),
        ("/in/a/b%23c", "/own/a/b%23c"),
        ("/in/a/%252e%252e/b", "/own/a/%252e%252e/b"),
        ("/in/.../..a", "/own/.../..a"),
        ("/in/a/./b/../c", "/own/a/c"),
        ("/in/%7Ba%7D/{rest}", "/own/%7Ba%7D/%7Brest%7D"),
        ("/in/{rest}/x", "/own/%7Brest%7D/x"),
    ] {
        assert_eq!(seen(&lab, target).await, expected, "{target}");
    }
    let before = lab.origin.requests().len();
    for target in [
        "/in/a/%2e%2e/../../x",
        "/in/a/../../..",
        "/in/a%2f..%2fb/c",
        "/in/a/..%5cb",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = lab.device().raw(head.as_bytes()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{target}: {answer}");
    }
    assert_eq!(lab.origin.requests().len(), before);
}

#[tokio::test]
async fn a_rewritten_path_goes_through_the_gate_whatever_the_protocol() {
    let lab = lab(&route("/w/{id}", "pattern", "/sockets/{id}")).await;
    for protocol in [EVERY_HTTP[0], EVERY_HTTP[1], Protocol::WebSocket] {
        let refused = lab.anonymous().send(protocol, "/w/1", &[]).await.unwrap();
        assert_eq!(refused.status, 401);
        assert!(
            lab.origin
                .requests()
                .iter()
                .all(|seen| seen.target == "/sockets/7")
        );
        let answer = lab.device().send(protocol, "/w/7", &[]).await.unwrap();
        assert!(matches!(answer.status.as_u16(), 101 | 200), "{answer:?}");
    }
    assert_eq!(lab.origin.requests().len(), 3);
}

#[tokio::test]
async fn a_redirect_has_the_variables_of_its_route() {
    let table = "[routes.x]\npath = \"/t/{tenant}/{rest...}\"\nmatch = \"pattern\"\n\
                 redirect = \"https://tenants.example/{rest}/of/{tenant}{query}\"\n\
                 [routes.y]\npath = \"/y\"\nredirect = \"/{rest}\"\n";
    let lab = lab(table).await;
    for (target, expected) in [
        ("/t/a/b/c?x", "https://tenants.example/b/c/of/a?x"),
        ("/t/a/\"b", "https://tenants.example/%22b/of/a"),
        ("/y/evil.example", "/evil.example"),
        ("/y//evil.example", "/evil.example"),
        ("/y", "/"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = lab.device().raw(head.as_bytes()).await.unwrap();
        assert_eq!(
            super::field(&answer, "location"),
            Some(expected),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_rewrite_that_makes_no_path_stops_the_start() {
    for (path, kind, rewrite, expected) in [
        ("/a/", "prefix", "v2", "routes.x.rewrite"),
        ("/a/", "prefix", "{rest}", "routes.x.rewrite"),
        (
            "/a/",
            "prefix",
            "/v2/../{rest}",
            "routes.x.rewrite: \"/v2/../{rest}\": must be a path",
        ),
        ("/a/", "prefix", "/v2?{rest}", "routes.x.rewrite"),
        (
            "/a/",
            "prefix",
            "/v2{query}",
            "there is no {query}; there are {rest}, {host}, {path}",
        ),
        ("/a/", "prefix", "/{tenant}", "there is no {tenant}"),
        (
            "/a",
            "exact",
            "/{rest}",
            "there is no {rest}; there are {host}, {path}",
        ),
        (
            "/{a}",
            "pattern",
            "/{rest}",
            "there is no {rest}; there are {a}, {host}, {path}",
        ),
        (
            "/{path}",
            "pattern",
            "/{path}",
            "a variable cannot be called \"path\"",
        ),
    ] {
        let problem = problems(&route(path, kind, rewrite)).await;
        assert!(problem.contains(expected), "{rewrite}: {problem}");
    }
    for (keys, expected) in [
        (
            "strip_prefix = true",
            "routes.x.rewrite: stands beside strip_prefix",
        ),
        ("protocol = \"mqtt\"", "routes.x.rewrite: has no meaning"),
    ] {
        let table = route("/a/", "prefix", "/{rest}") + keys;
        let problem = problems(&table).await;
        assert!(problem.contains(expected), "{keys}: {problem}");
    }
    let table = route("/a/", "prefix", "/{rest}").replace("upstream = \"origin\"", "answer = 200");
    let problem = problems(&table).await;
    assert!(
        problem.contains("routes.x.rewrite: has no meaning"),
        "{problem}"
    );
}
