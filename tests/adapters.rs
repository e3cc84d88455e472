//! The stand-in adapters of `examples/adapters.rs`, as a user meets them: the program is started,
//! its addresses are read from its one line of JSON, and everything goes through real sockets.
//! The MQTT client here writes its bytes by hand, so that it shares no codec with the broker;
//! the mosquitto clients check both.
//! To run only this file: `cargo build --example adapters && cargo test --test adapters`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(20);
const VERSIONS: [u8; 3] = [3, 4, 5];
const TOPIC: &str = "m/home/c/lamp";
const JSON_HEADERS: [&str; 2] = [
    "Authorization: Client s3cret",
    "Content-Type: application/senml+json",
];

#[tokio::test]
async fn an_http_message_reaches_sockets_and_mqtt_subscribers_of_every_version() {
    let adapters = Adapters::start().await;
    let mut socket = adapters.socket("/m/home/c/lamp/state").await;
    let mut subscribers = Vec::new();
    for version in VERSIONS {
        let mut subscriber = adapters.mqtt(version, "").await;
        subscriber.subscribe("m/+/c/#", 1).await;
        subscribers.push(subscriber);
    }

    let answer = adapters
        .http("POST", "/m/home/c/lamp/state", &JSON_HEADERS, b"[1]")
        .await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (202, b"".as_slice())
    );

    assert_eq!(next_data(&mut socket).await, b"[1]");
    for mut subscriber in subscribers {
        let message = subscriber.message().await;
        assert_eq!(
            (message.topic.as_str(), message.qos),
            ("m/home/c/lamp/state", 1)
        );
        assert_eq!(message.payload, b"[1]", "version {}", subscriber.version);
    }
}

#[tokio::test]
async fn a_socket_reaches_mqtt_and_other_sockets_but_not_itself() {
    let adapters = Adapters::start().await;
    let mut sender = adapters.socket("/m/home/c/lamp").await;
    let mut other = adapters.socket("/m/home/c/lamp").await;
    let mut subscriber = adapters.mqtt(4, "").await;
    subscriber.subscribe("#", 0).await;

    sender
        .send(Frame::text("from the socket"))
        .await
        .expect("the socket takes a frame");
    assert_eq!(next_data(&mut other).await, b"from the socket");
    assert_eq!(subscriber.message().await.payload, b"from the socket");

    let mut publisher = adapters.mqtt(5, "").await;
    publisher.publish(TOPIC, b"from mqtt", 0, false).await;
    assert_eq!(
        next_data(&mut sender).await,
        b"from mqtt",
        "its own message came back"
    );
    assert_eq!(next_data(&mut other).await, b"from mqtt");

    sender.close(None).await.expect("the socket takes a close");
    let reply = soon(sender.next()).await;
    assert!(matches!(reply, Some(Ok(Frame::Close(_)))), "{reply:?}");
    assert!(soon(sender.next()).await.is_none());
}

#[tokio::test]
async fn a_missing_credential_is_refused_by_every_adapter() {
    let adapters = Adapters::start().await;
    let content_type = "Content-Type: application/json";
    for credentials in [
        vec![],
        vec!["Authorization: Client "],
        vec!["Authorization: Bearer s3cret"],
        vec!["Authorization: Client a", "Authorization: Client b"],
    ] {
        let headers = [credentials.as_slice(), &[content_type]].concat();
        let answer = adapters
            .http("POST", "/m/home/c/lamp", &headers, b"{}")
            .await;
        assert_eq!(answer.status, 401, "{credentials:?}");
        assert_eq!(answer.json()["error"], "missing_credential");
    }

    let url = format!("ws://{}/m/home/c/lamp", adapters.addresses.ws);
    match connect_async(url).await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 401),
        other => panic!("expected 401, got {other:?}"),
    }

    for (version, reason) in [(3, 0x05), (4, 0x05), (5, 0x87)] {
        for password in [None, Some("")] {
            let mut client = Mqtt::open(adapters.addresses.mqtt, version).await;
            client
                .send(0x10, &connect(version, "c", password, None))
                .await;
            let (kind, body) = client.packet().await.expect("a CONNACK");
            assert_eq!(
                (kind, &body[..2]),
                (0x20, [0, reason].as_slice()),
                "version {version}"
            );
            assert_eq!(client.packet().await, None, "the connection stays open");
        }
    }
}

