//! [`Jwt`]: a JWS in compact form (RFC 7515 §7.1, RFC 7519), taken apart and not yet believed.
//!
//! Everything that RFC 8725 would rather not see in a header is refused here, before a key is
//! looked for. Nothing in a header chooses a key but `kid`, and nothing chooses an algorithm but
//! the key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::flaw::{Flaw, Part};
use super::json::{self, JsonError};
use super::key::Algorithm;

/// A token's parts.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Map<String, Value>,
    /// What is signed: header, dot, payload.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Takes `token` apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, Flaw> {
        let (message, signature) = token.rsplit_once('.').ok_or(Flaw::NotCompact)?;
        let (header, payload) = message.split_once('.').ok_or(Flaw::NotCompact)?;
        match payload.matches('.').count() {
            0 => {}
            // RFC 7516 §7.1: five parts.
            2 => return Err(Flaw::Encrypted),
            _ => return Err(Flaw::NotCompact),
        }
        let header = part(header, Part::Header)?;
        let (algorithm, key_id) = read_header(&header)?;
        Ok(Self {
            algorithm,
            key_id,
            claims: part(payload, Part::Payload)?,
            message: message.as_bytes(),
            signature: decode(signature, Part::Signature)?,
        })
    }
}

/// Whether `text` could be a JWT; what could not is never treated as one.
pub(super) fn is_plausible(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    // `{"`, which every header begins with.
    text.starts_with("ey")
        && text.split('.').count() >= 3
        && text.bytes().all(|byte| byte == b'.' || is_base64url(byte))
}

fn part(text: &str, part: Part) -> Result<Map<String, Value>, Flaw> {
    json::object(&decode(text, part)?).map_err(|error| match error {
        JsonError::Malformed => Flaw::Json(part),
        JsonError::Duplicate => Flaw::Duplicate(part),
    })
}

fn decode(text: &str, part: Part) -> Result<Vec<u8>, Flaw> {
    let decoded = URL_SAFE_NO_PAD.decode(text);
    decoded.map_err(|_| Flaw::Encoding(part))
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), Flaw> {
    if ["enc", "zip"].iter().any(|name| header.contains_key(*name)) {
        return Err(Flaw::Encrypted);
    }
    for name in ["jku", "x5u", "jwk"] {
        if header.contains_key(name) {
            return Err(Flaw::ForeignKey(name));
        }
    }
    if header.contains_key("crit") {
        return Err(Flaw::Critical);
    }
    if !header.get("typ").is_none_or(is_access_token) {
        return Err(Flaw::MediaType);
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(Flaw::KeyId),
    };
    Ok((read_algorithm(header.get("alg"))?, key_id))
}

fn read_algorithm(alg: Option<&Value>) -> Result<Algorithm, Flaw> {
    let Some(Value::String(name)) = alg else {
        return Err(Flaw::NoAlgorithm);
    };
    if name.trim().eq_ignore_ascii_case("none") {
        return Err(Flaw::Unsigned);
    }
    Algorithm::parse(name).ok_or(Flaw::UnknownAlgorithm)
}

/// RFC 7519 §5.1, RFC 9068 §2.1; media types know no case.
fn is_access_token(typ: &Value) -> bool {
    let Value::String(typ) = typ else {
        return false;
    };
    let typ = typ.to_ascii_lowercase();
    let subtype = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(subtype, "jwt" | "at+jwt")
}
