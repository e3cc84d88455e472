//! Files of authorities, certificates and keys that are not what they should be: each stops the
//! start with an error that names it, and at a reload the last good ones serve on. Never is
//! anything else trusted in their place (S9, W31).

use std::process::{Command, Output};
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::AlertDescription;
use time::OffsetDateTime;

use crate::harness::ca::{authority_params, device, valid_for};
use crate::harness::lab::{Config, SECRET};
use crate::harness::openssl::{fleet, version_1};
use crate::harness::{Authority, Identity, Lab, Protocol, Session, Site};

const PUBLISHED: &str = include_str!("fixtures/published-ca.crt");

/// The exit code for a configuration at fault.
const EXIT_CONFIG: i32 = 78;

/// What becomes of a file.
enum Becomes {
    Missing,
    Directory,
    Text(String),
}

use Becomes::{Directory, Missing, Text};

fn spoil(lab: &Lab, name: &str, becomes: &Becomes) {
    let path = lab.path(name);
    std::fs::remove_file(&path).unwrap();
    match becomes {
        Missing => {}
        // Unreadable even for root, whom permissions do not stop.
        Directory => std::fs::create_dir(&path).unwrap(),
        Text(text) => lab.write(name, text),
    }
}

fn expired_authority() -> Authority {
    let mut params = authority_params("Expired CA");
    valid_for(&mut params, Duration::ZERO);
    params.not_after = params.not_before + Duration::from_secs(1);
    Authority::with(params)
}

fn truncated(pem: &str) -> String {
    pem.lines().take(3).collect::<Vec<_>>().join("\n")
}

fn damaged(pem: &str) -> String {
    pem.replacen("MII", "!!!", 1)
}

/// PEM around what is no certificate.
fn hollow() -> String {
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()
}

/// Files of authorities that must not be taken, and what the error says of them.
fn unfit_authorities() -> Vec<(&'static str, Becomes, &'static str)> {
    let good = Authority::new("Good CA");
    let mut no_authority = authority_params("No CA");
    no_authority.is_ca = IsCa::ExplicitNoCa;
    let of_version_1 = version_1(
        &fleet().ca_pem,
        &fleet().ca_key_pem,
        "CA",
        &fleet().rsa_2048.key_pem,
    );
    vec![
        ("missing", Missing, "cannot read"),
        ("unreadable", Directory, "cannot read"),
        ("empty", Text(String::new()), "holds no certificate"),
        ("garbage", Text("not PEM\n".into()), "holds no certificate"),
        ("a key alone", Text(good.key_pem()), "holds no certificate"),
        (
            "truncated",
            Text(truncated(good.pem())),
            "is not a PEM file",
        ),
        ("damaged", Text(damaged(good.pem())), "is not a PEM file"),
        ("hollow", Text(hollow()), "is not a PEM file"),
        (
            "a good one and a hollow one",
            Text(format!("{}{}", good.pem(), hollow())),
            "is not a PEM file",
        ),
        (
            "a device's",
            Text(good.device(SECRET).chain_pem),
            "is not a certificate authority",
        ),
        (
            "CA:FALSE",
            Text(Authority::with(no_authority).pem().into()),
            "is not a certificate authority",
        ),
        (
            "version 1",
            Text(of_version_1.chain_pem),
            "is not a certificate authority",
        ),
        (
            "expired",
            Text(expired_authority().pem().into()),
            "has expired",
        ),
        ("published", Text(PUBLISHED.into()), "published"),
        (
            "a good one and a published one",
            Text(format!("{}{PUBLISHED}", good.pem())),
            "published",
        ),
    ]
}

/// Files of the server's own certificate that cannot be served.
fn unfit_certificates(lab: &Lab) -> Vec<(&'static str, Becomes, &'static str)> {
    let other = lab.authority.server(&["localhost"]);
    vec![
        ("missing", Missing, "cannot read"),
        ("unreadable", Directory, "cannot read"),
        ("empty", Text(String::new()), "holds no certificate"),
        ("garbage", Text("not PEM\n".into()), "holds no certificate"),
        ("hollow", Text(hollow()), "cannot be used"),
        ("another key's", Text(other.chain_pem), "cannot be used"),
    ]
}

