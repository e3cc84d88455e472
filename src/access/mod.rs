//! All policy in one place: [`Gate::admit`] says whether a client may pass, for every protocol.
//!
//! HTTP, WebSocket and MQTT differ in where a secret stands and in how a no is said; what is
//! allowed is decided here and only here. Forwarding demands the [`Admission`] that comes out.

mod admission;
mod connection;
mod refusal;

pub use admission::{Admission, ClientCredential};
pub use connection::{ClientIdentity, Connection, ConnectionId, Handshake};
pub use refusal::Refusal;

use crate::credential::{Claim, Presented, Source, Value};
use crate::identity::DeviceIdentity;
use crate::route::Requirement;
use crate::secret::Secret;

/// What makes a client known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `x509`: its certificate; what it presents besides must be the same secret.
    Certificate,
    /// `key`: the client secret that it presents.
    Key,
}

/// Admits or refuses.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    mode: Mode,
}

impl Gate {
    /// A gate that knows clients by `mode`.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode }
    }

    /// Whether a client on `connection` that presents `presented` may pass at `now` (seconds since
    /// the Unix epoch).
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn admit(
        &self,
        connection: &Connection,
        requirement: Requirement,
        presented: &Presented,
        now: u64,
    ) -> Result<Admission, Refusal> {
        let credential = match (requirement, self.mode) {
            (Requirement::None, _) => ClientCredential::Unchecked,
            (Requirement::Client, Mode::Certificate) => {
                let device = by_certificate(connection, presented, now)?;
                ClientCredential::Certificate(device.clone())
            }
            (Requirement::Client, Mode::Key) => ClientCredential::Presented(by_key(presented)?),
        };
        Ok(Admission::new(credential))
    }

    /// Whether a client may go on to present its secret by other means, as one does that opens a
    /// WebSocket to speak MQTT. What it has presented so far must not stand against it.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn admit_to_present(
        &self,
        connection: &Connection,
        presented: &Presented,
        now: u64,
    ) -> Result<(), Refusal> {
        match self.mode {
            Mode::Certificate => by_certificate(connection, presented, now).map(drop),
            Mode::Key if presented.claims().is_empty() => Ok(()),
            Mode::Key => by_key(presented).map(drop),
        }
    }
}

fn by_certificate<'a>(
    connection: &'a Connection,
    presented: &Presented,
    now: u64,
) -> Result<&'a std::sync::Arc<DeviceIdentity>, Refusal> {
    let device = match connection.identity() {
        ClientIdentity::Device(device) => device,
        ClientIdentity::Unusable(error) => return Err(Refusal::UnusableCertificate(*error)),
        ClientIdentity::Absent => return Err(Refusal::NoCertificate),
    };
    if device.has_expired(now) {
        return Err(Refusal::CertificateExpired);
    }
    match presented
        .claims()
        .iter()
        .find(|claim| !agrees(claim, device))
    {
        Some(claim) => Err(Refusal::Mismatch(claim.source)),
        None => Ok(device),
    }
}

fn agrees(claim: &Claim, device: &DeviceIdentity) -> bool {
    match &claim.value {
        Value::Secret(secret) | Value::Opaque(secret) => secret == device.client_secret(),
        Value::Malformed => false,
    }
}

/// The one secret that all claims agree on.
fn by_key(presented: &Presented) -> Result<Secret, Refusal> {
    let (first, others) = presented
        .claims()
        .split_first()
        .ok_or(Refusal::NoCredential)?;
    let secret = presented_secret(first)?;
    for other in others {
        if presented_secret(other)? != secret {
            return Err(Refusal::Conflict);
        }
    }
    Ok(secret.clone())
}

fn presented_secret(claim: &Claim) -> Result<&Secret, Refusal> {
    match &claim.value {
        Value::Secret(secret) => Ok(secret),
        Value::Opaque(_) | Value::Malformed => Err(Refusal::MalformedCredential(claim.source)),
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "the Authorization header",
            Self::Query => "the authorization query parameter",
            Self::Password => "the password",
        })
    }
}
