//! Requests that a server has failed are sent once more, where that is asked for and harmless.

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use hyper::{Method, StatusCode};

use crate::harness::kept::whole;
use crate::harness::scripted::Peer;
use crate::harness::streams::Streams;
use crate::harness::{Answer, Lab, Protocol, Scripted};

use super::{counts, lab, metric, origins, problem};

const ONCE: &str = "[upstreams.many.retries]\nattempts = 1";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A number that `/metrics` tells of the upstream.
async fn of_upstream(lab: &Lab, name: &str) -> u64 {
    let (_, page) = lab.admin("/metrics").await;
    let name = format!("portcullis_upstream_{name}_total{{upstream=\"many\"}} ");
    let mut lines = page.lines();
    lines
        .find_map(|line| line.strip_prefix(&name))
        .unwrap()
        .parse()
        .unwrap()
}

async fn request(lab: &Lab, method: &str, body: &'static str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let body = Bytes::from_static(body.as_bytes());
    let device = lab.device();
    let asking = device.request(Protocol::Http1, method, "/many/m", &[], body);
    asking.await.unwrap()
}

/// Two requests on one connection, and so of one worker, which takes servers in their turn.
async fn two_in_turn(lab: &Lab) -> [Answer; 2] {
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    let first = kept.get("/many/m", &[]).await.unwrap();
    [first, kept.get("/many/m", &[]).await.unwrap()]
}

/// The next request at `server`, as far as its head.
async fn arrival(server: &Scripted) -> Peer {
    let mut peer = server.accept().await;
    peer.head().await;
    peer
}

#[tokio::test]
async fn a_request_whose_connection_breaks_off_is_sent_once_more() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for last_words in ["", "HTTP/1.1 200 O"] {
            let server = Scripted::start().await;
            let lab = lab(&[server.address], ONCE).await;
            let origin = async {
                arrival(&server).await.say(last_words).await;
                arrival(&server).await.say(OK).await;
            };
            let (answer, ()) = tokio::join!(request(&lab, method, ""), origin);
            assert_eq!(answer.status, 200, "{method} {last_words}");
            assert_eq!(of_upstream(&lab, "retries").await, 1);
        }
    }
}

#[tokio::test]
async fn it_goes_to_another_server_if_there_is_one() {
    let server = Scripted::start().await;
    let [well] = origins().await;
    let lab = lab(&[server.address, well.address], ONCE).await;
    let origin = async { drop(arrival(&server).await) };
    let (answers, ()) = tokio::join!(two_in_turn(&lab), origin);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(well.requests().len(), 2);
    assert_eq!(metric(&lab, "failures", server.address).await, Some(1));
}

#[tokio::test]
async fn what_may_not_be_done_twice_is_not() {
    for (method, body) in [("POST", ""), ("PATCH", ""), ("POST", "x"), ("LOCK", "")] {
        let server = Scripted::start().await;
        let lab = lab(&[server.address], ONCE).await;
        let origin = async { drop(arrival(&server).await) };
        let (answer, ()) = tokio::join!(request(&lab, method, body), origin);
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{method}");
        server.assert_undialled().await;
    }
}

#[tokio::test]
async fn a_body_that_has_begun_is_not_sent_again() {
    let server = Scripted::start().await;
    let lab = lab(&[server.address], ONCE).await;
    let origin = async {
        let mut peer = arrival(&server).await;
        assert_eq!(peer.bytes(4).await, b"body");
    };
    let (answer, ()) = tokio::join!(request(&lab, "PUT", "body"), origin);
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    server.assert_undialled().await;
}

#[tokio::test]
async fn an_answer_that_has_begun_is_the_answer() {
    let server = Scripted::start().await;
    let lab = lab(&[server.address], ONCE).await;
    let device = lab.device();
    let origin = async {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        arrival(&server).await.say(head).await;
    };
    let (answer, ()) = tokio::join!(device.get("/many/m"), origin);
    assert!(answer.is_err(), "{answer:?}");
    server.assert_undialled().await;
}

#[tokio::test]
async fn nothing_is_sent_once_more_unless_that_is_asked_for() {
    let server = Scripted::start().await;
    let lab = lab(&[server.address], "").await;
    let origin = async { drop(arrival(&server).await) };
    let (answer, ()) = tokio::join!(request(&lab, "GET", ""), origin);
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    server.assert_undialled().await;
    assert_eq!(of_upstream(&lab, "retries").await, 0);
}

