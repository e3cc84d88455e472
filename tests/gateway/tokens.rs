//! Bearer tokens: routes that demand a user, a user or a client, or both.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use portcullis::clock::Clock;
use portcullis::gateway::{self, Gateway};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::{Answer, EVERY_PROTOCOL, Protocol};
use crate::harness::issuer::{KEY, OTHER_KEY, PLATFORM, claims, good, signed};
use crate::harness::lab::{Config, SECRET};
use crate::harness::{Client, Lab};

/// Routes that demand `credential`, and a provider.
async fn lab(config: Config, credential: &str) -> Lab {
    let config = config.tables(PLATFORM);
    config
        .route(&format!("credential = \"{credential}\""))
        .start()
        .await
}

async fn send(client: &Client, protocol: Protocol, query: &str, authorization: &[&str]) -> Answer {
    let prefix = match protocol {
        Protocol::WebSocket => "/ws",
        Protocol::Http1 | Protocol::Http2 => "/http",
    };
    let fields: Vec<_> = authorization
        .iter()
        .map(|value| ("authorization", *value))
        .collect();
    client
        .send(protocol, &format!("{prefix}/m{query}"), &fields)
        .await
        .unwrap()
}

fn success(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::WebSocket => 101,
        Protocol::Http1 | Protocol::Http2 => 200,
    }
}

const NO_TOKEN: &str = "Bearer realm=\"portcullis\"";
const INVALID: &str = "Bearer realm=\"portcullis\", error=\"invalid_token\"";
const CLIENT: &str = "Client realm=\"portcullis\"";

fn challenges(answer: &Answer) -> Vec<&str> {
    let values = answer.headers.get_all("www-authenticate").iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_user_is_admitted_by_a_good_token_which_goes_on_as_it_came() {
    let lab = lab(Config::key(), "user").await;
    let token = good(&lab);
    let bearer = format!("Bearer {token}");
    for protocol in EVERY_PROTOCOL {
        for (query, authorization) in [
            ("", vec![bearer.as_str()]),
            ("", vec![&bearer, &bearer]),
            (&*format!("?x=1&authorization=Bearer%20{token}"), vec![]),
        ] {
            let answer = send(&lab.anonymous(), protocol, query, &authorization).await;
            assert_eq!(answer.status, success(protocol), "{protocol:?} {query}");
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.all("authorization"), [bearer.as_str()]);
            assert!(!request.target.contains(&token), "{}", request.target);
        }
    }
}

