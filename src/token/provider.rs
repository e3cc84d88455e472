//! [`Provider`]: somebody whose tokens are believed, with the keys to know them by and the rules
//! that they must keep.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::api_key::ApiKeyError;
use super::claims;
use super::flaw::Flaw;
use super::jwks::{self, JwksError};
use super::jwt::Jwt;
use super::key::{Algorithm, Key, KeyError};
use super::remote::{Remote, RemoteSettings};
use super::verified::VerifiedToken;
use crate::clock::Clock;
use crate::fetch::FetcherError;
use crate::secret::Secret;
use crate::telemetry::TokenMetrics;

/// A provider as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// Where its keys come from.
    pub source: KeySource,
    /// The issuers (`iss`) that it is; compared exactly.
    pub issuers: Vec<String>,
    /// What its tokens must keep.
    pub rules: Rules,
    /// Whether the introspection server is asked about them besides.
    pub introspect: bool,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A secret that is shared with the issuer.
    Secret {
        /// The secret.
        secret: Secret,
        /// The key id that tokens must name, if any.
        key_id: Option<String>,
        /// The one algorithm.
        algorithm: Algorithm,
    },
    /// PEM files of public keys.
    Pem {
        /// The files, one key each.
        files: Vec<PathBuf>,
        /// The algorithms, all of one kind of key.
        algorithms: Vec<Algorithm>,
    },
    /// A file that holds a JSON Web Key Set.
    JwksFile {
        /// The file.
        file: PathBuf,
        /// The algorithms that its keys may be for.
        algorithms: Vec<Algorithm>,
    },
    /// What the issuer publishes.
    Remote(Box<RemoteSettings>),
}

/// What tokens must keep beside their signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// For whom they must be: one of these, or nobody in particular if there are none.
    pub audiences: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Whether a token may live for ever.
    pub allow_no_expiry: bool,
    /// The claims that name the subject, the first of which counts.
    pub subject_claims: Vec<String>,
    /// The claim by which the issuer tells its kinds of tokens apart.
    pub kind_claim: String,
    /// The kinds that are access tokens, numbers in decimal.
    pub kinds: Vec<String>,
    /// Whether a token must say its kind.
    pub require_kind: bool,
}

