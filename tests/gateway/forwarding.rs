//! What the upstream gets: the request as it was, less what clients must not say, plus what the
//! gateway knows; and what the client gets back.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::kept::{endless, in_parts, whole};
use crate::harness::lab::{Config, SECRET};
use crate::harness::scripted::tables;
use crate::harness::{Lab, Protocol, Scripted};

const HTTP: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const OTHER: &str = "00000000-0000-4000-8000-000000000000";
const MIB: usize = 1 << 20;

fn prefix(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 | Protocol::Http2 => "/http/m",
        Protocol::WebSocket => "/ws/m",
    }
}

fn client_secret() -> String {
    format!("Client {SECRET}")
}

/// Identity headers in every dialect.
const FORGED: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-uri",
    "x-forwarded-prefix",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "x-client-cert-chain",
    "x-client-verify",
    "x-client-dn",
    "x-arr-clientcert",
    "x-amzn-mtls-clientcert",
    "cloudfront-viewer-cert-subject",
    "x-ssl",
    "x-ssl-cert",
    "x-ssl-client-verify",
    "x-ssl-client-s-dn",
    "x-ssl-client-i-dn",
    "x-ssl-client-serial",
    "x-ssl-client-fingerprint",
    "x-ssl-client-cert",
    "x-ssl-client-dn",
    "x-ssl-client-cn",
    "x-ssl-client-notbefore",
    "x-ssl-client-san",
    "x-ssl-client-sha1",
    "ssl-client-cert",
    "ssl-client-verify",
    "ssl-client-subject-dn",
    "ssl-client-issuer-dn",
    "x-tls-client-cn",
    "l5d-client-id",
    "l5d-dst-override",
    "x-authorization",
    "x-client-id",
    "x-client-name",
    "x-client-secret",
    "x-user-id",
    "remote-user",
    "x-remote-user",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-authenticated-user",
    "x-webauth-user",
    "x-consumer-username",
    "x-ms-client-principal",
    "x-goog-authenticated-user-email",
    "x-amzn-oidc-identity",
    "x-fluxmq-username",
    "x-fluxmq-client-id",
    "x-supermq-client",
    "x-magistrala-client",
    "x-portcullis-client",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-request-id",
];

const FORGERY: &str = "f0rged";

/// Every name on the list, and every spelling that some server reads as the same.
fn forged_names() -> Vec<String> {
    let respelled = |separator: &str| -> Vec<String> {
        FORGED
            .iter()
            .map(|name| name.replace('-', separator))
            .collect()
    };
    let mut names = [
        respelled("-"),
        respelled("_"),
        respelled("."),
        respelled("~"),
    ]
    .concat();
    names.extend(FORGED.iter().map(|name| name.replacen('-', "_", 1)));
    names
}

fn assert_no_forgery(lab: &Lab, expected: usize) {
    let requests = lab.origin.requests();
    assert_eq!(requests.len(), expected);
    for request in requests {
        for (name, value) in &request.headers {
            assert!(!value.to_str().unwrap().contains(FORGERY), "{name}");
        }
        assert_eq!(request.all("authorization"), [client_secret()]);
    }
}

#[tokio::test]
async fn no_forged_identity_reaches_the_upstream() {
    let lab = Config::x509().start().await;
    let device = lab.device();
    let names = forged_names();
    let mut sent = 0;
    for protocol in EVERY_PROTOCOL {
        for names in names.chunks(60) {
            let fields: Vec<_> = names.iter().map(|name| (name.as_str(), FORGERY)).collect();
            let answer = device
                .send(protocol, prefix(protocol), &fields)
                .await
                .unwrap();
            assert!(
                matches!(answer.status.as_u16(), 101 | 200),
                "{}",
                answer.status
            );
            sent += 1;
        }
    }
    assert_no_forgery(&lab, sent);
}

