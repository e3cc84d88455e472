//! Upstreams that know certificates by the fields of other proxies: told when asked, by the gateway
//! alone.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use rcgen::{DnType, SanType};

use crate::harness::ca;
use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::kept::in_parts;
use crate::harness::lab::{Config, SECRET};
use crate::harness::origin::Received;
use crate::harness::{Identity, Lab, Protocol};

const ALL: &str = "forward_certificate = [\"rfc9440\", \"xfcc\", \"nginx\", \"traefik\"]";
const RFC9440: [&str; 2] = ["client-cert", "client-cert-chain"];
const XFCC: &str = "x-forwarded-client-cert";
const NGINX: [&str; 6] = [
    "x-ssl-client-cert",
    "x-ssl-client-verify",
    "x-ssl-client-s-dn",
    "x-ssl-client-i-dn",
    "x-ssl-client-serial",
    "x-ssl-client-fingerprint",
];
const TRAEFIK: [&str; 2] = [
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
];
const FORGERY: &str = "f0rged";

fn every_name() -> Vec<&'static str> {
    [&RFC9440[..], &[XFCC], &NGINX, &TRAEFIK].concat()
}

fn path(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 | Protocol::Http2 => "/http/m",
        Protocol::WebSocket => "/ws/m",
    }
}

/// A device below an intermediate, with names of every kind.
fn device(lab: &Lab) -> Identity {
    let issuing = lab.authority.intermediate("Issuing, \"Fleet\" CA");
    let mut params = ca::device(SECRET);
    let odd = "x,CN=victim+\\\"é <odd>;";
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, odd);
    params.distinguished_name.push(DnType::CountryName, "FR");
    params.subject_alt_names = vec![
        SanType::URI("spiffe://fleet/dev-1".try_into().unwrap()),
        SanType::URI("urn:x;By=evil,a=b".try_into().unwrap()),
        SanType::DnsName("dev-1.example".try_into().unwrap()),
        SanType::DnsName("evil\";Hash=0".try_into().unwrap()),
        SanType::IpAddress([192, 0, 2, 7].into()),
        SanType::Rfc822Name("dev@example.com".try_into().unwrap()),
    ];
    params.serial_number = Some(vec![0x8f, 0x0a, 0x01].into());
    issuing.issue(params).with_intermediate(&issuing)
}

fn of_request(request: &Received, name: &str) -> String {
    let values = request.all(name);
    assert_eq!(values.len(), 1, "{name}: {values:?}");
    values[0].to_owned()
}

async fn told(lab: &Lab, identity: Identity, protocol: Protocol) -> Received {
    let forged: Vec<_> = every_name()
        .into_iter()
        .map(|name| (name, FORGERY))
        .collect();
    let client = lab.client(Some(identity));
    let answer = client.send(protocol, path(protocol), &forged).await;
    let status = answer.unwrap().status.as_u16();
    assert!(matches!(status, 101 | 200), "{status}");
    let request = lab.origin.requests().pop().unwrap();
    for (name, value) in &request.headers {
        assert!(!value.to_str().unwrap().contains(FORGERY), "{name}");
    }
    request
}

#[tokio::test]
async fn rfc9440_carries_the_leaf_and_the_rest_of_the_chain() {
    let lab = Config::x509().route(ALL).start().await;
    let identity = device(&lab);
    let bytes = |at: usize| format!(":{}:", STANDARD.encode(&identity.chain[at]));
    for protocol in EVERY_PROTOCOL {
        let request = told(&lab, identity.clone(), protocol).await;
        assert_eq!(of_request(&request, RFC9440[0]), bytes(0));
        assert_eq!(of_request(&request, RFC9440[1]), bytes(1));
        let alone = told(&lab, lab.authority.device(SECRET), protocol).await;
        assert!(!alone.headers.contains_key(RFC9440[1]));
    }
}

