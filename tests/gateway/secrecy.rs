//! Nothing that the gateway prints, counts or answers holds a secret, not even at its most talkative.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portcullis::clock::{Clock, SystemClock};
use rcgen::DnType;
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::ca::{device, name};
use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::issuer::{KEY, OTHER_KEY, PLATFORM, signed};
use crate::harness::lab::SECRET;
use crate::harness::mqtt::{Connect, EVERY_VERSION, Version, Will, Wire};
use crate::harness::process::Running;
use crate::harness::scripted::tables;
use crate::harness::{Authority, Broker, Client, Protocol, Site};

/// A secret of somebody else, which is wrong beside [`SECRET`].
const OTHER: &str = "5ec4e7a0-0000-4000-8000-5ec4e7a05ec4";

fn basic(secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("anybody:{secret}")))
}

/// The secrets, and what they look like encoded.
fn forbidden() -> Vec<String> {
    let mut forms = Vec::new();
    for secret in [SECRET, OTHER] {
        let pair = format!("anybody:{secret}");
        forms.push(secret.to_owned());
        forms.push(secret.to_uppercase());
        forms.push(secret.replace('-', "%2D"));
        for text in [secret, &pair, &format!("Client {secret}")] {
            forms.push(STANDARD_NO_PAD.encode(text));
            forms.push(URL_SAFE_NO_PAD.encode(text));
        }
        // A part is enough to find the rest.
        forms.push(secret[..18].to_owned());
        forms.push(secret[18..].to_owned());
    }
    forms
}

fn assert_secret_free(what: &str, text: &str) {
    for form in forbidden() {
        assert!(!text.contains(&form), "{what} holds {form}");
    }
}

/// Sends the secret in every place by every protocol; whatever comes back must not hold it.
async fn present_everywhere(client: &Client, secret: &str) {
    let encoded = secret.replace('-', "%2D");
    for protocol in EVERY_PROTOCOL {
        let prefix = match protocol {
            Protocol::Http1 | Protocol::Http2 => "/http",
            Protocol::WebSocket => "/ws",
        };
        for path in [
            format!("{prefix}/m"),
            format!("{prefix}/m?authorization={secret}"),
            format!("{prefix}/m?authorization={encoded}&x=1"),
            format!("{prefix}/m?authorization=Client%20{secret};y"),
            format!("{prefix}/silent?authorization={secret}"),
            format!("/raw/m?authorization={secret}"),
            format!("/nowhere?authorization={secret}"),
            format!("{prefix}/%00?authorization={secret}"),
        ] {
            for value in [
                secret.to_owned(),
                format!("Client {secret}"),
                format!("Bearer {secret}"),
                basic(secret),
            ] {
                let fields = [
                    ("authorization", value.as_str()),
                    ("x-client-secret", secret),
                ];
                // What the origin does with it is not the question here.
                if let Ok(answer) = client.send(protocol, &path, &fields).await {
                    assert_secret_free("a body", &String::from_utf8_lossy(&answer.body));
                    assert_secret_free("a head", &format!("{:?}", answer.headers));
                }
            }
        }
    }
}

/// Bytes that make the parsers complain about what they have read.
async fn complain(client: &Client) {
    for bytes in [
        format!("GET /http/m?authorization={SECRET} HTTP/1.1\r\n\r\n"),
        format!(
            "GET /http/m HTTP/1.1\r\nHost: localhost\r\nAuthorization: Client {SECRET}\nX: y\r\n\r\n"
        ),
        format!("GET /http/m HTTP/1.1\r\nHost: localhost\r\nAuthorization : {SECRET}\r\n\r\n"),
        format!("GET /http/m HTTP/1.1\r\nHost: {SECRET}@localhost\r\n\r\n"),
        format!("{SECRET}\r\n\r\n"),
    ] {
        if let Ok(answer) = client.raw(bytes.as_bytes()).await {
            assert_secret_free("an answer", &answer);
        }
    }
}

/// CONNECTs with the secret in every field, right and wrong.
fn connects(version: Version, secret: &str) -> [Connect; 4] {
    let right = Connect::with_password(version, secret).client_id(secret);
    let mut wrong = right.clone().password(format!("Client {secret}"));
    wrong.user_name = Some(secret.into());
    let mut malformed = right.clone();
    malformed.trailing = secret.into();
    let mut misnamed = right.clone();
    misnamed.will = Some(Will {
        topic: format!("{secret}/#").into(),
        ..Will::new(secret.as_bytes())
    });
    [right, wrong, malformed, misnamed]
}