/// Files of the server's key that cannot be served.
fn unfit_keys() -> Vec<(&'static str, Becomes, &'static str)> {
    let hollow = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let other = KeyPair::generate().unwrap().serialize_pem();
    let encrypted = hollow.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let encrypted_by_openssl = hollow.replace(
        "AAAA",
        "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA",
    );
    vec![
        ("missing", Missing, "cannot read the private key"),
        ("unreadable", Directory, "cannot read the private key"),
        ("empty", Text(String::new()), "cannot read the private key"),
        (
            "garbage",
            Text("not PEM".into()),
            "cannot read the private key",
        ),
        ("hollow", Text(hollow.into()), "cannot be used"),
        ("another's", Text(other), "cannot be used"),
        ("encrypted", Text(encrypted), "it is encrypted"),
        (
            "encrypted by OpenSSL",
            Text(encrypted_by_openssl),
            "it is encrypted",
        ),
    ]
}

fn portcullis(command: &str, lab: &Lab) -> Output {
    lab.settings().unwrap();
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args([command, "--config"])
        .arg(lab.path("config.toml"))
        .env_remove("AUTH")
        .output()
        .unwrap()
}

/// The start is refused, with a message that names the file and the fault.
fn assert_stops(lab: &Lab, name: &str, what: &str, fault: &str) {
    for command in ["check", "run"] {
        let output = portcullis(command, lab);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{what}: {said}");
        assert!(said.contains(name), "{what}: {said}");
        assert!(said.contains(fault), "{what}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{what}: {said}");
    }
}

/// A reload is refused for the same reason, and what served before serves on.
async fn assert_keeps_serving(lab: &Lab, name: &str, what: &str, fault: &str) {
    let mut open = Session::open(&lab.device(), Protocol::Http1).await.unwrap();
    let said = lab.reload().unwrap_err();
    assert!(said.contains(name), "{what}: {said}");
    assert!(said.contains(fault), "{what}: {said}");
    assert_eq!(open.get("/http/m").await.unwrap().status, 200, "{what}");
    assert_eq!(
        lab.device().get("/http/m").await.unwrap().status,
        200,
        "{what}"
    );
    let before = lab.origin.requests().len();
    let stranger = Authority::new("Other CA").device(SECRET);
    let alert = lab.client(Some(stranger)).alert().await;
    assert_eq!(alert, AlertDescription::UnknownCA, "{what}");
    assert_eq!(lab.origin.requests().len(), before, "{what}");
}

