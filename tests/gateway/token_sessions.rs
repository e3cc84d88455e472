//! Tokens of those who stay: WebSockets of browsers, which set no fields, and MQTT, where the token
//! is the password; both end with it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use portcullis::clock::Clock as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::{Protocol, Refused};
use crate::harness::issuer::{KEY, OTHER_KEY, PLATFORM, claims, good, signed};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Wire};
use crate::harness::{Lab, PATIENCE};

/// Routes that demand a user, whose browser may put the token elsewhere.
async fn browsers() -> Lab {
    let places =
        "[tokens]\nwebsocket_query = \"access_token\"\nwebsocket_subprotocol = \"bearer.\"\n";
    let config = Config::key().tables(&format!("{places}{PLATFORM}"));
    config.route("credential = \"user\"").start().await
}

/// What opening a WebSocket is answered with.
async fn open(lab: &Lab, query: &str, fields: &[(&str, &str)]) -> u16 {
    let path = format!("/ws/m{query}");
    match lab.anonymous().open_websocket(&path, fields).await {
        Ok((_, answer)) => answer.status.as_u16(),
        Err(Refused::Answered(answer)) => answer.status.as_u16(),
        Err(Refused::Broken(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_browser_presents_its_token_in_the_query_and_upstream_does_not_see_it_there() {
    let lab = browsers().await;
    let token = good(&lab);
    for (query, forwarded) in [
        (format!("?access_token={token}"), "/m"),
        (format!("?a=1&access_token={token}&b=2"), "/m?a=1&b=2"),
        (format!("?Access%5ftoken={token}"), "/m"),
        (
            format!("?authorization=Bearer%20{token}&access_token={token}"),
            "/m",
        ),
    ] {
        assert_eq!(open(&lab, &query, &[]).await, 101, "{query}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.target, forwarded);
        assert_eq!(request.all("authorization"), [format!("Bearer {token}")]);
    }
    let before = lab.origin.requests().len();
    let forged = signed(OTHER_KEY, &claims(&lab));
    let mut other = claims(&lab);
    other["user"] = json!("u2");
    let other = signed(KEY, &other);
    for (query, status) in [
        (format!("?access_token={forged}"), 401),
        ("?access_token=".to_owned(), 401),
        (format!("?access_token={token}&access_token={other}"), 403),
        (
            format!("?access_token={token}&authorization=Client%20{SECRET}"),
            401,
        ),
        (format!("?x=1;access_token={token}"), 401),
    ] {
        assert_eq!(open(&lab, &query, &[]).await, status, "{query}");
    }
    // Only where a field cannot be set.
    let path = format!("/http/m?access_token={token}");
    let answer = lab
        .anonymous()
        .send(Protocol::Http1, &path, &[])
        .await
        .unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(lab.origin.requests().len(), before);
}

#[tokio::test]
async fn a_browser_presents_its_token_among_the_subprotocols_and_upstream_sees_the_others() {
    let lab = browsers().await;
    let token = good(&lab);
    let entry = format!("bearer.{token}");
    for (value, forwarded) in [
        (format!("{entry}, chat"), vec!["chat"]),
        (format!("chat, {entry}, superchat"), vec!["chat, superchat"]),
        (entry.clone(), vec![]),
    ] {
        let path = "/ws/m";
        let client = lab.anonymous();
        // Whether the server chooses one of them is between the server and the client.
        let _ = client
            .open_websocket(path, &[("sec-websocket-protocol", &value)])
            .await;
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("sec-websocket-protocol"), forwarded);
        assert_eq!(request.all("authorization"), [format!("Bearer {token}")]);
    }
    let before = lab.origin.requests().len();
    let forged = format!("bearer.{}", signed(OTHER_KEY, &claims(&lab)));
    for value in [
        "bearer.",
        "bearer",
        "chat",
        &forged,
        &format!("Bearer.{token}"),
    ] {
        let fields = [("sec-websocket-protocol", value)];
        assert_eq!(open(&lab, "", &fields).await, 401, "{value}");
    }
    assert_eq!(lab.origin.requests().len(), before);
}

#[tokio::test]
async fn neither_place_is_looked_at_unless_it_is_configured() {
    let config = Config::key()
        .tables(PLATFORM)
        .route("credential = \"user\"");
    let lab = config.start().await;
    let token = good(&lab);
    let entry = format!("bearer.{token}, chat");
    let fields = [("sec-websocket-protocol", entry.as_str())];
    assert_eq!(open(&lab, "", &fields).await, 401);
    assert_eq!(
        open(&lab, &format!("?access_token={token}"), &[]).await,
        401
    );
    lab.origin.assert_untouched();
}

/// A token that ends soon.
fn short(lab: &Lab) -> String {
    let mut claims = claims(lab);
    claims["exp"] = json!(lab.clock.now() + 1);
    signed(KEY, &claims)
}

#[tokio::test]
async fn a_websocket_ends_with_its_token() {
    let lab = browsers().await;
    let bearer = format!("Bearer {}", short(&lab));
    let client = lab.anonymous();
    let (mut socket, _) = client
        .open_websocket("/ws/m", &[("authorization", &bearer)])
        .await
        .unwrap_or_else(|_| panic!("refused"));
    let begun = std::time::Instant::now();
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = end else {
        panic!("{end:?} instead of the end");
    };
    assert_eq!(u16::from(frame.code), 1008);
    assert!(
        begun.elapsed() > Duration::from_millis(500),
        "it has ended early"
    );
}

/// MQTT for users, by both ways.
async fn mqtt(config: Config, credential: &str) -> Lab {
    let config = config.tables(PLATFORM);
    config
        .each_mqtt(&format!("credential = \"{credential}\""))
        .start()
        .await
}

#[tokio::test]
async fn the_password_of_mqtt_is_a_token_where_a_user_is_demanded() {
    let lab = mqtt(Config::key(), "user").await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let conversation = lab.broker.conversations().len();
            let connect = Connect::with_password(version, good(&lab));
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&connect.bytes()).await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
            let received = lab.broker.received(conversation, 1).await;
            assert_eq!(received, connect.bytes(), "{transport:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn any_other_password_is_refused_where_a_user_is_demanded() {
    let lab = mqtt(Config::key(), "user").await;
    let mut refresh = claims(&lab);
    refresh["type"] = json!(1);
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for password in [
                SECRET.to_owned(),
                String::new(),
                format!("Bearer {}", good(&lab)),
                format!("{} ", good(&lab)),
                signed(OTHER_KEY, &claims(&lab)),
                signed(KEY, &refresh),
            ] {
                let mut wire = lab.mqtt_anonymous(transport).await;
                let connect = Connect::with_password(version, password.clone());
                wire.send(&connect.bytes()).await;
                wire.ends_with(&version.bad_password()).await;
            }
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_user_name(version).bytes()).await;
            wire.ends_with(&version.bad_password()).await;
        }
    }
    assert!(lab.broker.conversations().is_empty());
}

#[tokio::test]
async fn the_password_of_mqtt_is_either_where_either_will_do() {
    let lab = mqtt(Config::key(), "any").await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for password in [SECRET.to_owned(), good(&lab)] {
                let connect = Connect::with_password(version, password);
                let mut wire = lab.mqtt_anonymous(transport).await;
                wire.send(&connect.bytes()).await;
                assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
            }
            let forged = signed(OTHER_KEY, &claims(&lab));
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_password(version, forged).bytes())
                .await;
            wire.ends_with(&version.bad_password()).await;
        }
    }
}

