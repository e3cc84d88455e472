//! What flows through an open session, and how it ends.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_all};

use super::{accepted, session, session_with, usual};
use crate::harness::ca::{device, valid_for};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{
    EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Will, Wire, field, packet, publish,
};
use crate::harness::{Authority, Client, Lab, Scripted};

/// PINGREQ and PINGRESP.
const PING: [&[u8]; 2] = [&[0xc0, 0], &[0xd0, 0]];

/// What an MQTT 5 client is told before the end, and nobody else.
fn disconnect(version: Version, reason: u8) -> Option<Vec<u8>> {
    (version == Version::V5).then(|| vec![0xe0, 2, reason, 0])
}

/// Waits for that, and for the end.
async fn disconnected(wire: &mut Wire, version: Version, reason: u8) -> Option<u16> {
    if let Some(expected) = disconnect(version, reason) {
        assert_eq!(wire.packet().await, Some(expected), "{version:?}");
    }
    wire.end().await
}

#[tokio::test]
async fn large_packets_pass_unchanged_both_ways_at_once() {
    let payload: Vec<u8> = (0..1 << 20_u32).map(|n| (n % 251) as u8).collect();
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let mut wire = session(&lab, transport, version).await;
            let large = publish(version, "m/d/c/ch", &payload);
            lab.broker.say(0, &large);
            wire.send(&large).await;
            assert!(wire.packet().await.unwrap() == large, "{transport:?}");
            let expected = [usual(version).bytes(), large].concat();
            let received = lab.broker.received(0, expected.len()).await;
            assert!(received == expected, "{transport:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn packets_pass_at_once_and_in_order() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let mut wire = session(&lab, transport, Version::V311).await;
        let mut expected = usual(Version::V311).bytes();
        for number in 0..50 {
            let sent = publish(Version::V311, "t", format!("up {number}").as_bytes());
            expected.extend(&sent);
            wire.send_in_parts(&sent, 1 + number % 5).await;
            assert_eq!(lab.broker.received(0, expected.len()).await, expected);
            let said = publish(Version::V311, "t", format!("down {number}").as_bytes());
            lab.broker.say(0, &said);
            assert_eq!(wire.packet().await.unwrap(), said);
        }
    }
}

#[tokio::test]
async fn a_broker_that_closes_ends_the_client() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let mut wire = session(&lab, transport, version).await;
            let last = publish(version, "t", b"last");
            lab.broker.say(0, &last);
            lab.broker.close(0);
            wire.ends_with(&last).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_ends_the_brokers_connection() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            for says_so in [true, false] {
                let lab = Lab::x509().await;
                let mut wire = session(&lab, transport, version).await;
                let mut expected = usual(version).bytes();
                if says_so {
                    wire.send(&[0xe0, 0]).await;
                    expected.extend([0xe0, 0]);
                }
                wire.close().await;
                assert_eq!(lab.broker.ended(0).await, expected, "{transport:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_only_listens_any_more_hears_the_broker_out() {
    // A WebSocket has no half that could be closed.
    for version in EVERY_VERSION {
        let lab = Lab::x509().await;
        let mut wire = session(&lab, Transport::Tls, version).await;
        wire.close().await;
        assert_eq!(lab.broker.ended(0).await, usual(version).bytes());
        let last = publish(version, "t", &[b'x'; 100_000]);
        lab.broker.say(0, &last);
        lab.broker.close(0);
        wire.ends_with(&last).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_brokers_connection() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        drop(session(&lab, transport, Version::V311).await);
        let received = lab.broker.ended(0).await;
        assert_eq!(received, usual(Version::V311).bytes());
    }
}

#[tokio::test]
async fn a_second_connect_ends_the_session_and_the_broker_never_sees_it() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let mut wire = session(&lab, transport, version).await;
            wire.send(&[PING[0], &usual(version).bytes()].concat())
                .await;
            disconnected(&mut wire, version, 0x82).await;
            drop(wire);
            let expected = [&usual(version).bytes(), PING[0]].concat();
            assert_eq!(lab.broker.ended(0).await, expected, "{transport:?}");
        }
    }
}

#[tokio::test]
async fn a_second_connect_in_the_same_bytes_never_reaches_the_broker() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let mut wire = lab.mqtt_device(transport).await;
            let bytes = usual(version).bytes();
            wire.send(&bytes.repeat(2)).await;
            // The broker's CONNACK may come before the end or be overtaken by it.
            while wire.packet().await.is_some() {}
            drop(wire);
            assert_eq!(lab.broker.ended(0).await, bytes, "{transport:?}");
        }
    }
}

