//! Which client certificates open a connection and which do not, in TLS 1.3 and 1.2; and which of
//! those that do name a client.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, NameConstraints, SanType,
};
use rustls::AlertDescription;
use rustls::pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::ca::{authority_params, device, name, valid_for};
use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::frames::{Frames, is_served, until_goaway};
use crate::harness::lab::{Config, REFUSALS, SECRET, VERSIONS};
use crate::harness::{Authority, Identity, Lab, Protocol, Session, der, openssl};

/// Requires certificates, by TLS 1.3 and 1.2.
fn required() -> Config {
    Config::x509().tls("min_version = \"1.2\"")
}

async fn assert_accepted(lab: &Lab, identity: &Identity) {
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(identity.clone()));
        let answer = client.get("/http/m").await.unwrap();
        assert_eq!(answer.status, 200, "{version:?}");
        assert_eq!(
            lab.origin.last_authorization(),
            format!("Client {SECRET}").into_bytes()
        );
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

#[tokio::test]
async fn a_certificate_of_the_configured_authority_opens_a_connection() {
    let lab = required().start().await;
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
}

#[tokio::test]
async fn a_key_of_every_usual_kind_opens_a_connection() {
    let lab = required().start().await;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_accepted(&lab, &lab.authority.issue_with(device(SECRET), key)).await;
    }
    let rsa = KeyPair::from_pem(&openssl::fleet().rsa_2048.key_pem).unwrap();
    assert_accepted(&lab, &lab.authority.issue_with(device(SECRET), rsa)).await;
}

