//! Certificates of X.509 version 1, which is what the reference Makefile makes: refused by default,
//! accepted with `tls.legacy_certificates` if a configured authority has signed them itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use portcullis::tls::Reason;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::ca::{authority_params, device};
use crate::harness::demo::start_gateway_with_log;
use crate::harness::lab::{Config, REFUSALS, SECRET, VERSIONS};
use crate::harness::openssl::{fleet, identity, version_1};
use crate::harness::{Authority, Client, Identity, Lab, openssl};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn strict() -> Config {
    Config::x509().tls("min_version = \"1.2\"")
}

fn lenient() -> Config {
    strict().tls("legacy_certificates = true")
}

/// A gateway that trusts this authority's clients.
async fn trusting(ca_pem: &str, config: Config) -> Lab {
    let lab = config.start().await;
    lab.pass_a_minute();
    lab.write("certs/ca.crt", ca_pem);
    lab.reload().unwrap();
    lab
}

async fn assert_accepted(lab: &Lab, identity: &Identity) {
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(identity.clone()));
        let answer = client.get("/http/m").await.unwrap();
        assert_eq!(answer.status, 200, "{version:?}");
        let expected = format!("Client {SECRET}");
        assert_eq!(lab.origin.last_authorization(), expected.as_bytes());
    }
}

async fn assert_refused(lab: &Lab, identity: &Identity) {
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(identity.clone()));
        let alert = client.alert().await;
        assert!(REFUSALS.contains(&alert), "{version:?}: {alert:?}");
    }
    lab.origin.assert_untouched();
}

/// A version 1 certificate with [`SECRET`] from an authority of the harness.
fn issued_by(authority: &Authority) -> Identity {
    version_1(
        authority.pem(),
        &authority.key_pem(),
        SECRET,
        &fleet().rsa_2048.key_pem,
    )
}

#[tokio::test]
async fn certificates_of_the_reference_makefile_are_of_version_1() {
    // Version 1 is said by leaving the version out: the certificate begins with its serial number.
    for identity in [&fleet().rsa_2048, &fleet().rsa_4096] {
        let signed = crate::harness::der::children(&identity.chain[0]).remove(0);
        let fields = crate::harness::der::children(&signed);
        assert_eq!(fields[0][0], 0x02, "an INTEGER");
        assert_eq!(fields.len(), 6, "no extensions");
    }
}

#[tokio::test]
async fn certificates_of_the_reference_makefile_are_refused_by_default() {
    let lab = trusting(&fleet().ca_pem, strict()).await;
    assert_refused(&lab, &fleet().rsa_2048).await;
    assert_refused(&lab, &fleet().rsa_4096).await;
}

#[tokio::test]
async fn certificates_of_the_reference_makefile_are_accepted_by_a_lenient_gateway() {
    let lab = trusting(&fleet().ca_pem, lenient()).await;
    assert_accepted(&lab, &fleet().rsa_2048).await;
    assert_accepted(&lab, &fleet().rsa_4096).await;
}

#[tokio::test]
async fn version_3_certificates_pass_a_lenient_gateway_as_before() {
    let lab = lenient().start().await;
    assert_refused(&lab, &Authority::new("Fleet CA").device(SECRET)).await;
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
}

#[tokio::test]
async fn a_version_1_certificate_of_an_elliptic_curve_is_accepted_too() {
    let lab = lenient().start().await;
    let key_pem = lab.authority.device("").key_pem;
    let authority = &lab.authority;
    let device = version_1(authority.pem(), &authority.key_pem(), SECRET, &key_pem);
    lab.pass_a_minute();
    assert_accepted(&lab, &device).await;
}

#[tokio::test]
async fn a_version_1_certificate_of_another_authority_with_the_same_name_is_refused() {
    let lab = lenient().start().await;
    let impostor = issued_by(&Authority::new("Fleet CA"));
    let own = issued_by(&lab.authority);
    lab.pass_a_minute();
    assert_refused(&lab, &impostor).await;
    assert_accepted(&lab, &own).await;
}

