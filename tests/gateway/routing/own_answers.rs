//! Redirects and fixed answers.

use bytes::Bytes;
use hyper::Method;
use portcullis::config::{self, Environment};

use super::{EVERY_HTTP, field, lab, plain, problems};
use crate::harness::Lab;
use crate::harness::client::Protocol;
use crate::harness::lab::Config;

/// Port 80 beside a listener for TLS.
const PLAIN: &str = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
                     redirect = \"https://{host}{path}{query}\"\n";

/// Where a GET of `target` is sent.
async fn location(lab: &Lab, protocol: Protocol, target: &str) -> (u16, String) {
    let client = lab.device();
    let answer = client.send(protocol, target, &[]).await.unwrap();
    assert!(answer.body.is_empty(), "{answer:?}");
    let location = answer.headers["location"].to_str().unwrap();
    (answer.status.as_u16(), location.to_owned())
}

#[tokio::test]
async fn port_80_sends_everybody_on_to_tls() {
    for auth in [Config::x509(), Config::key()] {
        let lab = auth.tables(PLAIN).start().await;
        let address = lab.address_of("plain");
        for (method, host, target, expected) in [
            ("GET", "a.example", "/", "https://a.example/"),
            ("GET", "a.example:80", "/x?y=z", "https://a.example/x?y=z"),
            ("POST", "a.example", "/http/m", "https://a.example/http/m"),
            ("GET", "[::1]:80", "/a%20b/../c", "https://[::1]/c"),
            (
                "GET",
                "a.example",
                "http://a.example/x",
                "https://a.example/x",
            ),
        ] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}");
            let answer = plain(address, &head).await;
            assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
            assert_eq!(field(&answer, "location"), Some(expected), "{head}");
            assert!(field(&answer, "x-request-id").is_some(), "{answer}");
        }
        // What is said without TLS reaches nobody, whatever route there is for it with TLS.
        lab.origin.assert_untouched();
    }
}