#[tokio::test]
async fn a_version_that_does_not_exist_or_has_no_extensions_is_refused() {
    for config in [required(), required().tls("legacy_certificates = true")] {
        let lab = config.start().await;
        for version in [1, 3, 255] {
            let number = der::element(0x02, &[version]);
            let identity = lab.authority.issue_edited(device(SECRET), |fields| {
                fields[0] = der::element(0xa0, &number);
            });
            for version in VERSIONS {
                let client = lab.client_speaking(version, Some(identity.clone()));
                client.alert().await;
            }
        }
        lab.origin.assert_untouched();
        let number = der::element(0x02, &[2]);
        let version_3 = lab.authority.issue_edited(device(SECRET), |fields| {
            fields[0] = der::element(0xa0, &number);
        });
        assert_accepted(&lab, &version_3).await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let lab = required().start().await;
    assert_refused(&lab, &Authority::new("Other CA").device(SECRET)).await;
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
}

#[tokio::test]
async fn another_authority_with_the_same_name_is_still_another() {
    let lab = required().start().await;
    let impostor = Authority::new("Fleet CA");
    assert_refused(&lab, &impostor.device(SECRET)).await;
    let sent_along = impostor.device(SECRET).with_intermediate(&impostor);
    assert_refused(&lab, &sent_along).await;
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    let lab = required().start().await;
    let key = KeyPair::generate().unwrap();
    let certificate = device(SECRET).self_signed(&key).unwrap();
    let identity = Identity {
        chain: vec![certificate.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        chain_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    assert_refused(&lab, &identity).await;
}

#[tokio::test]
async fn a_certificate_is_accepted_only_within_its_validity() {
    let lab = required().start().await;
    let now = OffsetDateTime::now_utc();
    let issue = |from: OffsetDateTime, to: OffsetDateTime| {
        let mut params = device(SECRET);
        params.not_before = from;
        params.not_after = to;
        lab.authority.issue(params)
    };
    let hour = Duration::from_secs(3600);
    assert_refused(&lab, &issue(now - 2 * hour, now - hour)).await;
    assert_refused(&lab, &issue(now + hour, now + 2 * hour)).await;
    assert_accepted(&lab, &issue(now - hour, now + hour)).await;
}

#[tokio::test]
async fn an_alert_tells_outdated_and_unknown_from_all_else() {
    let lab = required().start().await;
    let now = OffsetDateTime::now_utc();
    let hour = Duration::from_secs(3600);
    let (mut expired, mut early) = (device(SECRET), device(SECRET));
    expired.not_after = now - hour;
    early.not_before = now + hour;
    let misused = with_usages(&[ExtendedKeyUsagePurpose::ServerAuth]);
    let issue = |params| lab.authority.issue(params);
    for (identity, expected) in [
        (issue(expired), AlertDescription::CertificateExpired),
        (issue(early), AlertDescription::CertificateExpired),
        (
            Authority::new("Other CA").device(SECRET),
            AlertDescription::UnknownCA,
        ),
        (issue(misused), AlertDescription::CertificateUnknown),
    ] {
        for version in VERSIONS {
            let client = lab.client_speaking(version, Some(identity.clone()));
            assert_eq!(client.alert().await, expected, "{version:?}");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_certificate_expires_by_the_gateways_clock() {
    let lab = required().start().await;
    let mut params = device(SECRET);
    valid_for(&mut params, Duration::from_secs(3600));
    let identity = lab.authority.issue(params);
    assert_accepted(&lab, &identity).await;
    let before = lab.origin.requests().len();
    lab.clock.advance(Duration::from_secs(3602));
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(identity.clone()));
        assert_eq!(client.alert().await, AlertDescription::CertificateExpired);
    }
    assert_eq!(lab.origin.requests().len(), before);
}

fn with_usages(usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = device(SECRET);
    params.extended_key_usages = usages.to_vec();
    params
}

#[tokio::test]
async fn a_certificate_for_another_purpose_is_refused_even_by_a_lenient_gateway() {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    for config in [required(), required().tls("legacy_certificates = true")] {
        let lab = config.start().await;
        for usages in [&[ServerAuth][..], &[CodeSigning, ServerAuth]] {
            assert_refused(&lab, &lab.authority.issue(with_usages(usages))).await;
        }
        let both = with_usages(&[ServerAuth, ClientAuth]);
        assert_accepted(&lab, &lab.authority.issue(both)).await;
    }
}

#[tokio::test]
async fn a_certificate_without_a_purpose_needs_legacy_certificates() {
    let strict = required().start().await;
    assert_refused(&strict, &strict.authority.issue(with_usages(&[]))).await;
    let lenient = required().tls("legacy_certificates = true").start().await;
    assert_accepted(&lenient, &lenient.authority.issue(with_usages(&[]))).await;
}

#[tokio::test]
async fn an_authoritys_own_certificate_is_no_devices() {
    for config in [required(), required().tls("legacy_certificates = true")] {
        let lab = config.start().await;
        let mut params = device(SECRET);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_refused(&lab, &lab.authority.issue(params)).await;
        let mut params = device(SECRET);
        params.is_ca = IsCa::ExplicitNoCa;
        assert_accepted(&lab, &lab.authority.issue(params)).await;
    }
}

#[tokio::test]
async fn a_certificate_with_a_turned_bit_is_refused() {
    let lab = required().start().await;
    let good = lab.authority.device(SECRET);
    assert_refused(&lab, &good.clone().tampered()).await;
    assert_accepted(&lab, &good).await;
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let lab = required().start().await;
    let stolen = lab.authority.device(SECRET);
    let thief = Authority::new("Thief").device("thief");
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(stolen.clone().with_key_of(&thief)));
        // RFC 8446 §4.4.3 names decrypt_error; any alert will do.
        client.alert().await;
    }
    lab.origin.assert_untouched();
    assert_accepted(&lab, &stolen).await;
}

#[tokio::test]
async fn a_chain_that_is_no_certificate_is_refused() {
    let lab = required().start().await;
    let good = lab.authority.device(SECRET);
    for broken in [&b"\x30\x00"[..], b"not DER", &good.chain[0][..100]] {
        let mut identity = good.clone();
        identity.chain = vec![broken.to_vec().into()];
        for version in VERSIONS {
            let client = lab.client_speaking(version, Some(identity.clone()));
            client.alert().await;
        }
    }
    lab.origin.assert_untouched();
    assert_accepted(&lab, &good).await;
}

#[tokio::test]
async fn a_huge_chain_is_refused_and_the_gateway_serves_on() {
    let lab = required().start().await;
    let good = lab.authority.device(SECRET);
    let padding = lab.authority.intermediate("Padding");
    let mut huge = good.clone();
    huge.chain
        .extend(std::iter::repeat_n(padding.der().clone(), 500));
    for version in VERSIONS {
        let client = lab.client_speaking(version, Some(huge.clone()));
        client.refusal().await;
    }
    lab.origin.assert_untouched();
    assert_accepted(&lab, &good).await;
}

/// `leaf.crt`, a device's certificate for `leaf.key`, of the authority `ca` in the same folder.
fn certify(folder: &Path) {
    std::fs::write(folder.join("leaf.ext"), "extendedKeyUsage = clientAuth\n").unwrap();
    openssl::openssl(
        folder,
        &format!("req -new -key leaf.key -out leaf.csr -subj /CN={SECRET}"),
    );
    openssl::openssl(
        folder,
        "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile leaf.ext -out leaf.crt",
    );
}

/// Whether a device of the gateway's authority is let in with the key that `make` writes to `leaf.key`.
async fn assert_key_is(lab: &Lab, accepted: bool, make: impl FnOnce(&Path)) {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("ca.crt"), lab.authority.pem()).unwrap();
    std::fs::write(folder.join("ca.key"), lab.authority.key_pem()).unwrap();
    make(folder);
    certify(folder);
    lab.pass_a_minute();
    for version in ["-tls1_3", "-tls1_2"] {
        let answer = openssl::ask(lab, folder, version).await;
        let is_served = answer.contains("HTTP/1.1 200");
        assert_eq!(is_served, accepted, "{version}: {answer}");
        let is_refused = answer.contains("alert");
        assert_eq!(is_refused, !accepted, "{version}: {answer}");
    }
    if !accepted {
        lab.origin.assert_untouched();
    }
}

#[tokio::test]
async fn a_device_with_a_weak_rsa_key_is_refused() {
    let lab = required().start().await;
    let of = |bits: &'static str| {
        move |folder: &Path| openssl::openssl(folder, &format!("genrsa -out leaf.key {bits}"))
    };
    assert_key_is(&lab, false, of("1024")).await;
    assert_key_is(&lab, true, of("2048")).await;
}

