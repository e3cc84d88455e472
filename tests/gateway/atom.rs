//! What Atom issues: session tokens that it may take back, and keys that only it can tell from rubbish.

use std::time::Duration;

use portcullis::clock::Clock as _;
use serde_json::{Value, json};

use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::decider::{Decider, Says};
use crate::harness::issuer::{Signer, key_set};
use crate::harness::lab::Config;
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Version};
use crate::harness::{Answer, Lab};

const ISSUER: &str = "https://atom.example";
const ACTIVE: Says =
    Says::Body(r#"{"active":true,"entity_id":"e1","tenant_id":"t1","session_id":"s1"}"#);
const UNKNOWN: Says = Says::Status(401, vec![]);

/// `atom_`, 32 and 64 hexadecimal digits.
fn key() -> String {
    format!("atom_{}_{}", "0f".repeat(16), "a1".repeat(32))
}

fn introspection(atom: &Decider, lines: &str) -> String {
    format!(
        "[introspection]\nkind = \"atom\"\nurl = \"http://{}/auth/introspect\"\n\
         danger_allow_http = true\ntimeout = \"1m\"\nprefixes = [\"atom_\"]\n{lines}\n",
        atom.address
    )
}

/// Users by keys of Atom, over HTTP and MQTT.
async fn by_key(atom: &Decider) -> Lab {
    let config = Config::key().tables(&introspection(atom, ""));
    let config = config.route("credential = \"user\"\nforward_claims = [\"x-user: entity_id\"]");
    config.each_mqtt("credential = \"user\"").start().await
}

/// Users by Atom's session tokens, about which it is asked if `lines` say so.
async fn by_session(atom: &Decider, signer: &Signer, lines: &str) -> Lab {
    let provider = format!(
        "[providers.atom]\nprofile = \"atom\"\nkind = \"jwks_file\"\nissuers = [\"{ISSUER}\"]\n\
         key_set = \"atom.json\"\n{lines}\n"
    );
    let mut lab = Config::key().start().await;
    lab.write("atom.json", &key_set(&[signer]));
    let config = std::mem::take(&mut lab.config);
    let config = config.route("credential = \"user\"").tables(&provider);
    lab.config = config.tables(&introspection(atom, "cache_ttl = \"10s\""));
    lab.reload().unwrap();
    lab
}

fn session(lab: &Lab) -> Value {
    let now = lab.clock.now();
    json!({
        "iss": ISSUER, "aud": "magistrala", "sub": "e1", "sid": "s1", "tid": "t1",
        "iat": now, "exp": now + 3600,
    })
}

async fn ask(lab: &Lab, protocol: Protocol, token: &str) -> Answer {
    let path = match protocol {
        Protocol::WebSocket => "/ws/m",
        Protocol::Http1 | Protocol::Http2 => "/http/m",
    };
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", bearer.as_str())];
    lab.anonymous().send(protocol, path, &fields).await.unwrap()
}

async fn status(lab: &Lab, token: &str) -> u16 {
    ask(lab, Protocol::Http1, token).await.status.as_u16()
}

#[tokio::test]
async fn a_key_is_known_by_what_atom_says_to_it_whatever_is_spoken() {
    let atom = Decider::start(ACTIVE).await;
    let lab = by_key(&atom).await;
    assert_eq!(key().len(), 102);
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab, protocol, &key()).await;
        assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-user"), ["e1"]);
        assert_eq!(request.all("authorization"), [format!("Bearer {}", key())]);
    }
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_password(version, key()).bytes())
                .await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
        }
    }
    let [asked] = &atom.asked()[..] else {
        panic!("{:?}", atom.asked());
    };
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("GET", "/auth/introspect")
    );
    assert_eq!(asked.headers["authorization"], format!("Bearer {}", key()));
    assert!(asked.body.is_empty());
}

