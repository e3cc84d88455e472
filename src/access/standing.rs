//! Those who stay: a WebSocket or an MQTT session is let in once, and is asked again whenever what let
//! it in may have changed.

use std::time::Duration;

use super::{Gate, Refusal, User};
use crate::route::{Demand, Entry, Requirement};
use crate::token::Flaw;

/// What somebody who stays was admitted by.
#[derive(Debug)]
pub struct Standing {
    pub(super) user: Option<User>,
    /// The binding by which it is known as a client, if it is.
    pub(super) client: Option<usize>,
}

impl Standing {
    /// Until its token expires, if it has one that does; `now` is in seconds since the Unix epoch.
    #[must_use]
    pub fn time_left(&self, now: u64) -> Option<Duration> {
        self.user.as_ref()?.time_left(now)
    }

    /// Whoever was let in as a client is known still, unless another binding is asked for now. What it
    /// has presented is not kept, so it cannot be compared anew.
    fn check_client(&self, demand: Demand<'_>) -> Result<(), Refusal> {
        if self.client == Some(demand.binding) {
            Ok(())
        } else {
            Err(Refusal::OtherDemand)
        }
    }
}

impl Gate {
    /// Checks somebody who came in at `entry`, and has stayed, against what is in force now. Cancel-safe.
    ///
    /// # Errors
    /// [`Refusal`] if it would not be admitted today.
    pub async fn check_again(
        &self,
        standing: &Standing,
        entry: Entry<'_>,
        now: u64,
    ) -> Result<(), Refusal> {
        let demands = self.demands.load_full();
        let demand = demands.at(entry).ok_or(Refusal::OtherDemand)?;
        match (demand.requirement, &standing.user) {
            (Requirement::None, _) => Ok(()),
            (Requirement::Client, _) | (Requirement::Any, None) => standing.check_client(demand),
            (Requirement::User | Requirement::Any, Some(user)) => {
                self.check_user(user, demand, now).await
            }
            (Requirement::Both, Some(user)) => {
                standing.check_client(demand)?;
                self.check_user(user, demand, now).await
            }
            (Requirement::User | Requirement::Both, None) => Err(Refusal::OtherDemand),
        }
    }

    /// Whether somebody who has come in at `entry` for `demand`, and not been looked at yet, would be looked
    /// at by the rules that are in force now.
    ///
    /// # Errors
    /// [`Refusal::OtherDemand`] if not.
    pub fn check_unchanged(&self, entry: Entry<'_>, demand: Demand<'_>) -> Result<(), Refusal> {
        if self.demands.load().at(entry) == Some(demand) {
            Ok(())
        } else {
            Err(Refusal::OtherDemand)
        }
    }

    /// Keys that cannot be had are no reason to send anybody away.
    async fn check_user(&self, user: &User, demand: Demand<'_>, now: u64) -> Result<(), Refusal> {
        match self.tokens.load_full().verify(&user.bearer, now).await {
            Ok(_) | Err(Flaw::Unavailable) => user.check_claims(demand.claims),
            Err(flaw) => Err(flaw.into()),
        }
    }

    /// Checks somebody who has stayed against the list of revoked tokens.
    ///
    /// # Errors
    /// [`Refusal::Token`] if its token is on it.
    pub fn check_revocation(&self, standing: &Standing, now: u64) -> Result<(), Refusal> {
        match &standing.user {
            Some(user) => self.check_token(&user.token, now),
            None => Ok(()),
        }
    }
}
