//! HTTP/2 to servers: by ALPN inside TLS, by prior knowledge without; few connections, many
//! requests, and what was not begun with is sent again.

use bytes::Bytes;
use futures_util::future::{join, join_all, join3};
use h2::Reason;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, StatusCode};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{config, problem};
use crate::harness::kept::{in_parts, whole};
use crate::harness::lab::SECRET;
use crate::harness::scripted::Peer;
use crate::harness::streams::{Line, Stream, Streams};
use crate::harness::{
    Answer, Authority, Kept, Lab, Multiplexed, PATIENCE, Protocol, Scripted, Secure,
};

const H2: &str = "protocol = \"h2\"";

const EITHER: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

async fn lab(server: &Streams) -> Lab {
    config(server.address, H2).start().await
}

async fn get(client: &mut Kept, path: &str) -> Answer {
    client.get(path, &[]).await.unwrap()
}

/// A client whose first request has opened a connection, and so made the server's settings known.
async fn acquainted(lab: &Lab, server: &Streams, streams: u32) -> (Kept, Line) {
    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let mut line = {
        let answer = async {
            let mut line = server.accept_with(streams).await;
            line.next().await.ok();
            line
        };
        let (answer, line) = join(get(&mut client, "/raw/first"), answer).await;
        assert_eq!(answer.body, "ok");
        line
    };
    let (answer, ()) = join(get(&mut client, "/raw/second"), async {
        line.next().await.ok();
    })
    .await;
    assert_eq!(answer.body, "ok");
    (client, line)
}

#[tokio::test]
async fn a_request_takes_the_form_of_http_2() {
    for protocol in EITHER {
        let server = Streams::start().await;
        let lab = lab(&server).await;
        let mut client = lab.device().keep(protocol).await.unwrap();
        let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("x-kept", "1")];
        let answer = async {
            let mut line = server.accept().await;
            let mut stream = line.next().await;
            let head = &stream.request;
            assert_eq!(head.method(), Method::GET);
            assert_eq!(head.uri().scheme_str(), Some("http"));
            assert_eq!(head.uri().authority().unwrap().as_str(), lab.device().host);
            assert_eq!(head.uri().path_and_query().unwrap(), "/raw/m?a=1");
            assert_eq!(stream.all("authorization"), [format!("Client {SECRET}")]);
            assert_eq!(stream.all("x-kept"), ["1"]);
            assert_eq!(stream.all("cookie").join("; "), "a=1; b=2");
            for name in [
                "host",
                "connection",
                "te",
                "transfer-encoding",
                "keep-alive",
            ] {
                assert_eq!(stream.all(name), [""; 0], "{name}");
            }
            let mut body = stream.begin(StatusCode::OK, &[("x-answer", "1")]);
            body.send_data("ok".into(), true).unwrap();
            line
        };
        let request = client.request(Method::GET, "/raw/m?a=1", &fields, whole(""));
        let (answer, _line) = join(request, answer).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"ok"[..]));
        assert_eq!(answer.headers["x-answer"], "1");
    }
}

#[tokio::test]
async fn bodies_pass_both_ways() {
    for protocol in EITHER {
        let server = Streams::start().await;
        let lab = lab(&server).await;
        let mut client = lab.device().keep(protocol).await.unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let answer = async {
            let mut line = server.accept().await;
            let mut stream = line.next().await;
            let mut received = Vec::new();
            while let Some(data) = stream.data().await {
                received.extend_from_slice(&data);
            }
            assert!(received == sent);
            let mut body = stream.begin(StatusCode::OK, &[]);
            body.send_data(received.into(), true).unwrap();
            line
        };
        let request = client.request(Method::POST, "/raw/m", &[], whole(sent.clone()));
        let (answer, _line) = join(request, answer).await;
        assert!(answer.unwrap().body == sent);
    }
}