#[tokio::test]
async fn of_two_authorities_with_the_same_name_each_is_tried() {
    let lab = lenient().start().await;
    let (first, second) = (Authority::new("Fleet CA"), Authority::new("Fleet CA"));
    lab.write("certs/ca.crt", &format!("{}{}", first.pem(), second.pem()));
    lab.reload().unwrap();
    let devices = [issued_by(&first), issued_by(&second)];
    let dropped = issued_by(&lab.authority);
    lab.pass_a_minute();
    assert_refused(&lab, &dropped).await;
    for device in devices {
        assert_accepted(&lab, &device).await;
    }
}

#[tokio::test]
async fn a_version_1_certificate_of_an_unknown_authority_is_refused() {
    let lab = lenient().start().await;
    let stranger = issued_by(&Authority::new("Other CA"));
    lab.pass_a_minute();
    assert_refused(&lab, &stranger).await;
}

#[tokio::test]
async fn a_version_1_certificate_issued_by_an_intermediate_is_refused() {
    let lab = lenient().start().await;
    let intermediate = lab.authority.intermediate("Factory");
    let device = issued_by(&intermediate).with_intermediate(&intermediate);
    lab.pass_a_minute();
    assert_refused(&lab, &device).await;

    // Its version 3 twin shows that the intermediate is good.
    let device = intermediate.device(SECRET).with_intermediate(&intermediate);
    assert_accepted(&lab, &device).await;
}

#[tokio::test]
async fn a_version_1_certificate_issues_no_others() {
    let lab = lenient().start().await;
    let issuer = issued_by(&lab.authority);
    let of_version_1 = version_1(
        &issuer.chain_pem,
        &issuer.key_pem,
        "victim",
        &fleet().rsa_4096.key_pem,
    );
    let mut with_issuer = of_version_1.clone();
    with_issuer.chain.extend(issuer.chain.clone());
    lab.pass_a_minute();
    assert_refused(&lab, &of_version_1).await;
    assert_refused(&lab, &with_issuer).await;
    assert_accepted(&lab, &issuer).await;
}

#[tokio::test]
async fn a_version_1_certificate_expires_like_any_other() {
    let lab = trusting(&fleet().ca_pem, lenient()).await;
    let lasting = || lab.authority.device(SECRET);
    lab.write(
        "certs/ca.crt",
        &format!("{}{}", fleet().ca_pem, lab.authority.pem()),
    );
    lab.reload().unwrap();
    // The Makefile's devices live for 730 days, its authority for 1095.
    lab.clock.advance(731 * DAY);
    assert_refused(&lab, &fleet().rsa_2048).await;
    assert_accepted(&lab, &lasting()).await;
}

#[tokio::test]
async fn a_version_1_certificate_lives_until_its_last_day() {
    let lab = trusting(&fleet().ca_pem, lenient()).await;
    lab.clock.advance(729 * DAY);
    assert_accepted(&lab, &fleet().rsa_2048).await;
}

#[tokio::test]
async fn a_version_1_certificate_is_refused_before_its_first_second() {
    // The clock stands where it stood before the certificate was made.
    let lab = lenient().start().await;
    let key_pem = &fleet().rsa_2048.key_pem;
    let authority = &lab.authority;
    wait_for_the_next_second();
    let device = version_1(authority.pem(), &authority.key_pem(), SECRET, key_pem);
    assert_refused(&lab, &device).await;
    lab.pass_a_minute();
    assert_accepted(&lab, &device).await;
}

