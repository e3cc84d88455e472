//! [`Remote`]: the keys of an issuer that publishes them, fetched beside the requests and never for
//! each of them.
//!
//! One keeper fetches, when the keys it has are no longer fresh, or when a token names one that it
//! has not. The second happens once in an interval at most, however many tokens name however many
//! keys, and all who wait for it wait for the same fetch. While the issuer cannot be reached, its
//! last keys stay in use for a set time; kept in a file, they outlive a restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::json;
use super::jwks::{self, JwksError, KeySet};
use super::key::{Algorithm, Key};
use crate::clock::Clock;
use crate::fetch::{self, Document, FetchError, Fetcher, FetcherError, Url};
use crate::telemetry::TokenMetrics;

/// Where an issuer publishes its keys, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Where the keys are.
    pub location: Location,
    /// The algorithms that keys may be for.
    pub algorithms: Vec<Algorithm>,
    /// Most time between two fetches.
    pub refresh: Duration,
    /// Least time between two fetches.
    pub min_refresh: Duration,
    /// How long keys stay in use that cannot be fetched again.
    pub stale_for: Duration,
    /// Where the last keys are kept.
    pub keep_in: Option<PathBuf>,
    /// How to fetch.
    pub fetch: fetch::Settings,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A JSON Web Key Set.
    Jwks(Url),
    /// Where the configuration of this issuer says (OpenID Connect Discovery 1.0 §4).
    Discovery {
        /// The issuer, which the configuration has to name as well (§4.3).
        issuer: String,
        /// Its configuration.
        url: Url,
    },
}

/// Why there are no new keys.
#[derive(Debug, Error)]
enum RefreshError {
    #[error("{url}: {source}")]
    Fetch { url: Url, source: FetchError },
    #[error("{url}: {source}")]
    Jwks { url: Url, source: JwksError },
    #[error("{0}: not an OpenID provider's configuration with a jwks_uri")]
    NotAConfiguration(Url),
    #[error("{url}: the configuration is of another issuer, {found:?}")]
    OtherIssuer { url: Url, found: Option<String> },
}

/// An issuer's keys, wherever they come from.
pub(super) struct Remote {
    name: String,
    settings: RemoteSettings,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    metrics: TokenMetrics,
    state: watch::Sender<State>,
    /// A token has named a key that is not there.
    wanted: Notify,
}

/// What is known of an issuer's keys.
#[derive(Debug, Clone, Default)]
struct State {
    keys: Arc<Vec<Key>>,
    /// The document that they are of.
    document: Arc<Vec<u8>>,
    /// Changes with the keys.
    generation: u64,
    /// When they were fetched, in seconds since the Unix epoch.
    fetched: Option<u64>,
    /// When they, or others, were last asked for.
    attempted: Option<Instant>,
    attempts: u64,
    next: Option<Instant>,
}

impl Remote {
    pub(super) fn new(
        name: &str,
        settings: &RemoteSettings,
        clock: &Arc<dyn Clock>,
        metrics: &TokenMetrics,
    ) -> Result<Self, FetcherError> {
        let remote = Self {
            name: name.to_owned(),
            fetcher: Fetcher::new(&settings.fetch)?,
            settings: settings.clone(),
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
            state: watch::Sender::default(),
            wanted: Notify::new(),
        };
        if let Some(path) = &settings.keep_in {
            remote.read_kept(path);
        }
        Ok(remote)
    }

    /// Whether it would be made of `settings` again, for a provider of the same name.
    pub(super) fn is_of(&self, name: &str, settings: &RemoteSettings) -> bool {
        self.name == name && self.settings == *settings
    }

    /// The keys that may be used at `now`; `None` if there are none, or they are too old.
    pub(super) fn keys(&self, now: u64) -> Option<Arc<Vec<Key>>> {
        let state = self.state.borrow();
        let last = state.fetched? + self.settings.stale_for.as_secs();
        (now <= last).then(|| Arc::clone(&state.keys))
    }

    /// Changes with the keys.
    pub(super) fn generation(&self) -> u64 {
        self.state.borrow().generation
    }

    /// Asks for other keys than those that are there, and waits for them if a fetch is due.
    /// Cancel-safe.
    pub(super) async fn renew(&self) {
        let mut state = self.state.subscribe();
        let (attempts, recent) = {
            let state = state.borrow_and_update();
            let interval = self.settings.min_refresh;
            let recent = state.attempted.is_some_and(|at| at.elapsed() < interval);
            (state.attempts, recent)
        };
        self.wanted.notify_one();
        if !recent {
            let renewed = state.wait_for(|state| state.attempts != attempts);
            // Beyond a fetch's own limit, for discovery asks twice.
            let _ = tokio::time::timeout(self.settings.fetch.timeout * 2, renewed).await;
        }
    }

