//! The places of a request where a secret may stand, the same by every protocol that has requests. Which
//! secrets pass is in the parity table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::Lab;
use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::lab::SECRET;
use crate::parity::OTHER;

/// One way of presenting a secret.
struct Case {
    query: String,
    fields: Vec<(&'static str, String)>,
}

fn case(query: &str, authorization: &[&str]) -> Case {
    Case {
        query: query.to_owned(),
        fields: authorization
            .iter()
            .map(|value| ("authorization", (*value).to_owned()))
            .collect(),
    }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// Everything that presents exactly [`SECRET`].
fn right() -> Vec<Case> {
    vec![
        case("", &[&format!("Client {SECRET}")]),
        case("", &[&format!("client {SECRET}")]),
        case("", &[&format!("Thing {SECRET}")]),
        case("", &[SECRET]),
        case("", &[&basic(&format!("anybody:{SECRET}"))]),
        case(&format!("?authorization={SECRET}"), &[]),
        case(&format!("?authorization=Client%20{SECRET}"), &[]),
        case(&format!("?authorization=Client+{SECRET}"), &[]),
        case(&format!("?x=1&authorization={SECRET}"), &[SECRET]),
        case("", &[SECRET, &format!("Client {SECRET}")]),
    ]
}

/// Everything that presents something else, or something else as well (W1, W2, W13, W14).
fn wrong() -> Vec<Case> {
    vec![
        case("", &[&format!("Client {OTHER}")]),
        case("", &[OTHER]),
        case("", &[&SECRET[..SECRET.len() - 1]]),
        case("", &[&SECRET[24..]]),
        case("", &[&SECRET[SECRET.len() - 1..]]),
        case("", &[&format!("Client {}", SECRET.to_uppercase())]),
        case("", &[&format!("Client {SECRET}x")]),
        case("", &[&basic(&format!("{SECRET}:{OTHER}"))]),
        case(&format!("?authorization={OTHER}"), &[]),
        case(
            &format!("?authorization=Client%20{OTHER}"),
            &[&format!("Client {SECRET}")],
        ),
        case(
            &format!("?authorization={SECRET}&authorization={OTHER}"),
            &[],
        ),
        case(&format!("?%61uthorization={OTHER}"), &[SECRET]),
        case(&format!("?Authorization={OTHER}"), &[SECRET]),
        case(&format!("?authorization[]={OTHER}"), &[SECRET]),
        case(&format!("?x=1;authorization={OTHER}"), &[SECRET]),
        case(&format!("?authorization={SECRET}"), &[OTHER]),
        case("", &[SECRET, OTHER]),
        case("", &[OTHER, SECRET]),
    ]
}

/// What holds no client secret at all.
fn nothing_useful() -> Vec<Case> {
    vec![
        case("", &["Client "]),
        case("", &["Client"]),
        case("", &["Bearer eyJhbGciOiJIUzUxMiJ9.e30.c2ln"]),
        case("", &["Basic !!!"]),
        case("", &[&basic("no colon")]),
        case("?authorization=", &[]),
        case("?authorization", &[]),
    ]
}

async fn status(
    lab: &Lab,
    protocol: Protocol,
    case: &Case,
    client: &crate::harness::Client,
) -> u16 {
    let prefix = if protocol == Protocol::WebSocket {
        "/ws"
    } else {
        "/http"
    };
    let fields: Vec<_> = case
        .fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let path = format!("{prefix}/m/d/c/ch{}", case.query);
    let answer = client.send(protocol, &path, &fields).await.unwrap();
    if let Some(request) = lab.origin.requests().last() {
        assert!(!request.target.contains(SECRET), "{}", request.target);
    }
    answer.status.as_u16()
}

fn success(protocol: Protocol) -> u16 {
    if protocol == Protocol::WebSocket {
        101
    } else {
        200
    }
}

#[tokio::test]
async fn with_a_certificate_the_same_secret_beside_it_is_accepted() {
    let lab = Lab::x509().await;
    let device = lab.device();
    for protocol in EVERY_PROTOCOL {
        for case in right() {
            let status = status(&lab, protocol, &case, &device).await;
            assert_eq!(
                status,
                success(protocol),
                "{protocol:?} {} {:?}",
                case.query,
                case.fields
            );
            let last = lab.origin.requests().pop().unwrap();
            assert_eq!(last.all("authorization"), [format!("Client {SECRET}")]);
        }
    }
}

#[tokio::test]
async fn with_a_certificate_alone_the_upstream_gets_its_secret() {
    let lab = Lab::x509().await;
    for protocol in EVERY_PROTOCOL {
        let status = status(&lab, protocol, &case("", &[]), &lab.device()).await;
        assert_eq!(status, success(protocol), "{protocol:?}");
        let last = lab.origin.requests().pop().unwrap();
        assert_eq!(last.all("authorization"), [format!("Client {SECRET}")]);
        assert_eq!(last.target, "/m/d/c/ch");
    }
}

#[tokio::test]
async fn with_a_certificate_any_other_secret_beside_it_is_refused() {
    let lab = Lab::x509().await;
    let device = lab.device();
    for protocol in EVERY_PROTOCOL {
        for case in wrong().into_iter().chain(nothing_useful()) {
            let status = status(&lab, protocol, &case, &device).await;
            assert_eq!(status, 403, "{protocol:?} {} {:?}", case.query, case.fields);
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn by_key_the_secret_is_forwarded_from_wherever_it_stands() {
    let lab = Lab::key().await;
    let client = lab.anonymous();
    for protocol in EVERY_PROTOCOL {
        for case in right() {
            let status = status(&lab, protocol, &case, &client).await;
            assert_eq!(
                status,
                success(protocol),
                "{protocol:?} {} {:?}",
                case.query,
                case.fields
            );
            let last = lab.origin.requests().pop().unwrap();
            assert_eq!(last.all("authorization"), [format!("Client {SECRET}")]);
        }
    }
}

#[tokio::test]
async fn by_key_no_secret_or_two_different_ones_are_refused() {
    let lab = Lab::key().await;
    let client = lab.anonymous();
    for protocol in EVERY_PROTOCOL {
        for case in nothing_useful().into_iter().chain([case("", &[])]) {
            let status = status(&lab, protocol, &case, &client).await;
            assert_eq!(status, 401, "{protocol:?} {} {:?}", case.query, case.fields);
        }
        let conflicts = wrong()
            .into_iter()
            .filter(|case| case.fields.len() + case.query.matches("uthorization").count() > 1);
        for case in conflicts {
            let status = status(&lab, protocol, &case, &client).await;
            assert!(
                matches!(status, 401 | 403),
                "{status} {protocol:?} {} {:?}",
                case.query,
                case.fields
            );
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_route_that_demands_nothing_passes_credentials_through_untouched() {
    let lab = Lab::key().await;
    let answer = lab
        .anonymous()
        .send(
            Protocol::Http1,
            "/public/users?authorization=x",
            &[("authorization", "Bearer abc")],
        )
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let request = lab.origin.only_request();
    assert_eq!(request.all("authorization"), ["Bearer abc"]);
    assert_eq!(request.target, "/public/users?authorization=x");
}

#[tokio::test]
async fn every_refusal_of_a_kind_looks_the_same_from_outside() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let mut bodies = Vec::new();
    for value in [OTHER, "Bearer x", "Basic !!!", &format!("Client {SECRET}x")] {
        let answer = device
            .send(Protocol::Http1, "/http/m", &[("authorization", value)])
            .await
            .unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let mut body = answer.json();
        assert_eq!(
            body["request_id"],
            answer.headers["x-request-id"].to_str().unwrap()
        );
        body["request_id"].take();
        bodies.push(body.to_string());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert!(!bodies[0].contains(SECRET));
}

#[tokio::test]
async fn a_401_says_how_to_authenticate() {
    let lab = Lab::key().await;
    let answer = lab.anonymous().get("/http/m").await.unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.headers["www-authenticate"],
        "Client realm=\"portcullis\""
    );
    assert_eq!(answer.json()["code"], "unauthenticated");
}
