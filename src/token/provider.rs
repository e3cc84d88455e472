//! [`Provider`]: somebody whose tokens are believed, with the keys to know them by and the rules
//! that they must keep.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::claims;
use super::flaw::Flaw;
use super::jwt::Jwt;
use super::key::{Algorithm, Key, KeyError};
use super::verified::VerifiedToken;
use crate::secret::Secret;

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
}

/// A provider with its keys.
#[derive(Debug)]
pub(super) struct Provider {
    name: Arc<str>,
    issuers: Vec<String>,
    rules: Rules,
    keys: Vec<Key>,
}

impl Provider {
    /// Reads the keys; any that is of no use is an error.
    pub(super) fn load(settings: &ProviderSettings) -> Result<Self, ProviderError> {
        Ok(Self::with_keys(settings, load_keys(settings)?))
    }

    pub(super) fn with_keys(settings: &ProviderSettings, keys: Vec<Key>) -> Self {
        Self {
            name: settings.name.as_str().into(),
            issuers: settings.issuers.clone(),
            rules: settings.rules.clone(),
            keys,
        }
    }

    /// Whether tokens of `issuer` are its own.
    pub(super) fn is(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known == issuer)
    }

    /// Believes `jwt`, whose signature holds, or says what is wrong with it.
    pub(super) fn believe(&self, jwt: Jwt<'_>, now: u64) -> Result<VerifiedToken, Flaw> {
        let expires = claims::check(&jwt.claims, &self.rules, now)?;
        let subject = claims::subject(&jwt.claims, &self.rules.subject_claims)?;
        let name = Arc::clone(&self.name);
        Ok(VerifiedToken::new(name, subject, expires, jwt.claims))
    }

    /// Whether one of its keys has signed `jwt`.
    pub(super) fn check_signature(&self, jwt: &Jwt<'_>) -> Result<(), Flaw> {
        let named = |key: &&Key| key.id.is_none() || key.id == jwt.key_id;
        let mut flaw = Flaw::UnknownKey;
        for key in self.keys.iter().filter(named) {
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
    }
}

fn load_pem(
    provider: &str,
    path: &PathBuf,
    algorithms: &[Algorithm],
) -> Result<Key, ProviderError> {
    let pem = std::fs::read(path).map_err(|source| ProviderError::Unreadable {
        provider: provider.to_owned(),
        path: path.clone(),
        source,
    })?;
    Key::of_pem(&pem, algorithms).map_err(|source| ProviderError::File {
        provider: provider.to_owned(),
        path: path.clone(),
        source,
    })
}
