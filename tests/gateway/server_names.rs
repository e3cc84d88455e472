//! Which TLS policy a connection meets, chosen by the server name (SNI) of its ClientHello, and
//! that no request gets around that choice by its Host (S6 to S10).

use std::net::SocketAddr;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ALL_VERSIONS, AlertDescription, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::lab::{Config, SECRET, VERSIONS};
use crate::harness::{Client, Identity, Lab, Protocol, Session};

const PATIENCE: Duration = Duration::from_secs(10);

/// Policies by name, each with a certificate of its own; only the default one and `open` let
/// anybody in without a client certificate.
const POLICIES: &str = "\
    [tls.policies.exact]\n\
    server_names = [\"api.fleet.test\"]\n\
    certificate = \"exact.crt\"\nkey = \"exact.key\"\nclient_auth = \"required\"\n\
    [tls.policies.wild]\n\
    server_names = [\"*.fleet.test\"]\n\
    certificate = \"wild.crt\"\nkey = \"wild.key\"\nclient_auth = \"required\"\n\
    [tls.policies.open]\n\
    server_names = [\"open.test\", \"also.open.test\"]\n\
    certificate = \"open.crt\"\nkey = \"open.key\"\nclient_auth = \"off\"\n";

/// A gateway with several certificates.
struct House {
    lab: Lab,
    exact: CertificateDer<'static>,
    wild: CertificateDer<'static>,
    open: CertificateDer<'static>,
    default: CertificateDer<'static>,
}

/// `tls` goes into `[tls]`, whose own policy is the default one.
async fn house(tls: &str) -> House {
    let mut lab = Lab::x509().await;
    // The wildcard's certificate is good for the exact name too: which one is shown tells which
    // policy was chosen.
    let everywhere = ["api.fleet.test", "*.fleet.test", "localhost", "127.0.0.1"];
    let exact = lab.authority.server(&everywhere);
    let wild = lab.authority.server(&everywhere);
    let open = lab
        .authority
        .server(&["open.test", "also.open.test", "127.0.0.1"]);
    let default = lab.authority.server(&[
        "localhost",
        "127.0.0.1",
        "elsewhere.test",
        "fleet.test",
        "a.b.fleet.test",
    ]);
    for (name, identity) in [
        ("exact", &exact),
        ("wild", &wild),
        ("open", &open),
        ("server", &default),
    ] {
        lab.write_identity(name, identity);
    }
    lab.config = Config::x509()
        .tls("client_auth = \"optional\"")
        .tls(tls)
        .tables(POLICIES);
    lab.reload().unwrap();
    House {
        lab,
        exact: leaf(exact),
        wild: leaf(wild),
        open: leaf(open),
        default: leaf(default),
    }
}

fn leaf(mut identity: Identity) -> CertificateDer<'static> {
    identity.chain.remove(0)
}

/// The certificate that the gateway shows to this client.
async fn shown_to(client: &Client) -> CertificateDer<'static> {
    let stream = client.connect(&["http/1.1"]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).await.unwrap().status.as_u16()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_server_name() {
    let house = house("").await;
    for (name, expected) in [
        ("api.fleet.test", &house.exact),
        ("API.Fleet.TEST", &house.exact),
        ("other.fleet.test", &house.wild),
        ("Other.FLEET.test", &house.wild),
        ("open.test", &house.open),
        ("also.open.test", &house.open),
        ("localhost", &house.default),
    ] {
        let client = house.lab.device().asking_for(name);
        assert_eq!(shown_to(&client).await, *expected, "{name}");
    }
}

#[tokio::test]
async fn a_wildcard_stands_for_one_label() {
    let house = house("").await;
    for name in ["fleet.test", "a.b.fleet.test"] {
        let client = house.lab.device().asking_for(name);
        assert_eq!(shown_to(&client).await, house.default, "{name}");
    }
}

#[tokio::test]
async fn a_name_of_two_policies_stops_the_start() {
    // Policies are read in the order of their names.
    let last = |names: &str| {
        let policy = format!("[tls.policies.yard]\nserver_names = {names}\n");
        Config::x509().tables(POLICIES).tables(&policy)
    };
    let mut lab = Lab::x509().await;
    for (names, taken) in [
        (
            "[\"new.test\", \"Also.Open.test\"]",
            "\"also.open.test\" is of policy \"open\" already",
        ),
        (
            "[\"*.fleet.test\"]",
            "\"*.fleet.test\" is of policy \"wild\" already",
        ),
    ] {
        lab.config = last(names);
        let problem = lab.settings().map(drop).unwrap_err().to_string();
        let expected = format!("tls.policies.yard.server_names: {taken}");
        assert!(problem.contains(&expected), "{problem}");
    }
    // An exact name goes before a wildcard, whosever it is.
    lab.config = last("[\"other.fleet.test\", \"*.open.test\"]");
    lab.settings().unwrap();
}

