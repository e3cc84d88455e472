//! Idle connections of one worker to the servers of one upstream, the most recently used first.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::http1::Connection;
use super::server::Server;

/// Idle connections are looked at so often within their time, or more often: servers close them without a
/// word. How old they are is counted by that, so that no request looks at a clock for it.
const SWEEPS: u32 = 8;

/// The shortest and the longest time between two looks.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);

/// Connections that wait for their next request.
pub(super) struct Pool {
    shelves: Mutex<Shelves>,
    max_idle: usize,
    /// The time between two looks at idle connections, and how many of these they may be idle for.
    interval: Duration,
    most_sweeps: u32,
}

#[derive(Default)]
struct Shelves {
    /// One for each server that has an idle connection, in no order: there are few.
    all: Vec<Shelf>,
    /// Whether somebody looks after them.
    is_swept: bool,
}

struct Shelf {
    server: Arc<Server>,
    /// The oldest stand in front.
    idle: VecDeque<Idle>,
}

struct Idle {
    connection: Box<Connection>,
    /// How often it has been found idle.
    sweeps: u32,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max_idle", &self.max_idle)
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(max_idle: usize, idle_timeout: Duration) -> Self {
        let interval = (idle_timeout / SWEEPS).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let most_sweeps = idle_timeout.as_nanos() / interval.as_nanos();
        Self {
            shelves: Mutex::default(),
            max_idle,
            interval,
            most_sweeps: u32::try_from(most_sweeps).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>, server: &Arc<Server>) {
        if self.max_idle == 0 {
            return;
        }
        let mut shelves = self.shelves();
        let place = |shelf: &Shelf| Arc::ptr_eq(&shelf.server, server);
        let at = shelves.all.iter().position(place).unwrap_or_else(|| {
            shelves.all.push(Shelf::of(Arc::clone(server)));
            shelves.all.len() - 1
        });
        if let Some(shelf) = shelves.all.get_mut(at) {
            if shelf.idle.len() >= self.max_idle {
                shelf.idle.pop_front();
            }
            shelf.idle.push_back(Idle {
                connection,
                sweeps: 0,
            });
        }
        if !shelves.is_swept
            && let Ok(runtime) = Handle::try_current()
        {
            shelves.is_swept = true;
            runtime.spawn(sweep(Arc::downgrade(self), self.interval));
        }
    }

    /// A connection to `server` that can take a request now, as far as this side knows.
    pub(super) fn take(&self, server: &Arc<Server>) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.pop(server)?;
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    fn pop(&self, server: &Arc<Server>) -> Option<Box<Connection>> {
        let mut shelves = self.shelves();
        let shelf = shelves
            .all
            .iter_mut()
            .find(|shelf| Arc::ptr_eq(&shelf.server, server))?;
        Some(shelf.idle.pop_back()?.connection)
    }

    /// Drops the connections that are past their time or have ended, and the shelves of servers that
    /// are not picked any more; whether any is left.
    fn sweep(&self) -> bool {
        let mut shelves = self.shelves();
        for shelf in &mut shelves.all {
            shelf.idle.retain_mut(|idle| {
                idle.sweeps += 1;
                idle.sweeps < self.most_sweeps && idle.connection.is_quiet()
            });
        }
        shelves.all.retain(|shelf| !shelf.idle.is_empty());
        shelves.is_swept = !shelves.all.is_empty();
        shelves.is_swept
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn of(server: Arc<Server>) -> Self {
        let idle = VecDeque::new();
        Self { server, idle }
    }
}

/// Looks after `pool` until it is empty or gone.
async fn sweep(pool: Weak<Pool>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}