#[tokio::test]
async fn no_forged_identity_in_odd_case_reaches_the_upstream() {
    let lab = Lab::x509().await;
    let mut sent = 0;
    for names in forged_names().chunks(60) {
        let fields: String = names
            .iter()
            .map(|name| format!("{}:{FORGERY}\r\n", odd_case(name)))
            .collect();
        let request =
            format!("GET /http/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
        let answer = lab.device().raw(request.as_bytes()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        sent += 1;
    }
    assert_no_forgery(&lab, sent);
}

fn odd_case(name: &str) -> String {
    let odd = |(at, letter): (usize, char)| match at % 2 {
        0 => letter.to_ascii_uppercase(),
        _ => letter,
    };
    name.chars().enumerate().map(odd).collect()
}

#[tokio::test]
async fn no_field_is_taken_for_the_credential_or_the_framing_by_a_lenient_upstream() {
    let lab = Lab::key().await;
    let names = [
        "authori_zation",
        "content_length",
        "content.length",
        "transfer_encoding",
        "transfer.encoding",
    ];
    let fields: Vec<_> = names
        .iter()
        .map(|name| (*name, "1"))
        .chain([("authorization", SECRET)])
        .collect();
    for protocol in HTTP {
        let answer = lab
            .anonymous()
            .send(protocol, "/http/m", &fields)
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        let request = lab.origin.requests().pop().unwrap();
        for name in names.iter().skip(1) {
            assert!(!request.headers.contains_key(*name), "{name}");
        }
        assert_eq!(request.all("authorization"), [client_secret()]);
    }
}

#[tokio::test]
async fn fields_that_claim_no_identity_pass_unchanged() {
    let lab = Lab::x509().await;
    let fields = [
        ("accept", "application/senml+json"),
        ("content-type", "application/senml+cbor"),
        ("cookie", "a=1; b=2"),
        ("my_header", "kept"),
        ("traceparent", "00-1-2-01"),
        ("user-agent", "kube-probe/1.0"),
        ("x-api-key", "kept"),
        ("x-custom", "one"),
        ("x-custom", "two"),
    ];
    for protocol in EVERY_PROTOCOL {
        lab.device()
            .send(protocol, prefix(protocol), &fields)
            .await
            .unwrap();
        let request = lab.origin.requests().pop().unwrap();
        for (name, value) in fields {
            assert!(request.all(name).contains(&value), "{protocol:?} {name}");
        }
        assert_eq!(request.all("x-custom"), ["one", "two"]);
    }
}

#[tokio::test]
async fn connection_cannot_name_away_what_the_gateway_sets() {
    let lab = Lab::x509().await;
    for protocol in [Protocol::Http1, Protocol::WebSocket] {
        for lines in [
            &["authorization"][..],
            &["close, X-Real-IP, X-Forwarded-For"],
            &["keep-alive", "Authorization", "x-request-id, forwarded"],
            &["host, x-forwarded-host, x-forwarded-proto, x-forwarded-port"],
        ] {
            let mut fields: Vec<_> = lines.iter().map(|line| ("connection", *line)).collect();
            fields.push(("authorization", SECRET));
            let answer = lab
                .device()
                .send(protocol, prefix(protocol), &fields)
                .await
                .unwrap();
            assert!(
                matches!(answer.status.as_u16(), 101 | 200),
                "{}",
                answer.status
            );
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(
                request.all("authorization"),
                [client_secret()],
                "{protocol:?} {lines:?}"
            );
            for name in [
                "host",
                "forwarded",
                "x-real-ip",
                "x-request-id",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-port",
                "x-forwarded-proto",
            ] {
                assert_eq!(request.all(name).len(), 1, "{protocol:?} {lines:?}: {name}");
            }
        }
    }
}

#[tokio::test]
async fn connection_does_name_away_what_the_client_says() {
    let lab = Lab::x509().await;
    let fields = [
        ("connection", "x-private, x-other"),
        ("connection", "close"),
        ("x-private", "1"),
        ("x-other", "1"),
        ("x-kept", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic eDp5"),
        ("proxy-connection", "keep-alive"),
    ];
    let answer = lab
        .device()
        .send(Protocol::Http1, "/http/m", &fields)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let request = lab.origin.only_request();
    for (name, _) in fields.iter().filter(|(name, _)| *name != "x-kept") {
        assert!(!request.headers.contains_key(*name), "{name}");
    }
    assert_eq!(request.all("x-kept"), ["1"]);
}

#[tokio::test]
async fn the_upstream_learns_where_a_request_came_from() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let host = device.host.clone();
    let port = lab.address().port().to_string();
    for protocol in EVERY_PROTOCOL {
        device
            .send(
                protocol,
                prefix(protocol),
                &[("x-forwarded-for", "1.2.3.4")],
            )
            .await
            .unwrap();
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("host"), [host.as_str()]);
        assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(request.all("x-real-ip"), ["127.0.0.1"]);
        assert_eq!(request.all("x-forwarded-proto"), ["https"]);
        assert_eq!(request.all("x-forwarded-port"), [port.as_str()]);
        assert_eq!(request.all("x-forwarded-host"), [host.as_str()]);
        assert_eq!(
            request.all("forwarded"),
            [format!("for=127.0.0.1;host=\"{host}\";proto=https")]
        );
    }
}

#[tokio::test]
async fn client_and_upstream_are_given_the_same_request_id_each_time_another() {
    let lab = Lab::x509().await;
    let device = lab.device();
    let mut seen = Vec::new();
    for protocol in EVERY_PROTOCOL {
        let answer = device
            .send(protocol, prefix(protocol), &[("x-request-id", "mine")])
            .await
            .unwrap();
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-request-id"), [id.as_str()]);
        seen.push(id);
    }
    for path in ["/http/m?authorization=wrong", "/nowhere", "/http/%00"] {
        let answer = device
            .send(Protocol::Http1, path, &[("x-request-id", "mine")])
            .await
            .unwrap();
        assert!(answer.status.is_client_error());
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answer.json()["request_id"], id.as_str());
        seen.push(id);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    assert!(!seen.contains(&"mine".to_owned()));
}

#[tokio::test]
async fn the_credential_in_a_query_stays_here_unless_the_route_keeps_it() {
    for (line, query, forwarded) in [
        ("", format!("?authorization={SECRET}"), "/m".to_owned()),
        (
            "",
            format!("?a=1&authorization={SECRET}&b=%20"),
            "/m?a=1&b=%20".to_owned(),
        ),
        ("", "?a=1&a=2&&b".to_owned(), "/m?a=1&a=2&&b".to_owned()),
        ("", "?".to_owned(), "/m?".to_owned()),
        (
            "keep_query_credential = true",
            format!("?a=1&authorization=Client%20{SECRET}"),
            format!("/m?a=1&authorization=Client%20{SECRET}"),
        ),
    ] {
        let lab = Config::x509().route(line).start().await;
        for protocol in EVERY_PROTOCOL {
            let path = format!("{}{query}", prefix(protocol));
            lab.device().send(protocol, &path, &[]).await.unwrap();
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.target, forwarded, "{protocol:?} {line}");
        }
        let wrong = format!("/http/m?authorization={OTHER}");
        let answer = lab.device().get(&wrong).await.unwrap();
        assert_eq!(answer.status, 403, "{line}");
    }
}

