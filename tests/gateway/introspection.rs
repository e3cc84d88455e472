//! Opaque tokens, about which their issuer is asked (RFC 7662).

use std::time::Duration;

use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::decider::{Decider, Says};
use crate::harness::lab::Config;
use crate::harness::{Answer, Client, Lab, PATIENCE};

const TOKEN: &str = "b3BhcXVl+/~.=";
const ACTIVE: Says = Says::Body(r#"{"active":true,"sub":"u1","scope":"read","exp":9999999999}"#);
const INACTIVE: Says = Says::Body(r#"{"active":false}"#);

fn tables(decider: &Decider, lines: &str) -> String {
    format!(
        "[introspection]\nurl = \"http://{}/introspect\"\ndanger_allow_http = true\n\
         client_id = \"a:b\"\nclient_secret = \"s s\"\ntimeout = \"1m\"\n{lines}\n",
        decider.address
    )
}

async fn lab(decider: &Decider, lines: &str) -> Lab {
    let config = Config::key().tables(&tables(decider, lines));
    let route = "credential = \"user\"\nforward_claims = [\"x-user: sub\"]";
    config.route(route).start().await
}

async fn ask(client: &Client, protocol: Protocol, token: &str) -> Answer {
    let path = match protocol {
        Protocol::WebSocket => "/ws/m",
        Protocol::Http1 | Protocol::Http2 => "/http/m",
    };
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", bearer.as_str())];
    client.send(protocol, path, &fields).await.unwrap()
}

async fn status(lab: &Lab, token: &str) -> u16 {
    let answer = ask(&lab.anonymous(), Protocol::Http1, token).await;
    answer.status.as_u16()
}

#[tokio::test]
async fn an_active_token_is_a_users_and_asked_about_once() {
    let decider = Decider::start(ACTIVE).await;
    let lab = lab(&decider, "").await;
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab.anonymous(), protocol, TOKEN).await;
        assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-user"), ["u1"]);
        assert_eq!(request.all("authorization"), [format!("Bearer {TOKEN}")]);
    }
    let [asked] = &decider.asked()[..] else {
        panic!("{:?}", decider.asked());
    };
    assert_eq!(asked.method, "POST");
    assert_eq!(
        asked.body,
        "token=b3BhcXVl%2B%2F%7E%2E%3D&token_type_hint=access_token"
    );
    // RFC 6749 §2.3.1: a%3Ab:s%20s
    assert_eq!(asked.headers["authorization"], "Basic YSUzQWI6cyUyMHM=");
    assert_eq!(
        asked.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
}

#[tokio::test]
async fn a_token_that_is_not_active_or_not_for_us_is_refused() {
    let decider = Decider::start(INACTIVE).await;
    let lab = lab(&decider, "").await;
    for (at, says) in [
        INACTIVE,
        Says::Body(r#"{"active":true,"exp":1}"#),
        Says::Body(r#"{"active":true,"exp":"never"}"#),
        Says::Body(r#"{"active":true,"nbf":9999999999}"#),
        Says::Body(r#"{"active":true,"aud":"another"}"#),
        Says::Body(r#"{"active":true,"token_type":"refresh_token"}"#),
        Says::Body(r#"{"active":true,"cnf":{"x5t#S256":"x"}}"#),
    ]
    .into_iter()
    .enumerate()
    {
        decider.says(says);
        for protocol in EVERY_PROTOCOL {
            let answer = ask(&lab.anonymous(), protocol, &format!("token{at}")).await;
            assert_eq!(answer.status, 401, "{at} {protocol:?}");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_server_that_does_not_say_leaves_everybody_outside() {
    let decider = Decider::start(INACTIVE).await;
    let lab = lab(&decider, "").await;
    for says in [
        Says::Status(401, vec![]),
        Says::Status(302, vec![("location", "/yes")]),
        Says::Status(500, vec![]),
        Says::Body("<html>"),
        Says::Body(r#"{"active":"true"}"#),
        Says::Body(r#"{"active":true,"active":false}"#),
        Says::Endless,
    ] {
        decider.says(says);
        assert_eq!(status(&lab, TOKEN).await, 503);
    }
    lab.origin.assert_untouched();
    // Nothing of it is remembered.
    decider.says(ACTIVE);
    assert_eq!(status(&lab, TOKEN).await, 200);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let decider = Decider::start(Says::Silence).await;
    let tables = tables(&decider, "").replace("\"1m\"", "\"300ms\"");
    let config = Config::key().tables(&tables).route("credential = \"user\"");
    let lab = config.start().await;
    assert_eq!(status(&lab, TOKEN).await, 503);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_revoked_token_passes_no_longer_than_answers_count() {
    let decider = Decider::start(ACTIVE).await;
    let lab = lab(&decider, "cache_ttl = \"10s\"").await;
    assert_eq!(status(&lab, TOKEN).await, 200);
    decider.says(INACTIVE);
    lab.clock.advance(Duration::from_secs(9));
    assert_eq!(status(&lab, TOKEN).await, 200);
    lab.clock.advance(Duration::from_secs(1));
    assert_eq!(status(&lab, TOKEN).await, 401);
}

#[tokio::test]
async fn a_thousand_who_present_the_same_token_at_once_are_one_question() {
    let decider = Decider::start(ACTIVE).await;
    // A busy machine takes its time for a thousand.
    let patient = tables(&decider, "").replace("500ms", "30s");
    let config = Config::key().tables(&patient);
    let lab = config.route("credential = \"user\"").start().await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let client = std::sync::Arc::new(lab.anonymous());
        for _ in 0..100 {
            let client = std::sync::Arc::clone(&client);
            clients.spawn(async move { ask(&client, Protocol::Http2, TOKEN).await.status });
        }
    }
    let all = tokio::time::timeout(PATIENCE, clients.join_all()).await;
    assert!(all.unwrap().iter().all(|status| *status == 200));
    assert_eq!(decider.asked().len(), 1);
}

#[tokio::test]
async fn a_jwt_of_nobody_is_not_shown_to_the_server() {
    let decider = Decider::start(ACTIVE).await;
    let lab = lab(&decider, "").await;
    assert_eq!(status(&lab, "eyJhbGciOiJub25lIn0.e30.").await, 401);
    assert!(decider.asked().is_empty());
}

#[tokio::test]
async fn a_server_that_the_gateway_cannot_prove_itself_to_is_refused() {
    let decider = Decider::start(ACTIVE).await;
    let mut lab = Config::key().start().await;
    for (without, expected) in [
        ("client_id = \"a:b\"", "introspection.client_id: is missing"),
        (
            "client_secret = \"s s\"",
            "introspection.client_secret: is missing",
        ),
        (
            "danger_allow_http = true",
            "introspection.danger_allow_http",
        ),
    ] {
        lab.config.tables = tables(&decider, "").replace(without, "");
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}
