//! Call-outs: another service says whether a client, or a request, may pass. [`Callout::decide`] asks
//! it by HTTP or gRPC, and remembers what it has said for as long as everything that it was told is the same.
//!
//! What a yes or a no means for a request is for [`crate::access`]. A service that does not answer
//! as it should has decided nothing: that is neither.

mod address;
mod grpc;
mod http;
mod question;
mod template;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

pub use address::{Address, AddressError};
pub use grpc::{GrpcQuestion, Service};
pub use http::{AskedBy, HttpQuestion};
pub use question::{Question, Request};
pub use template::{Field, Template, TemplateError};

use template::Values;

use crate::fetch::{self, FetchError, Fetcher, FetcherError, HeaderName, HeaderValue, StatusCode};
use crate::telemetry::CalloutMetrics;

/// A service, and what becomes of what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration and the logs.
    pub name: String,
    /// How it is asked.
    pub ask: Ask,
    /// The field in which the upstream gets the client's name, if the service says it.
    pub id_header: Option<HeaderName>,
    /// Lets clients pass when the service does not answer.
    pub allow_on_failure: bool,
    /// How much is remembered, and for how long.
    pub memory: Memory,
    /// How to reach it.
    pub fetch: fetch::Settings,
}

/// How a service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// By HTTP.
    Http(Box<HttpQuestion>),
    /// By gRPC.
    Grpc(GrpcQuestion),
}

impl Settings {
    /// Everything that the service is told, some of it more than once.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        let (http, grpc) = match &self.ask {
            Ask::Http(question) => (Some(question.fields()), None),
            Ask::Grpc(question) => (None, Some(question.fields())),
        };
        let http = http.into_iter().flatten();
        http.chain(grpc.into_iter().flatten())
    }

    /// Whether it tells the client secret, so that it is about clients and nobody else.
    #[must_use]
    pub fn is_about_clients(&self) -> bool {
        self.fields().any(|field| *field == Field::Secret)
    }

    /// Whether it can be reached by `http`, without TLS.
    #[must_use]
    pub fn is_unencrypted(&self) -> bool {
        let scheme = match &self.ask {
            Ask::Http(question) => question.url.scheme(),
            Ask::Grpc(question) => question.url.scheme(),
        };
        scheme == "http"
    }

    /// The fields in which upstreams are told what the service says.
    pub fn upstream_fields(&self) -> impl Iterator<Item = &HeaderName> {
        let forward = match &self.ask {
            Ask::Http(question) => question.forward.as_slice(),
            Ask::Grpc(_) => &[],
        };
        forward.iter().chain(&self.id_header)
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

/// What the service says of a client that may pass, or nothing, if clients may pass without its word.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Grant {
    fields: Vec<(HeaderName, HeaderValue)>,
    client_id: Option<String>,
    is_confirmed: bool,
}

impl Grant {
    /// A yes, with nothing to tell yet.
    fn confirmed() -> Self {
        Self {
            is_confirmed: true,
            ..Self::default()
        }
    }

    /// Names the client, if that is a name which fits a field.
    fn identify(&mut self, id: &str, header: Option<&HeaderName>) {
        if let Some(header) = header
            && let Ok(value) = HeaderValue::try_from(id)
            && !id.is_empty()
        {
            self.fields.push((header.clone(), value));
            self.client_id = Some(id.to_owned());
        }
    }

    /// What the upstream is told.
    #[must_use]
    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fields
    }

    /// Whether the service has said yes, rather than nothing.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// The client, as the service names it.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
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
    #[error("{0}")]
    Grpc(String),
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
    metrics: CalloutMetrics,
    granted: moka::future::Cache<Digest, Arc<Grant>>,
    refused: moka::future::Cache<Digest, ()>,
}

impl Callout {
    /// A service that has been asked nothing yet.
    ///
    /// # Errors
    /// [`FetcherError`] if its authorities cannot be read.
    pub fn new(settings: &Settings, metrics: CalloutMetrics) -> Result<Self, FetcherError> {
        let memory = settings.memory;
        Ok(Self {
            fetcher: Fetcher::new(&settings.fetch)?,
            metrics,
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

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
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
            self.metrics.hits.inc();
            return Ok(grant);
        }
        if self.refused.get(&digest).await.is_some() {
            self.metrics.refused_hits.inc();
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
        let id_header = self.settings.id_header.as_ref();
        let answer = match &self.settings.ask {
            Ask::Http(question) => self.ask_by_http(question, values).await,
            Ask::Grpc(question) => question.ask(&self.fetcher, values, id_header).await,
        };
        match answer {
            Ok(Some(grant)) => {
                self.metrics.allowed.inc();
                Ok(Arc::new(grant))
            }
            Ok(None) => {
                self.metrics.refused.inc();
                Err(self.no())
            }
            Err(silence) => {
                self.metrics.undecided.inc();
                let callout = &self.settings.name;
                tracing::warn!(callout, "a call-out has not decided: {silence}");
                Err(Objection::Undecided)
            }
        }
    }

    async fn ask_by_http(
        &self,
        question: &HttpQuestion,
        values: &Values<'_>,
    ) -> Result<Option<Grant>, Silence> {
        // What cannot be said is no secret that the service knows.
        let Some(inquiry) = question.inquiry(values) else {
            return Ok(None);
        };
        let answer = self.fetcher.ask(inquiry).await?;
        question.read(&answer, self.settings.id_header.as_ref())
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
