//! What is a CONNECT and what is not: the vectors that got past, or broke, the deployment that the
//! gateway replaces (W1 to W12), sent whole, byte by byte, and cut into frames.

use std::time::{Duration, Instant};

use super::{accepted, usual};
use crate::harness::Lab;
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{
    Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Will, Wire, field, packet, publish,
};

const OTHER: &str = "1c383cd3-0b7c-498a-bb2d-5f7a9e1d3c5b";

/// The ways in which a client may cut what it sends.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    Bytes,
    Frames(usize),
    Messages(usize),
}

const EVERY_CUT: [Cut; 6] = [
    Cut::Whole,
    Cut::Bytes,
    Cut::Frames(1),
    Cut::Frames(7),
    Cut::Messages(40),
    Cut::Messages(13),
];

async fn send(wire: &mut Wire, bytes: &[u8], cut: Cut) {
    match cut {
        Cut::Whole => wire.send(bytes).await,
        Cut::Bytes => wire.send_in_parts(bytes, 1).await,
        Cut::Frames(size) => wire.send_in_frames(bytes, size).await,
        Cut::Messages(size) => wire.send_in_parts(bytes, size).await,
    }
}

/// A will whose payload of 261 bytes reads as a user name and the right secret where its length is
/// misread as 21 (W5).
fn smuggling_will() -> Will {
    let mut payload = vec![b'x'; 21];
    payload.extend(field(b"c9f0f895-fb98-4b91-99f5-1fd0297e236d"));
    payload.extend(field(SECRET.as_bytes()));
    payload.resize(261, b'x');
    Will::new(&payload)
}

/// A client id that makes the remaining length exactly 128 (W7).
fn of_remaining_length_128(connect: Connect) -> Connect {
    let length = connect.clone().client_id("").bytes().len() - 2;
    let padded = connect.client_id(vec![b'x'; 128 - length]);
    assert_eq!(padded.bytes()[1..3], [0x80, 0x01]);
    padded
}

/// CONNECTs that keep the rules, with any password, and so pass or not by that alone.
fn by_password(version: Version, password: &str) -> Vec<Connect> {
    let connect = Connect::with_password(version, password);
    let long_will = Will {
        flags: 0x10,
        ..Will::new(&vec![b'w'; 20_000])
    };
    let mut all = vec![
        connect.clone(),
        connect.clone().will(Will::new(b"gone")),
        connect.clone().will(smuggling_will()),
        connect.clone().keep_alive(32_768),
        connect.clone().keep_alive(0),
        of_remaining_length_128(connect.clone()),
        connect.clone().client_id(vec![b'i'; 258]),
        connect.clone().client_id("dévice-Ж"),
        connect.clone().will(long_will),
    ];
    if version == Version::V5 {
        // Session expiry, receive maximum, user property; and one that holds the other secret.
        let mut user = vec![0x26];
        user.extend(field(b"password"));
        user.extend(field(SECRET.as_bytes()));
        let properties = [&[0x11, 0, 0, 0, 60, 0x21, 0, 9][..], &user].concat();
        let will = Will {
            properties: [&[0x18, 0, 0, 0, 5][..], &user].concat(),
            ..Will::new(b"gone")
        };
        all.push(connect.clone().properties(&properties));
        all.push(connect.properties(&properties).will(will));
        // MQTT 5.0 §3.1.2.9: a password needs no user name.
        all.push(Connect::new(version).password(password));
    } else {
        // Keep alive and the flags before it read as one character of two bytes (W9).
        all.push(connect.keep_alive(0x8080));
    }
    all
}

/// Cuts that a CONNECT of this size is worth: 20 KB go in larger parts.
fn cuts(bytes: &[u8]) -> &'static [Cut] {
    if bytes.len() > 1000 {
        &[Cut::Whole, Cut::Frames(5000), Cut::Messages(5000)]
    } else {
        &EVERY_CUT
    }
}

#[tokio::test]
async fn every_form_of_connect_passes_with_the_right_password_however_it_is_cut() {
    let lab = Lab::x509().await;
    let mut sent = Vec::new();
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for connect in by_password(version, SECRET) {
                let bytes = connect.bytes();
                for cut in cuts(&bytes) {
                    let mut wire = lab.mqtt_device(transport).await;
                    send(&mut wire, &bytes, *cut).await;
                    let answer = wire.packet().await;
                    let context = format!("{transport:?} {cut:?} {connect:?}");
                    assert_eq!(answer.as_deref(), Some(version.accepted()), "{context}");
                    sent.push(bytes.clone());
                }
            }
        }
    }
    assert!(lab.broker.conversations() == sent);
}

