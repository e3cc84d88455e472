//! `[routes.X.cors]`: whose pages may read answers.

use hyper::Method;

use super::{EVERY_HTTP, all, lab, problems};
use crate::harness::client::Answer;
use crate::harness::lab::Config;
use crate::harness::{Lab, Protocol};

const APP: &str = "https://app.example.com";
const ALLOWED: &str = "access-control-allow-origin";

/// Routes below `/api/` that pages may read: for PUT one of its own, `max_body` short for a 413.
fn tables(cors: &str) -> String {
    format!(
        "[routes.put]\npath = \"/api/\"\nmethods = [\"PUT\"]\nupstream = \"origin\"\nmax_body = \"4B\"\n\
         [routes.put.cors]\n{cors}\n\
         [routes.api]\npath = \"/api/\"\nupstream = \"origin\"\n[routes.api.cors]\n{cors}\n\
         [routes.hi]\npath = \"/hi\"\nanswer = 200\nanswer_body = \"hi\"\n[routes.hi.cors]\n{cors}\n\
         [routes.gone]\npath = \"/gone\"\nupstream = \"gone\"\n[routes.gone.cors]\n{cors}\n\
         [upstreams.gone]\nservers = [\"127.0.0.1:1\"]\n"
    )
}

const LISTED: &str = "origins = [\"https://app.example.com\", \"https://*.dev.example.com\"]\n\
                      methods = [\"PUT\", \"DELETE\"]\nheaders = [\"authorization\", \"X-One\"]\n\
                      expose_headers = [\"x-two\"]\ncredentials = true\nmax_age = \"1h\"\n";

async fn preflight(
    lab: &Lab,
    protocol: Protocol,
    path: &str,
    origin: &str,
    method: &str,
) -> Answer {
    let client = lab.anonymous();
    let fields = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization"),
    ];
    let asked = client.request(protocol, Method::OPTIONS, path, &fields, "".into());
    asked.await.unwrap()
}