/// Where MQTT is spoken: inside WebSockets with a broker behind them and without, over TLS, and
/// without TLS both.
#[derive(Clone, Copy)]
enum Entrance {
    WebSocket(&'static str),
    Tls,
    Tcp,
    PlainWebSocket,
}

const ENCRYPTED: [Entrance; 3] = [
    Entrance::WebSocket("/mqtt"),
    Entrance::WebSocket("/mqtt-nowhere"),
    Entrance::Tls,
];

const UNENCRYPTED: [Entrance; 2] = [Entrance::Tcp, Entrance::PlainWebSocket];

async fn enter(gateway: &Running<'_>, client: &Client, entrance: Entrance) -> Wire {
    match entrance {
        Entrance::WebSocket(path) => {
            let fields = [("sec-websocket-protocol", "mqtt")];
            Wire::of_websocket(client.open_websocket(path, &fields).await.unwrap().0)
        }
        Entrance::Tls => {
            let mut client = client.clone();
            client.address = gateway.address_of("mqtts");
            Wire::over_tls(&client, &["mqtt"]).await.unwrap()
        }
        Entrance::Tcp => Wire::over_tcp(gateway.address_of("plain")).await.unwrap(),
        Entrance::PlainWebSocket => Wire::over_plain_websocket(gateway.address_of("web")).await,
    }
}

/// Speaks MQTT with the secret in every field.
async fn present_by_mqtt(
    gateway: &Running<'_>,
    client: &Client,
    entrances: &[Entrance],
    secret: &str,
) {
    for &entrance in entrances {
        for version in EVERY_VERSION {
            for connect in connects(version, secret) {
                let mut wire = enter(gateway, client, entrance).await;
                wire.send(&connect.bytes()).await;
                if let Some(answer) = wire.packet().await {
                    assert_secret_free("an answer", &String::from_utf8_lossy(&answer));
                }
                // A packet of no type, which ends a session that is open.
                wire.send(format!("\0{secret}").as_bytes()).await;
                while let Some(answer) = wire.packet().await {
                    assert_secret_free("an answer", &String::from_utf8_lossy(&answer));
                }
            }
        }
    }
}

async fn everything_it_has_said(gateway: Running<'_>) {
    let (_, metrics) = gateway.admin("/metrics").await;
    assert_secret_free("/metrics", &metrics);
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    // Otherwise there was nothing to look through.
    assert!(ended.stderr.contains("\"connected\""), "{}", ended.stderr);
    assert!(ended.stdout.lines().count() > 50, "{}", ended.stdout);
    assert_secret_free("standard output", &ended.stdout);
    assert_secret_free("standard error", &ended.stderr);
}

async fn talkative_site(top: &str) -> Site {
    talkative_site_with(top, "").await
}

async fn talkative_site_with(top: &str, more: &str) -> Site {
    let site = Site::new().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = port.local_addr().unwrap();
    drop(port);
    let top = format!("{top}\ndrain_timeout = \"1s\"");
    let log = "[log]\nlevel = \"trace\"\n[routes.silent]\npath = \"/http/silent\"\n\
               upstream = \"origin\"\nstrip_prefix = false\nresponse_timeout = \"20ms\"\n";
    let broker = Broker::start().await.address;
    let mqtt = format!(
        "[mqtt]\nreason_strings = true\n[upstreams.broker]\nservers = [\"{broker}\"]\n\
         [routes.mqtt]\npath = \"/mqtt\"\nprotocol = \"mqtt\"\nupstream = \"broker\"\n\
         [routes.mqtt_nowhere]\npath = \"/mqtt-nowhere\"\nprotocol = \"mqtt\"\nupstream = \"raw\"\n\
         [listeners.mqtts]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"broker\"\n"
    );
    site.configure(&top, &format!("{log}{mqtt}{more}{}", tables(nobody)));
    site
}

#[tokio::test]
async fn no_secret_is_told_where_certificates_decide() {
    let site = talkative_site("").await;
    let gateway = site.run(&[]).await;
    present_everywhere(&gateway.device(), SECRET).await;
    present_everywhere(&gateway.device(), OTHER).await;
    present_by_mqtt(&gateway, &gateway.device(), &ENCRYPTED, SECRET).await;
    present_by_mqtt(&gateway, &gateway.device(), &ENCRYPTED, OTHER).await;
    complain(&gateway.device()).await;
    let mut two_names = device(SECRET);
    // rcgen keeps one value of each type; by its number the second common name is another type.
    let second_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    two_names.distinguished_name = name(&[(DnType::CommonName, SECRET), (second_name, OTHER)]);
    let mut not_yet = device(SECRET);
    not_yet.not_before = rcgen::date_time_ymd(2090, 1, 1);
    not_yet.not_after = rcgen::date_time_ymd(2091, 1, 1);
    for identity in [
        Authority::new("Fleet CA").device(SECRET),
        site.authority.issue(not_yet),
        site.authority.issue(two_names),
        site.authority.device(&format!("{SECRET} ")),
    ] {
        let client = gateway.client(Some(identity));
        if let Ok(answer) = client.get("/http/m").await {
            assert_eq!(answer.status, 403);
            assert_secret_free("a body", &String::from_utf8_lossy(&answer.body));
        }
    }
    everything_it_has_said(gateway).await;
}

#[tokio::test]
async fn no_secret_is_told_where_keys_decide() {
    // Where certificates decide there is none of these.
    let plain = "[listeners.plain]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtt\"\n\
                 upstream = \"broker\"\n\
                 [listeners.web]\naddress = \"127.0.0.1:0\"\nprotocol = \"http\"\n";
    let site = talkative_site_with("auth = \"key\"", plain).await;
    let gateway = site.run(&[]).await;
    let client = gateway.client(None);
    present_everywhere(&client, SECRET).await;
    present_by_mqtt(&gateway, &client, &ENCRYPTED, SECRET).await;
    present_by_mqtt(&gateway, &client, &UNENCRYPTED, SECRET).await;
    complain(&client).await;
    for protocol in EVERY_PROTOCOL {
        let fields = [("authorization", SECRET), ("authorization", OTHER)];
        let answer = client.send(protocol, "/http/m", &fields).await.unwrap();
        assert_eq!(answer.status, 403);
        assert_secret_free("a body", &String::from_utf8_lossy(&answer.body));
    }
    everything_it_has_said(gateway).await;
}

/// A token's parts: any of them is enough to replay it, or tells whose it is.
fn parts(token: &str) -> Vec<String> {
    token.split('.').map(str::to_owned).skip(1).collect()
}

#[tokio::test]
async fn no_token_and_no_claim_is_told_where_users_are_demanded() {
    let routes = "[routes.user]\npath = \"/user/\"\nupstream = \"origin\"\ncredential = \"user\"\n\
                  forward_assertion = \"x-assertion\"\n[tokens]\nwebsocket_query = \"access_token\"\n\
                  websocket_subprotocol = \"bearer.\"\n";
    let site = talkative_site_with("auth = \"key\"", &format!("{routes}{PLATFORM}")).await;
    let gateway = site.run(&[]).await;
    let client = gateway.client(None);
    let now = SystemClock.now();
    let claims = json!({
        "iss": "supermq.auth", "type": 0, "user": SECRET, "iat": now, "exp": now + 3600,
    });
    let (good, forged) = (signed(KEY, &claims), signed(OTHER_KEY, &claims));
    let mut texts = Vec::new();
    for token in [&good, &forged, &format!("{good}=")] {
        let (bearer, subprotocol) = (format!("Bearer {token}"), format!("bearer.{token}, mqtt"));
        for protocol in EVERY_PROTOCOL {
            for path in [
                "/user/m".to_owned(),
                format!("/user/m?access_token={token}"),
                format!("/user/m?authorization=Bearer%20{token}"),
            ] {
                let fields = [
                    ("authorization", bearer.as_str()),
                    ("sec-websocket-protocol", &subprotocol),
                ];
                if let Ok(answer) = client.send(protocol, &path, &fields).await {
                    texts.push(format!("{answer:?}"));
                }
            }
        }
        let opened = client
            .open_websocket("/mqtt", &[("sec-websocket-protocol", "mqtt")])
            .await;
        let mut wire = Wire::of_websocket(opened.unwrap().0);
        let connect = Connect::with_password(EVERY_VERSION[2], token.as_bytes());
        wire.send(&connect.bytes()).await;
        wire.packet().await;
    }
    texts.push(gateway.admin("/metrics").await.1);
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert!(ended.stderr.contains("token_signature"), "{}", ended.stderr);
    texts.extend([ended.stdout, ended.stderr]);
    for text in &texts {
        assert_secret_free("an answer or a log", text);
        assert!(!text.contains(KEY) && !text.contains(&KEY[..20]));
        // What every token begins with, the gateway's own assertions among them.
        assert!(!text.contains("eyJ"), "{text}");
        for part in [parts(&good), parts(&forged)].concat() {
            assert!(!text.contains(&part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn no_secret_is_told_by_a_configuration_that_is_wrong() {
    let site = Site::new().await;
    site.write(
        "config.toml",
        &format!("auth = \"x509\"\nsecret = \"{SECRET}\"\n"),
    );
    let ended = site
        .start("check", &[("PORTCULLIS_SECRET", OTHER)])
        .end()
        .await;
    assert_eq!(ended.code, Some(78));
    assert_secret_free("standard error", &ended.stderr);
}
