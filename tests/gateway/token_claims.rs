//! What a token must say beside that it is good, and what upstream is told of it.

use serde_json::{Value, json};

use crate::harness::Lab;
use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::issuer::{KEY, PLATFORM, claims, signed};
use crate::harness::lab::{Config, SECRET};

/// Two routes to the origin that take tokens, with rules and with fields.
const ROUTES: &str = r#"
[routes.ruled]
path = "/ruled/"
upstream = "origin"
credential = "any"
[routes.ruled.claims.operator]
claim = "realm_access.roles"
contains = "operator"
[routes.ruled.claims.role]
claim = "role"
equals = 1
[routes.told]
path = "/told/"
upstream = "origin"
credential = "any"
forward_claims = ["x-user: user", "x-roles: realm_access.roles", "x-level: level"]
"#;

async fn lab() -> Lab {
    let config = Config::key().tables(&format!("{PLATFORM}{ROUTES}"));
    config.start().await
}

fn bearer(lab: &Lab, changes: &Value) -> String {
    let mut claims = claims(lab);
    let all = claims.as_object_mut().unwrap();
    all.extend(changes.as_object().unwrap().clone());
    format!("Bearer {}", signed(KEY, &claims))
}

#[tokio::test]
async fn a_token_that_keeps_every_rule_passes_and_one_that_breaks_any_is_refused() {
    let lab = lab().await;
    let roles = |roles: Value| json!({"roles": roles});
    for protocol in EVERY_PROTOCOL {
        for (claims, passes) in [
            (
                json!({"role": 1, "realm_access": roles(json!(["operator", "x"]))}),
                true,
            ),
            (
                json!({"role": "1", "realm_access": roles(json!("x operator"))}),
                true,
            ),
            (
                json!({"role": 2, "realm_access": roles(json!(["operator"]))}),
                false,
            ),
            (
                json!({"role": 1, "realm_access": roles(json!(["operators"]))}),
                false,
            ),
            (json!({"role": 1, "realm_access": roles(json!([]))}), false),
            (json!({"role": 1, "realm_access": "operator"}), false),
            (
                json!({"role": null, "realm_access": roles(json!(["operator"]))}),
                false,
            ),
            (json!({"role": 1}), false),
            (json!({}), false),
        ] {
            let bearer = bearer(&lab, &claims);
            let fields = [("authorization", bearer.as_str())];
            let answer = lab
                .anonymous()
                .send(protocol, "/ruled/m", &fields)
                .await
                .unwrap();
            if passes {
                assert!(
                    answer.status.is_success() || answer.status == 101,
                    "{claims}"
                );
                continue;
            }
            assert_eq!(answer.status, 403, "{protocol:?} {claims}");
            assert_eq!(answer.json()["code"], "forbidden");
            assert_eq!(
                answer.headers["www-authenticate"],
                "Bearer realm=\"portcullis\", error=\"insufficient_scope\""
            );
        }
    }
}

#[tokio::test]
async fn rules_for_tokens_are_none_for_clients() {
    let lab = lab().await;
    let client = format!("Client {SECRET}");
    let fields = [("authorization", client.as_str())];
    let answer = lab
        .anonymous()
        .send(Protocol::Http1, "/ruled/m", &fields)
        .await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn upstream_is_told_the_claims_in_their_fields() {
    let lab = lab().await;
    for protocol in EVERY_PROTOCOL {
        for (claims, told) in [
            (json!({}), [Some("u1"), None, None]),
            (
                json!({"user": "ü, v", "level": 7, "realm_access": {"roles": ["a", "b,c"]}}),
                [Some("ü, v"), Some(r#"["a","b,c"]"#), Some("7")],
            ),
            (json!({"level": true}), [Some("u1"), None, Some("true")]),
            (json!({"level": null}), [Some("u1"), None, None]),
            // What would end the field, and what no field can begin or end with.
            (
                json!({"level": "1\r\nx-user: admin"}),
                [Some("u1"), None, None],
            ),
            (json!({"level": " 1"}), [Some("u1"), None, None]),
        ] {
            let bearer = bearer(&lab, &claims);
            let fields = [
                ("authorization", bearer.as_str()),
                ("x-user", "admin"),
                ("x_user", "admin"),
                ("X-Roles", "[\"admin\"]"),
                ("x-level", "9"),
                ("x-other", "kept"),
            ];
            lab.anonymous()
                .send(protocol, "/told/m", &fields)
                .await
                .unwrap();
            let request = lab.origin.requests().pop().unwrap();
            let values = ["x-user", "x-roles", "x-level"].map(|name| {
                let all: Vec<_> = request.headers.get_all(name).iter().collect();
                assert!(all.len() < 2, "{all:?}");
                all.first()
                    .map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
            });
            assert_eq!(
                values,
                told.map(|value| value.map(str::to_owned)),
                "{claims}"
            );
            assert!(!request.headers.contains_key("x_user"));
            assert_eq!(request.all("x-other"), ["kept"]);
        }
    }
}

#[tokio::test]
async fn no_client_can_set_such_a_field_on_any_route() {
    let lab = lab().await;
    let client = format!("Client {SECRET}");
    for path in ["/told/m", "/http/m", "/public/m"] {
        let fields = [
            ("authorization", client.as_str()),
            ("x-user", "admin"),
            ("x_user", "admin"),
        ];
        let answer = lab.anonymous().send(Protocol::Http1, path, &fields).await;
        assert_eq!(answer.unwrap().status, 200, "{path}");
        let request = lab.origin.requests().pop().unwrap();
        assert!(!request.headers.contains_key("x-user"), "{path}");
        assert!(!request.headers.contains_key("x_user"), "{path}");
    }
}

#[tokio::test]
async fn rules_that_would_do_nothing_or_too_much_are_refused() {
    let mut lab = Config::key().start().await;
    let route = "[routes.r]\npath = \"/r/\"\nupstream = \"origin\"\n";
    let user = format!("{PLATFORM}{route}credential = \"user\"\n");
    for (tables, expected) in [
        (
            format!("{route}forward_claims = [\"x-user: sub\"]\n"),
            "does not take",
        ),
        (
            format!("{route}[routes.r.claims.a]\nclaim = \"a\"\nexists = true\n"),
            "does not take",
        ),
        (
            format!("{user}[routes.r.claims.a]\nclaim = \"a\"\n"),
            "must have one of",
        ),
        (
            format!("{user}[routes.r.claims.a]\nclaim = \"a\"\nequals = \"1\"\nexists = true\n"),
            "must have one of",
        ),
        (
            format!("{user}[routes.r.claims.a]\nclaim = \"a..b\"\nexists = true\n"),
            "neither",
        ),
        (
            format!("{user}forward_claims = [\"user\"]\n"),
            "not a field and a claim",
        ),
        (
            format!("{user}forward_claims = [\"authorization: sub\"]\n"),
            "must begin with x-",
        ),
        (
            format!("{user}forward_claims = [\"x-real-ip: sub\"]\n"),
            "must begin with x-",
        ),
        (
            format!("{user}forward_claims = [\"x-forwarded-for: sub\"]\n"),
            "must begin with x-",
        ),
        (
            format!("{user}forward_claims = [\"x_user: sub\"]\n"),
            "must begin with x-",
        ),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
    lab.config.tables = user;
    assert!(lab.settings().is_ok());
}
