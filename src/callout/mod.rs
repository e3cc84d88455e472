//! Call-outs: another service says whether a client may pass. [`Callout::decide`] asks it by HTTP,
//! and remembers what it has said for as long as the question is the same, word for word.
//!
//! What a yes or a no means for a request is for [`crate::access`]. A service that does not answer
//! as it should has decided nothing: that is neither.

mod template;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;
use thiserror::Error;

pub use template::{Template, TemplateError};

use crate::fetch::{
    self, Answer, FetchError, Fetcher, FetcherError, HeaderMap, HeaderName, HeaderValue, Inquiry,
    Method, StatusCode, Url,
};
use crate::secret::Secret;

/// How a service is asked, and how its answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// The method.
    pub method: Method,
    /// The fields.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body; none if absent.
    pub body: Option<Template>,
    /// Statuses that may mean yes.
    pub allow_status: Vec<u16>,
    /// The member of a JSON answer that must be true; none if the status says it all.
    pub allow_field: Option<String>,
    /// Fields of the answer that the upstream gets.
    pub forward: Vec<HeaderName>,
    /// The member of a JSON answer that names the client, and the field in which the upstream gets it.
    pub identity: Option<(String, HeaderName)>,
    /// Lets clients pass when the service does not answer.
    pub allow_on_failure: bool,
    /// How much is remembered, and for how long.
    pub memory: Memory,
    /// How to ask.
    pub fetch: fetch::Settings,
}

impl Settings {
    /// The fields in which upstreams are told what the service says.
    pub fn upstream_fields(&self) -> impl Iterator<Item = &HeaderName> {
        let identity = self.identity.iter().map(|(_, name)| name);
        self.forward.iter().chain(identity)
    }
}

/// How much is remembered, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Most clients that may pass.
    pub entries: u64,
    /// How long one is remembered.
    pub ttl: Duration,
    /// Most clients that may not.
    pub refused_entries: u64,
    /// How long one is remembered.
    pub refused_ttl: Duration,
}

/// What can be asked about a client.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The client secret.
    pub secret: &'a Secret,
    /// The client identifier of MQTT, or nothing.
    pub client_id: &'a str,
    /// The user name of MQTT, or nothing.
    pub user_name: &'a str,
    /// What the client speaks: `HTTP` or `MQTT`.
    pub protocol: &'static str,
    /// Its certificate's SHA-256, or nothing.
    pub fingerprint: &'a str,
    /// Where it is.
    pub remote: IpAddr,
}

/// What the service says of a client that may pass: fields for the upstream.
#[derive(Debug, Default)]
pub struct Grant {
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Grant {
    /// What the upstream is told.
    #[must_use]
    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fields
    }
}

/// Why a client may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Objection {
    /// The service says no.
    #[error("the call-out refuses the client")]
    Refused,
    /// The service has not decided.
    #[error("the call-out has not decided")]
    Undecided,
}

/// Why there is no decision. For the log.
#[derive(Debug, Error)]
enum Silence {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("its answer's status is {0}")]
    Status(StatusCode),
    #[error("its answer has no member \"{0}\" that is true or false")]
    Field(String),
    #[error("the client's secret fits no header field")]
    Unspeakable,
}

/// SHA-256 of everything that a service is told.
type Digest = [u8; 32];

/// One service.
#[derive(Debug)]
pub struct Callout {
    settings: Settings,
    fetcher: Fetcher,
    granted: moka::future::Cache<Digest, Arc<Grant>>,
    refused: moka::future::Cache<Digest, ()>,
}

