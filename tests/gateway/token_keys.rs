//! Where the keys of token providers come from: files, URLs, discovery; what happens when those
//! change, fail or lie; and what is remembered of tokens meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::clock::{Clock, ManualClock};
use portcullis::config::{self, Environment};
use portcullis::secret::Secret;
use portcullis::telemetry::TokenMetrics;
use portcullis::token::{Flaw, Verifier};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::harness::issuer::{Issuer, Reply, Signer, key_set};
use crate::harness::lab::{Config, SECRET};
use crate::harness::{Authority, Client, Lab, PATIENCE, Protocol};

const ISSUER: &str = "https://issuer.example";

fn claims(clock: &ManualClock) -> Value {
    let now = clock.now();
    json!({"iss": ISSUER, "sub": "u1", "iat": now, "exp": now + 3600})
}

/// A provider whose keys are behind `url`, fetched again at every occasion.
fn provider(url: &str, lines: &str) -> String {
    format!(
        "[providers.issuer]\nkind = \"jwks\"\nissuers = [\"{ISSUER}\"]\nurl = \"{url}\"\n\
         timeout = \"2s\"\nmin_refresh = \"50ms\"\nrefresh = \"1h\"\n{lines}\n"
    )
}

fn plain(issuer: &Issuer) -> String {
    let url = format!("http://{}/keys", issuer.address);
    provider(&url, "danger_allow_http = true")
}

async fn lab(tables: &str) -> Lab {
    let config = Config::key().tables(tables).route("credential = \"user\"");
    config.start().await
}

async fn ask(client: &Client, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", bearer.as_str())];
    let answer = client.send(Protocol::Http1, "/http/m", &fields).await;
    answer.unwrap().status.as_u16()
}

/// Asks until the answer is this one.
async fn becomes(lab: &Lab, token: &str, status: u16) {
    let client = lab.anonymous();
    let begun = Instant::now();
    while ask(&client, token).await != status {
        assert!(begun.elapsed() < PATIENCE, "the answer never is {status}");
    }
}

#[tokio::test]
async fn keys_are_read_from_a_file_and_chosen_by_their_id() {
    let (a, b) = (Signer::new("a"), Signer::new("b"));
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, key_set(&[&a, &b])).unwrap();
    let tables = format!(
        "[providers.issuer]\nkind = \"jwks_file\"\nissuers = [\"{ISSUER}\"]\nkey_set = \"{}\"\n",
        path.display()
    );
    let lab = lab(&tables).await;
    let client = lab.anonymous();
    let claims = claims(&lab.clock);
    for (token, status) in [
        (a.sign(&claims), 200),
        (b.sign(&claims), 200),
        (a.sign_as(Some("b"), &claims), 401),
        (a.sign_as(Some("c"), &claims), 401),
        (a.sign_as(None, &claims), 401),
        (Signer::new("a").sign(&claims), 401),
    ] {
        assert_eq!(ask(&client, &token).await, status);
    }
    // On reload the file is read anew, and what was remembered is forgotten.
    std::fs::write(&path, key_set(&[&b])).unwrap();
    lab.reload().unwrap();
    assert_eq!(ask(&lab.anonymous(), &a.sign(&claims)).await, 401);
    assert_eq!(ask(&lab.anonymous(), &b.sign(&claims)).await, 200);
    for damaged in [
        "",
        "{}",
        "<html>",
        r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#,
    ] {
        std::fs::write(&path, damaged).unwrap();
        let error = lab.reload().unwrap_err();
        assert!(error.contains("providers.issuer"), "{error}");
    }
    assert_eq!(ask(&lab.anonymous(), &b.sign(&claims)).await, 200);
}

