//! Who may read and change what the admin listener does not show to everybody.
//!
//! The listener stands on loopback, where browsers of the same machine reach it too: on behalf of
//! any page (a request across sites), or of one whose name leads to this address (DNS rebinding).
//! So the host has to be an address, `localhost` or a name that is configured, nothing that a browser
//! says `Origin` with changes anything, and a body has to be JSON, which no form can send. Beyond
//! loopback a secret is demanded.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use thiserror::Error;

use super::{Settings, State};
use crate::secret::Secret;
use crate::token::RevocationError;

/// Why a request is not carried out.
#[derive(Debug, Error)]
pub(super) enum Denial {
    #[error("the host is none of admin.hosts")]
    Host,
    #[error("a browser's page may not ask for this")]
    Origin,
    #[error("the admin listener's secret is missing or wrong")]
    Secret,
    #[error("the body has to be of type application/json")]
    MediaType,
    #[error("the body is too long or does not arrive")]
    Body,
    #[error("there is no such revocation")]
    NoEntry,
    #[error("the change has broken off")]
    Broken,
    #[error(transparent)]
    Revocation(#[from] RevocationError),
}

/// Whether a request may read.
pub(super) fn check(state: &State, headers: &HeaderMap) -> Result<(), Denial> {
    let settings = state.settings.load();
    let settings = settings.as_deref().ok_or(Denial::Host)?;
    let host = only(headers, &HOST).and_then(host_of).ok_or(Denial::Host)?;
    if !is_ours(&host, settings) {
        return Err(Denial::Host);
    }
    match &settings.secret {
        Some(secret) if !is_shown(secret, headers) => Err(Denial::Secret),
        Some(_) | None => Ok(()),
    }
}

/// Whether a request may change something.
pub(super) fn check_change(
    state: &State,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Denial> {
    if headers.contains_key(ORIGIN) {
        return Err(Denial::Origin);
    }
    check(state, headers)?;
    if method == Method::POST && !is_json(headers) {
        return Err(Denial::MediaType);
    }
    Ok(())
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn host_of(value: &HeaderValue) -> Option<String> {
    let authority = Authority::try_from(value.as_bytes()).ok()?;
    Some(authority.host().to_owned())
}

/// Whether no name server of somebody else's could have brought a browser here by this name.
fn is_ours(host: &str, settings: &Settings) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || settings.hosts.iter().any(|known| known.matches(host))
}

fn is_shown(secret: &Secret, headers: &HeaderMap) -> bool {
    let value = only(headers, &AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = value.and_then(|value| value.strip_prefix("Bearer "));
    shown.is_some_and(|shown| secret == shown)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = only(headers, &CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

impl Denial {
    fn status(&self) -> StatusCode {
        use {RevocationError as R, StatusCode as S};
        match self {
            Self::Host => S::MISDIRECTED_REQUEST,
            Self::Origin => S::FORBIDDEN,
            Self::Secret => S::UNAUTHORIZED,
            Self::MediaType => S::UNSUPPORTED_MEDIA_TYPE,
            Self::Body | Self::Revocation(R::Malformed(_)) => S::BAD_REQUEST,
            Self::NoEntry | Self::Revocation(R::Off) => S::NOT_FOUND,
            Self::Revocation(R::Full(_) | R::Changed { .. }) => S::CONFLICT,
            Self::Broken
            | Self::Revocation(R::Unreadable { .. } | R::Damaged { .. } | R::Unwritable { .. }) => {
                S::INTERNAL_SERVER_ERROR
            }
        }
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!("the admin listener could not carry out a change: {self}");
        }
        let body = json!({ "error": self.to_string() }).to_string();
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self, Self::Secret) {
            let challenge = HeaderValue::from_static("Bearer realm=\"portcullis\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