#[tokio::test]
async fn xfcc_is_one_element_that_no_name_can_leave() {
    let lab = Config::x509().route(ALL).start().await;
    let identity = device(&lab);
    for protocol in EVERY_PROTOCOL {
        let request = told(&lab, identity.clone(), protocol).await;
        let element = of_request(&request, XFCC);
        let pairs = pairs(&element);
        let of = |key: &str| -> Vec<&str> {
            let of_key = pairs.iter().filter(|(known, _)| known == key);
            of_key.map(|(_, value)| value.as_str()).collect()
        };
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            ["Hash", "Cert", "Chain", "Subject", "URI", "URI", "DNS"]
        );
        assert_eq!(
            of("Hash"),
            [printed(&identity, "-fingerprint -sha256")
                .replace(':', "")
                .to_lowercase()]
        );
        assert_eq!(decoded(of("Cert")[0]), leaf_pem(&identity));
        assert_eq!(
            decoded(of("Chain")[0]),
            identity.chain_pem.replace("\r\n", "\n")
        );
        let subject = printed(&identity, "-subject -nameopt RFC2253");
        assert!(
            element.contains(&format!(";Subject=\"{subject}\";")),
            "{element}"
        );
        assert_eq!(of("URI"), ["spiffe://fleet/dev-1", "urn:x;By=evil,a=b"]);
        assert_eq!(of("DNS"), ["dev-1.example"]);
    }
}

/// `Key=Value` pairs; a value in quotes ends at a quote that nothing escapes.
fn pairs(element: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = element;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|letter| {
                    let ends = letter == '"' && !escaped;
                    escaped = letter == '\\' && !escaped;
                    ends
                });
                quoted.split_at(end.unwrap())
            }
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        found.push((key.to_owned(), value.to_owned()));
        rest = after.trim_start_matches('"').trim_start_matches(';');
    }
    assert_eq!(rest, "", "{element}");
    found
}

#[tokio::test]
async fn nginx_s_fields_say_what_openssl_prints() {
    let lab = Config::x509().route(ALL).start().await;
    let identity = device(&lab);
    for protocol in EVERY_PROTOCOL {
        let request = told(&lab, identity.clone(), protocol).await;
        let value = |name| of_request(&request, name);
        assert_eq!(decoded(&value("x-ssl-client-cert")), leaf_pem(&identity));
        assert_eq!(value("x-ssl-client-verify"), "SUCCESS");
        for (name, options) in [
            ("x-ssl-client-s-dn", "-subject -nameopt RFC2253"),
            ("x-ssl-client-i-dn", "-issuer -nameopt RFC2253"),
            ("x-ssl-client-serial", "-serial"),
        ] {
            assert_eq!(value(name), printed(&identity, options), "{name}");
        }
        let fingerprint = printed(&identity, "-fingerprint -sha1").replace(':', "");
        assert_eq!(
            value("x-ssl-client-fingerprint"),
            fingerprint.to_lowercase()
        );
    }
}

