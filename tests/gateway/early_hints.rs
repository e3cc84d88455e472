//! Interim answers (103 Early Hints, RFC 8297): before the answer, for those who understand them, and
//! nothing in them that could be taken for the answer.

use futures_util::future::{join, poll_fn};
use h2::client::ResponseFuture;
use hyper::{HeaderMap, Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::harness::lab::Config;
use crate::harness::scripted::{Peer, tables_with};
use crate::harness::{Lab, Multiplexed, PATIENCE, Protocol, Scripted};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const GET: &str = "GET /raw/m HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A gateway whose route to `server` passes hints on, or not.
async fn lab(server: &Scripted, passes: bool) -> Lab {
    let tables = tables_with(server.address, "") + &format!("early_hints = {passes}\n");
    Config::x509().tables(&tables).start().await
}

fn hint(fields: &str) -> String {
    format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n")
}

/// A client's connection that has sent `request`, and the server's end of it.
async fn asked(lab: &Lab, server: &Scripted, request: &str) -> (Peer<TlsStream<TcpStream>>, Peer) {
    let stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let mut client = Peer::new(stream);
    client.say(request).await;
    let mut peer = server.accept().await;
    peer.head().await;
    (client, peer)
}

/// The next head is that of the final answer, whose body follows.
async fn assert_answered(client: &mut Peer<TlsStream<TcpStream>>) {
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert_eq!(client.bytes(2).await, b"ok");
}

#[tokio::test]
async fn hints_arrive_before_the_answer() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    for link in ["</a.css>; rel=preload", "</b.js>; rel=preload"] {
        peer.say(&hint(&format!("Link: {link}\r\n"))).await;
        let expected = hint(&format!("link: {link}\r\n"));
        assert_eq!(client.head_as_sent().await, expected);
    }
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
    // The connection carries the next request, with hints of its own.
    client.say(GET).await;
    peer.head().await;
    peer.say(&(hint("Link: </c>\r\n") + ANSWER)).await;
    assert_eq!(client.head_as_sent().await, hint("link: </c>\r\n"));
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn hints_arrive_while_a_body_is_sent() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let post = "POST /raw/m HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 4\r\n\r\n";
    let (mut client, mut peer) = asked(&lab, &server, post).await;
    peer.say(&hint("Link: </a>\r\n")).await;
    let mut heads = [client.head().await, client.head().await];
    heads.sort();
    assert!(heads[0].starts_with("http/1.1 100 "), "{heads:?}");
    assert_eq!(heads[1], hint("link: </a>\r\n").to_ascii_lowercase());
    client.say("body").await;
    assert_eq!(peer.bytes(4).await, b"body");
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn a_hint_cannot_say_what_frames_an_answer() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    let hostile = "Connection: close, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\
                   Content-Length: 100\r\nSet-Cookie: a=b\r\n";
    peer.say(&hint(hostile)).await;
    assert_eq!(client.head_as_sent().await, hint("set-cookie: a=b\r\n"));
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
    client.say(GET).await;
    // Whether or not the server's connection is used again is up to the gateway.
    peer.head().await;
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn a_hint_cannot_say_what_its_route_removes_from_answers() {
    let server = Scripted::start().await;
    let tables =
        tables_with(server.address, "") + "early_hints = true\n[routes.raw.response_headers]\n";
    let rules = "remove = [\"x-inside\"]\nset = [\"x-ours: 1\"]\nadd = [\"x-more: 1\"]\n";
    let lab = Config::x509().tables(&(tables + rules)).start().await;
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    peer.say(&hint("X-Inside: 1\r\nX-Ours: 2\r\nX-More: 2\r\n"))
        .await;
    assert_eq!(client.head_as_sent().await, hint("x-more: 2\r\n"));
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn other_interim_answers_end_at_the_gateway() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    peer.say("HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n")
        .await;
    peer.say(&hint("")).await;
    peer.say(&hint(&format!("Link: {}\r\n", "x".repeat(9000))))
        .await;
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn a_server_cannot_send_hints_without_end() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    for number in 0..8 {
        let link = hint(&format!("link: </{number}>\r\n"));
        peer.say(&link).await;
        assert_eq!(client.head_as_sent().await, link);
    }
    peer.say(&hint("link: </8>\r\n")).await;
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn no_hint_goes_to_those_who_might_take_it_for_the_answer() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let request = "GET /raw/m HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let (mut client, mut peer) = asked(&lab, &server, request).await;
    peer.say(&hint("Link: </a>\r\n")).await;
    peer.say(ANSWER).await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.0 200 ok\r\n"), "{head}");
}

#[tokio::test]
async fn no_hint_goes_where_the_route_does_not_say_so() {
    let server = Scripted::start().await;
    let lab = lab(&server, false).await;
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    peer.say(&hint("Link: </a>\r\n")).await;
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

/// A connection of HTTP/2 that has sent a GET, the answer that it waits for, and the server's end.
async fn asked_in_http2(lab: &Lab, server: &Scripted) -> (Multiplexed, ResponseFuture, Peer) {
    let mut connection = lab.device().multiplex().await.unwrap();
    let request = connection.request(Method::GET, None, "/raw/m", &[]);
    poll_fn(|cx| connection.sender.poll_ready(cx))
        .await
        .unwrap();
    let (answer, _) = connection.sender.send_request(request, true).unwrap();
    let mut peer = server.accept().await;
    peer.head().await;
    (connection, answer, peer)
}

/// The next hint before `answer`; `None` if that is there.
async fn hint_of(answer: &mut ResponseFuture) -> Option<HeaderMap> {
    let hint = poll_fn(|cx| answer.poll_informational(cx));
    let hint = timeout(PATIENCE, hint).await.expect("nothing comes")?;
    let (head, ()) = hint.unwrap().into_parts();
    assert_eq!(head.status, StatusCode::EARLY_HINTS);
    Some(head.headers)
}

#[tokio::test]
async fn hints_arrive_before_the_answer_in_http2_too() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let (_connection, mut answer, mut peer) = asked_in_http2(&lab, &server).await;
    for link in ["</a.css>; rel=preload", "</b.js>; rel=preload"] {
        let hostile = "Connection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 100\r\n";
        peer.say(&hint(&format!("Link: {link}\r\n{hostile}"))).await;
        let fields = hint_of(&mut answer).await.unwrap();
        assert_eq!(fields.len(), 1, "{fields:?}");
        assert_eq!(fields["link"], link);
    }
    peer.say(ANSWER).await;
    assert!(hint_of(&mut answer).await.is_none());
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("link"));
}

