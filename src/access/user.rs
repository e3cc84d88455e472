//! Users: clients that are known by a bearer token.

use std::sync::Arc;
use std::time::Duration;

use super::connection::FOREVER;
use super::{Connection, Gate, Refusal};
use crate::credential::{Claim, Presented, Source, Value};
use crate::route::ClaimRule;
use crate::secret::Secret;
use crate::token::{Flaw, VerifiedToken, Verifier};

/// A token and what it says, for as long as its user stays.
#[derive(Debug)]
pub(super) struct User {
    pub(super) bearer: Arc<Secret>,
    pub(super) token: Arc<VerifiedToken>,
}

impl User {
    /// Until the token expires, if it does; `now` is in seconds since the Unix epoch.
    pub(super) fn time_left(&self, now: u64) -> Option<Duration> {
        let expires = self.token.expires()?;
        Some(Duration::from_secs(expires.saturating_sub(now)).min(FOREVER))
    }
}

/// Whether `token` says all that is demanded of it.
pub(super) fn check_claims(token: &VerifiedToken, rules: &[ClaimRule]) -> Result<(), Refusal> {
    if rules.iter().all(|rule| rule.holds(token.claims())) {
        Ok(())
    } else {
        Err(Refusal::Claims)
    }
}

impl Gate {
    /// The user whose token is all that is presented.
    pub(super) async fn user(
        &self,
        connection: &Connection,
        presented: &Presented,
        claims: &[ClaimRule],
        now: u64,
    ) -> Result<User, Refusal> {
        let (first, others) = presented.claims().split_first().ok_or(Refusal::NoToken)?;
        let bearer = self.bearer(first).ok_or(Refusal::NotAToken(first.source))?;
        for other in others {
            let other = self.bearer(other).ok_or(Refusal::NotAToken(other.source))?;
            if other != bearer {
                return Err(Refusal::TokenConflict);
            }
        }
        let token = self.tokens.load_full().verify(bearer, now).await?;
        self.check_token(&token, now)?;
        // Every time: what is remembered of a token holds for whoever may present it.
        if !is_bound_to(&token, connection) {
            return Err(Refusal::TokenBinding);
        }
        check_claims(&token, claims)?;
        let bearer = Arc::new(bearer.clone());
        Ok(User { bearer, token })
    }

    /// Whether anything that is presented is a token.
    pub(super) fn presents_token(&self, presented: &Presented) -> bool {
        let claims = presented.claims();
        claims.iter().any(|claim| self.bearer(claim).is_some())
    }

    /// What is presented, as tokens and as everything else.
    pub(super) fn split(&self, presented: &Presented) -> (Presented, Presented) {
        presented.split(|claim| self.bearer(claim).is_some())
    }

    pub(super) fn check_token(&self, token: &VerifiedToken, now: u64) -> Result<(), Refusal> {
        if self.revocations.has(token, now) {
            return Err(Flaw::Revoked.into());
        }
        Ok(())
    }

    fn bearer<'a>(&self, claim: &'a Claim) -> Option<&'a Secret> {
        bearer(claim, &self.tokens.load())
    }
}

/// RFC 8705 §3: whether `token` may be presented on `connection`.
fn is_bound_to(token: &VerifiedToken, connection: &Connection) -> bool {
    let bound = token.certificate();
    bound.is_none_or(|bound| connection.fingerprint() == Some(bound))
}

/// The token of a claim. A password says nothing of its kind, so there its form decides.
fn bearer<'a>(claim: &'a Claim, tokens: &Verifier) -> Option<&'a Secret> {
    match (&claim.value, claim.source) {
        (Value::Token(token), _) => Some(token),
        (Value::Secret(secret), Source::Password) => {
            tokens.recognises(secret.expose()).then_some(secret)
        }
        (Value::Secret(_), _) | (Value::Opaque(_) | Value::Malformed, _) => None,
    }
}
