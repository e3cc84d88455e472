//! What a token says, once its signature holds: for how long, for whom, and what it is at all
//! (RFC 7519 §4.1, RFC 8725 §3.8 to §3.12).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::flaw::Flaw;
use super::provider::Rules;

/// The last second of the year 9999: what is later is no date but a mistake, or an attempt.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Checks `claims` at `now` and says when they end; `None` is never, where `rules` allow that.
pub(super) fn check(
    claims: &Map<String, Value>,
    rules: &Rules,
    now: u64,
) -> Result<Option<u64>, Flaw> {
    let expires = check_times(claims, rules, now)?;
    if !is_for_us(claims.get("aud"), &rules.audiences) {
        return Err(Flaw::Audience);
    }
    check_kind(claims, rules)?;
    Ok(expires)
}

/// The issuer, as a token names it (RFC 7519 §4.1.1).
pub(super) fn issuer(claims: &Map<String, Value>) -> Result<&str, Flaw> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    issuer.ok_or(Flaw::NoIssuer)
}

/// The subject: the first of `names` that the claims have.
pub(super) fn subject(
    claims: &Map<String, Value>,
    names: &[String],
) -> Result<Option<String>, Flaw> {
    let Some(value) = names.iter().find_map(|name| claims.get(name)) else {
        return Ok(None);
    };
    match value {
        Value::String(subject) if !subject.is_empty() => Ok(Some(subject.clone())),
        _ => Err(Flaw::Subject),
    }
}

/// The certificate that a token is bound to, by the SHA-256 of its DER in lower-case hexadecimal
/// (RFC 8705 §3.1).
pub(super) fn certificate(claims: &Map<String, Value>) -> Result<Option<String>, Flaw> {
    let Some(confirmation) = claims.get("cnf") else {
        return Ok(None);
    };
    let confirmation = confirmation.as_object().ok_or(Flaw::Confirmation)?;
    // Whoever binds a token to something else expects that to be proven (RFC 7800 §3.1).
    let Some(Value::String(thumbprint)) = confirmation.get("x5t#S256") else {
        return Err(Flaw::Confirmation);
    };
    let decoded = URL_SAFE_NO_PAD.decode(thumbprint).ok();
    let digest = decoded.filter(|digest| digest.len() == 32 && confirmation.len() == 1);
    let digest = digest.ok_or(Flaw::Confirmation)?;
    Ok(Some(
        digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}

fn check_times(claims: &Map<String, Value>, rules: &Rules, now: u64) -> Result<Option<u64>, Flaw> {
    let leeway = rules.leeway.as_secs();
    // A fraction of a second never makes a token live longer or begin earlier.
    let expires = date(claims, "exp")?.map(f64::floor).map(seconds);
    let begins = date(claims, "nbf")?.map(f64::ceil).map(seconds);
    let issued = date(claims, "iat")?.map(f64::ceil).map(seconds);
    match expires {
        None if !rules.allow_no_expiry => return Err(Flaw::NoExpiry),
        // RFC 7519 §4.1.4: the current date must be before it.
        Some(expires) if now >= expires + leeway => return Err(Flaw::Expired),
        None | Some(_) => {}
    }
    if begins.is_some_and(|begins| now + leeway < begins) {
        return Err(Flaw::NotYetValid);
    }
    if issued.is_some_and(|issued| now + leeway < issued) {
        return Err(Flaw::IssuedInFuture);
    }
    Ok(expires)
}

/// A date that is there is a number, whatever else it may be: `"exp": "never"` is not its absence
/// (CVE-2026-25537).
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Flaw> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let date = value
        .as_f64()
        .filter(|date| (0.0..=LAST_SECOND).contains(date));
    date.map(Some).ok_or(Flaw::Time(name))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole, and between 0 and the year 9999"
)]
fn seconds(date: f64) -> u64 {
    date as u64
}

/// RFC 7519 §4.1.3: a token that names audiences is refused by those that are none of them.
fn is_for_us(audience: Option<&Value>, ours: &[String]) -> bool {
    let is_ours = |name: &Value| {
        name.as_str()
            .is_some_and(|name| ours.iter().any(|us| us == name))
    };
    match audience {
        None => ours.is_empty(),
        Some(Value::Array(names)) => {
            names.iter().all(Value::is_string) && names.iter().any(is_ours)
        }
        Some(name) => is_ours(name),
    }
}

/// Issuers sign tokens of several kinds with one key, and tell them apart by a claim.
fn check_kind(claims: &Map<String, Value>, rules: &Rules) -> Result<(), Flaw> {
    let Some(kind) = claims.get(&rules.kind_claim) else {
        return if rules.require_kind {
            Err(Flaw::Kind)
        } else {
            Ok(())
        };
    };
    let kind = match kind {
        Value::String(kind) => kind.clone(),
        Value::Number(kind) => kind.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(Flaw::Kind);
        }
    };
    if rules.kinds.contains(&kind) {
        Ok(())
    } else {
        Err(Flaw::Kind)
    }
}
