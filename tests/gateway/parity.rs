//! The parity table: one list of who connects, what is presented and what becomes of it, and every
//! protocol agrees. Where else in a request a secret may stand, and what only MQTT can leave out,
//! stands in [`super::credentials`] and [`super::mqtt`].

use std::fmt::Write as _;

use rcgen::{DnType, date_time_ymd};

use crate::harness::ca::{Identity, device, name};
use crate::harness::client::{EVERY_PROTOCOL, Protocol, Refused};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Transport, Version, Wire};
use crate::harness::{Authority, Lab};

/// The secret of another device.
pub const OTHER: &str = "00000000-0000-4000-8000-000000000000";

/// What is not [`SECRET`], however near it comes (W1, W2, W13, D1).
pub fn wrong_secrets() -> Vec<Vec<u8>> {
    let text = [
        String::new(),
        OTHER.to_owned(),
        SECRET[..SECRET.len() - 1].to_owned(),
        SECRET[..8].to_owned(),
        SECRET[SECRET.len() - 1..].to_owned(),
        SECRET[SECRET.len() - 12..].to_owned(),
        SECRET.to_uppercase(),
        format!(" {SECRET}"),
        format!("{SECRET} "),
        format!("{SECRET}x"),
        format!("{SECRET}\0"),
        format!("Client {SECRET}"),
        format!("Thing {SECRET}"),
        format!("Client {OTHER}"),
    ];
    let mut wrong: Vec<_> = text.into_iter().map(String::into_bytes).collect();
    wrong.push(vec![0xff, 0xfe]);
    wrong
}

/// The way that a client takes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Request(Protocol),
    Mqtt(Transport, Version),
}

fn every_way() -> impl Iterator<Item = Way> {
    let mqtt = EVERY_TRANSPORT
        .into_iter()
        .flat_map(|transport| EVERY_VERSION.map(|version| Way::Mqtt(transport, version)));
    EVERY_PROTOCOL.map(Way::Request).into_iter().chain(mqtt)
}

/// Who connects.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// With the certificate that names [`SECRET`].
    Device,
    /// Without a certificate.
    Anybody,
    /// With one that says the same, of an authority that calls itself the same.
    Stranger,
    /// With one that is over, not begun, or for another purpose.
    Expired,
    Early,
    Server,
    /// With one that names no client.
    Nameless,
}

/// What becomes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Admitted,
    /// Who it is is not known.
    Unknown,
    /// It is known, or has shown something, and that does not suffice.
    Forbidden,
    /// It is not listened to.
    Cut,
}

type Row = (Who, Option<Vec<u8>>, Fate);

fn row(who: Who, shown: Option<&str>, fate: Fate) -> Row {
    (who, shown.map(Into::into), fate)
}

/// Where certificates decide.
fn by_certificate() -> Vec<Row> {
    let mut rows = vec![
        row(Who::Device, None, Fate::Admitted),
        row(Who::Device, Some(SECRET), Fate::Admitted),
        row(Who::Nameless, None, Fate::Forbidden),
        row(Who::Nameless, Some(SECRET), Fate::Forbidden),
    ];
    for who in [
        Who::Anybody,
        Who::Stranger,
        Who::Expired,
        Who::Early,
        Who::Server,
    ] {
        rows.push(row(who, None, Fate::Cut));
        rows.push(row(who, Some(SECRET), Fate::Cut));
    }
    let wrong = |secret| (Who::Device, Some(secret), Fate::Forbidden);
    rows.extend(wrong_secrets().into_iter().map(wrong));
    rows
}

/// Where secrets decide, and no certificate is asked for.
fn by_key() -> Vec<Row> {
    vec![
        row(Who::Anybody, Some(SECRET), Fate::Admitted),
        row(Who::Anybody, Some(OTHER), Fate::Admitted),
        row(Who::Device, Some(OTHER), Fate::Admitted),
        row(Who::Stranger, Some(SECRET), Fate::Admitted),
        row(Who::Anybody, None, Fate::Unknown),
        row(Who::Anybody, Some(""), Fate::Unknown),
        row(Who::Device, None, Fate::Unknown),
        row(Who::Stranger, None, Fate::Unknown),
    ]
}

