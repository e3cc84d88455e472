//! [`Pace`]: so many in a time, as the generic cell rate algorithm has it (ITU-T I.371): all that is known
//! of a client is the time up to which it has used its pace up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Of each, in microseconds.
    each: u64,
    /// How many may come at once after a pause.
    burst: u64,
}

impl Pace {
    /// `requests` in each `interval`, and `burst` of them at once after a pause.
    #[must_use]
    pub fn new(requests: u32, interval: Duration, burst: u32) -> Self {
        let each = micros(interval) / u64::from(requests.max(1));
        Self {
            each: each.max(1),
            burst: u64::from(burst.max(1)),
        }
    }

    /// How long a pause has to be after which a client has all that it may have.
    pub(super) fn refill(self) -> Duration {
        Duration::from_micros(self.each * self.burst)
    }

    /// Takes one at `now`, or says how long to wait for one.
    pub(super) fn take(self, used: &AtomicU64, now: Duration) -> Result<(), Duration> {
        let now = micros(now);
        let allowed = self.each * (self.burst - 1);
        let most = now + allowed + self.each;
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            // Nobody waits longer because a clock was set back.
            let used = used.clamp(now, most);
            (used - now <= allowed).then_some(used + self.each)
        });
        let wait = |used: u64| used.clamp(now, most) - allowed - now;
        taken
            .map(drop)
            .map_err(|used| Duration::from_micros(wait(used)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_700_000_000);

    fn at(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let pace = Pace::new(10, Duration::from_secs(1), 3);
        let used = AtomicU64::default();
        for _ in 0..3 {
            assert_eq!(pace.take(&used, at(0)), Ok(()));
        }
        assert_eq!(pace.take(&used, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(pace.take(&used, at(60)), Err(Duration::from_millis(40)));
        assert_eq!(pace.take(&used, at(100)), Ok(()));
        assert_eq!(pace.take(&used, at(100)), Err(Duration::from_millis(100)));
        // A pause brings back the burst and no more.
        for _ in 0..3 {
            assert_eq!(pace.take(&used, at(100_000)), Ok(()));
        }
        assert!(pace.take(&used, at(100_000)).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let pace = Pace::new(1, Duration::from_secs(1), 1);
        let used = AtomicU64::default();
        assert_eq!(pace.take(&used, START), Ok(()));
        let back = START - Duration::from_secs(86_400);
        assert_eq!(pace.take(&used, back), Err(Duration::from_secs(1)));
        // Not even by its own word.
        used.store(0, Ordering::Relaxed);
        assert_eq!(pace.take(&used, back), Ok(()));
    }
}