#[tokio::test]
async fn an_unknown_name_meets_the_default_policy() {
    let house = house("").await;
    let client = house.lab.anonymous().asking_for("elsewhere.test");
    assert_eq!(shown_to(&client).await, house.default);
    assert_eq!(status(&client, "/http/m").await, 401);
    assert_eq!(status(&client, "/public/m").await, 200);
}

#[tokio::test]
async fn each_policy_makes_its_own_demand_for_certificates() {
    let house = house("").await;
    for name in ["api.fleet.test", "other.fleet.test", "OTHER.fleet.test"] {
        let anonymous = house.lab.anonymous().asking_for(name);
        let alert = anonymous.alert().await;
        assert_eq!(alert, AlertDescription::CertificateRequired, "{name}");
    }
    house.lab.origin.assert_untouched();
    for name in ["api.fleet.test", "other.fleet.test", "OTHER.fleet.test"] {
        let device = house.lab.device().asking_for(name);
        assert_eq!(status(&device, "/http/m").await, 200, "{name}");
    }
    let anonymous = house.lab.anonymous().asking_for("open.test");
    assert_eq!(status(&anonymous, "/public/m").await, 200);
    // Certificates are not asked for there, so a device's counts for nothing.
    let device = house.lab.device().asking_for("open.test");
    assert_eq!(status(&device, "/http/m").await, 401);
}

#[tokio::test]
async fn a_host_in_any_spelling_belongs_to_the_policy_of_its_name() {
    let house = house("").await;
    for (name, host) in [
        ("api.fleet.test", "API.fleet.test"),
        ("api.fleet.test", "api.fleet.test."),
        ("api.fleet.test", "Api.Fleet.Test.:8443"),
        ("api.fleet.test", "api.fleet.test:443"),
        ("other.fleet.test", "another.fleet.test"),
        ("other.fleet.test", "ANOTHER.fleet.test."),
    ] {
        let device = house.lab.device().asking_for(name).with_host(host);
        assert_eq!(status(&device, "/http/m").await, 200, "{name} {host}");
    }
}

/// Pairs of a server name and a host of another policy.
const MISDIRECTED: [(&str, &str); 12] = [
    ("open.test", "api.fleet.test"),
    ("open.test", "API.FLEET.TEST"),
    ("open.test", "api.fleet.test."),
    ("open.test", "api.fleet.test:8443"),
    ("open.test", "other.fleet.test"),
    ("open.test", "Other.Fleet.Test."),
    ("open.test", "localhost"),
    ("open.test", "elsewhere.test"),
    ("localhost", "api.fleet.test"),
    ("localhost", "other.fleet.test"),
    ("localhost", "open.test"),
    ("elsewhere.test", "api.fleet.test"),
];

#[tokio::test]
async fn a_host_of_another_policy_is_misdirected_by_every_protocol() {
    let house = house("").await;
    for (name, host) in MISDIRECTED {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for path in ["/http/m", "/public/m", "/nowhere"] {
                let client = house.lab.anonymous().asking_for(name).with_host(host);
                let answer = client.send(protocol, path, &[]).await.unwrap();
                assert_eq!(answer.status, 421, "{name} {host} {protocol:?} {path}");
                assert_eq!(answer.json()["code"], "misdirected_request");
            }
        }
        let client = house.lab.anonymous().asking_for(name).with_host(host);
        let answer = client.send(Protocol::WebSocket, "/ws/m", &[]).await;
        assert_eq!(answer.unwrap().status, 421, "{name} {host}");
    }
    house.lab.origin.assert_untouched();
}

#[tokio::test]
async fn between_two_policies_that_demand_certificates_a_host_is_misdirected_too() {
    let house = house("").await;
    for (name, host) in [
        ("api.fleet.test", "other.fleet.test"),
        ("other.fleet.test", "api.fleet.test"),
        ("api.fleet.test", "open.test"),
        ("api.fleet.test", "localhost"),
    ] {
        let device = house.lab.device().asking_for(name).with_host(host);
        assert_eq!(status(&device, "/http/m").await, 421, "{name} {host}");
    }
    house.lab.origin.assert_untouched();
}

