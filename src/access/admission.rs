//! [`Admission`]: the proof that the gate said yes.

use std::sync::Arc;

use super::connection::Connection;
use super::user::User;
use crate::callout::Grant;
use crate::identity::DeviceIdentity;
use crate::secret::Secret;
use crate::token::VerifiedToken;
use crate::upstream::DeviceKey;

/// Made by [`super::Gate::admit`] alone; whoever holds one may forward.
#[derive(Debug)]
pub struct Admission {
    credential: ClientCredential,
    user: Option<User>,
    grant: Option<Arc<Grant>>,
}

/// What the upstream is told about the client.
#[derive(Debug)]
pub enum ClientCredential {
    /// The secret of the client's certificate.
    Certificate(Arc<DeviceIdentity>),
    /// The secret that the client presented.
    Presented(Secret),
    /// The bearer token that the client presented.
    Bearer(Arc<Secret>),
    /// The route demands nothing: whatever the client sent stays as it is.
    Unchecked,
}

impl Admission {
    pub(super) fn new(credential: ClientCredential) -> Self {
        Self {
            credential,
            user: None,
            grant: None,
        }
    }

    pub(super) fn of_user(user: User) -> Self {
        Self {
            credential: ClientCredential::Bearer(Arc::clone(&user.bearer)),
            user: Some(user),
            grant: None,
        }
    }

    /// As it is, for a client with whom a user has come.
    pub(super) fn with_user(self, user: User) -> Self {
        Self {
            user: Some(user),
            ..self
        }
    }

    /// As it is, with what the call-out has said.
    pub(super) fn with_grant(self, grant: Arc<Grant>) -> Self {
        Self {
            grant: Some(grant),
            ..self
        }
    }

    /// What the call-out has said of the client, if it was asked.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_deref()
    }

    /// The credential to forward.
    #[must_use]
    pub fn credential(&self) -> &ClientCredential {
        &self.credential
    }

    /// What tells the device of `connection` apart when servers are chosen: its certificate, or else
    /// the secret that it has presented. A user is no device, but may come from one.
    #[must_use]
    pub fn device(&self, connection: &Connection) -> Option<DeviceKey> {
        match &self.credential {
            ClientCredential::Presented(secret) => Some(DeviceKey::of_secret(secret)),
            ClientCredential::Certificate(_)
            | ClientCredential::Bearer(_)
            | ClientCredential::Unchecked => {
                connection.fingerprint().map(DeviceKey::of_certificate)
            }
        }
    }

    /// What the client's token says, if it was admitted by one.
    #[must_use]
    pub fn token(&self) -> Option<&Arc<VerifiedToken>> {
        self.user.as_ref().map(|user| &user.token)
    }

    /// Who was admitted by a token, for those who serve that user for longer.
    #[must_use]
    pub fn into_user(self) -> Option<User> {
        self.user
    }
}
