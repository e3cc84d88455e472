//! A service that decides about clients: a call-out's other end, which records what it is asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::PATIENCE;
use super::lab::SECRET;

/// How it answers.
#[derive(Clone)]
pub enum Says {
    /// As `broker.auth.v1` does: yes to the usual secret, and no to all others.
    Authenticated,
    /// As an `ext_authz` server does, by status alone and with these fields.
    Status(u16, Vec<(&'static str, &'static str)>),
    /// 200 with this body.
    Body(&'static str),
    /// A body without an end.
    Endless,
    /// Nothing.
    Silence,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

#[derive(Clone)]
pub struct Decider {
    pub address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<watch::Sender<Vec<Asked>>>,
}

impl Decider {
    pub async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let decider = Self {
            address: listener.local_addr().unwrap(),
            says: Arc::new(Mutex::new(says)),
            asked: Arc::default(),
        };
        let server = decider.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let serve = hyper::server::conn::http1::Builder::new();
                tokio::spawn(serve.serve_connection(TokioIo::new(stream), service));
            }
        });
        decider
    }

    pub fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// Every question so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    /// Waits until it has been asked so often, or more.
    pub async fn is_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|asked| asked.len() >= times);
        let enough = tokio::time::timeout(PATIENCE, enough).await;
        enough.expect("nobody asks").unwrap();
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let asked = Asked {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head.headers,
            body: body.clone(),
        };
        self.asked.send_modify(|all| all.push(asked));
        let says = self.says.lock().unwrap().clone();
        match says {
            Says::Authenticated => full(authenticate(&body)),
            Says::Status(status, fields) => {
                let mut response = full(String::new());
                *response.status_mut() = status.try_into().unwrap();
                for (name, value) in fields {
                    response.headers_mut().append(name, value.parse().unwrap());
                }
                response
            }
            Says::Body(body) => full(body.to_owned()),
            Says::Endless => {
                let frame = || Ok(Frame::data(Bytes::from_static(&[b' '; 4096])));
                let frames = futures_util::stream::repeat_with(frame);
                Response::new(BodyExt::boxed(StreamBody::new(frames)))
            }
            Says::Silence => std::future::pending().await,
        }
    }
}

fn full(body: String) -> Response<BoxBody<Bytes, Infallible>> {
    Response::new(Full::new(Bytes::from(body)).boxed())
}

fn authenticate(body: &str) -> String {
    let question: Value = serde_json::from_str(body).unwrap();
    if question["password"] == SECRET {
        let id = "c1";
        json!({"authenticated": true, "id": id, "reason_code": 0, "reason": ""}).to_string()
    } else {
        // protobuf's JSON leaves out what is false, empty or zero.
        json!({"reason_code": 134, "reason": "bad credentials"}).to_string()
    }
}
