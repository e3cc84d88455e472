//! The specification's own commands, word for word, by the real curl and the real npm `ws`. Only
//! its placeholders are filled in, and the port added.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::harness::demo::{Demo, lines_of};

const SECRET: &str = "d7cc2964-a48b-4a6e-871a-08da28e7883d";
const CHANNEL: &str = "/http/m/3c2f/c/7a91";
const PUBLISH: &str = include_str!("fixtures/specification/publish.sh");
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

fn status_of(output: &str) -> &str {
    output
        .split_whitespace()
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {output}"))
}

/// The program of the specification, run by Node; its lines as they come.
struct WebSocketProgram {
    child: Child,
    lines: Receiver<String>,
}

impl WebSocketProgram {
    fn start(demo: &Demo, secret: &str) -> Self {
        let certs = demo.directory.path().join("docker/ssl/certs");
        let read = |name: &str| fs::read_to_string(certs.join(name)).unwrap();
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
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules");
        assert!(
            modules.join("ws").exists(),
            "npm's ws is missing: `make test` installs it"
        );
        let mut child = Command::new("node")
            .arg(&path)
            .env("NODE_PATH", modules)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
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

impl Drop for WebSocketProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let program = WebSocketProgram::start(&demo, SECRET);
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
    let program = WebSocketProgram::start(&demo, "another-secret");
    program.wait_for("Unexpected server response: 403");
}

#[test]
fn a_subscriber_of_another_channel_receives_nothing_of_it() {
    let demo = Demo::start("x509", SECRET);
    let program = WebSocketProgram::start(&demo, SECRET);
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
