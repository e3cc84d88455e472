//! Bearer tokens (RFC 6750, RFC 7519): [`Verifier::verify`] turns one into a [`VerifiedToken`], or
//! says what its [`Flaw`] is.
//!
//! The issuer that a token names chooses among the providers, its key id among their keys, and each
//! key has its algorithm: nothing else in a token says how it is to be believed (RFC 8725). What a
//! verified token allows is decided elsewhere, and neither HTTP nor MQTT is known here.

mod api_key;
mod cache;
mod claims;
mod flaw;
mod introspection;
mod json;
mod jwks;
mod jwt;
mod key;
mod provider;
mod remote;
mod revocation;
mod verified;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

pub use api_key::{
    ApiKey, ApiKeyError, ApiKeySettings, ApiKeyStore, Found, NewApiKey, NoRandomness,
    StoreUnavailable,
};
pub use cache::CacheSettings;
pub use flaw::{Flaw, Part};
pub use introspection::{Asker, IntrospectionSettings};
pub use jwks::JwksError;
pub use key::{Algorithm, KeyError};
pub use provider::{KeySource, ProviderError, ProviderSettings, Rules};
pub use remote::{Location, RemoteSettings};
pub use revocation::{Added, Revocation, RevocationError, RevocationSettings, Revocations};
pub use verified::VerifiedToken;

use api_key::ApiKeys;
use cache::{Cache, Known};
use introspection::Introspector;
use jwt::Jwt;
use provider::Provider;

use crate::clock::Clock;
use crate::secret::Secret;
use crate::telemetry::TokenMetrics;

/// Whose tokens are believed, how long they may be, and how long they are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most bytes of a token.
    pub max_size: usize,
    /// What is remembered of tokens.
    pub cache: CacheSettings,
    /// The providers.
    pub providers: Vec<ProviderSettings>,
    /// API keys, if there are any.
    pub api_keys: Option<ApiKeySettings>,
    /// Who is asked about opaque tokens, if anybody is.
    pub introspection: Option<IntrospectionSettings>,
    /// Where revoked tokens are listed, if they are.
    pub revocations: Option<RevocationSettings>,
}

impl Settings {
    /// Whether nobody could present anything that is accepted.
    #[must_use]
    pub fn accepts_nothing(&self) -> bool {
        self.providers.is_empty() && self.api_keys.is_none() && self.introspection.is_none()
    }
}

/// Verifies the tokens of every provider.
#[derive(Debug)]
pub struct Verifier {
    max_size: usize,
    providers: Vec<Provider>,
    api_keys: Option<ApiKeys>,
    introspector: Option<Introspector>,
    cache: Cache,
}

impl Verifier {
    /// Reads every provider's keys. What `former` has fetched already is taken over, where it is
    /// still asked for.
    ///
    /// # Errors
    /// [`ProviderError`] for the first that cannot be used.
    pub fn load(
        settings: &Settings,
        former: Option<&Self>,
        clock: &Arc<dyn Clock>,
        metrics: TokenMetrics,
    ) -> Result<Self, ProviderError> {
        let former = former.map_or(&[][..], |former| &former.providers);
        let load = |settings| Provider::load(settings, former, clock, &metrics);
        Ok(Self {
            max_size: settings.max_size,
            providers: settings
                .providers
                .iter()
                .map(load)
                .collect::<Result<_, _>>()?,
            api_keys: load_api_keys(settings)?,
            introspector: load_introspector(settings)?,
            cache: Cache::new(&settings.cache, metrics),
        })
    }

    /// Everything that is wrong with the providers of `settings`.
    #[must_use]
    pub fn problems(settings: &Settings, clock: &Arc<dyn Clock>) -> Vec<ProviderError> {
        let metrics = TokenMetrics::default();
        let load = |settings| Provider::load(settings, &[], clock, &metrics);
        let outcomes = settings.providers.iter().map(load);
        let keys = load_api_keys(settings).err();
        let introspector = load_introspector(settings).err();
        outcomes
            .filter_map(Result::err)
            .chain(keys)
            .chain(introspector)
            .collect()
    }

    /// Keeps the keys fresh that are fetched from elsewhere, until it is dropped.
    pub async fn keep(&self) {
        let remotes = self.providers.iter().filter_map(Provider::remote);
        let mut keepers: JoinSet<()> = remotes.map(|remote| Arc::clone(remote).keep()).collect();
        while keepers.join_next().await.is_some() {}
        std::future::pending().await
    }