#[tokio::test]
async fn a_user_without_a_good_token_is_refused_with_a_challenge() {
    let lab = lab(Config::key(), "user").await;
    let now = lab.clock.now();
    let changed = |name: &str, value: Value| {
        let mut claims = claims(&lab);
        claims[name] = value;
        format!("Bearer {}", signed(KEY, &claims))
    };
    let forged = format!("Bearer {}", signed(OTHER_KEY, &claims(&lab)));
    for protocol in EVERY_PROTOCOL {
        for (authorization, challenge) in [
            (None, NO_TOKEN),
            (Some(SECRET.to_owned()), NO_TOKEN),
            (Some(format!("Client {SECRET}")), NO_TOKEN),
            (Some("Bearer".to_owned()), NO_TOKEN),
            (Some(good(&lab)), NO_TOKEN),
            (Some("Bearer x".to_owned()), INVALID),
            (Some(forged.clone()), INVALID),
            (Some(changed("type", json!(1))), INVALID),
            (Some(changed("iss", json!("other"))), INVALID),
            (Some(changed("exp", json!(now - 60))), INVALID),
            (Some(changed("exp", json!("never"))), INVALID),
        ] {
            let authorization: Vec<_> = authorization.iter().map(String::as_str).collect();
            let answer = send(&lab.anonymous(), protocol, "", &authorization).await;
            assert_eq!(answer.status, 401, "{protocol:?} {authorization:?}");
            assert_eq!(challenges(&answer), [challenge], "{authorization:?}");
            assert_eq!(answer.json()["code"], "unauthenticated");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn every_token_that_does_not_hold_looks_the_same_from_outside() {
    let mut lab = Config::key().start().await;
    lab.write("revoked.toml", "[[revoked]]\nsubject = \"left\"\n");
    lab.write("keys.toml", "");
    let tables = "[revocations]\nlist = \"revoked.toml\"\n[api_keys]\nlist = \"keys.toml\"\n";
    lab.config = Config::key()
        .tables(&format!("{tables}{PLATFORM}"))
        .route("credential = \"user\"");
    lab.reload().unwrap();
    let changed = |name: &str, value: Value| {
        let mut claims = claims(&lab);
        claims[name] = value;
        signed(KEY, &claims)
    };
    let now = lab.clock.now();
    let elsewhere = json!({"x5t#S256": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for protocol in EVERY_PROTOCOL {
        let mut looks = Vec::new();
        for token in [
            "x".to_owned(),
            signed(OTHER_KEY, &claims(&lab)),
            changed("exp", json!(now - 60)),
            changed("nbf", json!(now + 60)),
            changed("iss", json!("somebody")),
            changed("aud", json!("somebody")),
            changed("type", json!(1)),
            changed("user", json!("left")),
            changed("cnf", elsewhere.clone()),
            format!("pck_0011223344556677_{}", "00".repeat(32)),
        ] {
            let bearer = format!("Bearer {token}");
            let answer = send(&lab.anonymous(), protocol, "", &[&bearer]).await;
            let mut body = answer.json();
            body["request_id"].take();
            let mut headers = answer.headers;
            for name in ["x-request-id", "date"] {
                headers.remove(name);
            }
            looks.push((answer.status, format!("{headers:?}"), body.to_string()));
        }
        assert_eq!(looks[0].0, 401);
        assert!(looks.iter().all(|one| *one == looks[0]), "{looks:#?}");
        let bearer = format!("Bearer {}", good(&lab));
        let answer = send(&lab.anonymous(), protocol, "", &[&bearer]).await;
        assert_eq!(answer.status, success(protocol));
    }
}

#[tokio::test]
async fn a_reload_that_asks_for_more_forgets_what_was_remembered() {
    let mut lab = lab(Config::key(), "user").await;
    let bearer = format!("Bearer {}", good(&lab));
    for (lines, status) in [
        ("", 200),
        ("", 200),
        ("audiences = [\"adapters\"]\n", 401),
        ("", 200),
        ("types = [\"7\"]\n", 401),
        ("issuers = [\"somebody\"]\n", 401),
    ] {
        lab.config.tables = format!("{PLATFORM}{lines}");
        lab.reload().unwrap();
        for _ in 0..2 {
            let answer = send(&lab.anonymous(), Protocol::Http1, "", &[&bearer]).await;
            assert_eq!(answer.status, status, "{lines}");
        }
    }
}

#[tokio::test]
async fn two_credentials_of_a_user_must_be_one_token() {
    let lab = lab(Config::key(), "user").await;
    let bearer = format!("Bearer {}", good(&lab));
    let mut claims = claims(&lab);
    claims["user"] = json!("u2");
    let other = format!("Bearer {}", signed(KEY, &claims));
    for protocol in EVERY_PROTOCOL {
        let answer = send(&lab.anonymous(), protocol, "", &[&bearer, &other]).await;
        assert_eq!(answer.status, 403, "{protocol:?}");
        for second in [&format!("Client {SECRET}"), "Basic !!!"] {
            let answer = send(&lab.anonymous(), protocol, "", &[&bearer, second]).await;
            assert_eq!(answer.status, 401, "{protocol:?} {second}");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn where_either_will_do_the_upstream_gets_what_the_client_is_known_by() {
    let lab = lab(Config::key(), "any").await;
    let client = format!("Client {SECRET}");
    let bearer = format!("Bearer {}", good(&lab));
    for protocol in EVERY_PROTOCOL {
        for credential in [&client, &bearer] {
            let answer = send(&lab.anonymous(), protocol, "", &[credential]).await;
            assert_eq!(answer.status, success(protocol), "{protocol:?}");
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.all("authorization"), [credential.as_str()]);
        }
    }
}

#[tokio::test]
async fn where_either_will_do_a_bad_token_is_not_made_good_by_a_certificate() {
    let lab = lab(Config::x509(), "any").await;
    let forged = format!("Bearer {}", signed(OTHER_KEY, &claims(&lab)));
    for protocol in EVERY_PROTOCOL {
        let answer = send(&lab.device(), protocol, "", &[&forged]).await;
        assert_eq!(answer.status, 401, "{protocol:?}");
    }
    lab.origin.assert_untouched();
    for protocol in EVERY_PROTOCOL {
        let answer = send(&lab.device(), protocol, "", &[]).await;
        assert_eq!(answer.status, success(protocol), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("authorization"), [format!("Client {SECRET}")]);
    }
}

#[tokio::test]
async fn where_either_will_do_nobody_is_told_of_both_ways() {
    let lab = lab(Config::x509().tls("client_auth = \"optional\""), "any").await;
    let answer = send(&lab.anonymous(), Protocol::Http1, "", &[]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(challenges(&answer), [CLIENT, NO_TOKEN]);
    let bearer = format!("Bearer {}", good(&lab));
    let answer = send(&lab.anonymous(), Protocol::Http1, "", &[&bearer]).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn where_both_are_demanded_the_upstream_gets_the_client_and_the_token_ends_here() {
    let bearer = |lab: &Lab| format!("Bearer {}", good(lab));
    let lab = lab(Config::x509().tls("client_auth = \"optional\""), "both").await;
    for protocol in EVERY_PROTOCOL {
        let answer = send(&lab.device(), protocol, "", &[&bearer(&lab)]).await;
        assert_eq!(answer.status, success(protocol), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("authorization"), [format!("Client {SECRET}")]);
    }
    let before = lab.origin.requests().len();
    for protocol in EVERY_PROTOCOL {
        let forged = format!("Bearer {}", signed(OTHER_KEY, &claims(&lab)));
        let other_client = "Client 00000000-0000-4000-8000-000000000000";
        for (client, authorization, status) in [
            (lab.device(), vec![], 401),
            (lab.device(), vec![forged.as_str()], 401),
            (lab.device(), vec![&bearer(&lab), other_client], 403),
            (lab.anonymous(), vec![&bearer(&lab)], 401),
        ] {
            let answer = send(&client, protocol, "", &authorization).await;
            assert_eq!(answer.status, status, "{protocol:?} {authorization:?}");
        }
    }
    assert_eq!(lab.origin.requests().len(), before);
}

#[tokio::test]
async fn by_key_both_are_presented_side_by_side() {
    let lab = lab(Config::key(), "both").await;
    let bearer = format!("Bearer {}", good(&lab));
    let client = format!("Client {SECRET}");
    for protocol in EVERY_PROTOCOL {
        let answer = send(&lab.anonymous(), protocol, "", &[&bearer, &client]).await;
        assert_eq!(answer.status, success(protocol), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("authorization"), [client.as_str()]);
        for alone in [&bearer, &client] {
            let answer = send(&lab.anonymous(), protocol, "", &[alone]).await;
            assert_eq!(answer.status, 401, "{protocol:?} {alone}");
        }
    }
}

#[tokio::test]
async fn a_token_is_no_client_secret_where_a_client_is_demanded() {
    let lab = lab(Config::key(), "client").await;
    let bearer = format!("Bearer {}", good(&lab));
    for protocol in EVERY_PROTOCOL {
        let answer = send(&lab.anonymous(), protocol, "", &[&bearer]).await;
        assert_eq!(answer.status, 401, "{protocol:?}");
    }
    lab.origin.assert_untouched();
}

/// A provider of the public key in `folder`.
fn pem_provider(folder: &TempDir, pem: &str, algorithm: &str) -> String {
    let path = folder.path().join("partner.pem");
    std::fs::write(&path, pem).unwrap();
    format!(
        "[providers.partner]\nkind = \"pem\"\nissuers = [\"partner\"]\n\
         key_files = [\"{}\"]\nalgorithms = [\"{algorithm}\"]\n",
        path.display()
    )
}

#[tokio::test]
async fn a_provider_whose_key_is_of_no_use_stops_the_start_and_the_reload() {
    let folder = TempDir::new().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let pem = pair.public_key_pem();
    let secret = |secret: &str| PLATFORM.replace(KEY, secret);
    let missing = pem_provider(&folder, &pem, "EdDSA").replace(".pem", ".none");
    let published = "HyE2D4RUt9nnKG6v8zKEqAp6g6ka8hhZsqUpzgKvnwpXrNVQSH";
    let mut lab = Config::key().start().await;
    let garbage = TempDir::new().unwrap();
    for (tables, expected) in [
        (secret(published), "published default"),
        (secret("too short"), "shorter than 32 bytes"),
        (missing, "cannot read"),
        (pem_provider(&folder, &pem, "ES256"), "not one for ES256"),
        (pem_provider(&garbage, "garbage", "EdDSA"), "not a PEM file"),
    ] {
        lab.config.tables = tables;
        let settings = lab.settings().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(lab.clock.clone());
        let problems = gateway::problems(&settings, &clock);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].to_string().contains(expected),
            "{}",
            problems[0]
        );
        let error = lab.reload().unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(published), "{error}");
        assert!(Gateway::start(settings, clock).is_err(), "{expected}");
    }
}

#[tokio::test]
async fn a_configuration_that_would_believe_too_much_is_refused() {
    let mut lab = Config::key().start().await;
    for (tables, expected) in [
        (
            PLATFORM.replace("profile = \"supermq-hs\"", "kind = \"secret\""),
            "issuers: is missing",
        ),
        (format!("{PLATFORM}issuers = []\n"), "at least one"),
        (
            format!("{PLATFORM}algorithms = [\"none\"]\n"),
            "\"none\" is none of",
        ),
        (
            format!("{PLATFORM}algorithms = [\"RS256\"]\n"),
            "must be HS256",
        ),
        (
            format!("{PLATFORM}algorithms = [\"HS256\", \"HS512\"]\n"),
            "one algorithm",
        ),
        (
            "[providers.x]\nkind = \"pem\"\nissuers = [\"x\"]\nkey_files = [\"x\"]\n\
             algorithms = [\"HS256\"]\n"
                .to_owned(),
            "must not be HS256",
        ),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
        assert!(!problem.contains(KEY), "{problem}");
    }
    lab.config.tables = String::new();
    lab.config.route = "credential = \"user\"".into();
    let problem = lab.settings().unwrap_err().to_string();
    assert!(problem.contains("providers: is empty"), "{problem}");
    lab.config.tables = PLATFORM.into();
    lab.config.route += "\nkeep_query_credential = true";
    let problem = lab.settings().unwrap_err().to_string();
    assert!(problem.contains("no log shall show one"), "{problem}");
}

#[tokio::test]
async fn public_keys_verify_what_their_private_keys_have_signed_and_nothing_else() {
    for (name, algorithm, kind) in [
        ("ES256", Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        ("ES384", Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
        ("EdDSA", Algorithm::EdDSA, &rcgen::PKCS_ED25519),
        ("RS256", Algorithm::RS256, &rcgen::PKCS_RSA_SHA256),
        ("PS512", Algorithm::PS512, &rcgen::PKCS_RSA_SHA256),
    ] {
        let (pair, other) = (
            rcgen::KeyPair::generate_for(kind).unwrap(),
            rcgen::KeyPair::generate_for(kind).unwrap(),
        );
        let folder = TempDir::new().unwrap();
        let tables = pem_provider(&folder, &pair.public_key_pem(), name);
        let config = Config::key().tables(&tables).route("credential = \"user\"");
        let lab = config.start().await;
        let mut claims = claims(&lab);
        claims["iss"] = json!("partner");
        let sign = |pair: &rcgen::KeyPair| {
            let pem = pair.serialize_pem();
            let key = match algorithm {
                Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
                Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
                _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
            };
            encode(&Header::new(algorithm), &claims, &key.unwrap()).unwrap()
        };
        // What everybody knows, taken for a secret (CVE-2015-9235).
        let confused = signed(&pair.public_key_pem(), &claims);
        for (token, status) in [(sign(&pair), 200), (sign(&other), 401), (confused, 401)] {
            let bearer = format!("Bearer {token}");
            let answer = send(&lab.anonymous(), Protocol::Http1, "", &[&bearer]).await;
            assert_eq!(answer.status, status, "{name}");
        }
    }
}