/// RFC 9112 §3.2.2, §3.2.1: a target in absolute form comes to the server in origin form, with the slash
/// that it may leave out.
#[tokio::test]
async fn a_target_in_absolute_form_comes_to_the_server_in_origin_form() {
    let everything = "[routes.everything]\npath = \"/\"\nupstream = \"origin\"\n";
    let lab = Config::x509().tables(everything).start().await;
    for (target, expected) in [
        ("http://localhost/a?b", "/a?b"),
        ("http://localhost/", "/"),
        ("http://localhost", "/"),
        ("http://localhost?b", "/?b"),
        ("https://localhost?", "/?"),
        ("/?b", "/?b"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = lab.device().raw(head.as_bytes()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.target, expected, "{target}");
    }
}

#[tokio::test]
async fn methods_pass_unchanged() {
    let lab = Lab::x509().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = kept
                .request(method.clone(), "/http/m", &[], whole(""))
                .await
                .unwrap();
            assert_eq!(answer.status, 200, "{method}");
            assert_eq!(lab.origin.requests().pop().unwrap().method, method.as_str());
        }
    }
}

#[tokio::test]
async fn request_bodies_arrive_unchanged() {
    let lab = Lab::x509().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for length in [0, 1, 5 * MIB] {
            let bytes: Bytes = (0..length).map(|n| (n % 251) as u8).collect();
            let parts: Vec<Bytes> = bytes.chunks(60_000).map(Bytes::copy_from_slice).collect();
            for body in [whole(bytes.clone()), in_parts(parts, HeaderMap::new())] {
                let answer = kept
                    .request(Method::POST, "/http/m", &[], body)
                    .await
                    .unwrap();
                assert_eq!(answer.status, 200, "{protocol:?} {length}");
                let request = lab.origin.requests().pop().unwrap();
                assert!(request.body == bytes, "{protocol:?} {length}");
            }
        }
    }
}

