//! From `config.toml` and the environment to each room's settings, or to the list of everything
//! that is wrong with them.
//!
//! [`document`] reads keys, [`value`] reads what stands behind them, [`check`] knows which keys
//! there are. No other room reads a file or a variable of the configuration.

mod addresses;
mod admin;
mod assertions;
mod balancing;
mod bindings;
mod bounds;
mod callouts;
mod check;
mod claims;
mod conditions;
mod cors;
mod destinations;
mod document;
mod field_rules;
mod health;
mod providers;
mod quotas;
mod routes;
mod upstreams;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::header::HeaderValue;
use thiserror::Error;

pub use document::{Environment, Problem};

use crate::access::{Binding, Mode};
use crate::admin::Settings as AdminSettings;
use crate::http::{Limits, TokenPlaces};
use crate::listener::crowd::CrowdLimits;
use crate::listener::proxied::Proxies;
use crate::route::{FieldRules, ListenerDemand, Redirect, Requirement, Route};
use crate::telemetry::LogSettings;
use crate::{callout, mqtt, quota, tls, token, upstream};

/// Everything the gateway needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How clients are known.
    pub mode: Mode,
    /// Threads that serve connections.
    pub workers: usize,
    /// How long a drain may take.
    pub drain_timeout: std::time::Duration,
    /// The admin listener; `None` if there is none.
    pub admin: Option<AdminSettings>,
    /// The operational log and the access log.
    pub log: LogSettings,
    /// Bounds on requests.
    pub limits: Limits,
    /// Most connections and handshakes at once.
    pub crowd: CrowdLimits,
    /// How long a handshake may take.
    pub handshake_timeout: std::time::Duration,
    /// How MQTT's CONNECT is treated.
    pub mqtt: mqtt::Settings,
    /// Whose tokens are believed.
    pub tokens: token::Settings,
    /// Where tokens may stand when a WebSocket is opened.
    pub token_places: TokenPlaces,
    /// Who else may be asked about clients, in the order that routes and listeners refer to.
    pub callouts: Vec<callout::Settings>,
    /// How assertions are made; `None` if nobody gets any.
    pub assertions: Option<crate::assertion::Settings>,
    /// How clients may be bound to their certificates, in the order that routes and listeners refer
    /// to; the standard one first.
    pub bindings: Arc<[Binding]>,
    /// The listeners.
    pub listeners: Vec<ListenerSettings>,
    /// The upstreams, in the order that routes refer to.
    pub upstreams: Vec<Arc<upstream::Settings>>,
    /// What is changed in the fields of answers to requests that no route is for.
    pub answer_fields: FieldRules,
    /// What browsers are told of TLS, where it is spoken.
    pub hsts: Option<HeaderValue>,
    /// The routes.
    pub routes: Vec<Arc<Route>>,
}

/// One listener as configured.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Its name in the configuration, the logs and the metrics.
    pub name: String,
    /// Where it listens.
    pub address: std::net::SocketAddr,
    /// The peers that say whom they connect for.
    pub proxies: Proxies,
    /// What it demands of handshakes; `None` without TLS.
    pub tls: Option<tls::Settings>,
    /// What is spoken on it.
    pub service: Service,
    /// Where requests go that no route of its own is for.
    pub redirect: Option<Redirect>,
    /// How much each of its clients may ask for where no route says that.
    pub quotas: quota::Settings,
    /// What its clients must be where no route says that.
    pub requirement: Requirement,
    /// How what such a client presents is bound to its certificate, an index into the bindings.
    pub binding: usize,
    /// Who else is asked about it, an index into the call-outs; nobody if absent.
    pub callout: Option<usize>,
}

impl ListenerSettings {
    /// What it demands of its clients, if it has no routes.
    #[must_use]
    pub fn demand(&self) -> ListenerDemand {
        ListenerDemand {
            listener: self.name.clone(),
            requirement: self.requirement,
            binding: self.binding,
            callout: self.callout,
        }
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// HTTP, by its routes.
    Http,
    /// MQTT, with the brokers of this upstream, an index into the list of upstreams.
    Mqtt(usize),
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everything that is wrong with it.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Reads the configuration at `path`, with `environment` going before the file. Relative paths in
/// it are relative to the file's own folder, so that it means the same wherever it is read from.
///
/// # Errors
/// [`ConfigError`] with all problems at once.
pub fn load(path: &Path, environment: &Environment) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    check::settings(&path.display().to_string(), &text, base, environment)
        .map_err(ConfigError::Invalid)
}