#[tokio::test]
async fn tls_agrees_on_http_2_or_there_is_none() {
    let servers = Authority::new("Servers");
    let directory = TempDir::new().unwrap();
    let ca = directory.path().join("servers.crt");
    std::fs::write(&ca, servers.pem()).unwrap();
    let lines = format!("{H2}\n[upstreams.raw.tls]\nca = [{ca:?}]");
    for (alpn, agrees) in [
        (&["h2", "http/1.1"][..], true),
        (&["http/1.1"], false),
        (&[], false),
    ] {
        let server = Secure::start(servers.server(&["127.0.0.1"])).await;
        let server = server.agreeing(alpn);
        let lab = config(server.address, &lines).start().await;
        let mut client = lab.device().keep(Protocol::Http1).await.unwrap();
        let answer = async {
            let Ok(peer) = server.accept().await else {
                return None;
            };
            if !agrees {
                peer.closed().await;
                return None;
            }
            let mut line = Line::begin(peer.stream, 10).await;
            let stream = line.next().await;
            assert_eq!(stream.request.uri().scheme_str(), Some("https"));
            stream.ok();
            Some(line)
        };
        let (answer, line) = join(get(&mut client, "/raw/m"), answer).await;
        assert_eq!(answer.status, if agrees { 200 } else { 502 }, "{alpn:?}");
        assert_eq!(line.is_some(), agrees);
    }
}

#[tokio::test]
async fn a_server_without_http_2_is_no_upstream() {
    let server = Scripted::start().await;
    let lab = config(server.address, H2).start().await;
    let answer = async {
        let mut peer = server.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await;
        peer
    };
    let device = lab.device();
    let (answer, _peer) = join(device.get("/raw/m"), answer).await;
    assert_eq!(answer.unwrap().status, 502);
}

#[tokio::test]
async fn requests_at_once_share_a_connection() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (client, mut line) = acquainted(&lab, &server, 100).await;
    let requests = (0..50).map(|n| {
        let mut client = client.share();
        async move { get(&mut client, &format!("/raw/{n}")).await.body }
    });
    let answers = async {
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(line.next().await);
        }
        streams.into_iter().rev().for_each(Stream::ok);
    };
    let (bodies, ()) = join(join_all(requests), answers).await;
    assert!(bodies.iter().all(|body| body == "ok"));
}

#[tokio::test]
async fn a_full_connection_is_joined_by_another() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (client, mut line) = acquainted(&lab, &server, 2).await;
    let requests = (0..3).map(|n| {
        let mut client = client.share();
        async move { get(&mut client, &format!("/raw/{n}")).await.body }
    });
    let answers = async {
        // None is answered before all have come.
        let (one, two) = (line.next().await, line.next().await);
        let mut other = server.accept_with(2).await;
        let three = other.next().await;
        [one, two, three].into_iter().for_each(Stream::ok);
        other
    };
    let (bodies, _other) = join(join_all(requests), answers).await;
    assert!(bodies.iter().all(|body| body == "ok"));
}

#[tokio::test]
async fn a_server_that_leaves_finishes_and_gets_no_more() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (client, mut line) = acquainted(&lab, &server, 100).await;
    let mut slow = client.share();
    let slow = tokio::spawn(async move { get(&mut slow, "/raw/slow").await.body });
    let stream = line.next().await;
    line.leave();
    // Requests meet the connection until its GOAWAY has come, and none is lost.
    let mut other = None;
    while other.is_none() {
        let mut client = client.share();
        let next = tokio::spawn(async move { get(&mut client, "/raw/next").await.body });
        tokio::select! {
            late = line.next() => late.ok(),
            stream = next_elsewhere(&server, &mut other) => stream.ok(),
        }
        assert_eq!(next.await.unwrap(), "ok");
    }
    stream.ok();
    assert_eq!(slow.await.unwrap(), "ok");
    line.closed().await;
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    let answers = async {
        line.next().await.reset(Reason::REFUSED_STREAM);
        let stream = line.next().await;
        assert_eq!(stream.request.method(), Method::DELETE);
        assert_eq!(stream.request.uri().path(), "/raw/m");
        assert_eq!(stream.all("x-kept"), ["1"]);
        stream.ok();
    };
    let request = client.request(Method::DELETE, "/raw/m", &[("x-kept", "1")], whole(""));
    let (answer, ()) = join(request, answers).await;
    assert_eq!(answer.unwrap().body, "ok");
}