/// A signature with such a key costs the gateway many times what one with an ordinary key does. The
/// primes of these are Mersenne's: others of that size take minutes to be found.
#[tokio::test]
async fn a_device_with_an_oversized_rsa_key_is_refused() {
    let lab = required().start().await;
    let of = |pem: &'static str| {
        move |folder: &Path| std::fs::write(folder.join("leaf.key"), pem).unwrap()
    };
    assert_key_is(&lab, false, of(include_str!("fixtures/rsa_15636.pem"))).await;
    assert_key_is(&lab, true, of(include_str!("fixtures/rsa_7640.pem"))).await;
}

#[tokio::test]
async fn an_authority_with_a_weak_rsa_key_vouches_for_nobody() {
    let lab = required().start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    std::fs::write(
        folder.join("leaf.key"),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    for (bits, accepted) in [(1024, false), (2048, true)] {
        let authority =
            format!("req -x509 -newkey rsa:{bits} -nodes -keyout ca.key -out ca.crt -subj /CN=CA");
        openssl::openssl(folder, &authority);
        certify(folder);
        let pem = std::fs::read_to_string(folder.join("ca.crt")).unwrap();
        lab.write("certs/ca.crt", &pem);
        lab.reload().unwrap();
        lab.pass_a_minute();
        let identity = openssl::identity(folder, "leaf");
        if accepted {
            assert_accepted(&lab, &identity).await;
        } else {
            assert_refused(&lab, &identity).await;
        }
    }
}

#[tokio::test]
async fn where_certificates_are_required_nobody_connects_without_one() {
    let lab = required().start().await;
    for version in VERSIONS {
        let alert = lab.client_speaking(version, None).alert().await;
        assert_eq!(alert, AlertDescription::CertificateRequired, "{version:?}");
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn where_certificates_are_optional_a_route_decides() {
    let config = required().tls("client_auth = \"optional\"");
    let lab = config.start().await;
    for version in VERSIONS {
        let client = lab.client_speaking(version, None);
        assert_eq!(client.get("/http/m").await.unwrap().status, 401);
    }
    lab.origin.assert_untouched();
    for version in VERSIONS {
        let client = lab.client_speaking(version, None);
        assert_eq!(client.get("/public/m").await.unwrap().status, 200);
    }
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
}

#[tokio::test]
async fn where_certificates_are_optional_a_bad_one_is_still_refused() {
    let config = required().tls("client_auth = \"optional\"");
    let lab = config.start().await;
    assert_refused(&lab, &Authority::new("Other CA").device(SECRET)).await;
}

#[tokio::test]
async fn where_certificates_are_off_none_is_asked_for_and_none_counts() {
    let lab = required().tls("client_auth = \"off\"").start().await;
    for version in VERSIONS {
        let device = lab.client_speaking(version, Some(lab.authority.device(SECRET)));
        assert_eq!(device.get("/http/m").await.unwrap().status, 401);
    }
    lab.origin.assert_untouched();
    let anonymous = lab.anonymous();
    assert_eq!(anonymous.get("/public/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn every_authority_of_a_bundle_is_trusted() {
    let mut lab = required().start().await;
    let second = Authority::new("Second CA");
    assert_refused(&lab, &second.device(SECRET)).await;

    let bundle = format!("{}{}", lab.authority.pem(), second.pem());
    lab.write("certs/ca.crt", &bundle);
    lab.reload().unwrap();
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
    assert_accepted(&lab, &second.device(SECRET)).await;

    lab.write("certs/ca.crt", lab.authority.pem());
    lab.write("certs/second.crt", second.pem());
    lab.config = required().tls("client_ca = [\"certs/ca.crt\", \"certs/second.crt\"]");
    lab.reload().unwrap();
    assert_accepted(&lab, &lab.authority.device(SECRET)).await;
    assert_accepted(&lab, &second.device(SECRET)).await;
}

#[tokio::test]
async fn an_intermediate_counts_if_the_client_sends_it() {
    let lab = required().start().await;
    let intermediate = lab.authority.intermediate("Factory");
    let device = intermediate.device(SECRET);
    assert_refused(&lab, &device).await;
    assert_accepted(&lab, &device.with_intermediate(&intermediate)).await;
}

#[tokio::test]
async fn an_intermediate_of_another_authority_does_not_count() {
    let lab = required().start().await;
    let intermediate = Authority::new("Fleet CA").intermediate("Factory");
    let device = intermediate.device(SECRET).with_intermediate(&intermediate);
    assert_refused(&lab, &device).await;
}

#[tokio::test]
async fn a_device_issues_no_certificates() {
    let lab = required().start().await;
    let mut params = authority_params("Device");
    params.is_ca = IsCa::ExplicitNoCa;
    let not_an_authority = lab.authority.intermediate_with(params);
    let issued = not_an_authority
        .device(SECRET)
        .with_intermediate(&not_an_authority);
    assert_refused(&lab, &issued).await;
}

#[tokio::test]
async fn an_intermediate_alone_can_be_the_authority() {
    let lab = required().start().await;
    let factory = lab.authority.intermediate("Factory");
    lab.write("certs/ca.crt", factory.pem());
    lab.reload().unwrap();
    assert_refused(&lab, &lab.authority.device(SECRET)).await;
    assert_accepted(&lab, &factory.device(SECRET)).await;
}

#[tokio::test]
async fn a_chain_may_be_as_long_as_configured_and_no_longer() {
    for depth in [0, 1] {
        let config = required().tls(&format!("max_chain_depth = {depth}"));
        let lab = config.start().await;
        let first = lab.authority.intermediate("First");
        let second = first.intermediate("Second");
        let below = [
            lab.authority.device(SECRET),
            first.device(SECRET).with_intermediate(&first),
            second
                .device(SECRET)
                .with_intermediate(&second)
                .with_intermediate(&first),
        ];
        assert_refused(&lab, &below[depth + 1]).await;
        assert_accepted(&lab, &below[depth]).await;
    }
}

#[tokio::test]
async fn a_path_length_constraint_holds() {
    for (length, accepted) in [(0, false), (1, true)] {
        let lab = required().start().await;
        let mut params = authority_params("Constrained");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
        let constrained = lab.authority.intermediate_with(params);
        let below = constrained.intermediate("Below");
        let device = below
            .device(SECRET)
            .with_intermediate(&below)
            .with_intermediate(&constrained);
        if accepted {
            assert_accepted(&lab, &device).await;
        } else {
            assert_refused(&lab, &device).await;
        }
    }
}

#[tokio::test]
async fn a_name_constraint_holds() {
    let lab = required().start().await;
    let mut params = authority_params("Constrained");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("fleet.test".into())],
        excluded_subtrees: vec![],
    });
    let constrained = lab.authority.intermediate_with(params);
    let named = |host: &str| {
        let mut params = device(SECRET);
        params.subject_alt_names = vec![SanType::DnsName(host.try_into().unwrap())];
        constrained.issue(params).with_intermediate(&constrained)
    };
    assert_refused(&lab, &named("a.elsewhere.test")).await;
    assert_accepted(&lab, &named("a.fleet.test")).await;
}

/// Subjects that pass every check of the chain and yet name no client (S11, W15).
fn unusable_subjects() -> Vec<(&'static str, Vec<u8>)> {
    let cn = |string, value: &[u8]| der::name(&[der::attribute(der::COMMON_NAME, string, value)]);
    let utf8 = |value: &[u8]| cn(der::UTF8_STRING, value);
    let one = der::attribute(der::COMMON_NAME, der::UTF8_STRING, b"one");
    let two = der::attribute(der::COMMON_NAME, der::UTF8_STRING, b"two");
    let organisation = |value| der::attribute(der::ORGANISATION, der::UTF8_STRING, value);
    vec![
        ("empty subject", der::name(&[])),
        ("no CN", der::name(&[organisation(b"Fleet")])),
        (
            "O that looks like a CN",
            der::name(&[organisation(b"x,CN=victim")]),
        ),
        ("two CNs", der::name(&[one.clone(), two.clone()])),
        ("the same CN twice", der::name(&[one.clone(), one.clone()])),
        ("two CNs in one set", der::name(&[[one, two].concat()])),
        ("empty CN", utf8(b"")),
        ("a space", utf8(b" ")),
        ("a leading space", utf8(b" one")),
        ("a trailing space", utf8(b"one ")),
        ("NUL", utf8(b"one\0two")),
        ("line break", utf8(b"one\r\nX-Injected: two")),
        ("tab", utf8(b"one\ttwo")),
        ("delete", utf8(b"one\x7f")),
        ("not UTF-8", utf8(b"\xff\xfe")),
        (
            "not ASCII in an ASCII string",
            cn(der::PRINTABLE_STRING, "é".as_bytes()),
        ),
        ("BMPString", cn(der::BMP_STRING, b"\0o\0n\0e")),
        ("TeletexString", cn(der::TELETEX_STRING, b"one")),
        ("more than 1 KiB", utf8(&[b'x'; 1025])),
    ]
}

#[tokio::test]
async fn a_certificate_that_names_no_client_is_forbidden_by_every_protocol() {
    let lab = required().start().await;
    for (what, subject) in unusable_subjects() {
        let client = lab.client(Some(lab.authority.issue_to(&subject)));
        for protocol in EVERY_PROTOCOL {
            let path = if protocol == Protocol::WebSocket {
                "/ws/m"
            } else {
                "/http/m"
            };
            let answer = client.send(protocol, path, &[]).await.unwrap();
            assert_eq!(answer.status, 403, "{what} {protocol:?}");
            assert_eq!(answer.json()["code"], "forbidden", "{what} {protocol:?}");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn presenting_a_secret_does_not_make_up_for_an_unusable_certificate() {
    let lab = required().start().await;
    for (what, subject) in unusable_subjects() {
        let client = lab.client(Some(lab.authority.issue_to(&subject)));
        for secret in ["one", "two", "victim", ""] {
            let fields = [("authorization", &*format!("Client {secret}"))];
            let answer = client.send(Protocol::Http1, "/http/m", &fields).await;
            assert_eq!(answer.unwrap().status, 403, "{what} {secret}");
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn the_common_name_reaches_the_upstream_exactly() {
    let lab = required().start().await;
    let long = "x".repeat(1024);
    for secret in [
        "ab=cd",
        "a,b",
        "a+b\\c",
        "\"a\"",
        "a;b",
        "<a>",
        "#a",
        "a b",
        "a%0d%0ab",
        "CN=victim",
        "é",
        "/a",
        "Client a",
        &long,
    ] {
        let client = lab.client(Some(lab.authority.device(secret)));
        let answer = client.get("/http/m").await.unwrap();
        assert_eq!(answer.status, 200, "{secret}");
        let expected = format!("Client {secret}");
        assert_eq!(lab.origin.last_authorization(), expected.as_bytes());
    }
}

#[tokio::test]
async fn the_common_name_is_found_wherever_it_stands() {
    let lab = required().start().await;
    let own = |string| der::attribute(der::COMMON_NAME, string, SECRET.as_bytes());
    let forged = der::attribute(der::ORGANISATION, der::UTF8_STRING, b"x,CN=victim");
    for subject in [
        der::name(&[forged.clone(), own(der::UTF8_STRING)]),
        der::name(&[own(der::UTF8_STRING), forged.clone()]),
        der::name(&[[own(der::UTF8_STRING), forged.clone()].concat()]),
        der::name(&[own(der::PRINTABLE_STRING)]),
        der::name(&[own(der::IA5_STRING)]),
    ] {
        assert_accepted(&lab, &lab.authority.issue_to(&subject)).await;
    }
}

#[tokio::test]
async fn names_beside_the_subject_are_never_the_client() {
    let lab = required().start().await;
    let mut params = device(SECRET);
    params.distinguished_name = name(&[(DnType::OrganizationName, "Fleet")]);
    params.subject_alt_names = vec![SanType::DnsName("victim".try_into().unwrap())];
    let client = lab.client(Some(lab.authority.issue(params)));
    assert_eq!(client.get("/http/m").await.unwrap().status, 403);
    lab.origin.assert_untouched();
}

fn valid_for_an_hour(lab: &Lab) -> Identity {
    let mut params = device(SECRET);
    valid_for(&mut params, Duration::from_secs(3600));
    lab.authority.issue(params)
}

#[tokio::test]
async fn a_certificate_that_expires_on_a_live_connection_is_worth_nothing_from_then_on() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let lab = required().start().await;
        let client = lab.client(Some(valid_for_an_hour(&lab)));
        let mut session = Session::open(&client, protocol).await.unwrap();
        assert_eq!(session.get("/http/m").await.unwrap().status, 200);
        lab.clock.advance(Duration::from_secs(1800));
        assert_eq!(session.get("/http/m").await.unwrap().status, 200);
        lab.clock.advance(Duration::from_secs(1802));
        let answer = session.get("/http/m").await.unwrap();
        assert_eq!(answer.status, 403, "{protocol:?}");
        assert_eq!(lab.origin.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_websocket_is_closed_when_its_certificate_expires() {
    let lab = required().start().await;
    let mut params = device(SECRET);
    valid_for(&mut params, Duration::from_secs(2));
    let mortal = lab.client(Some(lab.authority.issue(params)));
    let (mut mortal, _) = mortal.open_websocket("/ws/m", &[]).await.unwrap();
    let (mut lasting, _) = lab.device().open_websocket("/ws/m", &[]).await.unwrap();
    assert_closed_by_policy(&mut mortal).await;
    assert_echoes(&mut lasting).await;
}

#[tokio::test]
async fn a_websocket_is_closed_when_its_authority_is_no_longer_trusted() {
    let lab = required().start().await;
    let second = Authority::new("Second CA");
    lab.write(
        "certs/ca.crt",
        &format!("{}{}", lab.authority.pem(), second.pem()),
    );
    lab.reload().unwrap();
    let dropped = lab.device();
    let (mut dropped, _) = dropped.open_websocket("/ws/m", &[]).await.unwrap();
    let kept = lab.client(Some(second.device(SECRET)));
    let (mut kept, _) = kept.open_websocket("/ws/m", &[]).await.unwrap();
    lab.write("certs/ca.crt", second.pem());
    lab.reload().unwrap();
    assert_closed_by_policy(&mut dropped).await;
    assert_echoes(&mut kept).await;
}

#[tokio::test]
async fn an_open_connection_ends_when_trust_changes() {
    let lab = required().start().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let request = b"GET /http/m HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    lab.write("certs/ca.crt", Authority::new("Second CA").pem());
    lab.reload().unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
    ended.await.expect("the connection ends").unwrap();
}

#[tokio::test]
async fn an_http2_client_that_ignores_the_farewell_is_not_served_when_trust_has_changed() {
    let lab = required().start().await;
    let mut connection = lab.device().connect(&["h2"]).await.unwrap();
    connection.write_all(&Frames::new().0).await.unwrap();
    assert!(is_served(&mut connection, 1, "/http/m").await);
    // Trust that has not changed is no reason to refuse what may be on its way.
    lab.reload().unwrap();
    until_goaway(&mut connection).await;
    assert!(is_served(&mut connection, 3, "/http/m").await);
    lab.write("certs/ca.crt", Authority::new("Second CA").pem());
    lab.reload().unwrap();
    // Another client is refused by then.
    lab.device().alert().await;
    assert!(!is_served(&mut connection, 5, "/http/m").await);
    assert_eq!(lab.origin.requests().len(), 2);
}

#[tokio::test]
async fn a_websocket_is_closed_when_certificates_are_no_longer_asked_for() {
    let mut lab = required().start().await;
    let (mut socket, _) = lab.device().open_websocket("/ws/m", &[]).await.unwrap();
    lab.config = required().tls("client_auth = \"optional\"");
    lab.reload().unwrap();
    assert_echoes(&mut socket).await;
    lab.config = required().tls("client_auth = \"off\"");
    lab.reload().unwrap();
    assert_closed_by_policy(&mut socket).await;
}

#[tokio::test]
async fn a_websocket_is_closed_when_its_policy_is_gone() {
    let policy = "[tls.policies.gone]\nserver_names = [\"gone.test\"]";
    let mut lab = required().start().await;
    let server = lab.authority.server(&["localhost", "gone.test"]);
    lab.write_identity("server", &server);
    lab.config = required().tables(policy);
    lab.reload().unwrap();
    let device = lab.device().asking_for("gone.test");
    let (mut socket, _) = device.open_websocket("/ws/m", &[]).await.unwrap();
    lab.reload().unwrap();
    assert_echoes(&mut socket).await;
    lab.config = required();
    lab.write("certs/ca.crt", Authority::new("Second CA").pem());
    lab.reload().unwrap();
    assert_closed_by_policy(&mut socket).await;
}

async fn assert_closed_by_policy<IO>(socket: &mut tokio_tungstenite::WebSocketStream<IO>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let closed = tokio::time::timeout(Duration::from_secs(10), socket.next());
    let message = closed.await.expect("the gateway closes").unwrap().unwrap();
    match message {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Policy),
        other => panic!("{other:?}"),
    }
}

async fn assert_echoes<IO>(socket: &mut tokio_tungstenite::WebSocketStream<IO>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use futures_util::SinkExt;
    socket.send(Message::text("still here")).await.unwrap();
    let echo = socket.next().await.unwrap().unwrap();
    assert_eq!(echo, Message::text("still here"));
}
