//! A certified OpenID provider (npm's `oidc-provider`) in front of which the gateway stands for real:
//! discovery, its keys, tokens that it issues, and keys that it changes.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::lab::Config;
use crate::harness::{Lab, PATIENCE, Protocol};

/// The running provider, which ends with this.
struct OpenId {
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    issuer: String,
}

impl OpenId {
    async fn start(keys: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        assert!(
            folder.join("node_modules/oidc-provider").exists(),
            "npm's oidc-provider is missing: `make test` installs it"
        );
        let mut child = Command::new("node")
            .arg(folder.join("oidc-provider.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut provider = Self {
            input: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
            issuer: String::new(),
        };
        provider.issuer = provider.says("issuer ").await;
        provider.serve(keys).await;
        provider
    }

    /// Signs with the first of these keys from now on, and publishes all of them.
    async fn serve(&mut self, keys: &str) {
        let line = format!("{keys}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
        assert_eq!(self.says("serving ").await, keys);
    }

    async fn says(&mut self, prefix: &str) -> String {
        let line = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it has ended");
                if let Some(rest) = line.strip_prefix(prefix) {
                    return rest.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, line).await.unwrap()
    }

    /// A token by the client's own credentials (RFC 6749 §4.4).
    async fn token(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client
            .post(format!("{}/token", self.issuer))
            .basic_auth("tester", Some("a secret of the tests"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials&scope=read")
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn lab(&self, audience: &str) -> Lab {
        let issuer = &self.issuer;
        let tables = format!(
            "[providers.login]\nkind = \"oidc\"\nissuers = [\"{issuer}\"]\n\
             audiences = [\"{audience}\"]\nmin_refresh = \"50ms\"\ndanger_allow_http = true\n\
             [routes.told]\npath = \"/told/\"\nupstream = \"origin\"\ncredential = \"user\"\n\
             forward_claims = [\"x-client: client_id\"]\n\
             [routes.told.claims.scope]\nclaim = \"scope\"\ncontains = \"read\"\n\
             [routes.ruled]\npath = \"/ruled/\"\nupstream = \"origin\"\ncredential = \"user\"\n\
             [routes.ruled.claims.scope]\nclaim = \"scope\"\ncontains = \"write\"\n"
        );
        let config = Config::key().tables(&tables);
        config.start().await
    }
}

async fn ask(lab: &Lab, protocol: Protocol, path: &str, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", bearer.as_str())];
    let answer = lab.anonymous().send(protocol, path, &fields).await;
    answer.unwrap().status.as_u16()
}

/// Asks until the answer is this one.
async fn becomes(lab: &Lab, token: &str, status: u16) {
    let begun = Instant::now();
    while ask(lab, Protocol::Http1, "/told/m", token).await != status {
        assert!(begun.elapsed() < PATIENCE, "the answer never is {status}");
    }
}

#[tokio::test]
async fn its_tokens_are_accepted_for_what_they_say_and_nothing_else() {
    let provider = OpenId::start("a").await;
    let lab = provider.lab("https://gateway.example").await;
    let token = provider.token().await;
    for protocol in EVERY_PROTOCOL {
        let status = ask(&lab, protocol, "/told/m", &token).await;
        assert!(matches!(status, 200 | 101), "{protocol:?}: {status}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-client"), ["tester"]);
        assert_eq!(ask(&lab, protocol, "/ruled/m", &token).await, 403);
        // The last letter of a signature can hold bits that mean nothing, the first cannot.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{message}.{first}{}", &signature[1..]);
        assert_eq!(ask(&lab, protocol, "/told/m", &forged).await, 401);
    }
    // The provider's clock goes on, and has issued the token a moment after the lab's stood still.
    lab.clock.advance(Duration::from_secs(3600 + 60));
    assert_eq!(ask(&lab, Protocol::Http1, "/told/m", &token).await, 401);
}

#[tokio::test]
async fn its_tokens_for_another_audience_are_refused() {
    let provider = OpenId::start("a").await;
    let lab = provider.lab("https://another.example").await;
    let token = provider.token().await;
    assert_eq!(ask(&lab, Protocol::Http1, "/told/m", &token).await, 401);
}

#[tokio::test]
async fn its_keys_are_followed_when_they_change() {
    let mut provider = OpenId::start("a").await;
    let lab = provider.lab("https://gateway.example").await;
    let of_a = provider.token().await;
    becomes(&lab, &of_a, 200).await;
    provider.serve("b a").await;
    let of_b = provider.token().await;
    becomes(&lab, &of_b, 200).await;
    assert_eq!(ask(&lab, Protocol::Http1, "/told/m", &of_a).await, 200);
    provider.serve("b").await;
    // A key that nobody has makes the gateway look again.
    provider.serve("c b").await;
    let of_c = provider.token().await;
    becomes(&lab, &of_c, 200).await;
    becomes(&lab, &of_a, 401).await;
    assert_eq!(ask(&lab, Protocol::Http1, "/told/m", &of_b).await, 200);
}