#[tokio::test]
async fn a_preflight_is_answered_before_anybody_is_asked_for_credentials() {
    let lab = lab(&tables(LISTED)).await;
    for protocol in EVERY_HTTP {
        for (path, method) in [("/api/m", "PUT"), ("/api/m", "DELETE"), ("/hi", "PUT")] {
            for origin in [APP, "https://a.dev.example.com"] {
                let answer = preflight(&lab, protocol, path, origin, method).await;
                assert_eq!(answer.status, 204);
                for (name, expected) in [
                    (ALLOWED, origin),
                    ("access-control-allow-methods", "PUT, DELETE"),
                    ("access-control-allow-headers", "authorization, x-one"),
                    ("access-control-allow-credentials", "true"),
                    ("access-control-max-age", "3600"),
                ] {
                    assert_eq!(all(&answer, name), [expected], "{name}");
                }
                let vary = all(&answer, "vary").join(", ");
                assert!(vary.contains("origin"), "{vary}");
                assert!(vary.contains("access-control-request-method"), "{vary}");
            }
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_page_learns_that_its_address_asks_too_often() {
    let limit = "[routes.api.address_limit]\nrequests = 1\ninterval = \"1h\"\n";
    let lab = lab(&format!("{}{limit}", tables(LISTED))).await;
    let first = preflight(&lab, Protocol::Http2, "/api/m", APP, "DELETE").await;
    assert_eq!(first.status, 204);
    for protocol in EVERY_HTTP {
        let second = preflight(&lab, protocol, "/api/m", APP, "DELETE").await;
        assert_eq!(second.status, 429);
        let device = lab.device();
        let request = device.send(protocol, "/api/m", &[("origin", APP)]);
        let request = request.await.unwrap();
        assert_eq!(request.status, 429);
        assert_eq!(all(&request, ALLOWED), [APP]);
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_preflight_of_a_strange_origin_is_told_nothing() {
    let lab = lab(&tables(LISTED)).await;
    for protocol in EVERY_HTTP {
        for origin in [
            "https://evil.example",
            "null",
            "https://app.example.com.evil.example",
            "https://a.b.dev.example.com",
            "http://app.example.com",
            "*",
        ] {
            let answer = preflight(&lab, protocol, "/api/m", origin, "PUT").await;
            assert_eq!(answer.status, 204);
            assert_tells_nothing(&answer);
        }
    }
    lab.origin.assert_untouched();
}

/// No field of the kind, and caches are told that it depends.
fn assert_tells_nothing(answer: &Answer) {
    for name in answer.headers.keys() {
        assert!(!name.as_str().starts_with("access-control-"), "{answer:?}");
    }
    assert!(
        all(answer, "vary").join(",").contains("origin"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_options_that_is_no_preflight_is_a_request_like_any_other() {
    let lab = lab(&tables(LISTED)).await;
    for protocol in EVERY_HTTP {
        for fields in [
            &[("origin", APP)][..],
            &[("access-control-request-method", "PUT")],
            &[],
        ] {
            let client = lab.anonymous();
            let asked = client.request(protocol, Method::OPTIONS, "/api/m", fields, "".into());
            assert_eq!(asked.await.unwrap().status, 401);
            let client = lab.device();
            let asked = client.request(protocol, Method::OPTIONS, "/api/m", fields, "".into());
            assert_eq!(asked.await.unwrap().status, 200);
            assert_eq!(lab.origin.requests().pop().unwrap().method, "OPTIONS");
        }
    }
    // And where a route has no rule, a preflight is one too.
    let answer = preflight(&lab, Protocol::Http1, "/http/m", APP, "PUT").await;
    assert_eq!(
        (answer.status.as_u16(), all(&answer, ALLOWED)),
        (401, vec![])
    );
    let answer = preflight(&lab, Protocol::Http1, "/public/m", APP, "PUT").await;
    assert_eq!(
        (answer.status.as_u16(), all(&answer, ALLOWED)),
        (200, vec![])
    );
}

#[tokio::test]
async fn a_listed_page_reads_answers_and_refusals() {
    let lab = lab(&tables(LISTED)).await;
    let said = [
        ("origin", APP),
        ("x-say", "access-control-allow-origin: *"),
        ("x-say", "access-control-allow-methods: TRACE"),
        ("x-say", "access-control-allow-private-network: true"),
        ("x-say", "vary: accept"),
    ];
    for protocol in EVERY_HTTP {
        let device = lab.device();
        let wrong = [("origin", APP), ("authorization", "Client other")];
        let long = device.request(protocol, Method::PUT, "/api/m", &said, "longer".into());
        let answers = [
            (200, device.send(protocol, "/api/m", &said).await),
            (200, device.send(protocol, "/hi", &said).await),
            (401, lab.anonymous().send(protocol, "/api/m", &said).await),
            (403, device.send(protocol, "/api/m", &wrong).await),
            (413, long.await),
            (502, device.send(protocol, "/gone", &said).await),
        ];
        for (status, answer) in answers {
            let answer = answer.unwrap();
            assert_eq!(answer.status, status);
            assert_eq!(all(&answer, ALLOWED), [APP], "{status}");
            assert_eq!(all(&answer, "access-control-allow-credentials"), ["true"]);
            assert_eq!(all(&answer, "access-control-expose-headers"), ["x-two"]);
            assert_eq!(all(&answer, "access-control-allow-methods"), [""; 0]);
            assert_eq!(
                all(&answer, "access-control-allow-private-network"),
                [""; 0]
            );
            assert!(all(&answer, "vary").contains(&"origin"));
        }
    }
}

#[tokio::test]
async fn a_strange_page_reads_nothing_whatever_the_upstream_says() {
    let lab = lab(&tables(LISTED)).await;
    for protocol in EVERY_HTTP {
        for origin in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", APP), ("origin", "https://evil.example")],
            &[],
        ] {
            let said = [("x-say", "access-control-allow-origin: *")];
            let fields = [origin, &said[..]].concat();
            // Devices are answered all the same: it is for browsers to obey.
            let answer = lab
                .device()
                .send(protocol, "/api/m", &fields)
                .await
                .unwrap();
            assert_eq!(answer.status, 200);
            assert_tells_nothing(&answer);
            let refused = lab
                .anonymous()
                .send(protocol, "/api/m", &fields)
                .await
                .unwrap();
            assert_eq!(refused.status, 401);
            assert_tells_nothing(&refused);
        }
    }
}

#[tokio::test]
async fn answers_for_all_pages_are_the_same_for_all() {
    let lab = lab(&tables("origins = [\"*\"]\nheaders = [\"*\"]\n")).await;
    for protocol in EVERY_HTTP {
        for origin in [&[("origin", APP)][..], &[("origin", "null")], &[]] {
            let answer = lab.device().send(protocol, "/api/m", origin).await.unwrap();
            assert_eq!(all(&answer, ALLOWED), ["*"]);
            assert_eq!(all(&answer, "access-control-allow-credentials"), [""; 0]);
            assert_eq!(all(&answer, "vary"), [""; 0]);
        }
        let answer = preflight(&lab, protocol, "/api/m", APP, "GET").await;
        assert_eq!(all(&answer, "access-control-allow-headers"), ["*"]);
        assert_eq!(all(&answer, "access-control-allow-methods"), [""; 0]);
        assert_eq!(all(&answer, "access-control-max-age"), ["600"]);
    }
}

#[tokio::test]
async fn without_a_rule_nothing_is_said_and_upstreams_are_believed() {
    let lab = Lab::x509().await;
    for protocol in EVERY_HTTP {
        let origin = ("origin", APP);
        let answer = lab
            .device()
            .send(protocol, "/http/m", &[origin])
            .await
            .unwrap();
        assert_eq!(all(&answer, ALLOWED), [""; 0]);
        assert_eq!(all(&answer, "vary"), [""; 0]);
        let said = [
            origin,
            ("x-say", "access-control-allow-origin: https://b.example"),
        ];
        let answer = lab.device().send(protocol, "/http/m", &said).await.unwrap();
        assert_eq!(all(&answer, ALLOWED), ["https://b.example"]);
    }
}

#[tokio::test]
async fn a_rule_that_lets_everybody_in_stops_the_start() {
    for (lines, expected) in [
        ("", "routes.x.cors.origins: is missing"),
        ("methods = [\"PUT\"]", "routes.x.cors.origins: is missing"),
        (
            "origins = [\"*\"]\ncredentials = true",
            "routes.x.cors.origins: must not be \"*\" beside",
        ),
        (
            "origins = [\"https://a.b\", \"*\"]\ncredentials = true",
            "origins: must not be \"*\" beside",
        ),
        (
            "origins = [\"https://a.b\"]\ncredentials = true\nheaders = [\"*\"]",
            "headers: must not be",
        ),
        (
            "origins = [\"https://a.b\"]\ncredentials = true\nexpose_headers = [\"*\"]",
            "expose_headers: must not be",
        ),
        (
            "origins = [\"null\"]",
            "routes.x.cors.origins: \"null\" is no origin",
        ),
        (
            "origins = [\"https://a.b/\"]",
            "\"https://a.b/\" is no origin",
        ),
        ("origins = [\"https://*\"]", "\"https://*\" is no origin"),
        (
            "origins = [\"https://a.b\"]\ncredentials = true\nmethods = [\"*\"]",
            "methods: must not be",
        ),
        (
            "origins = [\"*\"]\nmethods = [\"put\"]",
            "\"put\" is no method",
        ),
        (
            "origins = [\"*\"]\nheaders = [\"a b\"]",
            "\"a b\" is no field",
        ),
        (
            "origins = [\"*\"]\nheaders = [\"a\", \"*\"]",
            "\"*\" stands alone",
        ),
    ] {
        let route = "[routes.x]\npath = \"/x\"\nupstream = \"origin\"\n[routes.x.cors]\n";
        let problem = problems(&format!("{route}{lines}\n")).await;
        assert!(problem.contains(expected), "{lines}: {problem}");
    }
    let mut lab = Lab::x509().await;
    lab.config = Config::x509().tables("[routes.mqtt.cors]\norigins = [\"*\"]\n");
    let problem = lab.settings().map(drop).unwrap_err().to_string();
    assert!(
        problem.contains("routes.mqtt.cors: has no meaning"),
        "{problem}"
    );
}
