//! Who issues tokens: keys that sign them, and a server that publishes those keys, or fails to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use portcullis::clock::Clock as _;

use super::{Identity, Lab, PATIENCE};

/// The secret of the provider that [`PLATFORM`] configures.
pub const KEY: &str = "the platform's secret, known to the tests alone";

/// Another one.
pub const OTHER_KEY: &str = "somebody else's secret, of much the same length";

/// A provider with a shared secret.
pub const PLATFORM: &str = "[providers.platform]\nprofile = \"supermq-hs\"\n\
    secret = \"the platform's secret, known to the tests alone\"\n";

/// What the platform says of a user whom it has just let in.
pub fn claims(lab: &Lab) -> Value {
    let now = lab.clock.now();
    json!({"iss": "supermq.auth", "type": 0, "user": "u1", "iat": now, "exp": now + 3600})
}

/// A token of these claims, signed with a secret.
pub fn signed(key: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(key.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS512), claims, &key).unwrap()
}

/// A token of the platform.
pub fn good(lab: &Lab) -> String {
    signed(KEY, &claims(lab))
}

/// A private key (ES256) with an id.
pub struct Signer {
    id: String,
    pair: rcgen::KeyPair,
}

impl Signer {
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            pair: rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        }
    }

    /// A token of these claims that names the key.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(Some(&self.id), claims)
    }

    /// The same naming another key, or none.
    pub fn sign_as(&self, id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = id.map(str::to_owned);
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.pair.public_key_raw()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// The key set of these.
pub fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// What is answered to a request.
#[derive(Clone)]
pub enum Reply {
    /// These bytes, status line and all, and the end.
    Raw(String),
    /// Nothing, for as long as it is waited for.
    Silence,
    /// A body without an end.
    Endless,
    /// The same, a byte now and then.
    Slow,
}

impl Reply {
    /// A document with more header fields.
    pub fn document(body: &str, fields: &str) -> Self {
        let length = body.len();
        Self::Raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        ))
    }

    /// No document.
    pub fn status(status: &str, fields: &str) -> Self {
        Self::Raw(format!(
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\n{fields}\r\n"
        ))
    }
}

/// A server of documents that counts who asks.
#[derive(Clone)]
pub struct Issuer {
    pub address: SocketAddr,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    asked: watch::Sender<HashMap<String, usize>>,
}

impl Issuer {
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// By HTTPS.
    pub async fn start_tls(identity: Identity) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        Self::listen(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            replies: Arc::default(),
            asked: watch::Sender::default(),
        };
        let server = issuer.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (server, tls) = (server.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => server.answer(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                server.answer(stream).await;
                            }
                        }
                    }
                });
            }
        });
        issuer
    }

    /// Answers `path` so from now on.
    pub fn set(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// Publishes these keys, to be fetched at every occasion.
    pub fn publish(&self, signers: &[&Signer]) {
        let fields = "Cache-Control: max-age=0\r\n";
        self.set("/keys", Reply::document(&key_set(signers), fields));
    }

    /// How often `path` was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.asked.borrow().get(path).copied().unwrap_or(0)
    }

    /// Waits until `path` has been asked for so often.
    pub async fn is_asked(&self, path: &str, times: usize) {
        let mut asked = self.asked.subscribe();
        let enough = asked.wait_for(|asked| asked.get(path).is_some_and(|n| *n >= times));
        tokio::time::timeout(PATIENCE, enough)
            .await
            .unwrap()
            .unwrap();
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        self.asked
            .send_modify(|asked| *asked.entry(path.clone()).or_default() += 1);
        let reply = self.replies.lock().unwrap().get(&path).cloned();
        let not_found = || Reply::status("404 Not Found", "");
        // Whoever has asked may be gone.
        match reply.unwrap_or_else(not_found) {
            Reply::Raw(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            Reply::Silence => {
                let _ = stream.read_u8().await;
            }
            Reply::Endless => {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[")
                    .await;
                while stream.write_all(&[b' '; 4096]).await.is_ok() {}
            }
            Reply::Slow => {
                let head = b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[";
                let _ = stream.write_all(head).await;
                let mut now_and_then = tokio::time::interval(Duration::from_millis(20));
                while stream.write_u8(b' ').await.is_ok() {
                    now_and_then.tick().await;
                }
            }
        }
    }
}
