//! Call-outs about whole requests, as servers for Envoy's `ext_authz` over HTTP decide them.

use bytes::Bytes;
use hyper::Method;

use crate::harness::client::{EVERY_PROTOCOL, Protocol};
use crate::harness::decider::{Asked, Decider, Says};
use crate::harness::issuer::{PLATFORM, good};
use crate::harness::lab::{Config, SECRET};
use crate::harness::mqtt::{Connect, EVERY_TRANSPORT, Version};
use crate::harness::{Answer, Lab};

const YES: Says = Says::Status(200, vec![]);
const NO: Says = Says::Status(403, vec![]);

/// The request under a prefix, with fields of the client's that the service may see.
const WHOLE: &str = "method = \"{method}\"\n\
    headers = [\"x-key: {header.x-key}\", \"authorization: {header.authorization}\", \
    \"cookie: {header.cookie}\", \"x-forwarded-for: {remote}\", \"x-request-id: {request_id}\"]\n\
    forward = [\"x-tenant\"]";

fn callout(decider: &Decider, path: &str, lines: &str) -> String {
    format!(
        "[callouts.guard]\nurl = \"http://{}{path}\"\ndanger_allow_http = true\ntimeout = \"1m\"\n{lines}\n",
        decider.address
    )
}

/// Routes with this credential that ask the service about whole requests.
async fn guarded(decider: &Decider, config: Config, credential: &str) -> Lab {
    let table = callout(decider, "/check{path}{query}", WHOLE);
    let route = format!("credential = \"{credential}\"\ncallout = \"guard\"");
    config.route(&route).tables(&table).start().await
}

fn path(protocol: Protocol, rest: &str) -> String {
    match protocol {
        Protocol::WebSocket => format!("/ws/{rest}"),
        Protocol::Http1 | Protocol::Http2 => format!("/http/{rest}"),
    }
}

async fn ask(lab: &Lab, protocol: Protocol, rest: &str, fields: &[(&str, &str)]) -> Answer {
    let client = lab.anonymous();
    let answer = client.send(protocol, &path(protocol, rest), fields).await;
    answer.unwrap()
}

fn last(decider: &Decider) -> Asked {
    decider.asked().pop().unwrap()
}

#[tokio::test]
async fn a_service_decides_alone_about_the_request_as_the_client_has_sent_it() {
    let decider = Decider::start(YES).await;
    let lab = guarded(
        &decider,
        Config::x509().tls("client_auth = \"optional\""),
        "none",
    )
    .await;
    for protocol in EVERY_PROTOCOL {
        let fields = [("x-key", "k1"), ("authorization", "Custom of its own")];
        let rest = format!("a/../m/%7e?q=1&authorization=hidden&r={protocol:?}");
        let answer = ask(&lab, protocol, &rest, &fields).await;
        assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
        let asked = last(&decider);
        assert_eq!(asked.method, "GET");
        let expected = format!("/check{}?q=1&r={protocol:?}", path(protocol, "m/~"));
        assert_eq!(asked.target, expected);
        assert_eq!(asked.headers["x-key"], "k1");
        assert_eq!(asked.headers["authorization"], "Custom of its own");
        assert_eq!(asked.headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(
            asked.headers["x-request-id"],
            answer.headers["x-request-id"]
        );
        assert!(!asked.headers.contains_key("cookie"));
        // What the service has judged by goes on as it is.
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("authorization"), ["Custom of its own"]);
        assert_eq!(request.all("x-key"), ["k1"]);
    }
}

#[tokio::test]
async fn a_request_that_the_service_refuses_goes_nowhere() {
    let decider = Decider::start(NO).await;
    let lab = guarded(&decider, Config::key(), "none").await;
    for protocol in EVERY_PROTOCOL {
        for status in [401, 403] {
            decider.says(Says::Status(status, vec![]));
            let answer = ask(&lab, protocol, &status.to_string(), &[]).await;
            assert_eq!(answer.status, 403, "{protocol:?}");
            assert_eq!(answer.json()["code"], "forbidden");
            assert!(!answer.headers.contains_key("www-authenticate"));
        }
    }
    lab.origin.assert_untouched();
}

