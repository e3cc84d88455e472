//! The command line: `run`, `check`, `healthcheck`, `api-key`, `version`, and what each returns to the shell.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock::{Clock, SystemClock};
use crate::config::{self, ConfigError, Environment, Settings};
use crate::gateway::{self, Gateway, StartError};
use crate::telemetry;
use crate::token::NewApiKey;

/// sysexits' `EX_CONFIG`: the configuration, or a file that it names, is at fault.
const EXIT_CONFIG: u8 = 78;
/// Anything else went wrong.
const EXIT_FAILURE: u8 = 1;

/// A TLS front door for device fleets.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 78 the configuration is at fault.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT, then drain; SIGHUP reads the configuration again.
    Run(ConfigArgument),
    /// Check the configuration and every file it names, and list all that is wrong.
    Check(ConfigArgument),
    /// Ask a running gateway, through its admin listener, whether it is well.
    Healthcheck(ConfigArgument),
    /// Make an API key: its line for `api_keys.list` on standard output, itself on standard error.
    ApiKey(ApiKeyArguments),
    /// Print the version.
    Version,
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration file.
    #[arg(short, long, default_value = "config.toml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ApiKeyArguments {
    /// Whose it is: the subject of whoever presents it.
    #[arg(long)]
    owner: String,
    /// What it allows; can be given several times.
    #[arg(long)]
    scope: Vec<String>,
    /// How long it is valid, such as "90days"; for as long as its line stands if left out.
    #[arg(long, value_parser = humantime::parse_duration)]
    lifetime: Option<Duration>,
    /// What it begins with, one of `api_keys.prefixes`.
    #[arg(long, default_value = "pck_")]
    prefix: String,
}

