//! All policy in one place: [`Gate::admit`] says whether a client may pass, for every protocol.
//!
//! HTTP, WebSocket and MQTT differ in where a secret stands and in how a no is said; what is
//! allowed is decided here and only here. Forwarding demands the [`Admission`] that comes out.

mod admission;
mod connection;
mod consult;
mod refusal;
mod user;

pub use admission::{Admission, ClientCredential};
pub use connection::{ClientIdentity, Connection, ConnectionId, Handshake};
pub use refusal::Refusal;
pub use user::User;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::callout::Callout;
use crate::credential::{Claim, Presented, Source, Value};
use crate::identity::DeviceIdentity;
use crate::route::{Demand, Requirement};
use crate::secret::Secret;
use crate::token::Verifier;

/// What makes a client known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `x509`: its certificate; what it presents besides must be the same secret.
    Certificate,
    /// `key`: the client secret that it presents.
    Key,
}

/// Admits or refuses.
#[derive(Debug, Clone)]
pub struct Gate {
    mode: Mode,
    /// Those in force, whichever a connection has begun under.
    tokens: Arc<ArcSwap<Verifier>>,
    callout: Option<Arc<Callout>>,
}

impl Gate {
    /// A gate that knows clients by `mode`, and by what `callout` says of them if there is one, and
    /// users by `tokens`.
    #[must_use]
    pub fn new(mode: Mode, tokens: Arc<ArcSwap<Verifier>>, callout: Option<Arc<Callout>>) -> Self {
        Self {
            mode,
            tokens,
            callout,
        }
    }

    /// Whether a client on `connection` that presents `presented` may pass at `now` (seconds since
    /// the Unix epoch). Waits for nothing but what a token may need to be verified, and for the
    /// call-out; dropping it half-way loses nothing.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub async fn admit(
        &self,
        connection: &Connection,
        demand: Demand<'_>,
        presented: &Presented,
        now: u64,
    ) -> Result<Admission, Refusal> {
        match demand.requirement {
            Requirement::None => Ok(Admission::new(ClientCredential::Unchecked)),
            Requirement::Client => self.known_client(connection, presented, now).await,
            Requirement::User => {
                let user = self.user(connection, presented, demand.claims, now).await?;
                Ok(Admission::of_user(user))
            }
            Requirement::Any if self.presents_token(presented) => {
                // A token that does not hold is refused, whoever else the client may be.
                let user = self.user(connection, presented, demand.claims, now).await?;
                Ok(Admission::of_user(user))
            }
            Requirement::Any => match self.known_client(connection, presented, now).await {
                Err(Refusal::NoCertificate | Refusal::NoCredential) => Err(Refusal::Nobody),
                outcome => outcome,
            },
            Requirement::Both => {
                let (tokens, others) = self.split(presented);
                let client = self.known_client(connection, &others, now).await?;
                let user = self.user(connection, &tokens, demand.claims, now).await?;
                Ok(client.with_user(user))
            }
        }
    }

    /// The client, as `auth` says that it is known and the call-out confirms.
    async fn known_client(
        &self,
        connection: &Connection,
        presented: &Presented,
        now: u64,
    ) -> Result<Admission, Refusal> {
        let credential = self.client(connection, presented, now)?;
        let Some(callout) = &self.callout else {
            return Ok(Admission::new(credential));
        };
        // On the heap, so that those who ask nobody carry nothing of it.
        let consulted = consult::consult(callout, connection, credential, presented);
        Box::pin(consulted).await
    }

    /// Who else is asked about clients.
    #[must_use]
    pub fn callout(&self) -> Option<&Arc<Callout>> {
        self.callout.as_ref()
    }

    /// The client, as `auth` says that it is known.
    fn client(
        &self,
        connection: &Connection,
        presented: &Presented,
        now: u64,
    ) -> Result<ClientCredential, Refusal> {
        match self.mode {
            Mode::Certificate => {
                let device = by_certificate(connection, presented, now)?;
                Ok(ClientCredential::Certificate(Arc::clone(device)))
            }
            Mode::Key => Ok(ClientCredential::Presented(by_key(presented)?)),
        }
    }

    /// Whether a client may go on to present its credential by other means, as one does that opens a
    /// WebSocket to speak MQTT. What it has presented so far must not stand against it. Cancel-safe.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub async fn admit_to_present(
        &self,
        connection: &Connection,
        demand: Demand<'_>,
        presented: &Presented,
        now: u64,
    ) -> Result<(), Refusal> {
        let (tokens, others) = self.split(presented);
        match demand.requirement {
            Requirement::None => return Ok(()),
            Requirement::Client => return self.may_be_client(connection, presented, now),
            Requirement::User if others.claims().is_empty() => {}
            Requirement::User => return Err(Refusal::NotAToken(others.claims()[0].source)),
            Requirement::Any if tokens.claims().is_empty() => {
                return match self.may_be_client(connection, &others, now) {
                    // It may have a token still.
                    Err(Refusal::NoCertificate) if others.claims().is_empty() => Ok(()),
                    outcome => outcome,
                };
            }
            Requirement::Any => {}
            Requirement::Both => self.may_be_client(connection, &others, now)?,
        }
        if tokens.claims().is_empty() {
            return Ok(());
        }
        let user = self.user(connection, &tokens, demand.claims, now);
        user.await.map(drop)
    }

    fn may_be_client(
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
) -> Result<&'a Arc<DeviceIdentity>, Refusal> {
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
        Value::Token(_) | Value::Malformed => false,
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
        Value::Token(_) | Value::Opaque(_) | Value::Malformed => {
            Err(Refusal::MalformedCredential(claim.source))
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "the Authorization header",
            Self::Query => "the authorization query parameter",
            Self::Subprotocol => "the WebSocket subprotocol",
            Self::Password => "the password",
        })
    }
}
