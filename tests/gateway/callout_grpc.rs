//! Call-outs by gRPC: the services by which a platform knows its clients.

use tonic::Code;

use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, EVERY_VERSION, Version};
use crate::harness::platform::{Says, packed};
use crate::harness::{Answer, Authority, Lab, PATIENCE, Platform};

/// `home` and the secret, as in paths; and the user name that tests of MQTT have.
const DOMAIN: &str = "DomainaG9tZTpkN2NjMjk2NC1hNDhiLTRhNmUtODcxYS0wOGRhMjhlNzg4M2Q=";
const KNOWN: Says = Says::Known(&[
    (DOMAIN, "c1"),
    (
        "BasicYzlmMGY4OTUtZmI5OC00YjkxLTk5ZjUtMWZkMDI5N2UyMzZkOmQ3Y2MyOTY0LWE0OGItNGE2ZS04NzFhLTA4ZGEyOGU3ODgzZA==",
        "c2",
    ),
]);

fn callout(platform: &Platform, kind: &str, lines: &str) -> String {
    format!(
        "[callouts.platform]\nkind = \"{kind}\"\nurl = \"http://{}\"\ndanger_allow_http = true\n\
         timeout = \"1m\"\nid_header = \"x-client-id\"\n{lines}\n",
        platform.address
    )
}

async fn lab(tables: &str) -> Lab {
    let config = Config::key().asks("platform").tables(tables);
    config.start().await
}

async fn ask(lab: &Lab, protocol: Protocol, rest: &str, authorization: &str) -> Answer {
    let path = match protocol {
        Protocol::WebSocket => format!("/ws/{rest}"),
        Protocol::Http1 | Protocol::Http2 => format!("/http/{rest}"),
    };
    let fields = [("authorization", authorization), ("x-client-id", "admin")];
    lab.anonymous()
        .send(protocol, &path, &fields)
        .await
        .unwrap()
}

async fn status(lab: &Lab) -> u16 {
    let credential = format!("Client {SECRET}");
    let answer = ask(lab, Protocol::Http1, "m/home/c/meter", &credential).await;
    answer.status.as_u16()
}

#[tokio::test]
async fn a_platform_knows_a_client_by_its_domain_or_by_its_name() {
    let platform = Platform::start(KNOWN).await;
    let lab = lab(&callout(&platform, "clients_v1", "")).await;
    let credential = format!("Client {SECRET}");
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab, protocol, "m/home/c/meter", &credential).await;
        assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-client-id"), ["c1"]);
        assert_eq!(request.all("authorization"), [credential.as_str()]);
    }
    // Another channel of the domain is the same question.
    let other = ask(&lab, Protocol::Http1, "m/home/c/other", &credential).await;
    assert_eq!(other.status, 200);
    assert_eq!(platform.asked(), [packed("Domain", "home", SECRET)]);
    for transport in EVERY_TRANSPORT {
        for version in EVERY_VERSION {
            let mut wire = lab.mqtt_anonymous(transport).await;
            wire.send(&Connect::with_password(version, SECRET).bytes())
                .await;
            assert_eq!(wire.packet().await.as_deref(), Some(version.accepted()));
        }
    }
    let name = "c9f0f895-fb98-4b91-99f5-1fd0297e236d";
    assert_eq!(platform.asked()[1..], [packed("Basic", name, SECRET)]);
    assert_eq!(platform.connections(), 1, "questions share a connection");
}

