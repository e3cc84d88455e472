//! What is known already of tokens that come again: one hash and one look-up stand for a signature.
//!
//! A token is known by its SHA-256, never by itself. What was found of it counts for as long as the
//! keys are the same, until the token ends, and for a set time at most; what was found wrong is kept
//! apart, so that rubbish never displaces what is good. A new configuration begins with a new cache.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use moka::notification::RemovalCause;

use super::flaw::Flaw;
use super::verified::VerifiedToken;
use crate::telemetry::TokenMetrics;

/// How much is remembered, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// Most verified tokens; none are remembered if zero.
    pub entries: u64,
    /// How long one is remembered.
    pub ttl: Duration,
    /// Most tokens that were refused; none are remembered if zero.
    pub refused_entries: u64,
    /// How long one is remembered.
    pub refused_ttl: Duration,
}

/// SHA-256 of a token.
type Digest = [u8; 32];

/// What is known of tokens.
#[derive(Debug)]
pub(super) struct Cache {
    verified: moka::future::Cache<Digest, Known>,
    refused: moka::future::Cache<Digest, (Flaw, u64)>,
    metrics: TokenMetrics,
}

/// A token that was verified.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) token: Arc<VerifiedToken>,
    /// The keys that it was verified with.
    pub(super) generation: u64,
    /// The first second at which it is no longer accepted.
    pub(super) until: Option<u64>,
}

impl Known {
    fn holds(&self, generation: u64, now: u64) -> bool {
        self.generation == generation && self.until.is_none_or(|until| now < until)
    }
}

impl Cache {
    pub(super) fn new(settings: &CacheSettings, metrics: TokenMetrics) -> Self {
        let (evictions, refused_evictions) = (metrics.evictions.clone(), metrics.evictions.clone());
        let count = move |cause| {
            if cause == RemovalCause::Size {
                evictions.inc();
            }
        };
        let count_refused = move |cause| {
            if cause == RemovalCause::Size {
                refused_evictions.inc();
            }
        };
        Self {
            verified: moka::future::Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(settings.ttl)
                .eviction_listener(move |_, _, cause| count(cause))
                .build(),
            refused: moka::future::Cache::builder()
                .max_capacity(settings.refused_entries)
                .time_to_live(settings.refused_ttl)
                .eviction_listener(move |_, _, cause| count_refused(cause))
                .build(),
            metrics,
        }
    }

    /// What is known of `token`, or what `verify` finds: once, however many ask at the same time.
    /// `generation` is that of the keys in force.
    pub(super) async fn recall<Verification>(
        &self,
        token: &str,
        generation: u64,
        now: u64,
        verify: impl FnOnce() -> Verification,
    ) -> Result<Arc<VerifiedToken>, Flaw>
    where
        Verification: Future<Output = Result<Known, Flaw>>,
    {
        let digest = fingerprint(token);
        if let Some(known) = self.verified.get(&digest).await {
            if known.holds(generation, now) {
                self.metrics.hits.inc();
                return Ok(known.token);
            }
            self.verified.invalidate(&digest).await;
        }
        match self.refused.get(&digest).await {
            Some((flaw, of)) if of == generation => {
                self.metrics.refused_hits.inc();
                return Err(flaw);
            }
            Some(_) | None => {}
        }
        // Boxed: what is rare and large takes no room in the futures of all other requests.
        Box::pin(self.find_out(digest, generation, verify())).await
    }

    async fn find_out(
        &self,
        digest: Digest,
        generation: u64,
        verification: impl Future<Output = Result<Known, Flaw>>,
    ) -> Result<Arc<VerifiedToken>, Flaw> {
        self.metrics.misses.inc();
        match self.verified.try_get_with(digest, verification).await {
            Ok(known) => Ok(known.token),
            Err(flaw) => {
                if is_lasting(*flaw) {
                    self.refused.insert(digest, (*flaw, generation)).await;
                }
                Err(*flaw)
            }
        }
    }
}

fn fingerprint(token: &str) -> Digest {
    let mut fingerprint = Digest::default();
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    fingerprint.copy_from_slice(digest.as_ref());
    fingerprint
}

/// Whether the same token will be found wrong again, as long as the keys are the same.
fn is_lasting(flaw: Flaw) -> bool {
    !matches!(
        flaw,
        Flaw::Unavailable | Flaw::UnknownKey | Flaw::NotYetValid | Flaw::IssuedInFuture
    )
}
