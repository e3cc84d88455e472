//! Documents from elsewhere by HTTPS, [`Fetcher::get`], and questions, [`Fetcher::ask`]: within a time
//! and a size, from the place that was asked and no other: a redirect is an error, and so is a proxy's
//! word from the environment.
//!
//! What a document says is for those who asked. How long it may be kept is read here
//! (RFC 9111 §5.2.2), since that stands in the answer's fields.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response as HttpResponse;
use reqwest::header::{AGE, CACHE_CONTROL};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response};
use thiserror::Error;

pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use reqwest::{Body, Method, StatusCode};

/// A place to fetch from, absolute.
pub use reqwest::Url;

/// How to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a whole exchange may take.
    pub timeout: Duration,
    /// Most bytes of a document.
    pub max_size: usize,
    /// PEM files of the authorities that servers' certificates may be of; the system's if none.
    pub ca: Vec<PathBuf>,
    /// Whether documents may come unencrypted.
    pub allow_http: bool,
    /// Most connections that are kept for the next time.
    pub idle_connections: usize,
    /// What is spoken.
    pub version: Version,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One exchange at a time on each connection.
    Http1,
    /// All on one, without TLS too.
    Http2,
}

/// A request.
#[derive(Debug)]
pub struct Inquiry {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The fields.
    pub headers: HeaderMap,
    /// The body, if there is one.
    pub body: Option<Bytes>,
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// All its bytes.
    pub body: Vec<u8>,
}

/// Why there can be no fetcher.
#[derive(Debug, Error)]
pub enum FetcherError {
    /// A file of authorities cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds no certificate.
    #[error("{path} is not a PEM file of certificates")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("cannot set up a client: {0}")]
    Client(#[source] reqwest::Error),
}

/// Why there is no document.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Neither `https`, nor `http` where that is allowed.
    #[error("{0} is not https")]
    Scheme(Url),
    /// No connection, no TLS, no answer in time.
    #[error("{}", story(.0))]
    Exchange(#[from] reqwest::Error),
    /// Another status than 200.
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    /// More bytes than are read.
    #[error("the document is longer than {0} bytes")]
    TooLarge(usize),
}

impl FetchError {
    fn without_url(self) -> Self {
        match self {
            Self::Exchange(error) => Self::Exchange(error.without_url()),
            Self::Scheme(_) | Self::Status(_) | Self::TooLarge(_) => self,
        }
    }
}

/// A document and how long it may be kept.
#[derive(Debug)]
pub struct Document {
    /// All its bytes.
    pub body: Vec<u8>,
    /// For how long it is fresh; `None` if the server does not say.
    pub fresh_for: Option<Duration>,
}

/// Fetches documents. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
    max_size: usize,
    allow_http: bool,
}

impl Fetcher {
    /// Reads the authorities.
    ///
    /// # Errors
    /// [`FetcherError`] if a file is of no use.
    pub fn new(settings: &Settings) -> Result<Self, FetcherError> {
        let builder = Client::builder()
            .timeout(settings.timeout)
            .redirect(Policy::none())
            .no_proxy()
            .https_only(!settings.allow_http)
            .pool_max_idle_per_host(settings.idle_connections)
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        let builder = match settings.version {
            Version::Http1 => builder.http1_only(),
            // A server that has vanished is noticed by those that wait for it, and not asked again.
            Version::Http2 => builder
                .http2_prior_knowledge()
                .http2_keep_alive_interval(settings.timeout)
                .http2_keep_alive_timeout(settings.timeout),
        };
        let builder = match settings.ca.as_slice() {
            [] => builder,
            files => builder.tls_certs_only(read_authorities(files)?),
        };
        Ok(Self {
            client: builder.build().map_err(FetcherError::Client)?,
            max_size: settings.max_size,
            allow_http: settings.allow_http,
        })
    }