#[tokio::test]
async fn a_decision_holds_for_requests_that_differ_in_nothing_it_depended_on() {
    let decider = Decider::start(YES).await;
    let lab = guarded(&decider, Config::key(), "none").await;
    let key = ("x-key", "k1");
    let mut expected = 0;
    for (rest, fields, is_new) in [
        ("m", &[key][..], true),
        ("m", &[key], false),
        ("m", &[key, ("x-other", "1")], false),
        ("n", &[key], true),
        ("m?a=1", &[key], true),
        ("m", &[("x-key", "k2")], true),
        ("m", &[("x-key", "")], true),
        ("m", &[], true),
        ("m", &[key, ("cookie", "a=1")], true),
    ] {
        assert_eq!(ask(&lab, Protocol::Http1, rest, fields).await.status, 200);
        expected += usize::from(is_new);
        assert_eq!(decider.asked().len(), expected, "{rest} {fields:?}");
    }
    // Yes to one is no yes to another.
    decider.says(NO);
    assert_eq!(ask(&lab, Protocol::Http1, "o", &[key]).await.status, 403);
    assert_eq!(ask(&lab, Protocol::Http1, "m", &[key]).await.status, 200);
}

#[tokio::test]
async fn a_method_is_part_of_the_question_and_a_body_is_not() {
    let decider = Decider::start(YES).await;
    let lab = guarded(&decider, Config::key(), "none").await;
    for (method, body) in [
        (Method::POST, "one"),
        (Method::POST, "two"),
        (Method::PUT, "one"),
    ] {
        let client = lab.anonymous();
        let name = method.to_string();
        let sent = client.request(Protocol::Http2, method, "/http/m", &[], Bytes::from(body));
        assert_eq!(sent.await.unwrap().status, 200);
        let asked = last(&decider);
        assert_eq!((asked.method, asked.body.as_str()), (name, ""));
    }
    assert_eq!(decider.asked().len(), 2);
}

/// Threats S25: the service sees one value and the server another.
#[tokio::test]
async fn a_field_that_could_be_read_in_two_ways_is_not_asked_about() {
    let decider = Decider::start(YES).await;
    let lab = guarded(&decider, Config::key(), "none").await;
    for protocol in EVERY_PROTOCOL {
        for fields in [
            [("x-key", "k1"), ("x-key", "k2")],
            [("x-key", "k1"), ("x-key", "k1")],
            [("x-key", "k1"), ("x_key", "k2")],
            [("x_key", "k1"), ("x-other", "")],
            [("authorization", "Client a"), ("authorization", "Client b")],
        ] {
            let answer = ask(&lab, protocol, "m", &fields).await;
            assert_eq!(answer.status, 400, "{protocol:?} {fields:?}");
            assert_eq!(answer.json()["code"], "bad_request");
        }
    }
    assert!(decider.asked().is_empty());
    lab.origin.assert_untouched();
    // HTTP/2 splits cookies, and the server sees them as one.
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2")];
    assert_eq!(ask(&lab, Protocol::Http2, "m", &crumbs).await.status, 200);
    assert_eq!(last(&decider).headers["cookie"], "a=1; b=2");
    assert_eq!(ask(&lab, Protocol::Http1, "m", &crumbs).await.status, 400);
}

/// Threats S20: what the service leaves out, the client does not say in its stead.
#[tokio::test]
async fn fields_of_the_answer_are_nobody_elses() {
    let decider = Decider::start(Says::Status(200, vec![("x-tenant", "t1")])).await;
    let lab = guarded(&decider, Config::key(), "none").await;
    let forged = [("x-tenant", "root"), ("X_Tenant", "root")];
    for protocol in EVERY_PROTOCOL {
        decider.says(Says::Status(200, vec![("x-tenant", "t1")]));
        ask(&lab, protocol, "one", &forged).await;
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-tenant"), ["t1"]);
        decider.says(YES);
        ask(&lab, protocol, "two", &forged).await;
        let request = lab.origin.requests().pop().unwrap();
        assert!(request.all("x-tenant").is_empty() && request.all("x_tenant").is_empty());
    }
}

