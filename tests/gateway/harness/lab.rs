//! A gateway with everything around it, on ports of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis::clock::{Clock, ManualClock};
use portcullis::config::{self, Environment, Settings};
use portcullis::gateway::Gateway;
use rustls::{AlertDescription, SupportedProtocolVersion};
use tempfile::TempDir;

use super::{Authority, Broker, Client, Identity, Origin};

/// The secret of the device that every lab knows.
pub const SECRET: &str = "d7cc2964-a48b-4a6e-871a-08da28e7883d";

/// What a gateway with `min_version = "1.2"` speaks.
pub const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];

/// The alerts to a certificate that is refused.
pub const REFUSALS: [AlertDescription; 3] = [
    AlertDescription::CertificateExpired,
    AlertDescription::UnknownCA,
    AlertDescription::CertificateUnknown,
];

/// A gateway, the authority it trusts, and the origin and the broker behind it.
pub struct Lab {
    pub authority: Authority,
    pub origin: Origin,
    pub broker: Broker,
    pub clock: ManualClock,
    pub config: Config,
    pub directory: TempDir,
    gateway: Option<Gateway>,
}

/// What a test sets differently. Each is TOML put into its table.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub auth: Option<&'static str>,
    /// The call-out of whatever names none.
    pub callout: &'static str,
    pub tls: String,
    pub limits: String,
    pub timeouts: String,
    pub route: String,
    pub mqtt: String,
    pub mqtts: String,
    pub mqtt_route: String,
    pub admin: String,
    pub drain_timeout: Option<&'static str>,
    /// Whole tables.
    pub tables: String,
}

impl Config {
    pub fn x509() -> Self {
        Self {
            auth: Some("x509"),
            ..Self::default()
        }
    }

    pub fn key() -> Self {
        Self {
            auth: Some("key"),
            ..Self::default()
        }
    }

    /// Clients are asked about by this call-out where nothing else is said.
    pub fn asks(mut self, callout: &'static str) -> Self {
        self.callout = callout;
        self
    }

    pub fn tls(mut self, lines: &str) -> Self {
        writeln!(self.tls, "{lines}").unwrap();
        self
    }

    pub fn limits(mut self, lines: &str) -> Self {
        writeln!(self.limits, "{lines}").unwrap();
        self
    }

    pub fn timeouts(mut self, lines: &str) -> Self {
        writeln!(self.timeouts, "{lines}").unwrap();
        self
    }

    /// Lines for both routes, `/http/` and `/ws/`.
    pub fn route(mut self, lines: &str) -> Self {
        writeln!(self.route, "{lines}").unwrap();
        self
    }

    /// Lines for `[mqtt]`.
    pub fn mqtt(mut self, lines: &str) -> Self {
        writeln!(self.mqtt, "{lines}").unwrap();
        self
    }

    /// Lines for the listener for MQTT and for the route to it, `/mqtt`.
    pub fn each_mqtt(mut self, lines: &str) -> Self {
        writeln!(self.mqtts, "{lines}").unwrap();
        writeln!(self.mqtt_route, "{lines}").unwrap();
        self
    }

    /// Lines for `[admin]`.
    pub fn admin(mut self, lines: &str) -> Self {
        writeln!(self.admin, "{lines}").unwrap();
        self
    }

    /// MQTT sessions end spread over this time.
    pub fn drain_timeout(mut self, time: &'static str) -> Self {
        self.drain_timeout = Some(time);
        self
    }

    pub fn tables(mut self, lines: &str) -> Self {
        writeln!(self.tables, "{lines}").unwrap();
        self
    }

    pub async fn start(self) -> Lab {
        Lab::start(self).await
    }

    fn text(&self, origin: SocketAddr, broker: SocketAddr) -> String {
        let Self {
            auth,
            callout,
            tls,
            limits,
            timeouts,
            route,
            mqtt,
            mqtts,
            mqtt_route,
            admin,
            drain_timeout,
            tables,
        } = self;
        let auth = auth.map_or(String::new(), |auth| format!("auth = \"{auth}\""));
        let drain_timeout = drain_timeout.unwrap_or("5s");
        format!(
            "{auth}\ncallout = \"{callout}\"\nworkers = 2\ndrain_timeout = \"{drain_timeout}\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n{admin}\n\
             [log]\naccess = false\nlevel = \"error\"\n\
             [limits]\n{limits}\n[timeouts]\n{timeouts}\n\
             [tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"\n{tls}\n\
             [mqtt]\n{mqtt}\n\
             [listeners.edge]\naddress = \"127.0.0.1:0\"\n\
             [listeners.mqtts]\naddress = \"127.0.0.1:0\"\nprotocol = \"mqtts\"\nupstream = \"broker\"\n{mqtts}\n\
             [upstreams.origin]\nservers = [\"{origin}\"]\n\
             [upstreams.broker]\nservers = [\"{broker}\"]\n\
             [routes.http]\npath = \"/http/\"\nupstream = \"origin\"\nstrip_prefix = true\n{route}\n\
             [routes.ws]\npath = \"/ws/\"\nupstream = \"origin\"\nstrip_prefix = true\n{route}\n\
             [routes.public]\npath = \"/public/\"\nupstream = \"origin\"\ncredential = \"none\"\n\
             [routes.mqtt]\npath = \"/mqtt\"\nprotocol = \"mqtt\"\nupstream = \"broker\"\n{mqtt_route}\n{tables}\n"
        )
    }
}