/// Reads frames (RFC 9113 §4.1) up to the next HEADERS, and gives its stream.
async fn headers(peer: &mut Peer) -> u32 {
    loop {
        let head = peer.bytes(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        peer.bytes(length.try_into().unwrap()).await;
        if head[3] == 1 {
            return u32::from_be_bytes(head[5..9].try_into().unwrap());
        }
    }
}

/// Begins HTTP/2 on a connection: reads the preface, and sends empty SETTINGS.
async fn begin(peer: &mut Peer) {
    assert_eq!(peer.bytes(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    peer.stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
}

/// HEADERS with END_STREAM and `:status` 200 (RFC 7541, appendix A), for `stream`.
fn ok_on(stream: u8) -> [u8; 10] {
    [0, 0, 1, 1, 0x05, 0, 0, 0, stream, 0x88]
}

#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_again() {
    let server = Scripted::start().await;
    let lab = config(server.address, H2).start().await;
    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let answer = async {
        let mut peer = server.accept().await;
        begin(&mut peer).await;
        assert_eq!(headers(&mut peer).await, 1);
        peer.stream.write_all(&ok_on(1)).await.unwrap();
        peer
    };
    let (answer, mut peer) = join(get(&mut client, "/raw/1"), answer).await;
    assert_eq!(answer.status, 200);
    let mut in_flight = client.share();
    let in_flight = tokio::spawn(async move { get(&mut in_flight, "/raw/3").await.status });
    assert_eq!(headers(&mut peer).await, 3);
    let again = async {
        assert_eq!(headers(&mut peer).await, 5);
        // GOAWAY: 3 was the last one.
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
        peer.stream.write_all(&goaway).await.unwrap();
        let mut other = server.accept().await;
        begin(&mut other).await;
        assert_eq!(headers(&mut other).await, 1);
        other.stream.write_all(&ok_on(1)).await.unwrap();
        peer.stream.write_all(&ok_on(3)).await.unwrap();
        (peer, other)
    };
    let request = client.request(Method::DELETE, "/raw/5", &[], whole(""));
    let (answer, _kept) = join(request, again).await;
    assert_eq!(answer.unwrap().status, 200);
    assert_eq!(in_flight.await.unwrap(), 200);
}

/// Reads frames until both HEADERS and the gateway's word that it has read the settings have come.
async fn headers_and_acknowledgement(peer: &mut Peer) {
    let (mut headers, mut acknowledged) = (false, false);
    while !(headers && acknowledged) {
        let head = peer.bytes(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        peer.bytes(length.try_into().unwrap()).await;
        headers |= head[3] == 1;
        acknowledged |= head[3..5] == [4, 1];
    }
}

#[tokio::test]
async fn a_connection_is_full_as_soon_as_its_server_says_so() {
    let server = Scripted::start().await;
    let lab = config(server.address, H2).start().await;
    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let mut waiting = client.share();
    let waiting = tokio::spawn(async move { get(&mut waiting, "/raw/slow").await.status });
    let mut peer = server.accept().await;
    assert_eq!(peer.bytes(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // SETTINGS_MAX_CONCURRENT_STREAMS is 1, and nothing is answered.
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
    peer.stream.write_all(&settings).await.unwrap();
    headers_and_acknowledgement(&mut peer).await;
    let answer = async {
        let mut other = server.accept().await;
        begin(&mut other).await;
        assert_eq!(headers(&mut other).await, 1);
        other.stream.write_all(&ok_on(1)).await.unwrap();
        other
    };
    let (answer, _other) = join(get(&mut client, "/raw/next"), answer).await;
    assert_eq!(answer.status, 200);
    peer.stream.write_all(&ok_on(1)).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn a_server_that_allows_few_gets_many_at_once_all_the_same() {
    const MANY: usize = 6;
    let server = Scripted::start().await;
    let lab = config(server.address, H2).start().await;
    let client = lab.device().keep(Protocol::Http2).await.unwrap();
    let answers = join_all([0; MANY].map(|_| {
        let mut client = client.share();
        async move { get(&mut client, "/raw/m").await.status }
    }));
    let serving = async {
        let mut peers = Vec::new();
        for left in (0..MANY).rev() {
            let mut peer = server.accept().await;
            assert_eq!(peer.bytes(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            // All the others come too, before SETTINGS_MAX_CONCURRENT_STREAMS is 1.
            let mut refused = Vec::new();
            assert_eq!(headers(&mut peer).await, 1);
            for _ in 0..left {
                refused.push(headers(&mut peer).await);
            }
            let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
            peer.stream.write_all(&settings).await.unwrap();
            for stream in refused {
                let code = u32::from(Reason::REFUSED_STREAM).to_be_bytes();
                let reset = [&[0, 0, 4, 3, 0][..], &stream.to_be_bytes(), &code].concat();
                peer.stream.write_all(&reset).await.unwrap();
            }
            peers.push(peer);
        }
        for peer in &mut peers {
            peer.stream.write_all(&ok_on(1)).await.unwrap();
        }
        peers
    };
    let (statuses, _peers) = join(answers, serving).await;
    assert_eq!(statuses, [200; MANY]);
}

#[tokio::test]
async fn a_server_that_refuses_for_ever_is_given_up() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    let refusals = async {
        for _ in 0..3 {
            line.next().await.reset(Reason::REFUSED_STREAM);
        }
    };
    let (answer, ()) = join(get(&mut client, "/raw/m"), refusals).await;
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn what_a_server_may_have_begun_with_is_not_sent_again() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let reset = async { line.next().await.reset(reason) };
        let (answer, ()) = join(get(&mut client, "/raw/m"), reset).await;
        assert_eq!(answer.status, 502, "{reason}");
    }
    // Refused, but part of its body is gone.
    let refuse = async {
        let mut stream = line.next().await;
        stream.data().await;
        stream.reset(Reason::REFUSED_STREAM);
    };
    let request = client.request(Method::POST, "/raw/m", &[], whole("body"));
    let (answer, ()) = join(request, refuse).await;
    assert_eq!(answer.unwrap().status, 502);
    // Nothing else has come meanwhile.
    let (answer, ()) = join(get(&mut client, "/raw/last"), async {
        let stream = line.next().await;
        assert_eq!(stream.request.uri().path(), "/raw/last");
        stream.ok();
    })
    .await;
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn a_connection_that_broke_is_replaced() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, line) = acquainted(&lab, &server, 100).await;
    line.leave();
    line.closed().await;
    let answer = async {
        let mut line = server.accept().await;
        line.next().await.ok();
        line
    };
    let (answer, _line) = join(get(&mut client, "/raw/m"), answer).await;
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over_and_no_other() {
    let server = Streams::start().await;
    let lab = config(server.address, &format!("{H2}\nidle_timeout = \"100ms\""));
    let lab = lab.start().await;
    let (client, mut line) = acquainted(&lab, &server, 100).await;
    let mut slow = client.share();
    let slow = tokio::spawn(async move { get(&mut slow, "/raw/slow").await.body });
    let stream = line.next().await;
    // Other requests go by elsewhere for longer than that, and this one is not given up.
    let started = std::time::Instant::now();
    while started.elapsed() < std::time::Duration::from_millis(300) {
        assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    }
    stream.ok();
    assert_eq!(slow.await.unwrap(), "ok");
    line.closed().await;
}

#[tokio::test]
async fn a_client_that_gives_up_resets_its_stream_alone() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    let mut other = client.share();
    let waiting = tokio::spawn(async move { get(&mut other, "/raw/m").await });
    let mut stream = line.next().await;
    let mut body = stream.begin(StatusCode::OK, &[]);
    waiting.abort();
    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
    let reset = tokio::time::timeout(crate::harness::PATIENCE, reset).await;
    assert_eq!(
        reset.expect("the stream stays open").unwrap(),
        Reason::CANCEL
    );
    let (answer, ()) = join(get(&mut client, "/raw/next"), async {
        line.next().await.ok();
    })
    .await;
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_takes_no_more() {
    let server = Streams::start().await;
    let lines = format!(
        "{H2}\n[routes.hasty]\npath = \"/hasty/\"\nupstream = \"raw\"\nresponse_timeout = \"200ms\""
    );
    let lab = config(server.address, &lines).start().await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    // Given up while others are answered: it stays.
    let mut hasty = client.share();
    let given_up = tokio::spawn(async move { get(&mut hasty, "/hasty/m").await });
    let _unanswered = line.next().await;
    let (answer, ()) = join(get(&mut client, "/raw/m"), async {
        line.next().await.ok();
    })
    .await;
    assert_eq!(answer.body, "ok");
    assert_eq!(given_up.await.unwrap().status, 504);
    let (answer, ()) = join(get(&mut client, "/raw/m"), async {
        line.next().await.ok();
    })
    .await;
    assert_eq!(answer.body, "ok");
    // Given up, and nothing was heard meanwhile.
    let silent = async { line.next().await };
    let (answer, _unanswered) = join(get(&mut client, "/hasty/m"), silent).await;
    assert_eq!(answer.status, 504);
    let answer = async {
        let mut other = server.accept().await;
        other.next().await.ok();
        other
    };
    let (answer, _other) = join(get(&mut client, "/raw/m"), answer).await;
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_holds_up_no_other() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (client, mut line) = acquainted(&lab, &server, 100).await;
    let mut waiting = Vec::new();
    // Together more than any window: hyper's own would be shut by the third.
    for _ in 0..20 {
        let mut client = client.share();
        let begun = tokio::spawn(async move {
            client
                .begin(Method::GET, "/raw/large", &[], whole(""))
                .await
                .unwrap()
        });
        let mut body = line.next().await.begin(StatusCode::OK, &[]);
        body.send_data(vec![0; 4 << 20].into(), true).unwrap();
        waiting.push(begun.await.unwrap());
    }
    // Workers have connections of their own: one of these clients meets the same worker.
    let mut other: Option<Line> = None;
    for _ in 0..64 {
        let mut reader = lab.device().keep(Protocol::Http1).await.unwrap();
        let answered = tokio::spawn(async move { get(&mut reader, "/raw/m").await.body });
        let (stream, is_same) = tokio::select! {
            stream = line.next() => (stream, true),
            stream = next_elsewhere(&server, &mut other) => (stream, false),
        };
        stream.ok();
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        assert_eq!(answered.expect("it is held up").unwrap(), "ok");
        if is_same {
            return;
        }
    }
    panic!("no client met the worker");
}

/// The next request on another connection than the first.
async fn next_elsewhere(server: &Streams, other: &mut Option<Line>) -> Stream {
    if other.is_none() {
        *other = Some(server.accept().await);
    }
    other.as_mut().unwrap().next().await
}

#[tokio::test]
async fn grpc_streams_both_ways_and_ends_with_trailers() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let mut client: Multiplexed = lab.device().multiplex().await.unwrap();
    let fields = [("te", "trailers"), ("content-type", "application/grpc")];
    let request = client.request(Method::POST, None, "/raw/svc/Method", &fields);
    let answer = async {
        let mut line = server.accept().await;
        let mut stream = line.next().await;
        assert_eq!(stream.all("te"), ["trailers"]);
        assert_eq!(stream.all("content-type"), ["application/grpc"]);
        let body = stream.begin(StatusCode::OK, &[("content-type", "application/grpc")]);
        (line, stream, body)
    };
    let (answer, (_line, mut stream, mut body)) = join(client.send(request), answer).await;
    let (mut answer, mut upload) = answer.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    // The answer has begun, and the request goes on.
    for number in 0..5_u8 {
        let message = Bytes::from(vec![0, 0, 0, 0, 1, number]);
        upload.send_data(message.clone(), false).unwrap();
        assert_eq!(stream.data().await.unwrap(), message);
        body.send_data(message.clone(), false).unwrap();
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), message);
    }
    upload.send_data(Bytes::new(), true).unwrap();
    while stream.data().await.is_some() {}
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "fine".parse().unwrap());
    body.send_trailers(trailers.clone()).unwrap();
    assert!(answer.body_mut().data().await.is_none());
    assert_eq!(answer.body_mut().trailers().await.unwrap(), Some(trailers));
}

#[tokio::test]
async fn grpc_may_answer_with_trailers_alone() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let fields = [("te", "trailers"), ("content-type", "application/grpc")];
    let answer = async {
        let mut line = server.accept().await;
        let fields = [("content-type", "application/grpc"), ("grpc-status", "12")];
        line.next().await.end(StatusCode::OK, &fields);
        line
    };
    let request = client.request(Method::POST, "/raw/svc/None", &fields, whole("x"));
    let (answer, _line) = join(request, answer).await;
    assert_eq!(answer.unwrap().headers["grpc-status"], "12");
}

#[tokio::test]
async fn trailers_are_announced_only_by_those_who_take_them() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    for te in ["gzip", "trailers;q=0", "deflate"] {
        let (answer, ()) = join(client.get("/raw/m", &[("te", te)]), async {
            let stream = line.next().await;
            assert_eq!(stream.all("te"), [""; 0]);
            stream.ok();
        })
        .await;
        // HTTP/2 allows "trailers" alone (RFC 9113 §8.2.2), and its libraries may insist.
        if let Ok(answer) = answer {
            assert_eq!(answer.body, "ok");
        }
    }
}