#[tokio::test]
async fn where_both_are_demanded_the_broker_gets_the_secret_of_the_certificate() {
    let lab = mqtt(Config::x509().tls("client_auth = \"optional\""), "both").await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let conversation = lab.broker.conversations().len();
            let mut wire = lab.mqtt_device(transport).await;
            wire.send(&Connect::with_password(version, good(&lab)).bytes())
                .await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
            let received = lab.broker.received(conversation, 1).await;
            let expected = Connect::with_password(version, SECRET);
            assert_eq!(received, expected.bytes(), "{transport:?} {version:?}");
            for password in [SECRET.to_owned(), signed(OTHER_KEY, &claims(&lab))] {
                let mut wire = lab.mqtt_device(transport).await;
                wire.send(&Connect::with_password(version, password).bytes())
                    .await;
                wire.ends_with(&version.bad_password()).await;
            }
        }
    }
}

#[tokio::test]
async fn a_token_may_come_with_the_opening_of_the_websocket() {
    let lab = mqtt(Config::key(), "user").await;
    let token = good(&lab);
    for (bearer, status) in [
        (token.clone(), 101),
        (signed(OTHER_KEY, &claims(&lab)), 401),
    ] {
        let bearer = format!("Bearer {bearer}");
        let fields = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", "mqtt"),
        ];
        let status_of = match lab.anonymous().open_websocket("/mqtt", &fields).await {
            Ok((socket, answer)) => {
                let mut wire = Wire::of_websocket(socket);
                wire.send(&Connect::with_user_name(Version::V5).bytes())
                    .await;
                assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
                let received = lab.broker.received(0, 1).await;
                let expected = Connect::with_user_name(Version::V5).password(token.clone());
                assert_eq!(received, expected.bytes());
                answer.status.as_u16()
            }
            Err(Refused::Answered(answer)) => answer.status.as_u16(),
            Err(Refused::Broken(error)) => panic!("{error}"),
        };
        assert_eq!(status_of, status);
    }
}