/// Does what the command line asks and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(argument) => run(&argument.config),
        Command::Check(argument) => check(&argument.config),
        Command::Healthcheck(argument) => healthcheck(&argument.config),
        Command::ApiKey(arguments) => make_api_key(&arguments),
        Command::Version => print(format_args!("portcullis {}", env!("CARGO_PKG_VERSION"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&whole_story(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// A line on standard output, which `println!` panics over if it cannot be written.
fn print(line: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}

/// A line on standard error. If it cannot be written, the exit code alone says what it says.
fn complain(line: &impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The error and its causes, each said once: ours tell their cause themselves.
fn whole_story(error: &anyhow::Error) -> String {
    let mut story = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !story.contains(&cause) {
            story = if story.is_empty() {
                cause
            } else {
                format!("{story}: {cause}")
            };
        }
    }
    story
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let of_start = error.downcast_ref().is_some_and(is_configurations);
    if error.is::<ConfigError>() || of_start {
        EXIT_CONFIG
    } else {
        EXIT_FAILURE
    }
}

/// Whether the configuration is at fault, or a file that it names.
fn is_configurations(error: &StartError) -> bool {
    match error {
        StartError::Tls(_)
        | StartError::UpstreamTls { .. }
        | StartError::Token(_)
        | StartError::Revocations(_)
        | StartError::Assertions(_)
        | StartError::Callout { .. }
        | StartError::ListenersChanged => true,
        StartError::Bind { .. } | StartError::Worker(_) => false,
    }
}

fn load(path: &Path) -> Result<Settings, ConfigError> {
    config::load(path, &Environment::of_process())
}

fn check(path: &Path) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let settings = load(path)?;
    let log = telemetry::init(&settings.log);
    let mut problems = gateway::problems(&settings, &clock);
    drop(log);
    let Some(last) = problems.pop() else {
        return print(format_args!("{} is valid", path.display()));
    };
    for problem in problems {
        complain(&problem);
    }
    Err(last.into())
}

fn run(path: &Path) -> anyhow::Result<()> {
    let mut settings = load(path)?;
    let _log = telemetry::init(&settings.log);
    fit_descriptors(&mut settings);
    on_this_thread(async {
        // Before anything is served, so that no signal is lost.
        let mut signals = Signals::new()?;
        let gateway = Gateway::start(settings, Arc::new(SystemClock))?;
        for (listener, address) in gateway.addresses() {
            tracing::info!(listener, %address, "listening");
        }
        if let Some(address) = gateway.admin_address() {
            tracing::info!(%address, "admin listening");
        }
        signals.until_end(|| reload(&gateway, path)).await;
        let drain_timeout = gateway.drain_timeout();
        tracing::info!(timeout = ?drain_timeout, "draining; a second signal ends at once");
        tokio::select! {
            cut = gateway.drain(drain_timeout) => tracing::info!(cut, "drained"),
            () = signals.until_end(|| {}) => tracing::warn!("ended without draining"),
        }
        Ok(())
    })
}

/// Takes as many file descriptors as the system gives, and no more clients than those carry, or clients who
/// are let in would find none left for a connection to a server. Processes start with few of them for the
/// sake of select(2), which is not used here.
fn fit_descriptors(settings: &mut Settings) {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        Err(error) => {
            return tracing::warn!(%error, "cannot raise the limit of file descriptors");
        }
    };
    let (wanted, most) = (settings.crowd.connections, most_clients(limit, settings));
    if most < wanted {
        settings.crowd.connections = most;
        tracing::warn!(
            limit,
            wanted,
            connections = most,
            "fewer file descriptors than limits.connections may need, which is lower for now; raise the \
             limit (ulimit -Hn)"
        );
    }
}

/// How many clients `limit` file descriptors carry: each takes one, and most take one more to a server.
fn most_clients(limit: usize, settings: &Settings) -> usize {
    /// For files, the admin listener and who asks there, names that are resolved, checks of servers, and
    /// connections on their way to being turned away.
    const RESERVE: usize = 64;
    /// What a worker takes beside its listeners.
    const RUNTIME: usize = 8;
    let own = RESERVE + settings.workers * (settings.listeners.len() + RUNTIME);
    (limit.saturating_sub(own) / 2).max(1)
}

fn reload(gateway: &Gateway, path: &Path) {
    let outcome = load(path)
        .inspect_err(|_| gateway.reload_failed())
        .map_err(anyhow::Error::from)
        .and_then(|mut settings| {
            fit_descriptors(&mut settings);
            Ok(gateway.reload(settings)?)
        });
    match outcome {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => {
            let story = whole_story(&error);
            tracing::error!("configuration not reloaded, the former one stays: {story}");
        }
    }
}

/// The signals that the gateway listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT; calls `reload` at every SIGHUP.
    async fn until_end(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => reload(),
            }
        }
    }
}

fn healthcheck(path: &Path) -> anyhow::Result<()> {
    let address = load(path)?
        .admin
        .context("there is no admin listener: admin.enabled = false")?
        .address;
    on_this_thread(async {
        tokio::time::timeout(Duration::from_secs(3), ask_health(reachable(address)))
            .await
            .with_context(|| format!("no answer from {address}"))?
    })
}

async fn ask_health(address: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot reach the admin listener at {address}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/healthz")
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())?;
    let (_, response) = tokio::join!(
        connection,
        async move { sender.send_request(request).await }
    );
    let status = response?.status();
    anyhow::ensure!(status.is_success(), "the gateway answers {status}");
    print("healthy")
}

/// Where to reach a listener that listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The two on streams of their own, so that the line can be appended to the file.
fn make_api_key(arguments: &ApiKeyArguments) -> anyhow::Result<()> {
    let ApiKeyArguments {
        owner,
        scope,
        lifetime,
        prefix,
    } = arguments;
    let made = NewApiKey::make(prefix, owner, scope, *lifetime, SystemClock.now())?;
    print(made.line)?;
    writeln!(io::stderr(), "{}", made.key.expose()).context("cannot write to standard error")
}

fn on_this_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
