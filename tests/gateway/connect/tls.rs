//! TLS to servers: verified always, by the configured authorities and for the right name, whatever
//! is spoken in it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{config, mqtt_client, problem};
use crate::harness::ca::{name, valid_for};
use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, Transport, Version};
use crate::harness::{Answer, Authority, Identity, Lab, PATIENCE, Protocol, Scripted, Secure};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The authority of servers, apart from that of devices.
struct Servers {
    authority: Authority,
    directory: TempDir,
}

impl Servers {
    fn new() -> Self {
        let authority = Authority::new("Servers");
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("servers.crt"), authority.pem()).unwrap();
        Self {
            authority,
            directory,
        }
    }

    fn identity(&self) -> Identity {
        self.authority.server(&["127.0.0.1"])
    }

    /// A gateway that trusts this authority, in front of `server`.
    async fn lab(&self, server: &Secure, lines: &str) -> Lab {
        self.lab_with(server.address, "", lines).await
    }

    /// The same with further lines for the upstream, and for its TLS.
    async fn lab_with(&self, server: SocketAddr, upstream: &str, tls: &str) -> Lab {
        let ca = self.directory.path().join("servers.crt");
        let lines = format!("{upstream}\n[upstreams.raw.tls]\nca = [{ca:?}]\n{tls}");
        config(server, &lines).start().await
    }
}

async fn get(lab: &Lab) -> Answer {
    lab.device().get("/raw/m").await.unwrap()
}

/// Panics unless the server is refused by HTTP and by MQTT, having heard nothing.
async fn assert_refused(lab: &Lab, server: &Secure) {
    let (answer, peer) = join(get(lab), server.accept()).await;
    assert_eq!(answer.status, 502);
    if let Ok(peer) = peer {
        peer.closed().await;
    }
    let mut wire = mqtt_client(lab, Transport::Tls).await;
    let connect = Connect::with_password(Version::V5, SECRET);
    wire.send(&connect.bytes()).await;
    if let Ok(peer) = server.accept().await {
        peer.closed().await;
    }
    wire.ends_with(&Version::V5.refused(3, 0x88)).await;
}