#[tokio::test]
async fn the_second_request_of_a_connection_is_checked_like_the_first() {
    let house = house("").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (name, host) in MISDIRECTED {
            let client = house.lab.anonymous().asking_for(name);
            let mut session = Session::open(&client, protocol).await.unwrap();
            let before = house.lab.origin.requests().len();
            assert_eq!(session.get("/public/m").await.unwrap().status, 200);
            for _ in 0..2 {
                let answer = session.get_from(host, "/public/m").await.unwrap();
                assert_eq!(answer.status, 421, "{name} {host} {protocol:?}");
            }
            assert_eq!(session.get("/public/m").await.unwrap().status, 200);
            assert_eq!(house.lab.origin.requests().len(), before + 2);
        }
    }
}

#[tokio::test]
async fn a_target_in_absolute_form_is_checked_as_its_host_is() {
    let house = house("").await;
    let client = house.lab.anonymous().asking_for("open.test");
    for (target, host, expected) in [
        ("http://api.fleet.test/public/m", "api.fleet.test", "421"),
        ("http://api.fleet.test/public/m", "open.test", "400"),
        ("http://open.test/public/m", "api.fleet.test", "400"),
        ("http://open.test/public/m", "open.test", "200"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = client.raw(head.as_bytes()).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        assert_eq!(status, expected, "{target} {host}");
    }
}

#[tokio::test]
async fn with_one_policy_any_host_is_answered() {
    let lab = Lab::x509().await;
    for host in ["localhost", "elsewhere.test", "127.0.0.1", "[::1]:8443"] {
        let device = lab.device().with_host(host);
        assert_eq!(status(&device, "/http/m").await, 200, "{host}");
    }
}

#[tokio::test]
async fn without_a_server_name_the_default_policy_is_met() {
    let house = house("").await;
    let client = house.lab.anonymous().without_server_name();
    assert_eq!(shown_to(&client).await, house.default);
    assert_eq!(status(&client, "/public/m").await, 200);
    for host in ["api.fleet.test", "other.fleet.test", "open.test"] {
        let client = client.clone().with_host(host);
        assert_eq!(status(&client, "/public/m").await, 421, "{host}");
    }
    assert_eq!(house.lab.origin.requests().len(), 1);
}

#[tokio::test]
async fn without_a_server_name_the_named_policy_is_met() {
    let house = house("without_server_name = \"exact\"").await;
    let anonymous = house.lab.anonymous().without_server_name();
    let alert = anonymous.alert().await;
    assert_eq!(alert, AlertDescription::CertificateRequired);
    house.lab.origin.assert_untouched();
    let device = house.lab.device().without_server_name();
    assert_eq!(shown_to(&device).await, house.exact);
    let its_host = device.clone().with_host("api.fleet.test");
    assert_eq!(status(&its_host, "/http/m").await, 200);
    assert_eq!(status(&device.with_host("localhost"), "/http/m").await, 421);
}

#[tokio::test]
async fn without_a_server_name_a_connection_can_be_refused() {
    for version in VERSIONS {
        let house = house("min_version = \"1.2\"\nwithout_server_name = \"refuse\"").await;
        let identity = house.lab.authority.device(SECRET);
        let device = house.lab.client_speaking(version, Some(identity));
        let unnamed = device.clone().without_server_name();
        let alert = unnamed.alert().await;
        // RFC 8446 §6.2: missing_extension.
        assert_eq!(u8::from(alert), 109, "{version:?}");
        house.lab.origin.assert_untouched();
        assert_eq!(status(&device, "/http/m").await, 200, "{version:?}");
    }
}

#[tokio::test]
async fn an_address_as_host_belongs_to_the_policy_for_no_server_name() {
    for (tls, named, unnamed) in [
        ("", "localhost", 200),
        ("without_server_name = \"exact\"", "api.fleet.test", 200),
    ] {
        let house = house(tls).await;
        for host in ["127.0.0.1", "127.0.0.1:8443", "[::1]", "[::1]:8443"] {
            let device = house.lab.device().with_host(host);
            let without = device.clone().without_server_name();
            assert_eq!(status(&without, "/http/m").await, unnamed, "{tls} {host}");
            let with = device.clone().asking_for(named).with_host(host);
            assert_eq!(status(&with, "/http/m").await, 200, "{tls} {host}");
            let other = device.asking_for("other.fleet.test").with_host(host);
            assert_eq!(status(&other, "/http/m").await, 421, "{tls} {host}");
        }
    }
}

#[tokio::test]
async fn an_address_as_host_is_nobodys_where_no_server_name_is_refused() {
    let house = house("without_server_name = \"refuse\"").await;
    for name in ["localhost", "api.fleet.test"] {
        let device = house.lab.device().asking_for(name).with_host("127.0.0.1");
        assert_eq!(status(&device, "/http/m").await, 421, "{name}");
    }
    house.lab.origin.assert_untouched();
}

/// Forwards to `gateway` byte by byte, each in a write of its own.
async fn drip(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(gateway).await.unwrap();
            server.set_nodelay(true).unwrap();
            tokio::spawn(relay(client, server));
        }
    });
    address
}

