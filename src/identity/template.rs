//! Values made of what a certificate says: `"{cn}"`, `"device-{serial}"`.

use std::str::FromStr;

use thiserror::Error;

use super::DeviceIdentity;
use crate::secret::Secret;

/// A text with fields of a certificate in it, in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    CommonName,
    Serial,
    Fingerprint,
    Dns,
    Uri,
    /// Other names of this type, an OID in dotted form.
    Other(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("has a brace without its partner")]
    Brace,
    /// Nothing that differs between certificates.
    #[error("holds no field of the certificate; there are {FIELDS}")]
    Constant,
    /// A field that does not exist.
    #[error("there is no field {{{0}}}; there are {FIELDS}")]
    UnknownField(String),
}

const FIELDS: &str = "{cn}, {serial}, {fingerprint}, {san.dns}, {san.uri} and {san.other:<oid>}";

/// Most values that one certificate may give a template; a certificate with more names is not
/// taken at all, since each of them is compared.
const MOST_VALUES: usize = 64;

impl Template {
    /// Whether `value` is one of those that `device`'s certificate gives this template. A field
    /// that stands there several times counts with each of its values.
    #[must_use]
    pub fn matches(&self, device: &DeviceIdentity, value: &Secret) -> bool {
        self.values(device).iter().any(|known| known == value)
    }

    /// The value that `device`'s certificate gives this template; `None` if it gives none, or more
    /// than one, of which none would be the right one.
    #[must_use]
    pub fn value(&self, device: &DeviceIdentity) -> Option<Secret> {
        let mut values = self.values(device);
        let only = values.pop()?;
        values.is_empty().then_some(only)
    }

    /// Whether the field `name`, as it stands in braces, is part of it.
    #[must_use]
    pub fn uses(&self, name: &str) -> bool {
        let field = name.parse::<Field>().ok().map(Part::Field);
        field.is_some_and(|field| self.0.contains(&field))
    }

    fn values(&self, device: &DeviceIdentity) -> Vec<Secret> {
        let mut values = vec![Secret::new("")];
        for part in &self.0 {
            let choices = match part {
                Part::Text(text) => vec![text.as_str()],
                Part::Field(field) => field.of(device),
            };
            if values.len() * choices.len() > MOST_VALUES {
                return Vec::new();
            }
            let with = |value: &Secret| {
                let begin = value.expose().to_owned();
                let longer = |choice: &&str| Secret::new(begin.clone() + choice);
                choices.iter().map(longer).collect::<Vec<_>>()
            };
            values = values.iter().flat_map(with).collect();
        }
        values
    }
}

impl Field {
    fn of<'a>(&self, device: &'a DeviceIdentity) -> Vec<&'a str> {
        let all = |names: &'a [String]| names.iter().map(String::as_str).collect();
        match self {
            Self::CommonName => {
                let secret = device.client_secret().ok();
                secret.map(Secret::expose).into_iter().collect()
            }
            Self::Fingerprint => vec![device.fingerprint()],
            Self::Serial => {
                let serial = device.names().serial.as_str();
                Some(serial).filter(|s| !s.is_empty()).into_iter().collect()
            }
            Self::Dns => all(&device.names().dns),
            Self::Uri => all(&device.names().uri),
            Self::Other(wanted) => {
                let others = device.names().other.iter();
                let of_kind = others.filter(|(kind, _)| kind == wanted);
                of_kind.map(|(_, value)| value.as_str()).collect()
            }
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(open);
            let inner = from_brace.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let (name, after) = inner.split_once('}').ok_or(TemplateError::Brace)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(name.parse()?));
            rest = after;
        }
        if parts.is_empty() {
            return Err(TemplateError::Constant);
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

impl FromStr for Field {
    type Err = TemplateError;

    fn from_str(name: &str) -> Result<Self, TemplateError> {
        let field = match name {
            "cn" => Self::CommonName,
            "serial" => Self::Serial,
            "fingerprint" => Self::Fingerprint,
            "san.dns" => Self::Dns,
            "san.uri" => Self::Uri,
            _ => match name.strip_prefix("san.other:") {
                Some(oid) if is_oid(oid) => Self::Other(oid.to_owned()),
                _ => return Err(TemplateError::UnknownField(name.to_owned())),
            },
        };
        Ok(field)
    }
}

fn is_oid(text: &str) -> bool {
    let is_arc = |arc: &str| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
    text.contains('.') && text.split('.').all(is_arc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_read_and_everything_else_is_refused() {
        for good in [
            "{cn}",
            "device-{serial}",
            "{san.uri}",
            "{san.dns}/{fingerprint}",
            "{san.other:1.3.6.1.4.1.311.20.2.3}!",
        ] {
            assert!(good.parse::<Template>().is_ok(), "{good}");
        }
        for (wrong, expected) in [
            ("", TemplateError::Constant),
            ("device", TemplateError::Constant),
            ("{cn", TemplateError::Brace),
            ("cn}", TemplateError::Brace),
            ("{cn}}", TemplateError::Brace),
            ("{}", TemplateError::UnknownField(String::new())),
            ("{CN}", TemplateError::UnknownField("CN".into())),
            ("{{cn}}", TemplateError::UnknownField("{cn".into())),
            (
                "{san.other:}",
                TemplateError::UnknownField("san.other:".into()),
            ),
            (
                "{san.other:1..2}",
                TemplateError::UnknownField("san.other:1..2".into()),
            ),
        ] {
            assert_eq!(wrong.parse::<Template>(), Err(expected), "{wrong}");
        }
    }
}
