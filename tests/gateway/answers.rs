//! Answers of HTTP/1.1 servers, as RFC 9112 frames them: read as far as they go and no further,
//! refused where two readers could find another end, and never waited for by more than their client.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::kept::whole;
use crate::harness::lab::Config;
use crate::harness::scripted::{Peer, tables_with};
use crate::harness::{Lab, Protocol, Scripted};

const GET: &[u8] = b"GET /raw/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

async fn lab(server: &Scripted) -> Lab {
    Config::x509().tables(&server.tables()).start().await
}

/// What a client of HTTP/1.1 gets for `answer`, letter for letter, after which the server closes if it
/// `closes`, or waits for more.
async fn made_of(answer: &str, closes: bool) -> String {
    let server = Scripted::start().await;
    let lab = lab(&server).await;
    let origin = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(answer).await;
        (!closes).then_some(peer)
    };
    let device = lab.device();
    let (text, _peer) = tokio::join!(device.raw(GET), origin);
    text.unwrap_or_default()
}

#[tokio::test]
async fn every_way_to_frame_a_body_is_understood() {
    for (answer, closes) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhe\r\n03\r\nllo\r\n0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", true),
        ("HTTP/1.0 200 OK\r\n\r\nhello", true),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            false,
        ),
    ] {
        let text = made_of(answer, closes).await;
        let (head, body) = text.split_once("\r\n\r\n").expect(answer);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}: {text}");
        let body = if head.contains("transfer-encoding: chunked") {
            let chunks = body.split("\r\n").skip(1).step_by(2);
            chunks.collect::<String>()
        } else {
            body.to_owned()
        };
        assert_eq!(body, "hello", "{answer}: {text}");
        assert!(head.matches("content-length").count() < 2, "{text}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_told_that_an_answer_ends_with_its_connection() {
    const KEEPING: &[u8] =
        b"GET /raw/m HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n";
    let server = Scripted::start().await;
    let lab = lab(&server).await;
    let device = lab.device();
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    ] {
        let origin = async {
            let mut peer = server.accept().await;
            peer.head().await;
            peer.say(answer).await;
        };
        let (text, ()) = tokio::join!(device.raw(KEEPING), origin);
        let text = text.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        assert_eq!(body, "hello");
    }
    let refused = device.raw(b"GET * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let refused = refused.await.unwrap();
    assert!(refused.contains("\r\nconnection: close\r\n"), "{refused}");
    // One that says its length does not.
    let mut client = device.connect(&["http/1.1"]).await.unwrap();
    client.write_all(KEEPING).await.unwrap();
    let mut peer = server.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    let mut text = Vec::new();
    while !text.ends_with(b"hello") {
        assert_ne!(client.read_buf(&mut text).await.unwrap(), 0);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\r\nconnection: keep-alive\r\n"), "{text}");
}

/// Answers one request, and breaks off in the middle.
async fn break_off(server: &Scripted) {
    let mut peer = server.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        .await;
}

#[tokio::test]
async fn what_has_come_of_an_answer_that_breaks_off_arrives() {
    let server = Scripted::start().await;
    let lab = lab(&server).await;
    let request = async {
        let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut text = Vec::new();
        // TLS ends as the answer does: without a word.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    };
    let (text, ()) = tokio::join!(request, break_off(&server));
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nabc"), "{text}");

    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let request = client.begin(Method::GET, "/raw/m", &[], whole(""));
    let (answer, ()) = tokio::join!(request, break_off(&server));
    let answer = answer.expect("the head");
    assert_eq!(answer.status(), 200);
    assert!(
        answer.into_body().collect().await.is_err(),
        "it is not whole"
    );
}

#[tokio::test]
async fn an_answer_whose_end_is_in_doubt_is_refused() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        let text = made_of(&answer, false).await;
        assert!(text.starts_with("HTTP/1.1 502 "), "{fields}: {text}");
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let text = made_of(old, false).await;
    assert!(text.starts_with("HTTP/1.1 502 "), "{text}");
}

#[tokio::test]
async fn chunks_that_make_no_sense_break_the_answer_off() {
    for chunks in ["\r\n", "+5\r\nhello\r\n", "5\r\nhello!\r\n", "5;x\ny\r\n"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n{chunks}0\r\n\r\n"
        );
        let text = made_of(&answer, false).await;
        // No last chunk: the client can tell that there was more.
        assert!(!text.ends_with("\r\n0\r\n\r\n"), "{chunks:?}: {text}");
    }
}

#[tokio::test]
async fn a_server_may_give_a_reason_of_its_own() {
    let text = made_of("HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n", false).await;
    assert!(text.starts_with("HTTP/1.1 200 Fine\r\n"), "{text}");
}