#[tokio::test]
async fn packets_that_break_the_protocol_end_the_session_and_do_not_pass() {
    for (bytes, reason) in [
        // CONNACK, SUBACK and PINGRESP come from brokers; AUTH was not agreed on.
        (&[0x20, 2, 0, 0][..], 0x82),
        (&[0x90, 3, 0, 1, 0], 0x82),
        (&[0xd0, 0], 0x82),
        (&[0xf0, 0], 0x82),
        // Type 0, quality of service 3, reserved flags, a length of five bytes.
        (&[0x00, 0], 0x81),
        (&[0x36, 5, 0, 1, b't', 0, 1], 0x81),
        (&[0x80, 6, 0, 1, 0, 1, b't', 0], 0x81),
        (&[0xc1, 0], 0x81),
        (&[0x30, 0x80, 0x80, 0x80, 0x80, 1], 0x81),
    ] {
        for transport in EVERY_TRANSPORT {
            for version in [Version::V311, Version::V5] {
                let lab = Lab::x509().await;
                let mut wire = session(&lab, transport, version).await;
                wire.send(bytes).await;
                disconnected(&mut wire, version, reason).await;
                drop(wire);
                let received = lab.broker.ended(0).await;
                assert_eq!(received, usual(version).bytes(), "{bytes:02x?}");
            }
        }
    }
}

#[tokio::test]
async fn a_broker_that_breaks_the_protocol_ends_the_session() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let mut wire = session(&lab, transport, Version::V5).await;
        lab.broker.say(0, &[0xc0, 0]);
        wire.end().await;
    }
}

#[tokio::test]
async fn a_packet_over_the_limit_ends_the_session_and_does_not_pass() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Config::x509().mqtt("max_packet = \"1KiB\"").start().await;
            let mut wire = session(&lab, transport, version).await;
            let fitting = publish(version, "t", &[b'x'; 1000]);
            wire.send(&fitting).await;
            let expected = [usual(version).bytes(), fitting].concat();
            assert_eq!(
                lab.broker.received(0, expected.len()).await,
                expected,
                "{version:?}"
            );
            // Its head alone is enough.
            wire.send(&publish(version, "t", &[b'x'; 1100])[..3]).await;
            disconnected(&mut wire, version, 0x95).await;
            drop(wire);
            assert_eq!(lab.broker.ended(0).await, expected, "{version:?}");
            // What the broker sends is the client's affair.
            let large = publish(version, "t", &[b'x'; 4000]);
            let wire = lab.mqtt_device(transport).await;
            let mut wire = accepted(&lab, wire, &usual(version), version).await;
            lab.broker.say(1, &large);
            assert_eq!(wire.packet().await.unwrap(), large);
        }
    }
}

#[tokio::test]
async fn a_message_of_a_websocket_may_be_larger_than_its_packets() {
    for version in EVERY_VERSION {
        let limits = "max_packet = \"1KiB\"\nmax_connect = \"1KiB\"";
        let lab = Config::x509().mqtt(limits).start().await;
        let mut wire = session(&lab, Transport::WebSocket, version).await;
        let fitting = publish(version, "t", &[b'x'; 700]).repeat(100);
        wire.send(&fitting).await;
        let expected = [usual(version).bytes(), fitting.clone()].concat();
        assert_eq!(lab.broker.received(0, expected.len()).await, expected);
        // In one message with them, a packet that is too large itself.
        let large = publish(version, "t", &[b'x'; 1100]);
        wire.send(&[&fitting[..], &large].concat()).await;
        let code = disconnected(&mut wire, version, 0x95).await;
        assert_eq!(code, Some(1009));
        drop(wire);
        let expected = [&expected[..], &fitting].concat();
        assert_eq!(lab.broker.ended(0).await, expected);
    }
}

#[tokio::test]
async fn a_connect_over_the_limit_is_refused_by_mqtt_in_whatever_message_it_comes() {
    for version in EVERY_VERSION {
        let limits = "max_packet = \"1KiB\"\nmax_connect = \"1KiB\"";
        let lab = Config::x509().mqtt(limits).start().await;
        let mut wire = lab.mqtt_device(Transport::WebSocket).await;
        let large = usual(version).will(Will::new(&[b'w'; 2000]));
        wire.send(&large.bytes()).await;
        let code = match version {
            Version::V31 | Version::V311 => wire.end().await,
            Version::V5 => wire.ends_with(&[0x20, 3, 0, 0x95, 0]).await,
        };
        assert_eq!(code, Some(1009));
        lab.broker.assert_untouched().await;
    }
}