#[tokio::test]
async fn answer_bodies_arrive_unchanged() {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let body: String = (0..5 * MIB)
        .map(|n| char::from(b'a' + (n % 23) as u8))
        .collect();
    let origin = tokio::spawn({
        let body = body.clone();
        async move {
            let mut peer = upstream.accept().await;
            loop {
                let head = peer.head().await;
                let length: usize = head
                    .split_whitespace()
                    .nth(1)
                    .and_then(|path| path.rsplit('/').next()?.parse().ok())
                    .unwrap();
                let body = &body[..length];
                if head.contains("x-chunked") {
                    peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                        .await;
                    for part in body.as_bytes().chunks(100_000) {
                        let part = std::str::from_utf8(part).unwrap();
                        peer.say(&format!("{:x}\r\n{part}\r\n", part.len())).await;
                    }
                    peer.say("0\r\n\r\n").await;
                } else {
                    peer.say(&format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                    ))
                    .await;
                    peer.say(body).await;
                }
                if head.contains("x-last") {
                    return;
                }
            }
        }
    });
    let mut last = Vec::new();
    for length in [0, 1, 5 * MIB] {
        for fields in [vec![], vec![("x-chunked", "1")]] {
            last.push((length, fields));
        }
    }
    let (length, mut fields) = last.pop().unwrap();
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for (length, fields) in last {
        let answer = kept.get(&format!("/raw/{length}"), &fields).await.unwrap();
        assert!(answer.body == body[..length], "{length} {fields:?}");
    }
    fields.push(("x-last", "1"));
    let answer = kept.get(&format!("/raw/{length}"), &fields).await.unwrap();
    assert!(answer.body == body[..length]);
    origin.await.unwrap();
    for length in [0, 1, 5 * MIB] {
        let path = format!("/http/bytes/{length}");
        let answer = lab
            .device()
            .send(Protocol::Http2, &path, &[])
            .await
            .unwrap();
        assert_eq!(answer.body.len(), length);
    }
}

#[tokio::test]
async fn trailers_do_no_harm() {
    let lab = Lab::x509().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-real-ip", "f0rged".parse().unwrap());
    trailers.insert("x-checksum", "1".parse().unwrap());
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for _ in 0..2 {
            let body = in_parts(vec!["hello".into()], trailers.clone());
            let fields = [("trailer", "x-real-ip, x-checksum")];
            let answer = kept
                .request(Method::POST, "/http/m", &fields, body)
                .await
                .unwrap();
            assert_eq!(answer.status, 200);
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.body, "hello");
            assert_eq!(request.all("x-real-ip"), ["127.0.0.1"]);
        }
    }
}

#[tokio::test]
async fn cookie_crumbs_of_http2_become_one_field() {
    let lab = Lab::x509().await;
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
    lab.device()
        .send(Protocol::Http2, "/http/m", &fields)
        .await
        .unwrap();
    assert_eq!(lab.origin.only_request().all("cookie"), ["a=1; b=2; c=3"]);
}

fn expecting(credential: &str) -> String {
    format!(
        "POST /http/m HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
         Connection: close\r\nContent-Length: 5\r\n{credential}\r\n"
    )
}