#[tokio::test]
async fn a_service_that_does_not_decide_leaves_the_request_outside_unless_that_is_allowed() {
    let decider = Decider::start(Says::Status(500, vec![])).await;
    let mut lab = guarded(&decider, Config::key(), "none").await;
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab, protocol, "m", &[]).await;
        assert_eq!(answer.status, 503, "{protocol:?}");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    lab.origin.assert_untouched();
    let allow = format!("{WHOLE}\ndanger_allow_on_failure = true");
    lab.config.tables = callout(&decider, "/check{path}{query}", &allow);
    lab.reload().unwrap();
    assert_eq!(ask(&lab, Protocol::Http1, "m", &[]).await.status, 200);
}

#[tokio::test]
async fn a_user_is_asked_about_once_the_token_holds() {
    let decider = Decider::start(NO).await;
    let lab = guarded(&decider, Config::key().tables(PLATFORM), "user").await;
    let bearer = format!("Bearer {}", good(&lab));
    for protocol in EVERY_PROTOCOL {
        let forged = format!("{bearer}x");
        let answer = ask(&lab, protocol, "m", &[("authorization", &forged)]).await;
        assert_eq!(answer.status, 401, "{protocol:?}");
    }
    assert!(decider.asked().is_empty());
    for protocol in EVERY_PROTOCOL {
        let fields = [("authorization", bearer.as_str())];
        assert_eq!(ask(&lab, protocol, "no", &fields).await.status, 403);
        assert_eq!(last(&decider).headers["authorization"], bearer);
    }
    lab.origin.assert_untouched();
    decider.says(YES);
    for protocol in EVERY_PROTOCOL {
        let answer = ask(&lab, protocol, "yes", &[("authorization", &bearer)]).await;
        assert!(matches!(answer.status.as_u16(), 200 | 101), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_call_out_that_is_told_secrets_is_about_clients_and_not_users() {
    let decider = Decider::start(NO).await;
    let table = callout(
        &decider,
        "/",
        "headers = [\"authorization: Client {secret}\"]",
    );
    let config = Config::key().asks("guard").tables(PLATFORM).tables(&table);
    let lab = config.route("credential = \"any\"").start().await;
    let bearer = format!("Bearer {}", good(&lab));
    let status = async |credential: &str| {
        let fields = [("authorization", credential)];
        ask(&lab, Protocol::Http1, "m", &fields).await.status
    };
    assert_eq!(status(&bearer).await, 200);
    assert!(decider.asked().is_empty());
    assert_eq!(status(&format!("Client {SECRET}")).await, 401);
    assert_eq!(decider.asked().len(), 1);
}

#[tokio::test]
async fn an_address_is_asked_about_whatever_a_client_speaks() {
    let decider = Decider::start(NO).await;
    let table = callout(&decider, "/{protocol}?at={remote}", "method = \"GET\"");
    let lab = Config::key().asks("guard").tables(&table).start().await;
    let credential = format!("Client {SECRET}");
    let fields = [("authorization", credential.as_str())];
    assert_eq!(ask(&lab, Protocol::Http1, "m", &fields).await.status, 403);
    assert_eq!(last(&decider).target, "/HTTP?at=127.0.0.1");
    for transport in EVERY_TRANSPORT {
        let mut wire = lab.mqtt_anonymous(transport).await;
        wire.send(&Connect::with_password(Version::V5, SECRET).bytes())
            .await;
        wire.ends_with(&Version::V5.refused(5, 0x87)).await;
        assert_eq!(last(&decider).target, "/MQTT?at=127.0.0.1");
    }
    lab.origin.assert_untouched();
    lab.broker.assert_untouched().await;
}

#[tokio::test]
async fn the_user_name_of_basic_is_told_and_must_be_one() {
    let decider = Decider::start(YES).await;
    let table = callout(&decider, "/{username}", "body = '{secret}'");
    let lab = Config::key().asks("guard").tables(&table).start().await;
    // u1:s1, u2:s1
    let [one, two] = ["Basic dTE6czE=", "Basic dTI6czE="];
    let answer = ask(&lab, Protocol::Http1, "m", &[("authorization", one)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(last(&decider).target, "/u1");
    assert_eq!(last(&decider).body, "s1");
    let both = [("authorization", one), ("authorization", two)];
    assert_eq!(ask(&lab, Protocol::Http1, "m", &both).await.status, 400);
    assert_eq!(decider.asked().len(), 1);
}

#[tokio::test]
async fn a_fixed_answer_that_was_asked_for_is_kept_by_no_cache() {
    let decider = Decider::start(YES).await;
    let table = callout(
        &decider,
        "/check{path}",
        "headers = [\"x-key: {header.x-key}\"]",
    );
    let route = "[routes.hello]\npath = \"/hello\"\nanswer = 200\ncallout = \"guard\"";
    let lab = Config::key().tables(&table).tables(route).start().await;
    let get = async || lab.anonymous().get("/hello").await.unwrap();
    let answer = get().await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["cache-control"]),
        (200, &"no-store".parse().unwrap())
    );
    decider.says(NO);
    let other = lab
        .anonymous()
        .send(Protocol::Http1, "/hello", &[("x-key", "1")])
        .await;
    assert_eq!(other.unwrap().status, 403);
}

#[tokio::test]
async fn a_configuration_by_which_clients_could_speak_for_the_gateway_is_refused() {
    let decider = Decider::start(YES).await;
    let mut lab = Config::key().start().await;
    let route = |line: &str| {
        format!(
            "[routes.more]\npath = \"/more/\"\nupstream = \"origin\"\ncallout = \"guard\"\n{line}\n"
        )
    };
    let header = |name: &str| {
        let line = format!("headers = [\"x-sent: {{header.{name}}}\"]");
        route("") + &callout(&decider, "/", &line)
    };
    let secret = callout(&decider, "/", "body = '{secret}'");
    let whole = callout(&decider, "/check{path}", WHOLE);
    let mqtt = "protocol = \"mqtt\"\ncallout = \"guard\"\npath = \"/other\"\nupstream = \"broker\"";
    for (tables, expected) in [
        (
            header("x-forwarded-for"),
            "callouts.guard.headers: {header.x-forwarded-for}",
        ),
        (
            header("X-Request-Id"),
            "callouts.guard.headers: {header.x-request-id}",
        ),
        (header("x-client-id"), "callouts.guard.headers"),
        (header("host"), "callouts.guard.headers"),
        (
            route("")
                + &callout(
                    &decider,
                    "/",
                    "headers = [\"content-length: {header.x-key}\"]",
                ),
            "callouts.guard.headers: \"content-length\" is set anyhow",
        ),
        (header("connection"), "callouts.guard.headers"),
        (header("content-length"), "callouts.guard.headers"),
        (header("x_key"), "no field {header.x_key}"),
        (
            route("credential = \"none\"") + &secret,
            "routes.more.callout: tells the {secret}",
        ),
        (
            route("") + &callout(&decider, "/{secret}", ""),
            "callouts.guard.url",
        ),
        (
            route("") + &callout(&decider, "/check{path}", ""),
            "callouts.guard.body: must hold",
        ),
        (
            format!("[routes.more]\n{mqtt}\n{whole}"),
            "routes.more.callout: tells of a request",
        ),
    ] {
        lab.config.tables = tables;
        let problem = lab.settings().unwrap_err().to_string();
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
    lab.config.tables = route("") + &whole;
    lab.config = lab.config.each_mqtt("callout = \"guard\"");
    let problem = lab.settings().unwrap_err().to_string();
    assert!(
        problem.contains("listeners.mqtts.callout: tells of a request"),
        "{problem}"
    );
}
