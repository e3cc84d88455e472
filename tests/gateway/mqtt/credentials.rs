//! What the broker gets of a CONNECT, and what comes of one that leaves something out. Which
//! passwords pass is in the parity table.

use super::{accepted, usual};
use crate::harness::Lab;
use crate::harness::client::Refused;
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{
    Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Will, Wire, publish,
};
use crate::parity::{OTHER, wrong_secrets};

#[tokio::test]
async fn the_secret_of_the_certificate_is_accepted_and_passes_byte_for_byte() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let wire = lab.mqtt_device(transport).await;
            accepted(&lab, wire, &usual(version), version).await;
            let received = lab.broker.received(0, 1).await;
            assert_eq!(
                received,
                usual(version).bytes(),
                "{transport:?} {version:?}"
            );
        }
    }
}

#[tokio::test]
async fn any_other_password_is_refused_before_the_broker_is_dialled() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for password in wrong_secrets() {
                let mut wire = lab.mqtt_device(transport).await;
                let connect = Connect::with_password(version, password);
                wire.send(&[connect.bytes(), publish(version, "t", b"x")].concat())
                    .await;
                let code = wire.ends_with(&version.not_authorized()).await;
                let expected = (transport == Transport::WebSocket).then_some(1008);
                assert_eq!(code, expected, "{transport:?} {version:?} {connect:?}");
            }
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_refusal_arrives_however_much_the_client_has_sent_behind_its_connect() {
    let lab = Lab::x509().await;
    let much = publish(Version::V311, "t", &[b'x'; 50_000]);
    for transport in EVERY_TRANSPORT {
        for _ in 0..10 {
            let mut wire = lab.mqtt_device(transport).await;
            let connect = Connect::with_password(Version::V311, OTHER).bytes();
            wire.send(&[&connect[..], &much].concat()).await;
            wire.ends_with(&Version::V311.not_authorized()).await;
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_client_id_and_a_user_name_that_are_the_secret_do_not_make_up_for_a_wrong_password() {
    let lab = Lab::x509().await;
    for version in EVERY_VERSION {
        let mut connect = Connect::with_password(version, OTHER).client_id(SECRET);
        connect.user_name = Some(SECRET.into());
        let mut wire = lab.mqtt_device(Transport::Tls).await;
        wire.send(&connect.bytes()).await;
        wire.ends_with(&version.not_authorized()).await;
    }
    lab.broker.assert_untouched().await;
}

/// The CONNECT that the broker gets where the client sends no password.
fn filled_in(connect: &Connect, version: Version) -> Connect {
    let mut filled = connect.clone().password(SECRET);
    if version != Version::V5 {
        // MQTT 3.1.1 §3.1.2.9: no password without a user name.
        filled.user_name.get_or_insert_default();
    }
    filled
}

#[tokio::test]
async fn a_missing_password_is_filled_in_and_nothing_else_changes() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let will = Will {
                flags: 0x28,
                ..Will::new(b"gone")
            };
            for connect in [
                Connect::with_user_name(version),
                Connect::new(version),
                Connect::with_user_name(version).will(will.clone()),
                Connect::new(version).will(will),
            ] {
                let lab = Lab::x509().await;
                let wire = lab.mqtt_device(transport).await;
                accepted(&lab, wire, &connect, version).await;
                let received = lab.broker.received(0, 1).await;
                let expected = filled_in(&connect, version).bytes();
                assert_eq!(received, expected, "{transport:?} {connect:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_missing_password_is_refused_where_that_is_configured() {
    let lab = Config::x509()
        .mqtt("missing_password = \"refuse\"")
        .start()
        .await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for connect in [Connect::new(version), Connect::with_user_name(version)] {
                let mut wire = lab.mqtt_device(transport).await;
                wire.send(&connect.bytes()).await;
                wire.ends_with(&version.bad_password()).await;
            }
        }
    }
    lab.broker.assert_untouched().await;
    let wire = lab.mqtt_device(Transport::Tls).await;
    accepted(&lab, wire, &usual(Version::V311), Version::V311).await;
}

#[tokio::test]
async fn by_key_the_password_passes_as_it_is() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::key().await;
            let connect = Connect::with_password(version, OTHER);
            let wire = lab.mqtt_anonymous(transport).await;
            accepted(&lab, wire, &connect, version).await;
            assert_eq!(lab.broker.received(0, 1).await, connect.bytes());
        }
    }
}