/// Every transport with every version, at the same time: for what takes its time.
async fn at_once<F: Future<Output = ()>>(case: impl Fn(Transport, Version) -> F) {
    let case = &case;
    let cases = EVERY_TRANSPORT
        .into_iter()
        .flat_map(|transport| EVERY_VERSION.map(|version| case(transport, version)));
    join_all(cases).await;
}

#[tokio::test]
async fn a_client_that_is_silent_for_longer_than_its_keep_alive_is_closed() {
    at_once(|transport, version| async move {
        let lab = Lab::x509().await;
        let connect = usual(version).keep_alive(1);
        let begun = Instant::now();
        let mut wire = session_with(&lab, transport, version, &connect).await;
        let code = disconnected(&mut wire, version, 0x8d).await;
        let elapsed = begun.elapsed();
        assert!(elapsed >= Duration::from_millis(1400), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
        assert_eq!(code, (transport == Transport::WebSocket).then_some(1001));
        drop(wire);
        lab.broker.ended(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_keeps_its_keep_alive_stays() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let connect = usual(Version::V5).keep_alive(1);
        let mut wire = session_with(&lab, transport, Version::V5, &connect).await;
        let mut pace = tokio::time::interval(Duration::from_millis(500));
        for _ in 0..6 {
            pace.tick().await;
            wire.send(PING[0]).await;
        }
        lab.broker.say(0, PING[1]);
        assert_eq!(wire.packet().await.unwrap(), PING[1]);
    }
}

#[tokio::test]
async fn a_broker_that_talks_does_not_keep_a_silent_client_alive() {
    let lab = Lab::x509().await;
    let connect = usual(Version::V5).keep_alive(1);
    let mut wire = session_with(&lab, Transport::Tls, Version::V5, &connect).await;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let message = publish(Version::V5, "t", b"x");
    let begun = Instant::now();
    loop {
        tokio::select! {
            packet = wire.packet() => match packet {
                Some(packet) if packet == message => {}
                other => break assert_eq!(other, disconnect(Version::V5, 0x8d)),
            },
            _ = pace.tick() => lab.broker.say(0, &message),
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

/// A listener and a route whose broker is not there.
const DOWN: &str = "[upstreams.down]\nservers = [\"127.0.0.1:1\"]\n\
                    [listeners.down]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\n\
                    upstream = \"down\"\n\
                    [routes.down]\npath = \"/down\"\nprotocol = \"mqtt\"\nupstream = \"down\"";

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_named_as_the_reason() {
    let lab = Config::x509().tables(DOWN).start().await;
    let device = lab.authority.device(SECRET);
    let address = lab.address_of("down");
    let client = Client::new(address, lab.authority.der(), Some(device));
    for version in EVERY_VERSION {
        let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
        wire.send(&usual(version).bytes()).await;
        wire.ends_with(&version.refused(3, 0x88)).await;
        let fields = [("sec-websocket-protocol", "mqtt")];
        let opened = lab.device().open_websocket("/down", &fields).await;
        let mut wire = Wire::of_websocket(opened.unwrap().0);
        wire.send(&usual(version).bytes()).await;
        let code = wire.ends_with(&version.refused(3, 0x88)).await;
        assert_eq!(code, Some(1001));
        // A wrong password is refused for what it is.
        let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
        wire.send(&usual(version).password("x").bytes()).await;
        wire.ends_with(&version.not_authorized()).await;
    }
}

#[tokio::test]
async fn a_broker_that_does_not_take_the_connect_is_given_up() {
    let silent = Scripted::start().await;
    let lines = format!(
        "[upstreams.down]\nservers = [\"{}\"]\nconnect_timeout = \"300ms\"\n\
         [listeners.down]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"down\"\n",
        silent.address
    );
    let lab = Config::x509()
        .mqtt("max_connect = \"64MiB\"")
        .tables(&lines)
        .start()
        .await;
    let device = lab.authority.device(SECRET);
    let client = Client::new(lab.address_of("down"), lab.authority.der(), Some(device));
    // User properties of 64 KiB each: more than the system's buffers hold.
    let property = [&[0x26, 0, 1, b'k'][..], &field(&[b'v'; 65_000])].concat();
    let connect = usual(Version::V5).properties(&property.repeat(300));
    let mut wire = Wire::over_tls(&client, &["mqtt"]).await.unwrap();
    wire.send(&connect.bytes()).await;
    let _peer = silent.accept().await;
    wire.ends_with(&[0x20, 3, 0, 0x88, 0]).await;
}

#[tokio::test]
async fn a_drain_says_goodbye_and_cuts_nobody() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Config::x509().drain_timeout("500ms").start().await;
            let broker = lab.broker.clone();
            let mut wire = session(&lab, transport, version).await;
            let goodbye = async {
                let code = disconnected(&mut wire, version, 0x8b).await;
                assert_eq!(code, (transport == Transport::WebSocket).then_some(1001));
                drop(wire);
            };
            let (cut, ()) = tokio::join!(lab.drain(Duration::from_secs(20)), goodbye);
            assert_eq!(cut, 0, "{transport:?} {version:?}");
            // No DISCONNECT reaches the broker, so that it publishes the will.
            assert_eq!(broker.ended(0).await, usual(version).bytes());
        }
    }
}

#[tokio::test]
async fn a_drain_sends_clients_of_mqtt_5_to_another_server_where_one_is_named() {
    let expected = [&[0xe0, 20, 0x9d, 18, 0x1c, 0, 15][..], b"example.com:888"].concat();
    for transport in EVERY_TRANSPORT {
        let lab = Config::x509()
            .drain_timeout("500ms")
            .mqtt("server_reference = \"example.com:888\"")
            .start()
            .await;
        let mut wire = session(&lab, transport, Version::V5).await;
        let goodbye = async {
            wire.ends_with(&expected).await;
            drop(wire);
        };
        tokio::join!(lab.drain(Duration::from_secs(20)), goodbye);
    }
}

#[tokio::test]
async fn a_drain_goes_by_what_is_in_force_then() {
    let expected = [&[0xe0, 20, 0x9d, 18, 0x1c, 0, 15][..], b"example.com:888"].concat();
    for transport in EVERY_TRANSPORT {
        let mut lab = Config::x509()
            .drain_timeout("10m")
            .mqtt("server_reference = \"example.com:999\"")
            .start()
            .await;
        let mut wire = session(&lab, transport, Version::V5).await;
        lab.config.drain_timeout = Some("500ms");
        lab.config.mqtt = lab.config.mqtt.replace("999", "888");
        lab.reload().unwrap();
        let goodbye = async {
            wire.ends_with(&expected).await;
            drop(wire);
        };
        tokio::join!(lab.drain(Duration::from_secs(20)), goodbye);
    }
}

#[tokio::test]
async fn a_goodbye_waits_for_the_end_of_a_packet() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let mut wire = session(&lab, transport, Version::V5).await;
        let witness = lab.mqtt_device(transport).await;
        let mut witness = accepted(&lab, witness, &usual(Version::V5), Version::V5).await;
        let message = publish(Version::V5, "t", &[b'x'; 3000]);
        lab.broker.say(0, &message[..2000]);
        assert_eq!(wire.peek(2000).await, message[..2000]);
        lab.write("certs/ca.crt", Authority::new("Other CA").pem());
        lab.reload().unwrap();
        disconnected(&mut witness, Version::V5, 0x87).await;
        lab.broker.say(0, &message[2000..]);
        assert_eq!(wire.packet().await.unwrap(), message);
        disconnected(&mut wire, Version::V5, 0x87).await;
    }
}

#[tokio::test]
async fn a_reload_that_no_longer_trusts_a_client_ends_its_session() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let mut wire = session(&lab, transport, version).await;
            lab.reload().unwrap();
            lab.broker.say(0, PING[1]);
            assert_eq!(wire.packet().await.unwrap(), PING[1], "the same trust");
            lab.write("certs/ca.crt", Authority::new("Other CA").pem());
            lab.reload().unwrap();
            let code = disconnected(&mut wire, version, 0x87).await;
            assert_eq!(code, (transport == Transport::WebSocket).then_some(1008));
            drop(wire);
            assert_eq!(lab.broker.ended(0).await, usual(version).bytes());
        }
    }
}

