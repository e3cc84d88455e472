//! Clients that take their time, and clients that take too much: every wait has an end, every
//! number a bound (S47).

use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, PING, RST_STREAM,
    SETTINGS, head, is_served,
};
use crate::harness::kept::whole;
use crate::harness::lab::Config;
use crate::harness::{Lab, Protocol, Scripted};

const HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Far more than any deadline below; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(20);
/// Far less than any deadline below.
const PACE: Duration = Duration::from_millis(20);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Everything up to the end, however it comes.
async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&rest).into_owned()
}

/// Waits until the gateway counts this many connections.
async fn until_active(lab: &Lab, count: usize) {
    let wanted = format!("portcullis_connections_active{{listener=\"edge\"}} {count}\n");
    let reached = async {
        while !lab.admin("/metrics").await.1.contains(&wanted) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("never {count} connections"));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut() {
    let lab = Config::x509()
        .timeouts("handshake = \"200ms\"")
        .start()
        .await;
    let mut silent = TcpStream::connect(lab.address()).await.unwrap();
    let mut half = TcpStream::connect(lab.address()).await.unwrap();
    // The header of a record whose content never follows.
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    for stream in [&mut silent, &mut half] {
        let mut nothing = [0; 64];
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut nothing));
        // An alert may precede the end.
        let _ = end.await.expect("it stays open");
    }
    until_active(&lab, 0).await;
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_head_that_trickles_is_cut() {
    let lab = Config::x509().timeouts("header = \"200ms\"").start().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let head = format!(
        "GET /http/m HTTP/1.1\r\nHost: localhost\r\nX: {}",
        "y".repeat(20_000)
    );
    let mut answer = [0; 64];
    let mut sent = 0;
    for byte in head.as_bytes() {
        // Its end ends the trickle as well.
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        if tokio::time::timeout(PACE, stream.read(&mut answer))
            .await
            .is_ok()
        {
            break;
        }
    }
    assert!(sent < 1000, "{sent} bytes of a head were waited for");
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_head_that_stops_is_cut() {
    let lab = Config::x509().timeouts("header = \"200ms\"").start().await;
    for start in ["G", "GET /http/m HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{start}");
    }
    lab.origin.assert_untouched();
}

/// Sends `first`, and then `next` without end until the gateway closes.
async fn trickle(lab: &Lab, first: Frames, next: &[u8]) {
    let mut stream = lab.device().connect(&["h2"]).await.unwrap();
    stream.write_all(&first.0).await.unwrap();
    let mut pace = tokio::time::interval(PACE);
    let closed = async {
        let mut answer = [0; 1024];
        loop {
            tokio::select! {
                read = stream.read(&mut answer) => match read {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => return,
                },
                _ = pace.tick() => {}
            }
            if stream.write_all(next).await.is_err() {
                return;
            }
        }
    };
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    assert!(closed.is_ok(), "it stays open");
}

