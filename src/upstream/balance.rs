//! Which server of a group is next. What workers share is only read here.

use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec;

use super::device::{DeviceKey, Ring};
use super::server::Server;

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each in its turn.
    RoundRobin,
    /// The less busy of two that are drawn by lot.
    LeastBusy,
    /// By the device, which keeps its server.
    Device,
}

/// One server's place in a group.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) server: Arc<Server>,
    /// Its share beside the others'.
    pub(super) weight: u32,
    /// Whether it is in service.
    pub(super) serves: bool,
}

/// The servers of a group and the turns of those that are in service.
#[derive(Debug)]
pub(super) struct Lineup {
    seats: Box<[Seat]>,
    /// Places in `seats`, each as often as its weight says and spread evenly.
    turns: Box<[u16]>,
    /// Where devices keep their servers, by their places in `seats`.
    ring: Option<Arc<Ring>>,
    /// None is in service.
    nobody: bool,
}

impl Lineup {
    /// If none is in service, all have turns: to try is better than to give up unasked.
    pub(super) fn new(seats: Vec<Seat>, ring: Option<Arc<Ring>>) -> Self {
        let nobody = !seats.iter().any(|seat| seat.serves);
        let share = |seat: &Seat| {
            if seat.serves || nobody {
                seat.weight
            } else {
                0
            }
        };
        let shares: Vec<u32> = seats.iter().map(share).collect();
        Self {
            turns: turns(&shares),
            seats: seats.into(),
            ring,
            nobody,
        }
    }

    #[cfg(test)]
    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter()
    }

    /// A server for `device`, if that is what counts and is known.
    pub(super) fn pick(
        &self,
        balance: Balance,
        device: Option<DeviceKey>,
        chance: &Chance,
    ) -> Option<&Arc<Server>> {
        if let Some(seat) = device.and_then(|device| self.own(device)) {
            return Some(&seat.server);
        }
        let seat = match balance {
            Balance::RoundRobin | Balance::Device => self.turn(chance.next()),
            Balance::LeastBusy => {
                let lot = chance.draw();
                let (one, other) = (self.turn(lot >> 32)?, self.turn(lot & 0xFFFF_FFFF)?);
                Some(if other.load() < one.load() {
                    other
                } else {
                    one
                })
            }
        };
        seat.map(|seat| &seat.server)
    }

    /// The first of those in service that this device takes; its first of all if none is.
    fn own(&self, device: DeviceKey) -> Option<&Seat> {
        let ring = self.ring.as_deref()?;
        let first = self.seat(ring.first(device)?)?;
        if first.serves || self.nobody {
            return Some(first);
        }
        let mut walk = ring.walk(device).filter_map(|place| self.seat(place));
        walk.find(|seat| seat.serves).or(Some(first))
    }

    fn turn(&self, number: usize) -> Option<&Seat> {
        let turn = self.turns.get(number % self.turns.len().max(1))?;
        self.seat(*turn)
    }

    fn seat(&self, place: u16) -> Option<&Seat> {
        self.seats.get(usize::from(place))
    }

    /// The places of those in service in the order in which `device` takes them, if that is known.
    fn of_device(&self, device: Option<DeviceKey>) -> impl Iterator<Item = u16> {
        let ring = self.ring.as_deref().zip(device);
        let walk = ring
            .into_iter()
            .flat_map(|(ring, device)| ring.walk(device));
        walk.filter(|place| self.seat(*place).is_some_and(|seat| seat.serves))
    }

    /// Every place, beginning at any of those in service; the others come last.
    fn all(&self, chance: &Chance) -> impl Iterator<Item = u16> {
        let first = chance.last() % self.seats.len().max(1);
        let (before, from) = self.seats.split_at(first);
        let around = move || (first..).zip(from).chain((0..).zip(before));
        let serving = around().filter(|(_, seat)| seat.serves);
        let resting = around().filter(|(_, seat)| !seat.serves);
        let places = serving.chain(resting);
        places.filter_map(|(place, _)| u16::try_from(place).ok())
    }
}