#[tokio::test]
async fn a_session_ends_with_the_certificate() {
    at_once(|transport, version| async move {
        let lab = Lab::x509().await;
        let mut params = device(SECRET);
        valid_for(&mut params, Duration::from_secs(5));
        let wire = lab.mqtt(transport, Some(lab.authority.issue(params))).await;
        let mut wire = accepted(&lab, wire.unwrap(), &usual(version), version).await;
        let code = disconnected(&mut wire, version, 0x87).await;
        assert_eq!(code, (transport == Transport::WebSocket).then_some(1008));
        drop(wire);
        lab.broker.ended(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_that_reads_slowly_gets_everything_in_the_end() {
    let message = publish(Version::V311, "t", &[b'x'; 64 * 1024]);
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let mut wire = session(&lab, transport, Version::V311).await;
        for _ in 0..256 {
            lab.broker.say(0, &message);
        }
        // Upward is open meanwhile.
        wire.send(&packet(0xc0, &[])).await;
        let expected = usual(Version::V311).bytes().len() + 2;
        lab.broker.received(0, expected).await;
        for _ in 0..256 {
            assert!(wire.packet().await.unwrap() == message);
        }
    }
}

#[tokio::test]
async fn a_drain_ends_sessions_one_after_the_other() {
    const SESSIONS: usize = 32;
    // So long that what follows is over long before the last of them ends.
    let lab = Config::x509().drain_timeout("1m").start().await;
    let broker = lab.broker.clone();
    let mut wires = Vec::new();
    for number in 0..SESSIONS {
        let transport = EVERY_TRANSPORT[number % 2];
        wires.push(session(&lab, transport, Version::V5).await);
    }
    let draining = tokio::spawn(lab.drain(Duration::from_secs(60)));
    let farewell = disconnect(Version::V5, 0x8b);
    let (first, ..) = select_all(wires.iter_mut().map(|wire| Box::pin(wire.packet()))).await;
    assert_eq!(first, farewell);
    // All have heard of the drain by now, and most are served on.
    let mut open = 0;
    for (number, wire) in wires.iter_mut().enumerate() {
        if let Some(()) = broker.try_say(number, PING[1])
            && wire.packet().await.as_deref() == Some(PING[1])
        {
            open += 1;
        }
    }
    assert!(open > SESSIONS / 2, "{open} of {SESSIONS}");
    draining.abort();
}

#[tokio::test]
async fn a_drain_ends_all_sessions_in_its_time() {
    let lab = Config::x509().drain_timeout("2s").start().await;
    let mut wires = Vec::new();
    for number in 0..32 {
        wires.push(session(&lab, EVERY_TRANSPORT[number % 2], Version::V5).await);
    }
    let ends = wires.into_iter().map(|mut wire| async move {
        disconnected(&mut wire, Version::V5, 0x8b).await;
    });
    let (cut, _) = tokio::join!(lab.drain(Duration::from_secs(20)), join_all(ends));
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_client_that_has_not_connected() {
    for transport in EVERY_TRANSPORT {
        let lab = Config::x509()
            .mqtt("connect_timeout = \"1m\"")
            .start()
            .await;
        let mut wire = lab.mqtt_device(transport).await;
        wire.send(&usual(Version::V5).bytes()[..20]).await;
        let begun = Instant::now();
        let end = async {
            wire.end().await;
            drop(wire);
        };
        let (cut, ()) = tokio::join!(lab.drain(Duration::from_secs(20)), end);
        assert_eq!(cut, 0, "{transport:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_client_that_is_no_longer_trusted_does_not_get_to_connect() {
    for transport in EVERY_TRANSPORT {
        let lab = Lab::x509().await;
        let mut wire = lab.mqtt_device(transport).await;
        let stays = lab.mqtt_device(transport).await;
        lab.reload().unwrap();
        accepted(&lab, stays, &usual(Version::V5), Version::V5).await;
        lab.write("certs/ca.crt", Authority::new("Other CA").pem());
        lab.reload().unwrap();
        wire.send(&usual(Version::V5).bytes()).await;
        let code = wire.end().await;
        assert_eq!(code, (transport == Transport::WebSocket).then_some(1008));
        lab.broker.assert_fewer_than(2).await;
    }
}

#[tokio::test]
async fn a_breach_closes_the_websocket_with_the_code_for_it() {
    for (bytes, code) in [
        (&[0x20, 2, 0, 0][..], 1002),
        (&[0xc1, 0], 1002),
        (&[0x30, 0xff, 0x7f], 1009),
    ] {
        let lab = Config::x509().mqtt("max_packet = \"1KiB\"").start().await;
        let mut wire = session(&lab, Transport::WebSocket, Version::V311).await;
        wire.send(bytes).await;
        assert_eq!(wire.end().await, Some(code), "{bytes:02x?}");
    }
}
