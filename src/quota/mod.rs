//! How much one client may ask for: so many requests in a time, and so many at once. All workers count
//! together.
//!
//! Who a client is, others say ([`Key`]). What is known of clients is bounded: the one that has asked for
//! nothing for the longest time is forgotten first, and begins with all that it may have.

mod pace;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use moka::policy::EvictionPolicy;
use prometheus_client::metrics::counter::Counter;
use thiserror::Error;

pub use pace::Pace;

use crate::tally::{Counted, Tally};

/// What one client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How often; `None` for as often as it likes.
    pub pace: Option<Pace>,
    /// How many at once; `None` for any number.
    pub at_once: Option<usize>,
}

/// What is allowed on one route or listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// To each client that is known, or else to each address.
    pub client: Option<Allowance>,
    /// To each address, whoever comes from there.
    pub address: Option<Allowance>,
}

/// The same with what clients have asked for.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Of each client.
    pub client: Option<Quota>,
    /// Of each address.
    pub address: Option<Quota>,
}

/// One allowance, and what has been asked for of it.
#[derive(Debug, Clone)]
pub struct Quota {
    allowance: Allowance,
    /// The time up to which each client has used its pace up.
    used: moka::future::Cache<Key, Arc<AtomicU64>>,
    present: Arc<Tally<Key>>,
    limited: Counter,
}

/// One client, by a digest: no secret is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Counts among those that are here at once, until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Place(#[expect(dead_code, reason = "held for its drop")] Arc<Counted<Key>>);

/// What a client has asked for too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Overrun {
    /// Too often; the time after which it may ask again.
    #[error("the client asks too often")]
    Pace(Duration),
    /// Too many at once.
    #[error("the client asks for too many at once")]
    AtOnce,
}

/// How many clients each quota remembers: some 20 MiB if all are there.
const MOST_CLIENTS: u64 = 100_000;

impl Quotas {
    /// Those of `settings`, with what has been asked for of the `former` ones if they are the same.
    /// What is over them is counted by `limited`.
    #[must_use]
    pub fn new(settings: &Settings, former: Option<&Self>, limited: impl Fn() -> Counter) -> Self {
        let quota = |allowance: Option<Allowance>, former: Option<&Quota>| {
            let allowance = allowance?;
            let former = former.filter(|former| former.allowance == allowance);
            Some(
                former
                    .cloned()
                    .unwrap_or_else(|| Quota::new(allowance, limited())),
            )
        };
        let client = former.and_then(|former| former.client.as_ref());
        let address = former.and_then(|former| former.address.as_ref());
        Self {
            client: quota(settings.client, client),
            address: quota(settings.address, address),
        }
    }
}

impl Quota {
    fn new(allowance: Allowance, limited: Counter) -> Self {
        // Who has all that it may have again is as good as unknown.
        let idle = allowance.pace.map_or(Duration::ZERO, Pace::refill);
        Self {
            allowance,
            used: moka::future::Cache::builder()
                .max_capacity(MOST_CLIENTS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(idle + Duration::from_secs(1))
                .build(),
            present: Arc::default(),
            limited,
        }
    }

    /// Counts one more request of `key` at `now`, since the Unix epoch; to be kept until it has ended.
    /// What is refused has not been asked for.
    ///
    /// # Errors
    /// [`Overrun`].
    pub async fn admit(&self, key: Key, now: Duration) -> Result<Option<Place>, Overrun> {
        let outcome = self.take(key, now).await;
        if outcome.is_err() {
            self.limited.inc();
        }
        outcome
    }

    async fn take(&self, key: Key, now: Duration) -> Result<Option<Place>, Overrun> {
        let place = match self.allowance.at_once {
            None => None,
            Some(most) => Some(self.present.join(key, most).ok_or(Overrun::AtOnce)?),
        };
        if let Some(pace) = self.allowance.pace {
            let used = self.used.get_with(key, async { Arc::default() }).await;
            pace.take(&used, now).map_err(Overrun::Pace)?;
        }
        Ok(place.map(Arc::new).map(Place))
    }
}

impl Key {
    /// Whoever comes from `address`.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        Self::of("address", &[address.to_string().as_bytes()])
    }

    /// Who is known by `parts`, in the sense that `kind` says.
    #[must_use]
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [&[kind.as_bytes()], parts].concat() {
            // With their lengths, so that no two lists are one text.
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }
}
