//! Assertions (RFC 7521 §3): what the gateway has decided of a client, signed, so that services behind
//! it need not trust the network between them. [`Asserter`] signs claims as a JWT (RFC 7519) and
//! publishes its keys as a key set (RFC 7517).
//!
//! What is said of whom is for those to say who have decided it.

mod key;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use thiserror::Error;
use zeroize::Zeroizing;

pub use key::SigningKeyError;

use key::SigningKey;

/// The claims that the gateway itself makes; no other claim may take their place.
pub const OWN_CLAIMS: [&str; 12] = [
    "iss",
    "aud",
    "sub",
    "iat",
    "nbf",
    "exp",
    "jti",
    "amr",
    "cnf",
    "client_id",
    "provider",
    "route",
];

/// The media type of a key set (RFC 7517 §8.5.2).
pub const KEY_SET_TYPE: &str = "application/jwk-set+json";

/// How long a key set may be kept (RFC 9111 §5.2): after so long, a key that has been added may sign.
pub const KEY_SET_CACHING: &str = "public, max-age=300";

/// How assertions are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who makes them (`iss`).
    pub issuer: String,
    /// How long one is good for.
    pub lifetime: Duration,
    /// PEM files of private keys. The first signs, all are published; if there are none, one is made.
    pub keys: Vec<PathBuf>,
}

/// Why no assertions can be made.
#[derive(Debug, Error)]
pub enum AssertionError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds no key that signs.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SigningKeyError,
    },
    /// A file holds the key of another.
    #[error("{0}: the key of another file once more")]
    Twice(PathBuf),
    /// No key can be made.
    #[error("no key can be made: {0}")]
    Make(#[source] SigningKeyError),
}

/// Signs assertions.
pub struct Asserter {
    issuer: String,
    lifetime: u64,
    first: Arc<SigningKey>,
    /// Whether `first` was made here, for want of a file.
    is_made: bool,
    key_set: Bytes,
}

/// A token that has been signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// The JWT.
    pub token: String,
    /// From when on another should take its place, in seconds since the Unix epoch: one that is sent
    /// before has half of its time left.
    pub renew_at: u64,
}

impl Asserter {
    /// Reads the keys. If there are none, the key that `former` has made is taken over, or one is made.
    ///
    /// # Errors
    /// [`AssertionError`] for the first key that is of no use.
    pub fn load(settings: &Settings, former: Option<&Self>) -> Result<Self, AssertionError> {
        let is_made = settings.keys.is_empty();
        let mut keys: Vec<Arc<SigningKey>> = Vec::new();
        for path in &settings.keys {
            let key = read(path)?;
            if keys.iter().any(|known| known.id() == key.id()) {
                return Err(AssertionError::Twice(path.clone()));
            }
            keys.push(Arc::new(key));
        }
        let first = match (keys.first(), former.filter(|former| former.is_made)) {
            (Some(first), _) => Arc::clone(first),
            (None, Some(former)) => Arc::clone(&former.first),
            (None, None) => Arc::new(SigningKey::make().map_err(AssertionError::Make)?),
        };
        let published = if is_made {
            vec![Arc::clone(&first)]
        } else {
            keys
        };
        let jwks: Vec<Value> = published.iter().map(|key| key.jwk()).collect();
        Ok(Self {
            issuer: settings.issuer.clone(),
            lifetime: settings.lifetime.as_secs(),
            first,
            is_made,
            key_set: json!({ "keys": jwks }).to_string().into(),
        })
    }

    /// The keys that assertions are verified with, as a JSON Web Key Set.
    #[must_use]
    pub fn key_set(&self) -> Bytes {
        self.key_set.clone()
    }

    /// Signs `claims` at `now` (seconds since the Unix epoch), for as long as the settings say, but not
    /// beyond `end`. `None` if the system has no random numbers.
    #[must_use]
    pub fn sign(
        &self,
        mut claims: Map<String, Value>,
        now: u64,
        end: Option<u64>,
    ) -> Option<Assertion> {
        let mut id = [0; 16];
        rand::fill(&mut id).ok()?;
        let expires = now + self.lifetime;
        let expires = end.map_or(expires, |end| expires.min(end));
        claims.insert("iss".into(), self.issuer.as_str().into());
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), expires.into());
        claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(id).into());
        Some(Assertion {
            token: self.first.sign(&Value::Object(claims))?,
            renew_at: now + expires.saturating_sub(now) / 2,
        })
    }
}

fn read(path: &Path) -> Result<SigningKey, AssertionError> {
    let pem = std::fs::read(path).map_err(|source| AssertionError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let pem = Zeroizing::new(pem);
    SigningKey::of_pem(&pem).map_err(|source| AssertionError::File {
        path: path.to_owned(),
        source,
    })
}

impl fmt::Debug for Asserter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asserter")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