#[tokio::test]
async fn a_listener_that_redirects_serves_the_routes_that_name_it() {
    let challenge = "[routes.challenge]\npath = \"/.well-known/acme-challenge/\"\n\
                     listeners = [\"plain\"]\nupstream = \"origin\"\ncredential = \"none\"\n";
    let lab = lab(&format!("{PLAIN}{challenge}")).await;
    let address = lab.address_of("plain");
    let head = "GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: a.example";
    let answer = plain(address, head).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = plain(address, "GET /public/x HTTP/1.1\r\nHost: a.example").await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert_eq!(lab.origin.requests().len(), 1);
    // And the listener for TLS as ever.
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_route_redirects_with_its_status() {
    for status in [301, 302, 303, 307, 308] {
        let table = format!(
            "[routes.old]\npath = \"/old/\"\nredirect = \"/new{{path}}{{query}}\"\nredirect_status = {status}"
        );
        let lab = lab(&table).await;
        for protocol in EVERY_HTTP {
            let found = location(&lab, protocol, "/old/a?b=c").await;
            assert_eq!(found, (status, "/new/old/a?b=c".to_owned()));
        }
        lab.origin.assert_untouched();
    }
}

#[tokio::test]
async fn a_location_holds_no_credential() {
    let table = "[tokens]\nwebsocket_query = \"access_token\"\n\
                 [routes.old]\npath = \"/old\"\nredirect = \"https://{host}:1{path}{query}\"\n";
    let lab = lab(table).await;
    for (query, rest) in [
        ("?authorization=s3cret", ""),
        ("?a=1&Authorization=Client%20s3cret&b=2", "?a=1&b=2"),
        ("?authorization[]=s3cret&a", "?a"),
        ("?a;%61uthorization=s3cret", "?a"),
        ("?access_token=s3cret&a=1", "?a=1"),
    ] {
        let target = format!("/old/{query}");
        for protocol in EVERY_HTTP {
            let (_, found) = location(&lab, protocol, &target).await;
            assert_eq!(found, format!("https://localhost:1/old/{rest}"), "{query}");
        }
    }
}

#[tokio::test]
async fn a_location_is_a_uri_whatever_the_request_says() {
    let lab = lab("[routes.old]\npath = \"/\"\nredirect = \"/at{path}{query}\"").await;
    let client = lab.device();
    for (target, expected) in [
        ("/%0d%0aset-cookie:%20a=b", "/at/%0D%0Aset-cookie:%20a=b"),
        ("//evil.example/x", "/at/evil.example/x"),
        ("/a/..//./evil.example", "/at/evil.example"),
        ("/a?%0d%0aset-cookie:a", "/at/a?%0d%0aset-cookie:a"),
        ("/a?{b}|^`\\%", "/at/a?%7Bb%7D%7C%5E%60%5C%25"),
        ("/\"{b}", "/at/%22%7Bb%7D"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = client.raw(head.as_bytes()).await.unwrap();
        assert_eq!(field(&answer, "location"), Some(expected), "{answer}");
        assert_eq!(field(&answer, "set-cookie"), None, "{answer}");
    }
}

#[tokio::test]
async fn a_route_answers_always_the_same() {
    let table = "[routes.hello]\npath = \"/hello\"\nmatch = \"exact\"\nanswer = 503\n\
                 answer_body = \"{\\\"back\\\":\\\"soon\\\"}\"\nanswer_type = \"application/json\"\n\
                 [routes.empty]\npath = \"/empty\"\nanswer = 204\n";
    let lab = lab(table).await;
    for protocol in EVERY_HTTP {
        for (method, body) in [
            (Method::GET, ""),
            (Method::POST, "said"),
            (Method::HEAD, ""),
        ] {
            let is_head = method == Method::HEAD;
            let client = lab.anonymous();
            let answer = client
                .request(protocol, method, "/hello", &[], body.into())
                .await
                .unwrap();
            assert_eq!(answer.status, 503);
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.headers["content-length"], "15");
            assert!(!answer.headers.contains_key("cache-control"), "{answer:?}");
            let expected = if is_head {
                &b""[..]
            } else {
                br#"{"back":"soon"}"#
            };
            assert_eq!(answer.body, expected);
        }
        let answer = lab.anonymous().send(protocol, "/empty", &[]).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body), (204, Bytes::new()));
        assert!(
            !answer.headers.contains_key("content-type"),
            "{:?}",
            answer.headers
        );
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn an_answer_for_clients_is_for_those_alone_who_are_admitted() {
    let table = "[routes.hello]\npath = \"/hello\"\nanswer = 200\nanswer_body = \"hi\"\n\
                 credential = \"client\"\n\
                 [routes.old]\npath = \"/old\"\nredirect = \"/http{path}\"\ncredential = \"client\"\n";
    let lab = lab(table).await;
    for (path, status) in [("/hello", 200), ("/old", 308)] {
        for protocol in EVERY_HTTP {
            let known = lab.device().send(protocol, path, &[]).await.unwrap();
            assert_eq!(known.status, status);
            // A cache would not know whom it was for.
            assert_eq!(known.headers["cache-control"], "no-store");

            let unknown = lab.anonymous().send(protocol, path, &[]).await.unwrap();
            assert_eq!(unknown.status, 401);
            assert!(!unknown.headers.contains_key("location"), "{unknown:?}");
            let other = [("authorization", "Client another")];
            let other = lab.device().send(protocol, path, &other).await.unwrap();
            assert_eq!(other.status, 403);
        }
    }
}

#[tokio::test]
async fn nobody_takes_an_answer_for_a_websocket() {
    let table = "[routes.hello]\npath = \"/hello\"\nanswer = 200\n\
                 [routes.old]\npath = \"/old\"\nredirect = \"/http{path}\"\n";
    let lab = lab(table).await;
    let mut connection = lab.device().multiplex().await.unwrap();
    // To an extended CONNECT every success opens one (RFC 8441 §5).
    for (path, expected) in [("/hello", 404), ("/old", 308)] {
        let refused = connection.open_websocket(path, &[]).await.unwrap_err();
        assert_eq!(refused.status, expected, "{path}");
    }
    let answer = lab.device().send(Protocol::WebSocket, "/hello", &[]).await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_connection_serves_on_after_an_answer_to_an_unread_body() {
    let lab = lab("[routes.hello]\npath = \"/hello\"\nanswer = 200\n").await;
    let mut connection = lab.device().multiplex().await.unwrap();
    for _ in 0..3 {
        assert_eq!(connection.get("/hello").await.unwrap().0, 200);
        assert_eq!(connection.get("/http/bytes/2").await.unwrap().1, b"xx");
    }
    let request = "POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nsaid\
                   GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = lab.device().raw(request.as_bytes()).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
}

#[tokio::test]
async fn a_route_that_leads_nowhere_or_to_two_places_stops_the_start() {
    for (table, expected) in [
        (
            "",
            "routes.x.upstream: is missing, as are redirect, answer and publish",
        ),
        (
            "redirect = \"/a\"\nupstream = \"origin\"",
            "routes.x.redirect: stands beside upstream",
        ),
        (
            "redirect = \"/a\"\nanswer = 200",
            "routes.x.answer: stands beside redirect",
        ),
        (
            "answer = 200\nupstream = \"origin\"",
            "routes.x.answer: stands beside upstream",
        ),
        ("redirect = \"//evil.example\"", "routes.x.redirect"),
        ("redirect = \"/{path}\"", "routes.x.redirect"),
        ("redirect = \"https://{path}\"", "routes.x.redirect"),
        ("redirect = \"/{paths}\"", "there is no {paths}"),
        ("redirect = \"/a\\r\\nb: c\"", "routes.x.redirect"),
        (
            "redirect = \"/a\"\nredirect_status = 300",
            "routes.x.redirect_status",
        ),
        (
            "upstream = \"origin\"\nredirect_status = 308",
            "routes.x.redirect_status",
        ),
        ("answer = 308", "routes.x.answer: must not be from 300"),
        ("answer = 101", "routes.x.answer"),
        ("answer = 204\nanswer_body = \"x\"", "routes.x.answer_body"),
        (
            "answer = 200\nanswer_type = \"a\\nb\"",
            "routes.x.answer_type",
        ),
        (
            "redirect = \"/a\"\nanswer_body = \"x\"",
            "routes.x.answer_body: has no meaning",
        ),
        (
            "answer = 200\nmax_body = \"1KiB\"",
            "routes.x.max_body: has no meaning",
        ),
        (
            "answer = 200\nprotocol = \"mqtt\"",
            "routes.x.protocol: has no meaning",
        ),
        (
            "answer = 200\nstrip_prefix = true",
            "routes.x.strip_prefix: has no meaning",
        ),
    ] {
        let problem = problems(&format!("[routes.x]\npath = \"/x\"\n{table}")).await;
        assert!(problem.contains(expected), "{table}: {problem}");
    }
}

#[tokio::test]
async fn a_listener_that_cannot_redirect_so_stops_the_start() {
    for (table, expected) in [
        (
            PLAIN.replace("{path}", "{rest}"),
            "listeners.plain.redirect",
        ),
        (
            PLAIN.replace("redirect", "redirect_status = 308 #"),
            "listeners.plain.redirect_status",
        ),
        (
            PLAIN.replace("\"http\"", "\"mqtt\""),
            "listeners.plain.redirect",
        ),
        (
            format!(
                "{PLAIN}[routes.x]\npath = \"/\"\nlisteners = [\"plain\"]\nupstream = \"origin\""
            ),
            "listeners.plain.redirect: leaves nothing",
        ),
    ] {
        let problem = problems(&table).await;
        assert!(problem.contains(expected), "{table}: {problem}");
    }
}

#[tokio::test]
async fn a_route_that_every_listener_redirects_away_stops_the_start() {
    let lab = Lab::x509().await;
    let routes = "[upstreams.origin]\nservers = [\"127.0.0.1:1\"]\n\
                  [routes.x]\npath = \"/x\"\nupstream = \"origin\"\n";
    lab.write("other.toml", &format!("{PLAIN}{routes}"));
    let problem = config::load(&lab.path("other.toml"), &Environment::default());
    let problem = problem.map(drop).unwrap_err().to_string();
    assert!(
        problem.contains("routes.x.listeners: is missing"),
        "{problem}"
    );
}