#[tokio::test]
async fn keys_are_fetched_by_https_from_servers_of_the_named_authority_alone() {
    let authority = Authority::new("Issuer CA");
    let issuer = Issuer::start_tls(authority.server(&["localhost"])).await;
    let signer = Signer::new("a");
    issuer.publish(&[&signer]);
    let url = format!("https://localhost:{}/keys", issuer.address.port());
    let folder = TempDir::new().unwrap();
    let other = Authority::new("Other CA");
    for (trusted, status) in [(&authority, 200), (&other, 503)] {
        let path = folder.path().join("issuer-ca.pem");
        std::fs::write(&path, trusted.pem()).unwrap();
        let ca = format!("ca = [\"{}\"]", path.display());
        let lab = lab(&provider(&url, &ca)).await;
        let token = signer.sign(&claims(&lab.clock));
        assert_eq!(ask(&lab.anonymous(), &token).await, status);
    }
    // The authority's certificate is not one of the system's.
    let lab = lab(&provider(&url, "")).await;
    let token = signer.sign(&claims(&lab.clock));
    assert_eq!(ask(&lab.anonymous(), &token).await, 503);
}

#[tokio::test]
async fn keys_never_come_unencrypted_unless_that_is_allowed() {
    let mut lab = Config::key().start().await;
    lab.config.tables = provider("http://issuer.example/keys", "");
    let problem = lab.settings().unwrap_err().to_string();
    assert!(problem.contains("danger_allow_http"), "{problem}");
    for url in [
        "ftp://issuer.example/keys",
        "/keys",
        "https://user@issuer.example/",
    ] {
        lab.config.tables = provider(url, "");
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains("providers.issuer.url"), "{problem}");
    }
}

#[tokio::test]
async fn a_key_that_is_published_later_is_found_and_one_that_is_withdrawn_is_forgotten() {
    let (a, b) = (Signer::new("a"), Signer::new("b"));
    let issuer = Issuer::start().await;
    issuer.publish(&[&a]);
    let lab = lab(&plain(&issuer)).await;
    let claims = claims(&lab.clock);
    let (of_a, of_b) = (a.sign(&claims), b.sign(&claims));
    assert_eq!(ask(&lab.anonymous(), &of_a).await, 200);
    assert_eq!(ask(&lab.anonymous(), &of_b).await, 401);
    issuer.publish(&[&a, &b]);
    becomes(&lab, &of_b, 200).await;
    assert_eq!(ask(&lab.anonymous(), &of_a).await, 200);
    issuer.publish(&[&b]);
    becomes(&lab, &of_a, 401).await;
    assert_eq!(ask(&lab.anonymous(), &of_b).await, 200);
}

#[tokio::test]
async fn an_issuer_that_fails_lets_nobody_in_and_is_asked_again() {
    let signer = Signer::new("a");
    let set = key_set(&[&signer]);
    for reply in [
        Reply::status("500 Internal Server Error", ""),
        Reply::status("204 No Content", ""),
        Reply::document("<html>sign in</html>", "Content-Type: text/html\r\n"),
        Reply::document("{\"keys\":[]}", ""),
        Reply::document(&set[..set.len() / 2], ""),
        Reply::Raw("garbage".into()),
        Reply::Raw(String::new()),
        Reply::Endless,
        Reply::Slow,
        Reply::Silence,
    ] {
        let issuer = Issuer::start().await;
        issuer.set("/keys", reply);
        let tables = plain(&issuer).replace("\"2s\"", "\"300ms\"");
        let lab = lab(&tables).await;
        let token = signer.sign(&claims(&lab.clock));
        assert_eq!(ask(&lab.anonymous(), &token).await, 503);
        let answer = lab.anonymous().get("/public/m").await.unwrap();
        assert_eq!(answer.status, 200);
        issuer.publish(&[&signer]);
        becomes(&lab, &token, 200).await;
    }
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_lets_nobody_in() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let url = format!("http://{address}/keys");
    let lab = lab(&provider(&url, "danger_allow_http = true")).await;
    let token = Signer::new("a").sign(&claims(&lab.clock));
    for _ in 0..3 {
        assert_eq!(ask(&lab.anonymous(), &token).await, 503);
    }
    let answer = lab.anonymous().get("/public/m").await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_issuer_that_is_silent_holds_up_nobody_else_however_many_wait() {
    let issuer = Issuer::start().await;
    issuer.set("/keys", Reply::Silence);
    let tables = plain(&issuer).replace("\"50ms\"", "\"1h\"");
    let lab = lab(&tables).await;
    let signer = Signer::new("a");
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let token = signer.sign_as(Some(&format!("k{n}")), &claims(&lab.clock));
            let client = lab.anonymous();
            tokio::spawn(async move { ask(&client, &token).await })
        })
        .collect();
    issuer.is_asked("/keys", 1).await;
    for _ in 0..10 {
        let answer = lab.anonymous().get("/public/m").await.unwrap();
        assert_eq!(answer.status, 200);
    }
    for one in waiting {
        assert_eq!(one.await.unwrap(), 503);
    }
    assert_eq!(issuer.asked("/keys"), 1);
}