#[tokio::test]
async fn an_answer_is_the_same_byte_by_byte_and_its_connection_serves_again() {
    let server = Scripted::start().await;
    let lab = lab(&server).await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    let mut pooled = None;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nag\r\n3\r\nain\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nagain\r\n0\r\nX: y\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nagain",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain",
    ] {
        let origin = async {
            let mut peer = match pooled.take() {
                Some(peer) => peer,
                None => server.accept().await,
            };
            peer.head().await;
            for byte in answer.as_bytes() {
                peer.stream.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            peer
        };
        let (answer, peer) = tokio::join!(kept.get("/raw/m", &[]), origin);
        assert_eq!(answer.unwrap().body, "again");
        pooled = Some(peer);
    }
    server.assert_undialled().await;
}

#[tokio::test]
async fn a_connection_that_its_server_ends_does_not_serve_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let server = Scripted::start().await;
        let lab = lab(&server).await;
        let device = lab.device();
        let origin = async {
            let mut peer = server.accept().await;
            peer.head().await;
            peer.say(answer).await;
            peer.closed().await;
        };
        let (first, ()) = tokio::join!(device.get("/raw/m"), origin);
        assert_eq!(first.unwrap().body, "ok", "{answer}");
    }
}

/// The connection over which a request has been answered, idle from here on, with these lines for the
/// upstream.
async fn idle(lines: &str) -> (Lab, Peer) {
    let server = Scripted::start().await;
    let tables = tables_with(server.address, lines);
    let lab = Config::x509().tables(&tables).start().await;
    let device = lab.device();
    let origin = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        peer
    };
    let (answer, peer) = tokio::join!(device.get("/raw/m"), origin);
    assert_eq!(answer.unwrap().body, "ok");
    (lab, peer)
}

#[tokio::test]
async fn an_idle_connection_that_its_server_closes_is_let_go() {
    let (_lab, mut peer) = idle("idle_timeout = \"1h\"").await;
    peer.stream.shutdown().await.unwrap();
    // Nothing is asked for meanwhile.
    peer.closed().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let (_lab, peer) = idle("idle_timeout = \"100ms\"").await;
    peer.closed().await;
}

#[tokio::test]
async fn a_request_says_where_its_body_ends_and_nothing_where_it_has_none() {
    for (method, body, expected) in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "", Some("content-length: 0")),
        ("PUT", "", Some("content-length: 0")),
        ("POST", "body", Some("content-length: 4")),
        ("GET", "body", Some("content-length: 4")),
    ] {
        let server = Scripted::start().await;
        let lab = lab(&server).await;
        let mut kept = lab.device().keep(Protocol::Http2).await.unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let origin = async {
            let mut peer = server.accept().await;
            let head = peer.head().await;
            assert_eq!(peer.bytes(body.len()).await, body.as_bytes());
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            head
        };
        let begun = kept.begin(method.clone(), "/raw/m", &[], whole(body));
        let (answer, head) = tokio::join!(begun, origin);
        assert_eq!(answer.unwrap().status(), 204);
        let framing = head
            .lines()
            .find(|line| line.starts_with("content-length") || line.starts_with("transfer"));
        assert_eq!(framing, expected, "{method} {body:?}");
    }
}

/// A POST that announces `length` bytes, as HTTP/1.1 sends it, without them.
fn post(length: usize) -> String {
    format!("POST /raw/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_server_that_answers_before_it_has_read_everything_is_heard() {
    let server = Scripted::start().await;
    let lab = lab(&server).await;
    let stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let mut client = Peer::new(stream);
    client.say(&post(1 << 20)).await;
    client.say("begun").await;
    let mut peer = server.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 413 "), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.bytes(4).await, b"much");
}

#[tokio::test]
async fn a_body_goes_on_while_nobody_reads_the_answer_that_has_begun() {
    /// More than all buffers on the way can hold.
    const LENGTH: usize = 32 << 20;
    let server = Scripted::start().await;
    let tables = server.tables() + "max_body = \"32MiB\"\n";
    let lab = Config::x509().tables(&tables).start().await;
    let stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let mut client = Peer::new(stream);
    client.say(&post(LENGTH)).await;
    let mut peer = server.accept().await;
    peer.head().await;
    peer.say(&format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
    ))
    .await;
    client.head().await;
    let answer = "x".repeat(LENGTH);
    let (mut reading, mut writing) = peer.stream.into_split();
    let answering = tokio::spawn(async move { writing.write_all(answer.as_bytes()).await });
    let uploading = async {
        let part = "y".repeat(16 << 10);
        for _ in 0..LENGTH / part.len() {
            client.say(&part).await;
        }
    };
    let received = async {
        let mut upload = (&mut reading).take(LENGTH as u64);
        tokio::io::copy(&mut upload, &mut tokio::io::sink())
            .await
            .unwrap()
    };
    let both = async { tokio::join!(uploading, received) };
    let ((), received) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .expect("each waits for the other");
    assert_eq!(received, LENGTH as u64);
    assert_eq!(client.bytes(LENGTH).await.len(), LENGTH);
    answering.await.unwrap().unwrap();
}