#[tokio::test]
async fn an_http2_head_that_does_not_end_is_cut() {
    let lab = Config::x509()
        .timeouts("header = \"200ms\"\nidle = \"400ms\"\nstall = \"200ms\"")
        .start()
        .await;
    let begun = Frames::new().add(HEADERS, END_STREAM, 1, &head("GET", "/http/m"));
    let nothing = Frames(Vec::new()).add(CONTINUATION, 0, 1, &[]);
    trickle(&lab, begun.clone(), &nothing.0).await;
    let field = [0, 1, b'x', 1, b'y'];
    let little = Frames(Vec::new()).add(CONTINUATION, 0, 1, &field);
    trickle(&lab, begun.clone(), &little.0).await;
    trickle(&lab, begun, &[]).await;
    // A frame that is announced, and does not come or comes byte by byte.
    let mut announced = Frames::new();
    announced
        .0
        .extend([0, 0x3f, 0, HEADERS, END_STREAM, 0, 0, 0, 1]);
    trickle(&lab, announced.clone(), &[]).await;
    trickle(&lab, announced, &[0x82]).await;
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn an_http2_connection_is_not_kept_open_by_what_is_no_request() {
    let lab = Config::x509()
        .timeouts("header = \"200ms\"\nidle = \"400ms\"\nstall = \"200ms\"")
        .start()
        .await;
    for (kind, payload) in [(PING, &[7; 8][..]), (SETTINGS, &[]), (0xbe, b"unknown")] {
        let frame = Frames(Vec::new()).add(kind, 0, 0, payload);
        trickle(&lab, Frames::new(), &frame.0).await;
    }
}

#[tokio::test]
async fn an_http2_client_that_ignores_the_farewell_is_not_served_for_long() {
    let lab = Config::x509()
        .limits("requests_per_connection = 1")
        .timeouts("header = \"200ms\"\nstall = \"200ms\"")
        .start()
        .await;
    let mut connection = lab.device().connect(&["h2"]).await.unwrap();
    connection.write_all(&Frames::new().0).await.unwrap();
    assert!(is_served(&mut connection, 1, "/http/m").await);
    let ending = async {
        let mut stream = 3;
        while is_served(&mut connection, stream, "/http/m").await {
            stream += 2;
        }
        // What is refused keeps the connection no more than what is served.
        let mut answer = [0; 1024];
        while let Ok(1..) = connection.read(&mut answer).await {}
    };
    let ended = tokio::time::timeout(PATIENCE, ending).await;
    assert!(ended.is_ok(), "it goes on");
}

#[tokio::test]
async fn an_http2_body_that_stops_is_cut() {
    let lab = Config::x509().timeouts("stall = \"200ms\"").start().await;
    let begun = Frames::new()
        .add(HEADERS, END_HEADERS, 1, &head("POST", "/http/m"))
        .add(DATA, 0, 1, b"half");
    let mut stream = lab.device().connect(&["h2"]).await.unwrap();
    stream.write_all(&begun.0).await.unwrap();
    let answered = async {
        loop {
            let frame = Frame::read(&mut stream).await.expect("the end");
            if frame.stream == 1 && matches!(frame.kind, HEADERS | RST_STREAM) {
                return;
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, answered).await;
    assert!(answered.is_ok(), "it is waited for");
    assert!(lab.origin.requests().is_empty());
}

#[tokio::test]
async fn a_head_in_pieces_within_its_deadline_is_answered() {
    let lab = Lab::x509().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let head = "GET /http/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for byte in head.as_bytes() {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let lab = Config::x509().timeouts("idle = \"200ms\"").start().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
        until_active(&lab, 0).await;
        assert!(kept.get("/http/m", &[]).await.is_err());
    }
    // One that never asks for anything, too.
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_connection_that_waits_for_its_upstream_is_not_idle() {
    let upstream = Scripted::start().await;
    let lab = Config::x509()
        .timeouts("idle = \"100ms\"\nheader = \"100ms\"\nstall = \"100ms\"")
        .tables(&upstream.tables())
        .start()
        .await;
    for protocol in HTTP {
        let device = lab.device();
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            // Longer than all of the deadlines: another connection is idle until it is closed.
            let mut idle = lab.device().connect(&["http/1.1"]).await.unwrap();
            assert_eq!(rest(&mut idle).await, "");
            let mut idle = lab.device().connect(&["http/1.1"]).await.unwrap();
            assert_eq!(rest(&mut idle).await, "");
            peer.say(OK).await;
        };
        let (answer, ()) = tokio::join!(device.send(protocol, "/raw/m", &[]), origin);
        assert_eq!(answer.unwrap().body, "ok", "{protocol:?}");
    }
}

const UPLOAD: &str = "POST /http/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                      Content-Length: 10\r\n\r\n";

#[tokio::test]
async fn a_body_that_stops_is_cut() {
    let lab = Config::x509().timeouts("stall = \"200ms\"").start().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream.write_all(UPLOAD.as_bytes()).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    assert!(lab.origin.requests().is_empty());
}

#[tokio::test]
async fn a_slow_upload_within_its_deadlines_passes() {
    let lab = Config::x509()
        .timeouts("stall = \"400ms\"\nheader = \"100ms\"\nidle = \"100ms\"")
        .route("response_timeout = \"100ms\"")
        .start()
        .await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream.write_all(UPLOAD.as_bytes()).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(60));
    for _ in 0..10 {
        pace.tick().await;
        stream.write_all(b"x").await.unwrap();
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(lab.origin.only_request().body, "xxxxxxxxxx");
}

/// More than the buffers between an origin and a client hold.
const HUGE: &str = "/http/bytes/100000000";

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut() {
    let lab = Config::x509().timeouts("stall = \"200ms\"").start().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let request = format!("GET {HUGE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    until_active(&lab, 1).await;
    until_active(&lab, 0).await;
    assert!(rest(&mut stream).await.len() < 100_000_000);
}

#[tokio::test]
async fn an_http2_client_that_does_not_read_its_answer_is_cut() {
    let lab = Config::x509().timeouts("stall = \"200ms\"").start().await;
    let mut kept = lab.device().keep(Protocol::Http2).await.unwrap();
    let answer = kept.begin(Method::GET, HUGE, &[], whole("")).await.unwrap();
    assert_eq!(answer.status(), 200);
    until_active(&lab, 0).await;
}

#[tokio::test]
async fn a_client_that_reads_its_answer_gets_all_of_it() {
    let lab = Config::x509().timeouts("stall = \"200ms\"").start().await;
    for protocol in HTTP {
        let answer = lab.device().send(protocol, HUGE, &[]).await.unwrap();
        assert_eq!(answer.body.len(), 100_000_000);
    }
}

#[tokio::test]
async fn requests_beyond_the_streams_of_a_connection_wait() {
    let upstream = Scripted::start().await;
    let lab = Config::x509()
        .limits("streams = 2")
        .tables(&upstream.tables())
        .start()
        .await;
    let kept = lab.device().keep(Protocol::Http2).await.unwrap();
    // Otherwise the client has not heard of the limit yet.
    assert_eq!(kept.share().get("/http/m", &[]).await.unwrap().status, 200);
    let asking = (0..3).map(|_| {
        let mut kept = kept.share();
        async move { kept.get("/raw/m", &[]).await.unwrap().status }
    });
    let origin = async {
        let mut peers = [upstream.accept().await, upstream.accept().await];
        for peer in &mut peers {
            peer.head().await;
        }
        // A third request would have come over a third connection.
        peers[0].say(OK).await;
        peers[0].head().await;
        peers[0].say(OK).await;
        peers[1].say(OK).await;
    };
    let (statuses, ()) = tokio::join!(join_all(asking), origin);
    assert_eq!(statuses, [200, 200, 200]);
}
