//! Tokens that are believed, and every way in which one is not.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::clock::SystemClock;
use crate::token::key::Key;
use crate::token::provider::KeyStore;

mod signatures;

const NOW: u64 = 1_739_290_600;
const ISSUER: &str = "supermq.auth";
const SECRET: &str = "a secret of the tests, which nobody else has";

/// The specification's tokens, and the published secret that has signed them.
const SAMPLE_ACCESS: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3MzkyOTQxMjcsImlhdCI6MTczOTI5MDUyNywiaXNzIjoic3VwZXJtcS5hdXRoIiwidHlwZSI6MCwidXNlciI6IjZjY2FmMTNjLWVmODgtNGNmMi04ZTNhLWM3YzA0YzVlYWY5YiJ9.Qot3ZoqC1enhAS3YEJY3WJioMAJnr98laBGsJzSgF2Zege5pVqILVLcPZzRBmHdIPys4diAGbqRQQzfW_k_Huw";
const SAMPLE_REFRESH: &str = "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3MzkzNzY5MjcsImlhdCI6MTczOTI5MDUyNywiaXNzIjoic3VwZXJtcS5hdXRoIiwidHlwZSI6MSwidXNlciI6IjZjY2FmMTNjLWVmODgtNGNmMi04ZTNhLWM3YzA0YzVlYWY5YiJ9.EcRH3DUZcplHz-9Ry_90kSQKLwAWXPww9XfMZ9beoEJItpY39g5-n7vnTyLkRhOp6Pw6aZbfuhOL3TWIE-Q13A";
const PUBLISHED: &str = "HyE2D4RUt9nnKG6v8zKEqAp6g6ka8hhZsqUpzgKvnwpXrNVQSH";

fn rules() -> Rules {
    Rules {
        audiences: vec![],
        leeway: Duration::from_secs(30),
        allow_no_expiry: false,
        subject_claims: vec!["sub".into(), "user".into()],
        kind_claim: "type".into(),
        kinds: vec!["0".into()],
        require_kind: true,
    }
}

fn provider(secret: &str, rules: Rules) -> ProviderSettings {
    ProviderSettings {
        name: "platform".into(),
        source: KeySource::Secret {
            secret: Secret::new(secret),
            key_id: None,
            algorithm: Algorithm::Hs512,
        },
        issuers: vec![ISSUER.into()],
        rules,
        introspect: false,
    }
}

const CACHE: CacheSettings = CacheSettings {
    entries: 10,
    ttl: Duration::from_secs(60),
    refused_entries: 10,
    refused_ttl: Duration::from_secs(60),
};