#[tokio::test]
async fn no_hint_goes_in_http2_where_the_route_does_not_say_so() {
    let server = Scripted::start().await;
    let lab = lab(&server, false).await;
    let (_connection, mut answer, mut peer) = asked_in_http2(&lab, &server).await;
    peer.say(&(hint("Link: </a>\r\n") + ANSWER)).await;
    assert!(hint_of(&mut answer).await.is_none());
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_of_http2_that_looks_for_no_hint_finds_the_answer() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let device = lab.device();
    let mut client = device.keep(Protocol::Http2).await.unwrap();
    let answer = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say(&(hint("Link: </a>\r\n") + ANSWER)).await;
        peer
    };
    let (response, _peer) = join(client.get("/raw/m", &[]), answer).await;
    let response = response.unwrap();
    assert_eq!(
        (response.status.as_u16(), &*response.body),
        (200, &b"ok"[..])
    );
    assert!(!response.headers.contains_key("link"));
}

#[tokio::test]
async fn a_client_that_goes_takes_no_hint_to_another() {
    let server = Scripted::start().await;
    let lab = lab(&server, true).await;
    let (client, mut gone) = asked(&lab, &server, GET).await;
    let mut stream = client.stream;
    stream.shutdown().await.unwrap();
    drop(stream);
    let (mut client, mut peer) = asked(&lab, &server, GET).await;
    // The first server may have been hung up on.
    let _ = gone
        .stream
        .write_all(hint("Link: </a>\r\n").as_bytes())
        .await;
    peer.say(ANSWER).await;
    assert_answered(&mut client).await;
}

#[tokio::test]
async fn a_route_without_answers_has_no_hints() {
    let mut lab = Lab::x509().await;
    for (lines, expected) in [
        (
            "protocol = \"mqtt\"\nupstream = \"mqtt\"",
            "which has no answers",
        ),
        ("answer = 200", "has no meaning without an upstream"),
    ] {
        lab.config.tables =
            format!("[routes.hinting]\npath = \"/hinting\"\nearly_hints = true\n{lines}\n");
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains("routes.hinting.early_hints"), "{problem}");
        assert!(problem.contains(expected), "{problem}");
    }
}
