//! Call-outs: another service decides about clients, whatever they speak.

use serde_json::{Value, json};

use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::decider::{Decider, Says};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Version};
use crate::harness::{Answer, Client, Lab, PATIENCE};

const OTHER: &str = "00000000-0000-4000-8000-000000000000";

/// As brokers call out: `broker.auth.v1`.
fn broker_auth(decider: &Decider, lines: &str) -> String {
    let question = r#"{"client_id":"{client_id}","username":"{username}","password":"{secret}","protocol":"{protocol}"}"#;
    callout(
        decider,
        &format!(
            "headers = [\"content-type: application/json\"]\nbody = '{question}'\nallow_field = \"authenticated\"\nid_header = \"x-client-id\"\n{lines}"
        ),
    )
}

/// As `ext_authz` servers are called: by the client's own field.
fn ext_authz(decider: &Decider, lines: &str) -> String {
    callout(
        decider,
        &format!("method = \"GET\"\nheaders = [\"authorization: Client {{secret}}\"]\n{lines}"),
    )
}

fn callout(decider: &Decider, lines: &str) -> String {
    format!(
        "[callouts.accounts]\nurl = \"http://{}/check\"\ndanger_allow_http = true\ntimeout = \"1m\"\n{lines}\n",
        decider.address
    )
}

/// Does not wait long for services that do not answer.
fn impatient(tables: &str) -> String {
    tables.replace("timeout = \"1m\"", "timeout = \"300ms\"")
}

async fn lab(tables: &str) -> Lab {
    Config::key().asks("accounts").tables(tables).start().await
}

async fn ask(client: &Client, protocol: Protocol, secret: &str, more: &[(&str, &str)]) -> Answer {
    let path = match protocol {
        Protocol::WebSocket => "/ws/m",
        Protocol::Http1 | Protocol::Http2 => "/http/m",
    };
    let credential = format!("Client {secret}");
    let fields = [&[("authorization", credential.as_str())], more].concat();
    client.send(protocol, path, &fields).await.unwrap()
}

async fn status(lab: &Lab, secret: &str) -> u16 {
    let answer = ask(&lab.anonymous(), Protocol::Http1, secret, &[]).await;
    answer.status.as_u16()
}

fn success(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::WebSocket => 101,
        Protocol::Http1 | Protocol::Http2 => 200,
    }
}

#[tokio::test]
async fn a_client_passes_if_the_service_says_so_and_upstream_is_told_who_it_is() {
    let decider = Decider::start(Says::Authenticated).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    for protocol in EVERY_PROTOCOL {
        let forged = [("x-client-id", "admin"), ("x_client_id", "admin")];
        let answer = ask(&lab.anonymous(), protocol, SECRET, &forged).await;
        assert_eq!(answer.status, success(protocol), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-client-id"), ["c1"]);
        assert!(request.all("x_client_id").is_empty());
        assert_eq!(request.all("authorization"), [format!("Client {SECRET}")]);
    }
    let [asked] = &decider.asked()[..] else {
        panic!("{:?}", decider.asked());
    };
    assert_eq!(asked.method, "POST");
    let question: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        question,
        json!({"client_id": "", "username": "", "password": SECRET, "protocol": "HTTP"})
    );
}

#[tokio::test]
async fn a_client_of_whom_the_service_says_no_is_refused_before_anything_is_forwarded() {
    let decider = Decider::start(Says::Authenticated).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab.anonymous(), protocol, OTHER, &[]).await;
        assert_eq!(answer.status, 401, "{protocol:?}");
        assert_eq!(answer.json()["code"], "unauthenticated");
        assert_eq!(
            answer.headers["www-authenticate"],
            "Client realm=\"portcullis\""
        );
    }
    assert_eq!(decider.asked().len(), 1, "a no is remembered");
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_connect_is_decided_like_a_request() {
    let decider = Decider::start(Says::Authenticated).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_password(version, OTHER).bytes())
                .await;
            wire.ends_with(&version.bad_password()).await;
        }
    }
    lab.broker.assert_untouched().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = lab.mqtt_anonymous(transport).await;
            let connect = Connect::with_password(version, SECRET).client_id("device-1");
            wire.send(&connect.bytes()).await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
        }
    }
    let asked = decider.asked();
    let question: Value = serde_json::from_str(&asked.last().unwrap().body).unwrap();
    assert_eq!(question["client_id"], "device-1");
    assert_eq!(question["username"], "c9f0f895-fb98-4b91-99f5-1fd0297e236d");
    assert_eq!(question["password"], SECRET);
    assert_eq!(question["protocol"], "MQTT");
}

