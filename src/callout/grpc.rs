//! Services of platforms that are asked by gRPC, in words of their own.
//!
//! tonic speaks it over the connections of [`crate::fetch`]. The few messages are written out here,
//! so that nobody who builds this needs a compiler for them.

use std::error::Error;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, Uri};
use prost::Message;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::template::{Field, Values};
use super::{Grant, Silence};
use crate::fetch::{self, Fetcher, HeaderName, Inquiry, Url};

/// A service, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcQuestion {
    /// Where it is; a path in it goes before the service's own.
    pub url: Url,
    /// What it is.
    pub service: Service,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The clients of `SuperMQ`: `clients.v1.ClientsService/Authenticate`.
    ClientsV1,
    /// What brokers ask: `broker.auth.v1.AuthService/Authenticate`.
    BrokerAuthV1,
}

#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
struct ClientsQuestion {
    #[prost(string, tag = "1")]
    token: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
struct BrokerQuestion {
    #[prost(string, tag = "1")]
    client_id: String,
    #[prost(string, tag = "2")]
    username: String,
    #[prost(string, tag = "3")]
    password: String,
    #[prost(int32, tag = "4")]
    protocol: i32,
}

/// What both answer; the second with reasons besides.
#[derive(Clone, PartialEq, Eq, Message)]
struct Decision {
    #[prost(bool, tag = "1")]
    authenticated: bool,
    #[prost(string, tag = "2")]
    id: String,
}

impl GrpcQuestion {
    pub(super) fn fields(&self) -> &'static [Field] {
        match self.service {
            Service::ClientsV1 => &[Field::Secret, Field::UserName, Field::Domain],
            Service::BrokerAuthV1 => &[
                Field::Secret,
                Field::UserName,
                Field::Domain,
                Field::ClientId,
                Field::Protocol,
            ],
        }
    }

    /// The grant, with the client's name in `id_header`, or `None` for a no.
    pub(super) async fn ask(
        &self,
        fetcher: &Fetcher,
        values: &Values<'_>,
        id_header: Option<&HeaderName>,
    ) -> Result<Option<Grant>, Silence> {
        let decision = match self.service {
            Service::ClientsV1 => {
                let Some(token) = packed(values) else {
                    return Ok(None);
                };
                self.call(fetcher, ClientsQuestion { token }).await
            }
            Service::BrokerAuthV1 => self.call(fetcher, BrokerQuestion::of(values)).await,
        };
        match decision {
            Ok(decision) if decision.authenticated => {
                let mut grant = Grant::confirmed();
                grant.identify(&decision.id, id_header);
                Ok(Some(grant))
            }
            Ok(_) => Ok(None),
            Err(status) => match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => Ok(None),
                _ => Err(Silence::Grpc(story(&status))),
            },
        }
    }

    async fn call<Question>(
        &self,
        fetcher: &Fetcher,
        question: Question,
    ) -> Result<Decision, Status>
    where
        Question: Message + Send + Sync + 'static,
    {
        let origin = self.url.origin().ascii_serialization();
        let origin: Uri = origin.parse().map_err(|_| unusable())?;
        let path = PathAndQuery::try_from(self.path()).map_err(|_| unusable())?;
        let mut client = Grpc::with_origin(Channel(fetcher.clone()), origin)
            .max_decoding_message_size(fetcher.max_size());
        let codec = ProstCodec::<Question, Decision>::default();
        let answer = client.unary(tonic::Request::new(question), path, codec);
        answer.await.map(tonic::Response::into_inner)
    }

    /// The method's: that of the URL if it names one, since packages have been renamed.
    fn path(&self) -> &str {
        match (self.url.path(), self.service) {
            ("/", Service::ClientsV1) => "/clients.v1.ClientsService/Authenticate",
            ("/", Service::BrokerAuthV1) => "/broker.auth.v1.AuthService/Authenticate",
            (path, _) => path,
        }
    }
}

fn unusable() -> Status {
    Status::internal("the URL is of no use")
}

/// The secret as the platform packs it: a client's with the client's name where there is one, or with
/// the domain that the path names.
fn packed(values: &Values<'_>) -> Option<String> {
    let secret = values.get(&Field::Secret)?;
    let said = |field| values.get(field).filter(|value| !value.is_empty());
    let (kind, id) = match (said(&Field::UserName), said(&Field::Domain)) {
        (Some(user_name), _) => ("Basic", user_name),
        (None, Some(domain)) => ("Domain", domain),
        (None, None) => return None,
    };
    // The platform takes the first colon for the end of the id.
    let is_one = !id.contains(':');
    is_one.then(|| format!("{kind}{}", STANDARD.encode(format!("{id}:{secret}"))))
}

impl BrokerQuestion {
    /// Brokers take the domain for the user name where there is no other.
    fn of(values: &Values<'_>) -> Self {
        let text = |field| values.get(field).unwrap_or_default().to_owned();
        let user_name = text(&Field::UserName);
        Self {
            client_id: text(&Field::ClientId),
            password: text(&Field::Secret),
            protocol: match values.get(&Field::Protocol) {
                Some("MQTT") => 1,
                _ => 4,
            },
            username: match user_name.is_empty() {
                true => text(&Field::Domain),
                false => user_name,
            },
        }
    }
}

/// The status with its causes, but without what the service says of it: that may hold anything.
fn story(status: &Status) -> String {
    let mut story = format!("its answer's status is {:?}", status.code());
    let mut cause = status.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(story, ": {error}");
        cause = error.source();
    }
    story
}

/// Carries tonic's requests by a fetcher.
struct Channel(Fetcher);

impl GrpcService<Body> for Channel {
    type ResponseBody = fetch::Body;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<fetch::Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fetcher = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let inquiry = Inquiry {
                method: head.method,
                url: head.uri.to_string().parse()?,
                headers: head.headers,
                body: Some(body.collect().await?.to_bytes()),
            };
            Ok(fetcher.exchange(inquiry).await?)
        })
    }
}
