//! Call-outs: another service says whether a client, or a request, may pass. [`Callout::decide`] asks
//! it by HTTP, and remembers what it has said for as long as everything that it was told is the same.
//!
//! What a yes or a no means for a request is for [`crate::access`]. A service that does not answer
//! as it should has decided nothing: that is neither.

mod address;
mod question;
mod template;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;
use thiserror::Error;

pub use address::{Address, AddressError};
pub use question::{Question, Request};
pub use template::{Field, Template, TemplateError};

use template::Values;

use crate::fetch::{
    self, Answer, FetchError, Fetcher, FetcherError, HeaderMap, HeaderName, HeaderValue, Inquiry,
    Method, StatusCode,
};

/// How a service is asked, and how its answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// Where it is.
    pub url: Address,
    /// The method.
    pub method: AskedBy,
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

/// The method of questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedBy {
    /// This one.
    Method(Method),
    /// That of the request which is asked about.
    TheSame,
}

impl Settings {
    /// Everything that the service is told, some of it more than once.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        let method = match self.method {
            AskedBy::Method(_) => None,
            AskedBy::TheSame => Some(&Field::Method),
        };
        let headers = self.headers.iter().map(|(_, template)| template);
        let templates = headers.chain(&self.body).flat_map(Template::fields);
        templates.chain(self.url.fields()).chain(method)
    }

    /// Whether it tells the client secret, so that it is about clients and nobody else.
    #[must_use]
    pub fn is_about_clients(&self) -> bool {
        self.fields().any(|field| *field == Field::Secret)
    }

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
    /// The service, which was told the client's secret, says no.
    #[error("the call-out refuses the client")]
    Refused,
    /// The service says no to the request.
    #[error("the call-out refuses the request")]
    Forbidden,
    /// What the service would be told can be read in two ways.
    #[error("what the call-out judges by is ambiguous")]
    Ambiguous,
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
}

/// SHA-256 of everything that a service judges by.
type Digest = [u8; 32];

/// One service.
#[derive(Debug)]
pub struct Callout {
    settings: Settings,
    /// What it is told, each once.
    fields: Vec<Field>,
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
            fields: each_once(settings.fields()),
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

    /// Whether it is about clients that are known by a secret, and nobody else.
    #[must_use]
    pub fn is_about_clients(&self) -> bool {
        self.fields.contains(&Field::Secret)
    }

    /// Whether it is told the user name.
    #[must_use]
    pub fn tells_user_name(&self) -> bool {
        self.fields.contains(&Field::UserName)
    }

    /// What the service says: once, however many ask the same at the same time. Cancel-safe.
    ///
    /// # Errors
    /// [`Objection`] if it does not say yes.
    pub async fn decide(&self, question: &Question<'_>) -> Result<Arc<Grant>, Objection> {
        let values = Values::of(&self.fields, question).map_err(|_| Objection::Ambiguous)?;
        let digest = digest(&values);
        if let Some(grant) = self.granted.get(&digest).await {
            return Ok(grant);
        }
        if self.refused.get(&digest).await.is_some() {
            return Err(self.no());
        }
        let found = self.granted.try_get_with(digest, self.ask(&values)).await;
        match found.map_err(|objection| *objection) {
            Err(Objection::Refused | Objection::Forbidden) => {
                self.refused.insert(digest, ()).await;
                Err(self.no())
            }
            // Not remembered: the next one asks again.
            Err(Objection::Undecided) if self.settings.allow_on_failure => Ok(Arc::default()),
            outcome => outcome,
        }
    }

    fn no(&self) -> Objection {
        if self.is_about_clients() {
            Objection::Refused
        } else {
            Objection::Forbidden
        }
    }

    async fn ask(&self, values: &Values<'_>) -> Result<Arc<Grant>, Objection> {
        let Some(inquiry) = self.inquiry(values) else {
            tracing::info!(
                callout = self.settings.name,
                "what a client says cannot be put into a question"
            );
            return Err(self.no());
        };
        let answer = self.fetcher.ask(inquiry).await.map_err(Silence::from);
        match answer.and_then(|answer| self.read(&answer)) {
            Ok(Some(grant)) => Ok(Arc::new(grant)),
            Ok(None) => Err(self.no()),
            Err(silence) => {
                let callout = &self.settings.name;
                tracing::warn!(callout, "a call-out has not decided: {silence}");
                Err(Objection::Undecided)
            }
        }
    }

    /// Everything that the service is told; `None` if a value fits no field or URL.
    fn inquiry(&self, values: &Values<'_>) -> Option<Inquiry> {
        let mut headers = HeaderMap::new();
        for (name, template) in &self.settings.headers {
            let Some(text) = template.plain(values) else {
                continue;
            };
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let method = match &self.settings.method {
            AskedBy::Method(method) => method.clone(),
            AskedBy::TheSame => values.get(&Field::Method)?.parse().ok()?,
        };
        let body = self.settings.body.as_ref();
        Some(Inquiry {
            method,
            url: self.settings.url.url(values)?,
            headers,
            body: body.map(|template| template.json(values)),
        })
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

fn each_once<'a>(fields: impl Iterator<Item = &'a Field>) -> Vec<Field> {
    let mut each = Vec::new();
    for field in fields {
        if !each.contains(field) {
            each.push(field.clone());
        }
    }
    each
}

/// Every value with its length before it, so that no two questions are one text. An id that is
/// another for each request is for the service's log, and decides nothing.
fn digest(values: &Values<'_>) -> Digest {
    let mut context = Context::new(&SHA256);
    for (field, value) in values.iter() {
        if *field == Field::RequestId {
            continue;
        }
        let length = value.map_or(u64::MAX, |value| value.len() as u64);
        context.update(&length.to_be_bytes());
        context.update(value.unwrap_or_default().as_bytes());
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
