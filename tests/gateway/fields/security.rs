//! What tells browsers to be careful, on every answer.

use super::{EVERY_HTTP, all, lab, problems};
use crate::routing::plain;

/// A route for each kind of answer of the gateway's own.
const OWN: &str = "[routes.old]\npath = \"/old\"\nredirect = \"/new\"\n\
                   [routes.hi]\npath = \"/hi\"\nanswer = 200\nanswer_body = \"<b>hi\"\n\
                   [routes.gone]\npath = \"/gone\"\nupstream = \"gone\"\n\
                   [upstreams.gone]\nservers = [\"127.0.0.1:1\"]\n";

/// Paths of these, with their statuses.
const PATHS: [(&str, u16); 5] = [
    ("/nowhere", 404),
    ("/%zz", 400),
    ("/old", 308),
    ("/hi", 200),
    ("/gone", 502),
];

#[tokio::test]
async fn every_answer_over_tls_asks_for_tls_ever_after() {
    for (lines, expected) in [
        ("hsts = \"365d\"", "max-age=31536000"),
        ("hsts = \"0s\"", "max-age=0"),
        (
            "hsts = \"365d\"\nhsts_subdomains = true\nhsts_preload = true",
            "max-age=31536000; includeSubDomains; preload",
        ),
    ] {
        let plain = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
        let lab = lab(&format!("{plain}{OWN}[response_headers]\n{lines}\n")).await;
        let said = [("x-say", "strict-transport-security: max-age=1")];
        for protocol in EVERY_HTTP {
            for (path, status) in [&PATHS[..], &[("/http/m", 200)]].concat() {
                let answer = lab.device().send(protocol, path, &said).await.unwrap();
                assert_eq!(answer.status, status, "{path}");
                assert_eq!(
                    all(&answer, "strict-transport-security"),
                    [expected],
                    "{path}"
                );
            }
            let refused = lab
                .anonymous()
                .send(protocol, "/http/m", &[])
                .await
                .unwrap();
            assert_eq!(refused.status, 401);
            assert_eq!(all(&refused, "strict-transport-security"), [expected]);
        }
        let (_, opened) = lab
            .device()
            .open_websocket("/ws/m", &[])
            .await
            .ok()
            .unwrap();
        assert_eq!(all(&opened, "strict-transport-security"), [expected]);
    }
}

#[tokio::test]
async fn no_answer_without_tls_speaks_of_it() {
    let listener = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
    let lab = lab(&format!(
        "{listener}{OWN}[response_headers]\nhsts = \"365d\"\n"
    ))
    .await;
    let address = lab.address_of("plain");
    for (path, expected) in PATHS {
        // Nobody shows a certificate there.
        let expected = if path == "/gone" { 401 } else { expected };
        let answer = plain(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{answer}"
        );
        assert!(
            !answer.to_lowercase().contains("strict-transport"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn nobody_guesses_what_an_own_answer_is() {
    let lab = lab(OWN).await;
    for protocol in EVERY_HTTP {
        for (path, status) in PATHS {
            let answer = lab.device().send(protocol, path, &[]).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(
                all(&answer, "x-content-type-options"),
                ["nosniff"],
                "{path}"
            );
        }
        // What upstreams say of theirs is theirs.
        let answer = lab.device().send(protocol, "/http/m", &[]).await.unwrap();
        assert_eq!(all(&answer, "x-content-type-options"), [""; 0]);
        assert_eq!(all(&answer, "strict-transport-security"), [""; 0]);
        let said = [("x-say", "strict-transport-security: max-age=1")];
        let answer = lab.device().send(protocol, "/http/m", &said).await.unwrap();
        assert_eq!(all(&answer, "strict-transport-security"), ["max-age=1"]);
    }
}

#[tokio::test]
async fn a_promise_that_cannot_be_listed_stops_the_start() {
    for (lines, expected) in [
        ("hsts = \"1\"", "response_headers.hsts: must be a duration"),
        (
            "hsts_subdomains = true",
            "response_headers.hsts_subdomains: has no meaning without hsts",
        ),
        (
            "hsts_preload = true",
            "response_headers.hsts_preload: has no meaning without hsts",
        ),
        (
            "hsts = \"365d\"\nhsts_preload = true",
            "response_headers.hsts_preload: must be false unless",
        ),
        (
            "hsts = \"364d\"\nhsts_preload = true\nhsts_subdomains = true",
            "response_headers.hsts_preload: must be false unless",
        ),
    ] {
        let problem = problems(&format!("[response_headers]\n{lines}\n")).await;
        assert!(problem.contains(expected), "{problem}");
    }
    let table = "[routes.x]\npath = \"/x\"\nupstream = \"origin\"\n\
                 [routes.x.response_headers]\nhsts = \"365d\"\n";
    let problem = problems(table).await;
    assert!(
        problem.contains("routes.x.response_headers.hsts"),
        "{problem}"
    );
}
