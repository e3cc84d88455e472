//! JSON Web Key Sets (RFC 7517): the public keys of an issuer, as it publishes them.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use thiserror::Error;

use super::json;
use super::key::{Algorithm, Key, KeyError};

/// More keys than any issuer needs: each could be tried for each token.
const MOST_KEYS: usize = 100;

/// Why a document is of no use as a key set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwksError {
    /// Not a JSON object with a list of objects under `keys`, or one with a name twice.
    #[error("not a JSON Web Key Set")]
    NotAKeySet,
    /// It holds more keys than are read.
    #[error("more than {MOST_KEYS} keys")]
    TooMany,
    /// None of its keys could verify a token.
    #[error("no key that could verify a token")]
    Empty,
    /// A key that should never have left its issuer.
    #[error("key {0:?} holds secret or private parts")]
    Private(Option<String>),
    /// A key is for tokens, but damaged.
    #[error("key {id:?}: {source}")]
    Key {
        /// Its id.
        id: Option<String>,
        /// What is wrong.
        source: KeyError,
    },
}

/// The keys of a set that verify tokens, and what is wrong with those that should.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    pub(super) faults: Vec<JwksError>,
}

/// The keys of `document` that verify tokens by one of `algorithms`. Keys for anything else are left
/// out, as RFC 7517 §5 asks for.
pub(super) fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, JwksError> {
    let document = json::object(document).map_err(|_| JwksError::NotAKeySet)?;
    let Some(Value::Array(entries)) = document.get("keys") else {
        return Err(JwksError::NotAKeySet);
    };
    if entries.len() > MOST_KEYS {
        return Err(JwksError::TooMany);
    }
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.as_object().ok_or(JwksError::NotAKeySet)?;
        match key(entry, algorithms) {
            Ok(key) => keys.extend(key),
            Err(fault) => faults.push(fault),
        }
    }
    match (keys.is_empty(), faults.pop()) {
        (true, fault) => Err(fault.unwrap_or(JwksError::Empty)),
        (false, fault) => {
            faults.extend(fault);
            Ok(KeySet { keys, faults })
        }
    }
}

/// A key, or `None` if it is for something else.
fn key(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Option<Key>, JwksError> {
    let id = text(jwk, "kid").map(str::to_owned);
    // RFC 7518 §6.3.2, §6.2.2, §6.4.1: whoever can read these could sign as well.
    if jwk.contains_key("d") || jwk.contains_key("k") {
        return Err(JwksError::Private(id));
    }
    let algorithms = algorithms(jwk, allowed);
    if algorithms.is_empty() || !is_for_signatures(jwk) {
        return Ok(None);
    }
    let material = match text(jwk, "kty") {
        Some("RSA") => rsa(jwk),
        Some("EC") => point(jwk),
        Some("OKP") => octets(jwk, "x"),
        _ => return Ok(None),
    };
    let unusable = || KeyError::Unusable(algorithms[0]);
    let key = material
        .ok_or_else(unusable)
        .and_then(|bytes| Key::public(id.clone(), &bytes, &algorithms));
    key.map(Some)
        .map_err(|source| JwksError::Key { id, source })
}

/// RFC 7517 §4.2, §4.3.
fn is_for_signatures(jwk: &Map<String, Value>) -> bool {
    let verifies = |operations: &Value| {
        let operations = operations.as_array().map(Vec::as_slice).unwrap_or_default();
        operations.iter().any(|operation| operation == "verify")
    };
    jwk.get("use").is_none_or(|purpose| purpose == "sig") && jwk.get("key_ops").is_none_or(verifies)
}

/// What the key says that it is for, or else what its kind is for, as far as that is allowed.
fn algorithms(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Vec<Algorithm> {
    let fitting: &[Algorithm] = match (text(jwk, "kty"), text(jwk, "crv")) {
        (Some("RSA"), _) => &[
            Algorithm::Rs256,
            Algorithm::Rs384,
            Algorithm::Rs512,
            Algorithm::Ps256,
            Algorithm::Ps384,
            Algorithm::Ps512,
        ],
        (Some("EC"), Some("P-256")) => &[Algorithm::Es256],
        (Some("EC"), Some("P-384")) => &[Algorithm::Es384],
        (Some("OKP"), Some("Ed25519")) => &[Algorithm::EdDsa],
        _ => &[],
    };
    let said = jwk
        .get("alg")
        .map(|alg| alg.as_str().and_then(Algorithm::parse));
    fitting
        .iter()
        .copied()
        .filter(|algorithm| allowed.contains(algorithm))
        .filter(|algorithm| said.is_none_or(|said| said == Some(*algorithm)))
        .collect()
}

/// The `SubjectPublicKeyInfo` of modulus and exponent.
fn rsa(jwk: &Map<String, Value>) -> Option<Vec<u8>> {
    let (n, e) = (octets(jwk, "n")?, octets(jwk, "e")?);
    let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().ok()?;
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(&key).ok()?;
    Some(der.as_ref().to_vec())
}

/// The uncompressed point (SEC 1 §2.3.3).
fn point(jwk: &Map<String, Value>) -> Option<Vec<u8>> {
    let mut point = vec![4];
    point.extend(octets(jwk, "x")?);
    point.extend(octets(jwk, "y")?);
    Some(point)
}

fn octets(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok()
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}
