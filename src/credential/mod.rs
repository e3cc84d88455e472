//! What a client presents beside its certificate, wherever it stands in the message.
//!
//! Every place is read and every value kept: whether they agree, and with what, is for
//! [`crate::access`] to say. No status codes and no packets here.

mod header;
mod query;

pub use query::{ForwardedQuery, query_values, split_credentials};

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
    /// The user name of an MQTT CONNECT or of `Basic`.
    UserName,
    /// The client identifier of an MQTT CONNECT.
    ClientId,
    /// Another header field.
    OtherHeader,
    /// Another query parameter.
    OtherQuery,
}

/// A place where a client says something of itself that is no secret, but that its certificate may
/// have to agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The user name of an MQTT CONNECT or of `Basic`.
    UserName,
    /// The client identifier of an MQTT CONNECT.
    ClientId,
    /// The header field of this name, in lower case.
    Header(String),
    /// The query parameter of this name.
    Query(String),
}

impl Place {
    /// It without its name, for refusals.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::UserName => Source::UserName,
            Self::ClientId => Source::ClientId,
            Self::Header(_) => Source::OtherHeader,
            Self::Query(_) => Source::OtherQuery,
        }
    }
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
    names: Vec<(Place, Secret)>,
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

    /// Adds what the client says of itself at `place`. Bytes that are no text become one that no
    /// certificate holds.
    pub fn add_name(&mut self, place: Place, value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        self.names.push((place, Secret::new(text)));
    }

    /// Adds the user name of an `Authorization` field, if that is `Basic`.
    pub fn add_basic_user_name(&mut self, value: &[u8]) {
        if let Some(name) = header::user_name(value) {
            self.add_name(Place::UserName, name.as_bytes());
        }
    }

    /// All secrets, in the order in which they stood.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// What the client says of itself at `place`.
    pub fn names_at<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a Secret> {
        let at = self.names.iter().filter(move |(known, _)| known == place);
        at.map(|(_, value)| value)
    }

    /// The claims that `is_first` says yes to, and the others; what the client says of itself
    /// besides goes with the others.
    #[must_use]
    pub fn split(&self, mut is_first: impl FnMut(&&Claim) -> bool) -> (Self, Self) {
        let (first, others) = self
            .claims
            .iter()
            .cloned()
            .partition(|claim| is_first(&claim));
        let with = |claims, names| Self { claims, names };
        (with(first, vec![]), with(others, self.names.clone()))
    }

    fn add(&mut self, source: Source, value: Value) {
        self.claims.push(Claim { source, value });
    }
}
