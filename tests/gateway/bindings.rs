//! Bindings: what clients present and what their certificates say, where that is not the CN alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{DnType, OtherNameValue, SanType, SerialNumber};

use crate::harness::Lab;
use crate::harness::ca::{Identity, device, name};
use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Wire};

/// Longer than a common name may be (RFC 5280, ub-common-name).
const LONG_SECRET: &str = "atom_0123456789abcdef0123456789abcdef_\
                           0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A lab whose routes and MQTT listener have this binding.
async fn lab(http: &str, mqtt: &str) -> Lab {
    let tables = format!("[bindings.web]\n{http}\n[bindings.things]\n{mqtt}");
    Config::x509()
        .tables(&tables)
        .route("binding = \"web\"")
        .each_mqtt("binding = \"things\"")
        .start()
        .await
}

/// A certificate with every kind of name, all of them of device `number`.
fn certificate(lab: &Lab, number: u8) -> Identity {
    let mut params = device(SECRET);
    params.serial_number = Some(SerialNumber::from_slice(&[0x5e, number]));
    let upn = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
    let other = OtherNameValue::Utf8String(format!("dev-{number}@fleet"));
    params.subject_alt_names = vec![
        SanType::DnsName(format!("dev-{number}.fleet.example").try_into().unwrap()),
        SanType::URI(format!("urn:dev:{number}").try_into().unwrap()),
        SanType::URI(format!("spiffe://fleet/{number}").try_into().unwrap()),
        SanType::OtherName((upn, other)),
    ];
    lab.authority.issue(params)
}

/// A certificate whose subject names no client.
fn nameless(lab: &Lab, uri: &str) -> Identity {
    let mut params = device(SECRET);
    params.distinguished_name = name(&[(DnType::OrganizationName, "Fleet")]);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    lab.authority.issue(params)
}

async fn status(
    lab: &Lab,
    identity: Identity,
    protocol: Protocol,
    query: &str,
    fields: &[(&'static str, &str)],
) -> u16 {
    let prefix = match protocol {
        Protocol::WebSocket => "/ws",
        Protocol::Http1 | Protocol::Http2 => "/http",
    };
    let path = format!("{prefix}/m/d/c/ch{query}");
    let client = lab.client(Some(identity));
    let answer = client.send(protocol, &path, fields).await.unwrap();
    match answer.status.as_u16() {
        101 => 200,
        status => status,
    }
}

/// Whether the broker has taken the CONNECT, and what it got of it.
async fn taken(
    lab: &Lab,
    transport: Transport,
    identity: Identity,
    connect: &Connect,
    version: Version,
) -> Vec<u8> {
    let index = lab.broker.conversations().len();
    let mut wire = lab.mqtt(transport, Some(identity)).await.unwrap();
    wire.send(&connect.bytes()).await;
    assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
    lab.broker.received(index, 1).await
}

#[tokio::test]
async fn a_bound_client_id_must_be_the_certificates_own() {
    let lab = lab("", "client_id = \"dev-{serial}\"").await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let own = Connect::with_password(version, SECRET).client_id("dev-5e01");
            let received = taken(&lab, transport, certificate(&lab, 1), &own, version).await;
            assert_eq!(received, own.bytes());
            let others = Connect::with_password(version, SECRET).client_id("dev-5e02");
            let before = lab.broker.conversations().len();
            let mut wire = lab
                .mqtt(transport, Some(certificate(&lab, 1)))
                .await
                .unwrap();
            wire.send(&others.bytes()).await;
            wire.ends_with(&version.refused(2, 0x85)).await;
            lab.broker.assert_fewer_than(before + 1).await;
        }
    }
}

