//! Resumed sessions: rustls runs no verifier on them, so what a device was when it got its ticket
//! must still hold when it comes back (S1 to S5, W19).

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, NamedGroup, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::ca::{device, valid_for};
use crate::harness::lab::{Config, SECRET, VERSIONS};
use crate::harness::openssl::fleet;
use crate::harness::{Authority, Client, Identity, Lab, Protocol, Session};

const OTHER: &str = "00000000-0000-4000-8000-000000000000";
const HOUR: Duration = Duration::from_secs(3600);

fn both_versions() -> Config {
    Config::x509().tls("min_version = \"1.2\"")
}

/// A session store that keeps one drawer for all servers, as an attacker's would: any ticket is
/// tried anywhere.
#[derive(Debug)]
struct OneDrawer(ClientSessionMemoryCache);

impl OneDrawer {
    fn resumption() -> Resumption {
        Resumption::store(Arc::new(Self(ClientSessionMemoryCache::new(64))))
    }
}

fn anywhere() -> ServerName<'static> {
    ServerName::try_from("anywhere").unwrap()
}

impl ClientSessionStore for OneDrawer {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(anywhere(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&anywhere())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(anywhere(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&anywhere())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&anywhere());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(anywhere(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&anywhere())
    }
}

/// A client that keeps its tickets.
fn keeper(
    lab: &Lab,
    version: &'static SupportedProtocolVersion,
    identity: Option<Identity>,
) -> Client {
    let mut client = lab.client_speaking(version, identity);
    client.tls().resumption = OneDrawer::resumption();
    client
}

/// Opens a session, makes a request, and so receives a ticket.
async fn visit(client: &Client) -> HandshakeKind {
    let mut session = Session::open(client, Protocol::Http1).await.unwrap();
    assert_eq!(session.get("/http/m").await.unwrap().status, 200);
    session.kind
}

/// The gateway refuses although the client resumes what was a good session.
async fn assert_refused(lab: &Lab, client: &Client) {
    let before = lab.origin.requests().len();
    client.refusal().await;
    assert_eq!(lab.origin.requests().len(), before);
}

fn mortal(authority: &Authority, lifetime: Duration) -> Identity {
    let mut params = device(SECRET);
    valid_for(&mut params, lifetime);
    authority.issue(params)
}

#[tokio::test]
async fn a_session_is_resumed_and_keeps_its_identity() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        assert_eq!(visit(&client).await, HandshakeKind::Full, "{version:?}");
        for _ in 0..3 {
            assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
            let expected = format!("Client {SECRET}");
            assert_eq!(lab.origin.last_authorization(), expected.as_bytes());
        }
    }
    let (_, metrics) = lab.admin("/metrics").await;
    assert!(metrics.contains("result=\"resumed\""), "{metrics}");
}

#[tokio::test]
async fn a_session_is_resumed_by_http2_too() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut session = Session::open(&client, Protocol::Http2).await.unwrap();
            assert_eq!(session.get("/http/m").await.unwrap().status, 200);
            assert_eq!(session.kind, kind, "{version:?}");
            let expected = format!("Client {SECRET}");
            assert_eq!(lab.origin.last_authorization(), expected.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_resumed_session_is_judged_like_any_other() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        visit(&client).await;
        let fields = [("authorization", &*format!("Client {OTHER}"))];
        let answer = client.send(Protocol::Http1, "/http/m", &fields).await;
        assert_eq!(answer.unwrap().status, 403, "{version:?}");
    }
}

#[tokio::test]
async fn a_ticket_dies_with_the_trust_that_it_was_issued_under() {
    for version in VERSIONS {
        let lab = both_versions().start().await;
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        visit(&client).await;
        assert_eq!(visit(&client).await, HandshakeKind::Resumed);
        let second = Authority::new("Fleet CA");
        lab.write("certs/ca.crt", second.pem());
        lab.reload().unwrap();
        // Twice: the first refusal may have taken the ticket, and it must not bring a new one.
        assert_refused(&lab, &client).await;
        assert_refused(&lab, &client).await;
        let trusted = keeper(&lab, version, Some(second.device(SECRET)));
        assert_eq!(visit(&trusted).await, HandshakeKind::Full);
    }
}

