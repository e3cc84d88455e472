//! [`Admission`]: the proof that the gate said yes.

use std::sync::Arc;

use crate::identity::DeviceIdentity;
use crate::secret::Secret;

/// Made by [`super::Gate::admit`] alone; whoever holds one may forward.
#[derive(Debug)]
pub struct Admission {
    credential: ClientCredential,
}

/// What the upstream is told about the client.
#[derive(Debug)]
pub enum ClientCredential {
    /// The secret of the client's certificate.
    Certificate(Arc<DeviceIdentity>),
    /// The secret that the client presented.
    Presented(Secret),
    /// The route demands nothing: whatever the client sent stays as it is.
    Unchecked,
}

impl Admission {
    pub(super) fn new(credential: ClientCredential) -> Self {
        Self { credential }
    }

    /// The credential to forward.
    #[must_use]
    pub fn credential(&self) -> &ClientCredential {
        &self.credential
    }
}