#[tokio::test]
async fn an_admitted_request_is_told_to_continue() {
    let lab = Lab::x509().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream.write_all(expecting("").as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let request = lab.origin.only_request();
    assert_eq!(request.body, "hello");
    assert!(!request.headers.contains_key("expect"));
}

#[tokio::test]
async fn a_refused_request_is_not_told_to_continue() {
    let lab = Lab::x509().await;
    let forged = expecting("Authorization: Client x\r\n");
    let answer = lab.device().raw(forged.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    lab.origin.assert_untouched();

    let lab = Lab::key().await;
    let answer = lab.anonymous().raw(expecting("").as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn answers_without_a_body_pass_and_leave_both_connections_fit() {
    for protocol in HTTP {
        let upstream = Scripted::start().await;
        let lab = Config::x509().tables(&upstream.tables()).start().await;
        let origin = tokio::spawn(async move {
            let mut peer = upstream.accept().await;
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n",
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ] {
                peer.head().await;
                peer.say(answer).await;
            }
        });
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let head = kept
            .request(Method::HEAD, "/raw/m", &[], whole(""))
            .await
            .unwrap();
        assert_eq!(head.status, 200, "{protocol:?}");
        assert_eq!(head.headers["content-length"], "10");
        let empty = kept.get("/raw/m", &[]).await.unwrap();
        assert_eq!((empty.status.as_u16(), empty.body.len()), (204, 0));
        let unchanged = kept.get("/raw/m", &[]).await.unwrap();
        assert_eq!(unchanged.status, 304);
        assert_eq!(unchanged.headers["etag"], "\"x\"");
        assert_eq!(kept.get("/raw/m", &[]).await.unwrap().body, "ok");
        origin.await.unwrap();
    }
}

#[tokio::test]
async fn hop_by_hop_fields_of_an_answer_end_here() {
    for protocol in HTTP {
        let upstream = Scripted::start().await;
        let lab = Config::x509().tables(&upstream.tables()).start().await;
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.say(
                "HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\n\
                 Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\
                 X-Request-Id: theirs\r\nX-Kept: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                 Content-Length: 2\r\n\r\nok",
            )
            .await;
        };
        let device = lab.device();
        let (answer, ()) = tokio::join!(device.send(protocol, "/raw/m", &[]), origin);
        let answer = answer.unwrap();
        assert_eq!(answer.body, "ok");
        for name in ["x-private", "keep-alive", "proxy-authenticate", "upgrade"] {
            assert!(!answer.headers.contains_key(name), "{protocol:?} {name}");
        }
        assert_eq!(answer.headers["x-kept"], "1");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
        let ids: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
        assert!(ids.len() == 1 && ids[0] != "theirs", "{ids:?}");
    }
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_refused() {
    let lab = Config::x509().route("max_body = \"1KiB\"").start().await;
    for protocol in HTTP {
        let post = async |body| {
            let mut kept = lab.device().keep(protocol).await.unwrap();
            kept.request(Method::POST, "/http/m", &[], body)
                .await
                .unwrap()
                .status
        };
        let before = lab.origin.connections();
        assert_eq!(post(whole(vec![b'x'; 1025])).await, 413);
        assert_eq!(
            lab.origin.connections(),
            before,
            "the upstream was dialled for a body that announced itself as too long"
        );
        let parts = || vec![Bytes::from(vec![b'x'; 512]); 2];
        let too_many = [parts(), vec!["x".into()]].concat();
        assert_eq!(post(in_parts(too_many, HeaderMap::new())).await, 413);
        assert_eq!(lab.origin.requests().len(), 0);
    }
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for body in [
            whole(vec![b'x'; 1024]),
            in_parts(vec![vec![b'x'; 512].into(); 2], HeaderMap::new()),
        ] {
            let answer = kept
                .request(Method::POST, "/http/m", &[], body)
                .await
                .unwrap();
            assert_eq!(answer.status, 200, "{protocol:?}");
        }
    }
    assert_eq!(lab.origin.requests().len(), 4);
}

#[tokio::test]
async fn one_upstream_connection_serves_many_requests() {
    for protocol in HTTP {
        let lab = Lab::x509().await;
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for length in 0..20 {
            let answer = kept.get(&format!("/http/bytes/{length}"), &[]).await;
            assert_eq!(answer.unwrap().body.len(), length);
            let body = in_parts(vec!["x".into()], HeaderMap::new());
            let answer = kept.request(Method::POST, "/http/m", &[], body).await;
            assert_eq!(answer.unwrap().status, 200);
        }
        assert_eq!(lab.origin.requests().len(), 40);
        assert_eq!(lab.origin.connections(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_the_upstream_has_closed_costs_nobody_an_error() {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
    for method in [Method::GET, Method::POST, Method::GET] {
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            // And closes, although it has not said so.
        };
        let request = kept.request(method, "/raw/m", &[], whole("body"));
        let (answer, ()) = tokio::join!(request, origin);
        assert_eq!(answer.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_pooled_connection_that_closes_without_a_word_costs_only_what_cannot_be_sent_twice() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (method, body, word, expected) in [
        (Method::GET, "", "", 200),
        (Method::DELETE, "", "", 200),
        (Method::PUT, "body", "", 502),
        (Method::POST, "", "", 502),
        // It has said something.
        (Method::GET, "", "HTTP/1.1 2", 502),
        (Method::GET, "", "HTTP/1.1 103 Early Hints\r\n\r\n", 502),
    ] {
        let upstream = Scripted::start().await;
        let lab = Config::x509().tables(&upstream.tables()).start().await;
        let mut kept = lab.device().keep(Protocol::Http1).await.unwrap();
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.say(ANSWER).await;
            let first = peer.head().await;
            peer.say(word).await;
            drop(peer);
            if expected == 200 {
                let mut peer = upstream.accept().await;
                assert_eq!(peer.head().await, first);
                peer.say(ANSWER).await;
            }
        };
        let requests = async {
            assert_eq!(kept.get("/raw/m", &[]).await.unwrap().status, 200);
            let answer = kept.request(method.clone(), "/raw/m", &[], whole(body));
            answer.await.unwrap().status
        };
        let (status, ()) = tokio::join!(requests, origin);
        assert_eq!(status, expected, "{method} {body} {word}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_bad_gateway() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let lab = Config::x509().tables(&tables(address)).start().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let answer = kept.get("/raw/m", &[]).await.unwrap();
        assert_eq!(answer.status, 502);
        assert_eq!(answer.json()["code"], "bad_gateway");
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_upstream_that_stays_silent_is_a_gateway_timeout() {
    let lab = Config::x509()
        .route("response_timeout = \"300ms\"")
        .start()
        .await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        let answer = kept.get("/http/silent", &[]).await.unwrap();
        assert_eq!(answer.status, 504);
        assert_eq!(answer.json()["code"], "gateway_timeout");
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_bad_gateway() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "",
    ] {
        let upstream = Scripted::start().await;
        let lab = Config::x509().tables(&upstream.tables()).start().await;
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.say(answer).await;
        };
        let device = lab.device();
        let (outcome, ()) = tokio::join!(device.get("/raw/m"), origin);
        assert_eq!(outcome.unwrap().status, 502, "{answer:?}");
    }
}

/// What the gateway makes of a server's bytes, by HTTP/1.1 as they come to the client.
async fn made_of(answer: &str) -> String {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let origin = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.say(answer).await;
        peer
    };
    let device = lab.device();
    let request = b"GET /raw/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (text, _peer) = tokio::join!(device.raw(request), origin);
    text.unwrap_or_default().to_ascii_lowercase()
}

#[tokio::test]
async fn a_client_reads_an_answer_as_the_gateway_has_read_it() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let chunks = "10\r\n0123456789abcdef\r\n0\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 500\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let text = made_of(&format!("{OK}{fields}\r\n{chunks}")).await;
        // RFC 9112 §6.3: the chunks count, and the length is not passed on; or nothing is.
        if text.starts_with("http/1.1 502") {
            continue;
        }
        assert!(text.starts_with("http/1.1 200"), "{fields}: {text}");
        assert!(!text.contains("content-length"), "{fields}: {text}");
        assert!(
            text.ends_with(&format!("\r\n\r\n{chunks}")),
            "{fields}: {text}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_nobody_has_asked_for_reaches_nobody() {
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    ] {
        let upstream = Scripted::start().await;
        let lab = Config::x509().tables(&upstream.tables()).start().await;
        let device = lab.device();
        let origin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.say(&format!("{answer}{forged}")).await;
            peer
        };
        let (first, peer) = tokio::join!(device.get("/raw/1"), origin);
        assert_ne!(first.unwrap().body, "forged");
        let origin = async {
            let mut peer = upstream.accept().await;
            assert!(peer.head().await.starts_with("get /raw/2 "));
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")
                .await;
        };
        let (second, ()) = tokio::join!(device.get("/raw/2"), origin);
        assert_eq!(second.unwrap().body, "own", "{answer}");
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_server_does_not_wear_its_client_out_before_it_answers() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let text = made_of(&format!("{}{answer}", interim.repeat(3))).await;
    assert!(
        text.starts_with("http/1.1 200") && text.ends_with("ok"),
        "{text}"
    );
    let fields: String = (0..5000)
        .map(|number| format!("X-{number}: y\r\n"))
        .collect();
    let text = made_of(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).await;
    assert!(text.starts_with("http/1.1 502"), "{text}");
    let long = "y".repeat(1 << 20);
    let text = made_of(&format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n")).await;
    assert!(text.starts_with("http/1.1 502"), "{text}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_to_the_client_and_ends_the_connection() {
    for protocol in HTTP {
        for broken in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ] {
            let upstream = Scripted::start().await;
            let lab = Config::x509().tables(&upstream.tables()).start().await;
            let device = lab.device();
            let origin = async {
                let mut peer = upstream.accept().await;
                peer.head().await;
                peer.say(broken).await;
            };
            let (outcome, ()) = tokio::join!(device.send(protocol, "/raw/m", &[]), origin);
            assert!(outcome.is_err(), "{protocol:?} {broken:?}");
            let origin = async {
                let mut peer = upstream.accept().await;
                peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            };
            let (answer, ()) = tokio::join!(device.send(protocol, "/raw/m", &[]), origin);
            assert_eq!(answer.unwrap().body, "ok");
        }
    }
}

#[tokio::test]
async fn an_upstream_connection_with_an_unread_answer_is_not_used_again() {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let device = lab.device();
    let mut kept = device.keep(Protocol::Http2).await.unwrap();
    let origin = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
        peer
    };
    let (response, peer) = tokio::join!(kept.begin(Method::GET, "/raw/m", &[], whole("")), origin);
    // The client loses interest in the middle of the answer.
    drop(response.unwrap());
    peer.closed().await;
    let origin = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    };
    let (answer, ()) = tokio::join!(kept.get("/raw/m", &[]), origin);
    assert_eq!(answer.unwrap().body, "ok");
}

#[tokio::test]
async fn a_client_that_breaks_off_its_body_leaves_no_request_behind() {
    let lab = Lab::x509().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream
        .write_all(b"POST /http/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .await
        .unwrap();
    drop(stream);
    // A whole request by the same pool finds no trace of it.
    assert_eq!(lab.device().get("/http/m").await.unwrap().status, 200);
    assert_eq!(lab.origin.only_request().body, "");
}

#[tokio::test]
async fn two_devices_taking_turns_keep_their_own_identity() {
    let lab = Lab::x509().await;
    let other = lab.client(Some(lab.authority.device(OTHER)));
    for protocol in HTTP {
        let mut mine = lab.device().keep(protocol).await.unwrap();
        let mut theirs = other.keep(protocol).await.unwrap();
        for _ in 0..20 {
            for (kept, secret) in [(&mut mine, SECRET), (&mut theirs, OTHER)] {
                assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
                let request = lab.origin.requests().pop().unwrap();
                assert_eq!(request.all("authorization"), [format!("Client {secret}")]);
            }
            let forged = [("authorization", OTHER)];
            assert_eq!(mine.get("/http/m", &forged).await.unwrap().status, 403);
        }
    }
}

#[tokio::test]
async fn by_key_each_request_of_a_connection_stands_for_itself() {
    let lab = Lab::key().await;
    for protocol in HTTP {
        let mut kept = lab.anonymous().keep(protocol).await.unwrap();
        for secret in [SECRET, OTHER, SECRET] {
            let fields = [("authorization", secret)];
            assert_eq!(kept.get("/http/m", &fields).await.unwrap().status, 200);
            let request = lab.origin.requests().pop().unwrap();
            assert_eq!(request.all("authorization"), [format!("Client {secret}")]);
            assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 401);
        }
    }
}

#[tokio::test]
async fn a_refused_head_request_is_answered_without_a_body() {
    let lab = Lab::x509().await;
    for protocol in HTTP {
        let mut kept = lab.device().keep(protocol).await.unwrap();
        for path in ["/nowhere", "/http/m?authorization=x", "/nowhere"] {
            let answer = kept
                .request(Method::HEAD, path, &[], whole(""))
                .await
                .unwrap();
            assert!(answer.status.is_client_error(), "{protocol:?} {path}");
            assert_eq!(answer.body, "", "{protocol:?} {path}");
        }
        assert_eq!(kept.get("/http/m", &[]).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_upload_that_goes_on_after_its_answer_holds_up_nobody() {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // One connection, so that all of it meets one worker and its one pool.
    let mut kept = lab.device().keep(Protocol::Http2).await.unwrap();
    let body = endless();
    let upload = kept.begin(Method::POST, "/raw/m", &[], body);
    let origin = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.say(ok).await;
        peer
    };
    let (early, _peer) = tokio::join!(upload, origin);
    assert_eq!(early.unwrap().collect().await.unwrap().to_bytes(), "ok");
    let origin = async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.say(ok).await;
    };
    let both = async { tokio::join!(kept.get("/raw/m", &[]), origin) };
    let (answer, ()) = tokio::time::timeout(std::time::Duration::from_secs(5), both)
        .await
        .expect("the second request waits for the first one's body");
    assert_eq!(answer.unwrap().body, "ok");
}

#[tokio::test]
async fn a_body_that_goes_on_after_its_answer_is_not_taken_for_a_head() {
    let upstream = Scripted::start().await;
    let lab = Config::x509().tables(&upstream.tables()).start().await;
    let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
    stream
        .write_all(b"POST /raw/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhe")
        .await
        .unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    // The gateway does not wait for the rest, which nobody can tell from a request for certain.
    let _ = stream.write_all(b"a\nb\n c\n\n").await;
    let _ = stream
        .write_all(b"GET /http/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    lab.origin.assert_untouched();
}

/// Requests to which the answer is known before their body has come.
const UNWANTED: [(&str, &str, u16); 2] = [
    ("/nowhere", "", 404),
    ("/http/m", "Authorization: Client x\r\n", 403),
];

#[tokio::test]
async fn a_connection_goes_on_after_a_body_that_nobody_wanted() {
    let lab = Lab::x509().await;
    let lines = "{\n\t\"a\": 1\n}\n".repeat(700);
    let chunks = format!("{:x}\r\n{lines}\r\n0\r\n\r\n", lines.len());
    let sized = |body: &str| format!("Content-Length: {}\r\n", body.len());
    for (path, credential, status) in UNWANTED {
        for (framing, body) in [
            (sized("hello"), "hello"),
            (sized(&lines), &*lines),
            ("Transfer-Encoding: chunked\r\n".to_owned(), &*chunks),
        ] {
            for apart in [false, true] {
                let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
                let head =
                    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{credential}{framing}\r\n");
                let next = "GET /http/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                let first = if apart {
                    head.clone()
                } else {
                    head.clone() + body
                };
                stream.write_all(first.as_bytes()).await.unwrap();
                let mut answers = Vec::new();
                while !answers.ends_with(b"}") {
                    assert_ne!(stream.read_buf(&mut answers).await.unwrap(), 0);
                }
                let rest = if apart {
                    body.to_owned() + next
                } else {
                    next.to_owned()
                };
                stream.write_all(rest.as_bytes()).await.unwrap();
                stream.read_to_end(&mut answers).await.unwrap();
                let answers = String::from_utf8(answers).unwrap();
                assert!(
                    answers.starts_with(&format!("HTTP/1.1 {status}")),
                    "{answers}"
                );
                assert!(
                    answers.contains("}HTTP/1.1 200"),
                    "{head:?} {apart}: {answers}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_connection_ends_with_the_answer_where_too_much_of_a_body_is_left() {
    let lab = Lab::x509().await;
    for (path, credential, _) in UNWANTED {
        for framing in [
            "Content-Length: 1000000\r\n",
            "Content-Length: 5\r\nExpect: 100-continue\r\n",
        ] {
            let mut stream = lab.device().connect(&["http/1.1"]).await.unwrap();
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{credential}{framing}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            // It is read, so that the answer is not lost to a reset.
            stream.write_all(&[b'x'; 100_000]).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let answer = answer.to_ascii_lowercase();
            assert!(
                answer.contains("\r\nconnection: close\r\n"),
                "{head:?}: {answer}"
            );
            assert_eq!(answer.matches("http/1.1 ").count(), 1, "{answer}");
        }
    }
}
