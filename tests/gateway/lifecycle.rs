//! The binary from its start to its end: signals, exit codes, reloads, what it says of itself.

use std::io;
use std::time::{Duration, Instant};

use futures_util::future::{Either, join, select};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::kept::whole;
use crate::harness::lab::SECRET;
use crate::harness::process::{Running, json_lines};
use crate::harness::{Authority, Process, Protocol, Scripted, Site};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Far less than the drain timeouts below, far more than an orderly end takes.
const SOON: Duration = Duration::from_secs(20);

/// Waits until nobody listens on the gateway's port any more.
async fn refuses_connections(gateway: &Running<'_>) {
    let refused = async {
        loop {
            match TcpStream::connect(gateway.edge).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(SOON, refused).await.unwrap();
}

#[tokio::test]
async fn a_signal_to_end_lets_requests_finish_and_admits_no_more() {
    for signal in ["TERM", "INT"] {
        let site = Site::new().await;
        let upstream = Scripted::start().await;
        site.configure("drain_timeout = \"1h\"", &upstream.tables());
        let mut gateway = site.run(&[]).await;
        assert_eq!(gateway.admin("/readyz").await.0, 200);
        let mut idle = gateway.device().keep(Protocol::Http1).await.unwrap();
        assert_eq!(idle.get("/http/m", &[]).await.unwrap().status, 200);
        let device = gateway.device();
        let request = tokio::spawn(async move { device.get("/raw/m").await });
        let mut peer = upstream.accept().await;
        peer.head().await;

        gateway.process.signal(signal).await;
        gateway.process.says("draining").await;
        refuses_connections(&gateway).await;
        assert_eq!(gateway.admin("/readyz").await.0, 503);
        assert_eq!(gateway.admin("/healthz").await.0, 200);
        assert!(
            idle.get("/http/m", &[]).await.is_err(),
            "an idle connection stays open"
        );
        peer.say(OK).await;
        assert_eq!(request.await.unwrap().unwrap().body, "ok");
        let ended = gateway.process.end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_request_that_is_on_its_way_is_answered_though_its_connection_has_to_end() {
    const REQUEST: &[u8] = b"GET /http/m HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (signal, word) in [("HUP", "configuration reloaded"), ("TERM", "draining")] {
        let site = Site::new().await;
        site.configure("drain_timeout = \"1h\"", "");
        let mut gateway = site.run(&[]).await;
        let device = gateway.device();
        let connect = || async { device.connect(&["http/1.1"]).await.unwrap() };
        let (mut unused, mut fresh) = (connect().await, connect().await);
        let (begun, missing) = REQUEST.split_at(30);
        let mut half = connect().await;
        half.write_all(begun).await.unwrap();
        // The second of its connection; that it has begun comes together with the first.
        let mut second = connect().await;
        second.write_all(&[REQUEST, begun].concat()).await.unwrap();
        let mut first = Vec::new();
        while !first.ends_with(b"\r\n\r\nok") {
            assert_ne!(second.read_buf(&mut first).await.unwrap(), 0);
        }

        gateway.process.signal(signal).await;
        gateway.process.says(word).await;
        for (stream, rest) in [
            (&mut fresh, REQUEST),
            (&mut half, missing),
            (&mut second, missing),
        ] {
            stream.write_all(rest).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n"),
                "{signal}: {answer}"
            );
            assert!(
                answer.contains("connection: close\r\n"),
                "{signal}: {answer}"
            );
        }
        // One that nothing comes from is not waited for longer.
        assert_eq!(unused.read(&mut [0]).await.unwrap(), 0);
        if signal == "TERM" {
            let ended = gateway.process.end().await;
            assert!(ended.stderr.contains("\"cut\":0"), "{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn a_drain_cuts_what_is_left_at_its_deadline() {
    let site = Site::new().await;
    site.configure("drain_timeout = \"300ms\"", "");
    let gateway = site.run(&[]).await;
    let device = gateway.device();
    let request = tokio::spawn(async move { device.get("/http/silent").await });
    while site.origin.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("\"cut\":1"), "{}", ended.stderr);
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn a_drain_takes_as_long_as_the_last_reload_says() {
    let site = Site::new().await;
    site.configure("drain_timeout = \"1h\"", "");
    let mut gateway = site.run(&[]).await;
    site.configure("drain_timeout = \"300ms\"", "");
    gateway.process.signal("HUP").await;
    gateway.process.says("configuration reloaded").await;
    let device = gateway.device();
    let request = tokio::spawn(async move { device.get("/http/silent").await });
    while site.origin.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert!(ended.stderr.contains("\"cut\":1"), "{}", ended.stderr);
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for signals in [["TERM", "TERM"], ["INT", "TERM"], ["INT", "INT"]] {
        let site = Site::new().await;
        site.configure("drain_timeout = \"1h\"", "");
        let mut gateway = site.run(&[]).await;
        let device = gateway.device();
        let request = tokio::spawn(async move { device.get("/http/silent").await });
        while site.origin.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        gateway.process.signal(signals[0]).await;
        gateway.process.says("draining").await;
        let begun = Instant::now();
        gateway.process.signal(signals[1]).await;
        let ended = gateway.process.end().await;
        assert!(begun.elapsed() < SOON);
        assert_eq!(ended.code, Some(0), "{signals:?}");
        assert!(request.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_hang_up_reads_routes_and_certificates_again() {
    let site = Site::new().await;
    site.configure("", "");
    let mut gateway = site.run(&[]).await;
    let device = gateway.device();
    let before = device.connect(&["http/1.1"]).await.unwrap();
    assert_eq!(device.get("/new/m").await.unwrap().status, 404);

    let renewed = site.authority.server(&["localhost"]);
    site.write_identity(&renewed);
    site.configure(
        "",
        "[routes.new]\npath = \"/new/\"\nupstream = \"origin\"\n",
    );
    gateway.process.signal("HUP").await;
    gateway.process.says("configuration reloaded").await;

    assert_eq!(device.get("/new/m").await.unwrap().status, 200);
    let after = device.connect(&["http/1.1"]).await.unwrap();
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    assert_ne!(shown(&before), shown(&after));
    assert_eq!(shown(&after), renewed.chain[0]);
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(
        metrics.contains("portcullis_config_reloads_total{result=\"ok\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_hang_up_with_a_broken_configuration_changes_nothing() {
    let site = Site::new().await;
    site.configure("", "");
    let mut gateway = site.run(&[]).await;
    let mut failures = 0;
    for (name, text) in [
        ("config.toml", "nonsense"),
        ("config.toml", "unknown = 1"),
        ("ca.crt", "nonsense"),
        ("server.key", ""),
    ] {
        let path = site.path(name);
        let good = std::fs::read_to_string(&path).unwrap();
        site.write(name, text);
        gateway.process.signal("HUP").await;
        failures += 1;
        let counted = format!("portcullis_config_reloads_total{{result=\"error\"}} {failures}\n");
        let reached = async {
            while !gateway.admin("/metrics").await.1.contains(&counted) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, reached)
            .await
            .expect("the failure is not counted");
        gateway
            .process
            .says("configuration not reloaded, the former one stays")
            .await;
        assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
        site.write(name, &good);
    }
    gateway.process.signal("HUP").await;
    gateway.process.says("configuration reloaded").await;
    assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_port_in_use_stops_the_start_and_is_named() {
    let site = Site::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for table in ["[listeners.edge]", "[admin]"] {
        site.configure("", &format!("{table}\naddress = \"{address}\"\n"));
        let ended = site.start("run", &[]).end().await;
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&address.to_string()),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn check_accepts_what_run_accepts() {
    let site = Site::new().await;
    site.configure("", "");
    let ended = site.start("check", &[]).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("is valid"), "{}", ended.stdout);
}

#[tokio::test]
async fn check_lists_everything_that_is_wrong_with_its_place() {
    let site = Site::new().await;
    site.write(
        "config.toml",
        "auth = \"x508\"\n\
         drain_timeot = \"1s\"\n\
         [limits]\n\
         header_bytes = \"2GiB\"\n\
         [timeouts]\n\
         idle = 5\n\
         [tls]\n\
         certifcate = \"x\"\n\
         [listeners.edge]\n\
         address = \"nowhere\"\n\
         [upstreams.http]\n\
         servers = [\"noport\"]\n\
         [routes.http]\n\
         path = \"/a/../b\"\n\
         upstream = \"htpp\"\n",
    );
    for command in ["check", "run"] {
        let ended = site
            .start(command, &[("PORTCULLIS_LOG_LEVL", "info")])
            .end()
            .await;
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        for (place, key, hint) in [
            ("config.toml:1", "auth", "\"x509\" or \"key\""),
            (
                "config.toml:2",
                "drain_timeot",
                "did you mean drain_timeout?",
            ),
            ("config.toml:4", "limits.header_bytes", "must not exceed"),
            ("config.toml:6", "timeouts.idle", "with a unit"),
            (
                "config.toml:8",
                "tls.certifcate",
                "did you mean certificate?",
            ),
            ("config.toml:10", "listeners.edge.address", "\"nowhere\""),
            ("config.toml:12", "upstreams.http.servers", "host:port"),
            ("config.toml:14", "routes.http.path", "\"/b\""),
            ("config.toml:15", "routes.http.upstream", "there are: http"),
            (
                "PORTCULLIS_LOG_LEVL",
                "",
                "did you mean PORTCULLIS_LOG_LEVEL?",
            ),
        ] {
            let found = ended
                .stderr
                .lines()
                .any(|line| [place, key, hint].iter().all(|part| line.contains(part)));
            assert!(found, "{place} {key} {hint}:\n{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_ends_with_78() {
    let site = Site::new().await;
    let missing = site.start("run", &[]).end().await;
    assert_eq!(missing.code, Some(78), "{}", missing.stderr);
    assert!(missing.stderr.contains("config.toml"), "{}", missing.stderr);
    for (name, text) in [
        ("ca.crt", ""),
        ("server.crt", "nonsense"),
        ("server.key", ""),
    ] {
        let site = Site::new().await;
        site.configure("", "");
        site.write(name, text);
        for command in ["check", "run"] {
            let ended = site.start(command, &[]).end().await;
            assert_eq!(ended.code, Some(78), "{name}: {}", ended.stderr);
            assert!(ended.stderr.contains(name), "{name}: {}", ended.stderr);
        }
    }
    // Files that nobody has made, whatever they are for.
    for table in [
        "[assertions]\nkeys = [\"absent\"]",
        "[revocations]\nlist = \"absent\"",
        "[api_keys]\nlist = \"absent\"",
    ] {
        let site = Site::new().await;
        site.configure("", table);
        for command in ["check", "run"] {
            let ended = site.start(command, &[]).end().await;
            assert_eq!(ended.code, Some(78), "{table}: {}", ended.stderr);
            assert!(ended.stderr.contains("absent"), "{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn a_hang_up_names_what_takes_effect_at_a_restart_only() {
    const LATER: &str = "takes effect at a restart only";
    let site = Site::new().await;
    site.configure("", "");
    let mut gateway = site.run(&[]).await;
    gateway.process.signal("HUP").await;
    gateway.process.says("configuration reloaded").await;
    assert_eq!(gateway.process.lines_with(LATER), 0);

    site.configure("", "[log]\naccess = false\n[admin]\nenabled = false\n");
    // Each time, since it is so as long as the gateway runs.
    for times in 1..=2 {
        gateway.process.signal("HUP").await;
        while gateway.process.lines_with("configuration reloaded") <= times {
            tokio::task::yield_now().await;
        }
        assert_eq!(gateway.process.lines_with(LATER), 2 * times);
    }
    for key in ["log.access", "admin.enabled"] {
        assert_eq!(gateway.process.lines_with(&format!("\"key\":\"{key}\"")), 2);
    }
}

#[tokio::test]
async fn a_variable_that_overrides_nothing_stops_the_start() {
    let site = Site::new().await;
    site.configure("", "");
    for (variable, value) in [
        ("PORTCULLIS_X", "1"),
        ("PORTCULLIS_TLS_MIN_VERSIO", "1.3"),
        ("PORTCULLIS_LISTENERS_OTHER_ADDRESS", "127.0.0.1:1"),
        ("PORTCULLIS_AUTH_FILE", "/nonexistent"),
        ("PORTCULLIS_WORKERS", "many"),
    ] {
        let ended = site.start("check", &[(variable, value)]).end().await;
        assert_eq!(ended.code, Some(78), "{variable}");
        assert!(
            ended.stderr.contains(variable),
            "{variable}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn auth_names_what_is_allowed() {
    let site = Site::new().await;
    site.configure("", "");
    for value in ["foo", "", "X509", "KEY", "x509,key"] {
        let ended = site.start("run", &[("AUTH", value)]).end().await;
        assert_eq!(ended.code, Some(78), "{value}: {}", ended.stderr);
        for part in ["AUTH", "\"x509\"", "\"key\""] {
            assert!(ended.stderr.contains(part), "{value}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn auth_decides_how_clients_are_known() {
    let site = Site::new().await;
    site.write("mode", "key\n");
    let file = site.path("mode");
    for (top, environment, by_key) in [
        ("auth = \"x509\"", ("AUTH", "key"), true),
        ("auth = \"key\"", ("AUTH", "x509"), false),
        ("", ("PORTCULLIS_AUTH", "key"), true),
        ("", ("PORTCULLIS_AUTH_FILE", file.to_str().unwrap()), true),
    ] {
        site.configure(top, "");
        let gateway = site.run(&[environment]).await;
        let fields = [("authorization", SECRET)];
        let anonymous = gateway
            .client(None)
            .send(Protocol::Http1, "/http/m", &fields)
            .await;
        let device = gateway.device().get("/http/m").await.unwrap().status;
        if by_key {
            assert_eq!(anonymous.unwrap().status, 200, "{environment:?}");
            // The certificate has not been asked for, so it is no credential.
            assert_eq!(device, 401, "{environment:?}");
        } else {
            assert!(anonymous.is_err(), "{environment:?}");
            assert_eq!(device, 200, "{environment:?}");
        }
    }
}

#[tokio::test]
async fn every_key_can_be_set_by_a_variable() {
    let site = Site::new().await;
    site.configure("", "");
    let gateway = site
        .run(&[
            ("PORTCULLIS_LIMITS_URI_BYTES", "16B"),
            ("PORTCULLIS_ROUTES_HTTP_STRIP_PREFIX", "false"),
            ("PORTCULLIS_TLS_MIN_VERSION", "1.2"),
        ])
        .await;
    let device = gateway.device();
    assert_eq!(device.get("/http/m").await.unwrap().status, 200);
    assert_eq!(site.origin.only_request().target, "/http/m");
    assert_eq!(
        device.get("/http/mmmmmmmmmmmmmm").await.unwrap().status,
        414
    );
}

#[tokio::test]
async fn the_command_line_answers_for_itself() {
    let version = Process::start(&["version"], &[]).end().await;
    assert_eq!(version.code, Some(0));
    assert_eq!(
        version.stdout,
        format!("portcullis {}\n", env!("CARGO_PKG_VERSION"))
    );
    for wrong in [&[][..], &["fly"], &["run", "--fast"], &["version", "x"]] {
        let ended = Process::start(wrong, &[]).end().await;
        assert_eq!(ended.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_printed_ends_a_command_with_1_and_no_complaint_changes_a_code() {
    let site = Site::new().await;
    site.configure("", "");
    for command in [&["version"][..], &["api-key", "--owner", "u"], &["check"]] {
        let ended = site.start_onto("1>/dev/full", command).end().await;
        assert_eq!(ended.code, Some(1), "{command:?}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with("cannot write to standard output"),
            "{command:?}: {}",
            ended.stderr
        );
    }
    let mute = site.start_onto("2>/dev/full", &["api-key", "--owner", "u"]);
    assert_eq!(mute.end().await.code, Some(1));
    // Two mistakes, since the last is said elsewhere than the others.
    site.configure("", "[listeners.one]\n[listeners.two]\n");
    let mute = site.start_onto("2>/dev/full", &["check"]);
    assert_eq!(mute.end().await.code, Some(78));
}

#[tokio::test]
async fn healthcheck_says_whether_the_gateway_runs() {
    let site = Site::new().await;
    // The listener tells its port to nobody, so it must be known beforehand.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    site.configure("", &format!("[admin]\naddress = \"{address}\"\n"));
    let ended = site.start("healthcheck", &[]).end().await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&address.to_string()),
        "{}",
        ended.stderr
    );

    let _gateway = site.run(&[]).await;
    let ended = site.start("healthcheck", &[]).end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    site.configure("", "[admin]\nenabled = false\n");
    let ended = site.start("healthcheck", &[]).end().await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
}

#[tokio::test]
async fn the_log_says_why_a_certificate_is_refused_whatever_its_alert() {
    let site = Site::new().await;
    site.configure("", "");
    let mut gateway = site.run(&[]).await;
    let stranger = Authority::new("Other CA").device(SECRET);
    let server = site.authority.server(&["localhost"]);
    for (identity, reason) in [
        (stranger, "no authority in tls.client_ca has issued it"),
        (server, "its extended key usage does not include clientAuth"),
    ] {
        gateway.client(Some(identity)).alert().await;
        gateway.process.says(&format!("refused: {reason}")).await;
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let site = Site::new().await;
    site.configure("", "");
    let gateway = site.run(&[]).await;
    let mut kept = gateway.device().keep(Protocol::Http2).await.unwrap();
    kept.get("/http/m", &[]).await.unwrap();
    kept.get("/http/m", &[("authorization", "x")])
        .await
        .unwrap();
    kept.get("/nowhere", &[]).await.unwrap();
    assert!(gateway.client(None).get("/http/m").await.is_err());
    let stranger = Authority::new("Fleet CA").device(SECRET);
    assert!(gateway.client(Some(stranger)).get("/http/m").await.is_err());
    let socket = gateway.device().open_websocket("/ws/m", &[]).await.unwrap();
    let wanted = [
        "portcullis_connections_accepted_total{listener=\"edge\"} 4",
        "portcullis_connections_active{listener=\"edge\"} 2",
        "portcullis_tls_handshakes_total{listener=\"edge\",result=\"full\"} 2",
        "portcullis_tls_handshakes_total{listener=\"edge\",result=\"certificate\"} 1",
        "portcullis_tls_handshakes_total{listener=\"edge\",result=\"failed\"} 1",
        "portcullis_http_requests_total{route=\"http\",status=\"2xx\"} 1",
        "portcullis_http_requests_total{route=\"http\",status=\"4xx\"} 1",
        "portcullis_http_requests_total{route=\"\",status=\"4xx\"} 1",
        "portcullis_http_requests_total{route=\"ws\",status=\"1xx\"} 1",
        "portcullis_http_request_duration_seconds_count{route=\"http\"} 2",
        "portcullis_refusals_total{reason=\"mismatch\"} 1",
        "portcullis_refusals_total{reason=\"no_route\"} 1",
        "portcullis_websockets_active 1",
        "# EOF",
    ];
    // Both ends of a request are seen before the gateway has counted it.
    let complete = async {
        loop {
            let (status, metrics) = gateway.admin("/metrics").await;
            assert_eq!(status, 200);
            let lines: Vec<&str> = metrics.lines().collect();
            if wanted.iter().all(|line| lines.contains(line)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(SOON, complete).await.is_err() {
        panic!("{}", gateway.admin("/metrics").await.1);
    }
    drop(socket);
}

#[tokio::test]
async fn each_request_leaves_one_line_in_the_access_log_without_its_query() {
    let site = Site::new().await;
    site.configure("", "");
    let mut gateway = site.run(&[]).await;
    let device = gateway.device();
    let host = device.host.clone();
    let mut ids = Vec::new();
    for (protocol, path) in [
        (Protocol::Http1, "/http/bytes/5?token=qu3ry"),
        (Protocol::Http2, "/http/m?authorization=wrong-qu3ry"),
        (Protocol::WebSocket, "/ws/m?x=qu3ry"),
        (Protocol::Http1, "/nowhere?x=qu3ry"),
        (Protocol::Http1, "/http/%00?x=qu3ry"),
    ] {
        let answer = device.send(protocol, path, &[]).await.unwrap();
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        gateway.process.prints(&id).await;
        ids.push(id);
    }
    let post = device
        .keep(Protocol::Http1)
        .await
        .unwrap()
        .request(Method::POST, "/http/\"quoted\"?x=qu3ry", &[], whole("body"))
        .await;
    assert_eq!(post.unwrap().status, 200);
    gateway.process.prints("POST").await;

    let log = gateway.process.access_log();
    assert_eq!(log.len(), 6);
    let keys: Vec<&str> = log[0]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut documented = [
        "ts",
        "request_id",
        "listener",
        "client_ip",
        "client_port",
        "protocol",
        "method",
        "host",
        "path",
        "status",
        "bytes_out",
        "duration_ms",
        "server",
        "route",
        "cert_fp_sha256",
        "reason",
    ];
    documented.sort_unstable();
    assert_eq!(keys, documented);
    for (line, id) in log.iter().zip(&ids) {
        assert_eq!(line["request_id"], id.as_str());
        assert_eq!(line["listener"], "edge");
        assert_eq!(line["client_ip"], "127.0.0.1");
        assert_eq!(line["cert_fp_sha256"].as_str().unwrap().len(), 64);
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
        let ts = line["ts"].as_str().unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z'), "{ts}");
    }
    let row = |n: usize| {
        let line = &log[n];
        ["protocol", "method", "path", "status", "route", "reason"].map(|key| match &line[key] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    assert_eq!(log[0]["host"], host.split(':').next().unwrap());
    assert_eq!(log[0]["bytes_out"], 5);
    assert_eq!(
        row(0),
        ["http/1.1", "GET", "/http/bytes/5", "200", "http", "null"]
    );
    assert_eq!(row(1), ["h2", "GET", "/http/m", "403", "http", "mismatch"]);
    assert_eq!(row(2), ["http/1.1", "GET", "/ws/m", "101", "ws", "null"]);
    assert_eq!(
        row(3),
        ["http/1.1", "GET", "/nowhere", "404", "null", "no_route"]
    );
    assert_eq!(row(4)[3..], ["400", "null", "bad_target"]);
    // In its normal form.
    assert_eq!(
        row(5)[..4],
        ["http/1.1", "POST", "/http/%22quoted%22", "200"]
    );

    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(json_lines(&ended.stdout).len(), 6);
    assert!(!ended.stdout.contains("qu3ry") && !ended.stderr.contains("qu3ry"));
    json_lines(&ended.stderr);
}

#[tokio::test]
async fn a_client_that_leaves_is_told_from_a_fault_of_ours() {
    for (begun, status) in [
        ("", 499),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", 200),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let server = Scripted::start().await;
            let site = Site::new().await;
            site.configure("", &server.tables());
            let mut gateway = site.run(&[]).await;
            let mut client = gateway.device().keep(protocol).await.unwrap();
            let request = Box::pin(client.begin(Method::GET, "/raw/m", &[], whole("")));
            let asked = async {
                let mut peer = server.accept().await;
                peer.head().await;
                peer.say(begun).await;
                peer
            };
            let _peer = if begun.is_empty() {
                // The request is dropped as soon as the server has it.
                match select(request, Box::pin(asked)).await {
                    Either::Left(_) => panic!("an answer"),
                    Either::Right((peer, _)) => peer,
                }
            } else {
                let (answer, peer) = join(request, asked).await;
                assert_eq!(answer.unwrap().status(), status);
                peer
            };
            drop(client);
            gateway.process.prints("aborted").await;
            let line = &gateway.process.access_log()[0];
            assert_eq!(line["status"], status, "{protocol:?}");
            let (_, page) = gateway.admin("/metrics").await;
            let failed = "route=\"raw\",status=\"5xx\"} 0";
            assert!(page.contains(failed), "{page}");
        }
    }
}

#[tokio::test]
async fn the_access_log_can_be_switched_off() {
    let site = Site::new().await;
    site.configure("", "[log]\naccess = false\n");
    let gateway = site.run(&[]).await;
    assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await.stdout, "");
}

#[tokio::test]
async fn nobody_waits_for_who_holds_a_log_and_does_not_read_it() {
    let site = Site::new().await;
    site.configure("", "[log]\nlevel = \"debug\"\n");
    let mut gateway = site.run(&[]).await;
    gateway.process.stop_reading();
    // More lines than a pipe takes.
    for _ in 0..500 {
        assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
    }
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code, Some(0));
    let logs = [&ended.stdout, &ended.stderr];
    assert!(logs.iter().all(|log| log.len() > 60_000), "a pipe has room");
}

#[tokio::test]
async fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let site = Site::new().await;
    site.configure("", "[log]\nlevel = \"debug\"\n");
    let mut gateway = site.run(&[]).await;
    gateway.process.stop_listening().await;
    // Each connection and the reload have something to say.
    assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
    gateway.process.signal("HUP").await;
    let reloaded = "portcullis_config_reloads_total{result=\"ok\"} 1\n";
    while !gateway.admin("/metrics").await.1.contains(reloaded) {}
    assert_eq!(gateway.device().get("/http/m").await.unwrap().status, 200);
    gateway.process.signal("TERM").await;
    assert_eq!(gateway.process.end().await.code, Some(0));
}