#[tokio::test]
async fn a_client_that_the_platform_does_not_know_is_refused() {
    let platform = Platform::start(KNOWN).await;
    let lab = lab(&callout(&platform, "clients_v1", "")).await;
    let credential = format!("Client {SECRET}");
    for protocol in EVERY_PROTOCOL {
        for (rest, authorization) in [
            ("m/home/c/meter", "Client another"),
            // The secret of a client of another domain.
            ("m/other/c/meter", credential.as_str()),
            // No domain, and no name in its stead.
            ("meter", credential.as_str()),
            // home:s.. for a secret, so that the domain would be another.
            ("m/a:b/c/meter", credential.as_str()),
        ] {
            let answer = ask(&lab, protocol, rest, authorization).await;
            assert_eq!(answer.status, 401, "{protocol:?} {rest}");
            assert_eq!(answer.json()["code"], "unauthenticated");
        }
    }
    platform.says(Says::Nobody);
    let answer = ask(&lab, Protocol::Http1, "m/n/c/m", &credential).await;
    assert_eq!(answer.status, 401);
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    wire.send(&Connect::with_password(Version::V5, "another").bytes())
        .await;
    wire.ends_with(&Version::V5.bad_password()).await;
    lab.origin.assert_untouched();
    lab.broker.assert_untouched().await;
    assert_eq!(platform.asked().len(), 4, "a no is remembered");
}

#[tokio::test]
async fn a_platform_that_does_not_decide_leaves_everybody_outside() {
    let platform = Platform::start(KNOWN).await;
    let lab = lab(&callout(&platform, "clients_v1", "")).await;
    for says in [
        Says::Status(Code::Unavailable),
        Says::Status(Code::Internal),
        Says::Status(Code::Unknown),
        Says::Status(Code::InvalidArgument),
        Says::Status(Code::NotFound),
        Says::Endless,
    ] {
        platform.says(says.clone());
        assert_eq!(status(&lab).await, 503, "{says:?}");
    }
    for code in [Code::Unauthenticated, Code::PermissionDenied] {
        platform.says(Says::Status(code));
        let credential = format!("Client {code:?}");
        let answer = ask(&lab, Protocol::Http1, "m/home/c/meter", &credential).await;
        assert_eq!(answer.status, 401, "{code:?}");
    }
    lab.origin.assert_untouched();
    // Nothing of it is remembered.
    platform.says(KNOWN);
    assert_eq!(status(&lab).await, 200);
}

#[tokio::test]
async fn a_platform_that_says_nothing_is_not_waited_for() {
    let platform = Platform::start(Says::Silence).await;
    let table = callout(&platform, "clients_v1", "").replace("\"1m\"", "\"300ms\"");
    let lab = lab(&table).await;
    assert_eq!(status(&lab).await, 503);
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_platform_that_comes_back_is_asked_anew() {
    let platform = Platform::start(KNOWN).await;
    let lab = lab(&callout(&platform, "clients_v1", "cache_entries = 0")).await;
    assert_eq!(status(&lab).await, 200);
    platform.cut().await;
    assert_eq!(status(&lab).await, 200);
    assert_eq!(platform.connections(), 2);
}

#[tokio::test]
async fn a_platform_that_is_not_there_leaves_everybody_outside_unless_that_is_allowed() {
    let platform = Platform::start(KNOWN).await;
    let address = platform.address.to_string();
    let nowhere = |lines| callout(&platform, "clients_v1", lines).replace(&address, "127.0.0.1:1");
    assert_eq!(status(&lab(&nowhere("")).await).await, 503);
    let lab = lab(&nowhere("danger_allow_on_failure = true")).await;
    assert_eq!(status(&lab).await, 200);
    let request = lab.origin.requests().pop().unwrap();
    assert!(request.all("x-client-id").is_empty());
}

#[tokio::test]
async fn a_thousand_who_ask_the_same_at_once_are_one_question_by_grpc_too() {
    let platform = Platform::start(KNOWN).await;
    let lab = std::sync::Arc::new(lab(&callout(&platform, "clients_v1", "")).await);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let lab = std::sync::Arc::clone(&lab);
        clients.spawn(async move { status(&lab).await });
    }
    let all = tokio::time::timeout(PATIENCE, clients.join_all()).await;
    assert!(all.unwrap().iter().all(|status| *status == 200));
    assert_eq!(platform.asked().len(), 1);
}