    /// Most bytes of an answer.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Fetches the document at `url`. Dropping it half-way loses nothing.
    ///
    /// # Errors
    /// [`FetchError`] says why there is none.
    pub async fn get(&self, url: &Url) -> Result<Document, FetchError> {
        let inquiry = Inquiry {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: None,
        };
        let answer = self.send(inquiry).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let fresh_for = fresh_for(answer.headers());
        let body = self.read(answer).await?;
        Ok(Document { body, fresh_for })
    }

    /// Asks, and reads the whole answer. Dropping it half-way loses nothing.
    ///
    /// # Errors
    /// [`FetchError`] says why there is none, but not where it was asked for: clients have a say in
    /// that, and no log shall show it.
    pub async fn ask(&self, inquiry: Inquiry) -> Result<Answer, FetchError> {
        self.answer(inquiry).await.map_err(FetchError::without_url)
    }

    /// Asks, and leaves the answer to be read, whatever its size: still within the time.
    ///
    /// # Errors
    /// As of [`Self::ask`].
    pub async fn exchange(&self, inquiry: Inquiry) -> Result<HttpResponse<Body>, FetchError> {
        let answer = self.send(inquiry).await.map_err(FetchError::without_url)?;
        Ok(answer.into())
    }

    async fn answer(&self, inquiry: Inquiry) -> Result<Answer, FetchError> {
        let answer = self.send(inquiry).await?;
        Ok(Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: self.read(answer).await?,
        })
    }

    async fn send(&self, inquiry: Inquiry) -> Result<Response, FetchError> {
        let Inquiry {
            method,
            url,
            headers,
            body,
        } = inquiry;
        let is_allowed = url.scheme() == "https" || (self.allow_http && url.scheme() == "http");
        if !is_allowed {
            return Err(FetchError::Scheme(url));
        }
        let mut request = self.client.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        Ok(request.send().await?)
    }

    async fn read(&self, mut answer: Response) -> Result<Vec<u8>, FetchError> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > self.max_size {
                return Err(FetchError::TooLarge(self.max_size));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn read_authorities(files: &[PathBuf]) -> Result<Vec<Certificate>, FetcherError> {
    let mut all = Vec::new();
    for path in files {
        let pem = std::fs::read(path).map_err(|source| FetcherError::Unreadable {
            path: path.clone(),
            source,
        })?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(found) if !found.is_empty() => all.extend(found),
            Ok(_) | Err(_) => return Err(FetcherError::NoCertificate { path: path.clone() }),
        }
    }
    Ok(all)
}

/// RFC 9111 §4.2.1: `max-age`, less the time that the document has spent in caches before.
fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let directives: Vec<String> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives
        .iter()
        .any(|directive| directive == "no-store" || directive == "no-cache")
    {
        return Some(Duration::ZERO);
    }
    let max_age = directives
        .iter()
        .find_map(|directive| directive.strip_prefix("max-age="))?;
    let max_age: u64 = max_age.trim_matches('"').parse().ok()?;
    let age = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok()?.parse().ok());
    Some(Duration::from_secs(
        max_age.saturating_sub(age.unwrap_or(0)),
    ))
}

/// The error with its causes: by itself reqwest says no more than that it failed.
fn story(error: &reqwest::Error) -> String {
    let mut story = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        story = format!("{story}: {error}");
        cause = error.source();
    }
    story
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn freshness_is_read_as_caches_read_it() {
        for (control, age, expected) in [
            ("max-age=60", None, Some(60)),
            (
                "public, Max-Age=\"60\", stale-while-revalidate=5",
                None,
                Some(60),
            ),
            ("max-age=60", Some("20"), Some(40)),
            ("max-age=60", Some("90"), Some(0)),
            ("no-cache, max-age=60", None, Some(0)),
            ("no-store", None, Some(0)),
            ("private", None, None),
            ("max-age=many", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            if let Some(age) = age {
                headers.insert(AGE, HeaderValue::from_static(age));
            }
            assert_eq!(
                fresh_for(&headers),
                expected.map(Duration::from_secs),
                "{control}"
            );
        }
        assert_eq!(fresh_for(&HeaderMap::new()), None);
    }
}
