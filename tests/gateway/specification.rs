//! The specification's own commands, word for word, by the real curl, the real npm `ws` and the real
//! mosquitto clients. Only its placeholders are filled in, and the port replaced. MQTT.js does the
//! same inside WebSockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::harness::demo::{Demo, lines_of};

const SECRET: &str = "d7cc2964-a48b-4a6e-871a-08da28e7883d";
const CHANNEL: &str = "/http/m/3c2f/c/7a91";
const TOPIC: &str = "m/3c2f/c/7a91";
const PUBLISH: &str = include_str!("fixtures/specification/publish.sh");
const MQTT_PUBLISH: &str = include_str!("fixtures/specification/mosquitto_pub.sh");
const MQTT_SUBSCRIBE: &str = include_str!("fixtures/specification/mosquitto_sub.sh");
const WEBSOCKET: &str = include_str!("fixtures/specification/websocket.js");
const PATIENCE: Duration = Duration::from_secs(30);

fn publish_command(demo: &Demo) -> String {
    PUBLISH
        .replace("<client_cert_name>", "client")
        .replace("<client_cert_key>", "client")
        .replace(
            "https://localhost/",
            &format!("https://localhost:{}/", demo.address.port()),
        )
        .replace("{domain_id}", "3c2f")
        .replace("{channel_id}", "7a91")
}

/// One of the two MQTT commands.
fn mqtt_command(demo: &Demo, text: &str, secret: &str) -> String {
    text.trim_end()
        .replace("<client_name>", "sensor")
        .replace("<client_id>", "c9f0f895-fb98-4b91-99f5-1fd0297e236d")
        .replace("<client_secret>", secret)
        .replace("<domain_id>", "3c2f")
        .replace("<channel_id>", "7a91")
        .replace("<client_cert_name>", "client")
        .replace("<client_cert_key>", "client")
        .replace("-p 8883", &format!("-p {}", demo.mqtts.port()))
}

fn status_of(output: &str) -> &str {
    output
        .split_whitespace()
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {output}"))
}

