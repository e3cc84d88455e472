//! The real binary, with configuration files in a folder of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::plain_get;
use super::lab::SECRET;
use super::{Authority, Client, Identity, Origin};

/// Longer than anything here takes; a test that meets it has hung.
const PATIENCE: Duration = Duration::from_secs(30);

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// A folder with certificates and a configuration, and the origin that it names.
pub struct Site {
    pub authority: Authority,
    pub origin: Origin,
    directory: TempDir,
}

/// The process while it runs.
pub struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Everything that has come out of a pipe so far, the task that reads it, and whether it may.
struct Output(watch::Receiver<String>, JoinHandle<()>, watch::Sender<bool>);

impl Site {
    pub async fn new() -> Self {
        let site = Self {
            authority: Authority::new("Fleet CA"),
            origin: Origin::start().await,
            directory: TempDir::new().unwrap(),
        };
        site.write("ca.crt", site.authority.pem());
        site.write_identity(&site.authority.server(&["localhost"]));
        site
    }

    /// Writes `config.toml`: `top` before the first table, `tables` after the last.
    pub fn configure(&self, top: &str, tables: &str) {
        let origin = self.origin.address;
        let mut text = format!("workers = 1\n{top}\n");
        if !tables.contains("[admin]") {
            text.push_str("[admin]\naddress = \"127.0.0.1:0\"\n");
        }
        if !tables.contains("[listeners.edge]") {
            text.push_str("[listeners.edge]\naddress = \"127.0.0.1:0\"\n");
        }
        write!(
            text,
            "[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\nclient_ca = [\"ca.crt\"]\n\
             [upstreams.origin]\nservers = [\"{origin}\"]\n\
             [routes.http]\npath = \"/http/\"\nupstream = \"origin\"\nstrip_prefix = true\n\
             [routes.ws]\npath = \"/ws/\"\nupstream = \"origin\"\nstrip_prefix = true\n{tables}\n"
        )
        .unwrap();
        self.write("config.toml", &text);
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Puts this server certificate where the configuration looks for it.
    pub fn write_identity(&self, identity: &Identity) {
        self.write("server.crt", &identity.chain_pem);
        self.write("server.key", &identity.key_pem);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of the binary on this configuration.
    pub fn start(&self, command: &str, environment: &[(&str, &str)]) -> Process {
        let path = self.path("config.toml");
        Process::start(&[command, "--config", path.to_str().unwrap()], environment)
    }

    /// The binary in this site's folder, with this redirection of the shell's.
    pub fn start_onto(&self, redirection: &str, arguments: &[&str]) -> Process {
        let script = format!("exec \"$@\" {redirection}");
        let mut command = Command::new("/bin/sh");
        command.current_dir(self.directory.path());
        command.args(["-c", &script, "sh", BINARY]).args(arguments);
        Process::spawn(&mut command, &[])
    }

    /// `run`, once it serves.
    pub async fn run(&self, environment: &[(&str, &str)]) -> Running<'_> {
        self.running(self.start("run", environment)).await
    }

    /// The same with so many file descriptors at most, whatever it does to have more.
    pub async fn run_within(&self, descriptors: u64) -> Running<'_> {
        let path = self.path("config.toml");
        let script = format!("ulimit -n {descriptors}; exec \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh", BINARY, "run", "--config"]);
        self.running(Process::spawn(command.arg(path), &[])).await
    }

    async fn running(&self, mut process: Process) -> Running<'_> {
        let edge = process.address("\"listening\"").await;
        let admin = process.address("\"admin listening\"").await;
        Running {
            site: self,
            process,
            edge,
            admin,
        }
    }
}

/// A gateway that serves, in a process of its own.
pub struct Running<'a> {
    site: &'a Site,
    pub process: Process,
    pub edge: SocketAddr,
    pub admin: SocketAddr,
}

