//! Values of fields with parts of a request and of its client's certificate in braces:
//! `"device-{serial}"`.
//!
//! What a request says is made of the characters of a URI, as in all templates here. The common name
//! is no variable: it is the client's secret.

use std::fmt;
use std::net::IpAddr;

use hyper::Method;
use hyper::header::HeaderValue;
use thiserror::Error;

use super::path_match::PathMatch;
use super::template::{Target, push_encoded};

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTemplate(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Constant(HeaderValue),
    Made(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    Host,
    Path,
    /// Of the route's path.
    Named(String),
    Method,
    Remote,
    RequestId,
    Certificate(CertificateField),
}

/// What a value may tell of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateField {
    /// SHA-256, lowercase hexadecimal.
    Fingerprint,
    /// Lowercase hexadecimal.
    Serial,
    /// As RFC 2253 writes it, without the common name.
    Subject,
    /// As RFC 2253 writes it.
    Issuer,
    /// The one DNS name.
    Dns,
    /// The one URI.
    Uri,
    /// The one other name of this type, an OID in dotted form.
    Other(String),
}

/// Where a value stands, and so which variables it may have.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// On a route for these paths.
    Route(&'a PathMatch),
    /// On every route.
    Routes,
    /// Even where there is no route.
    Everywhere,
}

/// What values are filled with.
pub struct Facts<'a> {
    /// What the request is for; `None` where that is not known.
    pub target: Option<&'a Target<'a>>,
    /// Its method.
    pub method: &'a Method,
    /// Its client's address.
    pub remote: IpAddr,
    /// Its id.
    pub request_id: &'a HeaderValue,
    /// What its client's certificate says, where it says that once.
    pub certificate: &'a dyn Fn(&CertificateField) -> Option<String>,
}

/// Why a text is no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldTemplateError {
    /// A brace that is never closed.
    #[error("has a brace without its partner")]
    Brace,
    /// A variable that does not exist.
    #[error("there is no {{{name}}}; there are {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// Those that do.
        known: String,
    },
    /// The secret.
    #[error("{{cn}} is the client's secret, which stands in no other field")]
    Secret,
    /// A line break, a NUL or the like.
    #[error("holds a character that no field has")]
    Character,
    /// Nothing.
    #[error("is empty")]
    Empty,
}

const CERTIFICATE: &[(&str, CertificateField)] = &[
    ("fingerprint", CertificateField::Fingerprint),
    ("serial", CertificateField::Serial),
    ("subject", CertificateField::Subject),
    ("issuer", CertificateField::Issuer),
    ("san.dns", CertificateField::Dns),
    ("san.uri", CertificateField::Uri),
];

impl FieldTemplate {
    /// Reads a value with the variables of `scope`. Braces that hold no word are text, since JSON is
    /// made of them.
    ///
    /// # Errors
    /// [`FieldTemplateError`] says what is wrong with it.
    pub fn parse(text: &str, scope: Scope<'_>) -> Result<Self, FieldTemplateError> {
        if text.is_empty() {
            return Err(FieldTemplateError::Empty);
        }
        let whole = HeaderValue::try_from(text).map_err(|_| FieldTemplateError::Character)?;
        let mut parts = Vec::new();
        let mut before = String::new();
        let mut rest = text;
        while let Some((text, from_brace)) = rest.split_once('{') {
            before.push_str(text);
            let (name, after) = from_brace
                .split_once('}')
                .ok_or(FieldTemplateError::Brace)?;
            if is_word(name) {
                parts.push(Part::Text(std::mem::take(&mut before)));
                parts.push(Part::Variable(variable(name, scope)?));
                rest = after;
            } else {
                before.push('{');
                rest = from_brace;
            }
        }
        if parts.is_empty() {
            return Ok(Self(Form::Constant(whole)));
        }
        before.push_str(rest);
        parts.push(Part::Text(before));
        Ok(Self(Form::Made(parts)))
    }

    /// The value; `None` if a variable in it has none, or one that no field can carry.
    #[must_use]
    pub fn fill(&self, facts: &Facts<'_>) -> Option<HeaderValue> {
        let parts = match &self.0 {
            Form::Constant(value) => return Some(value.clone()),
            Form::Made(parts) => parts,
        };
        let mut filled = String::with_capacity(64);
        for part in parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Variable(variable) => variable.push(&mut filled, facts)?,
            }
        }
        // A line break would begin another field, and blanks at the ends are no part of a value.
        let is_plain = filled.trim() == filled && !filled.chars().any(char::is_control);
        let value = HeaderValue::try_from(filled).ok();
        value.filter(|value| is_plain && !value.is_empty())
    }

    /// What it tells of certificates.
    pub fn certificate_fields(&self) -> impl Iterator<Item = &CertificateField> {
        let parts = match &self.0 {
            Form::Constant(_) => &[][..],
            Form::Made(parts) => parts,
        };
        parts.iter().filter_map(|part| match part {
            Part::Variable(Variable::Certificate(field)) => Some(field),
            Part::Variable(_) | Part::Text(_) => None,
        })
    }
}

impl Variable {
    fn push(&self, filled: &mut String, facts: &Facts<'_>) -> Option<()> {
        match self {
            Self::Host => push_encoded(filled, facts.target?.host),
            Self::Path => push_encoded(filled, facts.target?.path),
            Self::Named(name) => {
                let Target { matched, path, .. } = facts.target?;
                let value = matched.value(name, path).filter(|value| !value.is_empty());
                push_encoded(filled, value?);
            }
            Self::Method => filled.push_str(facts.method.as_str()),
            Self::Remote => filled.push_str(&facts.remote.to_string()),
            Self::RequestId => filled.push_str(facts.request_id.to_str().ok()?),
            Self::Certificate(field) => filled.push_str(&(facts.certificate)(field)?),
        }
        Some(())
    }
}

