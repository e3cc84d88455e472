//! [`Revocations`]: tokens that are refused although they would hold: stolen ones, those of users who
//! have left, everything that was issued before a key was lost.
//!
//! The list is looked at for every token, remembered or not, so what is added to it holds at once. It
//! is replaced as a whole, so that nobody who reads waits. Changes are in the file before they are in
//! force (`kept`); who may make them is for the admin listener to say.

mod kept;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use thiserror::Error;

use kept::Kept;

use super::json::{self, JsonError};
use super::verified::VerifiedToken;
use crate::telemetry::TokenMetrics;

/// Where the list is kept, and how long it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSettings {
    /// The file.
    pub file: PathBuf,
    /// Most entries.
    pub most: usize,
}

/// Why there is no list, or no change to it.
#[derive(Debug, Error)]
pub enum RevocationError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no list.
    #[error("{path}: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The file cannot be written, so nothing has changed.
    #[error("cannot write {path}: {source}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody has changed the file and nobody has had it read since; to write it now would undo
    /// that.
    #[error("{path} has been changed by somebody else: reload the configuration first")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An entry is none.
    #[error("{0}")]
    Malformed(String),
    /// There is no room for another entry.
    #[error("there are {0} revocations, the most that revocations.max_entries allows")]
    Full(usize),
    /// No file is configured.
    #[error("no revocations.list is configured")]
    Off,
}

/// A time in whole seconds since the Unix epoch, written as RFC 3339 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
struct Time(u64);

/// Which tokens are revoked: those of which everything is so that is said here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The token's own id (`jti`).
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// Who has issued it, or vouches for it where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// It was issued before this, or does not say when.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<Time>,
    /// When the entry itself ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    /// Why, for those who read the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Revocation {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`RevocationError::Malformed`].
    pub fn of_json(text: &[u8]) -> Result<Self, RevocationError> {
        // By itself serde takes a list for an object too.
        let object = json::object(text).map_err(|error| match error {
            JsonError::Malformed => RevocationError::Malformed("no JSON object".into()),
            JsonError::Duplicate => RevocationError::Malformed("a name stands there twice".into()),
        })?;
        let malformed = |error: serde_json::Error| RevocationError::Malformed(error.to_string());
        let revocation: Self = serde_json::from_value(Value::Object(object)).map_err(malformed)?;
        match revocation.flaw() {
            None => Ok(revocation),
            Some(flaw) => Err(RevocationError::Malformed(flaw.to_owned())),
        }
    }

    /// What tells it from all others: what it is about, not why or for how long.
    #[must_use]
    pub fn id(&self) -> String {
        let mut context = Context::new(&SHA256);
        for part in [&self.jti, &self.subject, &self.issuer] {
            let part = part.as_deref().unwrap_or_default();
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        let before = self.issued_before.map_or(0, |Time(seconds)| seconds);
        context.update(&before.to_be_bytes());
        let digest = context.finish();
        let digits = digest.as_ref().iter().take(8);
        digits.map(|byte| format!("{byte:02x}")).collect()
    }

    /// An entry that says nothing would be about every token.
    fn flaw(&self) -> Option<&'static str> {
        const LONGEST: usize = 1024;
        if self.jti.is_none() && self.subject.is_none() && self.issued_before.is_none() {
            return Some("one of jti, subject and issued_before must be there");
        }
        let texts = [&self.jti, &self.subject, &self.issuer, &self.note];
        let is_odd = |text: &String| text.is_empty() || text.len() > LONGEST;
        let mut texts = texts.into_iter().flatten();
        texts
            .any(is_odd)
            .then_some("a text is empty or longer than 1024 bytes")
    }

    fn has_ended(&self, now: u64) -> bool {
        self.until.is_some_and(|Time(until)| until <= now)
    }

    fn covers(&self, token: &VerifiedToken, now: u64) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        !self.has_ended(now)
            && is(&self.jti, token.id())
            && is(&self.subject, token.subject())
            && is(&self.issuer, Some(token.issuer()))
            && self.issued_before.is_none_or(|Time(before)| {
                // What does not say when it was issued may have been at any time.
                token.issued().is_none_or(|issued| issued < before)
            })
    }
}

/// Entries, found by the most telling thing that they say.
#[derive(Debug, Default)]
struct List {
    entries: Vec<Arc<Revocation>>,
    by_jti: Index,
    by_subject: Index,
    by_issuer: Index,
    others: Vec<Arc<Revocation>>,
}

type Index = HashMap<String, Vec<Arc<Revocation>>>;

impl List {
    fn new(revocations: Vec<Revocation>) -> Self {
        let mut list = Self::default();
        for revocation in revocations.into_iter().map(Arc::new) {
            let Revocation {
                jti,
                subject,
                issuer,
                ..
            } = &*revocation;
            let place = match (jti, subject, issuer) {
                (Some(jti), _, _) => list.by_jti.entry(jti.clone()).or_default(),
                (None, Some(subject), _) => list.by_subject.entry(subject.clone()).or_default(),
                (None, None, Some(issuer)) => list.by_issuer.entry(issuer.clone()).or_default(),
                (None, None, None) => &mut list.others,
            };
            place.push(Arc::clone(&revocation));
            list.entries.push(revocation);
        }
        list
    }

