//! What all workers know of one upstream: its settings, its servers, and which of them serve.
//!
//! Requests only read, and count; what changes rarely stands behind a lock, and each change makes a
//! new [`Lineup`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Settings;
use super::balance::{Lineup, Seat};
use super::ejection::{Outcome, Record};
use super::server::{Server, ServerSettings};
use crate::telemetry::Metrics;

/// One group of servers, shared by all workers.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: Arc<Settings>,
    lineup: ArcSwap<Lineup>,
    roster: Mutex<Vec<Entry>>,
    /// A server has been left out.
    ejected: Notify,
}

/// One server and whether it serves.
#[derive(Debug, Clone)]
struct Entry {
    server: Arc<Server>,
    weight: u32,
    record: Record,
}

impl Group {
    /// All servers that `settings` names. Those that `former` knows are the same, with whatever has
    /// happened to them.
    #[must_use]
    pub fn new(settings: Arc<Settings>, former: Option<&Self>, metrics: &Metrics) -> Self {
        let known = former.map(|former| former.roster().clone());
        let known = known.unwrap_or_default();
        let entry = |server: &ServerSettings| {
            let known = known
                .iter()
                .find(|entry| entry.server.name() == server.name);
            let fresh = || {
                let metrics = metrics.for_server(&settings.name, &server.name);
                metrics.in_service.set(1);
                Arc::new(Server::new(&server.name, metrics))
            };
            Entry {
                server: known.map_or_else(fresh, |entry| Arc::clone(&entry.server)),
                weight: server.weight,
                record: known.map(|entry| entry.record.clone()).unwrap_or_default(),
            }
        };
        let roster: Vec<Entry> = settings.servers.iter().map(entry).collect();
        Self {
            lineup: ArcSwap::from_pointee(lineup(&roster)),
            roster: Mutex::new(roster),
            settings,
            ejected: Notify::new(),
        }
    }

    /// Takes the servers off the metrics that `successor`, if there is one, has not.
    pub fn retire(&self, successor: Option<&Self>, metrics: &Metrics) {
        for entry in self.roster().iter() {
            let stays = |successor: &Self| {
                let settings = &successor.settings.servers;
                settings
                    .iter()
                    .any(|server| server.name == entry.server.name())
            };
            if !successor.is_some_and(stays) {
                metrics.forget_server(&self.settings.name, entry.server.name());
            }
        }
    }

    /// The upstream's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    pub(super) fn lineup(&self) -> arc_swap::Guard<Arc<Lineup>> {
        self.lineup.load()
    }

    /// Notes how `server` has fared, and leaves it out if it has failed too often.
    pub(super) fn note(&self, server: &Arc<Server>, outcome: Outcome) {
        match outcome {
            Outcome::Fine => server.fared_well(),
            Outcome::Faulty => {
                let failures = server.failed();
                let most = self.settings.ejection.failures;
                if most.is_some_and(|most| failures >= most) {
                    self.eject(server, failures);
                }
            }
        }
    }

    /// Leaves `server` out for a time, unless it is the last one that serves.
    fn eject(&self, server: &Arc<Server>, failures: u32) {
        let mut roster = self.roster();
        let serving = roster.iter().filter(|entry| entry.serves()).count();
        let entry = roster
            .iter_mut()
            .find(|entry| Arc::ptr_eq(&entry.server, server));
        let Some(entry) = entry.filter(|entry| entry.serves() && serving > 1) else {
            return;
        };
        let time = entry.record.eject(&self.settings.ejection, Instant::now());
        server.fared_well();
        server.metrics.ejections.inc();
        server.metrics.in_service.set(0);
        tracing::warn!(
            upstream = self.name(),
            server = server.name(),
            failures,
            ?time,
            "a server that fails is left out"
        );
        self.lineup.store(Arc::new(lineup(&roster)));
        self.ejected.notify_one();
    }

    /// Lets servers back in time; for as long as the group is in force.
    pub async fn keep(&self) {
        loop {
            let next = self.roster().iter().filter_map(|e| e.record.until()).min();
            tokio::select! {
                () = until(next) => self.readmit(),
                () = self.ejected.notified() => {}
            }
        }
    }

    fn readmit(&self) {
        let mut roster = self.roster();
        let now = Instant::now();
        let mut changed = false;
        for Entry { server, record, .. } in roster.iter_mut() {
            if record.readmit(now) {
                changed = true;
                server.metrics.in_service.set(1);
                tracing::info!(
                    upstream = self.name(),
                    server = server.name(),
                    "a server is back in service"
                );
            }
        }
        if changed {
            self.lineup.store(Arc::new(lineup(&roster)));
        }
    }

    fn roster(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn serves(&self) -> bool {
        !self.record.is_out()
    }
}

fn lineup(roster: &[Entry]) -> Lineup {
    let seat = |entry: &Entry| Seat {
        server: Arc::clone(&entry.server),
        weight: entry.weight,
        serves: entry.serves(),
    };
    Lineup::new(roster.iter().map(seat).collect())
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