async fn relay(client: TcpStream, server: TcpStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        while let Ok(byte) = from_client.read_u8().await {
            to_server.write_u8(byte).await?;
            // Lets the gateway read what there is so far.
            tokio::task::yield_now().await;
        }
        std::io::Result::Ok(())
    };
    // Ends when either side does, which is for the test to look at.
    let _ = tokio::join!(up, tokio::io::copy(&mut from_server, &mut to_client));
}

#[tokio::test]
async fn a_client_hello_in_single_bytes_meets_its_policy() {
    let house = house("").await;
    let through = drip(house.lab.address()).await;
    for (name, expected) in [
        ("api.fleet.test", &house.exact),
        ("other.fleet.test", &house.wild),
        ("open.test", &house.open),
    ] {
        let mut device = house.lab.device().asking_for(name);
        device.address = through;
        assert_eq!(shown_to(&device).await, *expected, "{name}");
    }
    let mut anonymous = house.lab.anonymous().asking_for("api.fleet.test");
    anonymous.address = through;
    let alert = anonymous.alert().await;
    assert_eq!(alert, AlertDescription::CertificateRequired);
    house.lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_client_hello_in_many_records_meets_its_policy() {
    let house = house("").await;
    for size in [32, 64, 300] {
        for (name, expected) in [
            ("api.fleet.test", &house.exact),
            ("other.fleet.test", &house.wild),
            ("open.test", &house.open),
        ] {
            let mut device = house.lab.device().asking_for(name);
            device.tls().max_fragment_size = Some(size);
            assert_eq!(shown_to(&device).await, *expected, "{name} {size}");
        }
        let mut anonymous = house.lab.anonymous().asking_for("api.fleet.test");
        anonymous.tls().max_fragment_size = Some(size);
        let alert = anonymous.alert().await;
        assert_eq!(alert, AlertDescription::CertificateRequired, "{size}");
    }
    house.lab.origin.assert_untouched();
}

#[tokio::test]
async fn the_protocol_is_agreed_on_by_alpn() {
    let lab = Lab::x509().await;
    let device = lab.device();
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["spdy/3", "http/1.1"], Some(b"http/1.1")),
        (&["http/1.0"], Some(b"http/1.0")),
        (&[], None),
    ] {
        let stream = device.connect(offered).await.unwrap();
        let mut session = Session::speak(&device, stream).await.unwrap();
        assert_eq!(session.alpn.as_deref(), agreed, "{offered:?}");
        let answer = session.get("/http/m").await.unwrap();
        assert_eq!(answer.status, 200, "{offered:?}");
    }
}

