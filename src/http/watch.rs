//! The deadlines of a connection at the price of one coarse timer for all of them.
//!
//! The stream and the handlers only note what happens; a tick looks whether anything has happened
//! since the last one. A limit so closes a connection up to two ticks late, which is all that a defence
//! against slow clients needs.

mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::early_hints::Interim;
use super::request_scan::Offence;
use super::{Limits, Protocol};
pub(super) use stream::Watched;

/// What has happened on a connection. All of it runs on one core, so `Relaxed` is enough.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Requests that are being answered.
    active: AtomicU32,
    /// Moves with every beginning and end of a request, and when a head begins to arrive.
    epoch: AtomicU32,
    /// Part of a head has arrived, and not its end.
    head_begun: AtomicBool,
    /// Requests that have begun.
    begun: AtomicU32,
    /// What [`request_scan`](super::request_scan) saw in a head, and how many requests came before that one.
    offence: AtomicU8,
    before_offence: AtomicU32,
    /// The socket takes no more bytes.
    write_blocked: AtomicBool,
    /// Moves whenever the socket has taken bytes.
    writes: AtomicU32,
    /// The connection ends with bytes of the client unread.
    linger: AtomicBool,
    /// Answers of which more could be sent if their client took it.
    held: AtomicU32,
    /// Moves whenever more of an answer is asked for.
    asks: AtomicU32,
    /// The connection takes no request after those that it has.
    finishing: AtomicBool,
    /// HTTP/1.1 is asked for another protocol, or has switched to it, and whether it has.
    upgrading: AtomicBool,
    switched: AtomicBool,
    /// The last request's body has not been read to its end, and whether that is being done.
    body_unread: AtomicBool,
    body_dropped: AtomicBool,
    /// The client has been told that the connection ends.
    farewell: AtomicBool,
    /// Other rules are in force than those of this connection.
    doubted: AtomicBool,
    /// No request is taken any more.
    closed: AtomicBool,
    /// How often the connection has been driven.
    turns: AtomicU32,
    /// What a request that waits for its answer has for its client.
    interim: Interim,
}

/// Whether a connection takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Good,
    /// If its client would be let in today.
    Doubtful,
    /// It does not.
    Lost,
}