#[tokio::test]
async fn statuses_count_as_no_answer_where_they_are_listed() {
    for (status, listed, expected) in [
        (502, "\"502\"", 3),
        (503, "\"502\", \"503\"", 3),
        (504, "\"504\"", 3),
        (503, "\"502\", \"504\"", 1),
        (503, "", 1),
        (500, "\"502\", \"503\", \"504\"", 1),
    ] {
        let [origin] = origins().await;
        let rules = format!("[upstreams.many.retries]\nattempts = 2\nstatuses = [{listed}]");
        let lab = lab(&[origin.address], &rules).await;
        let path = format!("/many/status/{status}");
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let before = origin.requests().len();
            let answer = lab.device().send(protocol, &path, &[]).await.unwrap();
            // The last one is the client's.
            assert_eq!(
                (answer.status.as_u16(), &answer.body[..]),
                (status, &b"ok"[..])
            );
            assert_eq!(
                origin.requests().len() - before,
                expected,
                "{status} {listed}"
            );
        }
    }
}

#[tokio::test]
async fn another_server_may_have_the_answer_that_one_has_not() {
    let server = Scripted::start().await;
    let [well] = origins().await;
    let rules = format!("{ONCE}\nstatuses = [\"503\"]");
    let lab = lab(&[server.address, well.address], &rules).await;
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let origin = async { arrival(&server).await.say(busy).await };
    let (answers, ()) = tokio::join!(two_in_turn(&lab), origin);
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:?}"
    );
    assert_eq!(counts(&[well]), [2]);
}

#[tokio::test]
async fn silence_is_not_broken_by_asking_again() {
    let [origin] = origins().await;
    let lab = lab(&[origin.address], ONCE).await;
    let answer = lab.device().get("/brief/silent").await.unwrap();
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn when_everything_fails_little_is_sent_once_more() {
    const ALL: usize = 20;
    let server = Scripted::start().await;
    let rules = format!("{ONCE}\n[upstreams.many.ejection]\nfailures = 0");
    let lab = lab(&[server.address], &rules).await;
    let asking = join_all((0..ALL).map(|_| request(&lab, "GET", "")));
    let origin = async {
        let mut peers = Vec::new();
        for _ in 0..ALL {
            peers.push(arrival(&server).await);
        }
        drop(peers);
        let mut peers = Vec::new();
        for _ in 0..3 {
            peers.push(arrival(&server).await);
        }
        while of_upstream(&lab, "retries_denied").await + of_upstream(&lab, "retries").await
            < ALL as u64
        {
            tokio::task::yield_now().await;
        }
        let repeated = of_upstream(&lab, "retries").await;
        for _ in 3..repeated {
            peers.push(arrival(&server).await);
        }
        for peer in &mut peers {
            peer.say(OK).await;
        }
        usize::try_from(repeated).unwrap()
    };
    let (answers, repeated) = tokio::join!(asking, origin);
    // A fifth of those that waited, who became fewer while they failed.
    assert!((3..=4).contains(&repeated), "{repeated}");
    let well = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(well.count(), repeated);
    let failed = |answer: &&Answer| answer.status == StatusCode::BAD_GATEWAY;
    assert_eq!(answers.iter().filter(failed).count(), ALL - repeated);
}

#[tokio::test]
async fn a_stream_of_http2_that_is_reset_is_sent_once_more() {
    let server = Streams::start().await;
    let lab = lab(&[server.address], &format!("protocol = \"h2\"\n{ONCE}")).await;
    let mut kept = lab.device().keep(Protocol::Http2).await.unwrap();
    let origin = async {
        let mut line = server.accept().await;
        line.next().await.reset(Reason::INTERNAL_ERROR);
        line.next().await.ok();
        line.next().await.reset(Reason::INTERNAL_ERROR);
        line
    };
    let asking = async {
        let first = kept.get("/many/m", &[]).await.unwrap();
        let second = kept
            .request(Method::POST, "/many/m", &[], whole(""))
            .await
            .unwrap();
        [first.status, second.status]
    };
    let (statuses, _line) = tokio::join!(asking, origin);
    assert_eq!(statuses, [StatusCode::OK, StatusCode::BAD_GATEWAY]);
}

#[tokio::test]
async fn retries_that_make_no_sense_are_refused() {
    for (lines, expected) in [
        ("attempts = 11", "retries.attempts: must be a whole number"),
        (
            "attempts = 1\nstatuses = [\"500\"]",
            "retries.statuses: \"500\" is not",
        ),
        ("statuses = [\"503\"]", "retries.statuses: needs attempts"),
    ] {
        let problem = problem(&["a:1"], &format!("[upstreams.many.retries]\n{lines}")).await;
        assert!(problem.contains(expected), "{problem}");
    }
}
