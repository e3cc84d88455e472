//! What the gateway has decided, handed on in a signed token: to upstreams that verify it with the keys
//! that the gateway publishes, and from nobody but the gateway.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{HeaderMap, Method};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use portcullis::clock::Clock as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::ca;
use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::decider::{Decider, Says};
use crate::harness::issuer::{KEY, PLATFORM, claims, good, signed};
use crate::harness::kept::in_parts;
use crate::harness::lab::{Config, SECRET};
use crate::harness::{Identity, Kept, Lab, PATIENCE, Protocol};

const FIELD: &str = "x-gateway-identity";
const TOLD: &str = "forward_assertion = \"x-gateway-identity\"";
const PUBLISHED: &str = "[routes.keys]\npath = \"/keys\"\nmatch = \"exact\"\npublish = \"jwks\"\n";

/// What a client may try to say in its place.
const FORGERIES: [(&str, &str); 4] = [
    (FIELD, "f0rged"),
    ("x_gateway_identity", "f0rged"),
    ("x.gateway.identity", "f0rged"),
    ("connection", "x-gateway-identity"),
];

fn path(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 | Protocol::Http2 => "/http/m",
        Protocol::WebSocket => "/ws/m",
    }
}

/// The tokens that the last request has brought upstream, and no word of a client's beside them.
fn brought(lab: &Lab) -> Vec<String> {
    let request = lab.origin.requests().pop().unwrap();
    for (name, value) in &request.headers {
        assert!(!value.to_str().unwrap().contains("f0rged"), "{name}");
    }
    let values = request.all(FIELD).into_iter();
    values.map(str::to_owned).collect()
}

/// The one token that the last request has brought.
fn token(lab: &Lab) -> String {
    let mut tokens = brought(lab);
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    tokens.remove(0)
}

/// The key set, as the admin listener has it.
async fn key_set(lab: &Lab) -> String {
    let (status, body) = lab.admin("/.well-known/jwks.json").await;
    assert_eq!(status, 200);
    body
}

/// What a token says, if one of the keys has signed it.
fn verified(keys: &str, token: &str, audience: &str) -> Option<(Header, Value)> {
    let keys: JwkSet = serde_json::from_str(keys).unwrap();
    let header = decode_header(token).unwrap();
    let jwk = keys.find(header.kid.as_deref()?)?;
    assert_eq!(
        format!("{:?}", jwk.common.key_algorithm.unwrap()),
        format!("{:?}", header.alg)
    );
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[audience]);
    validation.set_issuer(&["portcullis"]);
    validation.leeway = 0;
    let key = DecodingKey::from_jwk(jwk).unwrap();
    let found = decode::<Value>(token, &key, &validation).unwrap();
    Some((header, found.claims))
}

/// What the token of the last request says.
async fn said(lab: &Lab) -> Value {
    let keys = key_set(lab).await;
    verified(&keys, &token(lab), "origin").unwrap().1
}

fn sha256(identity: &Identity) -> digest::Digest {
    digest::digest(&digest::SHA256, &identity.chain[0])
}

