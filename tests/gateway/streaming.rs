//! Answers as they come: events before the end, trailers behind it.

use futures_util::future::join;
use http_body_util::BodyExt;
use hyper::{Method, body};

use crate::harness::kept::whole;
use crate::harness::lab::Config;
use crate::harness::scripted::Peer;
use crate::harness::{Kept, Lab, PATIENCE, Protocol, Scripted};

const EITHER: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// An answer that has begun with `head`, and the server's end of it.
async fn begun(
    lab: &Lab,
    server: &Scripted,
    protocol: Protocol,
    fields: &[(&str, &str)],
    head: &str,
) -> (Kept, body::Incoming, Peer) {
    let mut client = lab.device().keep(protocol).await.unwrap();
    let answer = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(head).await;
        peer
    };
    let request = client.begin(Method::GET, "/raw/m", fields, whole(""));
    let (response, peer) = join(request, answer).await;
    (client, response.unwrap().into_body(), peer)
}

async fn frame(body: &mut body::Incoming) -> Option<body::Frame<bytes::Bytes>> {
    let frame = tokio::time::timeout(PATIENCE, body.frame());
    frame.await.expect("nothing comes").map(Result::unwrap)
}

#[tokio::test]
async fn events_arrive_before_the_answer_ends() {
    for protocol in EITHER {
        let server = Scripted::start().await;
        let lab = Config::x509().tables(&server.tables()).start().await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let (_client, mut body, mut peer) = begun(&lab, &server, protocol, &[], head).await;
        for number in 0..3 {
            peer.say(&format!("9\r\ndata: {number}\n\n\r\n")).await;
            let event = frame(&mut body).await.unwrap().into_data().unwrap();
            assert_eq!(event, format!("data: {number}\n\n"), "{protocol:?}");
        }
        peer.say("0\r\n\r\n").await;
        while let Some(rest) = frame(&mut body).await {
            assert_eq!(rest.into_data().unwrap(), "");
        }
    }
}

#[tokio::test]
async fn trailers_reach_those_who_take_them() {
    for (protocol, fields, arrive) in [
        (Protocol::Http2, &[][..], true),
        (Protocol::Http2, &[("te", "trailers")], true),
        (Protocol::Http1, &[("te", "trailers")], true),
        (Protocol::Http1, &[], false),
    ] {
        let server = Scripted::start().await;
        let lab = Config::x509().tables(&server.tables()).start().await;
        let head = "HTTP/1.1 200 OK\r\nTrailer: x-checksum\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nok\r\n0\r\nX-Checksum: 1\r\n\r\n";
        let (_client, mut body, _peer) = begun(&lab, &server, protocol, fields, head).await;
        let mut trailers = None;
        let mut data = Vec::new();
        while let Some(frame) = frame(&mut body).await {
            match frame.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        assert_eq!(data, b"ok", "{protocol:?}");
        let checksum = trailers
            .as_ref()
            .and_then(|trailers| trailers.get("x-checksum"));
        assert_eq!(checksum.is_some(), arrive, "{protocol:?} {fields:?}");
    }
}
