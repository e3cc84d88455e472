//! Patterns, methods and fields: which of several routes a request meets.

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::{EVERY_HTTP, lab, problems};
use crate::harness::lab::Config;
use crate::harness::{Answer, Lab, Protocol};

/// Routes that answer with their names.
fn named(routes: &[(&str, &str)]) -> String {
    let table = |(name, keys): &(&str, &str)| {
        format!("[routes.{name}]\n{keys}\nanswer = 200\nanswer_body = \"{name}\"\n")
    };
    routes.iter().map(table).collect()
}

async fn ask(
    lab: &Lab,
    protocol: Protocol,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Answer {
    let method: Method = method.parse().unwrap();
    let client = lab.anonymous();
    let answer = client.request(protocol, method, path, fields, Bytes::new());
    answer.await.unwrap()
}

/// The name of the route that a request meets, or its status.
async fn met(
    lab: &Lab,
    protocol: Protocol,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> String {
    let answer = ask(lab, protocol, method, path, fields).await;
    match answer.status {
        StatusCode::OK => String::from_utf8(answer.body.to_vec()).unwrap(),
        status => status.as_str().to_owned(),
    }
}

#[tokio::test]
async fn the_path_that_says_more_from_the_left_wins() {
    let lab = lab(&named(&[
        ("all", "path = \"/{rest...}\"\nmatch = \"pattern\""),
        ("exact", "path = \"/t/a/x\"\nmatch = \"exact\""),
        (
            "tenant",
            "path = \"/t/{tenant}/{thing}\"\nmatch = \"pattern\"",
        ),
        (
            "below",
            "path = \"/t/{tenant}/{rest...}\"\nmatch = \"pattern\"",
        ),
        ("acme", "path = \"/t/acme/\""),
        (
            "things",
            "path = \"/t/{tenant}/things\"\nmatch = \"pattern\"",
        ),
    ]))
    .await;
    for (path, expected) in [
        ("/", "all"),
        ("/x/y", "all"),
        ("/t/a", "all"),
        ("/t/a/x", "exact"),
        ("/t/a/y", "tenant"),
        ("/t/a/y%20z", "tenant"),
        ("/t/a/things", "things"),
        ("/t/a/", "below"),
        ("/t/a/y/z", "below"),
        ("/t/acme/things", "acme"),
        ("/t/acme/y/z", "acme"),
        ("/t/b/../acme/y", "acme"),
        ("/t//a/./y", "tenant"),
    ] {
        for protocol in EVERY_HTTP {
            assert_eq!(
                met(&lab, protocol, "GET", path, &[]).await,
                expected,
                "{path}"
            );
        }
    }
    // No variable can hide a separator.
    assert_eq!(
        met(&lab, Protocol::Http1, "GET", "/t/a%2fb/y", &[]).await,
        "400"
    );
}

#[tokio::test]
async fn a_method_that_no_route_is_for_is_told_which_ones_are() {
    let lab = lab(&named(&[
        ("read", "path = \"/x\"\nmethods = [\"GET\", \"HEAD\"]"),
        ("write", "path = \"/x\"\nmethods = [\"PUT\", \"PURGE\"]"),
        ("below", "path = \"/x/y\"\nmethods = [\"GET\", \"DELETE\"]"),
        ("any", "path = \"/any\""),
    ]))
    .await;
    for protocol in EVERY_HTTP {
        for (method, path, expected) in [
            ("GET", "/x", "read"),
            ("PUT", "/x", "write"),
            ("PURGE", "/x", "write"),
            ("DELETE", "/x/y", "below"),
            // The more specific route is not for it, the other one is.
            ("PUT", "/x/y", "write"),
            ("PATCH", "/any", "any"),
            ("GET", "/other", "404"),
        ] {
            let met = met(&lab, protocol, method, path, &[]).await;
            assert_eq!(met, expected, "{method} {path}");
        }
        for (method, path, allowed) in [
            ("POST", "/x", "GET, HEAD, PUT, PURGE"),
            ("get", "/x", "GET, HEAD, PUT, PURGE"),
            ("OPTIONS", "/x/y", "GET, DELETE, HEAD, PUT, PURGE"),
        ] {
            let answer = ask(&lab, protocol, method, path, &[]).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
            assert_eq!(answer.json()["code"], "method_not_allowed");
        }
    }
    // A connection serves on after a 405 (RFC 9110 §15.5.6).
    let request = "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi\
                   GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = lab.device().raw(request.as_bytes()).await.unwrap();
    assert!(
        answers.contains("HTTP/1.1 405 ") && answers.contains("HTTP/1.1 200 "),
        "{answers}"
    );
}

#[tokio::test]
async fn fields_choose_between_routes_of_the_same_path() {
    let lab = lab(&named(&[
        ("old", "path = \"/x\""),
        ("two", "path = \"/x\"\nmatch_headers = [\"X-Version: 2\"]"),
        (
            "canary",
            "path = \"/x\"\nmatch_headers = [\"x-version: 2\", \"x-canary\"]",
        ),
        (
            "canary_put",
            "path = \"/x\"\nmatch_headers = [\"x-canary\"]\nmethods = [\"PUT\"]",
        ),
        (
            "only",
            "path = \"/only\"\nmatch_headers = [\"x-canary\"]\nmethods = [\"PUT\"]",
        ),
    ]))
    .await;
    let (version, canary) = (("x-version", "2"), ("x-canary", "yes"));
    for protocol in EVERY_HTTP {
        for (method, path, fields, expected) in [
            ("GET", "/x", &[][..], "old"),
            ("GET", "/x", &[version], "two"),
            ("GET", "/x", &[("x-version", "3"), version], "two"),
            ("GET", "/x", &[("x-version", "22")], "old"),
            ("GET", "/x", &[("x-version", "2, 3")], "old"),
            ("GET", "/x", &[version, canary], "canary"),
            ("GET", "/x", &[version, ("x-canary", "")], "canary"),
            ("GET", "/x", &[canary], "old"),
            ("PUT", "/x", &[canary], "canary_put"),
            ("PUT", "/only", &[canary], "only"),
            ("GET", "/only", &[canary], "405"),
            // It would not have been for this one, whatever the method.
            ("PUT", "/only", &[], "404"),
            ("GET", "/only", &[], "404"),
        ] {
            let met = met(&lab, protocol, method, path, fields).await;
            assert_eq!(met, expected, "{method} {path} {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_host_goes_before_a_path_and_a_path_before_conditions() {
    let lab = lab(&named(&[
        ("host", "path = \"/\"\nhosts = [\"localhost\"]"),
        ("path", "path = \"/a/b\"\nhosts = [\"localhost\"]"),
        (
            "conditions",
            "path = \"/a/\"\nhosts = [\"localhost\"]\nmethods = [\"GET\"]",
        ),
        (
            "elsewhere",
            "path = \"/a/b/c\"\nmatch = \"exact\"\nmatch_headers = [\"x-canary\"]",
        ),
    ]))
    .await;
    let canary = [("x-canary", "1")];
    for (path, expected) in [("/a/b/c", "path"), ("/a/x", "conditions"), ("/x", "host")] {
        assert_eq!(
            met(&lab, Protocol::Http1, "GET", path, &canary).await,
            expected
        );
    }
}

#[tokio::test]
async fn websockets_are_opened_by_get_whatever_carries_them() {
    let config = Config::x509().route("methods = [\"GET\"]");
    let lab = config.start().await;
    let opened = lab.device().send(Protocol::WebSocket, "/ws/m", &[]).await;
    assert_eq!(opened.unwrap().status, 101);
    let mut connection = lab.device().multiplex().await.unwrap();
    connection.open_websocket("/ws/m", &[]).await.unwrap();

    let refusing = Config::x509().route("methods = [\"POST\"]").start().await;
    let refused = refusing
        .device()
        .send(Protocol::WebSocket, "/ws/m", &[])
        .await;
    assert_eq!(refused.unwrap().status, 405);
    let mut connection = refusing.device().multiplex().await.unwrap();
    let refused = connection.open_websocket("/ws/m", &[]).await.unwrap_err();
    assert_eq!(refused.status, 405);
    refusing.origin.assert_untouched();
}

#[tokio::test]
async fn what_a_pattern_is_for_goes_through_the_gate_as_ever() {
    let route = "[routes.x]\npath = \"/t/{tenant}/m\"\nmatch = \"pattern\"\nupstream = \"origin\"";
    let lab = lab(route).await;
    assert_eq!(lab.device().get("/t/a/m").await.unwrap().status, 200);
    assert_eq!(lab.origin.only_request().target, "/t/a/m");
    assert_eq!(lab.anonymous().get("/t/a/m").await.unwrap().status, 401);
    assert_eq!(lab.origin.requests().len(), 1);
}

#[tokio::test]
async fn conditions_that_never_hold_or_are_not_told_apart_stop_the_start() {
    for (table, expected) in [
        ("match = \"regex\"", "routes.x.match: must be"),
        ("path = \"/{a}\"", "routes.x.path: \"/{a}\" has variables"),
        (
            "path = \"/a{b}\"\nmatch = \"pattern\"",
            "routes.x.path: \"/a{b}\": a variable is",
        ),
        (
            "path = \"/{a}/{a}\"\nmatch = \"pattern\"",
            "two variables are called",
        ),
        ("path = \"/{a...}/b\"\nmatch = \"pattern\"", "routes.x.path"),
        ("path = \"/{a}/../b\"\nmatch = \"pattern\"", "routes.x.path"),
        (
            "path = \"/{a}\"\nmatch = \"pattern\"\nstrip_prefix = true",
            "routes.x.strip_prefix",
        ),
        (
            "methods = [\"get\"]",
            "routes.x.methods: \"get\" is no method",
        ),
        ("methods = [\"\"]", "routes.x.methods"),
        ("methods = [\"A B\"]", "routes.x.methods"),
        (
            "methods = [\"CONNECT\"]",
            "routes.x.methods: \"CONNECT\" is not served",
        ),
        ("match_headers = [\"a b\"]", "routes.x.match_headers"),
        ("match_headers = [\"x-a:\"]", "routes.x.match_headers"),
        ("match_headers = [\"x-a: b\\nc\"]", "routes.x.match_headers"),
        ("match_headers = [\"Host: a\"]", "routes.x.match_headers"),
        (
            "match_headers = [\"authorization: a\"]",
            "routes.x.match_headers",
        ),
    ] {
        let path = if table.contains("path = ") {
            ""
        } else {
            "path = \"/x\""
        };
        let table = format!("[routes.x]\nupstream = \"origin\"\n{path}\n{table}");
        let problem = problems(&table).await;
        assert!(problem.contains(expected), "{table}: {problem}");
    }
    let mut lab = Lab::x509().await;
    lab.config.mqtt_route = "methods = [\"POST\"]".into();
    let problem = lab.settings().map(drop).unwrap_err().to_string();
    assert!(problem.contains("routes.mqtt.methods"), "{problem}");
}

/// A second listener for HTTP.
const INNER: &str = "[listeners.inner]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";

fn pair(one: &str, two: &str) -> String {
    format!("{INNER}{}", named(&[("one", one), ("two", two)]))
}

#[tokio::test]
async fn two_routes_for_the_same_requests_stop_the_start() {
    for (one, two) in [
        (
            "path = \"/{a}\"\nmatch = \"pattern\"",
            "path = \"/{b}\"\nmatch = \"pattern\"",
        ),
        (
            "path = \"/a/\"",
            "path = \"/a/{b...}\"\nmatch = \"pattern\"",
        ),
        (
            "path = \"/a\"\nmethods = [\"PUT\", \"GET\"]",
            "path = \"/a\"\nmethods = [\"GET\"]",
        ),
        (
            "path = \"/a\"\nmatch_headers = [\"a\", \"b\"]",
            "path = \"/a\"\nmatch_headers = [\"b\", \"a\"]",
        ),
        (
            "path = \"/a\"\nhosts = [\"a.test\", \"b.test\"]",
            "path = \"/a\"\nhosts = [\"c.test\", \"B.test\"]",
        ),
        (
            "path = \"/a\"\nhosts = [\"*.test\"]",
            "path = \"/a\"\nhosts = [\"*.test\", \"a.test\"]",
        ),
        (
            "path = \"/a\"\nlisteners = [\"edge\", \"inner\"]",
            "path = \"/a\"\nlisteners = [\"inner\", \"edge\"]",
        ),
    ] {
        let problem = problems(&pair(one, two)).await;
        assert!(
            problem.contains("routes.two.path: routes.one has the same path and conditions"),
            "{one} {two}: {problem}"
        );
    }
}

#[tokio::test]
async fn routes_of_one_path_stand_beside_each_other_if_one_goes_before_or_none_meets_both() {
    let mut lab = Lab::x509().await;
    for (one, two) in [
        (
            "path = \"/a\"\nmethods = [\"GET\"]",
            "path = \"/a\"\nmethods = [\"PUT\"]",
        ),
        (
            "path = \"/a\"\nhosts = [\"a.test\"]",
            "path = \"/a\"\nhosts = [\"b.test\"]",
        ),
        (
            "path = \"/a\"\nhosts = [\"a.test\"]",
            "path = \"/a\"\nhosts = [\"*.test\"]",
        ),
        ("path = \"/a\"\nhosts = [\"a.test\"]", "path = \"/a\""),
        (
            "path = \"/a\"\nlisteners = [\"edge\"]",
            "path = \"/a\"\nlisteners = [\"inner\"]",
        ),
        (
            "path = \"/a\"\nlisteners = [\"edge\"]",
            "path = \"/a\"\nlisteners = [\"inner\", \"edge\"]",
        ),
        ("path = \"/a\"\nlisteners = [\"edge\"]", "path = \"/a\""),
        ("path = \"/a\"\nmethods = [\"GET\"]", "path = \"/a\""),
    ] {
        lab.config = Config::x509().tables(&pair(one, two));
        let problem = lab.settings().map(drop);
        assert!(problem.is_ok(), "{one} {two}: {problem:?}");
    }
}