/// A program that runs beside the test; its lines as they come.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The specification's WebSocket program, run by Node. It says when it is open.
    fn websocket(demo: &Demo, secret: &str) -> Self {
        let read = |name: &str| fs::read_to_string(certificates(demo).join(name)).unwrap();
        let program = WEBSOCKET
            .replace(
                "wss://localhost/",
                &format!("wss://localhost:{}/", demo.address.port()),
            )
            .replace("<domain_id>", "3c2f")
            .replace("<channel_id>", "7a91")
            .replace("<client_secret>", secret)
            .replace("-----BEGIN CERTIFICATE-----....", &read("client.crt"))
            .replace("-----BEGIN RSA PRIVATE KEY-----.....", &read("client.key"));
        // Printed once the socket is open, so that the test knows when to publish.
        let program = format!("{program}\nws.on(\"open\", () => console.log(\"opened\"));\n");
        let path = demo.directory.path().join("websocket.js");
        fs::write(&path, program).unwrap();
        let mut command = node("ws");
        command.arg(&path);
        Self::start(command)
    }

    /// The specification's mosquitto_sub. It says when it has subscribed, by `-d`.
    fn mosquitto_sub(demo: &Demo, secret: &str) -> Self {
        let text = mqtt_command(demo, MQTT_SUBSCRIBE, secret);
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("exec stdbuf -oL {text} -d")])
            .current_dir(demo.directory.path());
        Self::start(command)
    }

    /// MQTT.js inside a WebSocket, in version 4 (3.1.1) or 5.
    fn mqtt_js(demo: &Demo, version: &str, secret: &str, message: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/fixtures/mqtt.js");
        let url = format!("wss://localhost:{}/mqtt", demo.address.port());
        let mut command = node("mqtt");
        command
            .arg(&path)
            .args([&url, version])
            .arg(certificates(demo))
            .args([secret, TOPIC, message]);
        Self::start(command)
    }

    fn wait_for(&self, what: &str) -> String {
        let mut heard = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => heard.push_str(&line),
                Err(error) => panic!("{error} before {what:?}: {heard}"),
            }
            if heard.contains(what) {
                return heard;
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificates(demo: &Demo) -> PathBuf {
    demo.directory.path().join("docker/ssl/certs")
}

/// Node with the modules of `tests/clients`, which must have this one.
fn node(module: &str) -> Command {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules");
    assert!(
        modules.join(module).exists(),
        "npm's {module} is missing: `make test` installs it"
    );
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    command
}

#[test]
fn the_curl_command_publishes() {
    for auth in ["x509", "key"] {
        let demo = Demo::start(auth, SECRET);
        let mut command = publish_command(&demo);
        if auth == "key" {
            let field = format!("-H \"Authorization: Client {SECRET}\" -X POST");
            command = command.replace("-X POST", &field);
        }
        let output = demo.shell(&command);
        let answer = String::from_utf8_lossy(&output.stdout);
        assert_eq!(status_of(&answer), "202", "{auth}: {output:?}");
    }
}

#[test]
fn the_curl_command_is_refused_with_another_secret_and_without_a_certificate() {
    let demo = Demo::start("x509", SECRET);
    let wrong = publish_command(&demo).replace("-X POST", "-H \"Authorization: Client x\" -X POST");
    let output = demo.shell(&wrong);
    assert_eq!(
        status_of(&String::from_utf8_lossy(&output.stdout)),
        "403",
        "{output:?}"
    );

    let lines = publish_command(&demo);
    let certless: Vec<&str> = lines
        .lines()
        .filter(|line| !line.contains("--cert ") && !line.contains("--key"))
        .collect();
    let output = demo.shell(&certless.join("\n"));
    assert!(!output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("certificate required"),
        "{output:?}"
    );
}

#[test]
fn the_node_program_receives_what_curl_publishes() {
    let demo = Demo::start("x509", SECRET);
    let program = Program::websocket(&demo, SECRET);
    program.wait_for("opened");
    let output = demo.shell(&publish_command(&demo));
    assert_eq!(
        status_of(&String::from_utf8_lossy(&output.stdout)),
        "202",
        "{output:?}"
    );
    // The program prints a Buffer: `<Buffer 5b 0a …>`, the first bytes of the JSON.
    program.wait_for("<Buffer 5b 20 20 7b");
}

#[test]
fn the_node_program_is_refused_with_another_secret() {
    let demo = Demo::start("x509", SECRET);
    let program = Program::websocket(&demo, "another-secret");
    program.wait_for("Unexpected server response: 403");
}

#[test]
fn a_subscriber_of_another_channel_receives_nothing_of_it() {
    let demo = Demo::start("x509", SECRET);
    let program = Program::websocket(&demo, SECRET);
    program.wait_for("opened");
    let publish = publish_command(&demo);
    // Another channel gets another message, which would be printed first.
    let elsewhere = publish
        .replace(CHANNEL, "/http/m/3c2f/c/other")
        .replace("EOF\n[", "EOF\n {");
    for command in [&elsewhere, &publish] {
        let output = demo.shell(command);
        assert_eq!(
            status_of(&String::from_utf8_lossy(&output.stdout)),
            "202",
            "{output:?}"
        );
    }
    let heard = program.wait_for("<Buffer 5b");
    assert!(!heard.contains("<Buffer 20"), "{heard}");
}

/// The first of what curl publishes, and the first of what mosquitto_pub publishes.
const OF_CURL: &str = "\"bn\": \"some-base-name:\"";
const OF_MOSQUITTO: &str = "[{\"bn\":\"some-base-name:\"";

/// Runs the curl command, by key with the field that it needs then.
fn curl_publishes(demo: &Demo, auth: &str) {
    let mut command = publish_command(demo);
    if auth == "key" {
        let field = format!("-H \"Authorization: Client {SECRET}\" -X POST");
        command = command.replace("-X POST", &field);
    }
    let output = demo.shell(&command);
    let answer = String::from_utf8_lossy(&output.stdout);
    assert_eq!(status_of(&answer), "202", "{auth}: {output:?}");
}

#[test]
fn mosquitto_sub_receives_what_curl_and_mosquitto_pub_publish() {
    for auth in ["x509", "key"] {
        let demo = Demo::start(auth, SECRET);
        let subscriber = Program::mosquitto_sub(&demo, SECRET);
        subscriber.wait_for("Subscribed");
        curl_publishes(&demo, auth);
        subscriber.wait_for(OF_CURL);
        let output = demo.shell(&mqtt_command(&demo, MQTT_PUBLISH, SECRET));
        assert!(output.status.success(), "{auth}: {output:?}");
        subscriber.wait_for(OF_MOSQUITTO);
    }
}

#[test]
fn the_node_program_receives_what_mosquitto_pub_publishes() {
    for auth in ["x509", "key"] {
        let demo = Demo::start(auth, SECRET);
        let program = Program::websocket(&demo, SECRET);
        program.wait_for("opened");
        let output = demo.shell(&mqtt_command(&demo, MQTT_PUBLISH, SECRET));
        assert!(output.status.success(), "{auth}: {output:?}");
        // `[{"bn`
        program.wait_for("<Buffer 5b 7b 22 62 6e");
    }
}

#[test]
fn mosquitto_sub_receives_what_the_node_program_sends() {
    let demo = Demo::start("x509", SECRET);
    let subscriber = Program::mosquitto_sub(&demo, SECRET);
    subscriber.wait_for("Subscribed");
    let program = Program::websocket(&demo, SECRET);
    program.wait_for("opened");
    subscriber.wait_for("someclient");
}

#[test]
fn the_mosquitto_commands_are_refused_with_another_secret() {
    let demo = Demo::start("x509", SECRET);
    let subscriber = Program::mosquitto_sub(&demo, SECRET);
    subscriber.wait_for("Subscribed");
    let suffix = &SECRET[SECRET.len() - 12..];
    for secret in ["another-secret", suffix, "''"] {
        for text in [MQTT_PUBLISH, MQTT_SUBSCRIBE] {
            let output = demo.shell(&mqtt_command(&demo, text, secret));
            assert_eq!(output.status.code(), Some(5), "{secret}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.to_lowercase().contains("not authori"), "{output:?}");
        }
    }
    curl_publishes(&demo, "x509");
    let heard = subscriber.wait_for(OF_CURL);
    assert!(!heard.contains(OF_MOSQUITTO), "{heard}");
}

#[test]
fn the_mosquitto_commands_are_refused_without_a_certificate() {
    let demo = Demo::start("x509", SECRET);
    for text in [MQTT_PUBLISH, MQTT_SUBSCRIBE] {
        let command = mqtt_command(&demo, text, SECRET);
        let command = command
            .replace("--cert docker/ssl/certs/client.crt", "")
            .replace("--key docker/ssl/certs/client.key", "");
        let output = demo.shell(&command);
        assert!(!output.status.success(), "{output:?}");
    }
}

#[test]
fn mqtt_js_publishes_and_subscribes_inside_a_websocket() {
    for auth in ["x509", "key"] {
        let demo = Demo::start(auth, SECRET);
        for version in ["4", "5"] {
            let subscriber = Program::mosquitto_sub(&demo, SECRET);
            subscriber.wait_for("Subscribed");
            let program = Program::mqtt_js(&demo, version, SECRET, "from a browser");
            program.wait_for("subscribed");
            subscriber.wait_for("from a browser");
            program.wait_for("received from a browser");
            curl_publishes(&demo, auth);
            program.wait_for(OF_CURL);
        }
    }
}

#[test]
fn mqtt_js_is_refused_with_another_secret() {
    let demo = Demo::start("x509", SECRET);
    for (version, code) in [("4", "error 5 "), ("5", "error 135 ")] {
        let program = Program::mqtt_js(&demo, version, "another-secret", "");
        let heard = program.wait_for(code);
        assert!(!heard.contains("subscribed"), "{heard}");
    }
}