#[tokio::test]
async fn by_key_a_client_without_a_password_is_refused() {
    let lab = Lab::key().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for connect in [
                Connect::new(version),
                Connect::with_user_name(version),
                Connect::with_password(version, ""),
            ] {
                let mut wire = lab.mqtt_anonymous(transport).await;
                wire.send(&connect.bytes()).await;
                wire.ends_with(&version.bad_password()).await;
            }
        }
    }
    lab.broker.assert_untouched().await;
}

const SUBPROTOCOL: (&str, &str) = ("sec-websocket-protocol", "mqtt");

/// The status of an opening that does not open.
async fn refusal(client: &crate::harness::Client, path: &str, fields: &[(&str, &str)]) -> u16 {
    match client.open_websocket(path, fields).await {
        Err(Refused::Answered(answer)) => answer.status.as_u16(),
        other => panic!("{path} {fields:?}: {other:?}"),
    }
}

#[tokio::test]
async fn an_opening_that_presents_the_certificates_secret_goes_on_to_connect() {
    let lab = Lab::x509().await;
    let bare = format!("/mqtt?authorization={SECRET}");
    let client = format!("/mqtt?authorization=Client%20{SECRET}");
    for (path, header) in [
        (bare.as_str(), None),
        (client.as_str(), None),
        ("/mqtt", Some(format!("Client {SECRET}"))),
    ] {
        let mut fields = vec![SUBPROTOCOL];
        fields.extend(header.as_deref().map(|value| ("authorization", value)));
        let (socket, answer) = lab.device().open_websocket(path, &fields).await.unwrap();
        assert_eq!(answer.status, 101);
        let wire = Wire::of_websocket(socket);
        accepted(&lab, wire, &usual(Version::V5), Version::V5).await;
    }
}

#[tokio::test]
async fn an_opening_that_presents_another_secret_is_refused_before_the_upgrade() {
    let lab = Lab::x509().await;
    let query = format!("/mqtt?authorization={OTHER}");
    let both = format!("/mqtt?authorization={SECRET}&authorization={OTHER}");
    for (path, header) in [
        (query.as_str(), None),
        (both.as_str(), None),
        ("/mqtt?authorization=", None),
        ("/mqtt", Some(format!("Client {OTHER}"))),
        (query.as_str(), Some(format!("Client {SECRET}"))),
    ] {
        let mut fields = vec![SUBPROTOCOL];
        fields.extend(header.as_deref().map(|value| ("authorization", value)));
        assert_eq!(refusal(&lab.device(), path, &fields).await, 403, "{path}");
    }
    lab.broker.assert_untouched().await;
}

async fn open_with(lab: &Lab, secret: &str) -> Wire {
    let path = format!("/mqtt?authorization={secret}");
    let opened = lab.anonymous().open_websocket(&path, &[SUBPROTOCOL]).await;
    Wire::of_websocket(opened.unwrap().0)
}

#[tokio::test]
async fn by_key_an_opening_and_a_password_that_agree_are_accepted() {
    let lab = Lab::key().await;
    for version in EVERY_VERSION {
        let wire = open_with(&lab, SECRET).await;
        accepted(&lab, wire, &usual(version), version).await;
    }
}

#[tokio::test]
async fn by_key_the_secret_of_the_opening_becomes_the_password_where_there_is_none() {
    for version in EVERY_VERSION {
        let lab = Lab::key().await;
        let wire = open_with(&lab, SECRET).await;
        let connect = Connect::with_user_name(version);
        accepted(&lab, wire, &connect, version).await;
        let received = lab.broker.received(0, 1).await;
        assert_eq!(received, filled_in(&connect, version).bytes());
    }
}

#[tokio::test]
async fn by_key_a_missing_password_is_no_certificates_affair() {
    let lab = Config::key()
        .mqtt("missing_password = \"refuse\"")
        .start()
        .await;
    let wire = open_with(&lab, SECRET).await;
    let connect = Connect::with_user_name(Version::V5);
    accepted(&lab, wire, &connect, Version::V5).await;
    let received = lab.broker.received(0, 1).await;
    assert_eq!(received, filled_in(&connect, Version::V5).bytes());
}