#[tokio::test]
async fn every_form_of_connect_is_refused_with_another_password_however_it_is_cut() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for connect in by_password(version, OTHER) {
                let bytes = connect.bytes();
                for cut in cuts(&bytes) {
                    let mut wire = lab.mqtt_device(transport).await;
                    send(&mut wire, &bytes, *cut).await;
                    let answer = wire.packet().await;
                    let context = format!("{transport:?} {cut:?} {connect:?}");
                    assert_eq!(answer, Some(version.not_authorized()), "{context}");
                    wire.end().await;
                }
            }
        }
    }
    lab.broker.assert_untouched().await;
}

/// SUBSCRIBE to `t`, of MQTT 3.
const SUBSCRIBE: &[u8] = &[0x82, 6, 0, 1, 0, 1, b't', 0];

#[tokio::test]
async fn what_follows_a_connect_in_the_same_bytes_follows_it_to_the_broker() {
    for transport in EVERY_TRANSPORT {
        for cut in EVERY_CUT {
            let lab = Lab::x509().await;
            let mut wire = lab.mqtt_device(transport).await;
            let bytes = [
                usual(Version::V311).bytes(),
                SUBSCRIBE.to_vec(),
                publish(Version::V311, "t", b"hello"),
            ]
            .concat();
            send(&mut wire, &bytes, cut).await;
            let received = lab.broker.received(0, bytes.len()).await;
            assert_eq!(received, bytes, "{transport:?} {cut:?}");
        }
    }
}

#[tokio::test]
async fn what_follows_a_connect_without_a_password_follows_the_rewritten_one() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let mut wire = lab.mqtt_device(transport).await;
        let connect = Connect::with_user_name(Version::V311);
        wire.send(&[&connect.bytes(), SUBSCRIBE].concat()).await;
        let expected = [&usual(Version::V311).bytes(), SUBSCRIBE].concat();
        assert_eq!(lab.broker.received(0, expected.len()).await, expected);
    }
}

