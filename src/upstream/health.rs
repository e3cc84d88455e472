//! Servers are asked whether they are well, by the gateway itself and beside all requests.

use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::connect::{Link, Spoken, connect};
use super::group::Group;
use super::server::Server;
use super::{HttpVersion, lacks_descriptor};
use crate::tls::Initiator;

/// How servers are asked, and what their answers mean.
#[derive(Debug, Clone)]
pub struct HealthSettings {
    /// What they are asked.
    pub probe: Probe,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// After how many good answers in a row a server is back in service.
    pub rise: u32,
    /// After how many bad ones it is out of it.
    pub fall: u32,
}

/// What servers are asked.
#[derive(Debug, Clone)]
pub enum Probe {
    /// To accept a connection, with TLS where that is spoken.
    Connect,
    /// To answer a GET.
    Http {
        /// For this path.
        path: PathAndQuery,
        /// Of this host; of the server's own name if left out.
        host: Option<HeaderValue>,
        /// With one of these.
        statuses: Vec<RangeInclusive<u16>>,
    },
    /// To say what a protocol says that other rooms know.
    Dialogue(Dialogue),
}

impl Probe {
    /// What the connection is opened for, to servers of this `version` of HTTP. Whether brokers or servers of
    /// HTTP/1.1 are to accept a connection and no more is not known: some refuse one for the other's protocol
    /// (RFC 7301 §3.2), and none that names no protocol.
    fn spoken(&self, version: HttpVersion) -> Spoken {
        match self {
            Self::Dialogue(dialogue) if dialogue.inside.is_none() => Spoken::Mqtt,
            Self::Dialogue(_) => Spoken::Http1,
            Self::Connect if version == HttpVersion::Http1 => Spoken::Nothing,
            Self::Connect | Self::Http { .. } => match version {
                HttpVersion::Http1 => Spoken::Http1,
                HttpVersion::Http2 => Spoken::Http2,
            },
        }
    }
}

/// A question in MQTT or the like, and what its answer means.
#[derive(Debug, Clone)]
pub struct Dialogue {
    /// What is sent.
    pub question: Vec<u8>,
    /// What the bytes answered so far mean; `None` if there must be more of them.
    pub judge: fn(&[u8]) -> Option<bool>,
    /// What is sent at the end, so that the server need not wonder.
    pub farewell: &'static [u8],
    /// Inside of what all this is said; `None` if it is on the connection itself.
    pub inside: Option<Inside>,
}

/// A tunnel that begins in HTTP/1.1 and that other rooms know how to open.
#[derive(Debug, Clone)]
pub struct Inside {
    /// What is asked for.
    pub path: PathAndQuery,
    /// Asks for it, and for this host, on a connection to a server.
    pub open: fn(Link, HeaderValue, PathAndQuery) -> Opening,
}

/// What comes of it.
pub type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Tunnel>>> + Send>>;

/// Bytes both ways.
pub trait Tunnel: AsyncRead + AsyncWrite + Unpin + Send {}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Tunnel for IO {}

/// Why a server is not well.
#[derive(Debug, Error)]
pub(super) enum Ailment {
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answers with {0}")]
    Status(StatusCode),
    #[error("it answers that it is not available")]
    Unavailable,
    #[error("no answer in time")]
    Silent,
}

/// What the answers of one server have been.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse {
    is_down: bool,
    /// Answers in a row that speak against the present state.
    against: u32,
}

impl Pulse {
    pub(super) fn is_down(&self) -> bool {
        self.is_down
    }

    /// Notes an answer, and says whether it has changed the state.
    pub(super) fn note(&mut self, is_well: bool, rules: &HealthSettings) -> bool {
        if is_well != self.is_down {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if self.is_down { rules.rise } else { rules.fall };
        let changed = self.against >= needed;
        if changed {
            *self = Self {
                is_down: !self.is_down,
                against: 0,
            };
        }
        changed
    }
}

impl Group {
    /// Asks every server again and again, for as long as the group is in force. One that takes its
    /// time keeps no other waiting, and is asked again when it is done.
    pub(super) async fn keep_asking(
        self: Arc<Self>,
        rules: HealthSettings,
        tls: Option<Arc<Initiator>>,
    ) {
        let mut pace = tokio::time::interval(rules.interval);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Aborted with this task.
        let mut questions = JoinSet::new();
        let mut asked: Vec<(Arc<Server>, AbortHandle)> = Vec::new();
        loop {
            pace.tick().await;
            while questions.try_join_next().is_some() {}
            asked.retain(|(_, question)| !question.is_finished());
            for server in self.servers() {
                if asked.iter().any(|(busy, _)| Arc::ptr_eq(busy, &server)) {
                    continue;
                }
                let (group, rules, tls) = (Arc::clone(&self), rules.clone(), tls.clone());
                let question = group.ask_once(Arc::clone(&server), rules, tls);
                asked.push((server, questions.spawn(question)));
            }
        }
    }