impl Progress {
    /// A request begins; tells what was wrong with its head as it stood on the wire.
    pub(super) fn begin(&self, has_body: bool) -> Option<Offence> {
        self.body_unread.store(has_body, Ordering::Relaxed);
        self.body_dropped.store(false, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let before = self.begun.fetch_add(1, Ordering::Relaxed);
        let offence = match self.offence.load(Ordering::Relaxed) {
            0 => None,
            _ if self.before_offence.load(Ordering::Relaxed) != before => None,
            code => Offence::from_code(code),
        };
        if offence.is_some() {
            // Nothing was read of it from there on.
            self.head_begun.store(false, Ordering::Relaxed);
        }
        offence
    }

    /// A client's bytes have been read: whether they end within a head, and the first head that is
    /// amiss, if one is.
    fn read(&self, is_in_head: bool, offence: Option<(u32, Offence)>) {
        let was_in_head = self.head_begun.swap(is_in_head, Ordering::Relaxed);
        if is_in_head && !was_in_head {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((before, offence)) = offence {
            self.before_offence.store(before, Ordering::Relaxed);
            self.offence.store(offence.code(), Ordering::Relaxed);
        }
    }

    /// The last byte of a request's body has been read.
    pub(super) fn body_read(&self) {
        self.body_unread.store(false, Ordering::Relaxed);
    }

    /// What is left of a request's body is being read, for nothing.
    pub(super) fn body_dropped(&self) {
        self.body_dropped.store(true, Ordering::Relaxed);
    }

    /// Whether there is more of a request's body, and nobody reads it.
    pub(super) fn is_body_left(&self) -> bool {
        self.body_unread.load(Ordering::Relaxed) && !self.body_dropped.load(Ordering::Relaxed)
    }

    /// Where a request puts what its client may have before the answer.
    pub(super) fn interim(&self) -> &Interim {
        &self.interim
    }

    /// A request has been answered in full, or given up.
    pub(super) fn end(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// A tunnel begins in a stream of the connection, which is not idle then.
    pub(super) fn enter_tunnel(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended, and an idle time begins.
    pub(super) fn leave_tunnel(&self) {
        self.end();
    }

    /// An answer ends the connection before the client has been read to its end.
    pub(super) fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    /// An answer waits for its client; in HTTP/2 the socket shows nothing of that.
    pub(super) fn hold(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer that was held waits no longer.
    pub(super) fn release(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// The client takes more of an answer.
    pub(super) fn asked(&self) {
        self.asks.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection takes no more requests.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }

    /// Whether that has been said.
    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Relaxed)
    }

    /// Waits until it has been said. Nobody is woken for that: whoever says it, does so with a
    /// request whose answer moves the connection anyway, and looks here after that.
    pub(super) async fn finishing(&self) {
        std::future::poll_fn(|_| match self.is_finishing() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// The client is told that the connection ends. In HTTP/2 it may have sent requests before it hears
    /// of that; one that hears and does not answer is given some time, and then none is taken.
    pub(super) fn bid_farewell(&self) {
        self.farewell.store(true, Ordering::Relaxed);
    }

    /// Other rules are in force.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// No request is taken any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The connection is driven once more.
    pub(super) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether requests are taken.
    pub(super) fn standing(&self) -> Standing {
        if self.closed.load(Ordering::Relaxed) {
            Standing::Lost
        } else if self.doubted.load(Ordering::Relaxed) {
            Standing::Doubtful
        } else {
            Standing::Good
        }
    }

    /// Whether HTTP/1.1 is asked for another protocol, or has switched to it. Told to finish
    /// meanwhile, hyper would write `Connection: close` into the very answer that switches.
    pub(super) fn upgrade(&self, upgrading: bool) {
        self.upgrading.store(upgrading, Ordering::Relaxed);
    }

    /// HTTP/1.1 switches to another protocol: what the client sends from now on is no request.
    pub(super) fn switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    /// Whether the connection may be told to finish.
    pub(super) fn may_finish(&self) -> bool {
        !self.upgrading.load(Ordering::Relaxed)
    }

    /// An observer for the connection's tick.
    pub(super) fn watch(self: &Arc<Self>, limits: &Limits, protocol: Protocol) -> Watch {
        let may_rest = protocol == Protocol::Http1;
        let tick = limits
            .header_timeout
            .min(limits.idle_timeout)
            .min(limits.stall_timeout)
            .min(limits.age.unwrap_or(Duration::MAX))
            .min(if may_rest {
                LONGEST_TICK
            } else {
                Duration::MAX
            });
        let now = Instant::now();
        Watch {
            progress: Arc::clone(self),
            tick,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            stall_timeout: limits.stall_timeout,
            over_at: limits.age.map(|age| now + age),
            may_rest,
            fresh_until: now + FRESH.min(limits.idle_timeout),
            epoch: 0,
            writes: 0,
            asks: 0,
            quiet_since: now,
            blocked_since: None,
            withheld_since: None,
            farewell_since: None,
        }
    }

    /// Whether a request is being answered.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing of a request or an answer is under way, neither here nor in a buffer of hyper's.
    fn is_between_requests(&self) -> bool {
        !self.is_active()
            && !self.head_begun.load(Ordering::Relaxed)
            && !self.body_unread.load(Ordering::Relaxed)
            && !self.write_blocked.load(Ordering::Relaxed)
            && !self.linger.load(Ordering::Relaxed)
            && self.may_finish()
            && !self.is_finishing()
    }
}

/// How often a connection is looked at that could rest.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// How soon one is that may be about to. Most devices say one thing and then nothing for long. When a fleet
/// comes at once, what those hold that could rest stays in the heap as holes.
const REST_AFTER: Duration = Duration::from_millis(20);

/// How long a connection that has just been opened is waited for to send its request, although it should end:
/// that is on its way, and its client would not know whether it has been done.
const FRESH: Duration = Duration::from_secs(2);

/// What a tick finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within every limit.
    Fine,
    /// Within every limit, and between two requests.
    Resting,
    /// No request for `idle_timeout`, or open for `age`.
    Over,
    /// A head that does not end, or a client that does not read, or does not go.
    Stalled,
}

/// Compares [`Progress`] from tick to tick.
#[derive(Debug)]
pub(super) struct Watch {
    progress: Arc<Progress>,
    tick: Duration,
    header_timeout: Duration,
    idle_timeout: Duration,
    stall_timeout: Duration,
    over_at: Option<Instant>,
    may_rest: bool,
    fresh_until: Instant,
    epoch: u32,
    writes: u32,
    asks: u32,
    /// When something was last seen to have happened.
    quiet_since: Instant,
    /// When the socket was first seen to take nothing.
    blocked_since: Option<Instant>,
    /// When an answer was first seen to wait for its client.
    withheld_since: Option<Instant>,
    /// When the client was first seen to have been told to go.
    farewell_since: Option<Instant>,
}

impl Watch {
    /// After which time to call [`Self::check`] next.
    pub(super) fn tick(&self) -> Duration {
        match self.may_rest && self.progress.is_between_requests() {
            true => self.tick.min(REST_AFTER),
            false => self.tick,
        }
    }

    /// Looks at what has changed since the last call.
    pub(super) fn check(&mut self) -> Verdict {
        let now = Instant::now();
        if self.is_write_stalled(now) || self.is_answer_stalled(now) || self.is_overstayed(now) {
            return Verdict::Stalled;
        }
        if self.over_at.take_if(|at| *at <= now).is_some() || self.is_unused(now) {
            return Verdict::Over;
        }
        let epoch = self.progress.epoch.load(Ordering::Relaxed);
        if epoch != self.epoch || self.progress.is_active() {
            self.epoch = epoch;
            self.quiet_since = now;
            return Verdict::Fine;
        }
        let quiet = now - self.quiet_since;
        let head_begun = self.progress.head_begun.load(Ordering::Relaxed);
        if head_begun && quiet >= self.header_timeout {
            Verdict::Stalled
        } else if !head_begun && quiet >= self.idle_timeout {
            Verdict::Over
        } else if self.may_rest && self.progress.is_between_requests() {
            Verdict::Resting
        } else {
            Verdict::Fine
        }
    }

    /// When a connection that rests has done so for long enough.
    pub(super) fn over_at(&self) -> Instant {
        let idle = self.quiet_since + self.idle_timeout;
        self.over_at.map_or(idle, |over_at| over_at.min(idle))
    }

    /// Until when the first request is waited for; `None` if one has come.
    pub(super) fn fresh_until(&self) -> Option<Instant> {
        let is_unused = self.progress.begun.load(Ordering::Relaxed) == 0;
        is_unused.then_some(self.fresh_until)
    }

    /// Whether a request of HTTP/1.1 is on its way, as far as can be known, that a connection which should
    /// end has to wait for.
    pub(super) fn is_request_due(&self) -> bool {
        let head_begun = self.progress.head_begun.load(Ordering::Relaxed);
        let is_fresh = self
            .fresh_until()
            .is_some_and(|until| until > Instant::now());
        let is_taken = self.progress.standing() != Standing::Lost;
        self.may_rest && is_taken && !self.progress.is_active() && (head_begun || is_fresh)
    }

    /// The connection was fresh when it should have ended, and no request has come.
    fn is_unused(&self, now: Instant) -> bool {
        let head_begun = self.progress.head_begun.load(Ordering::Relaxed);
        let is_told = self.progress.farewell.load(Ordering::Relaxed);
        let is_stale = self.fresh_until().is_some_and(|until| until <= now);
        self.may_rest && is_told && is_stale && !head_begun
    }

    /// The client has been told to go and does not. hyper asks in HTTP/2 whether its GOAWAY has
    /// arrived, and until that is answered, if it ever is, takes requests.
    fn is_overstayed(&mut self, now: Instant) -> bool {
        if !self.progress.farewell.load(Ordering::Relaxed) {
            return false;
        }
        let told = now - *self.farewell_since.get_or_insert(now);
        if told >= self.header_timeout {
            self.progress.close();
        }
        // What has been answered may still be on its way to a client that reads slowly.
        let busy = self.progress.is_active() || self.progress.write_blocked.load(Ordering::Relaxed);
        !busy && told >= self.header_timeout + self.stall_timeout
    }

    fn is_write_stalled(&mut self, now: Instant) -> bool {
        let writes = self.progress.writes.load(Ordering::Relaxed);
        let blocked = self.progress.write_blocked.load(Ordering::Relaxed);
        let is_stuck = blocked && writes == self.writes;
        self.writes = writes;
        lasts(is_stuck, &mut self.blocked_since, self.stall_timeout, now)
    }

    /// No answer has moved although one could: a window that its client keeps shut (RFC 9113
    /// §5.2). What else is written, such as answers to pings, does not count.
    fn is_answer_stalled(&mut self, now: Instant) -> bool {
        let asks = self.progress.asks.load(Ordering::Relaxed);
        let is_stuck = self.progress.held.load(Ordering::Relaxed) > 0 && asks == self.asks;
        self.asks = asks;
        lasts(is_stuck, &mut self.withheld_since, self.stall_timeout, now)
    }
}

/// Whether something has been so for as long as `limit`, as far as has been seen.
fn lasts(is_so: bool, since: &mut Option<Instant>, limit: Duration, now: Instant) -> bool {
    if !is_so {
        *since = None;
    }
    is_so && now - *since.get_or_insert(now) >= limit
}
