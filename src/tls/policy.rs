//! What each group of server names demands of a handshake, and the choice among them.
//!
//! The choice is made by the name in the ClientHello (RFC 6066 §3). A request that later names a
//! host of another policy is not answered here; see [`Policies::for_host`].

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use thiserror::Error;

use super::client_verifier::{ClientCertificateError, ClientVerifier, Reason};
use super::peer::VerifiedPeer;
use super::server::{self, TlsError};
use crate::clock::Clock;
use crate::host::HostPattern;

/// The name of the policy that the table `[tls]` itself describes.
pub const DEFAULT_POLICY: &str = "default";

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// One is asked for; a client without one connects, a client with a bad one does not.
    Optional,
    /// Nobody connects without one.
    Required,
}

/// The oldest TLS version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246): client certificates, and so their CN, cross the network in clear.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// One policy as configured.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// The server names that it is for; the default policy has none.
    pub server_names: Vec<HostPattern>,
    /// PEM file: the server's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the private key of that certificate.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// PEM files of the authorities that issue client certificates.
    pub client_ca: Vec<PathBuf>,
    /// The oldest TLS version.
    pub min_version: MinVersion,
    /// Whether client certificates of version 1 or without extended key usage are accepted.
    pub legacy_certificates: bool,
    /// Most intermediates between a client's certificate and its authority.
    pub max_chain_depth: usize,
    /// Whether sessions may be resumed by ticket.
    pub resumption: bool,
}

/// The policies of one listener as configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The default policy first, then those chosen by name.
    pub policies: Vec<PolicySettings>,
    /// The policy, by name, for clients that send no server name; `None` refuses them.
    pub without_server_name: Option<String>,
    /// What is spoken over TLS, the preferred first (RFC 7301). A client that offers something else
    /// alone is refused, so that no protocol is taken for another.
    pub alpn: &'static [&'static str],
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

/// What is wrong with a policy, beginning with the key that is at fault.
#[derive(Debug, Error)]
#[error("{}.{source}", table(.policy))]
pub struct PolicyError {
    policy: String,
    source: TlsError,
}

/// Where the configuration describes a policy.
fn table(policy: &str) -> String {
    match policy {
        DEFAULT_POLICY => "tls".into(),
        named => format!("tls.policies.{named}"),
    }
}

/// Each fault once: what a policy takes from `[tls]` is at fault there.
fn once(mut errors: Vec<PolicyError>) -> Vec<PolicyError> {
    let mut known = HashSet::new();
    errors.sort_by_key(|error| error.policy != DEFAULT_POLICY);
    errors.retain(|error| known.insert(error.source.to_string()));
    errors
}

/// One policy, ready for handshakes.
#[derive(Debug)]
pub struct Policy {
    pub(super) name: String,
    pub(super) server_names: Vec<HostPattern>,
    pub(super) config: Arc<ServerConfig>,
    pub(super) verifier: Option<Arc<ClientVerifier>>,
    /// The end of its certificate's validity, since the epoch.
    pub(super) valid_until: Option<u64>,
}

impl Policy {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The policies of one listener.
#[derive(Debug)]
pub struct Policies {
    all: Vec<Arc<Policy>>,
    without_server_name: Option<usize>,
    pub(super) handshake_timeout: Duration,
}

impl Policies {
    /// Reads every file that `settings` names and prepares each policy, with fresh ticket keys.
    ///
    /// # Errors
    /// [`PolicyError`] for every file that is missing or unfit.
    pub fn load(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Self, Vec<PolicyError>> {
        let mut all = Vec::with_capacity(settings.policies.len());
        let mut errors = Vec::new();
        for policy in &settings.policies {
            let named = |source| PolicyError {
                policy: policy.name.clone(),
                source,
            };
            match server::policy(policy, settings.alpn, clock) {
                Ok(policy) => all.push(Arc::new(policy)),
                Err(faults) => errors.extend(faults.into_iter().map(named)),
            }
        }
        if !errors.is_empty() {
            return Err(once(errors));
        }
        let without_server_name = settings
            .without_server_name
            .as_ref()
            .and_then(|name| all.iter().position(|policy| policy.name == *name));
        Ok(Self {
            all,
            without_server_name,
            handshake_timeout: settings.handshake_timeout,
        })
    }

    /// Until when the certificate of each policy is valid, by the policy's name.
    pub fn certificates(&self) -> impl Iterator<Item = (&str, u64)> {
        let policies = self.all.iter();
        policies.filter_map(|policy| Some((policy.name(), policy.valid_until?)))
    }

    /// The policy for a ClientHello with this server name, or with none.
    #[must_use]
    pub fn for_server_name(&self, name: Option<&str>) -> Option<&Arc<Policy>> {
        match name {
            Some(name) => self.by_name(name),
            None => self
                .without_server_name
                .and_then(|index| self.all.get(index)),
        }
    }

    /// The policy that protects the host of a request, without its port. An IP address cannot be
    /// a server name (RFC 6066 §3), so it belongs to the policy for clients without one.
    #[must_use]
    pub fn for_host(&self, host: &str) -> Option<&Arc<Policy>> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<std::net::IpAddr>() {
            Ok(_) => self.for_server_name(None),
            Err(_) => self.by_name(host),
        }
    }

    /// Whether a connection made under `policy` may carry requests for `host` (RFC 9110 §7.4).
    #[must_use]
    pub fn covers(&self, policy: &Policy, host: &str) -> bool {
        self.all.len() == 1
            || self
                .for_host(host)
                .is_some_and(|other| other.name == policy.name)
    }

    /// Checks a live connection's peer against the policy that has taken the place of its own. If
    /// none has, or if that one asks for no certificates, the peer's counts no longer.
    ///
    /// # Errors
    /// [`ClientCertificateError`] if the peer would not be admitted today.
    pub fn check_again(
        &self,
        policy: &str,
        peer: &VerifiedPeer,
        now: u64,
    ) -> Result<(), ClientCertificateError> {
        let successor = self.all.iter().find(|known| known.name == policy);
        match successor.and_then(|policy| policy.verifier.as_ref()) {
            Some(verifier) => verifier.check_again(peer, now),
            // Nobody would vouch for it on a new connection, so nobody does on this one.
            None => Err(peer.refused(Reason::NotAskedFor)),
        }
    }

    fn by_name(&self, name: &str) -> Option<&Arc<Policy>> {
        let matching = |wildcard: bool| {
            self.all.iter().find(move |policy| {
                policy
                    .server_names
                    .iter()
                    .any(|pattern| pattern.is_wildcard() == wildcard && pattern.matches(name))
            })
        };
        matching(false)
            .or_else(|| matching(true))
            .or_else(|| self.all.first())
    }
}