    async fn ask_once(
        self: Arc<Self>,
        server: Arc<Server>,
        rules: HealthSettings,
        tls: Option<Arc<Initiator>>,
    ) {
        let asked = self.ask(&server, &rules.probe, tls.as_deref());
        let answer = tokio::time::timeout(rules.timeout, asked).await;
        let answer = answer.unwrap_or(Err(Ailment::Silent));
        // That the gateway lacks a descriptor for it says nothing of the server.
        if !matches!(&answer, Err(Ailment::Broken(error)) if lacks_descriptor(error)) {
            self.heard(&server, answer, &rules);
        }
    }

    async fn ask(
        &self,
        server: &Server,
        probe: &Probe,
        tls: Option<&Initiator>,
    ) -> Result<(), Ailment> {
        let version = self.settings.http;
        let spoken = probe.spoken(version);
        let mut link = connect(&self.settings, tls, server, spoken, None).await?;
        match probe {
            Probe::Connect => Ok(link.shutdown().await?),
            Probe::Http {
                path,
                host,
                statuses,
            } => {
                let host = host.clone().map_or_else(|| own_host(server), Ok)?;
                let status = match version {
                    HttpVersion::Http1 => get(link, path, host).await?,
                    HttpVersion::Http2 => {
                        let scheme = tls.map_or(Scheme::HTTP, |_| Scheme::HTTPS);
                        get_by_http2(link, scheme, path, host).await?
                    }
                };
                let is_expected = |range: &RangeInclusive<u16>| range.contains(&status.as_u16());
                let is_well = statuses.iter().any(is_expected);
                is_well.then_some(()).ok_or(Ailment::Status(status))
            }
            Probe::Dialogue(dialogue) => match &dialogue.inside {
                None => converse(link, dialogue).await,
                Some(Inside { path, open }) => {
                    let host = self.settings.host.of_gateway(server, tls.is_some())?;
                    converse(open(link, host, path.clone()).await?, dialogue).await
                }
            },
        }
    }
}

fn own_host(server: &Server) -> io::Result<HeaderValue> {
    HeaderValue::from_str(server.name()).map_err(io::Error::other)
}

async fn get(link: Link, path: &PathAndQuery, host: HeaderValue) -> Result<StatusCode, Ailment> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(link)).await?;
    // Aborted with the end of the question, whatever the server does.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = question(path.clone().into());
    let fields = request.headers_mut();
    fields.insert(HOST, host);
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(sender.send_request(request).await?.status())
}

async fn get_by_http2(
    link: Link,
    scheme: Scheme,
    path: &PathAndQuery,
    host: HeaderValue,
) -> Result<StatusCode, Ailment> {
    let io = TokioIo::new(link);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let target = Uri::builder()
        .scheme(scheme)
        .authority(host.as_bytes())
        .path_and_query(path.clone());
    let request = question(target.build().map_err(io::Error::other)?);
    Ok(sender.send_request(request).await?.status())
}

fn question(target: Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target;
    let agent = HeaderValue::from_static("portcullis");
    request.headers_mut().insert(USER_AGENT, agent);
    request
}

async fn converse(mut link: impl Tunnel, dialogue: &Dialogue) -> Result<(), Ailment> {
    /// No answer that is asked for here is longer.
    const MOST: usize = 1024;
    link.write_all(&dialogue.question).await?;
    link.flush().await?;
    let mut answer = Vec::with_capacity(64);
    let is_well = loop {
        if let Some(verdict) = (dialogue.judge)(&answer) {
            break verdict;
        }
        if answer.len() >= MOST || link.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    // The verdict stands, whether the farewell arrives or not.
    let _ = link.write_all(dialogue.farewell).await;
    let _ = link.shutdown().await;
    is_well.then_some(()).ok_or(Ailment::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_answers_in_a_row_to_change_a_state() {
        let rules = HealthSettings {
            probe: Probe::Connect,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        let mut pulse = Pulse::default();
        let answers = [
            (false, false),
            (false, false),
            (true, false),
            (false, false),
            (false, false),
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (true, true),
            (true, false),
            (true, false),
        ];
        for (step, (is_well, expected)) in answers.into_iter().enumerate() {
            let before = pulse.is_down();
            let changed = pulse.note(is_well, &rules);
            assert_eq!(pulse.is_down(), expected, "{step}");
            assert_eq!(changed, before != expected, "{step}");
        }
    }
}
