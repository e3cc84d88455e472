//! API keys: opaque bearer tokens of which this side knows no more than a hash.
//!
//! A key is `<prefix><id>_<rest>`. The id finds it, and its SHA-256 must be the known one. A key is
//! random and long, so there is nothing that a slower hash would protect.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, rand};
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::flaw::Flaw;
use super::verified::VerifiedToken;
use crate::secret::Secret;

/// What verified keys say of who vouches for them.
const PROVIDER: &str = "api_keys";

/// Which keys there are, and what they look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeySettings {
    /// The file that lists them.
    pub file: PathBuf,
    /// What they begin with, one of these.
    pub prefixes: Vec<String>,
}

/// Why a file lists no keys.
#[derive(Debug, Error)]
pub enum ApiKeyError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or an entry lacks something or has something that is not known.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        message: String,
    },
    /// A hash is not 64 hexadecimal digits.
    #[error("{path}: the hash of {id} is not a SHA-256 in hexadecimal")]
    Hash {
        /// The file.
        path: PathBuf,
        /// The key's id.
        id: String,
    },
    /// A time is not one.
    #[error("{path}: the end of {id} is not a time such as 2027-01-31T00:00:00Z")]
    Time {
        /// The file.
        path: PathBuf,
        /// The key's id.
        id: String,
    },
}

/// One key as it is known here.
pub struct ApiKey {
    hash: [u8; 32],
    token: Arc<VerifiedToken>,
}

/// A store that cannot say now which keys there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreUnavailable;

/// What [`ApiKeyStore::find`] comes to.
pub type Found<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Arc<ApiKey>>, StoreUnavailable>> + Send + 'a>>;

/// Where keys are kept.
pub trait ApiKeyStore: fmt::Debug + Send + Sync {
    /// The key of this id, if there is one.
    fn find<'a>(&'a self, id: &'a str) -> Found<'a>;
}

/// Verifies keys against a store.
#[derive(Debug)]
pub(super) struct ApiKeys {
    prefixes: Vec<String>,
    store: Box<dyn ApiKeyStore>,
}

impl ApiKeys {
    pub(super) fn load(settings: &ApiKeySettings) -> Result<Self, ApiKeyError> {
        Ok(Self {
            prefixes: settings.prefixes.clone(),
            store: Box::new(KeyFile::read(&settings.file)?),
        })
    }

    /// Whether `text` has the form of a key, known or not.
    pub(super) fn recognises(&self, text: &str) -> bool {
        self.id_of(text).is_some()
    }

    pub(super) async fn verify(&self, text: &str, now: u64) -> Result<Arc<VerifiedToken>, Flaw> {
        let id = self.id_of(text).ok_or(Flaw::UnknownApiKey)?;
        let found = self.store.find(id).await;
        let key = found.map_err(|StoreUnavailable| Flaw::Unavailable)?;
        let known = key.as_ref().map_or([0; 32], |key| key.hash);
        // Computed and compared in any case: an id that exists takes as long as one that does not.
        let is_same = verify_slices_are_equal(&hash(text), &known).is_ok();
        let key = key.filter(|_| is_same).ok_or(Flaw::UnknownApiKey)?;
        if key.token.expires.is_some_and(|expires| expires <= now) {
            return Err(Flaw::Expired);
        }
        Ok(Arc::clone(&key.token))
    }

    fn id_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        let mut prefixes = self.prefixes.iter();
        let rest = prefixes.find_map(|prefix| text.strip_prefix(prefix.as_str()))?;
        let (id, _) = rest.split_once('_')?;
        (!id.is_empty()).then_some(id)
    }
}

/// The keys of a file, as it was when it was read.
#[derive(Debug)]
struct KeyFile(HashMap<String, Arc<ApiKey>>);

/// What the file says of one key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hash: String,
    owner: String,
    #[serde(default)]
    scopes: Vec<String>,
    expires: Option<String>,
}