#[tokio::test]
async fn a_service_decides_by_status_and_its_fields_go_upstream_alone() {
    let fields = vec![("x-tenant", "t1"), ("x-tenant", "t2"), ("x-other", "o")];
    let decider = Decider::start(Says::Status(200, fields)).await;
    let lines = "forward = [\"x-tenant\"]\ncache_entries = 0";
    let lab = lab(&ext_authz(&decider, lines)).await;
    let forged = [("x-tenant", "root"), ("X_Tenant", "root")];
    ask(&lab.anonymous(), Protocol::Http1, SECRET, &forged).await;
    let request = lab.origin.requests().pop().unwrap();
    assert_eq!(request.all("x-tenant"), ["t1", "t2"]);
    assert!(request.all("x-other").is_empty());
    let asked = decider.asked().pop().unwrap();
    assert_eq!(asked.method, "GET");
    assert_eq!(asked.headers["authorization"], format!("Client {SECRET}"));
    // Threats S20: left out by the service, it is nobody's.
    decider.says(Says::Status(200, vec![]));
    ask(&lab.anonymous(), Protocol::Http1, SECRET, &forged).await;
    let request = lab.origin.requests().pop().unwrap();
    assert!(request.all("x-tenant").is_empty() && request.all("x_tenant").is_empty());
    for status_of_service in [401, 403] {
        decider.says(Says::Status(status_of_service, vec![]));
        assert_eq!(status(&lab, &status_of_service.to_string()).await, 401);
    }
}

