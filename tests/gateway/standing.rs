//! Those who stay when the configuration changes: WebSockets and MQTT sessions whose client would be let
//! in today as well, and no others.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::decider::{Decider, Says};
use crate::harness::issuer::{KEY, PLATFORM, claims, signed};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, Transport, Version, Wire};
use crate::harness::{Identity, Lab, PATIENCE};

/// Who comes in.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// With the client secret.
    Client,
    /// With a token that has this role.
    User(&'static str),
    /// With a token that only its issuer can read.
    Opaque,
    /// With a certificate, and a token that has this role.
    Both(&'static str),
}

impl Who {
    fn identity(self, lab: &Lab) -> Option<Identity> {
        match self {
            Self::Client | Self::User(_) | Self::Opaque => None,
            Self::Both(_) => Some(lab.authority.device(SECRET)),
        }
    }

    fn credential(self, lab: &Lab) -> String {
        match self {
            Self::Client => SECRET.to_owned(),
            Self::Opaque => "opaque_1".to_owned(),
            Self::User(role) | Self::Both(role) => {
                let mut claims = claims(lab);
                claims["role"] = json!(role);
                signed(KEY, &claims)
            }
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Client => "Client",
            Self::User(_) | Self::Opaque | Self::Both(_) => "Bearer",
        }
    }

    async fn open(self, lab: &Lab, path: &str) -> Open {
        let value = format!("{} {}", self.scheme(), self.credential(lab));
        let fields = [("authorization", value.as_str())];
        let client = lab.client(self.identity(lab));
        let opened = client.open_websocket(path, &fields).await;
        let (socket, _) = opened.unwrap_or_else(|_| panic!("{self:?} is refused"));
        Open::WebSocket(Box::new(socket))
    }

    async fn connect(self, lab: &Lab, transport: Transport) -> Open {
        let conversation = lab.broker.conversations().len();
        let mut wire = lab.mqtt(transport, self.identity(lab)).await.unwrap();
        let connect = Connect::with_password(Version::V5, self.credential(lab));
        wire.send(&connect.bytes()).await;
        assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
        Open::Mqtt(wire, conversation, transport)
    }
}

/// What is open.
enum Open {
    WebSocket(Box<WebSocketStream<TlsStream<TcpStream>>>),
    /// With its place among the broker's conversations.
    Mqtt(Wire, usize, Transport),
}

/// Waits until the gateway closes with this code.
async fn closes(mut socket: WebSocketStream<TlsStream<TcpStream>>, code: u16) {
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = end else {
        panic!("{end:?} instead of the end");
    };
    assert_eq!(u16::from(frame.code), code);
}

impl Open {
    async fn ends(self) {
        match self {
            Self::WebSocket(socket) => closes(*socket, 1008).await,
            Self::Mqtt(mut wire, _, transport) => {
                // MQTT 5.0 §3.14.2.1: not authorized.
                let code = wire.ends_with(&[0xE0, 2, 0x87, 0]).await;
                let expected = (transport == Transport::WebSocket).then_some(1008);
                assert_eq!(code, expected);
            }
        }
    }

    async fn drains(self) {
        match self {
            Self::WebSocket(socket) => closes(*socket, 1001).await,
            Self::Mqtt(mut wire, ..) => {
                // MQTT 5.0 §3.14.2.1: server shutting down.
                wire.ends_with(&[0xE0, 2, 0x8B, 0]).await;
            }
        }
    }

    async fn stays(&mut self, lab: &Lab) {
        match self {
            Self::WebSocket(socket) => {
                socket.send(Message::text("still here")).await.unwrap();
                let echo = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
                assert_eq!(echo.unwrap().unwrap(), Message::text("still here"));
            }
            Self::Mqtt(wire, conversation, _) => {
                lab.broker.say(*conversation, &[0xD0, 0]);
                assert_eq!(wire.packet().await.as_deref(), Some(&[0xD0, 0][..]));
            }
        }
    }
}

/// A WebSocket, and MQTT sessions of every kind.
async fn open_all(lab: &Lab, who: Who) -> Vec<Open> {
    let mut all = vec![who.open(lab, "/ws/m").await];
    for transport in EVERY_TRANSPORT {
        all.push(who.connect(lab, transport).await);
    }
    all
}

fn demanding(config: &Config, credential: &str) -> Config {
    let line = format!("credential = \"{credential}\"");
    config.clone().route(&line).each_mqtt(&line)
}

/// The rule that tokens have one of these roles, on every route.
fn roles(roles: &str) -> String {
    let rule =
        |route| format!("[routes.{route}.claims.role]\nclaim = \"role\"\none_of = [{roles}]\n");
    ["http", "ws", "mqtt"].map(rule).concat()
}

#[tokio::test]
async fn a_reload_with_other_claim_rules_ends_those_whose_token_does_not_keep_them() {
    let config = demanding(&Config::key(), "user");
    let mut lab = config.clone().tables(PLATFORM).start().await;
    let mut admins = open_all(&lab, Who::User("admin")).await;
    let users = open_all(&lab, Who::User("user")).await;
    let rules = |rules: &str| {
        config
            .clone()
            .tables(&format!("{PLATFORM}{}", roles(rules)))
    };
    // Both keep these.
    lab.config = rules("\"admin\", \"user\"");
    lab.reload().unwrap();
    for open in &mut admins {
        open.stays(&lab).await;
    }
    lab.config = rules("\"admin\"");
    lab.reload().unwrap();
    for mut open in users {
        match open {
            // A listener for MQTT alone has no rules.
            Open::Mqtt(_, _, Transport::Tls) => open.stays(&lab).await,
            Open::Mqtt(..) | Open::WebSocket(_) => open.ends().await,
        }
    }
    for open in &mut admins {
        open.stays(&lab).await;
    }
}

#[tokio::test]
async fn a_client_that_has_yet_to_send_its_connect_meets_the_rules_in_force() {
    let config = demanding(&Config::key(), "user");
    let mut lab = config.clone().tables(PLATFORM).start().await;
    let token = Who::User("user").credential(&lab);
    let connect = Connect::with_password(Version::V5, token);
    let mut unchanged = lab.mqtt_anonymous(Transport::WebSocket).await;
    lab.reload().unwrap();
    unchanged.send(&connect.bytes()).await;
    assert_eq!(
        unchanged.packet().await.as_deref(),
        Some(Version::V5.accepted())
    );
    let mut changed = lab.mqtt_anonymous(Transport::WebSocket).await;
    let rules = roles("\"admin\"");
    lab.config = config.tables(&format!("{PLATFORM}{rules}"));
    lab.reload().unwrap();
    assert_eq!(changed.end().await, Some(1008));
    assert_eq!(lab.broker.conversations().len(), 1);
}

#[tokio::test]
async fn a_reload_that_demands_another_credential_ends_those_who_have_not_shown_it() {
    let (client, user) = (Who::Client, Who::User("user"));
    for (before, who, after, stays) in [
        ("any", client, "user", false),
        ("any", user, "user", true),
        ("any", client, "client", true),
        ("any", user, "client", false),
        ("client", client, "any", true),
        ("client", client, "user", false),
        ("user", user, "any", true),
        ("user", user, "client", false),
    ] {
        let config = Config::key().tables(PLATFORM);
        check(&config, before, who, after, stays).await;
    }
    let both = Who::Both("user");
    for (before, after, stays) in [
        ("both", "user", true),
        ("both", "client", true),
        ("both", "any", true),
        ("user", "both", false),
        ("user", "client", false),
    ] {
        let config = Config::x509().tls("client_auth = \"optional\"");
        check(&config.tables(PLATFORM), before, both, after, stays).await;
    }
}

async fn check(config: &Config, before: &str, who: Who, after: &str, stays: bool) {
    let mut lab = demanding(config, before).start().await;
    let all = open_all(&lab, who).await;
    lab.config = demanding(config, after);
    lab.reload().unwrap();
    for mut open in all {
        if stays {
            open.stays(&lab).await;
            // Whatever it has heard of the reload by then.
            lab.reload().unwrap();
            open.stays(&lab).await;
        } else {
            open.ends().await;
        }
    }
}

#[tokio::test]
async fn a_route_that_is_gone_or_binds_otherwise_keeps_none_of_its_sessions() {
    let chat = |name: &str, lines: &str| {
        format!("[routes.{name}]\npath = \"/{name}/\"\nupstream = \"origin\"\n{lines}\n")
    };
    let bindings = "[bindings.things]\nsecret = \"presented\"\nheaders = [\"x-device: {cn}\"]\n";
    let tables = format!(
        "{bindings}{}{}{}",
        chat("a", ""),
        chat("b", ""),
        chat("c", "")
    );
    let mut lab = Config::x509().tables(&tables).start().await;
    let device = lab.device();
    let mut sockets = Vec::new();
    for path in ["/a/m", "/b/m", "/c/m"] {
        let opened = device.open_websocket(path, &[]).await;
        let (socket, _) = opened.unwrap_or_else(|_| panic!("refused"));
        sockets.push(Open::WebSocket(Box::new(socket)));
    }
    let bound = chat("b", "binding = \"things\"");
    lab.config = Config::x509().tables(&format!("{bindings}{bound}{}", chat("c", "")));
    lab.reload().unwrap();
    let mut last = sockets.pop().unwrap();
    for socket in sockets {
        socket.ends().await;
    }
    last.stays(&lab).await;
    // Open to everybody: who was known may stay all the same.
    lab.config =
        Config::x509().tables(&format!("{bindings}{}", chat("c", "credential = \"none\"")));
    lab.reload().unwrap();
    last.stays(&lab).await;
    // And who was let in as nobody in particular may not, once somebody is asked for.
    let opened = device.open_websocket("/c/m", &[]).await;
    let (socket, _) = opened.unwrap_or_else(|_| panic!("refused"));
    lab.config = Config::x509().tables(&format!("{bindings}{}", chat("c", "")));
    lab.reload().unwrap();
    Open::WebSocket(Box::new(socket)).ends().await;
    last.stays(&lab).await;
}

const ACTIVE: Says = Says::Body(r#"{"active":true,"role":"user"}"#);
const INACTIVE: Says = Says::Body(r#"{"active":false}"#);

/// Users whose issuer is asked every second whether it has taken their token back.
async fn rechecked(issuer: &Decider, tables: &str) -> Lab {
    let introspection = format!(
        "[introspection]\nurl = \"http://{}/\"\ndanger_allow_http = true\nprefixes = [\"opaque_\"]\n\
         client_id = \"g\"\nclient_secret = \"s\"\ntimeout = \"1m\"\n\
         cache_ttl = \"1s\"\nrecheck = \"1s\"\n",
        issuer.address
    );
    let config = demanding(&Config::key(), "user");
    let platform = format!("{PLATFORM}\nintrospect = true\n");
    let config = config.tables(&platform).tables(&introspection);
    config.tables(tables).start().await
}

#[tokio::test]
async fn a_session_ends_when_its_issuer_has_taken_the_token_back_and_not_before() {
    for who in [Who::Opaque, Who::User("user")] {
        let issuer = Decider::start(ACTIVE).await;
        let lab = rechecked(&issuer, "").await;
        let mut all = open_all(&lab, who).await;
        assert_eq!(issuer.asked().len(), 1, "{who:?}");
        // What was said counts no longer, and is said again.
        lab.clock.advance(Duration::from_secs(1));
        issuer.is_asked(2).await;
        for open in &mut all {
            open.stays(&lab).await;
        }
        // An issuer that says nothing has taken nothing back.
        issuer.says(Says::Status(500, vec![]));
        lab.clock.advance(Duration::from_secs(1));
        issuer.is_asked(5).await;
        for open in &mut all {
            open.stays(&lab).await;
        }
        issuer.says(INACTIVE);
        for open in all {
            open.ends().await;
        }
    }
}

#[tokio::test]
async fn a_session_ends_when_its_issuer_says_less_of_the_token_than_is_demanded() {
    let issuer = Decider::start(ACTIVE).await;
    let lab = rechecked(&issuer, &roles("\"user\"")).await;
    let open = Who::Opaque.open(&lab, "/ws/m").await;
    issuer.says(Says::Body(r#"{"active":true,"role":"guest"}"#));
    lab.clock.advance(Duration::from_secs(1));
    open.ends().await;
}

#[tokio::test]
async fn a_reload_asks_about_those_who_stay_beside_their_traffic() {
    for who in [Who::Opaque, Who::User("user")] {
        let issuer = Decider::start(ACTIVE).await;
        let lab = rechecked(&issuer, "").await;
        let mut all = open_all(&lab, who).await;
        issuer.says(Says::Silence);
        // What was said before is forgotten with it.
        lab.reload().unwrap();
        issuer.is_asked(2).await;
        for _ in 0..2 {
            for open in &mut all {
                open.stays(&lab).await;
            }
            // Another one, before there is an answer.
            lab.reload().unwrap();
        }
        // Nor is what ends them at once held up.
        let draining = tokio::spawn(lab.drain(PATIENCE));
        for open in all {
            open.drains().await;
        }
        draining.await.unwrap();
    }
}

#[tokio::test]
async fn a_session_whose_token_nobody_can_take_back_is_asked_about_once() {
    let issuer = Decider::start(INACTIVE).await;
    let mut lab = rechecked(&issuer, "").await;
    let tables = lab.config.tables.replace("introspect = true", "");
    lab.config.tables = tables;
    lab.reload().unwrap();
    let mut all = open_all(&lab, Who::User("user")).await;
    lab.reload().unwrap();
    for open in &mut all {
        open.stays(&lab).await;
    }
    assert!(issuer.asked().is_empty());
}

/// A service that is asked about client secrets, by a route of its own at least.
fn callout(decider: &Decider, name: &str) -> String {
    format!(
        "[callouts.{name}]\nurl = \"http://{}/\"\ndanger_allow_http = true\ntimeout = \"1m\"\n\
         method = \"GET\"\nheaders = [\"authorization: Client {{secret}}\"]\n\
         [routes.of_{name}]\npath = \"/of/{name}/\"\nupstream = \"origin\"\ncallout = \"{name}\"\n",
        decider.address
    )
}

#[tokio::test]
async fn a_reload_that_has_somebody_else_asked_ends_those_about_whom_nobody_was() {
    let decider = Decider::start(Says::Status(200, vec![])).await;
    let one = format!("{PLATFORM}{}", callout(&decider, "one"));
    let both = format!("{one}{}", callout(&decider, "first"));
    let config = |tables: &str| demanding(&Config::key(), "any").tables(tables);
    let mut lab = config(&one).asks("one").start().await;
    let mut clients = open_all(&lab, Who::Client).await;
    let mut users = open_all(&lab, Who::User("user")).await;
    // Nobody is asked any more, then the same one, which stands at another place of the list by then.
    for config in [config(&both), config(&both).asks("one")] {
        lab.config = config;
        lab.reload().unwrap();
        for open in clients.iter_mut().chain(&mut users) {
            open.stays(&lab).await;
        }
    }
    lab.config = config(&both).asks("first");
    lab.reload().unwrap();
    for open in clients {
        open.ends().await;
    }
    // About users nobody was to be asked, and nobody is.
    for open in &mut users {
        open.stays(&lab).await;
    }
}