#[tokio::test]
async fn after_a_reload_that_changes_nothing_a_full_handshake_succeeds() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        visit(&client).await;
        assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
        lab.reload().unwrap();
        assert_eq!(visit(&client).await, HandshakeKind::Full, "{version:?}");
        assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_reload_that_fails_leaves_tickets_as_they_were() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        lab.write("certs/ca.crt", lab.authority.pem());
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        visit(&client).await;
        lab.write("certs/ca.crt", "");
        lab.reload().unwrap_err();
        assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_ticket_does_not_outlive_the_certificate() {
    for version in VERSIONS {
        let lab = both_versions().start().await;
        let client = keeper(&lab, version, Some(mortal(&lab.authority, HOUR)));
        visit(&client).await;
        lab.clock.advance(HOUR / 2);
        assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
        lab.clock.advance(HOUR);
        assert_refused(&lab, &client).await;
        assert_refused(&lab, &client).await;
        assert_eq!(lab.origin.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_device_refused_at_its_return_reads_an_orderly_end() {
    for version in VERSIONS {
        let lab = both_versions().start().await;
        let client = keeper(&lab, version, Some(mortal(&lab.authority, HOUR)));
        visit(&client).await;
        lab.clock.advance(2 * HOUR);
        let mut stream = client.connect(&["http/1.1"]).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
        let request = b"GET /http/m HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        // The end of TLS, close_notify, and neither a bare end of TCP nor a reset.
        let mut answer = Vec::new();
        let length = stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(length, 0, "{version:?}");
    }
}

#[tokio::test]
async fn a_resumed_connection_ends_its_rights_with_the_certificate() {
    for version in VERSIONS {
        let lab = both_versions().start().await;
        let client = keeper(&lab, version, Some(mortal(&lab.authority, HOUR)));
        visit(&client).await;
        let mut session = Session::open(&client, Protocol::Http1).await.unwrap();
        assert_eq!(session.kind, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(session.get("/http/m").await.unwrap().status, 200);
        lab.clock.advance(2 * HOUR);
        assert_eq!(session.get("/http/m").await.unwrap().status, 403);
    }
}

#[tokio::test]
async fn a_version_1_device_does_not_resume_once_legacy_certificates_are_off() {
    for version in VERSIONS {
        let mut lab = both_versions()
            .tls("legacy_certificates = true")
            .start()
            .await;
        lab.pass_a_minute();
        lab.write("certs/ca.crt", &fleet().ca_pem);
        lab.reload().unwrap();
        let client = keeper(&lab, version, Some(fleet().rsa_2048.clone()));
        visit(&client).await;
        assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
        lab.config = both_versions();
        lab.reload().unwrap();
        assert_refused(&lab, &client).await;
        assert_refused(&lab, &client).await;
    }
}

/// Two policies on one listener, `open.test` without certificates and `closed.test` with.
async fn open_and_closed() -> Lab {
    let mut lab = both_versions().start().await;
    let names = ["localhost", "open.test", "closed.test"];
    lab.write_identity("server", &lab.authority.server(&names));
    lab.config = both_versions().tables(
        "[tls.policies.open]\nserver_names = [\"open.test\"]\nclient_auth = \"off\"\n\
         [tls.policies.closed]\nserver_names = [\"closed.test\"]\nclient_auth = \"required\"\n\
         [tls.policies.lax]\nserver_names = [\"lax.test\"]\nclient_auth = \"optional\"",
    );
    lab.reload().unwrap();
    lab
}

#[tokio::test]
async fn a_ticket_of_a_policy_without_certificates_opens_no_other_policy() {
    for version in VERSIONS {
        let lab = open_and_closed().await;
        let client = keeper(&lab, version, None);
        let open = client.clone().asking_for("open.test");
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut session = Session::open(&open, Protocol::Http1).await.unwrap();
            assert_eq!(session.get("/public/m").await.unwrap().status, 200);
            assert_eq!(session.kind, kind, "{version:?}");
        }
        let closed = client.asking_for("closed.test");
        assert_refused(&lab, &closed).await;
    }
}

#[tokio::test]
async fn a_ticket_of_one_policy_is_a_full_handshake_under_another() {
    for version in VERSIONS {
        let lab = open_and_closed().await;
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        let default = client.clone().asking_for("localhost");
        visit(&default).await;
        assert_eq!(visit(&default).await, HandshakeKind::Resumed, "{version:?}");
        let closed = client.asking_for("closed.test");
        assert_eq!(visit(&closed).await, HandshakeKind::Full, "{version:?}");
        assert_eq!(visit(&closed).await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_ticket_of_one_listener_opens_no_other() {
    for version in VERSIONS {
        let second = "[listeners.open]\naddress = \"127.0.0.1:0\"\nclient_auth = \"optional\"";
        let lab = both_versions().tables(second).start().await;
        let strict = keeper(&lab, version, None);
        let mut open = strict.clone();
        open.address = lab.address_of("open");
        let mut strict = strict;
        strict.address = lab.address_of("edge");
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut session = Session::open(&open, Protocol::Http1).await.unwrap();
            assert_eq!(session.get("/public/m").await.unwrap().status, 200);
            assert_eq!(session.kind, kind, "{version:?}");
        }
        assert_refused(&lab, &strict).await;

        // With a certificate both are open, but a ticket of one is none of the other's.
        let device = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        let mut strict = device.clone();
        strict.address = lab.address_of("edge");
        let mut open = device;
        open.address = lab.address_of("open");
        visit(&open).await;
        assert_eq!(visit(&open).await, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(visit(&strict).await, HandshakeKind::Full, "{version:?}");
    }
}

#[tokio::test]
async fn with_resumption_off_every_handshake_is_a_full_one() {
    let lab = both_versions().tls("resumption = false").start().await;
    for version in VERSIONS {
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        for _ in 0..3 {
            assert_eq!(visit(&client).await, HandshakeKind::Full, "{version:?}");
        }
    }
}

#[tokio::test]
async fn resumption_switched_off_takes_the_tickets_that_are_out() {
    for version in VERSIONS {
        let mut lab = both_versions().start().await;
        let client = keeper(&lab, version, Some(lab.authority.device(SECRET)));
        visit(&client).await;
        assert_eq!(visit(&client).await, HandshakeKind::Resumed, "{version:?}");
        lab.config = both_versions().tls("resumption = false");
        lab.reload().unwrap();
        assert_eq!(visit(&client).await, HandshakeKind::Full, "{version:?}");
    }
}

#[tokio::test]
async fn two_devices_that_share_a_store_keep_their_own_identities() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        let resumption = OneDrawer::resumption();
        let device = |secret| {
            let mut client = lab.client_speaking(version, Some(lab.authority.device(secret)));
            client.tls().resumption = resumption.clone();
            client
        };
        let devices = [(SECRET, device(SECRET)), (OTHER, device(OTHER))];
        for _ in 0..3 {
            for (secret, client) in &devices {
                visit(client).await;
                let expected = format!("Client {secret}");
                assert_eq!(lab.origin.last_authorization(), expected.as_bytes());
            }
        }
    }
}

#[tokio::test]
async fn devices_without_server_name_resume_only_their_own_sessions() {
    let lab = both_versions().start().await;
    for version in VERSIONS {
        let device = |secret| {
            let client = keeper(&lab, version, Some(lab.authority.device(secret)));
            client.without_server_name()
        };
        let devices = [(SECRET, device(SECRET)), (OTHER, device(OTHER))];
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            for (secret, client) in &devices {
                assert_eq!(visit(client).await, kind, "{version:?}");
                let expected = format!("Client {secret}");
                assert_eq!(lab.origin.last_authorization(), expected.as_bytes());
            }
        }
    }
}

#[tokio::test]
async fn early_data_is_not_offered() {
    let lab = both_versions().start().await;
    let mut client = keeper(&lab, VERSIONS[0], Some(lab.authority.device(SECRET)));
    client.tls().enable_early_data = true;
    visit(&client).await;
    assert_eq!(visit(&client).await, HandshakeKind::Resumed);
    // A client with a ticket that allowed it would have a writer for early data (RFC 8446 §4.2.10).
    let name = client.server_name.clone();
    let config = Arc::new(client.tls().clone());
    let mut connection = ClientConnection::new(config, name).unwrap();
    assert!(connection.early_data().is_none());
}