#[tokio::test]
async fn a_bound_client_id_cannot_be_left_to_the_broker() {
    let lab = lab("", "client_id = \"dev-{serial}\"").await;
    for transport in EVERY_TRANSPORT {
        let connect = Connect::with_password(Version::V5, SECRET).client_id("");
        let mut wire = lab
            .mqtt(transport, Some(certificate(&lab, 1)))
            .await
            .unwrap();
        wire.send(&connect.bytes()).await;
        wire.ends_with(&Version::V5.refused(2, 0x85)).await;
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_bound_user_name_is_compared_or_filled_in() {
    let lab = lab("", "user_name = \"{san.dns}\"").await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut filled = Connect::with_password(version, SECRET);
            filled.user_name = Some("dev-1.fleet.example".into());
            let bare = Connect::new(version);
            let received = taken(&lab, transport, certificate(&lab, 1), &bare, version).await;
            assert_eq!(received, filled.bytes(), "{version:?}");
            let received = taken(&lab, transport, certificate(&lab, 1), &filled, version).await;
            assert_eq!(received, filled.bytes(), "{version:?}");

            let mut wire = lab
                .mqtt(transport, Some(certificate(&lab, 2)))
                .await
                .unwrap();
            wire.send(&filled.bytes()).await;
            wire.ends_with(&version.not_authorized()).await;
        }
    }
}

/// A client whose opening says `user_name`, in Basic.
async fn opened_as(lab: &Lab, identity: Identity, user_name: &str) -> Wire {
    let basic = STANDARD.encode(format!("{user_name}:{SECRET}"));
    let basic = format!("Basic {basic}");
    let fields = [
        ("authorization", basic.as_str()),
        ("sec-websocket-protocol", "mqtt"),
    ];
    let client = lab.client(Some(identity));
    let opened = client.open_websocket("/mqtt", &fields).await;
    Wire::of_websocket(opened.ok().unwrap().0)
}

#[tokio::test]
async fn a_bound_user_name_in_the_opening_of_a_websocket_reaches_the_broker() {
    let lab = lab("", "user_name = \"{san.dns}\"").await;
    for version in EVERY_VERSION {
        let mut named = Connect::with_password(version, SECRET);
        named.user_name = Some("dev-1.fleet.example".into());
        for connect in [&Connect::new(version), &named] {
            let index = lab.broker.conversations().len();
            let identity = certificate(&lab, 1);
            let mut wire = opened_as(&lab, identity, "dev-1.fleet.example").await;
            wire.send(&connect.bytes()).await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
            assert_eq!(lab.broker.received(index, 1).await, named.bytes());
        }
    }
}

