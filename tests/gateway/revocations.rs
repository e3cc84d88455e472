//! Revoked tokens: a list that is kept in a file and changed through the admin listener.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use portcullis::clock::Clock as _;
use portcullis::gateway::Gateway;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::{EVERY_PROTOCOL, Protocol, plain, plain_get};
use crate::harness::decider::{Decider, Says};
use crate::harness::issuer::{KEY, PLATFORM, claims, signed};
use crate::harness::lab::Config;
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, Transport, Version};
use crate::harness::{Client, Lab, PATIENCE};

const LIST: &str = "revocations.toml";

/// A gateway for users, with an empty list.
async fn lab() -> Lab {
    with_list("", "").await
}

async fn with_list(list: &str, lines: &str) -> Lab {
    let mut lab = Config::key().start().await;
    lab.write(LIST, list);
    let tables = format!("[revocations]\nlist = \"{LIST}\"\n{lines}\n{PLATFORM}");
    lab.config = Config::key()
        .tables(&tables)
        .route("credential = \"user\"")
        .each_mqtt("credential = \"user\"");
    lab.reload().unwrap();
    lab
}

/// A token of this user with this id.
fn token(lab: &Lab, subject: &str, id: &str) -> String {
    let mut claims = claims(lab);
    claims["user"] = json!(subject);
    claims["jti"] = json!(id);
    signed(KEY, &claims)
}

async fn ask(client: &Client, protocol: Protocol, token: &str) -> u16 {
    let path = match protocol {
        Protocol::WebSocket => "/ws/m",
        Protocol::Http1 | Protocol::Http2 => "/http/m",
    };
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", bearer.as_str())];
    let answer = client.send(protocol, path, &fields).await.unwrap();
    answer.status.as_u16()
}

async fn passes(lab: &Lab, token: &str) -> bool {
    let mut all = Vec::new();
    // Each on a connection of its own, so that every worker gets some.
    for _ in 0..2 {
        for protocol in EVERY_PROTOCOL {
            all.push(matches!(
                ask(&lab.anonymous(), protocol, token).await,
                200 | 101
            ));
        }
    }
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all[0]
}

async fn revoke(lab: &Lab, entry: &Value) -> Value {
    let (status, body) = lab
        .tell_admin("POST", "/revocations", &entry.to_string())
        .await;
    assert!(matches!(status, 200 | 201), "{status} {body}");
    serde_json::from_str(&body).unwrap()
}

async fn lift(lab: &Lab, entry: &Value) -> u16 {
    let path = format!("/revocations/{}", entry["id"].as_str().unwrap());
    lab.tell_admin("DELETE", &path, "").await.0
}