#[tokio::test]
async fn by_key_an_opening_and_a_password_that_disagree_are_refused() {
    let lab = Lab::key().await;
    for version in EVERY_VERSION {
        let mut wire = open_with(&lab, OTHER).await;
        wire.send(&usual(version).bytes()).await;
        let code = wire.ends_with(&version.not_authorized()).await;
        assert_eq!(code, Some(1008));
    }
    let malformed = refusal(&lab.anonymous(), "/mqtt?authorization=", &[SUBPROTOCOL]).await;
    assert_eq!(malformed, 401);
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn without_a_certificate_there_is_no_session() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        // With TLS 1.3 a client takes its handshake for done before it is refused.
        if transport == Transport::Tls
            && let Ok(mut wire) = lab.mqtt(transport, None).await
        {
            wire.send(&usual(Version::V311).bytes()).await;
            wire.end().await;
        } else if transport == Transport::WebSocket {
            lab.mqtt(transport, None).await.map(drop).unwrap_err();
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_opens_no_session() {
    let lab = Lab::x509().await;
    // The same name and the same secret; the key is another.
    let stranger = crate::harness::Authority::new("Fleet CA").device(SECRET);
    for version in EVERY_VERSION {
        if let Ok(mut wire) = lab.mqtt(Transport::Tls, Some(stranger.clone())).await {
            wire.send(&usual(version).bytes()).await;
            wire.end().await;
        }
        let opened = lab.mqtt(Transport::WebSocket, Some(stranger.clone())).await;
        opened.map(drop).unwrap_err();
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_certificate_that_names_no_client_is_refused() {
    let lab = Lab::x509().await;
    let mut unnamed = crate::harness::ca::device("replaced");
    unnamed.distinguished_name =
        crate::harness::ca::name(&[(rcgen::DnType::OrganizationName, "Fleet")]);
    let unnamed = lab.authority.issue(unnamed);
    for version in EVERY_VERSION {
        for connect in [usual(version), Connect::new(version)] {
            let wire = lab.mqtt(Transport::Tls, Some(unnamed.clone())).await;
            let mut wire = wire.unwrap();
            wire.send(&connect.bytes()).await;
            wire.ends_with(&version.not_authorized()).await;
        }
    }
    let client = lab.client(Some(unnamed));
    assert_eq!(refusal(&client, "/mqtt", &[SUBPROTOCOL]).await, 403);
    lab.broker.assert_untouched().await;
}

/// The plain listeners for private networks.
const PLAIN: &str = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtt\"\n\
                     upstream = \"broker\"\n\
                     [listeners.web]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"";

async fn open_plain(lab: &Lab, transport: Transport) -> Wire {
    match transport {
        Transport::Tls => Wire::over_tcp(lab.address_of("plain")).await.unwrap(),
        Transport::WebSocket => Wire::over_plain_websocket(lab.address_of("web")).await,
    }
}

#[tokio::test]
async fn a_listener_without_tls_asks_for_the_same() {
    let lab = Config::key().tables(PLAIN).start().await;
    let mut sent = Vec::new();
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = open_plain(&lab, transport).await;
            wire.send(&Connect::with_user_name(version).bytes()).await;
            wire.ends_with(&version.bad_password()).await;
            let wire = open_plain(&lab, transport).await;
            accepted(&lab, wire, &usual(version), version).await;
            sent.push(usual(version).bytes());
        }
    }
    assert_eq!(lab.broker.conversations(), sent);
}

#[tokio::test]
async fn two_devices_at_once_each_have_their_own_secret_at_the_broker() {
    const PAIRS: usize = 100;
    let lab = Lab::x509().await;
    let devices = [SECRET, OTHER].map(|secret| (secret, lab.authority.device(secret)));
    let mut wires = Vec::new();
    for number in 0..PAIRS {
        for (secret, identity) in &devices {
            let transport = EVERY_TRANSPORT[number % 2];
            let wire = lab.mqtt(transport, Some(identity.clone())).await.unwrap();
            wires.push((format!("{number}/{secret}"), *secret, wire));
        }
    }
    for (name, _, wire) in &mut wires {
        let connect = Connect::with_user_name(Version::V5).client_id(name.as_str());
        wire.send(&connect.bytes()).await;
    }
    let mut expected = Vec::new();
    for (name, secret, wire) in &mut wires {
        assert_eq!(wire.packet().await.unwrap(), Version::V5.accepted());
        let connect = Connect::with_password(Version::V5, *secret).client_id(name.as_str());
        expected.push(connect.bytes());
    }
    let mut received = lab.broker.conversations();
    received.sort();
    expected.sort();
    assert_eq!(received.len(), 2 * PAIRS);
    assert!(received == expected);
}