fn identity(lab: &Lab, who: Who) -> Option<Identity> {
    let mut params = device(SECRET);
    match who {
        Who::Anybody => return None,
        Who::Device => {}
        Who::Stranger => return Some(Authority::new("Fleet CA").device(SECRET)),
        Who::Server => return Some(lab.authority.server(&["localhost"])),
        Who::Expired => {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        Who::Early => {
            params.not_before = date_time_ymd(2090, 1, 1);
            params.not_after = date_time_ymd(2091, 1, 1);
        }
        Who::Nameless => {
            params.distinguished_name = name(&[(DnType::OrganizationName, "Fleet")]);
        }
    }
    Some(lab.authority.issue(params))
}

/// `?authorization=Client%20...`, where every byte can stand.
fn query(shown: Option<&[u8]>) -> String {
    let Some(shown) = shown else {
        return String::new();
    };
    let mut query = "?authorization=Client%20".to_owned();
    for byte in shown {
        write!(query, "%{byte:02x}").unwrap();
    }
    query
}

async fn by_request(
    lab: &Lab,
    protocol: Protocol,
    identity: Option<Identity>,
    shown: Option<&[u8]>,
) -> Fate {
    let prefix = match protocol {
        Protocol::Http1 | Protocol::Http2 => "/http",
        Protocol::WebSocket => "/ws",
    };
    let path = format!("{prefix}/m{}", query(shown));
    let answer = lab.client(identity).send(protocol, &path, &[]).await;
    answer.map_or(Fate::Cut, |answer| of_status(answer.status.as_u16()))
}

fn of_status(status: u16) -> Fate {
    match status {
        101 | 200 => Fate::Admitted,
        401 => Fate::Unknown,
        403 => Fate::Forbidden,
        other => panic!("{other} is none of them"),
    }
}

async fn by_mqtt(
    lab: &Lab,
    transport: Transport,
    version: Version,
    identity: Option<Identity>,
    shown: Option<&[u8]>,
) -> Fate {
    let mut connect = Connect::with_user_name(version);
    connect.password = shown.map(Into::into);
    let wire = match transport {
        Transport::Tls => lab.mqtt(transport, identity).await,
        Transport::WebSocket => {
            let client = lab.client(identity);
            let fields = [("sec-websocket-protocol", "mqtt")];
            match client.open_websocket("/mqtt", &fields).await {
                Ok((socket, _)) => Ok(Wire::of_websocket(socket)),
                Err(Refused::Broken(error)) => Err(error),
                Err(Refused::Answered(answer)) => return of_status(answer.status.as_u16()),
            }
        }
    };
    let Ok(mut wire) = wire else {
        return Fate::Cut;
    };
    wire.send(&connect.bytes()).await;
    match wire.packet().await {
        None => Fate::Cut,
        Some(answer) if answer == version.accepted() => Fate::Admitted,
        Some(answer) if answer == version.bad_password() => Fate::Unknown,
        Some(answer) if answer == version.not_authorized() => Fate::Forbidden,
        Some(other) => panic!("{other:02x?} is none of them"),
    }
}

/// Sends a row every way. Those that are admitted arrive with `secret` and nothing else, the others
/// not at all.
async fn check(lab: &Lab, (who, shown, expected): &Row, secret: &str) {
    let identity = identity(lab, *who);
    for way in every_way() {
        let (requests, sessions) = (
            lab.origin.requests().len(),
            lab.broker.conversations().len(),
        );
        let shown = shown.as_deref();
        let fate = match way {
            Way::Request(protocol) => by_request(lab, protocol, identity.clone(), shown).await,
            Way::Mqtt(transport, version) => {
                by_mqtt(lab, transport, version, identity.clone(), shown).await
            }
        };
        let context = format!("{way:?} {who:?} {:?}", shown.map(String::from_utf8_lossy));
        assert_eq!(fate, *expected, "{context}");
        match way {
            _ if fate != Fate::Admitted => {
                assert_eq!(lab.origin.requests().len(), requests, "{context}");
                lab.broker.assert_fewer_than(sessions + 1).await;
            }
            Way::Request(_) => {
                let told = format!("Client {secret}");
                assert_eq!(
                    lab.origin.last_authorization(),
                    told.as_bytes(),
                    "{context}"
                );
                assert_eq!(lab.origin.requests()[requests].target, "/m", "{context}");
            }
            Way::Mqtt(_, version) => {
                let told = Connect::with_password(version, secret).bytes();
                assert_eq!(lab.broker.conversations()[sessions], told, "{context}");
            }
        }
    }
}

#[tokio::test]
async fn where_certificates_decide_every_protocol_does_so_alike() {
    let lab = Lab::x509().await;
    for row in by_certificate() {
        check(&lab, &row, SECRET).await;
    }
}

#[tokio::test]
async fn where_secrets_decide_every_protocol_does_so_alike() {
    let lab = Lab::key().await;
    for row in by_key() {
        let shown = row.1.clone().unwrap_or_default();
        check(&lab, &row, &String::from_utf8(shown).unwrap()).await;
    }
}

#[tokio::test]
async fn where_certificates_are_optional_nobody_passes_without_one() {
    let lab = Config::x509()
        .tls("client_auth = \"optional\"")
        .start()
        .await;
    check(&lab, &row(Who::Device, None, Fate::Admitted), SECRET).await;
    check(&lab, &row(Who::Stranger, Some(SECRET), Fate::Cut), SECRET).await;
    // A password says who one is, and then it is the certificate that is missing; 401 says both.
    for way in every_way() {
        let (fate, expected) = match way {
            Way::Request(protocol) => {
                let fate = by_request(&lab, protocol, None, Some(SECRET.as_bytes())).await;
                (fate, Fate::Unknown)
            }
            Way::Mqtt(transport, version) => {
                let shown = Some(SECRET.as_bytes());
                let fate = by_mqtt(&lab, transport, version, None, shown).await;
                match transport {
                    Transport::Tls => (fate, Fate::Forbidden),
                    // The opening is a request.
                    Transport::WebSocket => (fate, Fate::Unknown),
                }
            }
        };
        assert_eq!(fate, expected, "{way:?}");
    }
}