#[tokio::test]
async fn user_names_of_the_opening_and_the_connect_that_differ_are_refused() {
    let lab = lab("", "user_name = \"{san.dns}\"").await;
    let mut params = device(SECRET);
    params.subject_alt_names = ["one.example", "two.example"]
        .map(|name| SanType::DnsName(name.try_into().unwrap()))
        .to_vec();
    let identity = lab.authority.issue(params);
    // Each of the first two would do by itself.
    for (opening, connect) in [
        ("one.example", "two.example"),
        ("one.example", "another.example"),
        ("another.example", "one.example"),
        ("another.example", "another.example"),
    ] {
        for version in EVERY_VERSION {
            let mut named = Connect::with_password(version, SECRET);
            named.user_name = Some(connect.into());
            let mut wire = opened_as(&lab, identity.clone(), opening).await;
            wire.send(&named.bytes()).await;
            let refusal = wire.packet().await.unwrap();
            assert_eq!(refusal[0], 0x20);
            assert_ne!(refusal[3], 0, "{opening} {connect}");
            wire.end().await;
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_bound_user_name_is_filled_in_beside_an_authentication_method() {
    let lab = Config::x509()
        .tables("[bindings.things]\nuser_name = \"{san.dns}\"")
        .each_mqtt("binding = \"things\"")
        .mqtt("enhanced_auth = true")
        .start()
        .await;
    let version = Version::V5;
    for transport in EVERY_TRANSPORT {
        let bare = Connect::new(version).properties(b"\x15\0\x05SCRAM");
        let mut named = Connect::new(version).properties(b"\x15\0\x05SCRAM");
        named.user_name = Some("dev-1.fleet.example".into());
        for connect in [&bare, &named] {
            let received = taken(&lab, transport, certificate(&lab, 1), connect, version).await;
            assert_eq!(received, named.bytes(), "it gets no password");
        }
        let mut wire = lab
            .mqtt(transport, Some(certificate(&lab, 2)))
            .await
            .unwrap();
        wire.send(&named.bytes()).await;
        wire.ends_with(&version.not_authorized()).await;
    }
}

#[tokio::test]
async fn a_user_name_that_a_certificate_gives_twice_is_not_filled_in_but_may_be_either() {
    let lab = lab("", "user_name = \"{san.uri}\"").await;
    let version = Version::V311;
    for given in ["urn:dev:1", "spiffe://fleet/1"] {
        let mut connect = Connect::with_password(version, SECRET);
        connect.user_name = Some(given.into());
        taken(
            &lab,
            Transport::Tls,
            certificate(&lab, 1),
            &connect,
            version,
        )
        .await;
    }
    let mut wire = lab
        .mqtt(Transport::Tls, Some(certificate(&lab, 1)))
        .await
        .unwrap();
    wire.send(&Connect::new(version).bytes()).await;
    wire.ends_with(&version.not_authorized()).await;
}

#[tokio::test]
async fn a_secret_that_is_not_in_the_certificate_is_bound_by_another_name() {
    let binding = "secret = \"presented\"\nclient_id = \"{san.uri}\"";
    let lab = lab("", binding).await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let own = Connect::with_password(version, LONG_SECRET).client_id("urn:dev:7");
            let identity = nameless(&lab, "urn:dev:7");
            let received = taken(&lab, transport, identity, &own, version).await;
            assert_eq!(received, own.bytes());

            let mut wire = lab
                .mqtt(transport, Some(nameless(&lab, "urn:dev:8")))
                .await
                .unwrap();
            wire.send(&own.bytes()).await;
            wire.ends_with(&version.refused(2, 0x85)).await;
            let silent = Connect::new(version).client_id("urn:dev:7");
            let mut wire = lab
                .mqtt(transport, Some(nameless(&lab, "urn:dev:7")))
                .await
                .unwrap();
            wire.send(&silent.bytes()).await;
            wire.ends_with(&version.bad_password()).await;
        }
    }
}

#[tokio::test]
async fn bound_fields_and_parameters_must_be_there_once_and_agree() {
    let binding = "headers = [\"X-Device: {san.other:1.3.6.1.4.1.311.20.2.3}\"]\n\
                   query = [\"id: {serial}\"]";
    let lab = lab(binding, "").await;
    for protocol in EVERY_PROTOCOL {
        let right = [("x-device", "dev-1@fleet")];
        let of = |number| certificate(&lab, number);
        assert_eq!(status(&lab, of(1), protocol, "?id=5e01", &right).await, 200);
        let wrong = [
            (2, "?id=5e01", &right[..]),
            (1, "?id=5e02", &right),
            (1, "", &right),
            (1, "?id=5e01", &[]),
            (1, "?id=5e01", &[("x-device", "dev-2@fleet")]),
            (
                1,
                "?id=5e01",
                &[("x-device", "dev-1@fleet"), ("x-device", "dev-1@fleet")],
            ),
            (1, "?id=5e01&id=5e01", &right),
            (1, "?id=5e01&%49d=5e02", &right),
            (1, "?x=1;id=5e01", &right),
        ];
        for (number, query, fields) in wrong {
            let answer = status(&lab, of(number), protocol, query, fields).await;
            assert_eq!(answer, 403, "{protocol:?} {number} {query} {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_secret_may_be_made_of_other_names_and_goes_on_as_such() {
    let lab = lab("secret = \"{san.dns}:{serial}\"", "").await;
    let secret = "dev-1.fleet.example:5e01";
    for protocol in EVERY_PROTOCOL {
        let own = format!("Client {secret}");
        for fields in [vec![], vec![("authorization", own.as_str())]] {
            let answer = status(&lab, certificate(&lab, 1), protocol, "", &fields).await;
            assert_eq!(answer, 200);
            assert_eq!(lab.origin.last_authorization(), own.as_bytes());
        }
        let cn = format!("Client {SECRET}");
        let fields = [("authorization", cn.as_str())];
        let answer = status(&lab, certificate(&lab, 1), protocol, "", &fields).await;
        assert_eq!(answer, 403, "the CN is no secret here");
    }
}

#[tokio::test]
async fn the_user_name_of_basic_is_bound_where_the_secret_is_presented() {
    let lab = lab("secret = \"presented\"\nuser_name = \"{fingerprint}\"", "").await;
    let identity = certificate(&lab, 1);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &identity.chain[0]);
    let fingerprint: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{LONG_SECRET}")));
    let bare = format!("Client {LONG_SECRET}");
    for protocol in EVERY_PROTOCOL {
        for (value, expected) in [
            (basic(&fingerprint), 200),
            (basic("somebody"), 403),
            (basic(""), 403),
            (bare.clone(), 403),
        ] {
            let fields = [("authorization", value.as_str())];
            let answer = status(&lab, identity.clone(), protocol, "", &fields).await;
            assert_eq!(answer, expected, "{protocol:?}");
        }
        assert_eq!(lab.origin.last_authorization(), bare.as_bytes());
    }
}

#[tokio::test]
async fn a_client_whose_binding_changes_with_a_reload_has_to_come_anew() {
    let mut lab = lab("", "client_id = \"dev-{serial}\"").await;
    let version = Version::V311;
    let connect = Connect::with_password(version, SECRET).client_id("dev-5e01");
    let identity = certificate(&lab, 1);
    let mut wire = lab.mqtt(Transport::Tls, Some(identity)).await.unwrap();
    wire.send(&connect.bytes()).await;
    assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
    lab.config.tables = lab.config.tables.replace("dev-{serial}", "{serial}");
    lab.reload().unwrap();
    wire.end().await;
}

#[tokio::test]
async fn a_client_whose_binding_stays_does_so_whatever_becomes_of_the_others() {
    let mut lab = lab("", "client_id = \"dev-{serial}\"").await;
    let version = Version::V311;
    let connect = Connect::with_password(version, SECRET).client_id("dev-5e01");
    let mut wires = vec![];
    for transport in EVERY_TRANSPORT {
        // Over WebSocket by the route's binding, which binds nothing else.
        let wire = lab.mqtt(transport, Some(certificate(&lab, 1))).await;
        let mut wire = wire.unwrap();
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
        wires.push(wire);
    }
    let before = lab.config.tables.clone();
    for others in [
        "[bindings.another]\nuser_name = \"{serial}\"\n",
        "[bindings.another]\nuser_name = \"{cn}\"\n[bindings.zz]\n",
        "",
    ] {
        lab.config.tables = format!("{others}{before}");
        lab.reload().unwrap();
        for (session, wire) in wires.iter_mut().enumerate() {
            lab.broker.say(session, &[0xd0, 0]);
            assert_eq!(wire.packet().await.unwrap(), [0xd0, 0], "{others}");
        }
    }
}

#[tokio::test]
async fn a_binding_that_would_bind_nothing_or_refuse_everybody_is_a_mistake() {
    let tables = |binding: &str| format!("[bindings.web]\n{binding}");
    for (binding, users, message) in [
        ("secret = \"presented\"", "", "bindings.web.secret"),
        ("secret = \"{CN}\"", "", "no field {CN}"),
        ("user_name = \"constant\"", "", "bindings.web.user_name"),
        (
            "headers = [\"authorization: {cn}\"]",
            "",
            "bindings.web.headers",
        ),
        ("query = [\"x\"]", "", "bindings.web.query"),
        ("client_id = \"{cn}\"", "binding = \"web\"", "HTTP has not"),
        ("", "binding = \"wab\"", "no binding is called \"wab\""),
    ] {
        let lab = Lab::x509().await;
        let mut wrong = lab;
        wrong.config = wrong.config.clone().tables(&tables(binding)).route(users);
        let error = wrong.settings().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let mut keyed = Lab::key().await;
    keyed.config = keyed.config.clone().tables(&tables(""));
    let error = keyed.settings().unwrap_err().to_string();
    assert!(error.contains("bindings.web.secret"), "{error}");
}