impl Seat {
    /// Work for each unit of weight, for comparing.
    fn load(&self) -> u64 {
        (self.server.load() << 16) / u64::from(self.weight.max(1))
    }
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

    /// Takes no turn.
    fn last(&self) -> usize {
        self.0.load(Ordering::Relaxed)
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

/// The order in which a search goes through one line-up. Made once, or every refusal would cost as
/// many walks around the ring as there are servers.
#[derive(Debug)]
struct Order {
    lineup: Arc<Lineup>,
    /// Places, those that stand here a second time having been passed over by then.
    rest: Peekable<vec::IntoIter<u16>>,
}

impl Order {
    /// The device's own order first, so that it meets its second server there as well.
    fn new(lineup: &Arc<Lineup>, device: Option<DeviceKey>, chance: &Chance) -> Self {
        let places = lineup.of_device(device).chain(lineup.all(chance));
        let places: Vec<u16> = places.collect();
        Self {
            lineup: Arc::clone(lineup),
            rest: places.into_iter().peekable(),
        }
    }

    /// The first that is not to be left out.
    fn first(&mut self, is_left_out: impl Fn(&Arc<Server>) -> bool) -> Option<&Seat> {
        let lineup = &self.lineup;
        let is_out = |seat: &Seat| is_left_out(&seat.server);
        let goes = |place: &u16| lineup.seat(*place).is_none_or(is_out);
        while self.rest.next_if(goes).is_some() {}
        lineup.seat(*self.rest.peek()?)
    }
}

/// The servers for one request or connection, one after the other until one can be reached.
#[derive(Debug)]
pub(super) struct Search {
    device: Option<DeviceKey>,
    passed_over: Vec<Arc<Server>>,
    /// `None` before the second server, as for most. Boxed: each request would have room for it.
    order: Option<Box<Order>>,
    /// One of them had no room.
    met_full: bool,
}

impl Search {
    /// Forgets what has been passed over.
    pub(super) fn start_over(&mut self) {
        *self = Self::new(self.device);
    }

    /// For this device, where that is what counts.
    pub(super) fn new(device: Option<DeviceKey>) -> Self {
        Self {
            device,
            passed_over: Vec::new(),
            order: None,
            met_full: false,
        }
    }

    /// The next to try; `None` if all have been.
    pub(super) fn next(
        &mut self,
        lineup: &Arc<Lineup>,
        balance: Balance,
        chance: &Chance,
    ) -> Option<Arc<Server>> {
        if self.passed_over.is_empty() {
            return lineup.pick(balance, self.device, chance).cloned();
        }
        let order = self.order.take();
        let order = order.filter(|order| Arc::ptr_eq(&order.lineup, lineup));
        let order = order.unwrap_or_else(|| Box::new(Order::new(lineup, self.device, chance)));
        let passed_over = &self.passed_over;
        let is_known =
            |server: &Arc<Server>| passed_over.iter().any(|known| Arc::ptr_eq(known, server));
        let seat = self.order.insert(order).first(is_known)?;
        // Those out of service are for when no other can be reached, not for what is too much for
        // the others.
        let may_try = seat.serves || lineup.nobody || !self.met_full;
        may_try.then(|| Arc::clone(&seat.server))
    }

    /// Goes on without `server`.
    pub(super) fn pass_over(&mut self, server: Arc<Server>) {
        self.passed_over.push(server);
    }

    /// Goes on without `server`, which has no room.
    pub(super) fn pass_over_full(&mut self, server: Arc<Server>) {
        self.met_full = true;
        self.pass_over(server);
    }

    /// Whether a server had no room.
    pub(super) fn has_met_full(&self) -> bool {
        self.met_full
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::server::Busy;
    use super::*;
    use crate::telemetry::ServerMetrics;

    fn lineup(weights: &[u32]) -> Arc<Lineup> {
        lineup_without(weights, &[])
    }

    /// With these places out of service.
    fn lineup_without(weights: &[u32], out: &[usize]) -> Arc<Lineup> {
        let seat = |(number, weight): (usize, &u32)| {
            let name = format!("192.0.2.{number}:80");
            Seat {
                server: Arc::new(Server::new(&name, None, ServerMetrics::default())),
                weight: *weight,
                serves: !out.contains(&number),
            }
        };
        let seats: Vec<Seat> = weights.iter().enumerate().map(seat).collect();
        let point = |(place, seat): (u16, &Seat)| {
            let address = seat.server.address().unwrap();
            (place, address, seat.weight)
        };
        let ring = Ring::new((0..).zip(&seats).map(point));
        Arc::new(Lineup::new(seats, Some(Arc::new(ring))))
    }

    fn picks(lineup: &Lineup, balance: Balance, count: usize) -> Vec<usize> {
        let chance = Chance::default();
        let mut picked = vec![0; lineup.seats.len()];
        for _ in 0..count {
            let server = lineup.pick(balance, None, &chance).unwrap();
            let place = |seat: &Seat| Arc::ptr_eq(&seat.server, server);
            picked[lineup.seats.iter().position(place).unwrap()] += 1;
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
        let _busy = Busy::with(Arc::clone(&lineup.seats[0].server), None);
        // Both lots fall on the busy one in a quarter of all draws.
        let one_busy = picks(&lineup, Balance::LeastBusy, 1000);
        assert!(one_busy[1] > 650 && one_busy[0] > 150, "{one_busy:?}");
    }

    #[test]
    fn work_counts_in_proportion_to_the_weight() {
        let lineup = lineup(&[1, 3]);
        let two: Vec<Busy> = (0..2)
            .map(|_| Busy::with(Arc::clone(&lineup.seats[1].server), None).unwrap())
            .collect();
        let _one = Busy::with(Arc::clone(&lineup.seats[0].server), None);
        assert!(lineup.seats[1].load() < lineup.seats[0].load());
        drop(two);
        assert_eq!(lineup.seats[1].load(), 0);
    }

    #[test]
    fn the_share_of_one_that_is_out_goes_to_all_others() {
        let lineup = lineup_without(&[1, 2, 1], &[1]);
        assert_eq!(picks(&lineup, Balance::RoundRobin, 100), [50, 0, 50]);
        assert_eq!(picks(&lineup, Balance::LeastBusy, 100)[1], 0);
    }

    #[test]
    fn if_all_are_out_all_are_tried() {
        let lineup = lineup_without(&[1, 3], &[0, 1]);
        assert_eq!(picks(&lineup, Balance::RoundRobin, 100), [25, 75]);
    }

    #[test]
    fn those_that_are_out_are_searched_last() {
        let (lineup, chance) = (lineup_without(&[1, 1, 1], &[0, 2]), Chance::default());
        for _ in 0..3 {
            assert_eq!(lineup.all(&chance).next(), Some(1));
        }
        assert_eq!(lineup.all(&chance).count(), 3);
    }

    #[test]
    fn a_search_meets_every_server_once() {
        let (lineup, chance) = (lineup(&[1, 7, 2]), Chance::default());
        let mut search = Search::new(None);
        let mut met = Vec::new();
        while let Some(server) = search.next(&lineup, Balance::LeastBusy, &chance) {
            met.push(server.name().to_owned());
            search.pass_over(server);
        }
        met.sort();
        assert_eq!(met, ["192.0.2.0:80", "192.0.2.1:80", "192.0.2.2:80"]);
    }

    #[test]
    fn what_is_too_much_for_those_in_service_is_not_for_those_that_are_out() {
        let chance = Chance::default();
        for (out, expected) in [
            (&[1][..], &["192.0.2.2:80"][..]),
            (&[0, 1, 2], &["192.0.2.1:80", "192.0.2.2:80"]),
        ] {
            let lineup = lineup_without(&[1, 1, 1], out);
            let mut search = Search::new(None);
            search.pass_over_full(Arc::clone(&lineup.seats[0].server));
            let mut met = Vec::new();
            while let Some(server) = search.next(&lineup, Balance::RoundRobin, &chance) {
                met.push(server.name().to_owned());
                search.pass_over(server);
            }
            met.sort();
            assert_eq!(met, expected);
        }
    }

    fn own(lineup: &Lineup, number: usize) -> String {
        let device = DeviceKey::of_certificate(&number.to_string());
        let picked = lineup.pick(Balance::Device, Some(device), &Chance::default());
        picked.unwrap().name().to_owned()
    }

    #[test]
    fn devices_keep_their_servers_by_weight() {
        let lineup = lineup(&[1, 1, 2]);
        let mut counts = HashMap::new();
        for number in 0..4000 {
            *counts.entry(own(&lineup, number)).or_insert(0) += 1;
            assert_eq!(own(&lineup, number), own(&lineup, number));
        }
        assert!((1600..2400).contains(&counts["192.0.2.2:80"]), "{counts:?}");
        assert!((600..1400).contains(&counts["192.0.2.0:80"]), "{counts:?}");
    }

    #[test]
    fn only_the_devices_of_a_server_that_is_out_move() {
        let (whole, less) = (lineup(&[1, 1, 1]), lineup_without(&[1, 1, 1], &[0]));
        let mut moved = [0, 0];
        for number in 0..1000 {
            let (before, after) = (own(&whole, number), own(&less, number));
            if before == "192.0.2.0:80" {
                moved[usize::from(after == "192.0.2.2:80")] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!(moved.iter().all(|count| *count > 50), "{moved:?}");
    }

    #[test]
    fn a_device_has_one_second_server() {
        let (whole, chance) = (lineup(&[1, 1, 1, 1]), Chance::default());
        let device = DeviceKey::of_certificate("any");
        let mut search = Search::new(Some(device));
        let first = search.next(&whole, Balance::Device, &chance).unwrap();
        search.pass_over(first);
        let second = search.next(&whole, Balance::Device, &chance).unwrap();
        for _ in 0..10 {
            let again = search.next(&whole, Balance::Device, &chance).unwrap();
            assert!(Arc::ptr_eq(&again, &second));
        }
    }

    /// The numbers of all servers in the order in which a search of this device meets them.
    fn way(lineup: &Arc<Lineup>, device: DeviceKey) -> Vec<String> {
        let chance = Chance::default();
        let mut search = Search::new(Some(device));
        let mut met = Vec::new();
        while let Some(server) = search.next(lineup, Balance::Device, &chance) {
            met.push(server.name().to_owned());
            search.pass_over(server);
        }
        met
    }

    #[test]
    fn a_device_meets_all_servers_once_and_those_that_are_out_last() {
        let (whole, less) = (lineup(&[1, 9, 3, 3]), lineup_without(&[1, 9, 3, 3], &[1]));
        for number in 0..100 {
            let device = DeviceKey::of_certificate(&number.to_string());
            let mut all = way(&whole, device);
            assert_eq!(all, way(&whole, device));
            all.retain(|server| server != "192.0.2.1:80");
            all.push("192.0.2.1:80".to_owned());
            assert_eq!(way(&less, device), all);
            assert_eq!(all.len(), 4);
        }
    }

    #[test]
    fn a_search_walks_the_ring_once_for_each_line_up() {
        let (one, other) = (lineup(&[1; 9]), lineup(&[1; 9]));
        let chance = Chance::default();
        let mut search = Search::new(Some(DeviceKey::of_certificate("any")));
        let mut left = Vec::new();
        for lineup in [&one, &one, &one, &one, &other, &other] {
            let server = search.next(lineup, Balance::Device, &chance).unwrap();
            search.pass_over(server);
            left.push(search.order.as_ref().map(|order| order.rest.len()));
        }
        // Its own order and the order of chance, each less than before while the line-up is the same.
        assert_eq!(left[0], None);
        assert_eq!(left[1..4], [Some(17), Some(16), Some(15)]);
        assert_eq!(left[4..], [Some(18), Some(17)]);
    }
}