fn wait_for_the_next_second() {
    use portcullis::clock::{Clock, SystemClock};
    let now = SystemClock.now();
    while SystemClock.now() == now {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_version_1_certificate_of_an_expired_authority_is_refused() {
    let lab = lenient().start().await;
    let mut params = authority_params("Mortal CA");
    crate::harness::ca::valid_for(&mut params, 10 * DAY);
    let mortal = Authority::with(params);
    let bundle = format!("{}{}", mortal.pem(), lab.authority.pem());
    lab.write("certs/ca.crt", &bundle);
    lab.reload().unwrap();
    let device = issued_by(&mortal);
    lab.pass_a_minute();
    lab.clock.advance(11 * DAY);
    assert_refused(&lab, &device).await;
}

#[tokio::test]
async fn an_authority_that_may_not_sign_certificates_vouches_for_no_version_1() {
    for (usages, accepted) in [
        (vec![KeyUsagePurpose::CrlSign], false),
        (vec![KeyUsagePurpose::KeyCertSign], true),
        (vec![], true),
    ] {
        let mut params = authority_params("Authority");
        params.key_usages.clone_from(&usages);
        let authority = Authority::with(params);
        let lab = lenient().start().await;
        lab.write("certs/ca.crt", authority.pem());
        lab.reload().unwrap();
        let device = issued_by(&authority);
        lab.pass_a_minute();
        if accepted {
            assert_accepted(&lab, &device).await;
        } else {
            assert_refused(&lab, &device).await;
        }
    }
}

#[tokio::test]
async fn a_version_1_certificate_with_a_turned_bit_is_refused() {
    let lab = trusting(&fleet().ca_pem, lenient()).await;
    let good = &fleet().rsa_2048;
    assert_refused(&lab, &good.clone().tampered()).await;

    let mut renamed = good.clone();
    let mut leaf = renamed.chain[0].to_vec();
    let at = leaf
        .windows(SECRET.len())
        .position(|window| window == SECRET.as_bytes())
        .unwrap();
    leaf[at] ^= 1;
    renamed.chain = vec![leaf.into()];
    assert_refused(&lab, &renamed).await;
    assert_accepted(&lab, good).await;
}

#[tokio::test]
async fn a_version_1_certificate_that_claims_extensions_is_refused() {
    // RFC 5280 §4.1.2.9: extensions are version 3's. Nobody reads them in a version 1 certificate,
    // so one that says CA:TRUE or names another purpose must not pass as if it said nothing.
    let lab = lenient().start().await;
    let mut authority = device(SECRET);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut server = device(SECRET);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for params in [authority, server, device(SECRET)] {
        let claiming = lab.authority.issue_edited(params, |fields| {
            fields.remove(0);
        });
        assert_refused(&lab, &claiming).await;
    }
    let plain = lab.authority.issue_edited(device(SECRET), |fields| {
        fields.remove(0);
        fields.pop();
    });
    assert_accepted(&lab, &plain).await;
}

#[tokio::test]
async fn a_version_1_certificate_signed_with_a_weak_digest_is_refused() {
    for (digest, accepted) in [("sha1", false), ("sha256", true), ("sha512", true)] {
        let lab = trusting(&fleet().ca_pem, lenient()).await;
        let folder = tempfile::TempDir::new().unwrap();
        let folder = folder.path();
        make_leaf(folder, 2048, digest);
        lab.pass_a_minute();
        let device = identity(folder, "leaf");
        if accepted {
            assert_accepted(&lab, &device).await;
        } else {
            assert_refused(&lab, &device).await;
        }
    }
}

#[tokio::test]
async fn a_version_1_device_with_a_weak_rsa_key_is_refused() {
    for (bits, accepted) in [(1024, false), (2048, true)] {
        let lab = trusting(&fleet().ca_pem, lenient()).await;
        let folder = tempfile::TempDir::new().unwrap();
        let folder = folder.path();
        make_leaf(folder, bits, "sha256");
        lab.pass_a_minute();
        for version in ["-tls1_3", "-tls1_2"] {
            let answer = openssl::ask(&lab, folder, version).await;
            let what = format!("{bits} {version}: {answer}");
            assert_eq!(answer.contains("HTTP/1.1 200"), accepted, "{what}");
            assert_eq!(answer.contains("alert"), !accepted, "{what}");
        }
    }
}

/// `leaf.crt` and `leaf.key` in `folder`, of version 1, from the Makefile's authority.
fn make_leaf(folder: &Path, bits: u16, digest: &str) {
    std::fs::write(folder.join("ca.crt"), &fleet().ca_pem).unwrap();
    std::fs::write(folder.join("ca.key"), &fleet().ca_key_pem).unwrap();
    openssl::openssl(
        folder,
        &format!(
            "req -new -newkey rsa:{bits} -nodes -keyout leaf.key -out leaf.csr -subj /CN={SECRET}"
        ),
    );
    openssl::openssl(
        folder,
        &format!(
            "x509 -req -{digest} -days 730 -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
             -out leaf.crt"
        ),
    );
}

#[tokio::test]
async fn a_websocket_of_version_1_is_closed_once_legacy_certificates_are_off() {
    let mut lab = trusting(&fleet().ca_pem, lenient()).await;
    let device = lab.client(Some(fleet().rsa_2048.clone()));
    let (mut socket, _) = device.open_websocket("/ws/m", &[]).await.unwrap();
    lab.reload().unwrap();
    socket.send(Message::text("still here")).await.unwrap();
    let echo = socket.next().await.unwrap().unwrap();
    assert_eq!(echo, Message::text("still here"));
    lab.config = strict();
    lab.reload().unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(10), socket.next());
    match closed.await.unwrap().unwrap().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Policy),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_version_1_certificate_without_its_key_is_refused() {
    let lab = trusting(&fleet().ca_pem, lenient()).await;
    let stolen = fleet().rsa_2048.clone().with_key_of(&fleet().rsa_4096);
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(stolen.clone()));
        client.alert().await;
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_version_1_certificate_must_name_a_client_too() {
    let lab = lenient().start().await;
    // What the reference Makefile makes when CLIENT_SECRET is not given: one blank.
    let key_pem = &fleet().rsa_2048.key_pem;
    let authority = &lab.authority;
    let blank = version_1(authority.pem(), &authority.key_pem(), " ", key_pem);
    lab.pass_a_minute();
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(blank.clone()));
        assert_eq!(client.get("/http/m").await.unwrap().status, 403);
    }
    lab.origin.assert_untouched();
}