#[tokio::test]
async fn good_files_start() {
    let lab = Lab::x509().await;
    let output = portcullis("check", &lab);
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn an_unfit_authority_stops_the_start() {
    for (what, becomes, fault) in unfit_authorities() {
        let lab = Lab::x509().await;
        spoil(&lab, "certs/ca.crt", &becomes);
        assert_stops(&lab, "certs/ca.crt", what, fault);
    }
}

#[tokio::test]
async fn an_unfit_authority_at_a_reload_changes_nothing() {
    for (what, becomes, fault) in unfit_authorities() {
        let lab = Lab::x509().await;
        spoil(&lab, "certs/ca.crt", &becomes);
        assert_keeps_serving(&lab, "certs/ca.crt", what, fault).await;
    }
}

#[tokio::test]
async fn an_unfit_second_file_of_authorities_is_no_better() {
    for (what, becomes, fault) in unfit_authorities() {
        let mut lab = Lab::x509().await;
        lab.write("certs/second.crt", Authority::new("Second CA").pem());
        lab.config = Config::x509().tls("client_ca = [\"certs/ca.crt\", \"certs/second.crt\"]");
        lab.reload().unwrap();
        spoil(&lab, "certs/second.crt", &becomes);
        assert_keeps_serving(&lab, "certs/second.crt", what, fault).await;
    }
}

#[tokio::test]
async fn an_unfit_authority_stops_the_start_of_an_optional_policy_too() {
    for (what, becomes, fault) in unfit_authorities() {
        let config = Config::x509().tls("client_auth = \"optional\"\nlegacy_certificates = true");
        let lab = config.start().await;
        spoil(&lab, "certs/ca.crt", &becomes);
        assert_stops(&lab, "certs/ca.crt", what, fault);
    }
}

#[tokio::test]
async fn where_no_certificate_is_asked_for_no_authority_is_read() {
    let lab = Config::x509().tls("client_auth = \"off\"").start().await;
    spoil(&lab, "certs/ca.crt", &Missing);
    let output = portcullis("check", &lab);
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn an_unfit_server_certificate_stops_the_start() {
    let count = unfit_certificates(&Lab::x509().await).len();
    for index in 0..count {
        let lab = Lab::x509().await;
        let (what, becomes, fault) = unfit_certificates(&lab).remove(index);
        spoil(&lab, "server.crt", &becomes);
        assert_stops(&lab, "server.crt", what, fault);
        assert_keeps_serving(&lab, "server.crt", what, fault).await;
    }
}

#[tokio::test]
async fn an_unfit_server_key_stops_the_start() {
    for (what, becomes, fault) in unfit_keys() {
        let lab = Lab::x509().await;
        spoil(&lab, "server.key", &becomes);
        assert_stops(&lab, "server.key", what, fault);
        assert_keeps_serving(&lab, "server.key", what, fault).await;
    }
}

#[tokio::test]
async fn an_unfit_file_of_a_named_policy_stops_the_start() {
    let policy =
        "[tls.policies.other]\nserver_names = [\"other.test\"]\nclient_ca = [\"other.crt\"]";
    for (what, becomes, fault) in unfit_authorities() {
        let mut lab = Lab::x509().await;
        lab.write("other.crt", lab.authority.pem());
        lab.config = Config::x509().tables(policy);
        lab.reload().unwrap();
        spoil(&lab, "other.crt", &becomes);
        assert_keeps_serving(&lab, "other.crt", what, fault).await;
        assert_stops(&lab, "other.crt", what, fault);
    }
}

#[tokio::test]
async fn a_bundle_with_an_expired_authority_and_a_valid_one_starts() {
    let lab = Lab::x509().await;
    let expired = expired_authority();
    let bundle = format!("{}{}", expired.pem(), lab.authority.pem());
    lab.write("certs/ca.crt", &bundle);
    let output = portcullis("check", &lab);
    assert!(output.status.success(), "{output:?}");
    lab.reload().unwrap();
    let stale = lab.client(Some(expired.device(SECRET)));
    assert_eq!(stale.alert().await, AlertDescription::UnknownCA);
    lab.origin.assert_untouched();
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_file_mended_after_a_failed_reload_is_taken_by_the_next() {
    let lab = Lab::x509().await;
    let second = Authority::new("Second CA");
    spoil(&lab, "certs/ca.crt", &Text(truncated(second.pem())));
    lab.reload().unwrap_err();
    lab.write("certs/ca.crt", second.pem());
    lab.reload().unwrap();
    let former = lab.device().alert().await;
    assert_eq!(former, AlertDescription::UnknownCA);
    lab.origin.assert_untouched();
    let device = lab.client(Some(second.device(SECRET)));
    assert_eq!(device.get("/http/m").await.unwrap().status, 200);
}

/// A lab whose upstreams can be reached by TLS, with files of their own.
async fn lab_of_servers() -> Lab {
    let upstream = "[upstreams.behind]\nservers = [\"127.0.0.1:1\"]\n[upstreams.behind.tls]\n\
                    ca = [\"servers.crt\"]\ncertificate = \"own.crt\"\nkey = \"own.key\"";
    let mut lab = Lab::x509().await;
    lab.write("servers.crt", Authority::new("Servers").pem());
    lab.write_identity("own", &lab.authority.device("gateway"));
    lab.config = Config::x509().tables(upstream);
    lab.reload().unwrap();
    lab
}

#[tokio::test]
async fn an_unfit_authority_of_servers_stops_the_start() {
    for (what, becomes, fault) in unfit_authorities() {
        let lab = lab_of_servers().await;
        spoil(&lab, "servers.crt", &becomes);
        assert_keeps_serving(&lab, "servers.crt", what, fault).await;
        assert_stops(&lab, "servers.crt", what, fault);
    }
}

#[tokio::test]
async fn an_unfit_key_for_servers_stops_the_start() {
    for (what, becomes, fault) in unfit_keys() {
        let lab = lab_of_servers().await;
        spoil(&lab, "own.key", &becomes);
        assert_keeps_serving(&lab, "own.key", what, fault).await;
        assert_stops(&lab, "own.key", what, fault);
    }
}

#[tokio::test]
async fn check_names_unfit_files_of_listeners_and_upstreams_at_once() {
    let lab = lab_of_servers().await;
    spoil(&lab, "server.key", &Missing);
    spoil(&lab, "servers.crt", &Missing);
    let output = portcullis("check", &lab);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{said}");
    for part in ["server.key", "upstreams.behind.tls.ca", "servers.crt"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn check_names_every_unfit_file_once_with_its_key() {
    let mut lab = lab_of_servers().await;
    let tables = "[tls.policies.same]\nserver_names = [\"same.test\"]\n\
                  [tls.policies.other]\nserver_names = [\"other.test\"]\n\
                  certificate = \"other.crt\"\nkey = \"own.key\"\n";
    lab.write_identity("other", &lab.authority.server(&["other.test"]));
    lab.config = lab
        .config
        .clone()
        .tls("client_ca = [\"one.crt\", \"certs/ca.crt\", \"two.crt\"]")
        .tables(tables);
    for name in ["server.crt", "server.key", "servers.crt", "own.crt"] {
        spoil(&lab, name, &Missing);
    }
    let output = portcullis("check", &lab);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{said}");
    let faults = [
        ("tls.certificate: cannot read ", "server.crt"),
        ("tls.key: cannot read the private key ", "server.key"),
        ("tls.client_ca: cannot read ", "one.crt"),
        ("tls.client_ca: cannot read ", "two.crt"),
        ("tls.policies.other.key: certificate ", "cannot be used"),
        ("upstreams.behind.tls.ca: cannot read ", "servers.crt"),
        ("upstreams.behind.tls.certificate: cannot read ", "own.crt"),
    ];
    assert_eq!(said.lines().count(), faults.len(), "{said}");
    for (key, fault) in faults {
        let is_named = |line: &str| line.starts_with(key) && line.contains(fault);
        assert!(said.lines().any(is_named), "{key}: {said}");
    }
}

/// Certificates that serve, and what the log says of each.
fn doubtful_certificates(site: &Site) -> Vec<(Identity, &'static str)> {
    let hour = Duration::from_secs(3600);
    let now = OffsetDateTime::now_utc();
    let valid = |from: OffsetDateTime, to: OffsetDateTime| {
        let mut params = device("localhost");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (from, to);
        site.authority.issue(params)
    };
    vec![
        (valid(now - 2 * hour, now - hour), "it has expired"),
        (valid(now + hour, now + 2 * hour), "it is not yet valid"),
        (
            site.authority.device("localhost"),
            "its extended key usage does not include serverAuth",
        ),
    ]
}

#[tokio::test]
async fn a_certificate_that_clients_will_refuse_is_warned_of() {
    let site = Site::new().await;
    site.configure("", "");
    for (identity, doubt) in doubtful_certificates(&site) {
        let warning = format!("clients will refuse the server's certificate: {doubt}");
        site.write_identity(&site.authority.server(&["localhost"]));
        let mut gateway = site.run(&[]).await;
        site.write_identity(&identity);
        let ended = site.start("check", &[]).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains(&warning), "{}", ended.stderr);
        assert!(ended.stderr.contains("\"policy\":\"default\""));
        gateway.process.signal("HUP").await;
        gateway.process.says("configuration reloaded").await;
        assert_eq!(gateway.process.lines_with(&warning), 1);
        let started = site.run(&[]).await;
        assert_eq!(started.process.lines_with(&warning), 1);
    }
}

#[tokio::test]
async fn a_certificate_that_clients_accept_is_not_warned_of() {
    let site = Site::new().await;
    site.configure("", "");
    let mut of_no_usage = device("localhost");
    of_no_usage.extended_key_usages = vec![];
    for identity in [
        site.authority.server(&["localhost"]),
        site.authority.issue(of_no_usage),
    ] {
        site.write_identity(&identity);
        let ended = site.start("check", &[]).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stderr, "");
    }
}

#[tokio::test]
async fn a_metric_tells_when_each_policys_certificate_expires() {
    let mut lab = Lab::x509().await;
    let until = |seconds: i64| {
        let mut params = device("localhost");
        params.not_after = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        lab.authority.issue(params)
    };
    let shown = |policy: &str, seconds: i64| {
        let labels = format!("{{listener=\"edge\",policy=\"{policy}\"}}");
        format!("portcullis_certificate_not_after_seconds{labels} {seconds}\n")
    };
    let (soon, late) = (4_000_000_000, 4_000_086_400);
    lab.write_identity("server", &until(soon));
    lab.write_identity("other", &until(late));
    lab.config = Config::x509().tables(
        "[tls.policies.other]\nserver_names = [\"other.test\"]\n\
         certificate = \"other.crt\"\nkey = \"other.key\"\n",
    );
    lab.reload().unwrap();
    let (_, page) = lab.admin("/metrics").await;
    assert!(page.contains(&shown("default", soon)), "{page}");
    assert!(page.contains(&shown("other", late)), "{page}");

    lab.write_identity("server", &until(late));
    lab.config = Config::x509();
    lab.reload().unwrap();
    let (_, page) = lab.admin("/metrics").await;
    assert!(page.contains(&shown("default", late)), "{page}");
    assert!(!page.contains("policy=\"other\""), "{page}");
}