    /// Whether `text` has the form of a token rather than of a client secret, for places that can
    /// hold either.
    #[must_use]
    pub fn recognises(&self, text: &str) -> bool {
        let is_jwt = !self.providers.is_empty() && jwt::is_plausible(text);
        let introspector = self.introspector.as_ref();
        is_jwt
            || self.api_keys_for(text).is_some()
            || introspector.is_some_and(|introspector| introspector.recognises(text))
    }

    /// Verifies `token` at `now` (seconds since the Unix epoch). Cancel-safe.
    ///
    /// # Errors
    /// [`Flaw`] says what is wrong with it.
    pub async fn verify(&self, token: &Secret, now: u64) -> Result<Arc<VerifiedToken>, Flaw> {
        let token = token.expose();
        if token.len() > self.max_size {
            return Err(Flaw::TooLarge);
        }
        if let Some(keys) = self.api_keys_for(token) {
            // No signature to save: the look-up is all there is.
            return keys.verify(token, now).await;
        }
        let generation = self.generation();
        let verify = async || {
            let (token, until) = self.verify_anew(token, now).await?;
            Ok(Known {
                token: Arc::new(token),
                generation,
                until,
            })
        };
        self.cache.recall(token, generation, now, verify).await
    }

    /// The API keys, if `text` has the form of one.
    fn api_keys_for(&self, text: &str) -> Option<&ApiKeys> {
        let keys = self.api_keys.as_ref();
        keys.filter(|keys| keys.recognises(text))
    }

    /// Changes when any provider's keys do.
    fn generation(&self) -> u64 {
        self.providers.iter().map(Provider::generation).sum()
    }

    /// The token, and when it ends.
    async fn verify_anew(
        &self,
        token: &str,
        now: u64,
    ) -> Result<(VerifiedToken, Option<u64>), Flaw> {
        if let Some(introspector) = &self.introspector
            && introspector.takes(token)
        {
            return introspector.verify(token, now).await;
        }
        let jwt = Jwt::parse(token)?;
        let issuer = claims::issuer(&jwt.claims)?;
        let mut flaw = Flaw::UnknownIssuer;
        for provider in self.providers.iter().filter(|provider| provider.is(issuer)) {
            match provider.check_signature(&jwt, now).await {
                Ok(()) => {
                    let mut verified = provider.believe(jwt, now)?;
                    let until = self.until(provider, token, &verified, now).await?;
                    verified.recheck = self.recheck(provider);
                    return Ok((verified, until));
                }
                Err(Flaw::UnknownKey) if flaw != Flaw::UnknownIssuer => {}
                Err(found) => flaw = found,
            }
        }
        Err(flaw)
    }

    /// How often to ask whether `provider` has taken a token back, if anybody knows of that.
    fn recheck(&self, provider: &Provider) -> Option<Duration> {
        let introspector = self.introspector.as_ref();
        let asked = introspector.filter(|_| provider.is_introspected());
        asked.map(Introspector::recheck)
    }

    /// The first second at which `verified` is no longer accepted, or must be looked at again, if its
    /// issuer has not taken it back.
    async fn until(
        &self,
        provider: &Provider,
        token: &str,
        verified: &VerifiedToken,
        now: u64,
    ) -> Result<Option<u64>, Flaw> {
        let until = provider.until(verified);
        if !provider.is_introspected() {
            return Ok(until);
        }
        let introspector = self.introspector.as_ref().ok_or(Flaw::Unavailable)?;
        let confirmed = introspector.confirm(token, verified, now).await?;
        Ok(Some(until.map_or(confirmed, |until| until.min(confirmed))))
    }
}

fn load_api_keys(settings: &Settings) -> Result<Option<ApiKeys>, ProviderError> {
    let keys = settings.api_keys.as_ref().map(ApiKeys::load);
    keys.transpose().map_err(ProviderError::ApiKeys)
}

fn load_introspector(settings: &Settings) -> Result<Option<Introspector>, ProviderError> {
    let introspector = settings.introspection.as_ref().map(Introspector::new);
    introspector
        .transpose()
        .map_err(ProviderError::Introspection)
}

#[cfg(test)]
mod tests;