impl Callout {
    /// A service that has been asked nothing yet.
    ///
    /// # Errors
    /// [`FetcherError`] if its authorities cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, FetcherError> {
        let memory = settings.memory;
        Ok(Self {
            fetcher: Fetcher::new(&settings.fetch)?,
            settings: settings.clone(),
            granted: moka::future::Cache::builder()
                .max_capacity(memory.entries)
                .time_to_live(memory.ttl)
                .build(),
            refused: moka::future::Cache::builder()
                .max_capacity(memory.refused_entries)
                .time_to_live(memory.refused_ttl)
                .build(),
        })
    }

    /// Whether it was made of these settings.
    #[must_use]
    pub fn is_of(&self, settings: &Settings) -> bool {
        self.settings == *settings
    }

    /// What the service says of the client: once, however many ask the same at the same time.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Objection`] if it does not say yes.
    pub async fn decide(&self, question: &Question<'_>) -> Result<Arc<Grant>, Objection> {
        let Some(inquiry) = self.inquiry(question) else {
            tracing::info!("{}", Silence::Unspeakable);
            return Err(Objection::Refused);
        };
        let digest = digest(&inquiry);
        if let Some(grant) = self.granted.get(&digest).await {
            return Ok(grant);
        }
        if self.refused.get(&digest).await.is_some() {
            return Err(Objection::Refused);
        }
        let found = self.granted.try_get_with(digest, self.ask(inquiry)).await;
        match found.map_err(|objection| *objection) {
            Err(Objection::Refused) => {
                self.refused.insert(digest, ()).await;
                Err(Objection::Refused)
            }
            // Not remembered: the next one asks again.
            Err(Objection::Undecided) if self.settings.allow_on_failure => Ok(Arc::default()),
            outcome => outcome,
        }
    }

    /// Everything that the service is told; `None` if a value fits no field.
    fn inquiry(&self, question: &Question<'_>) -> Option<Inquiry> {
        let mut headers = HeaderMap::new();
        for (name, template) in &self.settings.headers {
            let mut value = HeaderValue::try_from(template.plain(question)).ok()?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let body = self.settings.body.as_ref();
        Some(Inquiry {
            method: self.settings.method.clone(),
            url: self.settings.url.clone(),
            headers,
            body: body.map(|template| template.json(question)),
        })
    }

    async fn ask(&self, inquiry: Inquiry) -> Result<Arc<Grant>, Objection> {
        let answer = self.fetcher.ask(inquiry).await.map_err(Silence::from);
        match answer.and_then(|answer| self.read(&answer)) {
            Ok(Some(grant)) => Ok(Arc::new(grant)),
            Ok(None) => Err(Objection::Refused),
            Err(silence) => {
                let callout = &self.settings.name;
                tracing::warn!(callout, "a call-out has not decided: {silence}");
                Err(Objection::Undecided)
            }
        }
    }

    /// The grant, or `None` for a no. A redirect or a failure is neither.
    fn read(&self, answer: &Answer) -> Result<Option<Grant>, Silence> {
        let status = answer.status;
        let allows = self.settings.allow_status.contains(&status.as_u16());
        match status {
            _ if allows => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            _ => return Err(Silence::Status(status)),
        }
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(name) = &self.settings.allow_field {
            match document.get(name) {
                Some(Value::Bool(true)) => {}
                Some(Value::Bool(false)) => return Ok(None),
                // protobuf's JSON leaves out what is false.
                None if document.is_object() => return Ok(None),
                Some(_) | None => return Err(Silence::Field(name.clone())),
            }
        }
        Ok(Some(self.grant(answer, &document)))
    }

    fn grant(&self, answer: &Answer, document: &Value) -> Grant {
        let mut fields = Vec::new();
        for name in &self.settings.forward {
            let values = answer.headers.get_all(name).iter();
            fields.extend(values.map(|value| (name.clone(), value.clone())));
        }
        if let Some((member, name)) = &self.settings.identity
            && let Some(Value::String(identity)) = document.get(member)
            && let Ok(value) = HeaderValue::try_from(identity)
        {
            fields.push((name.clone(), value));
        }
        Grant { fields }
    }
}

/// Every part with its length before it, so that no two inquiries are one text.
fn digest(inquiry: &Inquiry) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    };
    for (name, value) in &inquiry.headers {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    add(inquiry.body.as_deref().unwrap_or_default().as_bytes());
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