#[tokio::test]
async fn another_key_under_the_same_id_takes_the_place_of_the_first() {
    let (first, second) = (Signer::new("a"), Signer::new("a"));
    let issuer = Issuer::start().await;
    issuer.publish(&[&first]);
    let lab = lab(&plain(&issuer)).await;
    let claims = claims(&lab.clock);
    let (of_first, of_second) = (first.sign(&claims), second.sign(&claims));
    assert_eq!(ask(&lab.anonymous(), &of_first).await, 200);
    assert_eq!(ask(&lab.anonymous(), &of_second).await, 401);
    issuer.publish(&[&second]);
    becomes(&lab, &of_second, 200).await;
    // Remembered as it was.
    assert_eq!(ask(&lab.anonymous(), &of_first).await, 401);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let signer = Signer::new("a");
    let (issuer, elsewhere) = (Issuer::start().await, Issuer::start().await);
    elsewhere.publish(&[&signer]);
    let location = format!("Location: http://{}/keys\r\n", elsewhere.address);
    issuer.set("/keys", Reply::status("302 Found", &location));
    let lab = lab(&plain(&issuer)).await;
    let token = signer.sign(&claims(&lab.clock));
    assert_eq!(ask(&lab.anonymous(), &token).await, 503);
    assert_eq!(elsewhere.asked("/keys"), 0);
}

#[tokio::test]
async fn keys_stay_in_use_for_a_while_when_their_issuer_fails() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    issuer.publish(&[&signer]);
    let lab = lab(&(plain(&issuer) + "stale_for = \"10m\"\n")).await;
    let token = |lab: &Lab, n: u32| {
        let mut claims = claims(&lab.clock);
        claims["n"] = json!(n);
        signer.sign(&claims)
    };
    assert_eq!(ask(&lab.anonymous(), &token(&lab, 1)).await, 200);
    issuer.set("/keys", Reply::status("503 Service Unavailable", ""));
    let before = issuer.asked("/keys");
    // One fetch may have been under way.
    issuer.is_asked("/keys", before + 2).await;
    lab.clock.advance(Duration::from_secs(590));
    assert_eq!(ask(&lab.anonymous(), &token(&lab, 2)).await, 200);
    lab.clock.advance(Duration::from_secs(60));
    assert_eq!(ask(&lab.anonymous(), &token(&lab, 3)).await, 503);
    issuer.publish(&[&signer]);
    becomes(&lab, &token(&lab, 4), 200).await;
}

#[tokio::test]
async fn keys_that_are_kept_serve_a_start_without_their_issuer() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    issuer.publish(&[&signer]);
    let folder = TempDir::new().unwrap();
    let kept = folder.path().join("kept.json");
    let keep = format!("keep_in = \"{}\"\n", kept.display());
    {
        let lab = lab(&(plain(&issuer) + &keep)).await;
        let token = signer.sign(&claims(&lab.clock));
        assert_eq!(ask(&lab.anonymous(), &token).await, 200);
    }
    issuer.set("/keys", Reply::Silence);
    let tables = plain(&issuer) + &keep;
    let again = lab(&tables).await;
    let token = signer.sign(&claims(&again.clock));
    assert_eq!(ask(&again.anonymous(), &token).await, 200);
    // What is in the file is not believed blindly.
    std::fs::write(&kept, "{}").unwrap();
    let tables = tables.replace("\"2s\"", "\"300ms\"");
    let fresh = lab(&tables).await;
    assert_eq!(ask(&fresh.anonymous(), &token).await, 503);
}