impl fmt::Display for CertificateField {
    /// As in a template, without the braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Other(oid) = self {
            return write!(f, "san.other:{oid}");
        }
        let known = CERTIFICATE.iter().find(|(_, field)| field == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

fn is_word(text: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    !text.is_empty() && text.bytes().all(may_be)
}

fn variable(name: &str, scope: Scope<'_>) -> Result<Variable, FieldTemplateError> {
    let variable = match name {
        "method" => Some(Variable::Method),
        "remote" => Some(Variable::Remote),
        "request_id" => Some(Variable::RequestId),
        "cn" => return Err(FieldTemplateError::Secret),
        _ => certificate_field(name).map(Variable::Certificate),
    };
    let variable = variable.or_else(|| of_target(name, scope));
    variable.ok_or_else(|| unknown(name, scope))
}

fn of_target(name: &str, scope: Scope<'_>) -> Option<Variable> {
    match (name, scope) {
        (_, Scope::Everywhere) => None,
        ("host", Scope::Route(_) | Scope::Routes) => Some(Variable::Host),
        ("path", Scope::Route(_) | Scope::Routes) => Some(Variable::Path),
        (name, Scope::Route(matched)) => {
            let is_known = matched.variables().contains(&name);
            is_known.then(|| Variable::Named(name.to_owned()))
        }
        (_, Scope::Routes) => None,
    }
}

fn certificate_field(name: &str) -> Option<CertificateField> {
    if let Some(oid) = name.strip_prefix("san.other:") {
        let is_arc = |arc: &str| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
        let is_oid = oid.contains('.') && oid.split('.').all(is_arc);
        return is_oid.then(|| CertificateField::Other(oid.to_owned()));
    }
    let known = CERTIFICATE.iter().find(|(known, _)| *known == name);
    known.map(|(_, field)| field.clone())
}

fn unknown(name: &str, scope: Scope<'_>) -> FieldTemplateError {
    let mut known = match scope {
        Scope::Route(matched) => matched.variables(),
        Scope::Routes | Scope::Everywhere => vec![],
    };
    match scope {
        Scope::Route(_) | Scope::Routes => known.extend(["host", "path"]),
        Scope::Everywhere => {}
    }
    known.extend(["method", "remote", "request_id"]);
    known.extend(CERTIFICATE.iter().map(|(name, _)| *name));
    known.push("san.other:<oid>");
    let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
    FieldTemplateError::Unknown {
        name: name.to_owned(),
        known: known.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, path: &str, certificate: &str) -> Option<String> {
        let matched = PathMatch::Prefix("/a".into());
        let target = Target {
            matched: &matched,
            host: "a.example",
            path,
            query: None,
        };
        let facts = Facts {
            target: Some(&target),
            method: &Method::GET,
            remote: "192.0.2.1".parse().unwrap(),
            request_id: &HeaderValue::from_static("17-0"),
            certificate: &|_| Some(certificate.to_owned()),
        };
        let template = FieldTemplate::parse(template, Scope::Route(&matched)).unwrap();
        let value = template.fill(&facts)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_value_is_made_of_a_request_and_a_certificate() {
        for (template, expected) in [
            ("constant; a=\"b\"", "constant; a=\"b\""),
            ("{\"max_age\":{\"a\":1}}", "{\"max_age\":{\"a\":1}}"),
            ("{\"host\":\"{host}\"}", "{\"host\":\"a.example\"}"),
            ("{method} {host}{path} {rest}", "GET a.example/a/b b"),
            ("{remote} {request_id}", "192.0.2.1 17-0"),
            ("x-{serial}-{san.other:1.2.3}", "x-c0-c0"),
        ] {
            assert_eq!(filled(template, "/a/b", "c0").as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_value_is_left_out_where_a_variable_has_none() {
        assert_eq!(filled("at {rest}", "/a", ""), None);
        for certificate in ["", "a\r\nset-cookie: x", "a\0", " a", "a\u{7f}"] {
            assert_eq!(filled("{subject}", "/a", certificate), None);
        }
        assert_eq!(
            filled("{path}", "/a/\u{e9}\"", "").as_deref(),
            Some("/a/%C3%A9%22")
        );
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let exact = PathMatch::Exact("/".into());
        for (text, expected) in [
            ("", "is empty"),
            ("a\r\nb: c", "no field has"),
            ("a\0", "no field has"),
            ("{host", "without its partner"),
            ("{cn}", "client's secret"),
            ("{rest}", "there is no {rest}; there are {host}, {path}, "),
            ("{san.other:x}", "there is no {san.other:x}"),
            ("{secret}", "there is no {secret}"),
        ] {
            let error = FieldTemplate::parse(text, Scope::Route(&exact)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        for (scope, text) in [
            (Scope::Routes, "{rest}"),
            (Scope::Everywhere, "{host}"),
            (Scope::Everywhere, "{path}"),
        ] {
            assert!(FieldTemplate::parse(text, scope).is_err(), "{text}");
        }
        assert!(FieldTemplate::parse("{host}{path}", Scope::Routes).is_ok());
    }
}