/// A lab with these tables besides, where certificates may be left out.
pub async fn lab(tables: &str) -> Lab {
    Config::x509()
        .tls("client_auth = \"optional\"")
        .tables(tables)
        .start()
        .await
}

/// What is wrong with these tables.
pub async fn problems(tables: &str) -> String {
    let mut lab = Lab::x509().await;
    lab.config = Config::x509().tables(tables);
    lab.settings().map(drop).unwrap_err().to_string()
}

impl Lab {
    /// By certificate.
    pub async fn x509() -> Self {
        Config::x509().start().await
    }

    /// By client secret.
    pub async fn key() -> Self {
        Config::key().start().await
    }

    async fn start(config: Config) -> Self {
        let authority = Authority::new("Fleet CA");
        let directory = TempDir::new().unwrap();
        write(directory.path(), "certs/ca.crt", authority.pem());
        write_identity(
            directory.path(),
            "server",
            &authority.server(&["localhost", "127.0.0.1"]),
        );
        let mut lab = Self {
            origin: Origin::start().await,
            broker: Broker::start().await,
            clock: ManualClock::stopped_now(),
            authority,
            config,
            directory,
            gateway: None,
        };
        lab.gateway = Some(Gateway::start(lab.settings().unwrap(), lab.clock()).unwrap());
        lab
    }

    /// The settings as the files say now.
    pub fn settings(&self) -> Result<Settings, config::ConfigError> {
        let path = self.path("config.toml");
        std::fs::write(
            &path,
            self.config.text(self.origin.address, self.broker.address),
        )
        .unwrap();
        config::load(&path, &Environment::default())
    }

    /// Reads the settings again, as SIGHUP does.
    pub fn reload(&self) -> Result<(), String> {
        let settings = self.settings().map_err(|error| error.to_string())?;
        // The listener's port was 0 and stays what it became.
        self.gateway()
            .reload(settings)
            .map_err(|error| error.to_string())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.address_of("edge")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        write(self.directory.path(), name, text);
    }

    pub fn write_identity(&self, name: &str, identity: &Identity) {
        write_identity(self.directory.path(), name, identity);
    }

    /// A client of the device with [`SECRET`].
    pub fn device(&self) -> Client {
        self.client(Some(self.authority.device(SECRET)))
    }

    /// A client without a certificate.
    pub fn anonymous(&self) -> Client {
        self.client(None)
    }

    /// A client with this certificate, or with none.
    pub fn client(&self, identity: Option<Identity>) -> Client {
        Client::new(self.address(), self.authority.der(), identity)
    }

    /// The same, speaking only this version of TLS.
    pub fn client_speaking(
        &self,
        version: &'static SupportedProtocolVersion,
        identity: Option<Identity>,
    ) -> Client {
        Client::with_versions(self.address(), self.authority.der(), identity, &[version])
    }

    /// Moves the clock past the beginning of certificates that have only just been issued by the
    /// `openssl` command, which dates them from now.
    pub fn pass_a_minute(&self) {
        self.clock.advance(Duration::from_secs(60));
    }

    /// Where the listener of this name listens.
    pub fn address_of(&self, listener: &str) -> SocketAddr {
        let addresses = self.gateway().addresses();
        addresses
            .iter()
            .find(|(name, _)| name == listener)
            .map(|(_, address)| *address)
            .unwrap()
    }

    /// Drains and says how many connections were cut.
    pub async fn drain(mut self, timeout: Duration) -> usize {
        self.gateway.take().unwrap().drain(timeout).await
    }

    /// Ends the gateway and starts another with the same files.
    pub fn restart(&mut self) {
        self.gateway = None;
        self.gateway = Some(Gateway::start(self.settings().unwrap(), self.clock()).unwrap());
    }

    /// Tells the admin listener something, as its operator does: status and body.
    pub async fn tell_admin(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let address = self.gateway().admin_address().unwrap();
        let host = address.to_string();
        let fields = [
            ("host", host.as_str()),
            ("content-type", "application/json"),
        ];
        super::client::plain(address, method, path, &fields, body).await
    }

    /// A page of the admin listener: status and body.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        super::client::plain_get(self.gateway().admin_address().unwrap(), path).await
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn write_identity(directory: &Path, name: &str, identity: &Identity) {
    write(directory, &format!("{name}.crt"), &identity.chain_pem);
    write(directory, &format!("{name}.key"), &identity.key_pem);
}