    fn in_force(&self, now: u64) -> Vec<Revocation> {
        let entries = self.entries.iter().filter(|entry| !entry.has_ended(now));
        entries.map(|entry| Revocation::clone(entry)).collect()
    }

    fn has(&self, token: &VerifiedToken, now: u64) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let found = |index: &Index, key: Option<&str>| {
            let entries = key.and_then(|key| index.get(key));
            entries.is_some_and(|entries| entries.iter().any(|entry| entry.covers(token, now)))
        };
        found(&self.by_jti, token.id())
            || found(&self.by_subject, token.subject())
            || found(&self.by_issuer, Some(token.issuer()))
            || self.others.iter().any(|entry| entry.covers(token, now))
    }
}

/// What has become of a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// It stands in the place of one about the same tokens.
    Replaced,
}

/// The list in force, for as long as the process runs.
#[derive(Debug, Default)]
pub struct Revocations {
    list: ArcSwap<List>,
    /// Whoever changes the list holds this from reading the file to having written it.
    kept: Mutex<Option<Kept>>,
    metrics: TokenMetrics,
}

impl Revocations {
    /// An empty list.
    #[must_use]
    pub fn new(metrics: TokenMetrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Takes up what the file of `settings` says, or nothing without settings.
    ///
    /// # Errors
    /// [`RevocationError`]; what was in force stays so.
    pub fn read(
        &self,
        settings: Option<&RevocationSettings>,
        now: u64,
    ) -> Result<(), RevocationError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, entries) = match settings {
            None => (None, vec![]),
            Some(settings) => {
                let (file, entries) = Kept::read(settings, now)?;
                (Some(file), entries)
            }
        };
        *kept = file;
        self.put_in_force(entries);
        Ok(())
    }

    /// Whether `token` is revoked at `now`.
    #[must_use]
    pub fn has(&self, token: &VerifiedToken, now: u64) -> bool {
        self.list.load().has(token, now)
    }

    /// All entries in force.
    ///
    /// # Errors
    /// [`RevocationError::Off`].
    pub fn entries(&self, now: u64) -> Result<Vec<Revocation>, RevocationError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match *kept {
            Some(_) => Ok(self.list.load().in_force(now)),
            None => Err(RevocationError::Off),
        }
    }

    /// Adds an entry, or replaces the one about the same tokens. Writes the file, and so may take
    /// its time.
    ///
    /// # Errors
    /// [`RevocationError`]; nothing has changed then.
    pub fn add(&self, revocation: Revocation, now: u64) -> Result<Added, RevocationError> {
        self.change(now, |entries| {
            let id = revocation.id();
            let same = entries.iter_mut().find(|entry| entry.id() == id);
            match same {
                Some(entry) => {
                    *entry = revocation;
                    Added::Replaced
                }
                None => {
                    entries.push(revocation);
                    Added::New
                }
            }
        })
    }

    /// Removes the entry of this id and says whether there was one. Writes the file as well.
    ///
    /// # Errors
    /// [`RevocationError`]; nothing has changed then.
    pub fn lift(&self, id: &str, now: u64) -> Result<bool, RevocationError> {
        self.change(now, |entries| {
            let before = entries.len();
            entries.retain(|entry| entry.id() != id);
            entries.len() < before
        })
    }

    fn change<T>(
        &self,
        now: u64,
        change: impl FnOnce(&mut Vec<Revocation>) -> T,
    ) -> Result<T, RevocationError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_mut().ok_or(RevocationError::Off)?;
        let mut entries = self.list.load().in_force(now);
        let outcome = change(&mut entries);
        kept.write(&entries)?;
        self.put_in_force(entries);
        Ok(outcome)
    }

    fn put_in_force(&self, entries: Vec<Revocation>) {
        self.metrics
            .revocations
            .set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        self.list.store(Arc::new(List::new(entries)));
    }
}

impl VerifiedToken {
    /// Its own id (RFC 7519 §4.1.7).
    fn id(&self) -> Option<&str> {
        self.claims.get("jti").and_then(Value::as_str)
    }

    /// Who has issued it; who vouches for it where it does not say.
    fn issuer(&self) -> &str {
        let issuer = self.claims.get("iss").and_then(Value::as_str);
        issuer.unwrap_or(&self.provider)
    }

    /// The second in which it was issued (RFC 7519 §4.1.6), if it says so.
    fn issued(&self) -> Option<u64> {
        let issued = self.claims.get("iat").and_then(Value::as_f64);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was verified to be a date"
        )]
        issued.map(|seconds| seconds as u64)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = UNIX_EPOCH + Duration::from_secs(self.0);
        serializer.collect_str(&humantime::format_rfc3339_seconds(time))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text).ok();
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let wrong = || serde::de::Error::custom("a time is not like 2027-01-31T00:00:00Z");
        since.map(|since| Self(since.as_secs())).ok_or_else(wrong)
    }
}
