//! Bearer tokens (RFC 6750, RFC 7519): [`Verifier::verify`] turns one into a [`VerifiedToken`], or
//! says what its [`Flaw`] is.
//!
//! The issuer that a token names chooses among the providers, its key id among their keys, and each
//! key has its algorithm: nothing else in a token says how it is to be believed (RFC 8725). What a
//! verified token allows is decided elsewhere, and neither HTTP nor MQTT is known here.

mod claims;
mod flaw;
mod json;
mod jwt;
mod key;
mod provider;
mod verified;

pub use flaw::{Flaw, Part};
pub use key::{Algorithm, KeyError};
pub use provider::{KeySource, ProviderError, ProviderSettings, Rules};
pub use verified::VerifiedToken;

use jwt::Jwt;
use provider::Provider;

use crate::secret::Secret;

/// Whose tokens are believed, and how long they may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most bytes of a token.
    pub max_size: usize,
    /// The providers.
    pub providers: Vec<ProviderSettings>,
}

/// Verifies the tokens of every provider.
#[derive(Debug)]
pub struct Verifier {
    max_size: usize,
    providers: Vec<Provider>,
}

impl Verifier {
    /// Reads every provider's keys.
    ///
    /// # Errors
    /// [`ProviderError`] for the first that cannot be used.
    pub fn load(settings: &Settings) -> Result<Self, ProviderError> {
        let providers = settings.providers.iter().map(Provider::load);
        Ok(Self {
            max_size: settings.max_size,
            providers: providers.collect::<Result<_, _>>()?,
        })
    }

    /// Everything that is wrong with the providers of `settings`.
    #[must_use]
    pub fn problems(settings: &Settings) -> Vec<ProviderError> {
        let outcomes = settings.providers.iter().map(Provider::load);
        outcomes.filter_map(Result::err).collect()
    }

    /// Whether `text` has the form of a token rather than of a client secret, for places that can
    /// hold either.
    #[must_use]
    pub fn recognises(&self, text: &str) -> bool {
        !self.providers.is_empty() && jwt::is_plausible(text)
    }

    /// Verifies `token` at `now` (seconds since the Unix epoch).
    ///
    /// # Errors
    /// [`Flaw`] says what is wrong with it.
    pub async fn verify(&self, token: &Secret, now: u64) -> Result<VerifiedToken, Flaw> {
        let token = token.expose();
        if token.len() > self.max_size {
            return Err(Flaw::TooLarge);
        }
        let jwt = Jwt::parse(token)?;
        let issuer = claims::issuer(&jwt.claims)?;
        let mut flaw = Flaw::UnknownIssuer;
        for provider in self.providers.iter().filter(|provider| provider.is(issuer)) {
            match provider.check_signature(&jwt) {
                Ok(()) => return provider.believe(jwt, now),
                Err(Flaw::UnknownKey) if flaw != Flaw::UnknownIssuer => {}
                Err(found) => flaw = found,
            }
        }
        Err(flaw)
    }
}

#[cfg(test)]
mod tests;