async fn listed(lab: &Lab) -> Vec<Value> {
    let (status, body) = lab.tell_admin("GET", "/revocations", "").await;
    assert_eq!(status, 200, "{body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    document["revocations"].as_array().unwrap().clone()
}

fn time(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[tokio::test]
async fn what_is_revoked_is_refused_at_once_and_nothing_else_is() {
    let lab = lab().await;
    let stolen = token(&lab, "u1", "t1");
    let now = lab.clock.now();
    let before_now = time(now + 1);
    for (entry, others) in [
        (json!({"jti": "t1"}), vec![("u1", "t2"), ("u2", "t11")]),
        (json!({"jti": "t1", "subject": "u1"}), vec![("u2", "t1")]),
        (json!({"subject": "u1"}), vec![("u2", "t1"), ("U1", "t1")]),
        (
            json!({"subject": "u1", "issuer": "supermq.auth"}),
            vec![("u2", "t1")],
        ),
        (
            json!({"subject": "u1", "issued_before": before_now}),
            vec![("u2", "t1")],
        ),
        (json!({"issued_before": before_now}), vec![]),
        (
            json!({"issuer": "supermq.auth", "issued_before": before_now}),
            vec![],
        ),
    ] {
        assert!(passes(&lab, &stolen).await, "{entry}");
        let entry = revoke(&lab, &entry).await;
        assert!(!passes(&lab, &stolen).await, "{entry}");
        for (subject, id) in others {
            assert!(passes(&lab, &token(&lab, subject, id)).await, "{entry}");
        }
        assert_eq!(lift(&lab, &entry).await, 204);
        assert_eq!(lift(&lab, &entry).await, 404);
    }
    for entry in [
        json!({"jti": "T1"}),
        json!({"jti": "t1", "subject": "u2"}),
        json!({"jti": "t1", "issuer": "somebody.else"}),
        json!({"subject": "u1", "issued_before": time(now)}),
        json!({"issuer": "somebody.else", "issued_before": before_now}),
    ] {
        revoke(&lab, &entry).await;
        assert!(passes(&lab, &stolen).await, "{entry}");
    }
    let (_, metrics) = lab.admin("/metrics").await;
    assert!(
        metrics.contains("portcullis_token_revocations 5\n"),
        "{metrics}"
    );
    assert!(metrics.contains("reason=\"token_revoked\""), "{metrics}");
}

#[tokio::test]
async fn a_token_that_does_not_say_when_it_was_issued_was_issued_before() {
    let lab = lab().await;
    let mut undated = claims(&lab);
    undated.as_object_mut().unwrap().remove("iat");
    let undated = signed(KEY, &undated);
    assert!(passes(&lab, &undated).await);
    revoke(&lab, &json!({"issued_before": "1970-01-02T00:00:00Z"})).await;
    assert!(!passes(&lab, &undated).await);
    assert!(passes(&lab, &token(&lab, "u1", "t1")).await);
}

#[tokio::test]
async fn sessions_of_revoked_tokens_end_at_once_and_all_others_stay() {
    let lab = lab().await;
    let open_websocket = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let client = lab.anonymous();
        let fields = [("authorization", bearer.as_str())];
        let opened = client.open_websocket("/ws/m", &fields);
        opened.await.unwrap_or_else(|_| panic!("refused")).0
    };
    let open_mqtt = async |transport, token: &str| {
        let mut wire = lab.mqtt_anonymous(transport).await;
        let connect = Connect::with_password(Version::V5, token.to_owned());
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        wire
    };
    let (stolen, other) = (token(&lab, "u1", "t1"), token(&lab, "u1", "t2"));
    let mut socket = open_websocket(&stolen).await;
    let mut stays = open_websocket(&other).await;
    let mut wires = Vec::new();
    let mut waiting = Vec::new();
    for transport in EVERY_TRANSPORT {
        wires.push((transport, open_mqtt(transport, &stolen).await));
        // One that has yet to send its CONNECT is not cut off by it.
        waiting.push(lab.mqtt_anonymous(transport).await);
    }
    revoke(&lab, &json!({"jti": "t1"})).await;
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = end else {
        panic!("{end:?} instead of the end");
    };
    assert_eq!(u16::from(frame.code), 1008);
    for (transport, mut wire) in wires {
        // MQTT 5.0 §3.14.2.1: not authorized.
        let code = wire.ends_with(&[0xE0, 2, 0x87, 0]).await;
        if transport == Transport::WebSocket {
            assert_eq!(code, Some(1008));
        }
    }
    for (mut wire, password) in waiting.into_iter().zip([&stolen, &other]) {
        let connect = Connect::with_password(Version::V5, password.clone());
        wire.send(&connect.bytes()).await;
        if password == &stolen {
            wire.ends_with(&Version::V5.bad_password()).await;
        } else {
            assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        }
    }
    stays.send(Message::text("still here")).await.unwrap();
    let echo = tokio::time::timeout(PATIENCE, stays.next()).await.unwrap();
    assert_eq!(echo.unwrap().unwrap(), Message::text("still here"));
}

#[tokio::test]
async fn sessions_of_revoked_tokens_end_at_once_while_the_gateway_drains_too() {
    const SESSIONS: usize = 8;
    let mut lab = lab().await;
    // So long that few of them end by the drain meanwhile.
    lab.config.drain_timeout = Some("1h");
    lab.reload().unwrap();
    let token = token(&lab, "u1", "t1");
    let mut wires = Vec::new();
    for number in 0..SESSIONS {
        let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[number % 2]).await;
        let connect = Connect::with_password(Version::V5, token.clone());
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        wires.push(wire);
    }
    let admin = lab.gateway().admin_address().unwrap();
    let draining = tokio::spawn(lab.drain(Duration::from_secs(3600)));
    while plain_get(admin, "/readyz").await.0 == 200 {}
    let host = admin.to_string();
    let fields = [("host", &*host), ("content-type", "application/json")];
    let entry = json!({"jti": "t1"}).to_string();
    let (status, body) = plain(admin, "POST", "/revocations", &fields, &entry).await;
    assert_eq!(status, 201, "{body}");
    let mut revoked = 0;
    for mut wire in wires {
        let farewell = wire.packet().await.expect("a DISCONNECT");
        revoked += usize::from(farewell == [0xe0, 2, 0x87, 0]);
    }
    assert!(revoked > SESSIONS / 2, "{revoked}");
    draining.abort();
}

