//! Those who stay: a WebSocket or an MQTT session is let in once, and is asked again whenever what let
//! it in may have changed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::user::check_claims;
use super::{Binding, Connection, Gate, Mode, Refusal, User};
use crate::clock::Clock;
use crate::route::{Consulted, Demand, Demands, Entry, Requirement};
use crate::token::Flaw;

/// What decides now who may stay, whichever configuration has let somebody in.
#[derive(Debug)]
pub struct InForce {
    /// What makes a client known.
    pub mode: Mode,
    /// The bindings that the demands refer to.
    pub bindings: Arc<[Binding]>,
    /// What is demanded where.
    pub demands: Demands,
}

/// What somebody who stays was admitted by.
#[derive(Debug)]
pub struct Standing {
    pub(super) user: Option<User>,
    /// The binding by which it is known as a client, if it is.
    pub(super) client: Option<usize>,
    /// Who was asked about it, an index into the call-outs of its own gate; nobody if absent.
    pub(super) callout: Option<usize>,
}

impl Standing {
    /// Until its token expires, if it has one that does; `now` is in seconds since the Unix epoch.
    #[must_use]
    pub fn time_left(&self, now: u64) -> Option<Duration> {
        self.user.as_ref()?.time_left(now)
    }
}

impl Gate {
    /// Checks somebody who came in at `entry`, and has stayed, against what is in force now. Cancel-safe.
    ///
    /// # Errors
    /// [`Refusal`] if it would not be admitted today.
    async fn check_again(
        &self,
        standing: &Standing,
        entry: Entry<'_>,
        now: u64,
    ) -> Result<(), Refusal> {
        let in_force = self.in_force.load_full();
        let demands = &in_force.demands;
        let demand = demands.at(entry).ok_or(Refusal::OtherDemand)?;
        self.check_callout(standing, demands.consulted(demand))?;
        let check_client = || match standing.client {
            Some(binding) => self.check_binding(binding, &in_force, demand),
            None => Err(Refusal::OtherDemand),
        };
        match (demand.requirement, &standing.user) {
            (Requirement::None, _) => Ok(()),
            (Requirement::Client, _) | (Requirement::Any, None) => check_client(),
            (Requirement::User | Requirement::Any, Some(user)) => {
                self.check_user(user, demand, now).await
            }
            (Requirement::Both, Some(user)) => {
                check_client()?;
                self.check_user(user, demand, now).await
            }
            (Requirement::User | Requirement::Both, None) => Err(Refusal::OtherDemand),
        }
    }

    /// Whoever was let in as a client, by `binding`, is known still, unless another one is asked for now. What it
    /// has presented is not kept, so it cannot be compared anew.
    fn check_binding(
        &self,
        binding: usize,
        in_force: &InForce,
        demand: Demand<'_>,
    ) -> Result<(), Refusal> {
        let before = (self.mode, self.bindings.get(binding));
        let now = (in_force.mode, in_force.bindings.get(demand.binding));
        if before == now {
            Ok(())
        } else {
            Err(Refusal::OtherDemand)
        }
    }

    /// What a service would be told is not kept, so whoever is to be asked now must have been asked before;
    /// somebody else is asked when the client comes again.
    fn check_callout(&self, standing: &Standing, now: Option<&Consulted>) -> Result<(), Refusal> {
        let asked = now.filter(|now| !now.is_about_clients || standing.client.is_some());
        let before = standing.callout.and_then(|index| self.callouts.get(index));
        match (asked, before) {
            (None, _) => Ok(()),
            (Some(now), Some(before)) if now.callout == before.name() => Ok(()),
            (Some(_), _) => Err(Refusal::OtherDemand),
        }
    }

    /// Whether somebody who has come in at `entry` for `demand`, and not been looked at yet, would be looked
    /// at by the rules that are in force now.
    ///
    /// # Errors
    /// [`Refusal::OtherDemand`] if not.
    pub fn check_unchanged(&self, entry: Entry<'_>, demand: Demand<'_>) -> Result<(), Refusal> {
        let in_force = self.in_force.load();
        let demands = &in_force.demands;
        let now = demands.at(entry).ok_or(Refusal::OtherDemand)?;
        self.check_binding(demand.binding, &in_force, now)?;
        let asked = demand.callout.and_then(|index| self.callouts.get(index));
        let asked = asked.map(|callout| callout.name());
        let is_same_callout = asked == demands.consulted(now).map(|now| &*now.callout);
        if is_same_callout && (now.requirement, now.claims) == (demand.requirement, demand.claims) {
            Ok(())
        } else {
            Err(Refusal::OtherDemand)
        }
    }

    /// Keys that cannot be had are no reason to send anybody away, nor is an issuer that does not answer.
    async fn check_user(&self, user: &User, demand: Demand<'_>, now: u64) -> Result<(), Refusal> {
        let token = match self.tokens.load_full().verify(&user.bearer, now).await {
            Ok(token) => token,
            Err(Flaw::Unavailable) => Arc::clone(&user.token),
            Err(flaw) => return Err(flaw.into()),
        };
        check_claims(&token, demand.claims)
    }

    /// Checks somebody who has stayed, as [`Self::check_again`] does, every time that whoever may have
    /// taken back its token is to be asked.
    pub fn lapse<'a>(
        &'a self,
        standing: &'a Standing,
        entry: Entry<'a>,
        connection: &Connection,
        clock: &'a dyn Clock,
    ) -> Lapse<'a> {
        // A fleet that has come at once does not ask at once.
        let sooner = 1.0 - connection.id().share() / 10.0;
        let token = standing.user.as_ref().map(|user| &user.token);
        let recheck = token.and_then(|token| token.recheck());
        Lapse(recheck.map(|recheck| -> Ending<'a> {
            Box::pin(async move {
                loop {
                    tokio::time::sleep(recheck.mul_f64(sooner)).await;
                    let now = clock.now();
                    if let Err(refusal) = self.check_again(standing, entry, now).await {
                        return Some(refusal);
                    }
                }
            })
        }))
    }

    /// Checks somebody who has stayed, as [`Self::check_again`] does, once.
    pub fn reconsider<'a>(
        &'a self,
        standing: &'a Standing,
        entry: Entry<'a>,
        now: u64,
    ) -> Lapse<'a> {
        let again = async move { self.check_again(standing, entry, now).await.err() };
        Lapse(Some(Box::pin(again)))
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

type Ending<'a> = Pin<Box<dyn Future<Output = Option<Refusal>> + Send + 'a>>;

/// Ends, once, when somebody who has stayed is found to have lost the right to, and never for all others. It
/// may wait for the issuer of a token, so it stands beside the traffic of whom it is about.
pub struct Lapse<'a>(Option<Ending<'a>>);

impl Lapse<'_> {
    /// Of somebody about whom there is nothing to be found.
    #[must_use]
    pub fn never() -> Self {
        Self(None)
    }
}

impl fmt::Debug for Lapse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lapse").finish_non_exhaustive()
    }
}

impl Future for Lapse<'_> {
    type Output = Refusal;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Refusal> {
        let Some(ending) = &mut self.0 else {
            return Poll::Pending;
        };
        let refusal = ready!(ending.as_mut().poll(cx));
        self.0 = None;
        refusal.map_or(Poll::Pending, Poll::Ready)
    }
}
