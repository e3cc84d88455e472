//! Bodies in streams of HTTP/2: leave to send one, its length, and clients that take their time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::SendStream;
use h2::client::ResponseFuture;
use hyper::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::time::{interval, timeout};

use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM, head,
};
use crate::harness::lab::Config;
use crate::harness::scripted::{Peer, tables_with};
use crate::harness::streams::Streams;
use crate::harness::{Lab, Multiplexed, PATIENCE, Scripted};

/// The head of a POST whose body is still to come.
async fn begin(
    connection: &mut Multiplexed,
    path: &str,
    fields: &[(&str, &str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let request = connection.request(Method::POST, None, path, fields);
    poll_fn(|cx| connection.sender.poll_ready(cx))
        .await
        .unwrap();
    connection.sender.send_request(request, false).unwrap()
}

/// The status of what comes before the answer; `None` if that is there.
async fn word_before(answer: &mut ResponseFuture) -> Option<StatusCode> {
    let word = poll_fn(|cx| answer.poll_informational(cx));
    let word = timeout(PATIENCE, word).await.expect("nothing comes")?;
    Some(word.unwrap().status())
}

const EXPECTING: [(&str, &str); 2] = [("expect", "100-continue"), ("content-length", "5")];

#[tokio::test]
async fn an_admitted_request_is_told_to_continue() {
    let server = Scripted::start().await;
    let lab = Config::x509().tables(&server.tables()).start().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let (mut answer, mut body) = begin(&mut connection, "/raw/m", &EXPECTING).await;
    let origin = async {
        let mut peer: Peer = server.accept().await;
        assert!(!peer.head().await.contains("expect"));
        assert_eq!(peer.bytes(5).await, b"hello");
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        peer
    };
    let client = async {
        assert_eq!(word_before(&mut answer).await, Some(StatusCode::CONTINUE));
        body.send_data("hello".into(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    };
    tokio::join!(client, origin);
}

#[tokio::test]
async fn it_is_told_so_where_its_server_speaks_http2_as_well() {
    let server = Streams::start().await;
    let tables = tables_with(server.address, "protocol = \"h2\"");
    let lab = Config::x509().tables(&tables).start().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let (mut answer, mut body) = begin(&mut connection, "/raw/m", &EXPECTING).await;
    let origin = async {
        let mut line = server.accept().await;
        let mut stream = line.next().await;
        assert_eq!(stream.data().await.unwrap(), "hello");
        stream.ok();
        line
    };
    let client = async {
        assert_eq!(word_before(&mut answer).await, Some(StatusCode::CONTINUE));
        body.send_data("hello".into(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    };
    tokio::join!(client, origin);
}

#[tokio::test]
async fn a_refused_request_is_not_told_to_continue() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let fields = [EXPECTING[0], EXPECTING[1], ("authorization", "Client x")];
    let (mut answer, _body) = begin(&mut connection, "/http/m", &fields).await;
    assert_eq!(word_before(&mut answer).await, None);
    assert_eq!(answer.await.unwrap().status(), 403);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_length_that_is_no_number_is_refused() {
    let lab = Lab::x509().await;
    let mut connection = lab.device().multiplex().await.unwrap();
    for (length, status) in [("5", 200), ("", 400)] {
        let fields = [("content-length", length)];
        let (answer, mut body) = begin(&mut connection, "/http/m", &fields).await;
        let content = "x".repeat(length.parse().unwrap_or(0));
        body.send_data(content.into(), true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{length:?}");
    }
    assert_eq!(lab.origin.requests().len(), 1);
}

#[tokio::test]
async fn a_client_that_reads_little_by_little_gets_all_of_its_answer() {
    const PIECE: usize = 1000;
    let lab = Config::x509().timeouts("stall = \"300ms\"").start().await;
    let stream = lab.device().connect(&["h2"]).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(PIECE as u32);
    let (mut sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{}/http/bytes/20000", lab.device().host);
    let request = hyper::Request::get(uri).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut read = 0;
    let mut pace = interval(Duration::from_millis(100));
    while let Some(data) = body.data().await {
        let length = data.unwrap().len();
        read += length;
        pace.tick().await;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(read, 20_000);
}

#[tokio::test]
async fn no_answer_is_followed_by_a_reset_while_its_body_may_still_come() {
    let tables = "[upstreams.nobody]\nservers = [\"127.0.0.1:1\"]\n\
                  [routes.nobody]\npath = \"/nobody\"\nupstream = \"nobody\"\n";
    let config = Config::x509().route("max_body = \"4B\"").tables(tables);
    let lab = config.start().await;
    // RFC 7541 §6.2.2, Appendix A: `content-length` has the index 28.
    let announced = [&head("POST", "/http/m")[..], &[0x0f, 13, 1, b'5']].concat();
    let cases = [
        (announced, &b""[..], "an announced body that is too long"),
        (head("POST", "/http/m"), b"hello", "a body that is too long"),
        (head("POST", "/nobody"), b"", "no server"),
    ];
    for (head, body, case) in cases {
        let frames = Frames::new()
            .add(HEADERS, END_HEADERS, 1, &head)
            .add(DATA, 0, 1, body);
        let mut stream = lab.device().connect(&["h2"]).await.unwrap();
        stream.write_all(&frames.0).await.unwrap();
        let mut is_answered = false;
        loop {
            let frame = Frame::read(&mut stream).await.expect("the end");
            match frame.kind {
                DATA if frame.stream == 1 => {
                    is_answered = true;
                    let rest = Frames(Vec::new())
                        .add(DATA, END_STREAM, 1, b"")
                        .add(PING, 0, 0, &[7; 8]);
                    stream.write_all(&rest.0).await.unwrap();
                }
                PING => break,
                kind => assert!(!matches!(kind, RST_STREAM | GOAWAY), "{case}"),
            }
        }
        assert!(is_answered, "{case}");
    }
}
