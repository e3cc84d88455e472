//! [`Admission`]: the proof that the gate said yes.

use std::sync::Arc;
use std::time::Duration;

use super::connection::FOREVER;
use super::user::User;
use crate::identity::DeviceIdentity;
use crate::secret::Secret;
use crate::token::VerifiedToken;

/// Made by [`super::Gate::admit`] alone; whoever holds one may forward.
#[derive(Debug)]
pub struct Admission {
    credential: ClientCredential,
    token: Option<Arc<VerifiedToken>>,
}

/// What the upstream is told about the client.
#[derive(Debug)]
pub enum ClientCredential {
    /// The secret of the client's certificate.
    Certificate(Arc<DeviceIdentity>),
    /// The secret that the client presented.
    Presented(Secret),
    /// The bearer token that the client presented.
    Bearer(Secret),
    /// The route demands nothing: whatever the client sent stays as it is.
    Unchecked,
}

impl Admission {
    pub(super) fn new(credential: ClientCredential) -> Self {
        Self {
            credential,
            token: None,
        }
    }

    pub(super) fn of_user(user: User) -> Self {
        Self {
            credential: ClientCredential::Bearer(user.bearer),
            token: Some(user.token),
        }
    }

    /// As it is, for a client with whom a user has come.
    pub(super) fn with_user(self, user: User) -> Self {
        Self {
            token: Some(user.token),
            ..self
        }
    }

    /// The credential to forward.
    #[must_use]
    pub fn credential(&self) -> &ClientCredential {
        &self.credential
    }

    /// What the client's token says, if it was admitted by one.
    #[must_use]
    pub fn token(&self) -> Option<&Arc<VerifiedToken>> {
        self.token.as_ref()
    }

    /// Until the client's token expires, if it was admitted by one that does; `now` is in seconds
    /// since the Unix epoch.
    #[must_use]
    pub fn time_left(&self, now: u64) -> Option<Duration> {
        let expires = self.token.as_ref()?.expires()?;
        Some(Duration::from_secs(expires.saturating_sub(now)).min(FOREVER))
    }
}
