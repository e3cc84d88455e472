//! A platform's services by gRPC, as it has them for its own adapters: who a client is, and what a
//! broker asks.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::Identity;

const CLIENTS: &str = "/clients.v1.ClientsService/Authenticate";
const BROKER: &str = "/broker.auth.v1.AuthService/Authenticate";

/// How it answers.
#[derive(Debug, Clone)]
pub enum Says {
    /// As it is told: these questions have these ids, and all others are refused as the platform
    /// refuses them.
    Known(&'static [(&'static str, &'static str)]),
    /// That nobody is authenticated, without an error.
    Nobody,
    /// With this status.
    Status(Code),
    /// With more than anybody reads.
    Endless,
    /// Not at all.
    Silence,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ClientsQuestion {
    #[prost(string, tag = "1")]
    token: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
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

#[derive(Clone, PartialEq, Eq, Message)]
struct Decision {
    #[prost(bool, tag = "1")]
    authenticated: bool,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "3")]
    reason_code: u32,
    #[prost(string, tag = "4")]
    reason: String,
}

/// A question as a line of text.
trait Question: Message + Default + Send + 'static {
    fn line(self) -> String;
}

impl Question for ClientsQuestion {
    fn line(self) -> String {
        self.token
    }
}

impl Question for BrokerQuestion {
    fn line(self) -> String {
        let Self {
            client_id,
            username,
            password,
            protocol,
        } = self;
        format!("{client_id}|{username}|{password}|{protocol}")
    }
}

#[derive(Clone)]
pub struct Platform {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    says: Mutex<Says>,
    asked: Mutex<Vec<String>>,
    accepted: Mutex<usize>,
    open: Mutex<JoinSet<()>>,
    tls: Option<TlsAcceptor>,
}

impl Platform {
    /// Without TLS, by prior knowledge of HTTP/2.
    pub async fn start(says: Says) -> Self {
        Self::listen(says, None).await
    }

    /// With TLS.
    pub async fn start_tls(says: Says, identity: Identity) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::listen(says, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(says: Says, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let platform = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                says: Mutex::new(says),
                asked: Mutex::default(),
                accepted: Mutex::default(),
                open: Mutex::default(),
                tls,
            }),
        };
        let server = platform.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *server.shared.accepted.lock().unwrap() += 1;
                let connection = server.clone();
                let serve = async move {
                    match &connection.shared.tls {
                        None => connection.serve(TokioIo::new(stream)).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection.serve(TokioIo::new(stream)).await;
                            }
                        }
                    }
                };
                server.shared.open.lock().unwrap().spawn(serve);
            }
        });
        platform
    }

    pub fn says(&self, says: Says) {
        *self.shared.says.lock().unwrap() = says;
    }

    /// Every question so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        *self.shared.accepted.lock().unwrap()
    }

    /// Ends all connections, as a restart does.
    pub async fn cut(&self) {
        let mut open = std::mem::take(&mut *self.shared.open.lock().unwrap());
        open.shutdown().await;
    }

    async fn serve<IO: Read + Write + Unpin + Send + 'static>(&self, io: IO) {
        let service = service_fn(|request| {
            let platform = self.clone();
            async move { Ok::<Response<Body>, Infallible>(platform.answer(request).await) }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // A gateway that leaves is none of this service's business.
        let _ = server.serve_connection(io, service).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            CLIENTS => self.unary::<ClientsQuestion>(request).await,
            BROKER => self.unary::<BrokerQuestion>(request).await,
            _ => Status::unimplemented("there is no such method").into_http(),
        }
    }

    async fn unary<Q: Question>(&self, request: Request<Incoming>) -> Response<Body> {
        let codec = ProstCodec::<Decision, Q>::default();
        Grpc::new(codec).unary(Desk(self.clone()), request).await
    }

    fn decide(&self, question: &str) -> Option<Result<Decision, Status>> {
        let mut decision = Decision::default();
        match self.shared.says.lock().unwrap().clone() {
            Says::Known(clients) => {
                let known = clients.iter().find(|(known, _)| *known == question);
                let Some((_, id)) = known else {
                    return Some(Err(Status::permission_denied("failed to find client")));
                };
                decision.authenticated = true;
                decision.id = (*id).to_owned();
            }
            Says::Nobody => {}
            Says::Status(code) => return Some(Err(Status::new(code, "as told"))),
            Says::Endless => {
                decision.authenticated = true;
                decision.reason = "x".repeat(1 << 20);
            }
            Says::Silence => return None,
        }
        Some(Ok(decision))
    }
}

/// Where one kind of question is answered.
struct Desk(Platform);

impl<Q: Question> UnaryService<Q> for Desk {
    type Response = Decision;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Decision>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let platform = self.0.clone();
        Box::pin(async move {
            let question = request.into_inner().line();
            platform.shared.asked.lock().unwrap().push(question.clone());
            match platform.decide(&question) {
                Some(decision) => decision.map(tonic::Response::new),
                None => std::future::pending().await,
            }
        })
    }
}

/// As the platform packs a client's secret.
pub fn packed(kind: &str, id: &str, secret: &str) -> String {
    use base64::Engine as _;
    let text = format!("{id}:{secret}");
    format!(
        "{kind}{}",
        base64::engine::general_purpose::STANDARD.encode(text)
    )
}
