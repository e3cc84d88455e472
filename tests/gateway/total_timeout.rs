//! `total_timeout`: an answer has an end, however little stands still on the way there.

use std::time::Duration;

use hyper::Method;

use crate::harness::kept::endless;
use crate::harness::lab::Config;
use crate::harness::{Lab, Protocol};

const HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Far more than the limit; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(20);

async fn limited() -> Lab {
    let config = Config::x509().timeouts("stall = \"1m\"");
    config.route("total_timeout = \"200ms\"").start().await
}

async fn refusals(lab: &Lab, reason: &str) -> String {
    let (_, metrics) = lab.admin("/metrics").await;
    let name = format!("portcullis_refusals_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or("0").to_owned()
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_504() {
    let lab = limited().await;
    for protocol in HTTP {
        let device = lab.device();
        let asked = tokio::time::timeout(PATIENCE, device.send(protocol, "/http/silent", &[]));
        let answer = asked.await.expect("it is waited for").unwrap();
        assert_eq!(answer.status, 504);
        assert_eq!(answer.json()["code"], "gateway_timeout");
    }
    assert_eq!(refusals(&lab, "overdue").await, "2");
    // What has been fast enough is none the worse.
    for protocol in HTTP {
        let answer = lab.device().send(protocol, "/http/m", &[]).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, &b"ok"[..])
        );
    }
}

#[tokio::test]
async fn an_upload_that_does_not_end_in_time_is_504() {
    let lab = limited().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let sent = kept.begin(Method::POST, "/http/m", &[], endless());
        let answer = tokio::time::timeout(PATIENCE, sent).await;
        assert_eq!(answer.expect("it is waited for").unwrap().status(), 504);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_broken_off() {
    let lab = limited().await;
    for protocol in HTTP {
        let device = lab.device();
        let asked = tokio::time::timeout(PATIENCE, device.send(protocol, "/http/half", &[]));
        // It had begun, with 200.
        assert!(asked.await.expect("it is waited for").is_err());
    }
    assert_eq!(refusals(&lab, "overdue").await, "2");
    assert_eq!(refusals(&lab, "upstream_broke_off").await, "0");
}

#[tokio::test]
async fn a_websocket_stays_for_longer() {
    let lab = limited().await;
    let (socket, _) = lab
        .device()
        .open_websocket("/ws/m", &[])
        .await
        .ok()
        .unwrap();
    let mut connection = lab.device().multiplex().await.unwrap();
    let (in_stream, _) = connection.open_websocket("/ws/m", &[]).await.unwrap();
    let answer = lab.device().get("/http/silent").await.unwrap();
    assert_eq!(answer.status, 504);
    echoes(socket).await;
    echoes(in_stream).await;
}

async fn echoes<IO>(mut socket: tokio_tungstenite::WebSocketStream<IO>)
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    socket.send(Message::text("still here")).await.unwrap();
    let echo = socket.next().await.unwrap().unwrap();
    assert_eq!(echo, Message::text("still here"));
}

#[tokio::test]
async fn an_end_for_what_has_none_stops_the_start() {
    for (lines, expected) in [
        (
            "answer = 200",
            "routes.x.total_timeout: has no meaning without an upstream",
        ),
        (
            "upstream = \"broker\"\nprotocol = \"mqtt\"",
            "routes.x.total_timeout: has no meaning where protocol = \"mqtt\"",
        ),
    ] {
        let mut lab = Lab::x509().await;
        let table = format!("[routes.x]\npath = \"/x\"\n{lines}\ntotal_timeout = \"1s\"\n");
        lab.config = Config::x509().tables(&table);
        let problem = lab.settings().map(drop).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}