fn load(provider: ProviderSettings) -> Verifier {
    let settings = Settings {
        max_size: 2048,
        cache: CACHE,
        providers: vec![provider],
        api_keys: None,
        introspection: None,
        revocations: None,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Verifier::load(&settings, None, &clock, TokenMetrics::default()).unwrap()
}

fn verifier(rules: Rules) -> Verifier {
    load(provider(SECRET, rules))
}

/// A verifier of the published secret, which none can be configured to be.
fn verifier_of_samples() -> Verifier {
    let key = Key::of_bytes(None, PUBLISHED.as_bytes(), Algorithm::Hs512).unwrap();
    let settings = provider(PUBLISHED, rules());
    Verifier {
        max_size: 2048,
        providers: vec![Provider::with_keys(&settings, KeyStore::Fixed(vec![key]))],
        api_keys: None,
        introspector: None,
        cache: Cache::new(&CACHE, TokenMetrics::default()),
    }
}

async fn verify(verifier: &Verifier, token: &str) -> Result<Arc<VerifiedToken>, Flaw> {
    verifier.verify(&Secret::new(token), NOW).await
}

async fn flaw(token: &str) -> Flaw {
    verify(&verifier(rules()), token).await.unwrap_err()
}

fn encode(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// Signs what may be no JSON at all.
fn sign(algorithm: hmac::Algorithm, key: &[u8], header: &str, payload: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = hmac::sign(&hmac::Key::new(algorithm, key), message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn hs512(header: &str, payload: &str) -> String {
    sign(hmac::HMAC_SHA512, SECRET.as_bytes(), header, payload)
}

const HEADER: &str = r#"{"alg":"HS512","typ":"JWT"}"#;

fn good_claims() -> Value {
    json!({"iss": ISSUER, "sub": "u1", "type": 0, "exp": NOW + 60, "iat": NOW - 60})
}

/// A good token but for these claims; null takes one away.
fn with(changes: &Value) -> String {
    let mut claims = good_claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    hs512(HEADER, &claims.to_string())
}

/// A good token but for its header.
fn headed(header: &str) -> String {
    hs512(header, &good_claims().to_string())
}

#[tokio::test]
async fn a_good_token_is_believed() {
    let token = verify(&verifier(rules()), &with(&json!({}))).await.unwrap();
    assert_eq!(token.provider(), "platform");
    assert_eq!(token.subject(), Some("u1"));
    assert_eq!(token.expires(), Some(NOW + 60));
    assert_eq!(token.claims()["type"], 0);
}

#[tokio::test]
async fn the_samples_of_the_specification_verify_with_the_published_secret() {
    let verifier = verifier_of_samples();
    let token = verify(&verifier, SAMPLE_ACCESS).await.unwrap();
    assert_eq!(
        token.subject(),
        Some("6ccaf13c-ef88-4cf2-8e3a-c7c04c5eaf9b")
    );
    assert_eq!(token.expires(), Some(1_739_294_127));
    let refresh = verify(&verifier, SAMPLE_REFRESH).await.unwrap_err();
    assert_eq!(refresh, Flaw::Kind);
    let later = verifier
        .verify(&Secret::new(SAMPLE_ACCESS), 1_739_294_157)
        .await;
    assert_eq!(later.unwrap_err(), Flaw::Expired);
    assert_eq!(flaw(SAMPLE_ACCESS).await, Flaw::Signature);
}

#[test]
fn secrets_that_prove_nothing_are_refused() {
    let load = |secret: &str| Key::shared(None, &Secret::new(secret), Algorithm::Hs512).err();
    assert!(matches!(load(PUBLISHED), Some(KeyError::Published(_))));
    assert_eq!(load("short"), Some(KeyError::Short));
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n";
    assert_eq!(load(pem), Some(KeyError::PemAsSecret));
    assert_eq!(load(SECRET), None);
}

/// RSA with 1024 bits.
const SHORT_RSA: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC2cBpj+l3t5+U7EIgWJ2wIip8H\n\
    FwMyRfYmiO9ceIo1iAOODYdoKGBmDtz8f2YL5RD149SbEvC8j02LJgHEd/1l4uuo\n\
    J4G6wjZUOX3VwwBGJzna6yN4RPwcY+SD+U8rUnFPPm6EbgZ3NwtbUQZgYB+UeqbT\n\
    LjtHdsB9IElNRElehwIDAQAB\n\
    -----END PUBLIC KEY-----\n";

#[test]
fn public_keys_of_no_use_are_refused() {
    let load = |pem: &str, algorithm| Key::of_pem(pem.as_bytes(), &[algorithm]).err();
    let unusable = |algorithm| Some(KeyError::Unusable(algorithm));
    let (rs256, es256) = (Algorithm::Rs256, Algorithm::Es256);
    assert_eq!(load(SHORT_RSA, rs256), unusable(rs256));
    assert_eq!(load(SHORT_RSA, es256), unusable(es256));
    let hs256 = Some(KeyError::Algorithm(Algorithm::Hs256));
    assert_eq!(load(SHORT_RSA, Algorithm::Hs256), hs256);
    let damaged = SHORT_RSA.replace("MIGf", "MIGe");
    assert_eq!(load(&damaged, rs256), unusable(rs256));
    let private = SHORT_RSA.replace("PUBLIC", "PRIVATE");
    let two = format!("{SHORT_RSA}{SHORT_RSA}");
    for text in ["", "no PEM", &private, &two] {
        assert_eq!(load(text, rs256), Some(KeyError::NotPem), "{text}");
    }
}

#[tokio::test]
async fn every_other_kind_of_token_is_refused() {
    for kind in [
        json!(1),
        json!(2),
        json!(3),
        json!(4),
        json!(5),
        json!("refresh"),
    ] {
        assert_eq!(
            flaw(&with(&json!({"type": kind}))).await,
            Flaw::Kind,
            "{kind}"
        );
    }
    for kind in [
        json!([0]),
        json!(false),
        json!({"0": 0}),
        json!(0.5),
        json!(null),
    ] {
        let token = with(&json!({"type": kind}));
        assert_eq!(flaw(&token).await, Flaw::Kind, "{kind}");
    }
    let lenient = verifier(Rules {
        require_kind: false,
        ..rules()
    });
    assert!(
        verify(&lenient, &with(&json!({"type": null})))
            .await
            .is_ok()
    );
    let refresh = verify(&lenient, &with(&json!({"type": 1}))).await;
    assert_eq!(refresh.unwrap_err(), Flaw::Kind);
}

#[tokio::test]
async fn what_is_no_compact_jws_is_refused() {
    let good = with(&json!({}));
    for (token, expected) in [
        ("", Flaw::NotCompact),
        ("x", Flaw::NotCompact),
        ("a.b", Flaw::NotCompact),
        ("a.b.c.d", Flaw::NotCompact),
        ("a.b.c.d.e", Flaw::Encrypted),
        ("a.b.c.d.e.f", Flaw::NotCompact),
        ("..", Flaw::Json(Part::Header)),
        ("e30.e30.", Flaw::NoAlgorithm),
        (&format!("{good}="), Flaw::Encoding(Part::Signature)),
        (&good.replacen('.', "=.", 1), Flaw::Encoding(Part::Header)),
        (&format!(" {good}"), Flaw::Encoding(Part::Header)),
        (&format!("{good}\n"), Flaw::Encoding(Part::Signature)),
        (
            &good.replacen('.', "\r\n.", 1),
            Flaw::Encoding(Part::Header),
        ),
        (&good.replacen('.', ".\t", 1), Flaw::Encoding(Part::Payload)),
        (&good.replacen('.', "%2E", 1), Flaw::NotCompact),
        (&format!("{good}."), Flaw::NotCompact),
        (
            &good.replacen("eyJ", "eyJ+", 1),
            Flaw::Encoding(Part::Header),
        ),
        (
            &good.replacen("eyJ", "/yJ", 1),
            Flaw::Encoding(Part::Header),
        ),
        (&json_form(&good), Flaw::NotCompact),
        (&"a".repeat(2049), Flaw::TooLarge),
    ] {
        assert_eq!(flaw(token).await, expected, "{token}");
    }
}

/// The flattened JSON serialisation (RFC 7515 §7.2.2).
fn json_form(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string()
}

/// RFC 4648 §3.5: bits that say nothing must be zero, or one token has many texts, of which a list of
/// revoked ones knows but one.
#[tokio::test]
async fn each_part_has_one_encoding() {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let verifier = verifier(rules());
    let mut met = 0;
    for blanks in 0..3 {
        let header = format!("{}{}", &HEADER[..HEADER.len() - 1], " ".repeat(blanks)) + "}";
        let claims = good_claims().to_string() + &" ".repeat(blanks);
        let good = hs512(&header, &claims);
        assert!(verify(&verifier, &good).await.is_ok());
        let parts: Vec<&str> = good.split('.').collect();
        for (at, part) in parts.iter().enumerate() {
            let unused = match part.len() % 4 {
                2 => 4,
                3 => 2,
                _ => continue,
            };
            let last = *part.as_bytes().last().unwrap();
            let value = DIGITS.iter().position(|digit| *digit == last).unwrap();
            for bits in 1..1 << unused {
                let other = char::from(DIGITS[value | bits]);
                let mut changed: Vec<String> = parts.iter().map(ToString::to_string).collect();
                changed[at].pop();
                changed[at].push(other);
                let changed = changed.join(".");
                let flaw = verify(&verifier, &changed).await.unwrap_err();
                assert!(matches!(flaw, Flaw::Encoding(_)), "{changed} {flaw:?}");
                met += 1;
            }
        }
    }
    assert!(met > 30, "{met}");
}

#[tokio::test]
async fn a_header_that_would_choose_its_own_rules_is_refused() {
    for (header, expected) in [
        (r#"{"alg":"none"}"#, Flaw::Unsigned),
        (r#"{"alg":"NoNe"}"#, Flaw::Unsigned),
        (r#"{"alg":"none "}"#, Flaw::Unsigned),
        (r#"{"alg":null}"#, Flaw::NoAlgorithm),
        (r#"{"alg":["HS512"]}"#, Flaw::NoAlgorithm),
        (r#"{"typ":"JWT"}"#, Flaw::NoAlgorithm),
        (r#"{"alg":"hs512"}"#, Flaw::UnknownAlgorithm),
        (r#"{"alg":"ES256K"}"#, Flaw::UnknownAlgorithm),
        (r#"{"alg":"Hs512"}"#, Flaw::UnknownAlgorithm),
        (r#"{"alg":" HS512"}"#, Flaw::UnknownAlgorithm),
        (r#"{"alg":"HS512\u0000"}"#, Flaw::UnknownAlgorithm),
        (r#"{"alg":""}"#, Flaw::UnknownAlgorithm),
        (r#"{"Alg":"HS512"}"#, Flaw::NoAlgorithm),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, Flaw::Encrypted),
        (
            r#"{"alg":"PBES2-HS512+A256KW","p2c":2147483647}"#,
            Flaw::UnknownAlgorithm,
        ),
        (r#"{"alg":"HS256"}"#, Flaw::WrongAlgorithm),
        (r#"{"alg":"RS256"}"#, Flaw::WrongAlgorithm),
        (
            r#"{"alg":"HS512","jku":"https://x"}"#,
            Flaw::ForeignKey("jku"),
        ),
        (
            r#"{"alg":"HS512","x5u":"https://x"}"#,
            Flaw::ForeignKey("x5u"),
        ),
        (
            r#"{"alg":"HS512","jwk":{"kty":"oct"}}"#,
            Flaw::ForeignKey("jwk"),
        ),
        (r#"{"alg":"HS512","crit":["exp"]}"#, Flaw::Critical),
        (r#"{"alg":"HS512","crit":[]}"#, Flaw::Critical),
        (
            r#"{"alg":"HS512","b64":false,"crit":["b64"]}"#,
            Flaw::Critical,
        ),
        (r#"{"alg":"HS512","enc":"A256GCM"}"#, Flaw::Encrypted),
        (r#"{"alg":"HS512","zip":"DEF"}"#, Flaw::Encrypted),
        (r#"{"alg":"HS512","kid":7}"#, Flaw::KeyId),
        (r#"{"alg":"HS512","typ":"logout+jwt"}"#, Flaw::MediaType),
        (r#"{"alg":"HS512","typ":"dpop+jwt"}"#, Flaw::MediaType),
        (r#"{"alg":"HS512","typ":7}"#, Flaw::MediaType),
        (
            r#"{"alg":"none","alg":"HS512"}"#,
            Flaw::Duplicate(Part::Header),
        ),
        (
            r#"{"alg":"HS512","x":{"a":1,"a":2}}"#,
            Flaw::Duplicate(Part::Header),
        ),
        (r#"["HS512"]"#, Flaw::Json(Part::Header)),
        ("{", Flaw::Json(Part::Header)),
    ] {
        assert_eq!(flaw(&headed(header)).await, expected, "{header}");
    }
    let unsigned = format!(
        "{}.{}.",
        encode(r#"{"alg":"none"}"#),
        encode(good_claims().to_string())
    );
    assert_eq!(flaw(&unsigned).await, Flaw::Unsigned);
    let empty = format!("{}.{}.", encode(HEADER), encode(good_claims().to_string()));
    assert_eq!(flaw(&empty).await, Flaw::Signature);
    let verifier = verifier(rules());
    for header in [
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"HS512","typ":"at+JWT","kid":"any"}"#,
        // Blanks of JSON, and what is said of the key without being looked at.
        "{ \"alg\" :\n\t\"HS512\" }",
        r#"{"alg":"HS512","kid":"https://evil.example/key"}"#,
        r#"{"alg":"HS512","x5c":["MIIB"],"x5t":"x","x5t#S256":"x"}"#,
        // Without `crit` it says nothing (RFC 7797 §6), and the payload is read as it is.
        r#"{"alg":"HS512","b64":false}"#,
    ] {
        assert!(verify(&verifier, &headed(header)).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn a_payload_that_two_readers_read_differently_is_refused() {
    let exp = NOW + 60;
    for (payload, expected) in [
        (
            format!(r#"{{"iss":"x","iss":"{ISSUER}","exp":{exp},"type":0}}"#),
            Flaw::Duplicate(Part::Payload),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","exp":1,"exp":{exp},"type":0}}"#),
            Flaw::Duplicate(Part::Payload),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","exp":1,"\u0065xp":{exp},"type":0}}"#),
            Flaw::Duplicate(Part::Payload),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","exp":NaN,"type":0}}"#),
            Flaw::Json(Part::Payload),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","exp":Infinity,"type":0}}"#),
            Flaw::Json(Part::Payload),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","exp":1e999,"type":0}}"#),
            Flaw::Json(Part::Payload),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","exp":{exp},"type":0}} {{}}"#),
            Flaw::Json(Part::Payload),
        ),
        ("[]".to_owned(), Flaw::Json(Part::Payload)),
        (String::new(), Flaw::Json(Part::Payload)),
    ] {
        assert_eq!(flaw(&hs512(HEADER, &payload)).await, expected, "{payload}");
    }
}

#[tokio::test]
async fn a_time_that_is_no_date_is_refused_wherever_it_stands() {
    for name in ["exp", "nbf", "iat"] {
        for time in [
            json!("never"),
            json!("1739294127"),
            json!(true),
            json!([NOW]),
            json!({}),
            json!(-1),
            json!(-0.5),
            json!(1e300),
            json!(253_402_300_800_u64),
            json!(u64::MAX),
            json!(i64::MIN),
        ] {
            let token = with(&json!({name: time}));
            assert_eq!(flaw(&token).await, Flaw::Time(name), "{name} {time}");
        }
        // An explicit null is not an absence.
        let mut claims = good_claims();
        claims[name] = Value::Null;
        let token = hs512(HEADER, &claims.to_string());
        assert_eq!(flaw(&token).await, Flaw::Time(name), "{name} null");
    }
}

#[tokio::test]
async fn times_are_kept_within_the_leeway() {
    for (claims, expected) in [
        (json!({"exp": null}), Some(Flaw::NoExpiry)),
        (json!({"exp": 0}), Some(Flaw::Expired)),
        (json!({"exp": NOW - 30}), Some(Flaw::Expired)),
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": 1_739_290_570.9}), Some(Flaw::Expired)),
        (json!({"exp": 1_739_290_571.9}), None),
        (json!({"nbf": NOW + 30}), None),
        (json!({"nbf": NOW + 31}), Some(Flaw::NotYetValid)),
        (json!({"nbf": 1_739_290_630.1}), Some(Flaw::NotYetValid)),
        (json!({"iat": NOW + 30}), None),
        (json!({"iat": NOW + 31}), Some(Flaw::IssuedInFuture)),
        (json!({"iat": null}), None),
    ] {
        let outcome = verify(&verifier(rules()), &with(&claims)).await;
        assert_eq!(outcome.err(), expected, "{claims}");
    }
    let endless = verifier(Rules {
        allow_no_expiry: true,
        ..rules()
    });
    assert!(verify(&endless, &with(&json!({"exp": null}))).await.is_ok());
    let never = verify(&endless, &with(&json!({"exp": "never"}))).await;
    assert_eq!(never.unwrap_err(), Flaw::Time("exp"));
}

#[tokio::test]
async fn issuer_and_audience_are_compared_exactly() {
    for (claims, expected) in [
        (json!({"iss": null}), Flaw::NoIssuer),
        (json!({"iss": [ISSUER]}), Flaw::NoIssuer),
        (json!({"iss": "supermq.auth "}), Flaw::UnknownIssuer),
        (json!({"iss": "SuperMQ.auth"}), Flaw::UnknownIssuer),
        (json!({"aud": "somebody"}), Flaw::Audience),
        (json!({"aud": []}), Flaw::Audience),
    ] {
        assert_eq!(flaw(&with(&claims)).await, expected, "{claims}");
    }
    let ours = verifier(Rules {
        audiences: vec!["us".into(), "we".into()],
        ..rules()
    });
    for (audience, good) in [
        (json!("us"), true),
        (json!("we"), true),
        (json!(["they", "we"]), true),
        (json!(null), false),
        (json!("US"), false),
        (json!(["they"]), false),
        (json!(["us", 7]), false),
        (json!({"us": "us"}), false),
    ] {
        let outcome = verify(&ours, &with(&json!({"aud": audience}))).await;
        assert_eq!(
            outcome.err(),
            (!good).then_some(Flaw::Audience),
            "{audience}"
        );
    }
}

#[tokio::test]
async fn a_subject_is_a_text_that_is_not_empty() {
    for subject in [json!(7), json!(""), json!(["u"]), json!(false)] {
        let token = with(&json!({"sub": subject}));
        assert_eq!(flaw(&token).await, Flaw::Subject, "{subject}");
    }
    let older = with(&json!({"sub": null, "user": "u2"}));
    let token = verify(&verifier(rules()), &older).await.unwrap();
    assert_eq!(token.subject(), Some("u2"));
}

#[tokio::test]
async fn a_changed_token_is_refused_at_every_place() {
    let good = with(&json!({}));
    let verifier = verifier(rules());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verify(&verifier, &changed).await.is_err(), "{at}");
    }
}

#[tokio::test]
async fn a_token_names_the_key_id_where_one_is_set() {
    let mut settings = provider(SECRET, rules());
    let KeySource::Secret { key_id, .. } = &mut settings.source else {
        unreachable!()
    };
    *key_id = Some("k1".into());
    let verifier = load(settings);
    for (header, expected) in [
        (r#"{"alg":"HS512","kid":"k1"}"#, None),
        (r#"{"alg":"HS512","kid":"K1"}"#, Some(Flaw::UnknownKey)),
        (
            r#"{"alg":"HS512","kid":"../../etc/passwd"}"#,
            Some(Flaw::UnknownKey),
        ),
        (
            r#"{"alg":"HS512","kid":"' OR 1=1"}"#,
            Some(Flaw::UnknownKey),
        ),
        (r#"{"alg":"HS512"}"#, Some(Flaw::UnknownKey)),
    ] {
        let outcome = verify(&verifier, &headed(header)).await;
        assert_eq!(outcome.err(), expected, "{header}");
    }
}

#[tokio::test]
async fn a_binding_that_cannot_be_checked_is_refused() {
    let thumbprint = encode([7; 32]);
    for cnf in [
        json!({"jkt": thumbprint}),
        json!({"x5t#S256": thumbprint, "jkt": thumbprint}),
        json!({"x5t#S256": encode([7; 20])}),
        json!({"x5t#S256": 7}),
        json!({"x5t": thumbprint}),
        json!({}),
        json!("x"),
        json!(false),
    ] {
        let token = with(&json!({"cnf": cnf}));
        assert_eq!(flaw(&token).await, Flaw::Confirmation, "{cnf}");
    }
    let bound = with(&json!({"cnf": {"x5t#S256": thumbprint}}));
    let token = verify(&verifier(rules()), &bound).await.unwrap();
    assert_eq!(token.certificate(), Some("07".repeat(32).as_str()));
}

#[tokio::test]
async fn what_is_remembered_of_a_token_ends_with_it() {
    let verifier = verifier(rules());
    let token = Secret::new(with(&json!({})));
    for (now, expected) in [
        (NOW, None),
        (NOW + 89, None),
        (NOW + 90, Some(Flaw::Expired)),
        (NOW + 91, Some(Flaw::Expired)),
    ] {
        let outcome = verifier.verify(&token, now).await;
        assert_eq!(outcome.err(), expected, "{now}");
    }
    let early = Secret::new(with(&json!({"nbf": NOW + 40})));
    let outcome = verifier.verify(&early, NOW).await;
    assert_eq!(outcome.unwrap_err(), Flaw::NotYetValid);
    assert!(verifier.verify(&early, NOW + 10).await.is_ok());
}

mod key_sets {
    use super::*;
    use crate::token::jwks;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    const OKP: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    /// How many keys the set has, or why it is of no use.
    fn keys(entries: &Value) -> Result<usize, JwksError> {
        let all: Vec<Algorithm> = Algorithm::ALL
            .iter()
            .map(|(_, algorithm)| *algorithm)
            .collect();
        let document = json!({"keys": entries}).to_string();
        jwks::parse(document.as_bytes(), &all).map(|set| set.keys.len())
    }

    #[test]
    fn keys_of_every_kind_are_read() {
        // RFC 7517 §A.1, RFC 8037 §A.2.
        let set = json!([
            {"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "1"},
            {"kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "sig", "alg": "ES256"},
            {"kty": "EC", "crv": "P-256", "x": X, "y": Y, "key_ops": ["verify"]},
            {"kty": "OKP", "crv": "Ed25519", "x": OKP, "alg": "EdDSA"},
        ]);
        assert_eq!(keys(&set), Ok(4));
    }

    #[test]
    fn keys_for_anything_else_are_left_out() {
        for key in [
            json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "enc"}),
            json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": 7}),
            json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "key_ops": ["sign"]}),
            json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": "ES384"}),
            json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": 7}),
            json!({"kty": "EC", "crv": "secp256k1", "x": X, "y": Y}),
            json!({"kty": "OKP", "crv": "X25519", "x": OKP}),
            json!({"kty": "new"}),
            json!({}),
        ] {
            assert_eq!(keys(&json!([key])), Err(JwksError::Empty), "{key}");
        }
    }

    #[test]
    fn damaged_and_private_keys_are_faults() {
        let point = json!({"kty": "EC", "crv": "P-256", "x": X, "y": X, "kid": "1"});
        assert!(matches!(keys(&json!([point])), Err(JwksError::Key { .. })));
        for (name, kty) in [("d", "EC"), ("k", "oct")] {
            let key = json!({"kty": kty, "crv": "P-256", "x": X, "y": Y, name: X});
            assert_eq!(keys(&json!([key])), Err(JwksError::Private(None)), "{name}");
        }
        let good = json!({"kty": "OKP", "crv": "Ed25519", "x": OKP});
        assert_eq!(keys(&json!([point, good])), Ok(1));
    }

    #[test]
    fn the_example_of_rfc_7515_verifies_with_the_key_that_it_names() {
        let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": X, "y": Y}]}).to_string();
        let set = jwks::parse(set.as_bytes(), &[Algorithm::Es256]).unwrap();
        // RFC 7515 §A.3.
        let token = "eyJhbGciOiJFUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
            DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let jwt = Jwt::parse(token).unwrap();
        let verifies = |message: &[u8], signature: &[u8]| {
            set.keys[0].verifies(jwt.algorithm, message, signature)
        };
        assert!(verifies(jwt.message, &jwt.signature));
        assert!(!verifies(b"something else", &jwt.signature));
        // What a careless verifier takes (CVE-2022-21449), and the DER form, which is no JWS.
        assert!(!verifies(jwt.message, &[0; 64]));
        assert!(!verifies(jwt.message, &[]));
        assert!(!verifies(jwt.message, &jwt.signature[..63]));
        assert_eq!(jwt.claims["iss"], "joe");
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for document in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[1]}"#,
        ] {
            let outcome = jwks::parse(document.as_bytes(), &[Algorithm::Es256]);
            assert_eq!(outcome.unwrap_err(), JwksError::NotAKeySet, "{document}");
        }
        let twice = r#"{"keys":[],"keys":[]}"#;
        let outcome = jwks::parse(twice.as_bytes(), &[Algorithm::Es256]);
        assert_eq!(outcome.unwrap_err(), JwksError::NotAKeySet);
        assert_eq!(keys(&json!(vec![json!({}); 101])), Err(JwksError::TooMany));
    }
}

#[test]
fn a_token_that_is_known_takes_little_room_in_the_future_of_a_request() {
    let (verifier, token) = (verifier(rules()), Secret::new(""));
    let size = size_of_val(&verifier.verify(&token, NOW));
    assert!(size < 1536, "{size} bytes");
}
