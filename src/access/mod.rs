//! All policy in one place: [`Gate::admit`] says whether a client may pass, for every protocol.
//!
//! HTTP, WebSocket and MQTT differ in where a secret stands and in how a no is said; what is
//! allowed is decided here and only here. Forwarding demands the [`Admission`] that comes out.

mod admission;
mod binding;
mod connection;
mod consult;
mod refusal;
mod standing;
mod user;

pub use admission::{Admission, ClientCredential};
pub use binding::{Binding, Rule, SecretRule};
pub use connection::{Connection, ConnectionId, Handshake};
pub use refusal::Refusal;
pub use standing::{InForce, Lapse, Standing};

use user::User;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::callout::{Callout, Objection, Request};
use crate::credential::{Claim, Place, Presented, Source, Value};
use crate::identity::DeviceIdentity;
use crate::route::{Demand, Requirement};
use crate::secret::Secret;
use crate::token::{Revocations, Verifier};

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
    /// What of them holds no longer.
    revocations: Arc<Revocations>,
    callouts: Arc<[Arc<Callout>]>,
    bindings: Arc<[Binding]>,
    /// For those who have stayed, likewise those in force.
    in_force: Arc<ArcSwap<InForce>>,
}

impl Gate {
    /// A gate that knows clients by `mode` and the bindings and call-outs that demands refer to, and
    /// users by `tokens` that are not among the `revocations`. Those who have stayed are asked for what
    /// is `in_force`.
    #[must_use]
    pub fn new(
        mode: Mode,
        bindings: Arc<[Binding]>,
        tokens: Arc<ArcSwap<Verifier>>,
        revocations: Arc<Revocations>,
        callouts: Arc<[Arc<Callout>]>,
        in_force: Arc<ArcSwap<InForce>>,
    ) -> Self {
        Self {
            mode,
            tokens,
            revocations,
            callouts,
            bindings,
            in_force,
        }
    }

    /// The places, besides those of credentials, that `demand` looks at; whoever reads a message
    /// adds what stands there.
    pub fn places(&self, demand: Demand<'_>) -> impl Iterator<Item = &Place> {
        let binding = self.binding(demand).ok();
        let callout = self.callout(demand).and_then(Result::ok);
        let asked = callout.filter(|callout| callout.tells_user_name());
        let bound = binding.into_iter().flat_map(Binding::places);
        bound.chain(asked.map(|_| &Place::UserName))
    }

    /// Whether an MQTT client's word at `place` is looked at.
    #[must_use]
    pub fn looks_at(&self, demand: Demand<'_>, place: &Place) -> bool {
        demand.callout.is_some() || self.places(demand).any(|known| known == place)
    }

    /// Whether it is its certificate that somebody is to be known by who presents `presented`.
    #[must_use]
    pub fn knows_by_certificate(&self, demand: Demand<'_>, presented: &Presented) -> bool {
        let is_client = match demand.requirement {
            Requirement::Client | Requirement::Both => true,
            Requirement::Any => !self.presents_token(presented),
            Requirement::User | Requirement::None => false,
        };
        is_client && self.mode == Mode::Certificate
    }

