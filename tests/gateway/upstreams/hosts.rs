//! The host that a server is asked for.

use futures_util::future::join;
use hyper::StatusCode;

use super::{Absent, lab, origins, problem};
use crate::harness::Protocol;
use crate::harness::streams::Streams;

const EVERY_PROTOCOL: [Protocol; 3] = [Protocol::Http1, Protocol::Http2, Protocol::WebSocket];

#[tokio::test]
async fn a_server_is_asked_for_the_host_that_its_upstream_says() {
    let [origin] = origins().await;
    let by_name = format!("localhost:{}", origin.address.port());
    for (lines, expected) in [
        ("", None),
        ("host = \"as_is\"", None),
        ("host = \"server\"", Some(&*by_name)),
        ("host = \"adapter.internal\"", Some("adapter.internal")),
        (
            "host = \"adapter.internal:81\"",
            Some("adapter.internal:81"),
        ),
    ] {
        let lab = lab(&[&by_name], lines).await;
        let client = lab.device();
        for protocol in EVERY_PROTOCOL {
            client.send(protocol, "/many/m", &[]).await.unwrap();
            let request = origin.requests().pop().unwrap();
            let expected = expected.unwrap_or(&client.host);
            assert_eq!(request.all("host"), [expected], "{protocol:?} {lines}");
            // What the client has asked for is told in any case.
            assert_eq!(request.all("x-forwarded-host"), [&*client.host]);
        }
    }
}

#[tokio::test]
async fn each_server_is_asked_for_its_own_host() {
    let [origin] = origins().await;
    let absent = Absent::new();
    let lab = lab(&[absent.address, origin.address], "host = \"server\"").await;
    for protocol in EVERY_PROTOCOL {
        // Either server is the first to be tried of every second request.
        for _ in 0..2 {
            lab.device().send(protocol, "/many/m", &[]).await.unwrap();
            let request = origin.requests().pop().unwrap();
            assert_eq!(request.all("host"), [origin.address.to_string()]);
        }
    }
}

#[tokio::test]
async fn a_server_of_http_2_is_asked_for_its_own_authority() {
    let server = Streams::start().await;
    let absent = Absent::new();
    let lines = "host = \"server\"\nprotocol = \"h2\"";
    let lab = lab(&[absent.address, server.address], lines).await;
    let mut client = lab.device().keep(Protocol::Http1).await.unwrap();
    let mut line = None;
    for _ in 0..2 {
        let answer = async {
            let line = match &mut line {
                Some(line) => line,
                none => none.insert(server.accept().await),
            };
            let mut stream = line.next().await;
            let authority = stream.request.uri().authority().unwrap().to_string();
            assert_eq!(authority, server.address.to_string());
            assert_eq!(stream.all("host"), [""; 0]);
            let mut body = stream.begin(StatusCode::OK, &[]);
            body.send_data("ok".into(), true).unwrap();
        };
        let (answered, ()) = join(client.get("/many/m", &[]), answer).await;
        assert_eq!(answered.unwrap().status, 200);
    }
}

#[tokio::test]
async fn what_is_no_host_stops_the_start() {
    for host in [
        "",
        "a b",
        "user@a.example",
        "https://a.example",
        "a/b",
        "a.example:99999",
        "a.example:",
        ":80",
    ] {
        let line = format!("host = \"{host}\"");
        let problem = problem(&["127.0.0.1:1"], &line).await;
        assert!(problem.contains("upstreams.many.host"), "{host}: {problem}");
    }
}