#[tokio::test]
async fn a_connection_that_carries_requests_stays_and_each_is_looked_at() {
    let lab = lab().await;
    let bearer = |id| format!("Bearer {}", token(&lab, "u1", id));
    let (stolen, other) = (bearer("t1"), bearer("t2"));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut kept = lab.anonymous().keep(protocol).await.unwrap();
        let mut ask = async |bearer: &str| {
            let answer = kept.get("/http/m", &[("authorization", bearer)]).await;
            answer.unwrap().status.as_u16()
        };
        assert_eq!(ask(&stolen).await, 200);
        let entry = revoke(&lab, &json!({"jti": "t1"})).await;
        assert_eq!(ask(&stolen).await, 401, "{protocol:?}");
        assert_eq!(ask(&other).await, 200, "{protocol:?}");
        lift(&lab, &entry).await;
        assert_eq!(ask(&stolen).await, 200, "{protocol:?}");
    }
}

#[tokio::test]
async fn api_keys_and_introspected_tokens_are_revoked_as_well() {
    const API_KEY: &str = "pck_k1_0123456789";
    const OPAQUE: &str = "opaque";
    let active = r#"{"active":true,"sub":"u9","jti":"i1"}"#;
    let decider = Decider::start(Says::Body(active)).await;
    let mut lab = lab().await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, API_KEY.as_bytes());
    let hash: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    lab.write(
        "api-keys.toml",
        &format!("k1 = {{ hash = \"{hash}\", owner = \"billing\" }}\n"),
    );
    let tables = format!(
        "[api_keys]\nlist = \"api-keys.toml\"\n[introspection]\nurl = \"http://{}/\"\n\
         danger_allow_http = true\nclient_id = \"a\"\nclient_secret = \"b\"\n",
        decider.address
    );
    lab.config = lab.config.clone().tables(&tables);
    lab.reload().unwrap();
    for (token, entries) in [
        (
            API_KEY,
            [
                json!({"jti": "k1"}),
                json!({"subject": "billing"}),
                json!({"jti": "k1", "issuer": "api_keys"}),
            ],
        ),
        (
            OPAQUE,
            [
                json!({"jti": "i1"}),
                json!({"subject": "u9"}),
                json!({"jti": "i1", "issuer": "introspection"}),
            ],
        ),
    ] {
        for entry in entries {
            assert!(passes(&lab, token).await, "{entry}");
            let entry = revoke(&lab, &entry).await;
            assert!(!passes(&lab, token).await, "{entry}");
            lift(&lab, &entry).await;
        }
    }
}

#[tokio::test]
async fn a_restart_keeps_the_list() {
    let mut lab = lab().await;
    let note = "laptop lost, \"blue\" one\n";
    let entry = json!({"subject": "u1", "note": note, "until": time(lab.clock.now() + 60)});
    let entry = revoke(&lab, &entry).await;
    lab.restart();
    assert!(!passes(&lab, &token(&lab, "u1", "t1")).await);
    assert!(passes(&lab, &token(&lab, "u2", "t1")).await);
    assert_eq!(listed(&lab).await, [entry]);
    assert!(!lab.path("revocations.new").exists());
}

#[tokio::test]
async fn an_entry_ends_when_it_says_so() {
    let mut lab = lab().await;
    let until = time(lab.clock.now() + 60);
    revoke(&lab, &json!({"subject": "u1", "until": until})).await;
    assert!(!passes(&lab, &token(&lab, "u1", "t1")).await);
    lab.clock.advance(Duration::from_secs(59));
    assert!(!passes(&lab, &token(&lab, "u1", "t1")).await);
    lab.clock.advance(Duration::from_secs(1));
    assert!(passes(&lab, &token(&lab, "u1", "t1")).await);
    assert!(listed(&lab).await.is_empty());
    // It leaves the file with the next change.
    revoke(&lab, &json!({"subject": "u2"})).await;
    let text = std::fs::read_to_string(lab.path(LIST)).unwrap();
    assert!(text.contains("u2") && !text.contains("u1"), "{text}");
    lab.restart();
    assert_eq!(listed(&lab).await.len(), 1);
}

#[tokio::test]
async fn the_list_grows_no_longer_than_it_may() {
    let mut lab = with_list("", "max_entries = 2").await;
    for jti in ["t1", "t2"] {
        revoke(&lab, &json!({"jti": jti})).await;
    }
    let full = r#"{"jti": "t3"}"#;
    let (status, body) = lab.tell_admin("POST", "/revocations", full).await;
    assert_eq!(status, 409);
    assert!(body.contains("revocations.max_entries"), "{body}");
    assert!(passes(&lab, &token(&lab, "u1", "t3")).await);
    // The same again is no further one.
    revoke(&lab, &json!({"jti": "t2", "note": "again"})).await;
    assert_eq!(listed(&lab).await[1]["note"], "again");
    lab.config.tables = lab
        .config
        .tables
        .replace("max_entries = 2", "max_entries = 1");
    let error = lab.reload().unwrap_err();
    assert!(error.contains("revocations.max_entries"), "{error}");
}

