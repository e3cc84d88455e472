//! Opaque tokens of an authorization server, which is asked what they are (RFC 7662), and tokens that
//! hold, but that their issuer may have taken back.
//!
//! What it says is remembered as what a signature says is, but never for longer than a set time: a
//! token that the server revokes is accepted for so long at most. A server that does not answer
//! leaves those outside whom it has not just vouched for.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use thiserror::Error;

use super::claims;
use super::flaw::Flaw;
use super::json;
use super::jwt;
use super::provider::Rules;
use super::verified::VerifiedToken;
use crate::fetch::{
    self, FetchError, Fetcher, FetcherError, HeaderMap, HeaderValue, Inquiry, Method, StatusCode,
    Url,
};
use crate::secret::Secret;

/// What verified tokens say of who vouches for them.
const PROVIDER: &str = "introspection";

/// Whom to ask, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionSettings {
    /// The endpoint.
    pub url: Url,
    /// Who asks.
    pub asker: Asker,
    /// What opaque tokens begin with, in places that could hold a client secret too; if none, they may
    /// begin with anything, but are not told from secrets.
    pub prefixes: Vec<String>,
    /// How long an answer counts.
    pub ttl: Duration,
    /// How often to ask about the tokens of those who stay.
    pub recheck: Duration,
    /// What tokens must keep beside being active.
    pub rules: Rules,
    /// How to ask.
    pub fetch: fetch::Settings,
}

/// Who asks what a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// The gateway, in a form (RFC 7662).
    Gateway {
        /// What it is called there.
        client_id: String,
        /// What it proves that by.
        client_secret: Secret,
    },
    /// Whoever presents the token, as the server sees it: Atom says only to a token itself what it
    /// is, and 401 to one that is nothing.
    Bearer,
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
            headers: fields(&settings.asker),
            settings: settings.clone(),
            provider: PROVIDER.into(),
        })
    }

    /// How often to ask about the tokens of those who stay.
    pub(super) fn recheck(&self) -> Duration {
        self.settings.recheck
    }

    /// Whether `text` begins as opaque tokens do, and secrets do not.
    pub(super) fn recognises(&self, text: &str) -> bool {
        let mut prefixes = self.settings.prefixes.iter();
        prefixes.any(|prefix| text.starts_with(prefix))
    }

    /// Whether the server is to be shown `token`, which some client presents as one.
    pub(super) fn takes(&self, token: &str) -> bool {
        match self.settings.prefixes.as_slice() {
            [] => !jwt::is_plausible(token),
            _ => self.recognises(token),
        }
    }

    /// The token, and the first second at which it must be asked about again.
    pub(super) async fn verify(
        &self,
        token: &str,
        now: u64,
    ) -> Result<(VerifiedToken, Option<u64>), Flaw> {
        let claims = self.active(token).await?;
        let rules = &self.settings.rules;
        let expires = claims::check(&claims, rules, now)?;
        let until = self.until(expires, now);
        let token = VerifiedToken {
            provider: Arc::clone(&self.provider),
            subject: claims::subject(&claims, &rules.subject_claims)?,
            expires,
            certificate: claims::certificate(&claims)?,
            claims,
            recheck: Some(self.recheck()),
        };
        Ok((token, Some(until)))
    }

    /// The first second at which the server must be asked again about `verified`, which holds by
    /// itself and for which `token` stands, if it has not been taken back meanwhile.
    pub(super) async fn confirm(
        &self,
        token: &str,
        verified: &VerifiedToken,
        now: u64,
    ) -> Result<u64, Flaw> {
        let claims = self.active(token).await?;
        let rules = &self.settings.rules;
        let expires = claims::check(&claims, rules, now)?;
        // The server may name nobody, but nobody else.
        match claims::subject(&claims, &rules.subject_claims)? {
            Some(subject) if verified.subject() != Some(&subject) => Err(Flaw::Inactive),
            Some(_) | None => Ok(self.until(expires, now)),
        }
    }

    fn until(&self, expires: Option<u64>, now: u64) -> u64 {
        let until = now + self.settings.ttl.as_secs();
        expires.map_or(until, |expires| until.min(expires))
    }

    /// What the server says of a token, if it is active.
    async fn active(&self, token: &str) -> Result<Map<String, Value>, Flaw> {
        let claims = self.ask(token).await.map_err(|silence| {
            let url = &self.settings.url;
            tracing::warn!(%url, "a token could not be introspected: {silence}");
            Flaw::Unavailable
        })?;
        claims.ok_or(Flaw::Inactive)
    }

    /// The question; `None` if the token fits none.
    fn inquiry(&self, token: &str) -> Option<Inquiry> {
        let mut inquiry = Inquiry {
            method: Method::POST,
            url: self.settings.url.clone(),
            headers: self.headers.clone(),
            body: None,
        };
        match self.settings.asker {
            Asker::Gateway { .. } => {
                let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
                let form = format!("token={token}&token_type_hint=access_token");
                inquiry.body = Some(form.into());
            }
            Asker::Bearer => {
                let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
                bearer.set_sensitive(true);
                inquiry.headers.insert(AUTHORIZATION, bearer);
                inquiry.method = Method::GET;
            }
        }
        Some(inquiry)
    }

    /// What the server says of an active token; `None` if it is not.
    async fn ask(&self, token: &str) -> Result<Option<Map<String, Value>>, Silence> {
        let Some(inquiry) = self.inquiry(token) else {
            return Ok(None);
        };
        let answer = self.fetcher.ask(inquiry).await?;
        match (answer.status, &self.settings.asker) {
            (StatusCode::OK, _) => {}
            // The gateway's own credential has been accepted nowhere: that is no word on the token.
            (StatusCode::UNAUTHORIZED, Asker::Bearer) => return Ok(None),
            (status, _) => return Err(Silence::Status(status)),
        }
        let claims = json::object(&answer.body).map_err(|_| Silence::Document)?;
        match claims.get("active") {
            Some(Value::Bool(true)) => Ok(Some(claims)),
            Some(Value::Bool(false)) => Ok(None),
            Some(_) | None => Err(Silence::Document),
        }
    }
}

/// The fields that are the same in every question.
fn fields(asker: &Asker) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Asker::Gateway {
        client_id,
        client_secret,
    } = asker
    {
        fields.insert(AUTHORIZATION, basic(client_id, client_secret));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        fields.insert(CONTENT_TYPE, form);
    }
    fields
}

/// RFC 6749 §2.3.1: both sides encoded as in a form, then as RFC 7617 has it.
fn basic(client_id: &str, client_secret: &Secret) -> HeaderValue {
    let id = utf8_percent_encode(client_id, NON_ALPHANUMERIC);
    let secret = utf8_percent_encode(client_secret.expose(), NON_ALPHANUMERIC);
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let mut value = HeaderValue::try_from(basic).expect("Base64 is made of visible characters");
    value.set_sensitive(true);
    value
}