    /// Keeps the keys fresh until it is dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let (next, attempted) = {
                let state = self.state.borrow();
                (state.next, state.attempted)
            };
            tokio::select! {
                () = until(next) => {}
                () = self.wanted.notified() => {
                    // However many ask within an interval, they ask for the same.
                    until(attempted.map(|at| at + self.settings.min_refresh)).await;
                }
            }
            self.refresh().await;
        }
    }

    async fn refresh(&self) {
        let attempted = Instant::now();
        let mut fresh_for = Duration::ZERO;
        let mut found = None;
        match self.fetch().await {
            Ok((document, keys)) => {
                fresh_for = document.fresh_for.unwrap_or(self.settings.refresh);
                self.report_faults(&keys);
                self.keep_document(&document.body);
                found = Some((document.body, keys.keys));
            }
            Err(error) => {
                tracing::warn!(provider = self.name, %error, "no token keys fetched");
            }
        }
        self.metrics.fetched(&self.name, found.is_some());
        let (least, most) = (self.settings.min_refresh, self.settings.refresh);
        let now = self.clock.now();
        self.state.send_modify(|state| {
            state.attempted = Some(attempted);
            state.attempts += 1;
            state.next = Some(attempted + fresh_for.clamp(least, most));
            if let Some((document, keys)) = found {
                state.adopt(document, keys, now);
            }
        });
    }

    async fn fetch(&self) -> Result<(Document, KeySet), RefreshError> {
        let url = self.locate().await?;
        let document = self.get(&url).await?;
        match jwks::parse(&document.body, &self.settings.algorithms) {
            Ok(keys) => Ok((document, keys)),
            Err(source) => Err(RefreshError::Jwks { url, source }),
        }
    }

    /// Where the keys are, asked anew each time: an issuer may move them.
    async fn locate(&self) -> Result<Url, RefreshError> {
        let (issuer, url) = match &self.settings.location {
            Location::Jwks(url) => return Ok(url.clone()),
            Location::Discovery { issuer, url } => (issuer, url),
        };
        let document = self.get(url).await?;
        let wrong = || RefreshError::NotAConfiguration(url.clone());
        let configuration = json::object(&document.body).map_err(|_| wrong())?;
        let text = |name: &str| configuration.get(name).and_then(Value::as_str);
        // OpenID Connect Discovery 1.0 §4.3: it must be the issuer's own, exactly.
        if text("issuer") != Some(issuer) {
            return Err(RefreshError::OtherIssuer {
                url: url.clone(),
                found: text("issuer").map(str::to_owned),
            });
        }
        let keys = text("jwks_uri").ok_or_else(wrong)?;
        Url::parse(keys).map_err(|_| wrong())
    }

    async fn get(&self, url: &Url) -> Result<Document, RefreshError> {
        let document = self.fetcher.get(url).await;
        document.map_err(|source| RefreshError::Fetch {
            url: url.clone(),
            source,
        })
    }

    fn report_faults(&self, keys: &KeySet) {
        for fault in &keys.faults {
            tracing::warn!(provider = self.name, %fault, "a token key is left out");
        }
    }

    /// Written beside it and moved, so that nobody finds half a document.
    fn keep_document(&self, document: &[u8]) {
        let Some(path) = &self.settings.keep_in else {
            return;
        };
        let half = path.with_extension("new");
        let written = std::fs::write(&half, document).and_then(|()| std::fs::rename(&half, path));
        if let Err(error) = written {
            let path = path.display();
            tracing::warn!(provider = self.name, %path, %error, "cannot keep token keys");
        }
    }

    /// Takes up what a former process has kept. As old as the file is, so stale are the keys.
    fn read_kept(&self, path: &Path) {
        let Ok(document) = std::fs::read(path) else {
            // The first start, most likely; if not, the next fetch will say so.
            return;
        };
        let age = std::fs::metadata(path).and_then(|data| data.modified());
        let kept = age.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        match (kept, jwks::parse(&document, &self.settings.algorithms)) {
            (Some(kept), Ok(keys)) => self
                .state
                .send_modify(|state| state.adopt(document, keys.keys, kept.as_secs())),
            (None, _) | (_, Err(_)) => {
                let path = path.display();
                tracing::warn!(provider = self.name, %path, "the kept token keys are of no use");
            }
        }
    }
}

impl State {
    fn adopt(&mut self, document: Vec<u8>, keys: Vec<Key>, fetched: u64) {
        self.fetched = Some(fetched);
        if *self.document != document {
            self.document = Arc::new(document);
            self.keys = Arc::new(keys);
            self.generation += 1;
        }
    }
}

/// Waits until `time`, which has come if there is none.
async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time).await;
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