#[tokio::test]
async fn discovery_leads_to_the_keys_of_the_issuer_itself_alone() {
    let signer = Signer::new("a");
    for own in [true, false] {
        let issuer = Issuer::start().await;
        issuer.publish(&[&signer]);
        let url = format!("http://{}", issuer.address);
        let named = if own { url.clone() } else { format!("{url}/") };
        let configuration = json!({"issuer": named, "jwks_uri": format!("{url}/keys")});
        let reply = Reply::document(&configuration.to_string(), "");
        issuer.set("/.well-known/openid-configuration", reply);
        let lab = lab(&format!(
            "[providers.login]\nkind = \"oidc\"\nissuers = [\"{url}\"]\n\
             min_refresh = \"50ms\"\ndanger_allow_http = true\n"
        ))
        .await;
        let mut claims = claims(&lab.clock);
        claims["iss"] = json!(url);
        let status = ask(&lab.anonymous(), &signer.sign(&claims)).await;
        assert_eq!(status, if own { 200 } else { 503 });
        assert_eq!(issuer.asked("/keys") > 0, own);
    }
}

/// The verifier of a configuration, without a gateway around it.
fn verifier(tables: &str, clock: &ManualClock) -> (Verifier, TokenMetrics) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config.toml");
    let text = format!(
        "{tables}\n[listeners.edge]\naddress = \"127.0.0.1:0\"\n\
         [upstreams.origin]\nservers = [\"127.0.0.1:1\"]\n"
    );
    std::fs::write(&path, text).unwrap();
    let settings = config::load(&path, &Environment::default()).unwrap();
    let metrics = TokenMetrics::default();
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let verifier = Verifier::load(&settings.tokens, None, &clock, metrics.clone());
    (verifier.unwrap(), metrics)
}

#[tokio::test]
async fn ten_thousand_unknown_keys_cause_one_fetch_in_an_interval() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    let fields = "Cache-Control: max-age=3600\r\n";
    issuer.set("/keys", Reply::document(&key_set(&[&signer]), fields));
    let clock = ManualClock::stopped_now();
    let tables = plain(&issuer).replace("\"50ms\"", "\"1h\"");
    let (verifier, _) = verifier(&tables, &clock);
    let verifier = Arc::new(verifier);
    let keeper = Arc::clone(&verifier);
    let keeper = tokio::spawn(async move { keeper.keep().await });
    let now = clock.now();
    let good = Secret::new(signer.sign(&claims(&clock)));
    assert!(verifier.verify(&good, now).await.is_ok());
    let genuine = signer.sign(&claims(&clock));
    let (_, rest) = genuine.split_once('.').unwrap();
    for n in 0..10_000 {
        use base64::Engine as _;
        let header = json!({"alg": "ES256", "kid": format!("k{n}")}).to_string();
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
        let token = Secret::new(format!("{header}.{rest}"));
        let flaw = verifier.verify(&token, now).await.unwrap_err();
        assert_eq!(flaw, Flaw::UnknownKey);
    }
    assert_eq!(issuer.asked("/keys"), 1);
    assert!(verifier.verify(&good, now).await.is_ok());
    keeper.abort();
}

#[tokio::test]
async fn those_who_wait_for_a_key_wait_for_one_fetch() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    issuer.publish(&[&signer]);
    let clock = ManualClock::stopped_now();
    let tables = plain(&issuer).replace("\"50ms\"", "\"1h\"");
    let (verifier, metrics) = verifier(&tables, &clock);
    let verifier = Arc::new(verifier);
    let keeper = Arc::clone(&verifier);
    let keeper = tokio::spawn(async move { keeper.keep().await });
    let token = Arc::new(Secret::new(signer.sign(&claims(&clock))));
    let now = clock.now();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (verifier, token) = (Arc::clone(&verifier), Arc::clone(&token));
            tokio::spawn(async move { verifier.verify(&token, now).await.is_ok() })
        })
        .collect();
    for one in waiting {
        assert!(one.await.unwrap());
    }
    assert_eq!(issuer.asked("/keys"), 1);
    assert_eq!(metrics.hits.get() + metrics.misses.get(), 100);
    keeper.abort();
}

