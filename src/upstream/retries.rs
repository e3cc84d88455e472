//! When a request that a server has failed is sent once more, and how many are at a time.
//!
//! Only what may be done twice is (RFC 9110 §9.2.2), and only as long as nothing of an answer has
//! gone to the client. The budget is Envoy's: repeats are a part of the requests that wait for their
//! answers, so that servers that fail are not asked the more for it.

use std::sync::atomic::{AtomicU32, Ordering};

use hyper::{Method, Request, StatusCode};

use super::connection_auth;
use super::repeatable::{self, Original, Repeatable};
use crate::telemetry::UpstreamMetrics;

/// When a request is sent once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// How often.
    pub attempts: u32,
    /// Answers that count as none.
    pub statuses: Vec<StatusCode>,
}

/// What may be repeated at a time of one upstream's requests; shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Budget {
    waiting: AtomicU32,
    repeating: AtomicU32,
}

/// One in so many requests that wait may be a repeat.
const SHARE: u32 = 5;

/// So many may be, however few wait.
const LEAST: u32 = 3;

/// A request among those that wait, or that are repeated, until it is dropped.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicU32);

impl Budget {
    fn claim(&self) -> Option<Counted<'_>> {
        let most = (self.waiting.load(Ordering::Relaxed) / SHARE).max(LEAST);
        let before = self.repeating.fetch_add(1, Ordering::Relaxed);
        // Counted in any case, so that its end can be.
        let claim = Counted(&self.repeating);
        (before < most).then_some(claim)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What it takes to send a request again; `None` if it is sent once.
pub(super) type Spare<B> = Option<Box<Original<B>>>;

/// What is left of one request's repeats.
#[derive(Debug)]
pub(super) struct Repeats<'a> {
    statuses: &'a [StatusCode],
    left: u32,
    budget: &'a Budget,
    metrics: &'a UpstreamMetrics,
    _waiting: Option<Counted<'a>>,
    /// What counts the repeat that is under way.
    claim: Option<Counted<'a>>,
    /// It has not come to any server yet.
    is_new: bool,
}

impl<'a> Repeats<'a> {
    /// Those of `request`; without rules it has none, and is not counted.
    pub(super) fn of<B>(
        request: &Request<B>,
        rules: Option<&'a RetrySettings>,
        budget: &'a Budget,
        metrics: &'a UpstreamMetrics,
    ) -> Self {
        let waiting = rules.map(|_| {
            budget.waiting.fetch_add(1, Ordering::Relaxed);
            Counted(&budget.waiting)
        });
        let rules = rules.filter(|_| may_be_done_twice(request));
        Self {
            statuses: rules.map_or(&[], |rules| &rules.statuses),
            left: rules.map_or(0, |rules| rules.attempts),
            budget,
            metrics,
            _waiting: waiting,
            claim: None,
            is_new: false,
        }
    }

    /// What it takes to send `request` again, if that may be.
    pub(super) fn keep<B>(&self, request: &mut Request<Repeatable<B>>) -> Spare<B> {
        (self.left > 0).then(|| Box::new(repeatable::keep(request)))
    }

    /// Whether an answer with this status counts as none.
    pub(super) fn count_as_none(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status)
    }

    /// Whether a repeat may come to a server that has been tried; once for each.
    pub(super) fn may_return(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// The request once more, if it may be: nothing of its body has been sent, and the budget
    /// allows it.
    pub(super) fn again<B>(&mut self, original: Spare<B>) -> Option<Box<Request<Repeatable<B>>>> {
        self.left = self.left.checked_sub(1)?;
        let request = Box::new(original?.take_back()?.map(Repeatable::once));
        self.claim = None;
        self.claim = self.budget.claim();
        if self.claim.is_none() {
            self.metrics.retries_denied.inc();
            return None;
        }
        self.metrics.retries.inc();
        self.is_new = true;
        Some(request)
    }
}

/// RFC 9110 §9.2.2; but what authenticates its connection belongs to that one.
fn may_be_done_twice<B>(request: &Request<B>) -> bool {
    let is_idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    is_idempotent && !connection_auth::is_used(request.headers())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_a_fifth_of_what_waits_and_three_at_least() {
        for (waiting, expected) in [(0, 3), (15, 3), (20, 4), (100, 20)] {
            let budget = Budget::default();
            budget.waiting.store(waiting, Ordering::Relaxed);
            let claims: Vec<_> = std::iter::from_fn(|| budget.claim()).collect();
            assert_eq!(claims.len(), expected, "{waiting}");
            drop(claims);
            assert!(budget.claim().is_some());
            assert_eq!(budget.repeating.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn only_what_may_be_done_twice_is_repeated() {
        for (method, expected) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("LOCK", false),
        ] {
            let request = Request::builder().method(method).body(()).unwrap();
            assert_eq!(may_be_done_twice(&request), expected, "{method}");
        }
        let authenticating = Request::builder().header("authorization", "NTLM x");
        assert!(!may_be_done_twice(&authenticating.body(()).unwrap()));
    }
}
