//! A CONNECT cut in two at every place there is: between bytes of TLS records, between messages, and
//! between the frames of one message.

use super::usual;
use crate::harness::Lab;
use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Will};

/// A CONNECT with every field that a version has, so that every field is cut.
fn full(version: Version, password: &str) -> Connect {
    let connect = usual(version).will(Will::new(b"gone")).password(password);
    match version {
        Version::V31 | Version::V311 => connect,
        // A user property.
        Version::V5 => connect.properties(&[0x26, 0, 1, b'k', 0, 1, b'v']),
    }
}

/// Sends a CONNECT in two parts, once for each place to cut it and each way, and waits for `answer`.
async fn cut_everywhere(lab: &Lab, transport: Transport, connect: &Connect, answer: &[u8]) {
    let bytes = connect.bytes();
    for place in 1..bytes.len() {
        for one_message in [false, true] {
            if transport == Transport::Tls && one_message {
                continue;
            }
            let mut wire = lab.mqtt_device(transport).await;
            let parts = bytes.split_at(place);
            wire.send_in_two(parts, one_message).await;
            let context = format!("cut at {place}, one message: {one_message}, {transport:?}");
            assert_eq!(wire.packet().await.as_deref(), Some(answer), "{context}");
        }
    }
}

#[tokio::test]
async fn a_connect_passes_wherever_it_is_cut() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let connect = full(version, SECRET);
            cut_everywhere(&lab, transport, &connect, version.accepted()).await;
            let received = lab.broker.conversations();
            assert!(received.len() >= connect.bytes().len() - 1);
            assert!(received.iter().all(|bytes| *bytes == connect.bytes()));
        }
    }
}

#[tokio::test]
async fn a_connect_with_another_password_is_refused_wherever_it_is_cut() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            // What differs comes last.
            let connect = full(version, &format!("{SECRET}x"));
            cut_everywhere(&lab, transport, &connect, &version.not_authorized()).await;
            lab.broker.assert_untouched().await;
        }
    }
}

#[tokio::test]
async fn a_connect_that_ends_anywhere_before_its_end_reaches_no_broker() {
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let lab = Lab::x509().await;
            let bytes = full(version, SECRET).bytes();
            for place in 0..bytes.len() {
                let mut wire = lab.mqtt_device(transport).await;
                wire.send(&bytes[..place]).await;
                wire.close().await;
                wire.end().await;
            }
            lab.broker.assert_untouched().await;
        }
    }
}