#[tokio::test]
async fn rubbish_is_remembered_within_bounds_and_displaces_nothing_good() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    issuer.publish(&[&signer]);
    let clock = ManualClock::stopped_now();
    let tables = plain(&issuer).replace("\"50ms\"", "\"1h\"");
    let bounds = "[tokens]\ncache_entries = 1\nrefused_entries = 10\n";
    let (verifier, metrics) = verifier(&format!("{bounds}{tables}"), &clock);
    let verifier = Arc::new(verifier);
    let keeper = Arc::clone(&verifier);
    let keeper = tokio::spawn(async move { keeper.keep().await });
    let now = clock.now();
    let good = Secret::new(signer.sign(&claims(&clock)));
    assert!(verifier.verify(&good, now).await.is_ok());
    // What was verified while the keys arrived is verified once more.
    assert!(verifier.verify(&good, now).await.is_ok());
    let genuine = signer.sign(&claims(&clock));
    let (message, _) = genuine.rsplit_once('.').unwrap();
    for n in 0..1000_u32 {
        use base64::Engine as _;
        let mut signature = [7; 64];
        signature[..4].copy_from_slice(&n.to_be_bytes());
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature);
        let token = Secret::new(format!("{message}.{signature}"));
        let flaw = verifier.verify(&token, now).await.unwrap_err();
        assert_eq!(flaw, Flaw::Signature);
    }
    // The caches tidy up in steps; far from all of it is kept.
    assert!(metrics.evictions.get() > 500, "{}", metrics.evictions.get());
    let (hits, misses) = (metrics.hits.get(), metrics.misses.get());
    assert!(verifier.verify(&good, now).await.is_ok());
    assert_eq!(
        (metrics.hits.get(), metrics.misses.get()),
        (hits + 1, misses)
    );
    keeper.abort();
}

#[tokio::test]
async fn a_token_that_comes_again_is_known_and_one_that_is_bad_as_well() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    issuer.publish(&[&signer]);
    let lab = lab(&plain(&issuer).replace("\"50ms\"", "\"1h\"")).await;
    let mut earlier = claims(&lab.clock);
    earlier["n"] = json!(0);
    // What is verified with the first keys while they arrive is verified once more.
    assert_eq!(ask(&lab.anonymous(), &signer.sign(&earlier)).await, 200);
    let good = signer.sign(&claims(&lab.clock));
    let bad = Signer::new("a").sign(&claims(&lab.clock));
    for _ in 0..3 {
        assert_eq!(ask(&lab.anonymous(), &good).await, 200);
        assert_eq!(ask(&lab.anonymous(), &bad).await, 401);
    }
    let (_, metrics) = lab.admin("/metrics").await;
    for line in [
        "portcullis_token_lookups_total{result=\"hit\"} 2",
        "portcullis_token_lookups_total{result=\"refused_hit\"} 2",
        "portcullis_token_lookups_total{result=\"miss\"} 3",
        "portcullis_token_key_fetches_total{provider=\"issuer\",result=\"ok\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    lab.clock.advance(Duration::from_secs(3600 + 29));
    assert_eq!(ask(&lab.anonymous(), &good).await, 200);
    lab.clock.advance(Duration::from_secs(1));
    assert_eq!(ask(&lab.anonymous(), &good).await, 401);
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_is_good_with_it_alone() {
    let signer = Signer::new("a");
    let issuer = Issuer::start().await;
    issuer.publish(&[&signer]);
    let config = Config::x509()
        .tls("client_auth = \"optional\"")
        .tables(&plain(&issuer))
        .route("credential = \"user\"");
    let lab = config.start().await;
    let owner = lab.authority.device(SECRET);
    let thumbprint = thumbprint(&owner.chain[0]);
    let mut claims = claims(&lab.clock);
    claims["cnf"] = json!({"x5t#S256": thumbprint});
    let token = signer.sign(&claims);
    let owner = lab.client(Some(owner));
    // Again and again: what is remembered of the token does not make it anybody's.
    for _ in 0..3 {
        assert_eq!(ask(&owner, &token).await, 200);
        assert_eq!(ask(&lab.device(), &token).await, 401);
        assert_eq!(ask(&lab.anonymous(), &token).await, 401);
    }
}

fn thumbprint(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}
