//! API keys: bearer tokens that are known by their hash.

use std::process::Command;
use std::time::Duration;

use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::lab::{Config, SECRET};
use crate::harness::{Client, Lab};

const TABLES: &str =
    "[api_keys]\nlist = \"api-keys.toml\"\nprefixes = [\"pck_\", \"pat_\", \"atom_\"]\n";

/// The platform's forms: 102 characters, and one that RFC 6750 has no room for.
const ATOM: &str = "atom_00112233445566778899aabbccddeeff_\
    00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const PAT: &str = "pat_MDAxMTIyMzM0NDU1NjY3Nzg4OTlhYWJiY2NkZGVlZmY=_q!@#$%^&*|+-=Z";

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

fn line(key: &str, expires: Option<&str>) -> String {
    let id = key.split('_').nth(1).unwrap();
    let expires = expires.map_or(String::new(), |at| format!(", expires = \"{at}\""));
    let hash = sha256(key);
    format!(
        "\"{id}\" = {{ hash = \"{hash}\", owner = \"billing\", scopes = [\"read\"]{expires} }}\n"
    )
}

/// A gateway whose file holds these lines.
async fn lab(lines: &str) -> Lab {
    let mut lab = Config::key().start().await;
    lab.write("api-keys.toml", lines);
    lab.config = lab
        .config
        .clone()
        .tables(TABLES)
        .route("credential = \"user\"");
    lab.reload().unwrap();
    lab
}

async fn ask(client: &Client, protocol: Protocol, key: &str) -> u16 {
    let path = match protocol {
        Protocol::WebSocket => "/ws/m",
        Protocol::Http1 | Protocol::Http2 => "/http/m",
    };
    let bearer = format!("Bearer {key}");
    let fields = [("authorization", bearer.as_str())];
    let answer = client.send(protocol, path, &fields).await.unwrap();
    answer.status.as_u16()
}

async fn status(lab: &Lab, key: &str) -> u16 {
    ask(&lab.anonymous(), Protocol::Http1, key).await
}

#[tokio::test]
async fn a_key_of_the_file_is_a_bearer_token_and_goes_on_as_it_came() {
    let lab = lab(&(line(ATOM, None) + &line(PAT, None))).await;
    assert_eq!(ATOM.len(), 102);
    for key in [ATOM, PAT] {
        for protocol in EVERY_PROTOCOL {
            let status = ask(&lab.anonymous(), protocol, key).await;
            assert!(matches!(status, 200 | 101), "{protocol:?} {status}");
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.all("authorization"), [format!("Bearer {key}")]);
        }
    }
}

#[tokio::test]
async fn whatever_is_not_exactly_a_key_of_the_file_is_refused() {
    let lab = lab(&line(ATOM, None)).await;
    let other_rest = ATOM.replace("ddeeff_0011", "ddeeff_1011");
    let other_id = ATOM.replace("atom_0011", "atom_1011");
    let shorter = &ATOM[..101];
    let other_prefix = ATOM.replace("atom_", "pck_");
    for key in [
        &other_rest,
        &other_id,
        shorter,
        &other_prefix,
        PAT,
        "atom__x",
        &sha256(ATOM),
    ] {
        for protocol in EVERY_PROTOCOL {
            assert_eq!(ask(&lab.anonymous(), protocol, key).await, 401, "{key}");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_key_is_no_client_secret() {
    let mut lab = lab(&line(ATOM, None)).await;
    lab.config.route = "credential = \"client\"".into();
    lab.reload().unwrap();
    assert_eq!(status(&lab, ATOM).await, 401);
    let secret = format!("Client {SECRET}");
    let fields = [("authorization", secret.as_str())];
    let client = lab.anonymous();
    let answer = client.send(Protocol::Http1, "/http/m", &fields).await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_key_ends_when_its_line_says_so() {
    let lab = lab(&line(ATOM, Some("2100-01-01T00:00:00Z"))).await;
    assert_eq!(status(&lab, ATOM).await, 200);
    let years = Duration::from_secs(100 * 366 * 24 * 3600);
    lab.clock.advance(years);
    assert_eq!(status(&lab, ATOM).await, 401);
}

#[tokio::test]
async fn a_reload_takes_up_new_keys_and_forgets_those_that_are_gone() {
    let lab = lab(&line(ATOM, None)).await;
    assert_eq!(status(&lab, PAT).await, 401);
    lab.write("api-keys.toml", &line(PAT, None));
    lab.reload().unwrap();
    assert_eq!(status(&lab, PAT).await, 200);
    assert_eq!(status(&lab, ATOM).await, 401);
}

#[tokio::test]
async fn a_file_that_is_of_no_use_stops_the_reload() {
    let lab = lab(&line(ATOM, None)).await;
    for (text, expected) in [
        ("garbage", "api-keys.toml"),
        ("a = { owner = \"b\", hash = \"00\" }", "not a SHA-256"),
        ("a = { owner = \"b\" }", "missing field `hash`"),
        (
            "a = { hash = \"00\", owner = \"b\", x = 1 }",
            "unknown field `x`",
        ),
        (&line(ATOM, Some("tomorrow")), "not a time"),
        (&(line(ATOM, None) + &line(ATOM, None)), "duplicate key"),
    ] {
        lab.write("api-keys.toml", text);
        let error = lab.reload().unwrap_err();
        assert!(error.contains("api_keys.list"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(status(&lab, ATOM).await, 200);
    std::fs::remove_file(lab.path("api-keys.toml")).unwrap();
    assert!(lab.reload().unwrap_err().contains("cannot read"));
}

#[tokio::test]
async fn the_command_makes_a_key_whose_line_admits_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args([
        "api-key",
        "--owner",
        "a \"b\"",
        "--scope",
        "x",
        "--lifetime",
        "1day",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    let key = String::from_utf8(output.stderr).unwrap();
    let key = key.trim_end();
    assert!(key.starts_with("pck_") && !line.contains(key), "{line}");
    let lab = lab(&line).await;
    assert_eq!(status(&lab, key).await, 200);
    lab.clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!(status(&lab, key).await, 401);
}

#[tokio::test]
async fn prefixes_that_could_be_anything_are_refused() {
    let mut lab = Config::key().start().await;
    for prefix in ["", "_", "pck", "a b_"] {
        lab.config.tables = format!("[api_keys]\nprefixes = [\"{prefix}\"]\n");
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains("api_keys.prefixes"), "{problem}");
    }
}
