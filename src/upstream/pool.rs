//! Idle connections of one worker to the servers of one upstream, the most recently used first.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::client::conn::http1::SendRequest;

use super::multiplex::Place;
use super::repeatable::Repeatable;
use super::server::{Busy, Server};

/// Connections that wait for their next request.
pub(super) struct Pool<B> {
    /// One for each server that has an idle connection, in no order: there are few.
    shelves: Mutex<Vec<Shelf<B>>>,
    max_idle: usize,
    idle_timeout: Duration,
}

struct Shelf<B> {
    server: Arc<Server>,
    /// The oldest stand in front.
    idle: VecDeque<Idle<B>>,
}

struct Idle<B> {
    sender: SendRequest<B>,
    since: Instant,
}

impl<B> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max_idle", &self.max_idle)
            .finish_non_exhaustive()
    }
}

impl<B> Pool<B> {
    pub(super) fn new(max_idle: usize, idle_timeout: Duration) -> Self {
        Self {
            shelves: Mutex::new(Vec::new()),
            max_idle,
            idle_timeout,
        }
    }

    fn put(&self, sender: SendRequest<B>, server: &Arc<Server>) {
        if self.max_idle == 0 {
            return;
        }
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now();
        let place = |shelf: &Shelf<B>| Arc::ptr_eq(&shelf.server, server);
        let at = shelves.iter().position(place).unwrap_or_else(|| {
            shelves.push(Shelf::of(Arc::clone(server)));
            shelves.len() - 1
        });
        if let Some(shelf) = shelves.get_mut(at) {
            if shelf.idle.len() >= self.max_idle {
                shelf.idle.pop_front();
            }
            shelf.idle.push_back(Idle { sender, since });
        }
        // Those of servers that are not picked any more would otherwise stay for ever.
        shelves.retain_mut(|shelf| shelf.clear(since, self.idle_timeout));
    }

    fn pop(&self, server: &Arc<Server>) -> Option<SendRequest<B>> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = shelves
            .iter_mut()
            .find(|shelf| Arc::ptr_eq(&shelf.server, server))?;
        let newest = shelf.idle.pop_back()?;
        if newest.since.elapsed() > self.idle_timeout {
            // All others are older still.
            shelf.idle.clear();
            return None;
        }
        Some(newest.sender)
    }
}

impl<B> Shelf<B> {
    fn of(server: Arc<Server>) -> Self {
        let idle = VecDeque::new();
        Self { server, idle }
    }

    /// Drops what is past its time, and says whether anything is left.
    fn clear(&mut self, now: Instant, timeout: Duration) -> bool {
        while self
            .idle
            .front()
            .is_some_and(|oldest| now - oldest.since > timeout)
        {
            self.idle.pop_front();
        }
        !self.idle.is_empty()
    }
}

impl<B: Body + 'static> Pool<B> {
    /// A connection to `server` that can take a request now, as far as this side knows.
    pub(super) async fn take(&self, server: &Arc<Server>) -> Option<SendRequest<B>> {
        loop {
            let mut sender = self.pop(server)?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }
}

/// What an exchange has of a connection.
pub(super) enum Hold<B> {
    /// All of it. It goes to this pool afterwards, or ends.
    Whole(SendRequest<B>, Option<Arc<Pool<B>>>),
    /// One stream of it.
    Place(Place),
}

/// A connection, or a place on one, that is busy with one exchange. Dropped, it closes with its
/// body unread.
pub struct Lease<B> {
    hold: Hold<Repeatable<B>>,
    busy: Busy,
}

impl<B> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl<B> Lease<B> {
    pub(super) fn new(hold: Hold<Repeatable<B>>, busy: Busy) -> Self {
        Self { hold, busy }
    }

    /// Gives the connection back for the next request; call it when the response has ended.
    pub fn give_back(self) {
        match self.hold {
            Hold::Whole(sender, Some(pool)) if !sender.is_closed() => {
                pool.put(sender, self.busy.at());
            }
            Hold::Whole(..) => {}
            Hold::Place(place) => drop(place),
        }
    }
}
