//! Requests that two readers could read differently (RFC 9112), sent as bare bytes: what is
//! doubtful is refused and reaches nobody, and what is forwarded means the same to both sides.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::lab::{Config, SECRET};
use crate::harness::{Client, Lab, Protocol, Scripted};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Longer than anything here takes; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// The status of the first answer to `bytes`; `None` if the gateway closes without one.
async fn first_status(client: &Client, bytes: &[u8]) -> Option<u16> {
    let mut stream = client.connect(&["http/1.1"]).await.unwrap();
    // The gateway may have closed before it has read all of it.
    let _ = stream.write_all(bytes).await;
    let head = read_head(&mut stream).await.ok()?;
    statuses(&head).first().copied()
}

/// Reads up to the end of the first head, at most.
async fn read_head(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut head = Vec::new();
    let reading = async {
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("neither an answer nor an end")?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The statuses of all answers in `text`, whose bodies hold no status line.
fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.")
        .skip(1)
        .map(|answer| answer[2..5].parse().unwrap())
        .collect()
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /http/m HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Sends each of `cases` on a connection of its own; all must be refused, none may arrive.
async fn assert_refused(cases: &[(&str, String)]) {
    let lab = Lab::x509().await;
    let device = lab.device();
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let status = first_status(&device, bytes.as_bytes()).await;
        if !matches!(status, None | Some(400..=499)) || !lab.origin.requests().is_empty() {
            wrong.push(format!("{name}: {status:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        lab.origin.requests().is_empty(),
        "{:?}",
        lab.origin.requests()
    );
}

#[tokio::test]
async fn well_formed_requests_pass_as_bare_bytes() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let chunks = "5;name=value\r\nhello\r\n0\r\n\r\n";
    for (bytes, body) in [
        (get("/http/m", ""), ""),
        (get("http://localhost/http/m", ""), ""),
        (post("Content-Length: 5\r\n", "hello"), "hello"),
        (post("content-length:5\r\n", "hello"), "hello"),
        (post(CHUNKED, chunks), "hello"),
        (format!("\r\n{}", get("/http/m", "")), ""),
        ("GET /http/m HTTP/1.0\r\nHost: localhost\r\n\r\n".into(), ""),
    ] {
        assert_eq!(
            first_status(&device, bytes.as_bytes()).await,
            Some(200),
            "{bytes:?}"
        );
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!((&*request.target, &*request.body), ("/m", body.as_bytes()));
    }
}

#[tokio::test]
async fn a_request_without_one_certain_host_is_refused() {
    let request = |hosts: &str| format!("GET /http/m HTTP/1.1\r\n{hosts}\r\n");
    assert_refused(&[
        ("missing", request("")),
        ("missing in 1.0", "GET /http/m HTTP/1.0\r\n\r\n".into()),
        ("empty", request("Host: \r\n")),
        ("root", request("Host: .\r\n")),
        ("root and port", request("Host: .:8443\r\n")),
        (
            "long",
            request(&format!("Host: {}a\r\n", "abc.".repeat(64))),
        ),
        ("two", request("Host: localhost\r\nHost: other\r\n")),
        ("twice", request("Host: localhost\r\nHost: localhost\r\n")),
        ("user information", request("Host: user@localhost\r\n")),
        ("space", request("Host: local host\r\n")),
        ("list", request("Host: localhost, other\r\n")),
        ("path", request("Host: localhost/http\r\n")),
        ("port", request("Host: localhost:99999\r\n")),
        ("target differs", get("http://other/http/m", "")),
        (
            "target alone",
            "GET http://localhost/http/m HTTP/1.1\r\n\r\n".into(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_body_without_one_certain_length_is_refused() {
    let both = "5\r\nhello\r\n0\r\n\r\n";
    assert_refused(&[
        (
            "length, then coding",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", both),
        ),
        (
            "coding, then length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", both),
        ),
        (
            "two lengths",
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        ),
        (
            "list of lengths",
            post("Content-Length: 5, 6\r\n", "hello!"),
        ),
        ("plus", post("Content-Length: +5\r\n", "hello")),
        ("minus", post("Content-Length: -5\r\n", "hello")),
        ("space", post("Content-Length: 5 5\r\n", "hello")),
        ("hexadecimal", post("Content-Length: 0x5\r\n", "hello")),
        ("empty length", post("Content-Length: \r\n", "hello")),
        (
            "huge",
            post("Content-Length: 99999999999999999999999\r\n", "hello"),
        ),
        (
            "not chunked last",
            post("Transfer-Encoding: chunked, identity\r\n", both),
        ),
        ("identity", post("Transfer-Encoding: identity\r\n", both)),
        ("xchunked", post("Transfer-Encoding: xchunked\r\n", both)),
        (
            "chunked twice",
            post("Transfer-Encoding: chunked, chunked\r\n", both),
        ),
        (
            "coding twice",
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                both,
            ),
        ),
        (
            "a coding we do not know",
            post("Transfer-Encoding: gzip, chunked\r\n", both),
        ),
        (
            "HTTP/1.0",
            format!("POST /http/m HTTP/1.0\r\nHost: localhost\r\n{CHUNKED}\r\n{both}"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_length_that_is_said_twice_alike_is_one_length() {
    let lab = Lab::x509().await;
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
    ] {
        let request = post(lengths, "hello");
        let before = lab.origin.requests().len();
        let status = first_status(&lab.device(), request.as_bytes()).await;
        // RFC 9110 §8.6 leaves both ways open.
        match (status, lab.origin.requests().split_off(before).as_slice()) {
            (Some(200), [request]) => assert_eq!(request.all("content-length"), ["5"]),
            (Some(400), []) => {}
            other => panic!("{lengths}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn broken_chunks_never_become_a_request() {
    assert_refused(&[
        ("garbage size", post(CHUNKED, "zz\r\nhello\r\n0\r\n\r\n")),
        ("no size", post(CHUNKED, "\r\nhello\r\n0\r\n\r\n")),
        ("signed size", post(CHUNKED, "+5\r\nhello\r\n0\r\n\r\n")),
        (
            "overflow",
            post(CHUNKED, "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "newline in an extension",
            post(CHUNKED, "5;a=\nb\r\nhello\r\n0\r\n\r\n"),
        ),
        ("bare LF", post(CHUNKED, "5\nhello\n0\n\n")),
        (
            "longer than said",
            post(CHUNKED, "5\r\nhello!\r\n0\r\n\r\n"),
        ),
        (
            "endless extension",
            post(
                CHUNKED,
                &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10)),
            ),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_head_that_bends_the_grammar_is_refused() {
    let field = |field: &str| get("/http/m", &format!("{field}\r\n"));
    assert_refused(&[
        (
            "bare LF",
            "GET /http/m HTTP/1.1\nHost: localhost\n\n".into(),
        ),
        (
            "bare LF once",
            "GET /http/m HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n".into(),
        ),
        ("folded", field("X-A: b\r\n c")),
        ("folded by tab", field("X-A: b\r\n\tc")),
        ("NUL in a value", field("X-A: b\0c")),
        ("CR in a value", field("X-A: b\rc")),
        ("LF in a value", field("X-A: b\nc")),
        ("NUL in a name", field("X\0A: b")),
        ("empty name", field(": b")),
        ("no colon", field("X-A")),
        ("space before the colon", field("X-A : b")),
        ("tab before the colon", field("X-A\t: b")),
        ("space in the name", field("X A: b")),
        (
            "space before the first field",
            "GET /http/m HTTP/1.1\r\n Host: localhost\r\n\r\n".into(),
        ),
        ("fragment", get("/http/m#/../../public/", "")),
        ("fragment in a query", get("/http/m?a#b", "")),
        ("NUL in the target", get("/http/m\0", "")),
        ("tab in the target", get("/http/\tm", "")),
        ("delete in the target", get("/http/m\x7f", "")),
        ("space in the target", get("/http/m m", "")),
        ("no slash", get("http/m", "")),
        ("asterisk", get("*", "")),
        ("CONNECT", get("/http/m", "").replace("GET", "CONNECT")),
        (
            "CONNECT to a host",
            "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n".into(),
        ),
        ("TRACE", get("/http/m", "").replace("GET", "TRACE")),
        ("HTTP/0.9", "GET /http/m\r\n".into()),
        ("HTTP/3.0", get("/http/m", "").replace("1.1", "3.0")),
        ("HTTP/1.2", get("/http/m", "").replace("1.1", "1.2")),
        (
            "the preface of HTTP/2",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        ),
        ("an empty method", get("/http/m", "").replace("GET", "")),
    ])
    .await;
}

#[tokio::test]
async fn heads_beyond_their_limits_are_refused() {
    let config =
        Config::x509().limits("header_bytes = \"16KiB\"\nheader_count = 20\nuri_bytes = \"1KiB\"");
    let lab = config.start().await;
    let device = lab.device();
    let fields = |count: usize| -> String { (0..count).map(|n| format!("X-{n}: y\r\n")).collect() };
    let path = |length: usize| format!("/http/{}", "x".repeat(length - "/http/".len()));
    for (request, expected) in [
        (get(&path(1024), ""), 200),
        (get(&path(1025), ""), 414),
        (get(&path(70_000), ""), 414),
        (get("/http/m", &fields(19)), 200),
        (get("/http/m", &fields(20)), 431),
        (
            get("/http/m", &format!("X: {}\r\n", "y".repeat(15 << 10))),
            200,
        ),
        (
            get("/http/m", &format!("X: {}\r\n", "y".repeat(17 << 10))),
            431,
        ),
        (
            get(
                "/http/m",
                &format!("Authorization: {}\r\n", "y".repeat(15 << 10)),
            ),
            403,
        ),
    ] {
        let status = first_status(&device, request.as_bytes()).await;
        // A head that is too long altogether may be refused as either.
        let acceptable = status == Some(expected) || (expected == 414 && status == Some(431));
        assert!(
            acceptable,
            "{status:?} instead of {expected} for {} bytes",
            request.len()
        );
    }
    assert_eq!(lab.origin.requests().len(), 3);
}

/// What every answer of the gateway's own has, a refusal of what it cannot read as well.
fn assert_full_refusal(answer: &str, status: u16, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let fields: Vec<&str> = head.split("\r\n").skip(1).collect();
    let length = format!("content-length: {}", body.len());
    for field in [
        "connection: close",
        "content-type: application/problem+json",
        "strict-transport-security: max-age=86400",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        &length,
    ] {
        assert!(fields.contains(&field), "no {field} in {head}");
    }
    for name in ["date", "x-request-id"] {
        let name = format!("{name}: ");
        assert_eq!(
            fields
                .iter()
                .filter(|field| field.starts_with(&name))
                .count(),
            1
        );
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["status"], &body["code"]),
        (&status.into(), &code.into())
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_like_everything_else() {
    let config = Config::x509()
        .limits("header_bytes = \"16KiB\"\nheader_count = 20")
        .tables("[response_headers]\nset = [\"x-frame-options: DENY\"]\nhsts = \"1d\"")
        .admin("");
    let lab = config.start().await;
    let device = lab.device();
    let many: String = (0..30).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("X: {}\r\n", "y".repeat(100 << 10));
    let (too_large, bad) = (
        (431, "request_header_fields_too_large"),
        (400, "bad_request"),
    );
    for (request, (status, code)) in [
        (get("/http/m", "X Y: z\r\n"), bad),
        (get("/http/m", "").replace("HTTP/1.1", "HTTP/3.0"), bad),
        (get("/http/m", &many), too_large),
        (get("/http/m", &large), too_large),
    ] {
        let answer = device.raw(request.as_bytes()).await.unwrap();
        assert_full_refusal(&answer, status, code);
        // Behind a request that has been answered, on the same connection.
        let both = format!("{}{request}", get("/http/m", ""));
        let answers = device.raw(both.as_bytes()).await.unwrap();
        let (_, second) = answers.split_once("\r\n\r\nok").expect(&answers);
        assert_full_refusal(second, status, code);
    }
    let (_, metrics) = lab.admin("/metrics").await;
    for count in ["{reason=\"malformed\"} 4", "{reason=\"head_too_large\"} 4"] {
        let count = format!("portcullis_refusals_total{count}\n");
        assert!(metrics.contains(&count), "no {count} in {metrics}");
    }
    assert_eq!(lab.origin.requests().len(), 4);
}

#[tokio::test]
async fn what_an_upstream_says_is_no_refusal_however_it_begins() {
    let server = Scripted::start().await;
    let lab = Config::x509().tables(&server.tables()).start().await;
    let body = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let origin = async {
        let mut peer = server.accept().await;
        peer.head().await;
        let length = body.len() * 2;
        let head = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n");
        peer.say(&head).await;
        peer.say(body).await;
        peer.say(body).await;
    };
    let device = lab.device();
    let request = get("/raw/m", "Connection: close\r\n");
    let (answer, ()) = tokio::join!(device.raw(request.as_bytes()), origin);
    let answer = answer.unwrap();
    let (head, said) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("content-length: 0"), "{head}");
    assert_eq!(said, body.repeat(2));
}

#[tokio::test]
async fn http2_heads_have_the_same_limits() {
    let config =
        Config::x509().limits("header_bytes = \"16KiB\"\nheader_count = 20\nuri_bytes = \"1KiB\"");
    let lab = config.start().await;
    let device = lab.device();
    let names: Vec<String> = (0..25).map(|n| format!("x-{n}")).collect();
    let fields = |count: usize| -> Vec<(&str, &str)> {
        names[..count].iter().map(|name| (&**name, "y")).collect()
    };
    let long = "y".repeat(17 << 10);
    let crumbs = vec![("cookie", "a=b"); 25];
    let long_path = format!("/http/{}", "x".repeat(1024));
    for (path, fields, expected) in [
        ("/http/m", fields(19), 200),
        ("/http/m", fields(25), 431),
        ("/http/m", crumbs, 431),
        ("/http/m", vec![("x", long.as_str())], 431),
        (&long_path, vec![], 414),
    ] {
        let answer = device.send(Protocol::Http2, path, &fields).await.unwrap();
        assert_eq!(
            answer.status,
            expected,
            "{} bytes, {} fields",
            path.len(),
            fields.len()
        );
        // A refusal says what every other says.
        assert!(answer.headers.contains_key("x-request-id"));
    }
    lab.origin.only_request();
}

#[tokio::test]
async fn an_upgrade_to_another_protocol_is_not_passed_on() {
    let lab = Lab::x509().await;
    let fields =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let status = first_status(&lab.device(), get("/http/m", fields).as_bytes()).await;
    assert_eq!(status, Some(200));
    let request = lab.origin.only_request();
    for name in ["connection", "upgrade", "http2-settings"] {
        assert!(!request.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn what_follows_a_request_for_an_upgrade_is_looked_at_while_that_waits() {
    let origin = Scripted::start().await;
    let lab = Config::x509().tables(&origin.tables()).start().await;
    let device = lab.device();
    for next in [
        "POST /http/2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /http/2 HTTP/1.1\r\nHost: localhost\r\nX-Folded: a\r\n b\r\n\r\n",
        "GET /http/2#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /http/2 HTTP/1.1\nHost: localhost\r\n\r\n",
    ] {
        let mut client = device.connect(&["http/1.1"]).await.unwrap();
        let upgrade = get("/raw/1", "Connection: Upgrade\r\nUpgrade: h2c\r\n");
        client.write_all(upgrade.as_bytes()).await.unwrap();
        let mut peer = origin.accept().await;
        peer.head().await;
        client.write_all(next.as_bytes()).await.unwrap();
        // Whole requests go by, and it has come as well.
        for _ in 0..3 {
            assert_eq!(device.get("/http/fence").await.unwrap().status, 200);
        }
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        let mut answers = Vec::new();
        let reading = client.read_to_end(&mut answers);
        let _ = tokio::time::timeout(PATIENCE, reading).await.unwrap();
        let answers = String::from_utf8_lossy(&answers);
        assert_eq!(statuses(&answers), [200, 400], "{next:?}");
    }
}

/// What becomes of a path: the target that the upstream sees, or the status of a refusal.
type Fate = Result<&'static str, u16>;

/// By key and without one, so that `/http/` and `/ws/` are closed and `/public/` is open.
const PATHS: &[(&str, Fate)] = &[
    ("/public/m", Ok("/public/m")),
    ("/public/a/../m", Ok("/public/m")),
    ("//public///m", Ok("/public/m")),
    ("/public/%6d", Ok("/public/m")),
    ("/public/%252e%252e/http/m", Ok("/public/%252e%252e/http/m")),
    ("/http/../public/m", Ok("/public/m")),
    ("/http/%2e%2e/public/m", Ok("/public/m")),
    ("/public/..;/http/m", Ok("/public/..;/http/m")),
    ("/public/caf\u{e9}", Ok("/public/caf%C3%A9")),
    ("/public/caf%c3%a9", Ok("/public/caf%C3%A9")),
    ("/public/a|b^c", Ok("/public/a%7Cb%5Ec")),
    ("/public/{\"a\"}[]", Ok("/public/%7B%22a%22%7D%5B%5D")),
    ("/http/m", Err(401)),
    ("//http//m", Err(401)),
    ("/public/../http/m", Err(401)),
    ("/public/%2e%2e/http/m", Err(401)),
    ("/public/.%2E/ws/m", Err(401)),
    ("/%68ttp/m", Err(401)),
    ("/./http/m", Err(401)),
    ("/HTTP/m", Err(404)),
    ("/httpfoo", Err(404)),
    ("/http", Err(404)),
    ("/PUBLIC/m", Err(404)),
    ("/publicity", Err(404)),
    ("/", Err(404)),
    ("/public%2fm", Err(400)),
    ("/public/..%2fhttp/m", Err(400)),
    ("/public/%5c..%5chttp/m", Err(400)),
    ("/public/%00", Err(400)),
    ("/public/%", Err(400)),
    ("/public/%zz", Err(400)),
    ("/../public/m", Err(400)),
    ("/public/../../http/m", Err(400)),
];

#[tokio::test]
async fn policy_and_upstream_see_the_same_path() {
    let lab = Lab::key().await;
    let client = lab.anonymous();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (path, fate) in PATHS {
            let before = lab.origin.requests().len();
            let answer = client.send(protocol, path, &[]).await.unwrap();
            let arrived = lab.origin.requests().split_off(before);
            let targets: Vec<_> = arrived.iter().map(|r| r.target.as_str()).collect();
            match fate {
                Ok(target) => {
                    assert_eq!(answer.status, 200, "{protocol:?} {path}");
                    assert_eq!(targets, [*target], "{protocol:?} {path}");
                }
                Err(status) => {
                    assert_eq!(answer.status, *status, "{protocol:?} {path}");
                    assert!(targets.is_empty(), "{protocol:?} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_route_is_for_its_path_however_that_is_spelled() {
    let closed =
        |name: &str, path: &str| format!("[routes.{name}]\npath = \"{path}\"\nanswer = 403\n");
    let tables = closed("cafe", "/public/caf%C3%A9/") + &closed("pipe", "/public/p%7Cq/");
    let lab = Config::x509().tables(&tables).start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for path in [
            "/public/caf%C3%A9/x",
            "/public/caf%c3%a9/x",
            "/public/caf\u{e9}/x",
            "/public/p%7Cq/x",
            "/public/p%7cq/x",
            "/public/p|q/x",
        ] {
            let answer = lab.device().send(protocol, path, &[]).await.unwrap();
            assert_eq!(answer.status, 403, "{protocol:?} {path}");
        }
        lab.origin.assert_untouched();
    }
    let beside = "/public/cafe\u{301}/x";
    let answer = lab.device().send(Protocol::Http1, beside, &[]).await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_path_trick_does_not_lead_to_another_upstream_with_a_credential() {
    let lab = Lab::x509().await;
    let device = lab.device();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for path in ["/http/../ws/m", "/http/%2e%2e/ws/m", "//ws//m"] {
            let answer = device.send(protocol, path, &[]).await.unwrap();
            assert_eq!(answer.status, 200);
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.target, "/m", "{path}");
            assert_eq!(request.all("authorization"), [format!("Client {SECRET}")]);
        }
        // Decoded a second time behind us it would lead elsewhere; it arrives as it was sent.
        let answer = device
            .send(protocol, "/http/%252e%252e/m", &[])
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.target, "/%252e%252e/m");
    }
}

#[tokio::test]
async fn a_backslash_in_a_path_is_refused() {
    assert_refused(&[
        ("plain", get("/http\\..\\public/", "")),
        ("within", get("/http/a\\b", "")),
    ])
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let lab = Lab::x509().await;
    let pipeline = [
        get("/http/1", ""),
        post("Content-Length: 5\r\n", "hello"),
        post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n"),
        get("/http/2", "Connection: close\r\n"),
    ]
    .concat();
    let answers = lab.device().raw(pipeline.as_bytes()).await.unwrap();
    assert_eq!(statuses(&answers), [200, 200, 200, 200]);
    let targets: Vec<_> = lab
        .origin
        .requests()
        .into_iter()
        .map(|r| r.target)
        .collect();
    assert_eq!(targets, ["/1", "/m", "/m", "/2"]);
}

#[tokio::test]
async fn every_pipelined_request_passes_the_gate_for_itself() {
    let lab = Lab::x509().await;
    let forged = "Authorization: Client somebody-else\r\n";
    let pipeline = [
        get("/http/1", ""),
        get("/http/2", forged),
        get("/http/3", &format!("{forged}Connection: close\r\n")),
    ]
    .concat();
    let answers = lab.device().raw(pipeline.as_bytes()).await.unwrap();
    assert_eq!(statuses(&answers), [200, 403, 403]);
    assert_eq!(lab.origin.only_request().target, "/1");
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_taken_for_the_next_one() {
    let lab = Lab::x509().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    let head = post("Authorization: Client x\r\nContent-Length: 28\r\n", "");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let refusal = read_head(&mut stream).await.unwrap();
    assert_eq!(statuses(&refusal), [403]);
    // The body arrives after the answer; whatever becomes of the connection, it is no request.
    let _ = stream.write_all(b"GET /http/1 HTTP/1.1\nHo: x\n\n").await;
    let _ = stream
        .write_all(get("/http/2", "Connection: close\r\n").as_bytes())
        .await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection ends");
    let targets: Vec<_> = lab
        .origin
        .requests()
        .into_iter()
        .map(|r| r.target)
        .collect();
    assert!(targets.is_empty() || targets == ["/2"], "{targets:?}");
    let answers = statuses(&String::from_utf8_lossy(&rest));
    assert!(answers.is_empty() || answers == [200], "{answers:?}");
}

fn opening(path: &str) -> String {
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    );
    get(path, &fields)
}

/// A masked text frame, "hi".
const FRAME: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];

#[tokio::test]
async fn nothing_is_forwarded_before_the_upstream_has_agreed_to_a_websocket() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let lab = Config::x509()
        .tables(&format!(
            "[upstreams.raw]\nservers = [\"{address}\"]\n\
             [routes.raw]\npath = \"/raw/\"\nupstream = \"raw\"\n"
        ))
        .start()
        .await;
    let device = lab.device();
    let mut client = device.connect(&["http/1.1"]).await.unwrap();
    let bytes = [opening("/raw/x").as_bytes(), FRAME].concat();
    client.write_all(&bytes).await.unwrap();

    let (mut socket, _) = upstream.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0);
        assert!(!head.windows(2).any(|pair| pair == b"hi"), "{head:?}");
    }
    // A whole request goes by, and still nothing has followed the head.
    assert_eq!(device.get("/http/fence").await.unwrap().status, 200);
    let nothing = socket.try_read(&mut [0; 16]);
    assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);

    let accept = derive_accept_key(KEY.as_bytes());
    let agreement = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(agreement.as_bytes()).await.unwrap();
    let mut frame = [0; FRAME.len()];
    socket.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame, FRAME);
    assert_eq!(statuses(&read_head(&mut client).await.unwrap()), [101]);
}

#[tokio::test]
async fn bytes_after_a_websocket_opening_are_not_read_as_http_once_it_is_open() {
    let lab = Lab::x509().await;
    let bytes = [
        opening("/ws/x"),
        get("/http/smuggled", "Connection: close\r\n"),
    ]
    .concat();
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The upstream gives up on what is no frame, and the tunnel ends with it.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the tunnel ends");
    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), [101]);
    assert_eq!(lab.origin.only_request().target, "/x");
}

#[tokio::test]
async fn bytes_after_a_refused_websocket_opening_pass_the_gate_like_any_request() {
    let lab = Lab::x509().await;
    let forged = "Authorization: Client somebody-else\r\nConnection: close\r\n";
    let bytes = [opening("/ws/refuse"), get("/http/smuggled", forged)].concat();
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(statuses(&answer), [403, 403]);
    assert_eq!(lab.origin.only_request().target, "/refuse");
}

#[tokio::test]
async fn http2_has_no_room_for_fields_of_http1_connections() {
    let lab = Lab::x509().await;
    let device = lab.device();
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("te", "gzip"),
    ] {
        let outcome = device
            .request(
                Protocol::Http2,
                Method::GET,
                "/http/m",
                &[(name, value)],
                Bytes::new(),
            )
            .await;
        // The client's own library may drop the field; then nothing of it arrives either.
        if let Ok(answer) = outcome {
            assert!(
                matches!(answer.status.as_u16(), 200 | 400),
                "{name}: {}",
                answer.status
            );
        }
        for request in lab.origin.requests() {
            assert!(!request.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn http2_with_a_host_that_differs_from_its_authority_is_refused() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let same = device
        .send(
            Protocol::Http2,
            "/http/m",
            &[("host", &device.host.clone())],
        )
        .await
        .unwrap();
    assert_eq!(same.status, 200);
    let other = device
        .send(Protocol::Http2, "/http/m", &[("host", "other")])
        .await
        .unwrap();
    assert_eq!(other.status, 400);
    lab.origin.only_request();
}

/// Sends all of `bytes` at once; the statuses of the answers up to the end of the connection.
async fn all_statuses(client: &Client, bytes: &[u8]) -> Vec<u16> {
    let answers = client.raw(bytes).await.unwrap();
    statuses(&answers)
}

/// What a request may be, whose end has to be known to find the next one.
fn before() -> [String; 5] {
    [
        get("/http/m", ""),
        get("/nowhere", ""),
        post("Content-Length: 7\r\n", "\n#\r\n\r\n "),
        post(CHUNKED, "7\r\n\n#\r\n\r\n \r\n0\r\nx: #\r\n\r\n"),
        post("Content-Length: 0\r\n", ""),
    ]
}

#[tokio::test]
async fn requests_that_are_sent_together_are_each_answered() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let last = get("/http/m", "Referer: http://a/#b\r\nConnection: close\r\n");
    for before in before() {
        let first = if before.contains("nowhere") { 404 } else { 200 };
        let bytes = format!("{before}{before}{last}");
        let statuses = all_statuses(&device, bytes.as_bytes()).await;
        assert_eq!(statuses, [first, first, 200], "{before:?}");
    }
}

#[tokio::test]
async fn requests_that_are_sent_together_are_each_looked_at() {
    let lab = Lab::x509().await;
    let device = lab.device();
    for before in before() {
        let first = if before.contains("nowhere") { 404 } else { 200 };
        for doubtful in [
            get("/http/doubtful#b", ""),
            "GET /http/doubtful HTTP/1.1\nHost: localhost\r\n\r\n".to_owned(),
            "POST /http/doubtful HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ] {
            let bytes = format!("{before}{doubtful}{}", get("/http/doubtful", ""));
            let statuses = all_statuses(&device, bytes.as_bytes()).await;
            assert_eq!(statuses, [first, 400], "{before:?} {doubtful:?}");
        }
    }
    let targets = lab.origin.requests().into_iter().map(|it| it.target);
    assert!(targets.into_iter().all(|target| target == "/m"));
}

#[tokio::test]
async fn a_head_that_follows_another_may_come_in_pieces() {
    let lab = Lab::x509().await;
    let next = get("/http/m", "Referer: http://a/#b\r\nConnection: close\r\n");
    for cut in 1..next.len() {
        let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
        let (front, back) = next.split_at(cut);
        let first = format!("{}{front}", get("/http/m", ""));
        stream.write_all(first.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await.unwrap();
        assert_eq!(statuses(&head), [200]);
        stream.write_all(back.as_bytes()).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(statuses(&rest), [200], "{back:?}");
    }
}