/// Panics unless a request reaches the server.
async fn assert_reached(lab: &Lab, server: &Secure) {
    let answer = async {
        let mut peer = server.accept().await.unwrap();
        assert!(peer.head().await.starts_with("get /raw/m "));
        peer.say(OK).await;
        peer
    };
    let (answer, _peer) = join(get(lab), answer).await;
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn requests_share_an_encrypted_connection() {
    let servers = Servers::new();
    let server = Secure::start(servers.identity()).await;
    let lab = servers.lab(&server, "").await;
    let mut client = lab.device().keep(Protocol::Http1).await.unwrap();
    let answers = async {
        let mut peer = server.accept().await.unwrap();
        for _ in 0..2 {
            assert!(peer.head().await.contains(&format!("client {SECRET}")));
            peer.say(OK).await;
        }
        peer
    };
    let requests = async {
        for _ in 0..2 {
            let answer = client.get("/raw/m", &[]).await.unwrap();
            assert_eq!(answer.body, "ok");
        }
    };
    let (_peer, ()) = join(answers, requests).await;
}

#[tokio::test]
async fn each_protocol_is_offered_by_its_name() {
    let servers = Servers::new();
    let server = Secure::start(servers.identity()).await;
    let server = server.agreeing(&["h2", "mqtt", "http/1.1"]);
    let lab = servers.lab(&server, "").await;

    let device = lab.device();
    let opening = tokio::spawn(async move { device.open_websocket("/raw/ws", &[]).await });
    let mut peer = server.accept().await.unwrap();
    let alpn = peer.stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    let head = peer.head_as_sent().await;
    let (_, key) = head.split_once("sec-websocket-key: ").unwrap();
    let accept = derive_accept_key(key.lines().next().unwrap().as_bytes());
    peer.say(&format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
    .await;
    opening.await.unwrap().unwrap();

    let mut wire = mqtt_client(&lab, Transport::Tls).await;
    let connect = Connect::with_password(Version::V5, SECRET);
    wire.send(&connect.bytes()).await;
    let mut peer = server.accept().await.unwrap();
    let alpn = peer.stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    assert_eq!(alpn.as_deref(), Some(&b"mqtt"[..]));
    assert_eq!(peer.bytes(connect.bytes().len()).await, connect.bytes());
    peer.say("\u{20}\u{3}\0\0\0").await;
    assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
}

#[tokio::test]
async fn a_broker_is_reached_by_a_websocket_inside_tls() {
    let servers = Servers::new();
    let server = Secure::start(servers.identity()).await;
    let lines = "websocket_path = \"/mqtt\"";
    let lab = servers.lab_with(server.address, lines, "").await;
    let mut wire = mqtt_client(&lab, Transport::Tls).await;
    wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
        .await;
    let head = server.accept().await.unwrap().head().await;
    assert!(head.starts_with("get /mqtt http/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\nsec-websocket-protocol: mqtt\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_broker_is_asked_in_a_websocket_inside_tls_whether_it_is_well() {
    let servers = Servers::new();
    let server = Secure::start(servers.identity()).await;
    let server = server.agreeing(&["mqtt", "http/1.1"]);
    let lines = "websocket_path = \"/mqtt\"";
    let check = "[upstreams.raw.health]\ncheck = \"mqtt\"";
    let _lab = servers.lab_with(server.address, lines, check).await;
    let mut peer = server.accept().await.unwrap();
    let alpn = peer.stream.get_ref().1.alpn_protocol();
    assert_eq!(alpn, Some(&b"http/1.1"[..]));
    let head = peer.head().await;
    assert!(head.starts_with("get /mqtt http/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn a_server_that_is_asked_for_a_connection_alone_may_speak_anything_on_it() {
    for protocol in ["mqtt", "http/1.1"] {
        let servers = Servers::new();
        let server = Secure::start(servers.identity()).await;
        let server = server.agreeing(&[protocol]);
        let check = "[upstreams.raw.health]\ncheck = \"tcp\"";
        let _lab = servers.lab_with(server.address, "", check).await;
        let asked = server.accept().await;
        asked.unwrap_or_else(|error| panic!("{protocol}: {error}"));
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let servers = Servers::new();
    // One that devices are trusted by is no server's for that.
    let server = Secure::start(Servers::new().identity()).await;
    let lab = servers.lab(&server, "").await;
    assert_refused(&lab, &server).await;
    let server = Secure::start(lab.authority.server(&["127.0.0.1"])).await;
    let lab = servers.lab(&server, "").await;
    assert_refused(&lab, &server).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let servers = Servers::new();
    let server = Secure::start(servers.authority.server(&["localhost", "127.0.0.2"])).await;
    let lab = servers.lab(&server, "").await;
    assert_refused(&lab, &server).await;
}

#[tokio::test]
async fn the_name_can_be_another_than_the_addresss() {
    let servers = Servers::new();
    let server = Secure::start(servers.authority.server(&["adapter.internal"])).await;
    let lab = servers
        .lab(&server, "server_name = \"adapter.internal\"")
        .await;
    assert_reached(&lab, &server).await;
    let server = Secure::start(servers.identity()).await;
    let lab = servers
        .lab(&server, "server_name = \"adapter.internal\"")
        .await;
    assert_refused(&lab, &server).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let servers = Servers::new();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    valid_for(&mut params, Duration::from_secs(3600));
    let server = Secure::start(servers.authority.issue(params)).await;
    let lab = servers.lab(&server, "").await;
    assert_reached(&lab, &server).await;
    lab.clock.advance(Duration::from_secs(2 * 3600));
    // The pool's connection is from before, so a WebSocket tries a new one. No session resumed
    // saves it.
    let device = lab.device();
    let opening = tokio::spawn(async move { device.open_websocket("/raw/ws", &[]).await });
    assert!(server.accept().await.is_err());
    assert!(opening.await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_certificate_is_not_a_servers() {
    let servers = Servers::new();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let server = Secure::start(servers.authority.issue(params)).await;
    let lab = servers.lab(&server, "").await;
    assert_refused(&lab, &server).await;
}

#[tokio::test]
async fn a_server_without_tls_hears_nothing_of_the_request() {
    let servers = Servers::new();
    let plain = Scripted::start().await;
    let lab = servers.lab_with(plain.address, "", "").await;
    let heard = async {
        let mut peer = plain.accept().await;
        // A ClientHello.
        assert_eq!(peer.bytes(3).await[..2], [22, 3]);
        peer.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    };
    let (answer, ()) = join(get(&lab), heard).await;
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn what_stands_before_a_servers_handshake_is_no_answer() {
    let servers = Servers::new();
    let server = Secure::start(servers.identity()).await;
    let lab = servers.lab(&server, "").await;
    // Somebody on the way, who can write but not encrypt.
    let injected = async {
        let mut stream = server.accept_tcp().await;
        let forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
        stream.write_all(forged).await.unwrap();
        server.shake_hands(stream).await.err()
    };
    let (answer, error) = join(get(&lab), injected).await;
    assert_eq!(answer.status, 502);
    assert!(error.is_some(), "the handshake went on");
    assert_reached(&lab, &server).await;
}

#[tokio::test]
async fn the_gateway_shows_its_certificate_to_servers_that_ask() {
    let servers = Servers::new();
    let gateways = Authority::new("Gateways");
    let server = Secure::demanding(servers.identity(), &gateways).await;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = name(&[(rcgen::DnType::CommonName, "gateway")]);
    let identity = gateways.issue(params);
    let file = |name| servers.directory.path().join(name);
    let (certificate, key) = (file("gateway.crt"), file("gateway.key"));
    std::fs::write(&certificate, &identity.chain_pem).unwrap();
    std::fs::write(&key, &identity.key_pem).unwrap();
    let lines = format!("certificate = {certificate:?}\nkey = {key:?}");

    let lab = servers.lab(&server, &lines).await;
    assert_reached(&lab, &server).await;
    let mut wire = mqtt_client(&lab, Transport::WebSocket).await;
    let connect = Connect::with_password(Version::V311, SECRET);
    wire.send(&connect.bytes()).await;
    let mut peer = server.accept().await.unwrap();
    let shown = peer.stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(shown[0], identity.chain[0]);
    assert_eq!(peer.bytes(connect.bytes().len()).await, connect.bytes());

    let lab = servers.lab(&server, "").await;
    let (answer, peer) = join(get(&lab), server.accept()).await;
    assert_eq!((answer.status.as_u16(), peer.is_err()), (502, true));
}

#[tokio::test]
async fn the_version_has_a_floor() {
    let servers = Servers::new();
    let old = [&rustls::version::TLS12];
    let server = Secure::speaking(&old, servers.identity(), None).await;
    let lab = servers.lab(&server, "").await;
    assert_reached(&lab, &server).await;
    let lab = servers.lab(&server, "min_version = \"1.3\"").await;
    assert_refused(&lab, &server).await;
}

#[tokio::test]
async fn a_reload_puts_new_authorities_in_force() {
    let (former, latter) = (Servers::new(), Servers::new());
    let server = Secure::start(latter.identity()).await;
    let lines = "[upstreams.raw.tls]\nca = [\"servers.crt\"]";
    let mut lab = Lab::x509().await;
    lab.write("servers.crt", former.authority.pem());
    lab.config = config(server.address, lines);
    // Listeners stay as they are.
    let tables = lab.config.tables.split("[routes.raw_mqtt]").next().unwrap();
    lab.config.tables = tables.to_owned();
    lab.reload().unwrap();
    let (answer, _) = join(get(&lab), server.accept()).await;
    assert_eq!(answer.status, 502);
    lab.write("servers.crt", latter.authority.pem());
    lab.reload().unwrap();
    assert_reached(&lab, &server).await;

    lab.write("servers.crt", "nothing");
    let problem = lab.reload().unwrap_err();
    assert!(
        problem.contains("upstreams.raw.tls.ca: ") && problem.contains("servers.crt"),
        "{problem}"
    );
    // What was in force stays so.
    let device = lab.device();
    let opening = tokio::spawn(async move { device.open_websocket("/raw/ws", &[]).await });
    let head = server.accept().await.unwrap().head().await;
    assert!(head.starts_with("get /raw/ws "), "{head}");
    opening.abort();
}

#[tokio::test]
async fn the_proxy_protocol_stands_before_the_handshake() {
    let servers = Servers::new();
    let server = Secure::start(servers.identity()).await;
    let lines = "proxy_protocol = \"v1\"";
    let lab = servers.lab_with(server.address, lines, "").await;
    let answer = async {
        let mut stream = server.accept_tcp().await;
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n") {
            let byte = tokio::io::AsyncReadExt::read_u8(&mut stream);
            header.push(tokio::time::timeout(PATIENCE, byte).await.unwrap().unwrap());
        }
        assert!(header.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "));
        let mut peer = server.shake_hands(stream).await.unwrap();
        assert!(peer.head().await.starts_with("get /raw/m "));
        peer.say(OK).await;
        peer
    };
    let (answer, _peer) = join(get(&lab), answer).await;
    assert_eq!(answer.body, "ok");
}

#[tokio::test]
async fn half_a_configuration_is_refused_by_its_key() {
    for (lines, key) in [
        ("", "ca"),
        ("ca = []", "ca"),
        ("server_name = \"a b\"\nca = [\"x\"]", "server_name"),
        ("ca = [\"x\"]\ncertificate = \"c\"", "key"),
        ("ca = [\"x\"]\nkey = \"k\"", "certificate"),
        ("ca = [\"x\"]\nmin_version = \"1.1\"", "min_version"),
        ("ca = [\"x\"]\nverify = false", "verify"),
    ] {
        let problem = problem(&format!("[upstreams.raw.tls]\n{lines}")).await;
        let key = format!("upstreams.raw.tls.{key}: ");
        assert!(problem.contains(&key), "{lines}: {problem}");
    }
}
