//! What a client presents beside its certificate, wherever it stands in the message.
//!
//! Every place is read and every value kept: whether they agree, and with what, is for
//! [`crate::access`] to say. No status codes and no packets here.

mod header;
mod query;

pub use query::{ForwardedQuery, split_credentials};

use crate::secret::Secret;

/// Where a credential stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An `Authorization` field.
    Header,
    /// An `authorization` query parameter, or the one for tokens.
    Query,
    /// An entry of `Sec-WebSocket-Protocol`.
    Subprotocol,
    /// The password of an MQTT CONNECT.
    Password,
}

/// One value that a client presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where it stood.
    pub source: Source,
    /// What it says.
    pub value: Value,
}

/// What a presented value says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A client secret: `Client <secret>`, `Thing <secret>`, the password of `Basic`, or bare.
    Secret(Secret),
    /// A bearer token (RFC 6750 §2.1): `Bearer <token>`.
    Token(Secret),
    /// A text of another form, which could be a bare secret with a space in it; it is equal to a
    /// certificate's or it is nothing.
    Opaque(Secret),
    /// Not a credential at all (empty, not text, broken Base64, an ambiguous query).
    Malformed,
}

/// Everything that one message presented.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presented {
    claims: Vec<Claim>,
    names: Option<Box<Names>>,
}

/// What a client of MQTT calls itself; no secret, and nothing that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Its client identifier.
    pub client_id: String,
    /// Its user name, or nothing.
    pub user_name: String,
}

impl Presented {
    /// Nothing presented.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds the value of one `Authorization` field.
    pub fn add_authorization(&mut self, value: &[u8]) {
        self.add(Source::Header, header::read(value));
    }

    /// Adds a value from the query string, `None` if it could not be decoded.
    pub fn add_query(&mut self, value: Option<&str>) {
        self.add(
            Source::Query,
            value.map_or(Value::Malformed, header::read_text),
        );
    }

    /// Adds a bearer token that stands by itself, in a place for nothing else.
    pub fn add_token(&mut self, source: Source, token: &str) {
        self.add(source, header::read_token(token));
    }

    /// Adds the password of an MQTT CONNECT. It is the secret itself, in no other form.
    pub fn add_password(&mut self, password: &[u8]) {
        self.add(Source::Password, header::read_exact(password));
    }

    /// All of them, in the order in which they stood.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Notes what a client of MQTT calls itself.
    pub fn set_names(&mut self, names: Names) {
        self.names = Some(Box::new(names));
    }

    /// What a client of MQTT calls itself, if that was noted.
    #[must_use]
    pub fn names(&self) -> Option<&Names> {
        self.names.as_deref()
    }

    /// The claims that `is_first` says yes to, and the others.
    #[must_use]
    pub fn split(&self, is_first: impl FnMut(&&Claim) -> bool) -> (Self, Self) {
        let (first, others) = self.claims.iter().partition(is_first);
        let cloned = |claims: Vec<&Claim>| Self {
            claims: claims.into_iter().cloned().collect(),
            names: self.names.clone(),
        };
        (cloned(first), cloned(others))
    }

    fn add(&mut self, source: Source, value: Value) {
        self.claims.push(Claim { source, value });
    }
}