impl Running<'_> {
    /// A client of the device with [`SECRET`].
    pub fn device(&self) -> Client {
        self.client(Some(self.site.authority.device(SECRET)))
    }

    /// A client with this certificate, or with none.
    pub fn client(&self, identity: Option<Identity>) -> Client {
        Client::new(self.edge, self.site.authority.der(), identity)
    }

    /// Where the listener of this name listens.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        let lines = json_lines(&self.process.stderr.0.borrow());
        let found = lines.iter().find(|line| line["listener"] == listener);
        found.unwrap()["address"].as_str().unwrap().parse().unwrap()
    }

    /// A page of the admin listener: status and body.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        plain_get(self.admin, path).await
    }
}

impl Process {
    /// The binary with these arguments, this environment and nothing else.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(BINARY).args(arguments), environment)
    }

    fn spawn(command: &mut Command, environment: &[(&str, &str)]) -> Self {
        let mut child = command
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = Output::of(child.stdout.take().unwrap());
        let stderr = Output::of(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Sends a signal by its short name.
    pub async fn signal(&self, name: &str) {
        let process = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill")
            .args(["-s", name, &process])
            .status()
            .await
            .unwrap();
        assert!(status.success());
    }

    /// What it holds in memory, in KiB.
    pub async fn memory(&self) -> u64 {
        let process = self.child.id().expect("it runs").to_string();
        let said = Command::new("ps")
            .args(["-o", "rss=", "-p", &process])
            .output()
            .await;
        String::from_utf8(said.unwrap().stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// Waits until standard error holds `text`.
    pub async fn says(&mut self, text: &str) {
        self.stderr.holds(text).await;
    }

    /// From now on nobody reads what it says on standard error.
    pub async fn stop_listening(&mut self) {
        self.stderr.leave().await;
    }

    /// Leaves standard output and standard error open, but unread for as long as the process runs.
    pub fn stop_reading(&mut self) {
        for output in [&self.stdout, &self.stderr] {
            output.2.send_replace(false);
        }
    }

    /// Waits until standard output holds `text`.
    pub async fn prints(&mut self, text: &str) {
        self.stdout.holds(text).await;
    }

    /// How many lines of standard error hold `text` so far.
    pub fn lines_with(&self, text: &str) -> usize {
        let said = self.stderr.0.borrow();
        said.lines().filter(|line| line.contains(text)).count()
    }

    /// The access log so far.
    pub fn access_log(&self) -> Vec<Value> {
        json_lines(&self.stdout.0.borrow())
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Ended {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the process does not end")
            .unwrap();
        Ended {
            code: status.code(),
            stdout: self.stdout.rest().await,
            stderr: self.stderr.rest().await,
        }
    }

    async fn address(&mut self, message: &str) -> SocketAddr {
        let text = self.stderr.holds(message).await;
        let line = text.lines().find(|line| line.contains(message)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        line["address"].as_str().unwrap().parse().unwrap()
    }
}

/// Every line as an object.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

impl Output {
    fn of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(String::new());
        let (may_read, mut may) = watch::channel(true);
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(pipe).lines();
            while may.wait_for(|may| *may).await.is_ok() {
                let Ok(Some(line)) = lines.next_line().await else {
                    return;
                };
                sender.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        Self(receiver, reader, may_read)
    }

    /// Closes the pipe.
    async fn leave(&mut self) {
        self.1.abort();
        assert!((&mut self.1).await.is_err_and(|ended| ended.is_cancelled()));
    }

    async fn holds(&mut self, wanted: &str) -> String {
        let found = tokio::time::timeout(PATIENCE, self.0.wait_for(|text| text.contains(wanted)));
        if let Ok(Ok(text)) = found.await {
            return text.clone();
        }
        panic!("no {wanted:?} in:\n{}", *self.0.borrow());
    }

    /// All of it, after the process has ended.
    async fn rest(mut self) -> String {
        self.2.send_replace(true);
        while self.0.changed().await.is_ok() {}
        self.0.borrow().clone()
    }
}