#[tokio::test]
async fn trailers_of_a_request_go_no_further() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-real-ip", "f0rged".parse().unwrap());
    trailers.insert("authorization", "Client f0rged".parse().unwrap());
    let answer = async {
        let mut line = server.accept().await;
        let mut stream = line.next().await;
        assert_eq!(stream.data().await.unwrap(), "hello");
        while let Some(rest) = stream.data().await {
            assert_eq!(rest, "");
        }
        assert_eq!(stream.trailers().await, None);
        stream.ok();
        line
    };
    let body = in_parts(vec!["hello".into()], trailers);
    let (answer, _line) = join(client.request(Method::POST, "/raw/m", &[], body), answer).await;
    assert_eq!(answer.unwrap().body, "ok");
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_told_from_a_broken_server() {
    let (server, other) = (Streams::start().await, Streams::start().await);
    let lines = format!(
        "{H2}\n[upstreams.raw.ejection]\nfailures = 1\n\
         [routes.small]\npath = \"/small/\"\nupstream = \"raw\"\nmax_body = \"10B\""
    );
    let mut config = config(server.address, &lines);
    // The last server of an upstream would be kept in any case.
    let one = format!("[\"{}\"]", server.address);
    let both = format!("[\"{}\", \"{}\"]", server.address, other.address);
    config.tables = config.tables.replace(&one, &both);
    let lab = config.start().await;
    let mut client = lab.device().keep(Protocol::Http2).await.unwrap();
    let part = Bytes::from_static(b"12345678");
    let body = in_parts(vec![part.clone(), part], HeaderMap::new());
    let line = async {
        let mut line = tokio::select! {
            line = server.accept() => line,
            line = other.accept() => line,
        };
        let stream = line.next().await;
        (line, stream)
    };
    let (answer, _kept) = join(client.request(Method::POST, "/small/m", &[], body), line).await;
    assert_eq!(answer.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    let (_, metrics) = lab.admin("/metrics").await;
    let counters = metrics.lines().filter(|line| {
        line.contains("server_ejections_total{") && line.contains("upstream=\"raw\"")
    });
    let counters: Vec<_> = counters.collect();
    assert_eq!(counters.len(), 2, "{metrics}");
    assert!(
        counters.iter().all(|line| line.ends_with(" 0")),
        "{counters:?}"
    );
}

#[tokio::test]
async fn events_arrive_before_the_answer_ends() {
    for protocol in EITHER {
        let server = Streams::start().await;
        let lab = lab(&server).await;
        let mut client = lab.device().keep(protocol).await.unwrap();
        let begun = async {
            let mut line = server.accept().await;
            let fields = [("content-type", "text/event-stream")];
            let body = line.next().await.begin(StatusCode::OK, &fields);
            (line, body)
        };
        let request = client.begin(Method::GET, "/raw/events", &[], whole(""));
        let (answer, (_line, mut body)) = join(request, begun).await;
        let mut answer = answer.unwrap();
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            body.send_data(event.clone().into(), false).unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
    }
}

#[tokio::test]
async fn websockets_are_opened_by_http_1_there_too() {
    let server = Scripted::start().await;
    let lab = config(server.address, H2).start().await;
    let device = lab.device();
    let fields = [("te", "trailers")];
    let opening = tokio::spawn(async move { device.open_websocket("/raw/ws", &fields).await });
    let mut peer = server.accept().await;
    let head = peer.head_as_sent().await;
    assert!(head.starts_with("GET /raw/ws HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("trailers"), "{head}");
    peer.say(&crate::harness::scripted::websocket_answer(&head))
        .await;
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn many_clients_are_not_introduced_on_one_connection() {
    let problem = problem(&format!("{H2}\nproxy_protocol = \"v2\"")).await;
    assert!(
        problem.contains("upstreams.raw.proxy_protocol"),
        "{problem}"
    );
    let problem = super::problem("protocol = \"h3\"").await;
    assert!(problem.contains("upstreams.raw.protocol"), "{problem}");
}

#[tokio::test]
async fn a_client_that_authenticates_its_connection_has_one_of_its_own() {
    let server = Streams::start().await;
    let open = "[routes.open]\npath = \"/open/\"\nupstream = \"raw\"\ncredential = \"none\"";
    let lab = config(server.address, &format!("{H2}\n{open}"))
        .start()
        .await;
    let (mut client, mut shared) = acquainted(&lab, &server, 100).await;
    let fields = [("authorization", "Negotiate YII=")];
    let answer = async {
        let mut own = server.accept().await;
        own.next().await.ok();
        own
    };
    let (answer, _own) = join(client.get("/open/m", &fields), answer).await;
    assert_eq!(answer.unwrap().body, "ok");
    // Nobody comes after it there.
    let answer = async { shared.next().await.ok() };
    let (answer, ()) = join(client.get("/open/m", &[]), answer).await;
    assert_eq!(answer.unwrap().body, "ok");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_fails_all_who_wait_for_it() {
    let closed = Scripted::start().await.address;
    let lab = config(closed, H2).start().await;
    let client = lab.device().keep(Protocol::Http2).await.unwrap();
    let (mut a, mut b, mut c) = (client.share(), client.share(), client.share());
    let (a, b, c) = join3(
        get(&mut a, "/raw/1"),
        get(&mut b, "/raw/2"),
        get(&mut c, "/raw/3"),
    )
    .await;
    for answer in [a, b, c] {
        assert_eq!(answer.status, 502);
    }
}

#[tokio::test]
async fn a_body_that_its_server_resets_is_not_taken_for_whole() {
    for protocol in EITHER {
        for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR] {
            let server = Streams::start().await;
            let lab = lab(&server).await;
            let mut client = lab.device().keep(protocol).await.unwrap();
            let answer = async {
                let mut line = server.accept().await;
                let mut stream = line.next().await;
                let mut body = stream.begin(StatusCode::OK, &[]);
                body.send_data("abc".into(), false).unwrap();
                (line, body)
            };
            let request = client.begin(Method::GET, "/raw/m", &[], whole(""));
            let (response, (_line, mut sent)) = join(request, answer).await;
            let mut body = response.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "abc");
            sent.send_reset(reason);
            let rest = tokio::time::timeout(PATIENCE, body.collect()).await;
            assert!(rest.unwrap().is_err(), "{protocol:?} {reason:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_has_no_content_is_passed_on_without() {
    let server = Streams::start().await;
    let lab = lab(&server).await;
    let (mut client, mut line) = acquainted(&lab, &server, 100).await;
    for (method, status, length) in [
        (Method::GET, StatusCode::NO_CONTENT, None),
        (Method::GET, StatusCode::NOT_MODIFIED, Some("4")),
        (Method::HEAD, StatusCode::OK, Some("4")),
        (Method::GET, StatusCode::OK, Some("4")),
    ] {
        let has_content = method == Method::GET && status == StatusCode::OK;
        let answer = async {
            let mut stream = line.next().await;
            let mut body = stream.begin(status, &[("content-length", "4")]);
            body.send_data("oops".into(), has_content).unwrap();
            body
        };
        let request = client.begin(method, "/raw/m", &[], whole(""));
        let (response, mut sent) = join(request, answer).await;
        let response = response.unwrap();
        let said = response.headers().get("content-length");
        assert_eq!(said.map(|said| said.to_str().unwrap()), length, "{status}");
        assert_eq!(response.status(), status);
        let body = tokio::time::timeout(PATIENCE, response.into_body().collect());
        let body = body.await.expect("it does not end").unwrap().to_bytes();
        assert_eq!(body, if has_content { "oops" } else { "" }, "{status}");
        if !has_content {
            // And its server need not send the rest.
            let reset = std::future::poll_fn(|cx| sent.poll_reset(cx));
            let reset = tokio::time::timeout(PATIENCE, reset).await;
            reset.expect("the stream stays open").unwrap();
        }
    }
}
