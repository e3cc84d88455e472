//! Deadlines that pass unused, as those of nearly all answers do. To set one of tokio's timers, and to
//! take it back, locks the wheel that it hangs on; so one that is not needed any more is left hanging,
//! for the next deadline, and looked at again when it rings.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Most timers that wait to be used again.
const MOST_IDLE: usize = 256;

type Timer = Pin<Box<Sleep>>;

/// Timers of one worker that nobody waits for.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<Vec<Timer>>);

impl Alarms {
    /// Rings at `deadline`.
    pub(super) fn at(&self, deadline: Instant) -> Alarm<'_> {
        Alarm {
            alarms: self,
            deadline,
            timer: None,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Timer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A timer that rings at `deadline` or, which is as well, before.
    fn take(&self, deadline: Instant) -> Timer {
        let Some(mut timer) = self.idle().pop() else {
            return Box::pin(sleep_until(deadline));
        };
        if timer.is_elapsed() || timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        timer
    }

    fn put(&self, timer: Timer) {
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push(timer);
        }
    }
}

/// Ends at its deadline, and not before.
#[derive(Debug)]
pub(super) struct Alarm<'a> {
    alarms: &'a Alarms,
    deadline: Instant,
    /// `None` until somebody waits.
    timer: Option<Timer>,
}

impl Alarm<'_> {
    /// Has it ring at `deadline` instead.
    pub(super) fn postpone(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Future for Alarm<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            alarms,
            deadline,
            timer,
        } = &mut *self;
        let timer = timer.get_or_insert_with(|| alarms.take(*deadline));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= *deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(*deadline);
        }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.alarms.put(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// How long an alarm that is set for `after` takes to ring.
    async fn rings(alarms: &Alarms, after: Duration) -> Duration {
        let set = Instant::now();
        alarms.at(set + after).await;
        set.elapsed()
    }

    /// Leaves a timer hanging for `after`.
    async fn leave_hanging(alarms: &Alarms, after: Duration) {
        let alarm = alarms.at(Instant::now() + after);
        assert!(timeout(Duration::ZERO, alarm).await.is_err());
        assert_eq!(alarms.idle().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_its_time_whatever_its_timer_was_left_with() {
        let alarms = Alarms::default();
        assert_eq!(rings(&alarms, MINUTE).await, MINUTE);
        // One that has rung.
        assert_eq!(rings(&alarms, MINUTE).await, MINUTE);
        for left in [MINUTE / 2, MINUTE, MINUTE * 2] {
            leave_hanging(&alarms, left).await;
            assert_eq!(rings(&alarms, MINUTE).await, MINUTE, "{left:?}");
        }
        // One that rings while nobody waits.
        leave_hanging(&alarms, MINUTE / 2).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(rings(&alarms, MINUTE).await, MINUTE);
        assert_eq!(alarms.idle().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_is_postponed_rings_at_the_later_time() {
        let alarms = Alarms::default();
        let set = Instant::now();
        let mut alarm = alarms.at(set + MINUTE);
        alarm.postpone(set + MINUTE * 3);
        (&mut alarm).await;
        assert_eq!(set.elapsed(), MINUTE * 3);
        alarm.postpone(set + MINUTE * 4);
        alarm.await;
        assert_eq!(set.elapsed(), MINUTE * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn alarms_that_wait_at_once_have_timers_of_their_own_and_few_are_kept() {
        let alarms = Alarms::default();
        let now = Instant::now();
        let mut waiting: Vec<_> = (0..2 * MOST_IDLE)
            .map(|_| alarms.at(now + MINUTE))
            .collect();
        for alarm in &mut waiting {
            assert!(timeout(Duration::ZERO, alarm).await.is_err());
        }
        drop(waiting);
        assert_eq!(alarms.idle().len(), MOST_IDLE);
    }
}
