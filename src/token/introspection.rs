//! Opaque tokens of an authorization server, which is asked what they are (RFC 7662).
//!
//! What it says is remembered as what a signature says is, but never for longer than a set time: a
//! token that the server revokes is accepted for so long at most. A server that does not answer
//! leaves those outside whom it has not just vouched for.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use thiserror::Error;

use super::claims;
use super::flaw::Flaw;
use super::json;
use super::provider::Rules;
use super::verified::VerifiedToken;
use crate::fetch::{
    self, FetchError, Fetcher, FetcherError, HeaderMap, HeaderName, HeaderValue, Inquiry, Method,
    StatusCode, Url,
};
use crate::secret::Secret;

/// What verified tokens say of who vouches for them.
const PROVIDER: &str = "introspection";

/// Whom to ask, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// The endpoint.
    pub url: Url,
    /// What the gateway is called there.
    pub client_id: String,
    /// What it proves that by.
    pub client_secret: Secret,
    /// How long an answer counts.
    pub ttl: Duration,
    /// What tokens must keep beside being active.
    pub rules: Rules,
    /// How to ask.
    pub fetch: fetch::Settings,
}

/// Why the server has not said what a token is. For the log.
#[derive(Debug, Error)]
enum Silence {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("its answer's status is {0}")]
    Status(StatusCode),
    #[error("its answer is no JSON object with \"active\"")]
    Document,
}

/// Asks.
#[derive(Debug)]
pub(super) struct Introspector {
    settings: IntrospectionSettings,
    fetcher: Fetcher,
    headers: HeaderMap,
    provider: Arc<str>,
}

impl Introspector {
    pub(super) fn new(settings: &IntrospectionSettings) -> Result<Self, FetcherError> {
        Ok(Self {
            fetcher: Fetcher::new(&settings.fetch)?,
            headers: fields(settings),
            settings: settings.clone(),
            provider: PROVIDER.into(),
        })
    }

    /// The token, and the first second at which it must be asked about again.
    pub(super) async fn verify(
        &self,
        token: &str,
        now: u64,
    ) -> Result<(VerifiedToken, Option<u64>), Flaw> {
        let claims = self.ask(token).await.map_err(|silence| {
            let url = &self.settings.url;
            tracing::warn!(%url, "a token could not be introspected: {silence}");
            Flaw::Unavailable
        })?;
        let claims = claims.ok_or(Flaw::Inactive)?;
        let rules = &self.settings.rules;
        let expires = claims::check(&claims, rules, now)?;
        let until = now + self.settings.ttl.as_secs();
        let token = VerifiedToken {
            provider: Arc::clone(&self.provider),
            subject: claims::subject(&claims, &rules.subject_claims)?,
            expires,
            certificate: claims::certificate(&claims)?,
            claims,
        };
        Ok((
            token,
            Some(expires.map_or(until, |expires| until.min(expires))),
        ))
    }

    /// What the server says of an active token; `None` if it is not.
    async fn ask(&self, token: &str) -> Result<Option<Map<String, Value>>, Silence> {
        let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
        let inquiry = Inquiry {
            method: Method::POST,
            url: self.settings.url.clone(),
            headers: self.headers.clone(),
            body: Some(format!("token={token}&token_type_hint=access_token").into()),
        };
        let answer = self.fetcher.ask(inquiry).await?;
        if answer.status != StatusCode::OK {
            return Err(Silence::Status(answer.status));
        }
        let claims = json::object(&answer.body).map_err(|_| Silence::Document)?;
        match claims.get("active") {
            Some(Value::Bool(true)) => Ok(Some(claims)),
            Some(Value::Bool(false)) => Ok(None),
            Some(_) | None => Err(Silence::Document),
        }
    }
}

/// RFC 6749 §2.3.1: both sides encoded as in a form, then as RFC 7617 has it.
fn fields(settings: &IntrospectionSettings) -> HeaderMap {
    let id = utf8_percent_encode(&settings.client_id, NON_ALPHANUMERIC);
    let secret = utf8_percent_encode(settings.client_secret.expose(), NON_ALPHANUMERIC);
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let mut authorization =
        HeaderValue::try_from(basic).expect("Base64 is made of visible characters");
    authorization.set_sensitive(true);
    let field = |name, value| (HeaderName::from_static(name), value);
    HeaderMap::from_iter([
        field("authorization", authorization),
        field("accept", HeaderValue::from_static("application/json")),
        field(
            "content-type",
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        ),
    ])
}