#[tokio::test]
async fn a_service_for_brokers_is_asked_as_brokers_ask_it() {
    let platform = Platform::start(Says::Known(&[
        ("|home|d7cc2964-a48b-4a6e-871a-08da28e7883d|4", "c1"),
        (
            "device-1|c9f0f895-fb98-4b91-99f5-1fd0297e236d|d7cc2964-a48b-4a6e-871a-08da28e7883d|1",
            "c2",
        ),
    ]))
    .await;
    let lab = lab(&callout(&platform, "broker_auth_v1", "")).await;
    assert_eq!(status(&lab).await, 200);
    let request = lab.origin.requests().pop().unwrap();
    assert_eq!(request.all("x-client-id"), ["c1"]);
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    let connect = Connect::with_password(Version::V5, SECRET).client_id("device-1");
    wire.send(&connect.bytes()).await;
    assert_eq!(wire.packet().await.as_deref(), Some(Version::V5.accepted()));
    let mut wire = lab.mqtt_anonymous(EVERY_TRANSPORT[0]).await;
    let connect = Connect::with_password(Version::V5, SECRET).client_id("device-2");
    wire.send(&connect.bytes()).await;
    wire.ends_with(&Version::V5.bad_password()).await;
}

#[tokio::test]
async fn a_method_elsewhere_is_asked_where_the_url_says() {
    let platform = Platform::start(KNOWN).await;
    let address = platform.address.to_string();
    let at = |path: &str| {
        callout(&platform, "clients_v1", "").replace(&address, &format!("{address}{path}"))
    };
    let mut lab = lab(&at("/clients.v1.ClientsService/Authenticate")).await;
    assert_eq!(status(&lab).await, 200);
    // What the platform has not got is no no.
    lab.config.tables = at("/clients.v2.ClientsService/Authenticate");
    lab.reload().unwrap();
    assert_eq!(status(&lab).await, 503);
}

#[tokio::test]
async fn tls_to_the_platform_is_verified() {
    let authority = Authority::new("Platform CA");
    let identity = authority.server(&["127.0.0.1"]);
    let platform = Platform::start_tls(KNOWN, identity).await;
    let mut lab = lab(&callout(&platform, "clients_v1", "")).await;
    let by_tls = |ca| {
        let lines = format!("ca = [\"{ca}\"]");
        let table = callout(&platform, "clients_v1", &lines);
        table
            .replace("http://", "https://")
            .replace("danger_allow_http = true", "")
    };
    lab.write("platform.crt", authority.pem());
    lab.config.tables = by_tls("certs/ca.crt");
    lab.reload().unwrap();
    assert_eq!(status(&lab).await, 503);
    assert!(platform.asked().is_empty());
    lab.config.tables = by_tls("platform.crt");
    lab.reload().unwrap();
    assert_eq!(status(&lab).await, 200);
}

#[tokio::test]
async fn a_configuration_that_a_platform_could_not_answer_is_refused() {
    let platform = Platform::start(KNOWN).await;
    let mut lab = Config::key().start().await;
    lab.config = lab.config.asks("platform");
    let table = |lines| callout(&platform, "clients_v1", lines);
    let users = "[routes.more]\npath = \"/more/\"\nupstream = \"origin\"\ncredential = \"none\"\n\
                 callout = \"platform\"\n";
    for (tables, expected) in [
        (
            table("").replace("danger_allow_http = true", ""),
            "callouts.platform.danger_allow_http",
        ),
        (
            table("body = '{secret}'"),
            "callouts.platform.body: unknown key",
        ),
        (
            table("").replace("clients_v1", "clients_v2"),
            "callouts.platform.kind: must be",
        ),
        (
            table("").replace("\"\ndanger", "/?a=b\"\ndanger"),
            "callouts.platform.url: \"http",
        ),
        (table("") + users, "routes.more.callout: tells the {secret}"),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem}");
    }
}
