//! What all workers know of one upstream: its settings, its servers, and which of them serve.
//!
//! Requests only read, and count; what changes rarely stands behind a lock, and each change makes a
//! new [`Lineup`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Settings;
use super::balance::{Balance, Lineup, Seat};
use super::device::Ring;
use super::ejection::{Outcome, Record};
use super::server::{Server, ServerSettings};
use crate::telemetry::Metrics;

/// One group of servers, shared by all workers.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: Arc<Settings>,
    lineup: ArcSwap<Lineup>,
    roster: Mutex<Roster>,
    /// A server has been left out.
    ejected: Notify,
    metrics: Arc<Metrics>,
}

/// All servers of a group.
#[derive(Debug)]
struct Roster {
    entries: Vec<Entry>,
    /// Where devices keep their servers, if they do.
    ring: Option<Arc<Ring>>,
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
    pub fn new(settings: Arc<Settings>, former: Option<&Self>, metrics: &Arc<Metrics>) -> Self {
        let known = former.map(|former| former.roster().entries.clone());
        let known = known.unwrap_or_default();
        let mut entries = Vec::new();
        for ServerSettings { name, weight } in &settings.servers {
            let before = entries.len();
            let known = known.iter().filter(|entry| entry.server.name() == name);
            entries.extend(known.cloned().map(|entry| Entry {
                weight: *weight,
                ..entry
            }));
            if entries.len() == before {
                entries.push(Entry::new(&settings, name, None, *weight, metrics));
            }
        }
        let roster = Roster::new(entries, settings.balance);
        Self {
            lineup: ArcSwap::from_pointee(roster.lineup()),
            roster: Mutex::new(roster),
            settings,
            ejected: Notify::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Takes the servers off the metrics that `successor`, if there is one, has not.
    pub fn retire(&self, successor: Option<&Self>) {
        for entry in &self.roster().entries {
            let stays = |successor: &Self| successor.roster().has(&entry.server);
            if !successor.is_some_and(stays) {
                self.metrics
                    .forget_server(&self.settings.name, &label(&entry.server));
            }
        }
    }

    /// The upstream's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Puts servers at these addresses in the place of those that `name` had. Those that stay are
    /// the same; addresses that other servers of the group have are theirs.
    pub(super) fn resolved(&self, name: &str, addresses: &[SocketAddr]) {
        let mut roster = self.roster();
        let is_ours = |entry: &Entry| entry.server.name() == name;
        let (ours, others): (Vec<Entry>, Vec<Entry>) =
            roster.entries.iter().cloned().partition(is_ours);
        let has = |entries: &[Entry], address: SocketAddr| {
            let at = |entry: &&Entry| entry.server.address() == Some(address);
            entries.iter().find(at).cloned()
        };
        let addresses: Vec<SocketAddr> = addresses
            .iter()
            .copied()
            .filter(|address| has(&others, *address).is_none())
            .collect();
        let now = ours.iter().filter_map(|entry| entry.server.address());
        if addresses.is_empty() || now.eq(addresses.iter().copied()) {
            return;
        }
        let weight = ours.first().map_or(1, |entry| entry.weight);
        let fresh =
            |address| Entry::new(&self.settings, name, Some(address), weight, &self.metrics);
        let entries = addresses
            .iter()
            .map(|address| has(&ours, *address).unwrap_or_else(|| fresh(*address)));
        let entries: Vec<Entry> = others.into_iter().chain(entries).collect();
        tracing::info!(
            upstream = self.name(),
            name,
            ?addresses,
            "a name has new addresses"
        );
        *roster = Roster::new(entries, self.settings.balance);
        self.lineup.store(Arc::new(roster.lineup()));
        for gone in ours.iter().filter(|entry| !roster.has(&entry.server)) {
            self.metrics
                .forget_server(&self.settings.name, &label(&gone.server));
        }
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
        let serving = roster.entries.iter().filter(|entry| entry.serves()).count();
        let entry = roster
            .entries
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
        self.lineup.store(Arc::new(roster.lineup()));
        self.ejected.notify_one();
    }

    /// Looks after the servers: lets them back in time, and keeps their addresses up to date. To be
    /// aborted when the group is in force no longer.
    pub fn keep(self: &Arc<Self>, keepers: &mut JoinSet<()>) {
        let group = Arc::clone(self);
        keepers.spawn(async move { group.keep_readmitting().await });
        for ServerSettings { name, .. } in &self.settings.servers {
            if name.parse::<SocketAddr>().is_err() {
                let (group, name) = (Arc::clone(self), name.clone());
                keepers.spawn(async move { group.keep_resolving(&name).await });
            }
        }
    }

    async fn keep_readmitting(&self) {
        loop {
            let next = self.roster().next_return();
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
        for Entry { server, record, .. } in &mut roster.entries {
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
            self.lineup.store(Arc::new(roster.lineup()));
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster {
    fn new(entries: Vec<Entry>, balance: Balance) -> Self {
        let ring = (balance == Balance::Device).then(|| {
            let place = |entry: &Entry| Some((entry.server.address()?, entry.weight));
            Arc::new(Ring::new(entries.iter().filter_map(place)))
        });
        Self { entries, ring }
    }

    fn lineup(&self) -> Lineup {
        let seat = |entry: &Entry| Seat {
            server: Arc::clone(&entry.server),
            weight: entry.weight,
            serves: entry.serves(),
        };
        let seats = self.entries.iter().map(seat).collect();
        Lineup::new(seats, self.ring.clone())
    }

    fn next_return(&self) -> Option<Instant> {
        let returns = self.entries.iter().filter_map(|entry| entry.record.until());
        returns.min()
    }

    fn has(&self, server: &Arc<Server>) -> bool {
        let is_same = |entry: &Entry| Arc::ptr_eq(&entry.server, server);
        self.entries.iter().any(is_same)
    }
}

impl Entry {
    fn new(
        settings: &Settings,
        name: &str,
        address: Option<SocketAddr>,
        weight: u32,
        metrics: &Metrics,
    ) -> Self {
        let label = address.map_or_else(|| name.to_owned(), |address| address.to_string());
        let metrics = metrics.for_server(&settings.name, &label);
        metrics.in_service.set(1);
        Self {
            server: Arc::new(Server::new(name, address, metrics)),
            weight,
            record: Record::default(),
        }
    }

    fn serves(&self) -> bool {
        !self.record.is_out()
    }
}

/// What a server is called in logs and metrics: its address, or the name as long as that is all.
fn label(server: &Server) -> String {
    let address = server.address().map(|address| address.to_string());
    address.unwrap_or_else(|| server.name().to_owned())
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ejection::EjectionSettings;
    use super::super::proxy_protocol::ProxyProtocol;
    use super::*;

    fn group(servers: &[(&str, u32)]) -> Group {
        let server = |(name, weight): &(&str, u32)| ServerSettings {
            name: (*name).to_owned(),
            weight: *weight,
        };
        let settings = Settings {
            name: "test".to_owned(),
            servers: servers.iter().map(server).collect(),
            balance: Balance::Device,
            resolve_interval: Duration::from_secs(10),
            ejection: EjectionSettings {
                failures: Some(2),
                time: Duration::from_secs(10),
                max_time: Duration::from_secs(60),
            },
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_idle: 1,
            proxy_protocol: ProxyProtocol::Off,
            websocket_path: None,
            tls: None,
        };
        Group::new(Arc::new(settings), None, &Arc::default())
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Each server with its weight and whether it serves.
    fn shown(group: &Group) -> Vec<(String, u32, bool)> {
        let show = |entry: &Entry| (label(&entry.server), entry.weight, entry.serves());
        group.roster().entries.iter().map(show).collect()
    }

    fn expected(servers: &[(&str, u32, bool)]) -> Vec<(String, u32, bool)> {
        let owned =
            |(name, weight, serves): &(&str, u32, bool)| ((*name).to_owned(), *weight, *serves);
        servers.iter().map(owned).collect()
    }

    #[test]
    fn a_name_stands_for_all_its_addresses_with_its_weight() {
        let group = group(&[("pods:80", 3), ("192.0.2.9:80", 1)]);
        let before = [("pods:80", 3, true), ("192.0.2.9:80", 1, true)];
        assert_eq!(shown(&group), expected(&before));
        group.resolved("pods:80", &addresses(&["192.0.2.1:80", "192.0.2.2:80"]));
        let after = [
            ("192.0.2.9:80", 1, true),
            ("192.0.2.1:80", 3, true),
            ("192.0.2.2:80", 3, true),
        ];
        assert_eq!(shown(&group), expected(&after));
        let text = group.metrics.render().unwrap();
        assert!(text.contains("server=\"192.0.2.1:80\"") && !text.contains("\"pods:80\""));
    }

    #[test]
    fn what_is_known_of_an_address_outlives_the_coming_and_going_of_others() {
        let group = group(&[("pods:80", 1)]);
        group.resolved("pods:80", &addresses(&["192.0.2.1:80", "192.0.2.2:80"]));
        let first = Arc::clone(&group.roster().entries[0].server);
        group.note(&first, Outcome::Faulty);
        group.note(&first, Outcome::Faulty);
        group.resolved("pods:80", &addresses(&["192.0.2.1:80", "192.0.2.3:80"]));
        let after = [("192.0.2.1:80", 1, false), ("192.0.2.3:80", 1, true)];
        assert_eq!(shown(&group), expected(&after));
        assert!(!group.metrics.render().unwrap().contains("192.0.2.2"));
    }

    #[test]
    fn an_answer_without_addresses_changes_nothing_and_no_address_is_there_twice() {
        let group = group(&[("192.0.2.1:80", 1), ("pods:80", 1)]);
        group.resolved("pods:80", &addresses(&["192.0.2.1:80", "192.0.2.2:80"]));
        group.resolved("pods:80", &[]);
        let after = [("192.0.2.1:80", 1, true), ("192.0.2.2:80", 1, true)];
        assert_eq!(shown(&group), expected(&after));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_comes_back_after_its_time() {
        let group = Arc::new(group(&[("192.0.2.1:80", 1), ("192.0.2.2:80", 1)]));
        let first = Arc::clone(&group.roster().entries[0].server);
        let mut keepers = JoinSet::new();
        group.keep(&mut keepers);
        group.note(&first, Outcome::Faulty);
        group.note(&first, Outcome::Faulty);
        assert_eq!(first.metrics.in_service.get(), 0);
        tokio::time::sleep(Duration::from_millis(9_990)).await;
        assert_eq!(first.metrics.in_service.get(), 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(first.metrics.in_service.get(), 1);
    }
}