#[tokio::test]
async fn a_key_that_atom_does_not_know_is_refused_whatever_is_spoken() {
    let atom = Decider::start(UNKNOWN).await;
    let lab = by_key(&atom).await;
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab, protocol, &key()).await;
        assert_eq!(answer.status, 401, "{protocol:?}");
        assert_eq!(answer.json()["code"], "unauthenticated");
    }
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_password(version, key()).bytes())
                .await;
            wire.ends_with(&version.bad_password()).await;
        }
    }
    assert_eq!(atom.asked().len(), 1, "a no is remembered");
    lab.origin.assert_untouched();
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn nothing_but_keys_is_shown_to_atom() {
    let atom = Decider::start(ACTIVE).await;
    let lab = by_key(&atom).await;
    for token in [
        "opaque",
        "atomic_1",
        "xatom_1_2",
        "pat_1_2",
        "eyJhbGciOiJub25lIn0.e30.",
    ] {
        assert_eq!(status(&lab, token).await, 401, "{token}");
    }
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    wire.send(&Connect::with_password(Version::V5, "a client secret").bytes())
        .await;
    wire.ends_with(&Version::V5.bad_password()).await;
    assert!(atom.asked().is_empty());
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn an_atom_that_does_not_say_leaves_everybody_outside() {
    let atom = Decider::start(UNKNOWN).await;
    let lab = by_key(&atom).await;
    for says in [
        Says::Status(403, vec![]),
        Says::Status(302, vec![("location", "/yes")]),
        Says::Status(429, vec![]),
        Says::Status(500, vec![]),
        Says::Body("<html>"),
        Says::Body(r#"{"entity_id":"e1"}"#),
        Says::Endless,
    ] {
        atom.says(says);
        let answer = ask(&lab, Protocol::Http1, &key()).await;
        assert_eq!(answer.status, 503);
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    lab.origin.assert_untouched();
    atom.says(ACTIVE);
    assert_eq!(status(&lab, &key()).await, 200);
}

#[tokio::test]
async fn a_session_that_was_taken_back_passes_no_longer_than_answers_count() {
    let atom = Decider::start(ACTIVE).await;
    let signer = Signer::new("k1");
    let lab = by_session(&atom, &signer, "introspect = true").await;
    let token = signer.sign(&session(&lab));
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab, protocol, &token).await;
        assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
    }
    assert_eq!(atom.asked().len(), 1);
    assert_eq!(
        atom.asked()[0].headers["authorization"],
        format!("Bearer {token}")
    );
    atom.says(UNKNOWN);
    lab.clock.advance(Duration::from_secs(9));
    assert_eq!(status(&lab, &token).await, 200);
    lab.clock.advance(Duration::from_secs(1));
    for protocol in EVERY_PROTOCOL {
        assert_eq!(
            ask(&lab, protocol, &token).await.status,
            401,
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn a_session_is_asked_about_only_if_its_token_holds_and_is_what_atom_says() {
    let atom = Decider::start(ACTIVE).await;
    let signer = Signer::new("k1");
    let lab = by_session(&atom, &signer, "introspect = true").await;
    let with = |name: &str, value: Value| {
        let mut claims = session(&lab);
        claims[name] = value;
        claims
    };
    for token in [
        Signer::new("k1").sign(&session(&lab)),
        signer.sign(&with("aud", json!("another"))),
        signer.sign(&with("iss", json!("https://evil.example"))),
        signer.sign(&with("exp", json!(1))),
    ] {
        assert_eq!(status(&lab, &token).await, 401);
    }
    assert!(atom.asked().is_empty());
    let of_another = signer.sign(&with("sub", json!("e2")));
    assert_eq!(status(&lab, &of_another).await, 401);
    assert_eq!(atom.asked().len(), 1);
    for says in [
        Says::Body(r#"{"active":false}"#),
        Says::Body(r#"{"active":true,"exp":1,"entity_id":"e1"}"#),
    ] {
        atom.says(says);
        let token = signer.sign(&with("sid", json!(atom.asked().len())));
        assert_eq!(status(&lab, &token).await, 401);
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_session_that_nobody_can_confirm_waits_outside_unless_nobody_is_asked() {
    let atom = Decider::start(Says::Status(500, vec![])).await;
    let signer = Signer::new("k1");
    let lab = by_session(&atom, &signer, "introspect = true").await;
    let token = signer.sign(&session(&lab));
    for protocol in EVERY_PROTOCOL {
        assert_eq!(
            ask(&lab, protocol, &token).await.status,
            503,
            "{protocol:?}"
        );
    }
    lab.origin.assert_untouched();
    let before = atom.asked().len();
    let lab = by_session(&atom, &signer, "").await;
    let token = signer.sign(&session(&lab));
    assert_eq!(status(&lab, &token).await, 200);
    assert_eq!(atom.asked().len(), before);
}

/// `SuperMQ`'s personal tokens, whose letters RFC 6750 has no room for, by an RFC 7662 server.
#[tokio::test]
async fn a_personal_token_is_known_by_its_prefix_as_a_password_too() {
    let server = Decider::start(Says::Body(r#"{"active":true,"sub":"u1"}"#)).await;
    let table = format!(
        "[introspection]\nurl = \"http://{}/\"\ndanger_allow_http = true\ntimeout = \"1m\"\n\
         client_id = \"g\"\nclient_secret = \"s\"\nprefixes = [\"pat_\", \"atom_\"]\n",
        server.address
    );
    let config = Config::key().tables(&table).route("credential = \"user\"");
    let lab = config.each_mqtt("credential = \"any\"").start().await;
    let token = "pat_aWQ+/w==_r!@#$%^&*|x";
    assert_eq!(status(&lab, token).await, 200);
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    wire.send(&Connect::with_password(Version::V5, token).bytes())
        .await;
    assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
    assert_eq!(server.asked().len(), 1);
    // Without the prefix it is a client's secret, which is nobody else's business.
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    wire.send(&Connect::with_password(Version::V5, "path").bytes())
        .await;
    assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_configuration_in_which_nobody_could_be_asked_is_refused() {
    let atom = Decider::start(ACTIVE).await;
    let mut lab = Config::key().start().await;
    lab.write("keys.toml", "");
    let table = |lines| introspection(&atom, lines);
    let provider = "[providers.atom]\nprofile = \"atom\"\nkind = \"jwks_file\"\nissuers = [\"i\"]\n\
                    key_set = \"atom.json\"\nintrospect = true\n";
    for (tables, expected) in [
        (
            table("client_id = \"g\""),
            "introspection.client_id: has no meaning",
        ),
        (
            table("client_secret = \"s\""),
            "introspection.client_secret: has no meaning",
        ),
        (table("").replace("atom_", "atom"), "introspection.prefixes"),
        (provider.into(), "providers.atom.introspect: is true"),
        (
            table("") + "[api_keys]\nlist = \"keys.toml\"\nprefixes = [\"pck_\", \"atom_\"]\n",
            "introspection.prefixes: \"atom_\" is of [api_keys]",
        ),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}