    /// Whether a client on `connection` that presents `presented`, with `request` unless it speaks
    /// MQTT, may pass at `now` (seconds since the Unix epoch). Waits for nothing but what a token may
    /// need to be verified, and for the call-out; dropping it half-way loses nothing.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub async fn admit(
        &self,
        connection: &Connection,
        demand: Demand<'_>,
        presented: &Presented,
        request: Option<&Request<'_>>,
        now: u64,
    ) -> Result<Admission, Refusal> {
        let admission = match demand.requirement {
            Requirement::None => Admission::new(ClientCredential::Unchecked),
            Requirement::Client => self.client(connection, demand, presented, now)?,
            Requirement::User => {
                let user = Box::pin(self.user(connection, presented, demand.claims, now)).await?;
                Admission::of_user(user)
            }
            Requirement::Any if self.presents_token(presented) => {
                // A token that does not hold is refused, whoever else the client may be.
                let user = Box::pin(self.user(connection, presented, demand.claims, now)).await?;
                Admission::of_user(user)
            }
            Requirement::Any => match self.client(connection, demand, presented, now) {
                Err(Refusal::NoCertificate | Refusal::NoCredential) => return Err(Refusal::Nobody),
                outcome => outcome?,
            },
            Requirement::Both => {
                let (tokens, others) = self.split(presented);
                let client = self.client(connection, demand, &others, now)?;
                let user = Box::pin(self.user(connection, &tokens, demand.claims, now)).await?;
                client.with_user(user)
            }
        };
        let Some(callout) = self.callout(demand) else {
            return Ok(admission);
        };
        // On the heap, so that those who ask nobody carry nothing of it.
        let consulted = consult::consult(callout?, connection, admission, presented, request);
        Box::pin(consulted).await
    }

    /// Who else is asked.
    fn callout(&self, demand: Demand<'_>) -> Option<Result<&Callout, Objection>> {
        let callout = self.callouts.get(demand.callout?);
        // One that is named and not there has said nothing.
        Some(
            callout
                .map(|callout| &**callout)
                .ok_or(Objection::Undecided),
        )
    }

    /// Who else may be asked about clients.
    #[must_use]
    pub fn callouts(&self) -> &[Arc<Callout>] {
        &self.callouts
    }

    /// The client, as `auth` says that it is known.
    fn client(
        &self,
        connection: &Connection,
        demand: Demand<'_>,
        presented: &Presented,
        now: u64,
    ) -> Result<Admission, Refusal> {
        match self.mode {
            Mode::Certificate => {
                let device = device(connection, now)?;
                self.binding(demand)?.admit(device, presented)
            }
            Mode::Key => {
                let secret = secret_of_all(presented)?;
                Ok(Admission::new(ClientCredential::Secret(secret)))
            }
        }
    }

    fn binding(&self, demand: Demand<'_>) -> Result<&Binding, Refusal> {
        let binding = self.bindings.get(demand.binding);
        binding.ok_or(Refusal::NoCredential)
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
            Requirement::Client => return self.may_be_client(connection, demand, presented, now),
            Requirement::User if others.claims().is_empty() => {}
            Requirement::User => return Err(Refusal::NotAToken(others.claims()[0].source)),
            Requirement::Any if tokens.claims().is_empty() => {
                return match self.may_be_client(connection, demand, &others, now) {
                    // It may have a token still.
                    Err(Refusal::NoCertificate) if others.claims().is_empty() => Ok(()),
                    outcome => outcome,
                };
            }
            Requirement::Any => {}
            Requirement::Both => self.may_be_client(connection, demand, &others, now)?,
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
        demand: Demand<'_>,
        presented: &Presented,
        now: u64,
    ) -> Result<(), Refusal> {
        match self.mode {
            Mode::Certificate => {
                let device = device(connection, now)?;
                self.binding(demand)?.admit_so_far(device, presented)
            }
            Mode::Key if presented.claims().is_empty() => Ok(()),
            Mode::Key => secret_of_all(presented).map(drop),
        }
    }
}

/// The device whose certificate counts now.
fn device(connection: &Connection, now: u64) -> Result<&Arc<DeviceIdentity>, Refusal> {
    let device = connection.device().ok_or(Refusal::NoCertificate)?;
    if device.has_expired(now) {
        return Err(Refusal::CertificateExpired);
    }
    Ok(device)
}

/// The one secret that all claims agree on.
fn secret_of_all(presented: &Presented) -> Result<Secret, Refusal> {
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
            Self::UserName => "the user name",
            Self::ClientId => "the client identifier",
            Self::OtherHeader => "a header field",
            Self::OtherQuery => "a query parameter",
        })
    }
}
