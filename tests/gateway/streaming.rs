//! Answers as they come: events before the end, trailers behind it.

use bytes::Bytes;
use futures_util::future::{join, poll_fn};
use h2::Reason;
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

async fn frame(body: &mut body::Incoming) -> Option<body::Frame<Bytes>> {
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

#[tokio::test]
async fn trailers_say_nothing_that_is_not_theirs_to_say() {
    let server = Scripted::start().await;
    let config = Config::x509().tables(&server.tables());
    let rules = "[response_headers]\nset = [\"x-frame-options: DENY\"]\nremove = [\"server\"]\nhsts = \"1d\"";
    let lab = config.tables(rules).start().await;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                X-Checksum: 1\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nContent-Length: 9\r\n\
                Transfer-Encoding: chunked\r\nServer: x\r\nX-Frame-Options: ALLOW\r\n\
                Strict-Transport-Security: max-age=0\r\nX-Request-Id: x\r\n\r\n";
    let (_client, mut body, _peer) = begun(&lab, &server, Protocol::Http2, &[], head).await;
    assert_eq!(frame(&mut body).await.unwrap().into_data().unwrap(), "ok");
    let trailers = frame(&mut body).await.unwrap().into_trailers().unwrap();
    let names: Vec<&str> = trailers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["x-checksum"]);
}

#[tokio::test]
async fn an_answer_without_content_announces_none() {
    for protocol in EITHER {
        let server = Scripted::start().await;
        let lab = Config::x509().tables(&server.tables()).start().await;
        let mut client = lab.device().keep(protocol).await.unwrap();
        let answer = async {
            let mut peer = server.accept().await;
            peer.head().await;
            peer.say("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
                .await;
            peer
        };
        let (answer, _peer) = join(client.get("/raw/m", &[]), answer).await;
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (204, &b""[..]),
            "{protocol:?}"
        );
        assert!(!answer.headers.contains_key("content-length"));
    }
}

#[tokio::test]
async fn a_body_that_its_client_gives_up_is_not_taken_for_whole() {
    // The second way, the rest of it is sent while the answer is on its way.
    for (answers_early, reason) in [
        (false, Reason::CANCEL),
        (false, Reason::NO_ERROR),
        (true, Reason::CANCEL),
        (true, Reason::NO_ERROR),
    ] {
        let server = Scripted::start().await;
        let lab = Config::x509().tables(&server.tables()).start().await;
        let mut connection = lab.device().multiplex().await.unwrap();
        let request = connection.request(Method::POST, None, "/raw/m", &[]);
        poll_fn(|cx| connection.sender.poll_ready(cx))
            .await
            .unwrap();
        let (answer, mut stream) = connection.sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"ab"), false).unwrap();
        let mut peer = server.accept().await;
        peer.head().await;
        assert_eq!(peer.bytes(7).await, b"2\r\nab\r\n");
        let answer = if answers_early {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
                .await;
            Some(answer.await.unwrap())
        } else {
            None
        };
        stream.send_reset(reason);
        // Without another byte: the last chunk would say that this was all.
        peer.closed().await;
        drop(answer);
    }
}
