//! Plain HTTP at the door of TLS: a sentence for people, an alert for everything else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Lab, PATIENCE};

/// What a listener answers to these bytes until it closes.
async fn answer(lab: &Lab, listener: &str, bytes: &[u8]) -> Vec<u8> {
    let address = lab.address_of(listener);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the gateway does not close")
        .unwrap();
    answer
}

#[tokio::test]
async fn a_plain_request_is_told_that_tls_is_spoken() {
    let lab = Lab::x509().await;
    let long = format!("POST / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    for request in [
        "GET /http/m HTTP/1.1\r\nHost: localhost\r\nAuthorization: Client s\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &long,
    ] {
        for listener in ["edge", "mqtts"] {
            let answer = answer(&lab, listener, request.as_bytes()).await;
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            assert!(head.ends_with("\r\nConnection: close"));
            assert_eq!(
                body,
                "This port speaks TLS, and your request came without it.\n"
            );
        }
    }
    lab.origin.assert_untouched();
    // And whoever does speak it is served.
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn what_is_no_request_gets_an_alert_or_nothing() {
    let lab = Lab::x509().await;
    for bytes in [
        &b"get / http/1.1\r\n\r\n"[..],
        b"GETS / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03abc",
        &[0x16; 64],
    ] {
        let answer = answer(&lab, "edge", bytes).await;
        assert!(matches!(answer.first(), None | Some(21)), "{answer:?}");
    }
    lab.origin.assert_untouched();
}