/// Whatever is neither yes nor no.
fn silences() -> Vec<Says> {
    vec![
        Says::Status(302, vec![("location", "http://127.0.0.1:1/yes")]),
        Says::Status(204, vec![]),
        Says::Status(404, vec![]),
        Says::Status(500, vec![]),
        Says::Body("<html>authenticated: true</html>"),
        Says::Body(r#"{"authenticated":"true"}"#),
        Says::Body(r#"[{"authenticated":true}]"#),
        Says::Body(""),
        Says::Endless,
    ]
}

#[tokio::test]
async fn a_service_that_does_not_decide_leaves_everybody_outside() {
    let decider = Decider::start(Says::Silence).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    for says in silences() {
        decider.says(says);
        let answer = ask(&lab.anonymous(), Protocol::Http1, SECRET, &[]).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["code"], "unavailable");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
        .await;
    wire.ends_with(&Version::V5.refused(3, 0x88)).await;
    lab.origin.assert_untouched();
    lab.broker.assert_untouched().await;
    // Nothing of it is remembered.
    decider.says(Says::Authenticated);
    assert_eq!(status(&lab, SECRET).await, 200);
}

#[tokio::test]
async fn a_service_that_says_nothing_is_not_waited_for() {
    let decider = Decider::start(Says::Silence).await;
    let lab = lab(&impatient(&broker_auth(&decider, ""))).await;
    assert_eq!(status(&lab, SECRET).await, 503);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_service_that_is_not_there_leaves_everybody_outside_unless_that_is_allowed() {
    let gone = Decider::start(Says::Silence).await;
    let address = gone.address.to_string();
    let nowhere = |lines| broker_auth(&gone, lines).replace(&address, "127.0.0.1:1");
    let lab = lab(&nowhere("")).await;
    assert_eq!(status(&lab, SECRET).await, 503);
    let allowed = nowhere("danger_allow_on_failure = true");
    let lab = self::lab(&allowed).await;
    let forged = [("x-client-id", "admin")];
    let answer = ask(&lab.anonymous(), Protocol::Http1, SECRET, &forged).await;
    assert_eq!(answer.status, 200);
    let request = lab.origin.requests().pop().unwrap();
    assert!(request.all("x-client-id").is_empty());
}

#[tokio::test]
async fn a_thousand_who_ask_the_same_at_once_are_one_question() {
    let decider = Decider::start(Says::Authenticated).await;
    // A busy machine takes its time for a thousand.
    let patient = broker_auth(&decider, "").replace("500ms", "30s");
    let lab = lab(&patient).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let client = std::sync::Arc::new(lab.anonymous());
        for _ in 0..100 {
            let client = std::sync::Arc::clone(&client);
            clients.spawn(async move { ask(&client, Protocol::Http2, SECRET, &[]).await.status });
        }
    }
    let all = tokio::time::timeout(PATIENCE, clients.join_all()).await;
    assert!(all.unwrap().iter().all(|status| *status == 200));
    assert_eq!(decider.asked().len(), 1);
    // Another secret is another question, however alike.
    assert_eq!(status(&lab, &SECRET.to_uppercase()).await, 401);
    assert_eq!(decider.asked().len(), 2);
}

#[tokio::test]
async fn a_secret_cannot_leave_its_place_in_the_question() {
    let decider = Decider::start(Says::Authenticated).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    let injected = format!("x\",\"password\":\"{SECRET}");
    assert_eq!(status(&lab, &injected).await, 401);
    let asked = decider.asked().pop().unwrap();
    let question: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(question["password"], injected);
}

#[tokio::test]
async fn a_certificate_is_decided_about_as_well() {
    let decider = Decider::start(Says::Authenticated).await;
    let tables = broker_auth(&decider, "");
    let config = Config::x509().asks("accounts").tables(&tables);
    let lab = config.start().await;
    let device = lab.device();
    assert_eq!(ask(&device, Protocol::Http1, SECRET, &[]).await.status, 200);
    let other = lab.client(Some(lab.authority.device(OTHER)));
    assert_eq!(ask(&other, Protocol::Http1, OTHER, &[]).await.status, 401);
    // What is settled here is not asked.
    let before = decider.asked().len();
    assert_eq!(ask(&device, Protocol::Http1, OTHER, &[]).await.status, 403);
    assert_eq!(decider.asked().len(), before);
}

#[tokio::test]
async fn a_reload_with_another_question_forgets_the_answers() {
    let decider = Decider::start(Says::Authenticated).await;
    let mut lab = lab(&broker_auth(&decider, "")).await;
    assert_eq!(status(&lab, SECRET).await, 200);
    decider.says(Says::Status(403, vec![]));
    lab.reload().unwrap();
    assert_eq!(status(&lab, SECRET).await, 200, "the same question");
    lab.config.tables = broker_auth(&decider, "cache_ttl = \"2m\"");
    lab.reload().unwrap();
    assert_eq!(status(&lab, SECRET).await, 401);
}

#[tokio::test]
async fn a_configuration_that_would_ask_nothing_or_tell_everybody_is_refused() {
    let decider = Decider::start(Says::Silence).await;
    let mut lab = Config::key().start().await;
    lab.config = lab.config.asks("accounts");
    let unencrypted = broker_auth(&decider, "").replace("danger_allow_http = true", "");
    for (tables, expected) in [
        (unencrypted, "callouts.accounts.danger_allow_http"),
        (
            callout(&decider, "body = '{client_id}'"),
            "callouts.accounts.body: must hold {secret}",
        ),
        (
            callout(&decider, "body = '{fingerprint}'"),
            "callouts.accounts.body: must hold {secret}",
        ),
        (callout(&decider, "body = '{sercet}'"), "no field {sercet}"),
        (
            ext_authz(&decider, "forward = [\"host\"]"),
            "callouts.accounts.forward",
        ),
        (
            ext_authz(&decider, "id_header = \"authorization\""),
            "callouts.accounts.id_header",
        ),
        (
            ext_authz(&decider, "allow_status = [\"302\"]"),
            "callouts.accounts.allow_status",
        ),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}

/// The table of the call-out "accounts" under another name.
fn called(name: &str, tables: &str) -> String {
    tables.replace("callouts.accounts", &format!("callouts.{name}"))
}

#[tokio::test]
async fn each_route_and_listener_asks_the_service_that_it_names() {
    let [accounts, devices] = [
        Decider::start(Says::Authenticated).await,
        Decider::start(Says::Status(403, vec![])).await,
    ];
    let tables = broker_auth(&accounts, "") + &called("devices", &broker_auth(&devices, ""));
    let config = Config::key().asks("accounts").tables(&tables);
    let config = config.each_mqtt("callout = \"devices\"");
    let unasked = "[routes.unasked]\npath = \"/unasked/\"\nupstream = \"origin\"\ncallout = \"\"";
    let lab = config.tables(unasked).start().await;
    assert_eq!(status(&lab, SECRET).await, 200);
    assert_eq!(status(&lab, OTHER).await, 401);
    assert!(devices.asked().is_empty());
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_anonymous(transport).await;
        wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
            .await;
        wire.ends_with(&Version::V5.bad_password()).await;
    }
    assert_eq!(accounts.asked().len(), 2);
    assert!(!devices.asked().is_empty());
    let fields = [("authorization", "Client anything")];
    let client = lab.anonymous();
    let answer = client.send(Protocol::Http1, "/unasked/m", &fields).await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(accounts.asked().len(), 2);
}

#[tokio::test]
async fn a_call_out_that_guards_nothing_stops_the_start() {
    let decider = Decider::start(Says::Silence).await;
    let mut lab = Config::key().start().await;
    let tables = broker_auth(&decider, "");
    let route = |line: &str| {
        format!("{tables}[routes.more]\npath = \"/more/\"\nupstream = \"origin\"\n{line}")
    };
    for (tables, expected) in [
        (tables.clone(), "callouts.accounts: is asked by no route"),
        (
            route("callout = \"acounts\""),
            "routes.more.callout: no call-out is called \"acounts\"",
        ),
        (
            route("callout = \"accounts\"\ncredential = \"none\""),
            "routes.more.callout: tells the {secret} of clients",
        ),
        (
            "[callouts.accounts]\n".into(),
            "callouts.accounts.url: is missing",
        ),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}

/// Threats S52: whoever is refused learns nothing of why.
#[tokio::test]
async fn every_no_looks_the_same_to_a_client() {
    let decider = Decider::start(Says::Authenticated).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    let mut seen = std::collections::BTreeSet::new();
    for (at, says) in [
        Says::Status(401, vec![("www-authenticate", "Basic realm=\"inner\"")]),
        Says::Status(403, vec![("x-reason", "revoked")]),
        Says::Body(r#"{"authenticated":false,"reason":"no such client"}"#),
        Says::Body(r#"{"reason_code":134}"#),
    ]
    .into_iter()
    .enumerate()
    {
        decider.says(says);
        let answer = ask(&lab.anonymous(), Protocol::Http1, &at.to_string(), &[]).await;
        let mut body = answer.json();
        assert!(body["request_id"].take().is_string());
        let challenges = answer.headers.get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges.map(|value| value.to_str().unwrap()).collect();
        assert!(!answer.headers.contains_key("x-reason"));
        seen.insert(format!("{} {challenges:?} {body}", answer.status));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn decisions_are_counted_by_what_they_were() {
    let decider = Decider::start(Says::Authenticated).await;
    let lab = lab(&broker_auth(&decider, "")).await;
    for secret in [SECRET, SECRET, OTHER, OTHER, OTHER] {
        status(&lab, secret).await;
    }
    decider.says(Says::Status(500, vec![]));
    status(&lab, "third").await;
    let (_, metrics) = lab.admin("/metrics").await;
    for (result, count) in [
        ("allowed", 1),
        ("hit", 1),
        ("refused", 1),
        ("refused_hit", 2),
        ("undecided", 1),
    ] {
        let line = format!(
            "portcullis_callout_decisions_total{{callout=\"accounts\",result=\"{result}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains(SECRET));
}

/// Threats S40: a service that is down takes nobody with it.
#[tokio::test]
async fn many_who_wait_for_a_silent_service_are_few_questions_and_no_burden_to_others() {
    let decider = Decider::start(Says::Silence).await;
    let unasked = "[routes.unasked]\npath = \"/unasked/\"\nupstream = \"origin\"\ncallout = \"\"";
    let lab = lab(&(impatient(&broker_auth(&decider, "")) + unasked)).await;
    let lab = std::sync::Arc::new(lab);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let lab = std::sync::Arc::clone(&lab);
        clients.spawn(async move { status(&lab, SECRET).await });
    }
    let fields = [("authorization", "Client anything")];
    let client = lab.anonymous();
    let answer = client.send(Protocol::Http1, "/unasked/m", &fields).await;
    assert_eq!(answer.unwrap().status, 200);
    let all = tokio::time::timeout(PATIENCE, clients.join_all()).await;
    assert!(all.unwrap().iter().all(|status| *status == 503));
    assert!(decider.asked().len() < 100, "{}", decider.asked().len());
}