#[tokio::test]
async fn http_refuses_what_it_does_not_know() {
    let adapters = Adapters::start().await;
    let text = ["Authorization: Client s3cret", "Content-Type: text/plain"];
    let too_large = vec![b'1'; 5 * 1024 * 1024 + 1];
    let (good, no_type) = (&JSON_HEADERS[..], &JSON_HEADERS[..1]);
    let cases = [
        ("POST", "/m/home/c/lamp", &text[..], &b"x"[..], 415),
        ("POST", "/m/home/c/lamp", no_type, b"x", 415),
        ("GET", "/m/home/c/lamp", good, b"", 405),
        ("POST", "/m/home/lamp", good, b"{}", 404),
        ("POST", "/m/home/c/", good, b"{}", 404),
        ("POST", "/m/home/c/a%23", good, b"{}", 404),
        ("POST", "/m/home/c/a%2Fb", good, b"{}", 404),
        ("POST", "/m/home/c/lamp", good, &too_large, 413),
        ("POST", "/m/home/c/lamp", good, &too_large[1..], 202),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = adapters.http(method, path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
    }
    let health = adapters.http("GET", "/health", &[], b"").await;
    assert_eq!(
        (health.status, health.json()),
        (200, json!({ "status": "pass" }))
    );
}

#[tokio::test]
async fn echo_shows_the_request_but_no_secret() {
    let adapters = Adapters::start().await;
    let headers = [
        "Authorization: Client s3cret",
        "X-Device: 7",
        "Cookie: sid=s3cret",
    ];
    let answer = adapters
        .http(
            "PUT",
            "/echo/a?b=c&authorization=s3cret",
            &headers,
            b"s3cret",
        )
        .await;
    let echo = answer.json();
    assert_eq!(echo["method"], "PUT");
    assert_eq!(
        echo["path_and_query"],
        "/echo/a?b=c&authorization=<redacted, 6 characters>"
    );
    assert_eq!(
        echo["headers"]["authorization"],
        json!(["Client <redacted, 6 characters>"])
    );
    assert_eq!(echo["headers"]["x-device"], json!(["7"]));
    assert_eq!(echo["body_bytes"], 6);
    assert!(!echo.to_string().contains("s3cret"));
}

#[tokio::test]
async fn a_retained_message_waits_for_subscribers_until_an_empty_one_clears_it() {
    let adapters = Adapters::start().await;
    let mut publisher = adapters.mqtt(4, "").await;
    publisher.publish(TOPIC, b"kept", 1, true).await;
    publisher.publish("m/home/c/window", b"open", 1, true).await;

    let mut late = adapters.mqtt(5, "").await;
    late.subscribe(TOPIC, 1).await;
    let message = late.message().await;
    assert_eq!(
        (message.payload.as_slice(), message.retain),
        (b"kept".as_slice(), true)
    );

    publisher.publish(TOPIC, b"", 1, true).await;
    let live = late.message().await;
    assert_eq!(
        (live.payload.as_slice(), live.retain),
        (b"".as_slice(), false)
    );

    let mut later = adapters.mqtt(3, "").await;
    later.subscribe("m/home/c/+", 0).await;
    assert_eq!(
        later.message().await.payload,
        b"open",
        "the cleared message came"
    );
}

#[tokio::test]
async fn a_will_is_published_for_a_lost_client_but_not_after_a_goodbye() {
    let adapters = Adapters::start().await;
    let mut subscriber = adapters.mqtt(4, "").await;
    subscriber.subscribe("wills/#", 0).await;
    for version in VERSIONS {
        let mut leaver = adapters
            .mqtt_with_will(version, ("wills/goodbye", "left"))
            .await;
        leaver.send(0xE0, &[]).await;
        assert_eq!(leaver.packet().await, None);

        drop(
            adapters
                .mqtt_with_will(version, ("wills/lost", "lost"))
                .await,
        );
        assert_eq!(
            subscriber.message().await.topic,
            "wills/lost",
            "version {version}"
        );

        let mut silent = adapters
            .mqtt_with_will(version, ("wills/silent", "gone"))
            .await;
        assert_eq!(
            subscriber.message().await.topic,
            "wills/silent",
            "keep-alive of 1 s"
        );
        while silent.packet().await.is_some() {}
    }
}

#[tokio::test]
async fn a_repeated_qos_2_publish_is_delivered_once() {
    let adapters = Adapters::start().await;
    for version in VERSIONS {
        let mut subscriber = adapters.mqtt(version, "").await;
        subscriber.subscribe(TOPIC, 2).await;
        let mut publisher = adapters.mqtt(version, "").await;
        for first_byte in [0x34, 0x3C] {
            publisher
                .send(first_byte, &publish(version, TOPIC, b"once", Some(9)))
                .await;
            assert_eq!(publisher.answer().await, (0x50, 9));
        }
        publisher.send(0x62, &9u16.to_be_bytes()).await;
        assert_eq!(publisher.answer().await, (0x70, 9));
        publisher.publish(TOPIC, b"next", 1, false).await;

        let once = subscriber.message().await;
        assert_eq!((once.payload.as_slice(), once.qos), (b"once".as_slice(), 1));
        assert_eq!(
            subscriber.message().await.payload,
            b"next",
            "version {version}"
        );
    }
}

#[tokio::test]
async fn the_newer_client_of_one_id_ends_the_older() {
    let adapters = Adapters::start().await;
    let mut older = adapters.mqtt(5, "twin").await;
    let mut newer = adapters.mqtt(5, "twin").await;
    let (kind, body) = older.packet().await.expect("a DISCONNECT");
    assert_eq!((kind, body[0]), (0xE0, 0x8E));
    assert_eq!(older.packet().await, None);

    newer.send(0xC0, &[]).await;
    assert_eq!(newer.packet().await, Some((0xD0, vec![])));
}

#[tokio::test]
async fn malformed_packets_close_their_connection_and_no_other() {
    let adapters = Adapters::start().await;
    let mut bystander = adapters.mqtt(4, "").await;
    let reserved_qos = [0x36, 0x03, 0x00, 0x01, b'a'];
    let endless_length = [0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    let too_large = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    let wildcard_topic = [0x30, 0x03, 0x00, 0x01, b'#'];
    let second_connect = [0x10, 0x00];
    for bytes in [
        &reserved_qos[..],
        &endless_length,
        &too_large,
        &wildcard_topic,
        &second_connect,
    ] {
        for version in VERSIONS {
            let mut client = adapters.mqtt(version, "").await;
            client
                .stream
                .write_all(bytes)
                .await
                .expect("the broker reads");
            while let Some((kind, _)) = client.packet().await {
                assert_eq!((kind, version), (0xE0, 5), "{bytes:02x?}");
            }
        }
    }
    let mut stranger = Mqtt::open(adapters.addresses.mqtt, 4).await;
    stranger
        .stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("the broker reads");
    assert_eq!(stranger.packet().await, None);

    bystander.send(0xC0, &[]).await;
    assert_eq!(bystander.packet().await, Some((0xD0, vec![])));
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_cut_off_and_holds_nobody_back() {
    let adapters = Adapters::start().await;
    let mut slow = adapters.mqtt(5, "").await;
    slow.subscribe("#", 0).await;
    let large = vec![b'1'; 5 * 1024 * 1024];
    for _ in 0..12 {
        let answer = adapters
            .http("POST", "/m/home/c/lamp", &JSON_HEADERS, &large)
            .await;
        assert_eq!(answer.status, 202);
    }
    let mut last = None;
    while let Some((kind, body)) = slow.packet().await {
        last = Some((kind, body[0]));
    }
    assert_eq!(last, Some((0xE0, 0x97)), "quota exceeded");
}

#[tokio::test]
async fn a_subscriber_that_never_acknowledges_is_cut_off() {
    let adapters = Adapters::start().await;
    let mut silent = adapters.mqtt(5, "").await;
    silent.subscribe(TOPIC, 1).await;
    let mut publisher = adapters.mqtt(4, "").await;
    for _ in 0..256 + 1024 + 1 {
        publisher.publish(TOPIC, b"1", 1, false).await;
    }
    let mut delivered = 0;
    while let Some((kind, _)) = silent.packet().await {
        match kind {
            0x32 => delivered += 1,
            0xE0 => break,
            other => panic!("unexpected packet {other:#04x}"),
        }
    }
    assert_eq!(delivered, 256, "no more than the window");
}

#[tokio::test]
async fn mqtt_over_websocket_takes_packets_split_and_run_together() {
    let adapters = Adapters::start().await;
    let url = format!("ws://{}/any/path", adapters.addresses.mqtt_ws);
    let mut request = url.as_str().into_client_request().expect("a valid URL");
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static("x, mqtt"),
    );
    let (mut socket, answer) = connect_async(request)
        .await
        .expect("the handshake succeeds");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");

    for byte in packet(0x10, &connect(4, "ws", Some("s3cret"), None)) {
        socket
            .send(Frame::binary(vec![byte]))
            .await
            .expect("the socket takes a frame");
    }
    let subscribe = packet(0x82, &subscribe(4, 7, TOPIC, 0));
    let publish = packet(0x30, &publish(4, TOPIC, b"mine", None));
    let together = [subscribe, publish.clone(), packet(0xC0, &[])].concat();
    socket
        .send(Frame::binary(together))
        .await
        .expect("the socket takes a frame");

    let pong = vec![0xD0, 0x00];
    let mut heard = Vec::new();
    let wanted = 4 + 5 + publish.len() + pong.len();
    while heard.len() < wanted {
        heard.extend(next_data(&mut socket).await);
    }
    assert_eq!(&heard[..9], [0x20, 2, 0, 0, 0x90, 3, 0, 7, 0]);
    let (mut expected, mut rest) = ([publish, pong].concat(), heard[9..].to_vec());
    expected.sort_unstable();
    rest.sort_unstable();
    assert_eq!(rest, expected, "the message and the pong, in either order");

    match connect_async(url).await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 400),
        other => panic!("a handshake without subprotocol: {other:?}"),
    }
}

