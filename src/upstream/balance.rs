//! Which server of a group is next. What workers share is only read here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::Server;

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each in its turn.
    RoundRobin,
    /// The less busy of two that are drawn by lot.
    LeastBusy,
}

/// The servers of a group and their turns.
#[derive(Debug)]
pub(super) struct Lineup {
    servers: Box<[Arc<Server>]>,
    /// Places in `servers`, each as often as its weight says and spread evenly.
    turns: Box<[u16]>,
}

impl Lineup {
    pub(super) fn new(servers: Vec<Arc<Server>>) -> Self {
        let weights: Vec<u32> = servers.iter().map(|server| server.weight()).collect();
        Self {
            turns: turns(&weights),
            servers: servers.into(),
        }
    }

    pub(super) fn pick(&self, balance: Balance, chance: &Chance) -> Option<&Arc<Server>> {
        match balance {
            Balance::RoundRobin => self.turn(chance.next()),
            Balance::LeastBusy => {
                let lot = chance.draw();
                let (one, other) = (self.turn(lot >> 32)?, self.turn(lot & 0xFFFF_FFFF)?);
                Some(if load(other) < load(one) { other } else { one })
            }
        }
    }

    fn turn(&self, number: usize) -> Option<&Arc<Server>> {
        let turn = self.turns.get(number % self.turns.len().max(1))?;
        self.servers.get(usize::from(*turn))
    }

    /// Every server, beginning at any.
    fn all(&self, chance: &Chance) -> impl Iterator<Item = &Arc<Server>> {
        let first = chance.next() % self.servers.len().max(1);
        let (before, from) = self.servers.split_at(first);
        from.iter().chain(before)
    }
}

/// Work for each unit of weight, for comparing.
fn load(server: &Server) -> u64 {
    (u64::from(server.load()) << 16) / u64::from(server.weight().max(1))
}

fn turns(weights: &[u32]) -> Box<[u16]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let turns_of = |(place, weight): (u16, &u32)| {
        let weight = u64::from(weight / divisor);
        // In the middle of its part of the whole, so that those of equal weight alternate.
        (0..weight).map(move |turn| (((2 * turn + 1) << 32) / weight, place))
    };
    let mut turns: Vec<(u64, u16)> = (0..).zip(weights).flat_map(turns_of).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, place)| place).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One worker's counter of turns, which makes lots as well.
#[derive(Debug, Default)]
pub(super) struct Chance(AtomicUsize);

impl Chance {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The finalizer of SplitMix64: neighbouring numbers become unlike.
    fn draw(&self) -> usize {
        let mut z = self.next() as u64;
        z = z.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from(z ^ (z >> 31)).unwrap_or(usize::MAX)
    }
}

/// The servers for one request or connection, one after the other until one can be reached.
#[derive(Debug, Default)]
pub(super) struct Search {
    passed_over: Vec<Arc<Server>>,
}

impl Search {
    /// The next to try; `None` if all have been.
    pub(super) fn next(
        &self,
        lineup: &Lineup,
        balance: Balance,
        chance: &Chance,
    ) -> Option<Arc<Server>> {
        if self.passed_over.is_empty() {
            return lineup.pick(balance, chance).cloned();
        }
        let is_new = |server: &&Arc<Server>| !self.has_passed_over(server);
        lineup.all(chance).find(is_new).cloned()
    }

    /// Goes on without `server`.
    pub(super) fn pass_over(&mut self, server: Arc<Server>) {
        self.passed_over.push(server);
    }

    fn has_passed_over(&self, server: &Arc<Server>) -> bool {
        self.passed_over
            .iter()
            .any(|known| Arc::ptr_eq(known, server))
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::{Busy, ServerSettings};
    use super::*;

    fn lineup(weights: &[u32]) -> Lineup {
        let server = |(number, weight): (usize, &u32)| {
            Arc::new(Server::new(ServerSettings {
                name: format!("192.0.2.{number}:80"),
                weight: *weight,
            }))
        };
        Lineup::new(weights.iter().enumerate().map(server).collect())
    }

    fn picks(lineup: &Lineup, balance: Balance, count: usize) -> Vec<usize> {
        let chance = Chance::default();
        let mut picked = vec![0; lineup.servers.len()];
        for _ in 0..count {
            let server = lineup.pick(balance, &chance).unwrap();
            let place = |known: &Arc<Server>| Arc::ptr_eq(known, server);
            picked[lineup.servers.iter().position(place).unwrap()] += 1;
        }
        picked
    }

    #[test]
    fn turns_follow_the_weights_and_are_spread_evenly() {
        for (weights, expected) in [
            (&[1, 1, 1][..], &[0, 1, 2][..]),
            (&[100, 100], &[0, 1]),
            (&[3, 1], &[0, 0, 1, 0]),
            (&[2, 4, 6], &[2, 1, 0, 2, 1, 2]),
            (&[], &[]),
        ] {
            assert_eq!(*turns(weights), *expected, "{weights:?}");
        }
    }

    #[test]
    fn round_robin_gives_each_its_share_exactly() {
        let lineup = lineup(&[1, 2, 5]);
        assert_eq!(picks(&lineup, Balance::RoundRobin, 800), [100, 200, 500]);
    }

    #[test]
    fn the_less_busy_of_two_is_picked() {
        let lineup = lineup(&[1, 1]);
        let idle = picks(&lineup, Balance::LeastBusy, 1000);
        assert!(idle[1] > 200 && idle[1] < 800, "{idle:?}");
        let _busy = Busy::with(Arc::clone(&lineup.servers[0]));
        // Both lots fall on the busy one in a quarter of all draws.
        let one_busy = picks(&lineup, Balance::LeastBusy, 1000);
        assert!(one_busy[1] > 650 && one_busy[0] > 150, "{one_busy:?}");
    }

    #[test]
    fn work_counts_in_proportion_to_the_weight() {
        let lineup = lineup(&[1, 3]);
        let two: Vec<Busy> = (0..2)
            .map(|_| Busy::with(Arc::clone(&lineup.servers[1])))
            .collect();
        let _one = Busy::with(Arc::clone(&lineup.servers[0]));
        assert!(load(&lineup.servers[1]) < load(&lineup.servers[0]));
        drop(two);
        assert_eq!(lineup.servers[1].load(), 0);
    }

    #[test]
    fn a_search_meets_every_server_once() {
        let (lineup, chance) = (lineup(&[1, 7, 2]), Chance::default());
        let mut search = Search::default();
        let mut met = Vec::new();
        while let Some(server) = search.next(&lineup, Balance::LeastBusy, &chance) {
            met.push(server.name().to_owned());
            search.pass_over(server);
        }
        met.sort();
        assert_eq!(met, ["192.0.2.0:80", "192.0.2.1:80", "192.0.2.2:80"]);
    }
}
