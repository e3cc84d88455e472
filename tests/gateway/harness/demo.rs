//! The demo as a user runs it: the stand-in adapters and the real binary, as processes, with the
//! certificates where the specification's commands look for them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::Authority;

/// Long enough for anything that works, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both processes and the folder that the commands are run in.
pub struct Demo {
    pub directory: TempDir,
    pub address: SocketAddr,
    /// Of the MQTTS listener.
    pub mqtts: SocketAddr,
    _gateway: Running,
    _adapters: Running,
}

/// A child that does not outlive its test.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Demo {
    /// `auth` is what `AUTH` says; `secret` is in the certificate of `client`.
    pub fn start(auth: &str, secret: &str) -> Self {
        let directory = TempDir::new().unwrap();
        write_certificates(&directory.path().join("docker/ssl/certs"), secret);
        let (adapters, addresses) = start_adapters();
        let config = directory.path().join("config.toml");
        fs::write(&config, config_text(&addresses)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(["run", "--config"])
            .arg(&config)
            .env("AUTH", auth);
        let (gateway, address, lines) = start_gateway_with_log(command);
        // In the order of their names: edge, mqtts.
        let mqtts = next_address(&lines);
        Self {
            directory,
            address,
            mqtts,
            _gateway: gateway,
            _adapters: adapters,
        }
    }

    /// Runs a shell command as a user would, in the project's root.
    pub fn shell(&self, command: &str) -> Output {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", command])
            .current_dir(self.directory.path());
        shell.output().unwrap()
    }
}

/// Starts a gateway and waits until it says where it listens; with the lines that it logs from then
/// on.
pub fn start_gateway_with_log(
    mut command: Command,
) -> (Running, SocketAddr, mpsc::Receiver<String>) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stderr.take().unwrap());
    let running = Running(child);
    let address = next_address(&lines);
    (running, address, lines)
}

fn next_address(lines: &mpsc::Receiver<String>) -> SocketAddr {
    loop {
        let line = lines
            .recv_timeout(PATIENCE)
            .expect("the gateway says where it listens");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        if line["message"] == "listening" {
            return line["address"].as_str().unwrap().parse().unwrap();
        }
    }
}

fn start_adapters() -> (Running, Value) {
    let mut command = Command::new(adapters_binary());
    for option in ["--http", "--ws", "--mqtt", "--mqtt-ws"] {
        command.args([option, "127.0.0.1:0"]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let running = Running(child);
    let addresses = lines
        .recv_timeout(PATIENCE)
        .expect("the adapters say where they listen");
    (running, serde_json::from_str(&addresses).unwrap())
}

/// Cargo builds examples before integration tests, beside the folder that those are run from.
fn adapters_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/adapters")
}

/// The lines of a child's output, read by a thread so that waiting for one can time out and the
/// child never blocks on a full pipe.
pub fn lines_of(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn write_certificates(folder: &std::path::Path, secret: &str) {
    fs::create_dir_all(folder).unwrap();
    let authority = Authority::new("Demo CA");
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    let server = authority.server(&["localhost"]);
    for (name, identity) in [("server", server), ("client", authority.device(secret))] {
        fs::write(folder.join(format!("{name}.crt")), &identity.chain_pem).unwrap();
        fs::write(folder.join(format!("{name}.key")), &identity.key_pem).unwrap();
    }
}

fn config_text(adapters: &Value) -> String {
    let certs = "docker/ssl/certs";
    format!(
        "[admin]\nenabled = false\n\
         [log]\nlevel = \"info\"\n\
         [tls]\ncertificate = \"{certs}/server.crt\"\nkey = \"{certs}/server.key\"\n\
         client_ca = [\"{certs}/ca.crt\"]\n\
         [listeners.edge]\naddress = \"127.0.0.1:0\"\n\
         [listeners.mqtts]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"mqtt\"\n\
         [upstreams.http]\nservers = [{}]\n[upstreams.ws]\nservers = [{}]\n\
         [upstreams.mqtt]\nservers = [{}]\n\
         [routes.http]\npath = \"/http/\"\nupstream = \"http\"\nstrip_prefix = true\n\
         [routes.ws]\npath = \"/ws/\"\nupstream = \"ws\"\nstrip_prefix = true\n\
         [routes.mqtt]\npath = \"/mqtt\"\nprotocol = \"mqtt\"\nupstream = \"mqtt\"\n",
        adapters["http"], adapters["ws"], adapters["mqtt"]
    )
}