#[tokio::test]
async fn the_mosquitto_clients_publish_and_subscribe_in_every_version() {
    let adapters = Adapters::start().await;
    let port = adapters.addresses.mqtt.port().to_string();
    let login = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-u",
        "device",
        "-P",
        "s3cret",
    ];
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("m/home/c/{version}/{qos}");
            let about = ["-V", version, "-t", topic.as_str(), "-q", qos];
            let publish = [&login[..], &about, &["-m", version, "-r"]].concat();
            assert!(
                mosquitto("mosquitto_pub", &publish).await.status.success(),
                "{topic}"
            );
            let subscribe = [&login[..], &about, &["-C", "1", "-W", "10"]].concat();
            let heard = mosquitto("mosquitto_sub", &subscribe).await;
            assert_eq!(
                String::from_utf8_lossy(&heard.stdout).trim(),
                version,
                "{topic}"
            );
        }
        let anonymous = ["-p", &port, "-V", version, "-t", "a", "-m", "a"];
        assert!(
            !mosquitto("mosquitto_pub", &anonymous)
                .await
                .status
                .success(),
            "{version}"
        );
    }
}

#[tokio::test]
async fn a_signal_ends_it_well_and_a_taken_port_ends_it_with_its_address() {
    for signal in ["-INT", "-TERM"] {
        let mut adapters = Adapters::start().await;
        let _connected = adapters.mqtt(4, "").await;
        let pid = adapters.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await;
        assert!(sent.expect("kill runs").success());
        assert_eq!(adapters.exit().await.code(), Some(0), "{signal}");
    }

    let adapters = Adapters::start().await;
    let taken = adapters.addresses.ws.to_string();
    let second = command()
        .args(["--http", "127.0.0.1:0", "--ws", &taken])
        .output()
        .await;
    let second = second.expect("it starts");
    assert_eq!(second.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(complaint.contains(&taken), "{complaint}");
}

/// The program under test; killed when dropped.
struct Adapters {
    child: Child,
    addresses: Addresses,
}

#[derive(Deserialize)]
struct Addresses {
    http: SocketAddr,
    ws: SocketAddr,
    mqtt: SocketAddr,
    mqtt_ws: SocketAddr,
}

/// `cargo test` builds it first; `cargo test --test adapters` takes the one that is there.
fn command() -> Command {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let program: PathBuf = profile.join("examples").join("adapters");
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

impl Adapters {
    async fn start() -> Self {
        let anywhere = "127.0.0.1:0";
        let mut child = command()
            .args([
                "--http",
                anywhere,
                "--ws",
                anywhere,
                "--mqtt",
                anywhere,
                "--mqtt-ws",
                anywhere,
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the example `adapters` is built: cargo build --example adapters");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let line = soon(stdout.lines().next_line())
            .await
            .expect("stdout is text");
        let line = line.expect("a line of addresses");
        let addresses = serde_json::from_str(&line).expect("the line is JSON");
        Self { child, addresses }
    }

    async fn exit(&mut self) -> ExitStatus {
        soon(self.child.wait()).await.expect("it can be waited for")
    }

    async fn http(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.addresses.http)
            .await
            .expect("HTTP listens");
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: adapters\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        head += &format!(
            "Connection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the head is read");
        // A refusal may come, and the connection go, before the whole body is read.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        Answer::parse(&answer)
    }

    async fn socket(&self, path: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        let url = format!("ws://{}{path}", self.addresses.ws);
        let mut request = url.into_client_request().expect("a valid URL");
        let credential = HeaderValue::from_static("Client s3cret");
        request.headers_mut().insert("authorization", credential);
        let (socket, _) = connect_async(request)
            .await
            .expect("the handshake succeeds");
        socket
    }

    async fn mqtt(&self, version: u8, client_id: &str) -> Mqtt {
        let connect = connect(version, client_id, Some("s3cret"), None);
        Mqtt::connected(self.addresses.mqtt, version, &connect).await
    }

    async fn mqtt_with_will(&self, version: u8, will: (&str, &str)) -> Mqtt {
        let connect = connect(version, "", Some("s3cret"), Some(will));
        Mqtt::connected(self.addresses.mqtt, version, &connect).await
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.expect("an answer has a head");
        let head = String::from_utf8_lossy(&bytes[..end]);
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.expect("a status"),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// An MQTT client that knows just enough.
struct Mqtt {
    stream: TcpStream,
    version: u8,
}

#[derive(Debug)]
struct Received {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
}

impl Mqtt {
    async fn open(address: SocketAddr, version: u8) -> Self {
        let stream = TcpStream::connect(address).await.expect("MQTT listens");
        Self { stream, version }
    }

    async fn connected(address: SocketAddr, version: u8, connect: &[u8]) -> Self {
        let mut client = Self::open(address, version).await;
        client.send(0x10, connect).await;
        let (kind, body) = client.packet().await.expect("a CONNACK");
        assert_eq!(
            (kind, &body[..2]),
            (0x20, [0, 0].as_slice()),
            "accepted, no session"
        );
        client
    }

    async fn send(&mut self, first_byte: u8, body: &[u8]) {
        self.stream
            .write_all(&packet(first_byte, body))
            .await
            .expect("the broker reads");
    }

    /// The next packet's first byte and body; `None` at the end.
    async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        soon(async {
            let first_byte = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((first_byte, body))
        })
        .await
    }

    /// An answer's kind and the packet id it is for.
    async fn answer(&mut self) -> (u8, u16) {
        let (kind, body) = self.packet().await.expect("an answer");
        (kind, u16::from_be_bytes([body[0], body[1]]))
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.send(0x82, &subscribe(self.version, 1, filter, qos))
            .await;
        let (kind, body) = self.packet().await.expect("a SUBACK");
        assert_eq!((kind, body.last().copied()), (0x90, Some(qos.min(1))));
    }

    /// Publishes, and waits for the acknowledgement if there is to be one.
    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let id = (qos > 0).then_some(5);
        let first_byte = 0x30 | qos << 1 | u8::from(retain);
        self.send(first_byte, &publish(self.version, topic, payload, id))
            .await;
        if qos == 1 {
            assert_eq!(self.answer().await, (0x40, 5));
        }
    }

    /// The next PUBLISH, acknowledged.
    async fn message(&mut self) -> Received {
        let (first_byte, body) = self.packet().await.expect("a PUBLISH");
        assert_eq!(first_byte & 0xF0, 0x30, "{body:?}");
        let (qos, retain) = (first_byte >> 1 & 3, first_byte & 1 == 1);
        let (length, rest) = body.split_at(2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (topic, mut rest) = rest.split_at(length);
        if qos == 1 {
            self.send(0x40, &rest[..2]).await;
            rest = &rest[2..];
        }
        if self.version == 5 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        let topic = String::from_utf8(topic.to_vec()).expect("a topic is UTF-8");
        Received {
            topic,
            payload: rest.to_vec(),
            qos,
            retain,
        }
    }
}

/// CONNECT with a clean session; with a will, also a keep-alive of one second.
fn connect(version: u8, id: &str, password: Option<&str>, will: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = string(if version == 3 { "MQIsdp" } else { "MQTT" });
    let user = if password.is_some() { 0xC0 } else { 0 };
    let flags = 0x02 | user | if will.is_some() { 0x04 } else { 0 };
    body.extend([version, flags, 0, u8::from(will.is_some())]);
    body.extend(no_properties(version));
    // An empty id is new with 3.1.1; 3.1 asks for a name.
    body.extend(string(id));
    if let Some((topic, payload)) = will {
        body.extend([no_properties(version), &string(topic), &string(payload)].concat());
    }
    if let Some(password) = password {
        body.extend([string("device"), string(password)].concat());
    }
    body
}

fn subscribe(version: u8, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    [
        &id.to_be_bytes(),
        no_properties(version),
        &string(filter),
        &[qos],
    ]
    .concat()
}

fn publish(version: u8, topic: &str, payload: &[u8], id: Option<u16>) -> Vec<u8> {
    let id = id.map(u16::to_be_bytes);
    let id = id.as_ref().map_or(&[][..], |id| id);
    [&string(topic), id, no_properties(version), payload].concat()
}

fn no_properties(version: u8) -> &'static [u8] {
    if version == 5 { &[0] } else { &[] }
}

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first_byte];
    let mut length = body.len();
    loop {
        let more = if length > 0x7F { 0x80 } else { 0 };
        packet.push((length & 0x7F) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

async fn next_data(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Vec<u8> {
    loop {
        let frame = soon(socket.next()).await.expect("the socket is open");
        if let Frame::Binary(data) = frame.expect("a frame") {
            return data.to_vec();
        }
    }
}

async fn mosquitto(program: &str, arguments: &[&str]) -> Output {
    let output = soon(Command::new(program).args(arguments).output()).await;
    output.unwrap_or_else(|error| {
        panic!("cannot run {program}: {error}; install the Debian package mosquitto-clients")
    })
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens in time")
}
