//! Distinguished names as text, for those who are told them: as OpenSSL prints RFC 2253, so that
//! what others compare with it agrees. Nothing here is read back, and nothing is decided by it.

use std::fmt::Write as _;

use x509_parser::der_parser::asn1_rs::{Any, ToDer};
use x509_parser::prelude::X509Name;
use x509_parser::x509::AttributeTypeAndValue;

use super::subject::as_text;

/// A name as its certificate gives it: sets of attributes, the most general first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinguishedName(Vec<Vec<Attribute>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Attribute {
    /// Its type as it is usually written, or an OID in dotted form.
    kind: String,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(String),
    /// The DER of what is no text, or of a type that has no usual name.
    Other(Vec<u8>),
}

/// The types that have usual names.
const KINDS: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

impl DistinguishedName {
    pub(super) fn read(name: &X509Name<'_>) -> Self {
        let sets = name.iter_rdn().map(|set| set.iter().map(attribute));
        Self(sets.map(Iterator::collect).collect())
    }

    /// RFC 2253: the most specific first, everything escaped that is not plain ASCII.
    #[must_use]
    pub fn rfc2253(&self) -> String {
        let set = |set: &Vec<Attribute>| {
            let attributes: Vec<String> = set.iter().rev().map(Attribute::rfc2253).collect();
            attributes.join("+")
        };
        let sets: Vec<String> = self.0.iter().rev().map(set).collect();
        sets.join(",")
    }

    /// The same without its common names.
    #[must_use]
    pub fn without_cn(&self) -> Self {
        let is_other = |attribute: &&Attribute| attribute.kind != "CN";
        let others = |set: &Vec<Attribute>| set.iter().filter(is_other).cloned().collect();
        let sets = self.0.iter().map(others);
        Self(
            sets.filter(|set: &Vec<Attribute>| !set.is_empty())
                .collect(),
        )
    }

    /// The texts of one type, `"CN"`, as they stand.
    pub fn texts<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        let of_kind = move |attribute: &&Attribute| attribute.kind == kind;
        let text = |attribute: &'a Attribute| match &attribute.value {
            Value::Text(text) => Some(text.as_str()),
            Value::Other(_) => None,
        };
        self.0.iter().flatten().filter(of_kind).filter_map(text)
    }
}

impl Attribute {
    fn rfc2253(&self) -> String {
        let Self { kind, value } = self;
        match value {
            Value::Text(text) => format!("{kind}={}", escaped(text)),
            Value::Other(der) => der.iter().fold(format!("{kind}=#"), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02X}");
                text
            }),
        }
    }
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Attribute {
    let oid = attribute.attr_type().to_id_string();
    let known = KINDS.iter().find(|(known, _)| *known == oid);
    let value = attribute.attr_value();
    let text = known.and_then(|_| as_text(value)).map(str::to_owned);
    Attribute {
        kind: known.map_or(oid, |(_, name)| (*name).to_owned()),
        value: text.map_or_else(|| Value::Other(der(value)), Value::Text),
    }
}

fn der(value: &Any<'_>) -> Vec<u8> {
    value.to_der_vec().unwrap_or_default()
}

/// RFC 2253 §2.4, and as OpenSSL does it each byte that is not printable ASCII.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let is_special = match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => true,
            b'#' => at == 0,
            b' ' => at == 0 || at == last,
            _ => false,
        };
        if !(b' '..=b'~').contains(&byte) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\{byte:02X}");
            continue;
        }
        if is_special {
            escaped.push('\\');
        }
        escaped.push(char::from(byte));
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
        for (text, expected) in [
            ("abc=", "abc="),
            ("a,b+c", "a\\,b\\+c"),
            ("x\"y\\z", "x\\\"y\\\\z"),
            ("<a>;", "\\<a\\>\\;"),
            ("#a#", "\\#a#"),
            (" a b ", "\\ a b\\ "),
            (" ", "\\ "),
            ("", ""),
            ("\u{e9}\r\n", "\\C3\\A9\\0D\\0A"),
        ] {
            assert_eq!(escaped(text), expected, "{text:?}");
        }
    }
}
