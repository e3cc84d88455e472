//! Idle connections of one worker to one upstream, the most recently used first.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::client::conn::http1::SendRequest;

/// Connections that wait for their next request.
pub(super) struct Pool<B> {
    idle: Mutex<VecDeque<Idle<B>>>,
    max_idle: usize,
    idle_timeout: Duration,
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
            idle: Mutex::new(VecDeque::new()),
            max_idle,
            idle_timeout,
        }
    }

    fn put(&self, sender: SendRequest<B>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // The oldest stand in front: drop those past their time, and one if the pool is full.
        while idle
            .front()
            .is_some_and(|oldest| now - oldest.since > self.idle_timeout)
        {
            idle.pop_front();
        }
        if idle.len() >= self.max_idle {
            idle.pop_front();
        }
        if self.max_idle > 0 {
            idle.push_back(Idle { sender, since: now });
        }
    }

    fn pop(&self) -> Option<SendRequest<B>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = idle.pop_back()?;
        if newest.since.elapsed() > self.idle_timeout {
            // All others are older still.
            idle.clear();
            return None;
        }
        Some(newest.sender)
    }
}

impl<B: Body + 'static> Pool<B> {
    /// A connection that can take a request now, as far as this side knows.
    pub(super) async fn take(&self) -> Option<SendRequest<B>> {
        loop {
            let mut sender = self.pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }
}

/// A connection that is busy with one exchange. Dropped, it closes with its body unread.
pub struct Lease<B> {
    sender: SendRequest<B>,
    /// `None` if it serves nobody else.
    pool: Option<Arc<Pool<B>>>,
}

impl<B> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl<B> Lease<B> {
    pub(super) fn new(sender: SendRequest<B>, pool: &Arc<Pool<B>>) -> Self {
        Self {
            sender,
            pool: Some(Arc::clone(pool)),
        }
    }

    /// Of a connection that ends with its one exchange.
    pub(super) fn unshared(sender: SendRequest<B>) -> Self {
        Self { sender, pool: None }
    }

    /// Gives the connection back for the next request; call it when the response has ended.
    pub fn give_back(self) {
        if let Some(pool) = self.pool.filter(|_| !self.sender.is_closed()) {
            pool.put(self.sender);
        }
    }
}