/// What is not answered but by closing, whatever follows.
fn closed_at_once() -> Vec<Vec<u8>> {
    let connect = usual(Version::V311);
    let mut flagged = connect.clone();
    flagged.first_byte = 0x11;
    let reserved = |connect: &Connect| {
        let mut connect = connect.clone();
        connect.flags = Some(0xc3);
        connect.bytes()
    };
    let mut all = vec![
        // PUBLISH (W3), AUTH, PINGREQ, DISCONNECT, SUBSCRIBE, a reserved type, type 0.
        publish(Version::V311, "t", b"X"),
        vec![0x30, 5, 0, 1, b't', b'X'],
        vec![0xf0, 2, 0x18, 0],
        vec![0xf0, 0],
        vec![0xc0, 0],
        vec![0xe0, 0],
        SUBSCRIBE.to_vec(),
        vec![0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        flagged.bytes(),
        reserved(&connect),
        // A remaining length of five bytes, one of 256 MiB, ones that no CONNECT has.
        vec![0x10, 0x80, 0x80, 0x80, 0x80, 0x01],
        vec![0x10, 0xff, 0xff, 0xff, 0xff],
        b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x04".to_vec(),
        vec![0x10, 0],
        vec![0x10, 3],
    ];
    for (name, level) in [("MQTX", 4), ("mqtt", 4), ("MQ", 4), ("", 4)] {
        let mut other = connect.clone();
        (other.name, other.level) = (name, level);
        all.push(other.bytes());
    }
    let invalid: [&[u8]; 5] = [
        &[0xff, 0xfe],
        b"nul\0",
        &[0xed, 0xa0, 0x80],
        &[0xc0, 0x80],
        "\u{fffe}".as_bytes(),
    ];
    for text in invalid {
        let mut named = connect.clone();
        named.user_name = Some(text.to_vec());
        all.extend([named.bytes(), connect.clone().client_id(text).bytes()]);
    }
    let mut trailing = connect.clone();
    trailing.trailing = vec![0];
    all.push(trailing.bytes());
    // A will of quality of service 3, and what only a will has without one.
    for (will, flags) in [(Some(Will::new(b"w")), 0xde), (None, 0xca), (None, 0xe2)] {
        let mut odd = connect.clone();
        (odd.will, odd.flags) = (will, Some(flags));
        all.push(odd.bytes());
    }
    // A password without a user name, and fields that reach beyond the end.
    all.push(Connect::new(Version::V311).password(SECRET).bytes());
    let mut body = connect.bytes()[2..].to_vec();
    body.pop();
    all.push(packet(0x10, &body));
    all
}

#[tokio::test]
async fn what_is_no_connect_of_mqtt_3_is_met_by_closing() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        for bytes in closed_at_once() {
            for cut in [Cut::Whole, Cut::Bytes] {
                let mut wire = lab.mqtt_device(transport).await;
                send(&mut wire, &bytes, cut).await;
                let first = wire.packet().await;
                assert_eq!(first, None, "{transport:?} {cut:?} {bytes:02x?}");
                if transport == Transport::WebSocket {
                    let code = wire.end().await.unwrap();
                    assert!(matches!(code, 1002 | 1009), "{code} {bytes:02x?}");
                }
            }
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_malformed_connect_of_mqtt_5_is_told_so() {
    let lab = Lab::x509().await;
    let base = usual(Version::V5);
    let with = |change: &dyn Fn(&mut Connect)| {
        let mut connect = base.clone();
        change(&mut connect);
        connect
    };
    for (connect, reason) in [
        (with(&|connect| connect.flags = Some(0xc3)), 0x81),
        (with(&|connect| connect.flags = Some(0xca)), 0x81),
        (with(&|connect| connect.client_id = vec![0xff]), 0x81),
        (with(&|connect| connect.user_name = Some(vec![0xff])), 0x81),
        (with(&|connect| connect.trailing = vec![0]), 0x81),
        // Session expiry twice, an unknown property, authentication data without a method.
        (
            base.clone()
                .properties(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]),
            0x82,
        ),
        (base.clone().properties(&[0x7e, 0]), 0x81),
        (base.clone().properties(&[0x16, 0, 1, b'x']), 0x82),
    ] {
        for transport in EVERY_TRANSPORT {
            for cut in [Cut::Whole, Cut::Bytes, Cut::Frames(5)] {
                let mut wire = lab.mqtt_device(transport).await;
                send(&mut wire, &connect.bytes(), cut).await;
                let expected = [0x20, 3, 0, reason, 0];
                let answer = wire.packet().await;
                assert_eq!(answer.as_deref(), Some(&expected[..]), "{connect:?}");
                wire.end().await;
            }
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_protocol_level_that_is_not_spoken_is_named_as_the_reason() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        for (name, level, answer) in [
            ("MQTT", 3, &[0x20, 2, 0, 1][..]),
            ("MQTT", 0, &[0x20, 2, 0, 1]),
            ("MQTT", 0x84, &[0x20, 2, 0, 1]),
            ("MQIsdp", 4, &[0x20, 2, 0, 1]),
            ("MQTT", 6, &[0x20, 3, 0, 0x84, 0]),
        ] {
            let mut connect = usual(Version::V311);
            (connect.name, connect.level) = (name, level);
            let mut wire = lab.mqtt_device(transport).await;
            wire.send(&connect.bytes()).await;
            let got = wire.packet().await;
            assert_eq!(got.as_deref(), Some(answer), "{name} {level}");
            wire.end().await;
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn the_levels_of_bridges_pass_where_that_is_configured() {
    let lab = Config::x509().mqtt("bridges = true").start().await;
    let mut connect = usual(Version::V311);
    connect.level = 0x84;
    let wire = lab.mqtt_device(Transport::Tls).await;
    accepted(&lab, wire, &connect, Version::V311).await;
    assert_eq!(lab.broker.received(0, 1).await, connect.bytes());
}

#[tokio::test]
async fn an_empty_client_id_is_refused_where_the_version_forbids_it() {
    let lab = Lab::x509().await;
    let mut wire = lab.mqtt_device(Transport::Tls).await;
    wire.send(&usual(Version::V31).client_id("").bytes()).await;
    wire.ends_with(&[0x20, 2, 0, 2]).await;
    lab.broker.assert_untouched().await;
    for version in [Version::V311, Version::V5] {
        let wire = lab.mqtt_device(Transport::Tls).await;
        accepted(&lab, wire, &usual(version).client_id(""), version).await;
    }
}

#[tokio::test]
async fn a_connect_over_the_limit_is_refused_without_being_read() {
    let lab = Config::x509().mqtt("max_connect = \"1KiB\"").start().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let fitting = usual(version).will(Will::new(&[b'w'; 800]));
            let wire = lab.mqtt_device(transport).await;
            accepted(&lab, wire, &fitting, version).await;
            let large = usual(version).will(Will::new(&[b'w'; 1000]));
            let mut wire = lab.mqtt_device(transport).await;
            // Size and version say enough; nothing else is waited for.
            let begun = 3 + 2 + large.name.len() + 1;
            wire.send(&large.bytes()[..begun]).await;
            let code = match version {
                Version::V31 | Version::V311 => wire.end().await,
                Version::V5 => wire.ends_with(&[0x20, 3, 0, 0x95, 0]).await,
            };
            assert!(matches!(code, None | Some(1009)), "{code:?}");
        }
    }
    lab.broker.assert_fewer_than(7).await;
}

#[tokio::test]
async fn a_client_of_mqtt_5_is_told_that_its_connect_is_too_large() {
    let lab = Config::x509().mqtt("max_connect = \"1KiB\"").start().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let large = usual(version).will(Will::new(&[b'w'; 1000]));
            for cut in [Cut::Whole, Cut::Bytes] {
                let mut wire = lab.mqtt_device(transport).await;
                send(&mut wire, &large.bytes(), cut).await;
                let code = match version {
                    Version::V31 | Version::V311 => wire.end().await,
                    Version::V5 => wire.ends_with(&[0x20, 3, 0, 0x95, 0]).await,
                };
                assert!(matches!(code, None | Some(1009)), "{code:?}");
            }
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_connect_may_be_larger_than_the_packets_behind_it() {
    let lab = Config::x509().mqtt("max_packet = \"1KiB\"").start().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let connect = usual(version).will(Will::new(&[b'w'; 3000]));
            let wire = lab.mqtt_device(transport).await;
            accepted(&lab, wire, &connect, version).await;
        }
    }
}

/// Authentication method `x`.
const METHOD: &[u8] = &[0x15, 0, 1, b'x'];

#[tokio::test]
async fn enhanced_authentication_is_refused_unless_it_is_configured() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_device(transport).await;
        wire.send(&usual(Version::V5).properties(METHOD).bytes())
            .await;
        wire.ends_with(&[0x20, 3, 0, 0x8c, 0]).await;
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn enhanced_authentication_passes_both_ways_where_it_is_configured() {
    for transport in EVERY_TRANSPORT {
        let lab = Config::x509().mqtt("enhanced_auth = true").start().await;
        let connect = usual(Version::V5).properties(METHOD);
        let wire = lab.mqtt_device(transport).await;
        let mut wire = accepted(&lab, wire, &connect, Version::V5).await;
        let auth = packet(0xf0, &[&[0x18, 4][..], METHOD].concat());
        lab.broker.say(0, &auth);
        assert_eq!(wire.packet().await.unwrap(), auth);
        wire.send(&auth).await;
        let expected = [connect.bytes(), auth].concat();
        assert_eq!(lab.broker.received(0, expected.len()).await, expected);
        // A CONNECT is refused for its password all the same.
        let mut wire = lab.mqtt_device(transport).await;
        let wrong = Connect::with_password(Version::V5, OTHER).properties(METHOD);
        wire.send(&wrong.bytes()).await;
        wire.ends_with(&[0x20, 3, 0, 0x87, 0]).await;
    }
}

#[tokio::test]
async fn a_connect_with_an_authentication_method_and_no_password_gets_none() {
    for transport in EVERY_TRANSPORT {
        let lab = Config::x509().mqtt("enhanced_auth = true").start().await;
        let connect = Connect::with_user_name(Version::V5).properties(METHOD);
        let wire = lab.mqtt_device(transport).await;
        accepted(&lab, wire, &connect, Version::V5).await;
        let length = connect.bytes().len();
        assert_eq!(lab.broker.received(0, length).await, connect.bytes());
        // Without a method the certificate's secret is filled in.
        let bare = Connect::with_user_name(Version::V5);
        let wire = lab.mqtt_device(transport).await;
        accepted(&lab, wire, &bare, Version::V5).await;
        let filled = bare.password(SECRET).bytes();
        assert_eq!(lab.broker.received(1, filled.len()).await, filled);
    }
}

#[tokio::test]
async fn a_client_that_takes_no_packet_so_large_is_refused_by_closing() {
    // Maximum Packet Size 5 and 4: a CONNACK has five bytes at least.
    let (fits, does_not) = (&[0x27, 0, 0, 0, 5], &[0x27, 0, 0, 0, 4]);
    let lab = Lab::x509().await;
    let refused =
        |properties: &[u8]| Connect::with_password(Version::V5, OTHER).properties(properties);
    let malformed = |properties: &[u8]| {
        let mut connect = usual(Version::V5).properties(properties);
        connect.trailing = vec![0];
        connect
    };
    for transport in EVERY_TRANSPORT {
        for (connect, reason) in [(refused(fits), 0x87), (malformed(fits), 0x81)] {
            let mut wire = lab.mqtt_device(transport).await;
            wire.send(&connect.bytes()).await;
            wire.ends_with(&[0x20, 3, 0, reason, 0]).await;
        }
        for connect in [refused(does_not), malformed(does_not)] {
            let mut wire = lab.mqtt_device(transport).await;
            wire.send(&connect.bytes()).await;
            wire.end().await;
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_sentence_that_a_client_has_no_room_for_is_left_out_of_a_malformed_connects_refusal() {
    let lab = Config::x509().mqtt("reason_strings = true").start().await;
    let mut connect = usual(Version::V5).properties(&[0x27, 0, 0, 0, 8]);
    connect.trailing = vec![0];
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_device(transport).await;
        wire.send(&connect.bytes()).await;
        wire.ends_with(&[0x20, 3, 0, 0x81, 0]).await;
    }
}

#[tokio::test]
async fn a_reason_is_said_in_a_sentence_only_where_that_is_configured_and_wanted() {
    let refused = |properties: &'static [u8]| {
        Connect::with_password(Version::V5, OTHER).properties(properties)
    };
    let lab = Config::x509().mqtt("reason_strings = true").start().await;
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_device(transport).await;
        wire.send(&refused(&[]).bytes()).await;
        let answer = wire.packet().await.unwrap();
        assert_eq!((answer[0], answer[3], answer[5]), (0x20, 0x87, 0x1f));
        let sentence = String::from_utf8(answer[8..].to_vec()).unwrap();
        assert!(sentence.contains("password"), "{sentence}");
        assert!(!sentence.contains(OTHER) && !sentence.contains(SECRET));
        wire.end().await;
        // Request problem information 0; a maximum packet size that it does not fit in.
        for properties in [&[0x17, 0][..], &[0x27, 0, 0, 0, 8]] {
            let mut wire = lab.mqtt_device(transport).await;
            wire.send(&refused(properties).bytes()).await;
            wire.ends_with(&Version::V5.not_authorized()).await;
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_malformed_connect_is_explained_where_that_is_configured() {
    let lab = Config::x509().mqtt("reason_strings = true").start().await;
    let mut reserved = usual(Version::V5);
    reserved.flags = Some(0xc3);
    // The wish for no reason is part of what cannot be read.
    let mut unwanted = reserved.clone().properties(&[0x17, 0]);
    unwanted.trailing = SECRET.into();
    for transport in EVERY_TRANSPORT {
        for connect in [&reserved, &unwanted] {
            for cut in [Cut::Whole, Cut::Bytes] {
                let mut wire = lab.mqtt_device(transport).await;
                send(&mut wire, &connect.bytes(), cut).await;
                let answer = wire.packet().await.unwrap();
                assert_eq!((answer[0], answer[3], answer[5]), (0x20, 0x81, 0x1f));
                let sentence = String::from_utf8(answer[8..].to_vec()).unwrap();
                assert_eq!(sentence, "the reserved connect flag is set");
                wire.end().await;
            }
        }
        // MQTT 3 has no room for it.
        let mut connect = usual(Version::V311);
        connect.level = 3;
        let mut wire = lab.mqtt_device(transport).await;
        wire.send(&connect.bytes()).await;
        wire.ends_with(&[0x20, 2, 0, 1]).await;
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_connect_in_time_is_closed() {
    let lab = Config::x509()
        .mqtt("connect_timeout = \"300ms\"")
        .start()
        .await;
    let bytes = usual(Version::V5).bytes();
    for transport in EVERY_TRANSPORT {
        for sent in [0, 1, 40, bytes.len() - 1] {
            let mut wire = lab.mqtt_device(transport).await;
            let begun = Instant::now();
            wire.send(&bytes[..sent]).await;
            let code = wire.end().await;
            assert_eq!(code, (transport == Transport::WebSocket).then_some(1008));
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn a_client_that_trickles_its_connect_is_closed_in_time() {
    let lab = Config::x509()
        .mqtt("connect_timeout = \"300ms\"")
        .start()
        .await;
    let bytes = usual(Version::V311).client_id(vec![b'x'; 4000]).bytes();
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_device(transport).await;
        let begun = Instant::now();
        let mut rest = bytes.iter();
        // Each byte is a sign of life; at this pace the last comes after 40 s.
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        let ended = loop {
            tokio::select! {
                packet = wire.packet() => break packet,
                _ = pace.tick() => {}
            }
            wire.send(&[*rest.next().expect("closed before the last")])
                .await;
        };
        assert_eq!(ended, None);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn every_version_is_told_from_the_others_by_name_and_level_alone() {
    let lab = Lab::x509().await;
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let wire = lab.mqtt_device(transport).await;
            accepted(&lab, wire, &usual(version), version).await;
        }
    }
}