#[test]
fn the_refusal_names_the_setting() {
    let text = Reason::Version1.to_string();
    assert!(text.contains("tls.legacy_certificates = true"), "{text}");
    let text = Reason::NoUsage.to_string();
    assert!(text.contains("tls.legacy_certificates = true"), "{text}");
}

/// What the real binary logs when this device is refused.
async fn logged_refusal(identity: &Identity, ca_pem: &str) -> String {
    let lab = strict().start().await;
    lab.write("certs/ca.crt", ca_pem);
    lab.settings().unwrap();
    let text = std::fs::read_to_string(lab.path("config.toml")).unwrap();
    let text = text.replace("level = \"error\"", "level = \"info\"");
    std::fs::write(lab.path("own.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .args(["run", "--config"])
        .arg(lab.path("own.toml"))
        .env_remove("AUTH");
    let (_running, address, log) = start_gateway_with_log(command);
    let client = Client::new(address, lab.authority.der(), Some(identity.clone()));
    client.alert().await;
    loop {
        let line = log.recv_timeout(Duration::from_secs(30)).unwrap();
        if line.contains("client certificate") {
            return line;
        }
    }
}

#[tokio::test]
async fn the_log_line_of_a_refusal_names_the_setting_and_not_the_secret() {
    let line = logged_refusal(&fleet().rsa_2048, &fleet().ca_pem).await;
    assert!(line.contains("tls.legacy_certificates = true"), "{line}");
    assert!(line.contains("version 1"), "{line}");
    assert!(!line.contains(SECRET), "{line}");
}

#[tokio::test]
async fn the_log_line_of_another_refusal_does_not_name_the_setting() {
    let stranger = Authority::new("Other CA").device(SECRET);
    let line = logged_refusal(&stranger, &fleet().ca_pem).await;
    assert!(!line.contains("legacy_certificates"), "{line}");
    assert!(line.contains("no authority in tls.client_ca"), "{line}");
    assert!(!line.contains(SECRET), "{line}");
}
