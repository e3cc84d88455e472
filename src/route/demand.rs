//! What is demanded of clients, wherever they come in.

use std::sync::Arc;

use super::{ClaimRule, Requirement, Route};

/// What a client must be, and what its token must say if it is known by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    /// What the client must be.
    pub requirement: Requirement,
    /// What its token must say, all of it.
    pub claims: &'a [ClaimRule],
    /// How what it presents is bound to its certificate, an index into the list of bindings.
    pub binding: usize,
    /// Who else is asked about it, an index into the list of call-outs; nobody if absent.
    pub callout: Option<usize>,
}

/// Where clients come in, by its name in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// By a route.
    Route(&'a str),
    /// By a listener for MQTT alone, which has no routes.
    Listener(&'a str),
}

/// What a listener for MQTT alone demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerDemand {
    /// Its name.
    pub listener: String,
    /// What a client must be.
    pub requirement: Requirement,
    /// How what it presents is bound to its certificate, an index into the list of bindings.
    pub binding: usize,
    /// Who else is asked about it, an index into the list of call-outs; nobody if absent.
    pub callout: Option<usize>,
}

impl ListenerDemand {
    /// Where its clients come in.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry::Listener(&self.listener)
    }

    /// As a demand like any other.
    #[must_use]
    pub fn demand(&self) -> Demand<'_> {
        Demand {
            requirement: self.requirement,
            claims: &[],
            binding: self.binding,
            callout: self.callout,
        }
    }
}

/// Everything that is demanded now: those who have come in under another configuration are asked again.
#[derive(Debug, Default)]
pub struct Demands {
    routes: Vec<Arc<Route>>,
    listeners: Vec<ListenerDemand>,
    callouts: Vec<Consulted>,
}

/// A service that is asked, as those know it who have been let in by its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consulted {
    /// Its name in the configuration.
    pub callout: String,
    /// Whether it is asked about clients alone, and never about users.
    pub is_about_clients: bool,
}

impl Demands {
    /// The demands of these routes and listeners, and the call-outs that they refer to.
    #[must_use]
    pub fn new(
        routes: Vec<Arc<Route>>,
        listeners: Vec<ListenerDemand>,
        callouts: Vec<Consulted>,
    ) -> Self {
        Self {
            routes,
            listeners,
            callouts,
        }
    }

    /// Who is asked for `demand`, which is one of these; `None` if nobody is.
    #[must_use]
    pub fn consulted(&self, demand: Demand<'_>) -> Option<&Consulted> {
        self.callouts.get(demand.callout?)
    }

    /// What is demanded at `entry`; `None` if it is no longer there.
    #[must_use]
    pub fn at(&self, entry: Entry<'_>) -> Option<Demand<'_>> {
        match entry {
            Entry::Route(name) => {
                let route = self.routes.iter().find(|route| route.name == name);
                route.map(|route| route.demand())
            }
            Entry::Listener(name) => {
                let listener = self.listeners.iter().find(|known| known.listener == name);
                listener.map(ListenerDemand::demand)
            }
        }
    }
}
