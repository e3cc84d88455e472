//! What all workers know of one upstream: its settings, its servers, and which of them serve.
//!
//! Requests only read, and count; what changes rarely stands behind a lock, and each change makes a
//! new [`Lineup`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::Request;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Settings;
use super::balance::{Balance, Lineup, Seat};
use super::device::Ring;
use super::ejection::{Outcome, Record};
use super::health::{Ailment, HealthSettings, Pulse};
use super::retries::{Budget, Repeats};
use super::server::{Server, ServerSettings};
use crate::telemetry::{Metrics, UpstreamMetrics};
use crate::tls::Initiator;

/// One group of servers, shared by all workers.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: Arc<Settings>,
    lineup: ArcSwap<Lineup>,
    roster: Mutex<Roster>,
    /// Whether another group has taken its place.
    is_retired: AtomicBool,
    /// Another line-up is in force.
    changed: Notify,
    budget: Budget,
    /// Of the group as a whole.
    counters: UpstreamMetrics,
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
    pulse: Pulse,
    /// When it came back into service.
    returned: Option<Instant>,
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
            entries.extend(known.cloned().map(|entry| {
                Entry {
                    weight: *weight,
                    // If nobody asks any more, nobody would ever hear that it is well.
                    pulse: settings
                        .health
                        .as_ref()
                        .map(|_| entry.pulse)
                        .unwrap_or_default(),
                    ..entry
                }
            }));
            if entries.len() == before {
                entries.push(Entry::new(&settings, name, None, *weight, metrics));
            }
        }
        let roster = Roster::new(entries, settings.balance);
        let lineup = roster.lineup(settings.slow_start, Instant::now());
        for entry in &roster.entries {
            entry.show();
        }
        Self {
            lineup: ArcSwap::from_pointee(lineup),
            roster: Mutex::new(roster),
            is_retired: AtomicBool::new(false),
            budget: Budget::default(),
            counters: metrics.for_upstream(&settings.name),
            settings,
            changed: Notify::new(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Is in force no more, and takes the servers off the metrics that `successor`, if there is one, has not.
    pub fn retire(&self, successor: Option<&Self>) {
        let roster = self.roster();
        self.is_retired.store(true, Ordering::Relaxed);
        for entry in &roster.entries {
            let stays = |successor: &Self| successor.roster().shows(&entry.server);
            if !successor.is_some_and(stays) {
                self.metrics
                    .forget_server(&self.settings.name, &label(&entry.server));
            }
        }
        if successor.is_none() {
            self.metrics.forget_upstream(&self.settings.name);
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
        let Some(mut roster) = self.roster_in_force() else {
            return;
        };
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
        self.publish(&roster);
        for gone in ours.iter().filter(|entry| !roster.shows(&entry.server)) {
            self.metrics
                .forget_server(&self.settings.name, &label(&gone.server));
        }
    }

    /// How often `request` may be sent once more.
    pub(super) fn repeats<B>(&self, request: &Request<B>) -> Repeats<'_> {
        let rules = self.settings.retries.as_ref();
        Repeats::of(request, rules, &self.budget, &self.counters)
    }

    /// Counts a request that was refused since no server had room.
    pub(super) fn is_overloaded(&self) {
        self.counters.overloads.inc();
    }

    pub(super) fn lineup(&self) -> arc_swap::Guard<Arc<Lineup>> {
        self.lineup.load()
    }

    /// Notes how `server` has fared, and leaves it out if it has failed too often.
    pub(super) fn note(&self, server: &Arc<Server>, outcome: Outcome) {
        match outcome {
            Outcome::Fine => server.fared_well(),
            Outcome::Unknown => {}
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
        let Some(mut roster) = self.roster_in_force() else {
            return;
        };
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
        let (upstream, server) = (self.name(), label(server));
        tracing::warn!(
            upstream,
            server,
            failures,
            ?time,
            "a server that fails is left out"
        );
        self.publish(&roster);
    }

    /// All servers there are now.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        let roster = self.roster();
        let servers = roster.entries.iter().map(|entry| Arc::clone(&entry.server));
        servers.collect()
    }

    /// Notes what `server` has answered when it was asked whether it is well.
    pub(super) fn heard(
        &self,
        server: &Arc<Server>,
        answer: Result<(), Ailment>,
        rules: &HealthSettings,
    ) {
        if answer.is_err() {
            server.metrics.checks_failed.inc();
        }
        let Some(mut roster) = self.roster_in_force() else {
            return;
        };
        let is_same = |entry: &&mut Entry| Arc::ptr_eq(&entry.server, server);
        let Some(entry) = roster.entries.iter_mut().find(is_same) else {
            return;
        };
        if !entry.pulse.note(answer.is_ok(), rules) {
            return;
        }
        let (upstream, server) = (self.name(), label(server));
        match answer {
            Ok(()) => {
                entry.returned = Some(Instant::now());
                tracing::info!(upstream, server, "a server is well again");
            }
            Err(ailment) => {
                tracing::warn!(upstream, server, %ailment, "a server that is not well is left out");
            }
        }
        self.publish(&roster);
    }

    /// Lets requests see who serves now.
    fn publish(&self, roster: &Roster) {
        for entry in &roster.entries {
            entry.show();
        }
        let lineup = roster.lineup(self.settings.slow_start, Instant::now());
        self.lineup.store(Arc::new(lineup));
        self.changed.notify_one();
    }

    /// Looks after the servers, which are reached by `tls`: lets them back in time, keeps their
    /// addresses up to date, and asks whether they are well. To be aborted when the group is in
    /// force no longer.
    pub fn keep(self: &Arc<Self>, tls: Option<&Arc<Initiator>>, keepers: &mut JoinSet<()>) {
        let group = Arc::clone(self);
        keepers.spawn(async move { group.keep_readmitting().await });
        for ServerSettings { name, .. } in &self.settings.servers {
            if name.parse::<SocketAddr>().is_err() {
                let (group, name) = (Arc::clone(self), name.clone());
                keepers.spawn(async move { group.keep_resolving(&name).await });
            }
        }
        if let Some(rules) = &self.settings.health {
            keepers.spawn(Arc::clone(self).keep_asking(rules.clone(), tls.cloned()));
        }
    }

    async fn keep_readmitting(&self) {
        while !self.is_retired.load(Ordering::Relaxed) {
            let next = self.next_change();
            tokio::select! {
                () = until(next) => self.readmit(),
                () = self.changed.notified() => {}
            }
        }
    }

    /// When a server comes back, or one that has come back gets a larger share.
    fn next_change(&self) -> Option<Instant> {
        let (roster, now) = (self.roster(), Instant::now());
        let returns = roster
            .entries
            .iter()
            .filter_map(|entry| entry.record.until());
        let step = self.settings.slow_start.filter(|slow_start| {
            let mut entries = roster.entries.iter();
            entries.any(|entry| entry.warmth(Some(*slow_start), now) < WARM)
        });
        let step = step.map(|slow_start| now + slow_start / WARM);
        returns.chain(step).min()
    }

    fn readmit(&self) {
        let (Some(mut roster), now) = (self.roster_in_force(), Instant::now()) else {
            return;
        };
        for entry in &mut roster.entries {
            if entry.record.readmit(now) {
                entry.returned = Some(now);
                let (upstream, server) = (self.name(), label(&entry.server));
                tracing::info!(upstream, server, "a server's time out is over");
            }
        }
        self.publish(&roster);
    }

    /// All servers, as long as it is this group that says who serves. Requests that have begun under it may
    /// outlast it, and its successor shares their servers.
    fn roster_in_force(&self) -> Option<MutexGuard<'_, Roster>> {
        let roster = self.roster();
        (!self.is_retired.load(Ordering::Relaxed)).then_some(roster)
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster {
    fn new(entries: Vec<Entry>, balance: Balance) -> Self {
        let ring = (balance == Balance::Device).then(|| {
            let place = |(place, entry): (u16, &Entry)| {
                Some((place, entry.server.address()?, entry.weight))
            };
            Arc::new(Ring::new((0..).zip(&entries).filter_map(place)))
        });
        Self { entries, ring }
    }

    fn lineup(&self, slow_start: Option<Duration>, now: Instant) -> Lineup {
        let seat = |entry: &Entry| Seat {
            server: Arc::clone(&entry.server),
            weight: entry.weight * entry.warmth(slow_start, now),
            serves: entry.serves(),
        };
        let seats = self.entries.iter().map(seat).collect();
        Lineup::new(seats, self.ring.clone())
    }

    /// Whether metrics tell of one of them by the name by which they tell of `server`.
    fn shows(&self, server: &Server) -> bool {
        let name = label(server);
        self.entries
            .iter()
            .any(|entry| label(&entry.server) == name)
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
        Self {
            server: Arc::new(Server::new(name, address, metrics)),
            weight,
            record: Record::default(),
            pulse: Pulse::default(),
            returned: None,
        }
    }

    fn serves(&self) -> bool {
        !self.record.is_out() && !self.pulse.is_down()
    }

    fn show(&self) {
        let in_service = &self.server.metrics.in_service;
        in_service.set(i64::from(self.serves()));
    }

    /// How much of its share it gets, in tenths: all of it, but after a return it begins with one.
    fn warmth(&self, slow_start: Option<Duration>, now: Instant) -> u32 {
        let (Some(slow_start), Some(returned)) = (slow_start, self.returned) else {
            return WARM;
        };
        let tenths =
            (now - returned).as_millis() * u128::from(WARM) / slow_start.as_millis().max(1);
        u32::try_from(tenths).unwrap_or(WARM).clamp(1, WARM)
    }
}

/// A whole share, in tenths.
const WARM: u32 = 10;

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
    use super::super::ejection::EjectionSettings;
    use super::super::proxy_protocol::ProxyProtocol;
    use super::super::{HostField, HttpVersion};
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
            health: None,
            max_busy: None,
            retries: None,
            slow_start: Some(Duration::from_secs(100)),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_idle: 1,
            http: HttpVersion::Http1,
            host: HostField::AsIs,
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

    #[test]
    fn a_group_that_is_not_in_force_any_more_leaves_nobody_out() {
        let former = group(&[("192.0.2.1:80", 1), ("192.0.2.2:80", 1)]);
        let first = Arc::clone(&former.roster().entries[0].server);
        let settings = Arc::clone(&former.settings);
        let group = Group::new(settings, Some(&former), &former.metrics);
        former.retire(Some(&group));
        // Its last requests fail.
        former.note(&first, Outcome::Faulty);
        former.note(&first, Outcome::Faulty);
        assert_eq!(first.metrics.in_service.get(), 1);
        // They count all the same.
        group.note(&first, Outcome::Faulty);
        assert_eq!(first.metrics.in_service.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_not_in_force_any_more_lets_nobody_back_in() {
        let group = Arc::new(group(&[("192.0.2.1:80", 1), ("192.0.2.2:80", 1)]));
        let first = Arc::clone(&group.roster().entries[0].server);
        let keeper = Arc::clone(&group);
        let keeping = tokio::spawn(async move { keeper.keep_readmitting().await });
        group.note(&first, Outcome::Faulty);
        group.note(&first, Outcome::Faulty);
        tokio::task::yield_now().await;
        group.retire(None);
        // Nor does it try again and again once its time has come.
        keeping.await.unwrap();
        assert_eq!(first.metrics.in_service.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_comes_back_after_its_time() {
        let group = Arc::new(group(&[("192.0.2.1:80", 1), ("192.0.2.2:80", 1)]));
        let first = Arc::clone(&group.roster().entries[0].server);
        let mut keepers = JoinSet::new();
        group.keep(None, &mut keepers);
        group.note(&first, Outcome::Faulty);
        group.note(&first, Outcome::Faulty);
        assert_eq!(first.metrics.in_service.get(), 0);
        tokio::time::sleep(Duration::from_millis(9_990)).await;
        assert_eq!(first.metrics.in_service.get(), 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(first.metrics.in_service.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_back_gets_its_share_by_and_by() {
        let group = Arc::new(group(&[("192.0.2.1:80", 2), ("192.0.2.2:80", 2)]));
        let first = Arc::clone(&group.roster().entries[0].server);
        let mut keepers = JoinSet::new();
        group.keep(None, &mut keepers);
        group.note(&first, Outcome::Faulty);
        group.note(&first, Outcome::Faulty);
        for (seconds, expected) in [(5, 0), (6, 2), (55, 10), (45, 20)] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let lineup = group.lineup();
            let seat = lineup
                .seats()
                .find(|seat| Arc::ptr_eq(&seat.server, &first));
            let share = seat
                .filter(|seat| seat.serves)
                .map_or(0, |seat| seat.weight);
            assert_eq!(share, expected, "{seconds}");
        }
    }
}
