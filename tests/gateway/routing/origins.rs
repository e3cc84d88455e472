//! Whose pages may open WebSockets.

use super::problems;
use crate::harness::lab::Config;
use crate::harness::{Lab, Protocol};

const ORIGINS: &str = "origins = [\"https://app.example.com\", \"http://localhost:3000\"]";

/// A lab whose routes, that to MQTT among them, list origins.
async fn listing() -> Lab {
    let mut config = Config::x509().route(ORIGINS);
    config.mqtt_route = ORIGINS.to_owned();
    config.start().await
}

/// The status of an opening with these fields, in HTTP/1.1 and in a stream of HTTP/2.
async fn opened(lab: &Lab, path: &str, fields: &[(&'static str, &str)]) -> [u16; 2] {
    let mut fields = fields.to_vec();
    if path == "/mqtt" {
        fields.push(("sec-websocket-protocol", "mqtt"));
    }
    let answer = lab.device().send(Protocol::WebSocket, path, &fields).await;
    let mut connection = lab.device().multiplex().await.unwrap();
    let in_stream = match connection.open_websocket(path, &fields).await {
        Ok(_) => 101,
        Err(refused) => refused.status.as_u16(),
    };
    [answer.unwrap().status.as_u16(), in_stream]
}

#[tokio::test]
async fn a_page_of_a_listed_origin_opens_websockets_and_no_other_does() {
    let lab = listing().await;
    for path in ["/ws/m", "/mqtt"] {
        for origin in ["https://app.example.com", "http://localhost:3000"] {
            assert_eq!(
                opened(&lab, path, &[("origin", origin)]).await,
                [101; 2],
                "{origin}"
            );
        }
        let before = lab.origin.requests().len();
        for origin in [
            "https://evil.example",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://app.example.co",
            "https://app.example.com/",
            "https://app.example.com https://evil.example",
            "http://localhost",
            "null",
            "",
        ] {
            assert_eq!(
                opened(&lab, path, &[("origin", origin)]).await,
                [403; 2],
                "{origin}"
            );
        }
        let both = [
            ("origin", "https://app.example.com"),
            ("origin", "https://evil.example"),
        ];
        assert_eq!(opened(&lab, path, &both).await, [403; 2]);
        assert_eq!(
            lab.origin.requests().len(),
            before,
            "the upstream was asked"
        );
    }
    assert!(lab.broker.conversations().is_empty());
}

#[tokio::test]
async fn a_device_names_no_origin_and_opens_websockets() {
    let lab = listing().await;
    for path in ["/ws/m", "/mqtt"] {
        assert_eq!(opened(&lab, path, &[]).await, [101; 2]);
    }
}

#[tokio::test]
async fn a_listed_origin_takes_nobody_through_the_gate() {
    let config = Config::x509()
        .tls("client_auth = \"optional\"")
        .route(ORIGINS);
    let lab = config.start().await;
    let origin = [("origin", "https://app.example.com")];
    let anonymous = lab
        .anonymous()
        .send(Protocol::WebSocket, "/ws/m", &origin)
        .await;
    assert_eq!(anonymous.unwrap().status, 401);
    lab.origin.assert_untouched();
    let known = lab
        .device()
        .send(Protocol::WebSocket, "/ws/m", &origin)
        .await;
    assert_eq!(known.unwrap().status, 101);
}

#[tokio::test]
async fn requests_are_no_matter_of_origins_nor_routes_that_list_none() {
    let lab = listing().await;
    let origin = [("origin", "https://evil.example")];
    for protocol in super::EVERY_HTTP {
        let answer = lab
            .device()
            .send(protocol, "/http/m", &origin)
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    let lab = Lab::x509().await;
    for path in ["/ws/m", "/mqtt"] {
        assert_eq!(opened(&lab, path, &origin).await, [101; 2]);
    }
}

#[tokio::test]
async fn what_no_browser_says_stops_the_start() {
    for origin in [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://*.a.b",
        "",
    ] {
        let table =
            format!("[routes.x]\npath = \"/x\"\nupstream = \"origin\"\norigins = [\"{origin}\"]");
        let problem = problems(&table).await;
        let expected = format!("routes.x.origins: \"{origin}\" is no origin");
        assert!(problem.contains(&expected), "{problem}");
    }
    let table = "[routes.x]\npath = \"/x\"\nanswer = 200\norigins = [\"https://a.b\"]";
    let problem = problems(table).await;
    assert!(
        problem.contains("routes.x.origins: has no meaning"),
        "{problem}"
    );
}