#[tokio::test]
async fn a_client_that_offers_only_other_protocols_is_refused() {
    let lab = Lab::x509().await;
    for offered in [&["h3"][..], &["mqtt"], &["spdy/3", "http/0.9"]] {
        let error = lab.device().connect(offered).await.unwrap_err();
        let error = error.get_ref().unwrap().downcast_ref();
        let expected = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(error, Some(&expected), "{offered:?}");
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_it_is_asked_for() {
    let [tls13, tls12] = VERSIONS;
    let lab = Lab::x509().await;
    let identity = lab.authority.device(SECRET);
    let old = lab.client_speaking(tls12, Some(identity.clone()));
    assert_eq!(old.alert().await, AlertDescription::ProtocolVersion);
    lab.origin.assert_untouched();
    let new = lab.client_speaking(tls13, Some(identity));
    assert_eq!(status(&new, "/http/m").await, 200);

    let lenient = Config::x509().tls("min_version = \"1.2\"").start().await;
    let identity = lenient.authority.device(SECRET);
    let old = lenient.client_speaking(tls12, Some(identity.clone()));
    assert_eq!(status(&old, "/http/m").await, 200);
    let either = lenient.client(Some(identity));
    let session = Session::open(&either, Protocol::Http1).await.unwrap();
    assert_eq!(session.version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn a_policy_can_be_stricter_about_versions_than_the_default() {
    let [_, tls12] = VERSIONS;
    let mut lab = Config::x509().tls("min_version = \"1.2\"").start().await;
    let server = lab.authority.server(&["localhost", "modern.test"]);
    lab.write_identity("server", &server);
    lab.config = lab
        .config
        .clone()
        .tables("[tls.policies.modern]\nserver_names = [\"modern.test\"]\nmin_version = \"1.3\"");
    lab.reload().unwrap();
    let old = lab.client_speaking(tls12, Some(lab.authority.device(SECRET)));
    let alert = old.clone().asking_for("modern.test").alert().await;
    assert_eq!(alert, AlertDescription::ProtocolVersion);
    lab.origin.assert_untouched();
    assert_eq!(status(&old, "/http/m").await, 200);
}

#[tokio::test]
async fn a_post_quantum_key_exchange_is_agreed_on_where_the_client_offers_it() {
    let lab = Lab::x509().await;
    let session = Session::open(&lab.device(), Protocol::Http1).await.unwrap();
    assert_eq!(session.group, Some(NamedGroup::X25519MLKEM768));

    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let identity = Some(lab.authority.device(SECRET));
    let authority = lab.authority.der();
    let classical =
        Client::with_provider(lab.address(), authority, identity, ALL_VERSIONS, provider);
    let mut session = Session::open(&classical, Protocol::Http1).await.unwrap();
    assert_eq!(session.group, Some(NamedGroup::X25519));
    assert_eq!(session.get("/http/m").await.unwrap().status, 200);
}

/// Waits until the gateway has closed `stream`, however it does that.
async fn assert_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest));
    // A reset is an end too.
    let _ = closed.await.expect("the gateway closes the connection");
}

#[tokio::test]
async fn a_connection_whose_handshake_takes_too_long_is_closed() {
    let lab = Config::x509()
        .timeouts("handshake = \"200ms\"")
        .start()
        .await;
    let silent = TcpStream::connect(lab.address()).await.unwrap();
    assert_closed(silent).await;
    let mut stalled = TcpStream::connect(lab.address()).await.unwrap();
    // The beginning of a record that announces 512 bytes.
    stalled.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_closed(stalled).await;
    lab.origin.assert_untouched();
    let both_counted = async {
        // A handshake is counted after its socket is closed.
        while !lab
            .admin("/metrics")
            .await
            .1
            .contains("result=\"timeout\"} 2")
        {}
    };
    let counted = tokio::time::timeout(PATIENCE, both_counted).await;
    counted.expect("both are counted");
}

#[tokio::test]
async fn a_reload_changes_how_long_a_handshake_may_take() {
    let mut lab = Config::x509().timeouts("handshake = \"1h\"").start().await;
    lab.config = Config::x509().timeouts("handshake = \"200ms\"");
    lab.reload().unwrap();
    assert_closed(TcpStream::connect(lab.address()).await.unwrap()).await;
    assert_eq!(status(&lab.device(), "/http/m").await, 200);
}

#[tokio::test]
async fn a_connection_outlives_the_handshakes_deadline_once_it_is_open() {
    let lab = Config::x509()
        .timeouts("handshake = \"200ms\"")
        .start()
        .await;
    let mut session = Session::open(&lab.device(), Protocol::Http1).await.unwrap();
    // Accepted at the same time and closed at the deadline: by then it has passed for both.
    assert_closed(TcpStream::connect(lab.address()).await.unwrap()).await;
    assert_eq!(session.get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn bytes_that_are_no_handshake_are_refused() {
    let lab = Lab::x509().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0; 64],
        &[22, 3, 1, 0, 4, 1, 255, 255, 255],
        &[0xff; 1024],
    ] {
        let mut stream = TcpStream::connect(lab.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_closed(stream).await;
    }
    lab.origin.assert_untouched();
    assert_eq!(status(&lab.device(), "/http/m").await, 200);
}
