//! `[request_headers]` and `[response_headers]`.

use rcgen::{DnType, SanType};

use super::{EVERY_HTTP, all, lab, problems};
use crate::harness::ca;
use crate::harness::client::EVERY_PROTOCOL;
use crate::harness::lab::{Config, SECRET};
use crate::harness::{Identity, Lab, Protocol};

/// A route to the origin with these lines in its own table, and in those of its fields.
fn route(lines: &str, requests: &str, answers: &str) -> String {
    format!(
        "[routes.x]\npath = \"/t/{{tenant}}/{{rest...}}\"\nmatch = \"pattern\"\nupstream = \"origin\"\n\
         {lines}\n[routes.x.request_headers]\n{requests}\n[routes.x.response_headers]\n{answers}\n"
    )
}

/// A device with these DNS names, and an organisation.
fn device(lab: &Lab, names: &[&str]) -> Identity {
    let mut params = ca::device(SECRET);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "x,CN=victim");
    params.serial_number = Some(vec![0x8f, 0x0a].into());
    let name = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
    params.subject_alt_names = names.iter().map(name).collect();
    lab.authority.issue(params)
}

#[tokio::test]
async fn an_upstream_gets_the_fields_of_the_route() {
    let tables = route(
        "",
        "remove = [\"x-debug\", \"user-agent\"]\n\
         set = [\"x-tenant: {tenant}\", \"x-place: {method} {host}{path}\", \"x-constant: a, b\"]\n\
         add = [\"x-list: ours\"]",
        "",
    );
    let lab = lab(&tables).await;
    for protocol in EVERY_PROTOCOL {
        let fields = [
            ("x-debug", "1"),
            ("x_debug", "1"),
            ("x-tenant", "forged"),
            ("x_tenant", "forged"),
            ("X-Tenant", "forged"),
            ("x-list", "theirs"),
            ("user-agent", "device"),
        ];
        let answer = lab.device().send(protocol, "/t/a%20b/c", &fields).await;
        assert!(matches!(answer.unwrap().status.as_u16(), 101 | 200));
        let request = lab.origin.requests().pop().unwrap();
        for (name, expected) in [
            ("x-debug", &[][..]),
            ("x_debug", &[]),
            ("user-agent", &[]),
            ("x-tenant", &["a%20b"]),
            ("x_tenant", &[]),
            ("x-place", &["GET localhost/t/a%20b/c"]),
            ("x-constant", &["a, b"]),
            ("x-list", &["theirs", "ours"]),
        ] {
            assert_eq!(request.all(name), expected, "{name} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn what_a_request_says_stays_within_its_field() {
    let lab = lab(&route("", "set = [\"x-tenant: {tenant}; {path}\"]", "")).await;
    for protocol in EVERY_HTTP {
        let target = "/t/a%0d%0aauthorization:%20x\"/";
        lab.device().send(protocol, target, &[]).await.unwrap();
        let request = lab.origin.requests().pop().unwrap();
        let tenant = "a%0D%0Aauthorization:%20x%22";
        assert_eq!(request.all("x-tenant"), [format!("{tenant}; /t/{tenant}/")]);
    }
}

#[tokio::test]
async fn what_a_certificate_says_is_told_without_the_secret() {
    let requests = "set = [\"x-serial: {serial}\", \"x-subject: {subject}\", \"x-issuer: {issuer}\", \
                    \"x-name: {san.dns}\", \"x-print: {fingerprint}\", \"x-uri: {san.uri}\"]";
    let lab = lab(&route("", requests, "set = [\"x-you: {serial}\"]")).await;
    let identity = device(&lab, &["dev-1.example"]);
    for protocol in EVERY_PROTOCOL {
        let client = lab.client(Some(identity.clone()));
        let answer = client.send(protocol, "/t/a/", &[]).await.unwrap();
        assert_eq!(all(&answer, "x-you"), ["8f0a"]);
        let request = lab.origin.requests().pop().unwrap();
        assert_eq!(request.all("x-serial"), ["8f0a"]);
        assert_eq!(request.all("x-subject"), ["O=x\\,CN=victim"]);
        assert_eq!(request.all("x-issuer"), ["CN=Fleet CA"]);
        assert_eq!(request.all("x-name"), ["dev-1.example"]);
        assert_eq!(request.all("x-print")[0].len(), 64);
        assert_eq!(request.all("x-uri"), [""; 0]);
        let others = request
            .headers
            .iter()
            .filter(|(name, _)| *name != "authorization");
        for (name, value) in others {
            assert!(!value.to_str().unwrap().contains(SECRET), "{name}");
        }
    }
}

#[tokio::test]
async fn nobody_says_what_a_certificate_does_not() {
    let requests = "set = [\"x-name: {san.dns}\"]\nadd = [\"x-names: {san.dns}\"]";
    let lab = lab(&route("credential = \"none\"", requests, "")).await;
    let forged = [
        ("x-name", "f"),
        ("x_name", "f"),
        ("x-names", "f"),
        ("x.names", "f"),
    ];
    // Without a certificate, with one that has no such name, and with one that has two.
    for identity in [
        None,
        Some(lab.authority.device(SECRET)),
        Some(device(&lab, &["a.example", "b.example"])),
    ] {
        // On the route, and on one that says nothing of the kind.
        for path in ["/t/a/", "/public/"] {
            for protocol in EVERY_HTTP {
                let client = lab.client(identity.clone());
                client.send(protocol, path, &forged).await.unwrap();
                let request = lab.origin.requests().pop().unwrap();
                for (name, _) in forged {
                    assert_eq!(request.all(name), [""; 0], "{name} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_has_the_fields_of_the_route_whoever_writes_it() {
    let answers = "remove = [\"server\"]\n\
                   set = [\"x-tenant: {tenant}\", \"x-id: {request_id}\", \"cache-control: public\"]\n\
                   add = [\"x-list: ours\", \"content-type: text/html\"]";
    let lab = lab(&route("max_body = \"4B\"", "", answers)).await;
    let said = [
        ("x-say", "server: origin/1"),
        ("x-say", "x-tenant: forged"),
        ("x-say", "x-list: theirs"),
        ("x-say", "cache-control: private"),
    ];
    for protocol in EVERY_HTTP {
        let answer = lab.device().send(protocol, "/t/a/b", &said).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(all(&answer, "server"), [""; 0]);
        assert_eq!(all(&answer, "x-tenant"), ["a"]);
        assert_eq!(all(&answer, "x-list"), ["theirs", "ours"]);
        assert_eq!(all(&answer, "cache-control"), ["public"]);
        assert_eq!(all(&answer, "x-id"), all(&answer, "x-request-id"));

        let refused = lab.anonymous().send(protocol, "/t/a/b", &[]).await.unwrap();
        assert_eq!(refused.status, 401);
        let device = lab.device();
        let post = device.request(
            protocol,
            hyper::Method::POST,
            "/t/a/b",
            &[],
            "longer".into(),
        );
        let too_long = post.await.unwrap();
        assert_eq!(too_long.status, 413);
        for answer in [refused, too_long] {
            assert_eq!(all(&answer, "x-tenant"), ["a"]);
            assert_eq!(all(&answer, "x-list"), ["ours"]);
            // What they say themselves stays so.
            assert_eq!(all(&answer, "cache-control"), ["no-store"]);
            assert_eq!(all(&answer, "content-type"), ["application/problem+json"]);
        }
    }
    let (_, opened) = lab
        .device()
        .open_websocket("/t/a/b", &[])
        .await
        .ok()
        .unwrap();
    assert_eq!(opened.status, 101);
    assert_eq!(all(&opened, "x-tenant"), ["a"]);
}

#[tokio::test]
async fn fields_for_all_answers_are_those_of_errors_without_a_route_too() {
    let tables = "[request_headers]\nset = [\"x-edge: {host}\", \"x-both: shared\"]\n\
                  [response_headers]\nset = [\"x-frame-options: DENY\", \"x-both: shared\"]\n\
                  remove = [\"x-powered-by\"]\n\
                  [routes.old]\npath = \"/old\"\nredirect = \"/new\"\n\
                  [routes.hi]\npath = \"/hi\"\nanswer = 200\nanswer_body = \"hi\"\n\
                  [routes.gone]\npath = \"/gone\"\nupstream = \"gone\"\n\
                  [upstreams.gone]\nservers = [\"127.0.0.1:1\"]\n";
    let own = route(
        "",
        "set = [\"x-both: own\"]",
        "set = [\"x-both: own\"]\nremove = [\"x-frame-options\"]",
    );
    let lab = lab(&format!("{tables}{own}")).await;
    for protocol in EVERY_HTTP {
        for (path, status) in [
            ("/http/m", 200),
            ("/nowhere", 404),
            ("/%zz", 400),
            ("/old", 308),
            ("/hi", 200),
            ("/gone", 502),
        ] {
            let said = [("x-say", "x-powered-by: PHP"), ("x-say", "x-both: theirs")];
            let answer = lab.device().send(protocol, path, &said).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(all(&answer, "x-frame-options"), ["DENY"], "{path}");
            assert_eq!(all(&answer, "x-both"), ["shared"], "{path}");
            assert_eq!(all(&answer, "x-powered-by"), [""; 0], "{path}");
        }
        assert_eq!(
            lab.origin.requests().pop().unwrap().all("x-edge"),
            ["localhost"]
        );
        // A route has the last word.
        let answer = lab.device().send(protocol, "/t/a/", &[]).await.unwrap();
        assert_eq!(all(&answer, "x-both"), ["own"]);
        assert_eq!(all(&answer, "x-frame-options"), [""; 0]);
        assert_eq!(lab.origin.requests().pop().unwrap().all("x-both"), ["own"]);
    }
}

#[tokio::test]
async fn a_rule_about_what_the_gateway_guarantees_stops_the_start() {
    for (key, entry, expected) in [
        (
            "request_headers.set",
            "authorization: Client x",
            "\"authorization\" is the gateway's own",
        ),
        (
            "request_headers.add",
            "Authorization: x",
            "\"authorization\" is the gateway's own",
        ),
        (
            "request_headers.set",
            "x_forwarded_for: 1",
            "\"x_forwarded_for\" is the gateway's own",
        ),
        (
            "request_headers.set",
            "host: a",
            "\"host\" is the gateway's own; see `host`",
        ),
        (
            "request_headers.add",
            "transfer-encoding: x",
            "is the gateway's own",
        ),
        (
            "request_headers.set",
            "content-length: 0",
            "is the gateway's own",
        ),
        (
            "request_headers.set",
            "client-cert: x",
            "own; see `forward_certificate`",
        ),
        (
            "request_headers.set",
            "x_tenant: x",
            "\"x_tenant\" must have no underscore",
        ),
        (
            "request_headers.set",
            "x-tenant: {cn}",
            "the value of x-tenant {cn} is the client's secret",
        ),
        (
            "request_headers.set",
            "x-tenant: {nobody}",
            "the value of x-tenant there is no {nobody}",
        ),
        (
            "request_headers.set",
            "x-tenant: a\\r\\nb: c",
            "the value of x-tenant holds a character",
        ),
        (
            "request_headers.set",
            "x-tenant: a\\u0000",
            "the value of x-tenant holds a character",
        ),
        (
            "request_headers.set",
            "x-tenant:",
            "the value of x-tenant is empty",
        ),
        (
            "request_headers.set",
            "x-tenant",
            "is not a field and its value",
        ),
        (
            "request_headers.set",
            "x tenant: a",
            "\"x tenant\" is no field",
        ),
        (
            "response_headers.set",
            "x-request-id: 1",
            "is the gateway's own",
        ),
        (
            "response_headers.set",
            "connection: close",
            "is the gateway's own",
        ),
        (
            "response_headers.add",
            "strict-transport-security: a",
            "own; see `hsts`",
        ),
        (
            "response_headers.set",
            "access-control-allow-origin: *",
            "own; see [routes.api.cors]",
        ),
    ] {
        let (table, name) = key.split_once('.').unwrap();
        for (prefix, path) in [
            ("", ""),
            (
                "routes.x.",
                "[routes.x]\npath = \"/x\"\nupstream = \"origin\"\n",
            ),
        ] {
            let tables = format!("{path}[{prefix}{table}]\n{name} = [\"{entry}\"]\n");
            let problem = problems(&tables).await;
            assert!(problem.contains(&format!("{prefix}{key}: ")), "{problem}");
            assert!(problem.contains(expected), "{problem}");
        }
    }
    for removed in ["authorization", "x-forwarded-for", "x_real_ip", "te"] {
        let tables = format!("[request_headers]\nremove = [\"{removed}\"]\n");
        let problem = problems(&tables).await;
        assert!(problem.contains("is the gateway's own"), "{problem}");
    }
}

#[tokio::test]
async fn a_rule_about_what_others_say_stops_the_start() {
    let binding = "[bindings.b]\nsecret = \"{san.uri}\"\nheaders = [\"x-device: {serial}\"]\n";
    let callout = "[callouts.x]\nurl = \"https://127.0.0.1:1/\"\nbody = '{secret}'\nforward = [\"x-device\"]\n";
    for (tables, rule, expected) in [
        (
            binding,
            "x-device: a",
            "x.request_headers: \"x-device\" is a field of a claim",
        ),
        (
            callout,
            "x-device: a",
            "x.request_headers: \"x-device\" is a field of a claim",
        ),
        (
            binding,
            "x-name: {san.uri}",
            "{san.uri} is what a binding makes the client's secret of",
        ),
    ] {
        let own = route("", &format!("set = [\"{rule}\"]"), "");
        let problem = problems(&format!("{tables}{own}")).await;
        assert!(problem.contains(expected), "{problem}");
    }
    let mut lab = Lab::key().await;
    lab.config = Config::key().tables(&route("", "set = [\"x-a: {serial}\"]", ""));
    let problem = lab.settings().map(drop).unwrap_err().to_string();
    assert!(
        problem.contains("{serial} has no value while auth"),
        "{problem}"
    );

    for (line, kind) in [
        ("answer = 200", "without an upstream"),
        (
            "upstream = \"broker\"\nprotocol = \"mqtt\"",
            "protocol = \"mqtt\"",
        ),
    ] {
        let table = format!(
            "[routes.x]\npath = \"/x\"\n{line}\n[routes.x.request_headers]\nset = [\"x-a: b\"]\n"
        );
        let problem = problems(&table).await;
        assert!(
            problem.contains("routes.x.request_headers: has no meaning"),
            "{problem}"
        );
        assert!(problem.contains(kind), "{problem}");
    }
}

#[tokio::test]
async fn what_a_route_says_of_answers_counts_for_the_opening_of_mqtt_too() {
    let mut config = Config::x509();
    config.tables = "[routes.mqtt.response_headers]\nset = [\"x-edge: a\"]\n".to_owned();
    let lab = config.start().await;
    let fields = [("sec-websocket-protocol", "mqtt")];
    let (_, opened) = lab
        .device()
        .open_websocket("/mqtt", &fields)
        .await
        .ok()
        .unwrap();
    assert_eq!(all(&opened, "x-edge"), ["a"]);
    let missing = lab
        .device()
        .send(Protocol::Http1, "/mqtt", &[])
        .await
        .unwrap();
    assert_eq!(
        (missing.status.as_u16(), all(&missing, "x-edge")),
        (426, vec!["a"])
    );
}
