//! [`Clock`]: wall-clock time as an argument, so that a test can let a certificate expire.
//!
//! Deadlines of I/O use tokio's own timers; this is for dates that other parties wrote down.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time since the Unix epoch.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now, since 1970-01-01T00:00:00Z.
    fn since_epoch(&self) -> Duration;

    /// The same in whole seconds.
    fn now(&self) -> u64 {
        self.since_epoch().as_secs()
    }
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn since_epoch(&self) -> Duration {
        // A machine set to before 1970 finds no certificate valid, which is the safe answer.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// A clock that stands still until it is moved; clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock(
    /// Milliseconds.
    Arc<AtomicU64>,
);

impl ManualClock {
    /// A clock that shows the machine's present time and then stands still.
    #[must_use]
    pub fn stopped_now() -> Self {
        Self(Arc::new(AtomicU64::new(SystemClock.now() * 1000)))
    }

    /// Moves every clone of this clock forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or_default();
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn since_epoch(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}