impl KeyFile {
    fn read(path: &Path) -> Result<Self, ApiKeyError> {
        let text = std::fs::read_to_string(path).map_err(|source| ApiKeyError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let entries: HashMap<String, Entry> =
            toml::from_str(&text).map_err(|error| ApiKeyError::Malformed {
                path: path.to_owned(),
                message: error.message().to_owned(),
            })?;
        let key = |(id, entry): (String, Entry)| {
            let key = entry.into_key(&id, path)?;
            Ok((id, Arc::new(key)))
        };
        entries
            .into_iter()
            .map(key)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl ApiKeyStore for KeyFile {
    fn find<'a>(&'a self, id: &'a str) -> Found<'a> {
        Box::pin(std::future::ready(Ok(self.0.get(id).cloned())))
    }
}

impl Entry {
    fn into_key(self, id: &str, path: &Path) -> Result<ApiKey, ApiKeyError> {
        let hash = read_hash(&self.hash).ok_or_else(|| ApiKeyError::Hash {
            path: path.to_owned(),
            id: id.to_owned(),
        })?;
        let expires = self.expires.as_deref().map(read_time);
        if expires == Some(None) {
            return Err(ApiKeyError::Time {
                path: path.to_owned(),
                id: id.to_owned(),
            });
        }
        let token = VerifiedToken {
            provider: PROVIDER.into(),
            claims: claims(id, &self.owner, &self.scopes),
            subject: Some(self.owner),
            expires: expires.flatten(),
            certificate: None,
            recheck: None,
        };
        Ok(ApiKey {
            hash,
            token: Arc::new(token),
        })
    }
}

/// What a key says, in the words of RFC 7662 §2.2, so that rules for tokens hold for keys.
fn claims(id: &str, owner: &str, scopes: &[String]) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("sub".into(), owner.into());
    claims.insert("jti".into(), id.into());
    claims.insert("scope".into(), scopes.join(" ").into());
    claims.insert("scopes".into(), scopes.into());
    claims
}

fn read_hash(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = (digit(pair[0])?, digit(pair[1])?);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(hash)
}

fn read_time(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    time.duration_since(UNIX_EPOCH)
        .ok()
        .map(|time| time.as_secs())
}

fn hash(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

/// A key that has just been made: itself, which is nowhere else, and its line for the file.
#[derive(Debug)]
pub struct NewApiKey {
    /// What its owner gets.
    pub key: Secret,
    /// What the file gets.
    pub line: String,
}

/// No random numbers are to be had.
#[derive(Debug, Error)]
#[error("no random numbers are to be had")]
pub struct NoRandomness;

impl NewApiKey {
    /// Makes a key that begins with `prefix`, valid for `lifetime` from `now` on (seconds since the
    /// Unix epoch) or until its line is removed.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn make(
        prefix: &str,
        owner: &str,
        scopes: &[String],
        lifetime: Option<Duration>,
        now: u64,
    ) -> Result<Self, NoRandomness> {
        let mut random = [0; 40];
        rand::fill(&mut random).map_err(|_| NoRandomness)?;
        let (id, rest) = random.split_at(8);
        let id = hexadecimal(id);
        let key = Secret::new(format!("{prefix}{id}_{}", hexadecimal(rest)));
        let mut entry = toml::Table::new();
        entry.insert("hash".into(), hexadecimal(&hash(key.expose())).into());
        entry.insert("owner".into(), owner.into());
        entry.insert("scopes".into(), scopes.to_vec().into());
        if let Some(lifetime) = lifetime {
            let end = UNIX_EPOCH + Duration::from_secs(now) + lifetime;
            let end = humantime::format_rfc3339_seconds(end).to_string();
            entry.insert("expires".into(), end.into());
        }
        let line = format!("\"{id}\" = {}", toml::Value::Table(entry));
        Ok(Self { key, line })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of a key is no secret, but nobody needs it either.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