#[tokio::test]
async fn what_is_no_entry_is_refused() {
    let lab = lab().await;
    let long = json!({"jti": "x".repeat(1025)}).to_string();
    let longer = json!({"jti": "x".repeat(20_000)}).to_string();
    for (body, expected) in [
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        (r#"["t1", null, null, null, null, null]"#, "no JSON object"),
        ("{}", "one of jti, subject and issued_before"),
        (r#"{"issuer": "supermq.auth"}"#, "one of jti"),
        (r#"{"jti": ""}"#, "empty"),
        (r#"{"jti": 7}"#, "invalid type"),
        (r#"{"jti": "a", "jti": "b"}"#, "twice"),
        (r#"{"jti": "a", "subjct": "b"}"#, "unknown field"),
        (r#"{"issued_before": "yesterday"}"#, "2027-01-31T00:00:00Z"),
        (r#"{"issued_before": 1700000000}"#, "invalid type"),
        (&long, "longer than 1024"),
        (&longer, "too long"),
    ] {
        let (status, answer) = lab.tell_admin("POST", "/revocations", body).await;
        assert_eq!(status, 400, "{body} {answer}");
        assert!(answer.contains(expected), "{answer}");
    }
    assert!(listed(&lab).await.is_empty());
}

#[tokio::test]
async fn a_browsers_pages_change_and_read_nothing() {
    let lab = lab().await;
    let address = lab.gateway().admin_address().unwrap();
    let host = address.to_string();
    let (host, json_type) = (
        ("host", host.as_str()),
        ("content-type", "application/json"),
    );
    let entry = r#"{"jti": "t1"}"#;
    for (method, fields, status) in [
        ("POST", vec![host, json_type, ("origin", "null")], 403),
        (
            "POST",
            vec![host, json_type, ("origin", "http://127.0.0.1")],
            403,
        ),
        (
            "DELETE",
            vec![host, ("origin", "https://evil.example")],
            403,
        ),
        ("POST", vec![host], 415),
        ("POST", vec![host, ("content-type", "text/plain")], 415),
        (
            "POST",
            vec![host, ("content-type", "text/plain; application/json")],
            415,
        ),
        ("POST", vec![("host", "evil.example"), json_type], 421),
        (
            "POST",
            vec![("host", "127.0.0.1.evil.example"), json_type],
            421,
        ),
        ("POST", vec![host, host, json_type], 421),
        ("GET", vec![("host", "evil.example:9900")], 421),
        ("DELETE", vec![("host", "evil.example")], 421),
    ] {
        let path = if method == "DELETE" {
            "/revocations/0011223344556677"
        } else {
            "/revocations"
        };
        let (found, _) = plain(address, method, path, &fields, entry).await;
        assert_eq!(found, status, "{method} {fields:?}");
    }
    assert!(listed(&lab).await.is_empty());
    for host in ["localhost:9900", "LocalHost", "[::1]:9900", "192.0.2.7"] {
        let fields = [
            ("host", host),
            ("content-type", "application/json; charset=utf-8"),
        ];
        let (status, _) = plain(address, "POST", "/revocations", &fields, entry).await;
        assert!(matches!(status, 200 | 201), "{host}");
    }
}

#[tokio::test]
async fn names_and_a_secret_of_the_admin_listener_are_demanded_as_configured() {
    const SECRET: &str = "the operator's secret, 32 bytes and more";
    let mut lab = lab().await;
    let address = lab.gateway().admin_address().unwrap();
    lab.config = lab.config.clone().admin(&format!(
        "hosts = [\"gateway.internal\"]\nsecret = \"{SECRET}\""
    ));
    lab.reload().unwrap();
    let host = ("host", "gateway.internal:9900");
    let json_type = ("content-type", "application/json");
    let good = format!("Bearer {SECRET}");
    let other = format!("Bearer {SECRET}x");
    let entry = r#"{"jti": "t1"}"#;
    for (fields, status) in [
        (vec![host, json_type], 401),
        (
            vec![host, json_type, ("authorization", other.as_str())],
            401,
        ),
        (vec![host, json_type, ("authorization", SECRET)], 401),
        (vec![host, json_type, ("authorization", good.as_str())], 201),
    ] {
        let (found, body) = plain(address, "POST", "/revocations", &fields, entry).await;
        assert_eq!(found, status, "{fields:?}");
        assert!(!body.contains(SECRET));
    }
    assert_eq!(
        plain(address, "GET", "/revocations", &[host], "").await.0,
        401
    );
    // What needs none needs none.
    assert_eq!(lab.admin("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_file_that_somebody_else_has_changed_is_read_before_it_is_written() {
    let lab = lab().await;
    let theirs = "[[revoked]]\nsubject = \"u2\"\n";
    lab.write(LIST, theirs);
    let (status, body) = lab
        .tell_admin("POST", "/revocations", r#"{"jti": "t1"}"#)
        .await;
    assert_eq!(status, 409);
    assert!(body.contains("reload"), "{body}");
    assert_eq!(std::fs::read_to_string(lab.path(LIST)).unwrap(), theirs);
    assert!(passes(&lab, &token(&lab, "u1", "t1")).await);
    lab.reload().unwrap();
    assert!(!passes(&lab, &token(&lab, "u2", "t2")).await);
    revoke(&lab, &json!({"jti": "t1"})).await;
    assert_eq!(listed(&lab).await.len(), 2);
}

#[tokio::test]
async fn a_list_that_cannot_be_kept_is_not_changed() {
    let lab = lab().await;
    // Where the new file would be written.
    std::fs::create_dir(lab.path("revocations.new")).unwrap();
    let (status, body) = lab
        .tell_admin("POST", "/revocations", r#"{"jti": "t1"}"#)
        .await;
    assert_eq!(status, 500);
    assert!(body.contains("cannot write"), "{body}");
    assert!(passes(&lab, &token(&lab, "u1", "t1")).await);
    assert!(listed(&lab).await.is_empty());
}

#[tokio::test]
async fn a_damaged_file_stops_the_start_and_a_reload_keeps_the_former_list() {
    let lab = with_list("[[revoked]]\njti = \"t1\"\n", "").await;
    for (text, expected) in [
        ("garbage", LIST),
        ("revoked = 7", LIST),
        ("[[revoked]]\nsubjct = \"u1\"\n", "unknown field `subjct`"),
        ("[[revoked]]\nissuer = \"x\"\n", "one of jti"),
        ("[[revoked]]\nissued_before = \"x\"\n", "2027-01-31"),
        ("[[revoke]]\njti = \"t1\"\n", "unknown field `revoke`"),
    ] {
        lab.write(LIST, text);
        let error = lab.reload().unwrap_err();
        assert!(error.contains("revocations.list"), "{error}");
        assert!(error.contains(expected), "{error}");
        let settings = lab.settings().unwrap();
        let clock = std::sync::Arc::new(lab.clock.clone());
        let error = Gateway::start(settings, clock).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(!passes(&lab, &token(&lab, "u1", "t1")).await);
    assert!(passes(&lab, &token(&lab, "u1", "t2")).await);
    std::fs::remove_file(lab.path(LIST)).unwrap();
    assert!(lab.reload().unwrap_err().contains("cannot read"));
}

#[tokio::test]
async fn without_a_file_there_is_no_list() {
    let lab = Config::key().start().await;
    for (method, path) in [
        ("GET", "/revocations"),
        ("POST", "/revocations"),
        ("DELETE", "/revocations/0011223344556677"),
    ] {
        let (status, body) = lab.tell_admin(method, path, r#"{"jti": "t1"}"#).await;
        assert_eq!(status, 404, "{method} {body}");
    }
}

#[tokio::test]
async fn a_list_that_anybody_on_the_network_could_change_is_refused() {
    let mut lab = Config::key().start().await;
    let list = format!("[revocations]\nlist = \"{LIST}\"\n");
    lab.config = Config::key().tables(&list);
    assert!(lab.settings().is_ok());
    let text = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    let load = |admin: &str| {
        let text = text.replacen("[admin]\naddress = \"127.0.0.1:0\"", admin, 1);
        lab.write("config.toml", &text);
        let environment = portcullis::config::Environment::default();
        portcullis::config::load(&lab.path("config.toml"), &environment)
    };
    let open = "[admin]\naddress = \"0.0.0.0:0\"";
    let problem = load(open).unwrap_err().to_string();
    assert!(problem.contains("admin.secret"), "{problem}");
    let short = format!("{open}\nsecret = \"short\"");
    let problem = load(&short).unwrap_err().to_string();
    assert!(
        problem.contains("32 bytes") && !problem.contains("short\""),
        "{problem}"
    );
    let secret = format!("{open}\nsecret = \"the operator's secret, 32 bytes and more\"");
    assert!(load(&secret).is_ok());
}