#[tokio::test]
async fn a_token_of_the_opening_needs_no_password_wherever_certificates_do() {
    let certificates = Config::x509().tls("client_auth = \"optional\"");
    for (config, credential) in [
        (Config::key(), "user"),
        (certificates.clone(), "user"),
        (certificates, "any"),
    ] {
        let config = config.mqtt("missing_password = \"refuse\"");
        let lab = mqtt(config, credential).await;
        let bearer = format!("Bearer {}", good(&lab));
        let fields = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-protocol", "mqtt"),
        ];
        let opened = lab.device().open_websocket("/mqtt", &fields).await;
        let mut wire = Wire::of_websocket(opened.unwrap().0);
        wire.send(&Connect::with_user_name(Version::V5).bytes())
            .await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        let expected = Connect::with_user_name(Version::V5).password(good(&lab));
        assert_eq!(lab.broker.received(0, 1).await, expected.bytes());
        // One that is known by its certificate, or by nothing.
        let mut wire = lab.mqtt_device(Transport::Tls).await;
        wire.send(&Connect::with_user_name(Version::V5).bytes())
            .await;
        wire.ends_with(&Version::V5.bad_password()).await;
    }
}

#[tokio::test]
async fn an_mqtt_session_ends_with_its_token() {
    let lab = mqtt(Config::key(), "user").await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_password(version, short(&lab)).bytes())
                .await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
            let code = match version {
                // MQTT 5.0 §3.14.2.1: maximum connect time.
                Version::V5 => wire.ends_with(&[0xE0, 2, 0xA0, 0]).await,
                Version::V31 | Version::V311 => wire.end().await,
            };
            if transport == crate::harness::mqtt::Transport::WebSocket {
                assert_eq!(code, Some(1008), "{version:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_reload_ends_those_whose_token_is_no_longer_accepted_and_no_others() {
    let places = "[tokens]\nwebsocket_query = \"access_token\"\n";
    let other = PLATFORM.replace(KEY, OTHER_KEY);
    let config = Config::key()
        .tables(&format!("{places}{PLATFORM}"))
        .route("credential = \"user\"")
        .each_mqtt("credential = \"user\"");
    let mut lab = config.start().await;
    let query = format!("/ws/m?access_token={}", good(&lab));
    let opened = lab.anonymous().open_websocket(&query, &[]).await;
    let (mut socket, _) = opened.unwrap_or_else(|_| panic!("refused"));
    let mut wires = Vec::new();
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_anonymous(transport).await;
        let connect = Connect::with_password(Version::V5, good(&lab));
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        wires.push(wire);
    }
    // The same provider, read anew.
    lab.reload().unwrap();
    socket.send(Message::text("still here")).await.unwrap();
    let echo = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert_eq!(echo.unwrap().unwrap(), Message::text("still here"));
    lab.config.tables = format!("{places}{other}");
    lab.reload().unwrap();
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = end else {
        panic!("{end:?} instead of the end");
    };
    assert_eq!(u16::from(frame.code), 1008);
    for mut wire in wires {
        // MQTT 5.0 §3.14.2.1: not authorized.
        wire.ends_with(&[0xE0, 2, 0x87, 0]).await;
    }
}

#[tokio::test]
async fn a_browser_that_speaks_mqtt_presents_its_token_beside_the_subprotocol() {
    let places = "[tokens]\nwebsocket_subprotocol = \"bearer.\"\n";
    let lab = mqtt(Config::key().tables(places), "user").await;
    for (token, opens) in [
        (good(&lab), true),
        (signed(OTHER_KEY, &claims(&lab)), false),
    ] {
        let entries = format!("bearer.{token}, mqtt");
        let fields = [("sec-websocket-protocol", entries.as_str())];
        match lab.anonymous().open_websocket("/mqtt", &fields).await {
            Ok((socket, answer)) => {
                assert!(opens);
                assert_eq!(answer.headers["sec-websocket-protocol"], "mqtt");
                let mut wire = Wire::of_websocket(socket);
                wire.send(&Connect::with_user_name(Version::V5).bytes())
                    .await;
                assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
            }
            Err(Refused::Answered(answer)) => assert!(!opens && answer.status == 401),
            Err(Refused::Broken(error)) => panic!("{error}"),
        }
    }
}