#[tokio::test]
async fn traefik_s_fields_hold_the_chain_and_what_the_leaf_says() {
    let lab = Config::x509().route(ALL).start().await;
    let identity = device(&lab);
    let chain: Vec<String> = identity
        .chain
        .iter()
        .map(|der| STANDARD.encode(der))
        .collect();
    for protocol in EVERY_PROTOCOL {
        let request = told(&lab, identity.clone(), protocol).await;
        assert_eq!(of_request(&request, TRAEFIK[0]), chain.join(","));
        let info = decoded(&of_request(&request, TRAEFIK[1]));
        let (names, rest) = info.split_once(";NB=").unwrap();
        assert_eq!(
            names,
            format!("Subject=\"C=FR,O=Fleet,CN={SECRET}\";Issuer=\"\"")
        );
        let (_, names) = rest.split_once(";SAN=").unwrap();
        assert_eq!(
            names,
            "\"dev-1.example,dev@example.com,192.0.2.7,spiffe://fleet/dev-1\""
        );
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_none_to_tell_of() {
    let route = format!("credential = \"none\"\n{ALL}");
    let lab = Config::x509()
        .tls("client_auth = \"optional\"")
        .route(&route)
        .start()
        .await;
    for protocol in EVERY_PROTOCOL {
        let forged: Vec<_> = every_name()
            .into_iter()
            .map(|name| (name, FORGERY))
            .collect();
        let anonymous = lab.anonymous();
        let answer = anonymous.send(protocol, path(protocol), &forged);
        assert!(matches!(answer.await.unwrap().status.as_u16(), 101 | 200));
        let request = lab.origin.requests().pop().unwrap();
        for name in every_name() {
            let expected: &[&str] = match name {
                "x-ssl-client-verify" => &["NONE"],
                _ => &[],
            };
            assert_eq!(request.all(name), expected, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_meanwhile_counts_for_none() {
    let route = format!("credential = \"none\"\n{ALL}");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let lab = Config::x509().route(&route).start().await;
        let mut params = ca::device(SECRET);
        ca::valid_for(&mut params, Duration::from_secs(3600));
        let client = lab.client(Some(lab.authority.issue(params)));
        let mut kept = client.keep(protocol).await.unwrap();
        kept.get("/http/m", &[]).await.unwrap();
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-ssl-client-verify"), ["SUCCESS"]);
        lab.clock.advance(Duration::from_secs(7200));
        kept.get("/http/m", &[]).await.unwrap();
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-ssl-client-verify"), ["NONE"]);
        assert!(!request.headers.contains_key("client-cert"));
    }
}

#[tokio::test]
async fn a_route_that_asks_for_nothing_tells_nothing() {
    let lab = Lab::x509().await;
    for protocol in EVERY_PROTOCOL {
        let request = told(&lab, device(&lab), protocol).await;
        for name in every_name() {
            assert!(!request.headers.contains_key(name), "{protocol:?} {name}");
        }
    }
}

#[tokio::test]
async fn a_route_tells_in_its_own_dialect_alone() {
    let lab = Config::x509()
        .route("forward_certificate = [\"nginx\"]")
        .start()
        .await;
    let request = told(&lab, device(&lab), Protocol::Http2).await;
    for name in every_name() {
        let is_asked_for = NGINX.contains(&name);
        assert_eq!(request.headers.contains_key(name), is_asked_for, "{name}");
    }
}

#[tokio::test]
async fn trailers_tell_nothing_of_a_certificate() {
    let lab = Config::x509().route(ALL).start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut trailers = HeaderMap::new();
        for name in every_name() {
            trailers.insert(name, FORGERY.parse().unwrap());
        }
        let body = in_parts(vec!["hello".into()], trailers);
        let fields = [("trailer", "client-cert, x-ssl-client-s-dn")];
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let answer = kept.request(Method::POST, "/http/m", &fields, body).await;
        assert_eq!(answer.unwrap().status, 200);
        let request = lab.origin.requests().pop().unwrap();
        assert!(!request.headers.contains_key("trailer"));
        for (name, value) in &request.headers {
            assert!(!value.to_str().unwrap().contains(FORGERY), "{name}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_at_the_start() {
    let mut lab = Lab::x509().await;
    lab.config.route = "forward_certificate = [\"apache\"]".into();
    let problem = lab.settings().unwrap_err().to_string();
    assert!(
        problem.contains("routes.http.forward_certificate"),
        "{problem}"
    );
    assert!(problem.contains("\"xfcc\""), "{problem}");

    lab.config.route.clear();
    lab.config.mqtt_route = ALL.into();
    let problem = lab.settings().unwrap_err().to_string();
    assert!(problem.contains("which has no fields"), "{problem}");

    lab.config.mqtt_route.clear();
    lab.config.route = ALL.into();
    assert!(lab.settings().is_ok());
    lab.config.auth = Some("key");
    let problem = lab.settings().unwrap_err().to_string();
    assert!(
        problem.contains("no client shows a certificate"),
        "{problem}"
    );
}

fn decoded(text: &str) -> String {
    let decoded = percent_decode_str(text).decode_utf8().unwrap();
    decoded.into_owned()
}

fn leaf_pem(identity: &Identity) -> String {
    printed(identity, "") + "\n"
}

/// What `openssl x509` prints of the leaf, without the name before it.
fn printed(identity: &Identity, options: &str) -> String {
    let show = if options.is_empty() { "" } else { "-noout" };
    let mut command = Command::new("openssl")
        .args(["x509", "-inform", "DER"])
        .args(show.split_whitespace())
        .args(options.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(&identity.chain[0]).unwrap();
    drop(stdin);
    let output = command.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.trim_end();
    match text.split_once('=') {
        Some((_, value)) if !options.is_empty() => value.to_owned(),
        _ => text.to_owned(),
    }
}
