//! Fields that every request of a client's connection has: made and encoded once, not for each.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// Such fields. None of them may stand in a request that goes with them.
#[derive(Debug)]
pub struct CommonFields {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// As HTTP/1.1 has them.
    text: Vec<u8>,
}

impl CommonFields {
    /// Those fields.
    #[must_use]
    pub fn new(fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        let mut text = Vec::new();
        for (name, value) in &fields {
            write_field(&mut text, name, value);
        }
        Self { fields, text }
    }

    /// As HTTP/1.1 has them, with the end of each line.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Puts them among others.
    pub(super) fn set(&self, fields: &mut HeaderMap) {
        fields.reserve(self.fields.len());
        for (name, value) in &self.fields {
            fields.insert(name.clone(), value.clone());
        }
    }
}

/// A line of a head in HTTP/1.1 (RFC 9112 §5).
pub(super) fn write_field(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        head.extend_from_slice(part);
    }
}