fn fingerprint(identity: &Identity) -> String {
    let digest = sha256(identity);
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn thumbprint(identity: &Identity) -> String {
    URL_SAFE_NO_PAD.encode(sha256(identity))
}

#[tokio::test]
async fn a_device_is_asserted_by_its_certificate_whatever_it_says_itself() {
    let lab = Config::x509().route(TOLD).start().await;
    let identity = lab.authority.device(SECRET);
    let now = lab.clock.now();
    for protocol in EVERY_PROTOCOL {
        let client = lab.client(Some(identity.clone()));
        let forged = match protocol {
            Protocol::Http1 => &FORGERIES[..],
            // HTTP/2 has no `Connection`, and a WebSocket one of its own.
            Protocol::Http2 | Protocol::WebSocket => &FORGERIES[..3],
        };
        let answer = client.send(protocol, path(protocol), forged).await;
        assert!(matches!(answer.unwrap().status.as_u16(), 101 | 200));
        let mut said = said(&lab).await;
        let id = said["jti"].take();
        assert_eq!(id.as_str().unwrap().len(), 22);
        let route = match protocol {
            Protocol::WebSocket => "ws",
            Protocol::Http1 | Protocol::Http2 => "http",
        };
        let expected = json!({
            "iss": "portcullis", "aud": "origin", "sub": fingerprint(&identity),
            "iat": now, "exp": now + 60, "jti": null, "amr": ["certificate"], "route": route,
            "cnf": {"x5t#S256": thumbprint(&identity)},
        });
        assert_eq!(said, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn no_client_says_it_on_a_route_that_tells_nothing() {
    let lab = Config::x509()
        .tables(
            "[routes.told]\npath = \"/told\"\nupstream = \"origin\"\n\
             forward_assertion = \"x-gateway-identity\"\n",
        )
        .start()
        .await;
    for protocol in EVERY_PROTOCOL {
        for path in [path(protocol), "/public/m"] {
            let client = lab.device();
            let answer = client.send(protocol, path, &FORGERIES[..3]).await;
            assert!(matches!(answer.unwrap().status.as_u16(), 101 | 200));
            assert!(brought(&lab).is_empty(), "{protocol:?} {path}");
        }
    }
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut trailers = HeaderMap::new();
        trailers.insert(FIELD, "f0rged".parse().unwrap());
        let body = in_parts(vec!["hello".into()], trailers);
        let fields = [("trailer", FIELD)];
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let answer = kept.request(Method::POST, "/told", &fields, body).await;
        assert_eq!(answer.unwrap().status, 200);
        assert_eq!(brought(&lab).len(), 1);
    }
}

#[tokio::test]
async fn a_user_is_asserted_by_the_token_with_the_claims_that_the_route_chooses() {
    let route = format!(
        "credential = \"user\"\n{TOLD}\nassertion_audience = \"adapters\"\n\
         assertion_claims = [\"email\", \"roles: realm_access.roles\", \"none\"]"
    );
    let config = Config::key().tables(PLATFORM).route(&route);
    let lab = config.start().await;
    let mut user = claims(&lab);
    user["email"] = json!("u1@example.com");
    user["realm_access"] = json!({"roles": ["operator"]});
    user["amr"] = json!(["certificate"]);
    let bearer = format!("Bearer {}", signed(KEY, &user));
    for protocol in EVERY_PROTOCOL {
        let client = lab.anonymous();
        let fields = [("authorization", bearer.as_str())];
        client
            .send(protocol, path(protocol), &fields)
            .await
            .unwrap();
        let keys = key_set(&lab).await;
        let (header, said) = verified(&keys, &token(&lab), "adapters").unwrap();
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        assert_eq!(said["sub"], "u1");
        assert_eq!(said["provider"], "platform");
        assert_eq!(said["amr"], json!(["token"]));
        assert_eq!(said["email"], "u1@example.com");
        assert_eq!(said["roles"], json!(["operator"]));
        for absent in ["none", "cnf", "client_id", "user", "type"] {
            assert_eq!(said.get(absent), None, "{absent}");
        }
    }
}

#[tokio::test]
async fn a_user_on_a_device_is_the_subject_and_the_device_is_confirmed() {
    let config = Config::x509().tables(PLATFORM);
    let lab = config.route(&format!("credential = \"both\"\n{TOLD}"));
    let lab = lab.start().await;
    let identity = lab.authority.device(SECRET);
    let bearer = format!("Bearer {}", good(&lab));
    let fields = [("authorization", bearer.as_str())];
    for protocol in EVERY_PROTOCOL {
        let client = lab.client(Some(identity.clone()));
        client
            .send(protocol, path(protocol), &fields)
            .await
            .unwrap();
        let said = said(&lab).await;
        assert_eq!(said["sub"], "u1");
        assert_eq!(said["amr"], json!(["certificate", "token"]));
        assert_eq!(said["cnf"]["x5t#S256"], thumbprint(&identity));
        assert!(!said.to_string().contains(SECRET), "{said}");
    }
}

fn callout(decider: &Decider, lines: &str) -> String {
    format!(
        "[callouts.accounts]\nurl = \"http://{}/check\"\ndanger_allow_http = true\ntimeout = \"500ms\"\n\
         body = '{{\"password\":\"{{secret}}\"}}'\nid_header = \"x-client\"\n{lines}\n",
        decider.address
    )
}

#[tokio::test]
async fn a_client_is_asserted_as_the_callout_names_it_and_not_without_its_word() {
    let decider = Decider::start(Says::Authenticated).await;
    let tables = callout(
        &decider,
        "danger_allow_on_failure = true\ncache_entries = 0",
    );
    let config = Config::key().asks("accounts").tables(&tables);
    let lab = config.route(TOLD).start().await;
    let credential = format!("Client {SECRET}");
    let fields = [("authorization", credential.as_str()), FORGERIES[0]];
    for protocol in EVERY_PROTOCOL {
        let client = lab.anonymous();
        client
            .send(protocol, path(protocol), &fields)
            .await
            .unwrap();
        let said = said(&lab).await;
        assert_eq!(
            (&said["sub"], &said["client_id"]),
            (&json!("c1"), &json!("c1"))
        );
        assert_eq!(said["amr"], json!(["callout"]));
        assert!(!said.to_string().contains(SECRET), "{said}");
    }
    decider.says(Says::Silence);
    for protocol in EVERY_PROTOCOL {
        let client = lab.anonymous();
        let answer = client.send(protocol, path(protocol), &fields).await;
        assert!(matches!(answer.unwrap().status.as_u16(), 101 | 200));
        assert!(brought(&lab).is_empty(), "{protocol:?}");
    }
}

/// The token of a request on a connection that is kept.
async fn next(lab: &Lab, kept: &mut Kept, path: &str, bearer: &str) -> String {
    let fields = [("authorization", bearer)];
    assert_eq!(kept.get(path, &fields).await.unwrap().status, 200);
    token(lab)
}

#[tokio::test]
async fn a_token_is_sent_again_until_half_of_its_time_is_gone() {
    let lab = Config::x509().route(TOLD).start().await;
    let credential = format!("Client {SECRET}");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let first = next(&lab, &mut kept, "/http/a", &credential).await;
        assert_eq!(next(&lab, &mut kept, "/http/b", &credential).await, first);
        lab.clock.advance(Duration::from_secs(29));
        assert_eq!(next(&lab, &mut kept, "/http/c", &credential).await, first);
        lab.clock.advance(Duration::from_secs(1));
        let second = next(&lab, &mut kept, "/http/d", &credential).await;
        assert_ne!(second, first);
        let keys = key_set(&lab).await;
        let said = |token: &str| verified(&keys, token, "origin").unwrap().1;
        assert_ne!(said(&second)["jti"], said(&first)["jti"]);
        // Another connection, though the same device's, has one of its own.
        let mut other = lab.device().keep(protocol).await.unwrap();
        assert_ne!(next(&lab, &mut other, "/http/e", &credential).await, second);
        assert_eq!(next(&lab, &mut kept, "/http/f", &credential).await, second);
    }
}

#[tokio::test]
async fn nobody_gets_the_token_of_another_on_a_connection_that_many_share() {
    let told = "[routes.other]\npath = \"/other\"\nupstream = \"origin\"\ncredential = \"user\"\n\
                forward_assertion = \"x-gateway-identity\"\nassertion_audience = \"other\"\n";
    let config = Config::key().tables(&format!("{PLATFORM}{told}"));
    let lab = config.route(&format!("credential = \"user\"\n{TOLD}"));
    let lab = lab.start().await;
    let bearer = |user: usize| {
        let mut claims = claims(&lab);
        claims["user"] = json!(format!("u{user}"));
        format!("Bearer {}", signed(KEY, &claims))
    };
    // More than are kept.
    let users: Vec<String> = (0..40).map(bearer).collect();
    let mut kept = lab.anonymous().keep(Protocol::Http2).await.unwrap();
    let keys = key_set(&lab).await;
    for _ in 0..2 {
        for (user, bearer) in users.iter().enumerate() {
            for (path, audience) in [("/http/m", "origin"), ("/other", "other")] {
                let token = next(&lab, &mut kept, path, bearer).await;
                let (_, said) = verified(&keys, &token, audience).unwrap();
                assert_eq!(said["sub"], format!("u{user}"));
            }
        }
    }
}

#[tokio::test]
async fn a_token_ends_with_what_it_rests_on() {
    let lab = Config::x509().route(TOLD).start().await;
    let now = lab.clock.now();
    let mut params = ca::device(SECRET);
    ca::valid_for(&mut params, Duration::from_secs(20));
    let identity = lab.authority.issue(params);
    let end = identity_end(&identity);
    assert!((now..now + 60).contains(&end));
    let client = lab.client(Some(identity));
    client.get("/http/m").await.unwrap();
    assert_eq!(said(&lab).await["exp"], json!(end + 1));

    let config = Config::key().tables(PLATFORM);
    let lab = config.route(&format!("credential = \"user\"\n{TOLD}"));
    let lab = lab.start().await;
    let mut user = claims(&lab);
    user["exp"] = json!(lab.clock.now() + 10);
    let bearer = format!("Bearer {}", signed(KEY, &user));
    let fields = [("authorization", bearer.as_str())];
    let client = lab.anonymous();
    client
        .send(Protocol::Http1, "/http/m", &fields)
        .await
        .unwrap();
    assert_eq!(said(&lab).await["exp"], user["exp"]);
}

fn identity_end(identity: &Identity) -> u64 {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(&identity.chain[0]).unwrap();
    certificate
        .validity()
        .not_after
        .timestamp()
        .try_into()
        .unwrap()
}

/// Makes a private key with openssl.
fn make_key(lab: &Lab, name: &str, arguments: &[&str]) {
    let output = std::process::Command::new("openssl")
        .args(arguments)
        .args(["-out", lab.path(name).to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

const ED25519: &[&str] = &["genpkey", "-algorithm", "ed25519"];
const P256: &[&str] = &[
    "genpkey",
    "-algorithm",
    "EC",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
];
const SEC1: &[&str] = &["ecparam", "-name", "prime256v1", "-genkey", "-noout"];

async fn ask(lab: &Lab) -> String {
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    token(lab)
}

fn ids(keys: &str) -> Vec<String> {
    let keys: Value = serde_json::from_str(keys).unwrap();
    let ids = keys["keys"].as_array().unwrap().iter();
    ids.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn keys_change_by_reload_without_a_token_that_nobody_can_verify() {
    let mut lab = Config::x509().route(TOLD).start().await;
    make_key(&lab, "a.pem", ED25519);
    make_key(&lab, "b.pem", P256);
    make_key(&lab, "c.pem", SEC1);
    let mut cached = key_set(&lab).await;
    for files in [
        "\"a.pem\"",
        "\"a.pem\", \"b.pem\"",
        "\"b.pem\", \"a.pem\"",
        "\"b.pem\", \"c.pem\"",
        "\"c.pem\"",
    ] {
        lab.config.tables = format!("[assertions]\nkeys = [{files}]\n");
        lab.reload().unwrap();
        let (token, keys) = (ask(&lab).await, key_set(&lab).await);
        let (header, _) = verified(&keys, &token, "origin").unwrap();
        assert_eq!(header.kid, ids(&keys).into_iter().next(), "the first signs");
        let was_known = verified(&cached, &token, "origin").is_some();
        // All but the first, which takes the place of a key that was made here.
        assert_eq!(was_known, files != "\"a.pem\"", "{files}");
        cached = keys;
    }
}

#[tokio::test]
async fn a_key_of_no_use_stops_the_start_and_leaves_a_reload_without_effect() {
    let mut lab = Config::x509().route(TOLD).start().await;
    make_key(&lab, "good.pem", P256);
    make_key(&lab, "rsa.pem", &["genpkey", "-algorithm", "RSA"]);
    let p384 = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
    ];
    make_key(&lab, "p384.pem", &p384);
    let good = std::fs::read_to_string(lab.path("good.pem")).unwrap();
    lab.write("two.pem", &good.repeat(2));
    lab.write("empty.pem", "");
    lab.write("cut.pem", &good.replace("MI", "AA"));
    let before = key_set(&lab).await;
    for (files, problem) in [
        ("\"none.pem\"", "none.pem"),
        ("\"empty.pem\"", "not a PEM file of one private key"),
        ("\"two.pem\"", "not a PEM file of one private key"),
        ("\"certs/ca.crt\"", "not a PEM file of one private key"),
        ("\"rsa.pem\"", "neither Ed25519 nor of the curve P-256"),
        ("\"p384.pem\"", "neither Ed25519 nor of the curve P-256"),
        ("\"cut.pem\"", "the key is damaged"),
        ("\"good.pem\", \"rsa.pem\"", "rsa.pem"),
        ("\"good.pem\", \"good.pem\"", "once more"),
    ] {
        lab.config.tables = format!("[assertions]\nkeys = [{files}]\n");
        let told = lab.reload().unwrap_err();
        assert!(
            told.contains("assertions.keys: ") && told.contains(problem),
            "{told}"
        );
        let clock: std::sync::Arc<dyn portcullis::clock::Clock> =
            std::sync::Arc::new(lab.clock.clone());
        let problems = portcullis::gateway::problems(&lab.settings().unwrap(), &clock);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].to_string(), told);
        assert_eq!(key_set(&lab).await, before);
        assert!(verified(&before, &ask(&lab).await, "origin").is_some());
    }
}

#[tokio::test]
async fn without_a_file_the_key_lasts_as_long_as_the_gateway() {
    let mut lab = Config::x509().route(TOLD).start().await;
    let first = key_set(&lab).await;
    lab.reload().unwrap();
    assert_eq!(key_set(&lab).await, first);
    assert!(verified(&first, &ask(&lab).await, "origin").is_some());
    lab.restart();
    assert_ne!(key_set(&lab).await, first);
    assert!(verified(&first, &ask(&lab).await, "origin").is_none());
}

#[tokio::test]
async fn a_route_publishes_the_keys_to_anybody() {
    let config = Config::x509().tls("client_auth = \"optional\"").route(TOLD);
    let lab = config.tables(PUBLISHED).start().await;
    let expected = key_set(&lab).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answer = lab.anonymous().send(protocol, "/keys", &[]).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, expected);
        assert_eq!(answer.headers["content-type"], "application/jwk-set+json");
        assert_eq!(answer.headers["cache-control"], "public, max-age=300");
        let mut kept = lab.anonymous().keep(protocol).await.unwrap();
        let body = in_parts(vec![], HeaderMap::new());
        let answer = kept
            .request(Method::HEAD, "/keys", &[], body)
            .await
            .unwrap();
        assert_eq!(answer.headers["content-length"], expected.len().to_string());
        assert!(answer.body.is_empty());
    }
    lab.origin.assert_untouched();
    let keys: Value = serde_json::from_str(&expected).unwrap();
    let mut names: Vec<&String> = keys["keys"][0].as_object().unwrap().keys().collect();
    names.sort();
    // Nothing of the private part.
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
}

#[tokio::test]
async fn a_gateway_that_asserts_nothing_publishes_nothing() {
    let lab = Lab::x509().await;
    assert_eq!(lab.admin("/.well-known/jwks.json").await.0, 404);
    lab.device().get("/http/m").await.unwrap();
    assert!(brought(&lab).is_empty());
}

#[tokio::test]
async fn what_cannot_be_asserted_is_refused_at_the_start() {
    let mut lab = Lab::x509().await;
    let user = format!("credential = \"user\"\n{TOLD}\n");
    for (route, problem) in [
        (
            "forward_assertion = \"authorization\"".to_owned(),
            "must begin with x-",
        ),
        (
            "forward_assertion = \"x-forwarded-for\"".to_owned(),
            "must begin with x-",
        ),
        (
            "forward_assertion = \"x_identity\"".to_owned(),
            "must begin with x-",
        ),
        (
            format!("credential = \"none\"\n{TOLD}"),
            "nothing is decided of anybody",
        ),
        (
            format!("{TOLD}\nassertion_claims = [\"email\"]"),
            "are of tokens",
        ),
        (
            format!("{user}assertion_claims = [\"sub: x\"]"),
            "says that itself",
        ),
        (
            format!("{user}assertion_claims = [\"exp\"]"),
            "says that itself",
        ),
        (
            format!("{user}assertion_claims = [\"a: b..c\"]"),
            "neither names between dots",
        ),
        (
            format!("{user}forward_claims = [\"x-gateway-identity: sub\"]"),
            "of a claim in forward_claims",
        ),
        (
            "assertion_audience = \"x\"".to_owned(),
            "has no meaning without forward_assertion",
        ),
        (
            "assertion_claims = [\"email\"]".to_owned(),
            "has no meaning without forward_assertion",
        ),
    ] {
        lab.config.tables = PLATFORM.into();
        lab.config.route = route;
        let told = lab.settings().unwrap_err().to_string();
        assert!(told.contains(problem), "{told}");
    }
    lab.config.route.clear();
    lab.config.mqtt_route = TOLD.into();
    assert!(
        lab.settings()
            .unwrap_err()
            .to_string()
            .contains("which has no fields")
    );
    lab.config.mqtt_route.clear();
    for (tables, problem) in [
        (
            "[assertions]\nlifetime = \"1s\"\n".to_owned(),
            "from 5s to 5m",
        ),
        (
            "[assertions]\nlifetime = \"1h\"\n".to_owned(),
            "from 5s to 5m",
        ),
        (
            "[assertions]\nissuer = \"\"\n".to_owned(),
            "must not be empty",
        ),
        (format!("{PUBLISHED}answer = 200\n"), "stands beside"),
        (format!("{PUBLISHED}{TOLD}\n"), "without an upstream"),
        (PUBLISHED.replace("jwks", "keys"), "\"jwks\""),
    ] {
        lab.config.tables = tables;
        let told = lab.settings().unwrap_err().to_string();
        assert!(told.contains(problem), "{told}");
    }
    lab.config.tables.clear();
    lab.config.auth = Some("key");
    lab.config.route = TOLD.into();
    let told = lab.settings().unwrap_err().to_string();
    assert!(told.contains("verified by the upstream alone"), "{told}");
}

#[tokio::test]
async fn a_library_of_another_language_verifies_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    assert!(
        folder.join("node_modules/jose").exists(),
        "npm's jose is missing: `make test` installs it"
    );
    let mut lab = Config::x509().route(TOLD).start().await;
    make_key(&lab, "ed25519.pem", ED25519);
    for keys in ["", "\"ed25519.pem\""] {
        lab.config.tables = format!("[assertions]\nkeys = [{keys}]\n");
        lab.reload().unwrap();
        let token = ask(&lab).await;
        let keys: Value = serde_json::from_str(&key_set(&lab).await).unwrap();
        for (audience, verifies) in [("origin", true), ("somebody", false)] {
            let question = json!({"keys": keys, "token": token, "audience": audience});
            let mut node = tokio::process::Command::new("node")
                .arg(folder.join("verify-assertion.mjs"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut input = node.stdin.take().unwrap();
            input
                .write_all(question.to_string().as_bytes())
                .await
                .unwrap();
            drop(input);
            let output = tokio::time::timeout(PATIENCE, node.wait_with_output());
            let output = output.await.unwrap().unwrap();
            let told = String::from_utf8(output.stdout).unwrap();
            assert_eq!(told.starts_with("certificate"), verifies, "{told}");
        }
    }
}
