//! [`Admission`]: the proof that the gate said yes.

use std::sync::Arc;

use super::connection::Connection;
use super::standing::Standing;
use super::user::User;
use crate::callout::Grant;
use crate::identity::DeviceIdentity;
use crate::quota::Key;
use crate::route::Demand;
use crate::secret::Secret;
use crate::token::VerifiedToken;
use crate::upstream::DeviceKey;

/// Made by [`super::Gate::admit`] alone; whoever holds one may forward.
#[derive(Debug)]
pub struct Admission {
    credential: ClientCredential,
    user: Option<User>,
    grant: Option<Arc<Grant>>,
    user_name: Option<Secret>,
}

/// What the upstream is told about the client.
#[derive(Debug)]
pub enum ClientCredential {
    /// The common name of the client's certificate.
    Certificate(Arc<DeviceIdentity>),
    /// This secret: what the client presented, or what its binding makes of its certificate.
    Secret(Secret),
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
            user_name: None,
        }
    }

    pub(super) fn of_user(user: User) -> Self {
        Self {
            credential: ClientCredential::Bearer(Arc::clone(&user.bearer)),
            user: Some(user),
            grant: None,
            user_name: None,
        }
    }

    pub(super) fn with_user_name(self, user_name: Option<Secret>) -> Self {
        Self { user_name, ..self }
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
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
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
        let by_certificate = connection.fingerprint().map(DeviceKey::of_certificate);
        by_certificate.or_else(|| match &self.credential {
            ClientCredential::Secret(secret) => Some(DeviceKey::of_secret(secret)),
            ClientCredential::Certificate(_)
            | ClientCredential::Bearer(_)
            | ClientCredential::Unchecked => None,
        })
    }

    /// Who the client is for those who count what it asks for: the user of a token, or else the device
    /// by its certificate or by the secret that it has presented. `None` if nothing of it is known.
    #[must_use]
    pub fn key(&self, connection: &Connection) -> Option<Key> {
        if let (ClientCredential::Bearer(bearer), Some(token)) = (&self.credential, self.token()) {
            let provider = token.provider().as_bytes();
            return Some(match token.subject() {
                Some(subject) => Key::of("user", &[provider, subject.as_bytes()]),
                None => Key::of("token", &[bearer.expose().as_bytes()]),
            });
        }
        if let Some(fingerprint) = connection.fingerprint() {
            return Some(Key::of("certificate", &[fingerprint.as_bytes()]));
        }
        match &self.credential {
            ClientCredential::Secret(secret) => {
                Some(Key::of("secret", &[secret.expose().as_bytes()]))
            }
            ClientCredential::Certificate(_)
            | ClientCredential::Bearer(_)
            | ClientCredential::Unchecked => None,
        }
    }

    /// What the client's token says, if it was admitted by one.
    #[must_use]
    pub fn token(&self) -> Option<&Arc<VerifiedToken>> {
        self.user.as_ref().map(|user| &user.token)
    }

    /// What the client was admitted by, which has met `demand`, for those who serve it for longer.
    #[must_use]
    pub fn into_standing(self, demand: Demand<'_>) -> Standing {
        let is_client = match self.credential {
            ClientCredential::Certificate(_) | ClientCredential::Secret(_) => true,
            ClientCredential::Bearer(_) | ClientCredential::Unchecked => false,
        };
        Standing {
            user: self.user,
            client: is_client.then_some(demand.binding),
            callout: demand.callout,
        }
    }

    /// The user name that is bound to the certificate, for protocols that have one: the client may have
    /// given it elsewhere, or not at all.
    #[must_use]
    pub fn user_name(&self) -> Option<&Secret> {
        self.user_name.as_ref()
    }
}