/// Why a provider cannot be used. It is never left out: tokens that nobody verifies would be.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// The shared secret verifies nothing.
    #[error("providers.{provider}.secret: {source}")]
    Secret {
        /// The provider's name.
        provider: String,
        /// What is wrong.
        source: KeyError,
    },
    /// Nobody can be asked about opaque tokens.
    #[error("introspection.ca: {0}")]
    Introspection(#[source] FetcherError),
    /// The API keys cannot be read.
    #[error("api_keys.list: {0}")]
    ApiKeys(#[source] ApiKeyError),
    /// A file cannot be read.
    #[error("providers.{provider}: cannot read {path}: {source}")]
    Unreadable {
        /// The provider's name.
        provider: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds no key that verifies anything.
    #[error("providers.{provider}: {path}: {source}")]
    File {
        /// The provider's name.
        provider: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// A file holds no key set, or a key in it verifies nothing.
    #[error("providers.{provider}: {path}: {source}")]
    KeySet {
        /// The provider's name.
        provider: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: JwksError,
    },
    /// Its keys cannot be fetched from anywhere.
    #[error("providers.{provider}.ca: {source}")]
    Fetcher {
        /// The provider's name.
        provider: String,
        /// What is wrong.
        source: FetcherError,
    },
}

/// A provider with its keys.
#[derive(Debug)]
pub(super) struct Provider {
    name: Arc<str>,
    issuers: Vec<String>,
    rules: Rules,
    introspect: bool,
    keys: KeyStore,
}

/// Where a provider has its keys.
#[derive(Debug)]
pub(super) enum KeyStore {
    /// Here, for as long as the settings are in force.
    Fixed(Vec<Key>),
    /// With its issuer.
    Remote(Arc<Remote>),
}

impl Provider {
    /// Reads the keys; any that is of no use is an error. A provider among `former` whose keys come
    /// from the same place lends those that it has.
    pub(super) fn load(
        settings: &ProviderSettings,
        former: &[Self],
        clock: &Arc<dyn Clock>,
        metrics: &TokenMetrics,
    ) -> Result<Self, ProviderError> {
        let keys = match &settings.source {
            KeySource::Remote(remote) => {
                KeyStore::Remote(load_remote(&settings.name, remote, former, clock, metrics)?)
            }
            KeySource::Secret { .. } | KeySource::Pem { .. } | KeySource::JwksFile { .. } => {
                KeyStore::Fixed(load_keys(settings)?)
            }
        };
        Ok(Self::with_keys(settings, keys))
    }

    pub(super) fn with_keys(settings: &ProviderSettings, keys: KeyStore) -> Self {
        Self {
            name: settings.name.as_str().into(),
            issuers: settings.issuers.clone(),
            rules: settings.rules.clone(),
            introspect: settings.introspect,
            keys,
        }
    }

    /// Whether tokens of `issuer` are its own.
    pub(super) fn is(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known == issuer)
    }

    /// Whether its tokens may be taken back where the introspection server knows of it.
    pub(super) fn is_introspected(&self) -> bool {
        self.introspect
    }

    /// Where its keys are fetched from, if they are.
    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        match &self.keys {
            KeyStore::Fixed(_) => None,
            KeyStore::Remote(remote) => Some(remote),
        }
    }

    /// Changes with its keys.
    pub(super) fn generation(&self) -> u64 {
        self.remote().map_or(0, |remote| remote.generation())
    }

    /// Believes `jwt`, whose signature holds, or says what is wrong with it.
    pub(super) fn believe(&self, jwt: Jwt<'_>, now: u64) -> Result<VerifiedToken, Flaw> {
        let expires = claims::check(&jwt.claims, &self.rules, now)?;
        Ok(VerifiedToken {
            provider: Arc::clone(&self.name),
            subject: claims::subject(&jwt.claims, &self.rules.subject_claims)?,
            expires,
            certificate: claims::certificate(&jwt.claims)?,
            claims: jwt.claims,
            recheck: None,
        })
    }

    /// The first second at which `token` is no longer accepted.
    pub(super) fn until(&self, token: &VerifiedToken) -> Option<u64> {
        let expires = token.expires()?;
        Some(expires + self.rules.leeway.as_secs())
    }

    /// Whether one of its keys has signed `jwt`. A key that it has not may have been published since
    /// keys were last fetched, so that is looked for once, if it is time.
    pub(super) async fn check_signature(&self, jwt: &Jwt<'_>, now: u64) -> Result<(), Flaw> {
        let remote = match &self.keys {
            KeyStore::Fixed(keys) => return check_signature(keys, jwt),
            KeyStore::Remote(remote) => remote,
        };
        match remote.keys(now).map(|keys| check_signature(&keys, jwt)) {
            None => {}
            Some(Err(Flaw::UnknownKey)) if jwt.key_id.is_some() => {}
            Some(outcome) => return outcome,
        }
        remote.renew().await;
        let keys = remote.keys(now).ok_or(Flaw::Unavailable)?;
        check_signature(&keys, jwt)
    }
}

fn check_signature(keys: &[Key], jwt: &Jwt<'_>) -> Result<(), Flaw> {
    let named = |key: &&Key| key.id.is_none() || key.id == jwt.key_id;
    let mut flaw = Flaw::UnknownKey;
    for key in keys.iter().filter(named) {
        if key.verifies(jwt.algorithm, jwt.message, &jwt.signature) {
            return Ok(());
        }
        flaw = match (flaw, key.is_for(jwt.algorithm)) {
            (_, true) | (Flaw::Signature, false) => Flaw::Signature,
            (_, false) => Flaw::WrongAlgorithm,
        };
    }
    Err(flaw)
}

fn load_remote(
    name: &str,
    settings: &RemoteSettings,
    former: &[Provider],
    clock: &Arc<dyn Clock>,
    metrics: &TokenMetrics,
) -> Result<Arc<Remote>, ProviderError> {
    let mut remotes = former.iter().filter_map(Provider::remote);
    if let Some(same) = remotes.find(|remote| remote.is_of(name, settings)) {
        return Ok(Arc::clone(same));
    }
    let remote = Remote::new(name, settings, clock, metrics);
    remote
        .map(Arc::new)
        .map_err(|source| ProviderError::Fetcher {
            provider: name.to_owned(),
            source,
        })
}

fn load_keys(settings: &ProviderSettings) -> Result<Vec<Key>, ProviderError> {
    let provider = &settings.name;
    match &settings.source {
        KeySource::Secret {
            secret,
            key_id,
            algorithm,
        } => {
            let key = Key::shared(key_id.clone(), secret, *algorithm);
            let key = key.map_err(|source| ProviderError::Secret {
                provider: provider.clone(),
                source,
            })?;
            Ok(vec![key])
        }
        KeySource::Pem { files, algorithms } => {
            let load = |path: &PathBuf| load_pem(provider, path, algorithms);
            files.iter().map(load).collect()
        }
        KeySource::JwksFile { file, algorithms } => load_jwks(provider, file, algorithms),
        // Fetched, not read.
        KeySource::Remote(_) => Ok(vec![]),
    }
}

fn load_pem(provider: &str, path: &Path, algorithms: &[Algorithm]) -> Result<Key, ProviderError> {
    let pem = read(provider, path)?;
    Key::of_pem(&pem, algorithms).map_err(|source| ProviderError::File {
        provider: provider.to_owned(),
        path: path.to_owned(),
        source,
    })
}

/// The operator's own file has no keys that are left out for a fault.
fn load_jwks(
    provider: &str,
    path: &Path,
    algorithms: &[Algorithm],
) -> Result<Vec<Key>, ProviderError> {
    let document = read(provider, path)?;
    let wrong = |source| ProviderError::KeySet {
        provider: provider.to_owned(),
        path: path.to_owned(),
        source,
    };
    let mut set = jwks::parse(&document, algorithms).map_err(wrong)?;
    match set.faults.pop() {
        Some(fault) => Err(wrong(fault)),
        None => Ok(set.keys),
    }
}

fn read(provider: &str, path: &Path) -> Result<Vec<u8>, ProviderError> {
    std::fs::read(path).map_err(|source| ProviderError::Unreadable {
        provider: provider.to_owned(),
        path: path.to_owned(),
        source,
    })
}
