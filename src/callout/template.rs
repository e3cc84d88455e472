//! Texts with fields of a [`Question`] in braces: `"Client {secret}"`.

use std::borrow::Cow;
use std::str::FromStr;

use thiserror::Error;

use super::question::{Ambiguous, Question};
use crate::fetch::HeaderName;

/// A text with fields in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Field(Field),
}

/// Something that a service may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The client secret.
    Secret,
    /// The client identifier of MQTT.
    ClientId,
    /// The user name.
    UserName,
    /// What the client speaks.
    Protocol,
    /// The SHA-256 of its certificate.
    Fingerprint,
    /// Its address.
    Remote,
    /// The method of its request.
    Method,
    /// The host of its request.
    Host,
    /// The path of its request.
    Path,
    /// The domain that its path names, as paths of platforms do: `/m/<domain>/c/...`.
    Domain,
    /// The query of its request with the question mark, without credentials.
    Query,
    /// The id of its request.
    RequestId,
    /// A field of its request.
    Header(HeaderName),
}

const FIELDS: &[(&str, Field)] = &[
    ("secret", Field::Secret),
    ("client_id", Field::ClientId),
    ("username", Field::UserName),
    ("protocol", Field::Protocol),
    ("fingerprint", Field::Fingerprint),
    ("remote", Field::Remote),
    ("method", Field::Method),
    ("host", Field::Host),
    ("path", Field::Path),
    ("domain", Field::Domain),
    ("query", Field::Query),
    ("request_id", Field::RequestId),
];

impl Field {
    /// Whether it is of a request, which MQTT has not.
    #[must_use]
    pub fn is_of_request(&self) -> bool {
        match self {
            Self::Method
            | Self::Host
            | Self::Path
            | Self::Query
            | Self::RequestId
            | Self::Header(_) => true,
            Self::Secret
            | Self::Domain
            | Self::ClientId
            | Self::UserName
            | Self::Protocol
            | Self::Fingerprint
            | Self::Remote => false,
        }
    }
}

/// A word in braces that is no field, where a mistake is likelier than intent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no field {{{name}}}; there are {{header.NAME}}, {}", names().join(", "))]
pub struct TemplateError {
    /// The word.
    name: String,
}

fn names() -> Vec<String> {
    FIELDS
        .iter()
        .map(|(name, _)| format!("{{{name}}}"))
        .collect()
}

/// What stands for each field of a service's templates.
pub(super) struct Values<'a>(Vec<(&'a Field, Option<Cow<'a, str>>)>);

impl<'a> Values<'a> {
    pub(super) fn of(fields: &'a [Field], question: &Question<'a>) -> Result<Self, Ambiguous> {
        let value = |field| Ok((field, question.value(field)?));
        fields.iter().map(value).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Field, Option<&str>)> {
        let each = self.0.iter();
        each.map(|(field, value)| (*field, value.as_deref()))
    }

    pub(super) fn get(&self, field: &Field) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == field)
            .and_then(|(_, value)| value)
    }
}

impl Template {
    /// The text with the values as they are; `None` if it is nothing but a field of a request that
    /// has none.
    pub(super) fn plain(&self, values: &Values<'_>) -> Option<String> {
        if let [Part::Field(field @ Field::Header(_))] = self.0.as_slice() {
            return values.get(field).map(str::to_owned);
        }
        Some(self.render(values, |_, value| value.into()))
    }

    /// The text with the values as they stand inside the quotes of a JSON string.
    pub(super) fn json(&self, values: &Values<'_>) -> String {
        self.render(values, |_, value| {
            let quoted = serde_json::Value::from(value).to_string();
            let inner = quoted
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'));
            inner.unwrap_or_default().to_owned().into()
        })
    }

    /// The text with what `escape` makes of each field's value.
    pub(super) fn render(
        &self,
        values: &Values<'_>,
        escape: impl for<'v> Fn(&Field, &'v str) -> Cow<'v, str>,
    ) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(field) => {
                    text.push_str(&escape(field, values.get(field).unwrap_or_default()));
                }
            }
        }
        text
    }

    /// The fields in it.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Field(field) => Some(field),
        })
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    /// Braces that hold no word are text, since JSON is made of them.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut before = String::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            let length = match word(rest) {
                Some(word) => {
                    parts.push(Part::Text(std::mem::take(&mut before)));
                    parts.push(Part::Field(field(word)?));
                    word.len() + 2
                }
                None => {
                    before.push(letter);
                    letter.len_utf8()
                }
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        parts.push(Part::Text(before));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }
}

/// The word in the braces that `rest` begins with.
fn word(rest: &str) -> Option<&str> {
    let (word, _) = rest.strip_prefix('{')?.split_once('}')?;
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_word = !word.is_empty() && word.bytes().all(is_letter);
    (is_word || word.starts_with("header.")).then_some(word)
}

fn field(word: &str) -> Result<Field, TemplateError> {
    let known = FIELDS.iter().find(|(name, _)| *name == word);
    let unknown = || TemplateError {
        name: word.to_owned(),
    };
    match (known, word.strip_prefix("header.")) {
        (Some((_, field)), _) => Ok(field.clone()),
        (None, Some(name)) => header(name).map(Field::Header).ok_or_else(unknown),
        (None, None) => Err(unknown()),
    }
}

/// The name of a field without what some readers take for a hyphen.
fn header(name: &str) -> Option<HeaderName> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let name = name.bytes().all(is_plain).then_some(name)?;
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::{HeaderMap, Method};
    use crate::secret::Secret;

    fn rendered(template: &str, secret: &str) -> (Option<String>, String) {
        let secret = Secret::new(secret);
        let question = Question {
            secret: Some(&secret),
            client_id: "c1",
            user_name: "",
            fingerprint: "",
            remote: std::net::IpAddr::from([192, 0, 2, 1]),
            request: None,
        };
        render(template, &question)
    }

    fn render(template: &str, question: &Question<'_>) -> (Option<String>, String) {
        let template: Template = template.parse().unwrap();
        let fields: Vec<Field> = template.fields().cloned().collect();
        let values = Values::of(&fields, question).unwrap();
        (template.plain(&values), template.json(&values))
    }

    #[test]
    fn fields_are_filled_in_and_other_braces_stay() {
        let (plain, _) = rendered(r#"{"a":{"b":"{secret}"},"c":"{client_id}@{remote}"}"#, "s");
        let expected = r#"{"a":{"b":"s"},"c":"c1@192.0.2.1"}"#;
        assert_eq!(plain.as_deref(), Some(expected));
        assert_eq!(rendered("", "s").1, "");
        assert_eq!(rendered("{protocol}{path}{}{1}", "s").1, "MQTT{}{1}");
    }

    #[test]
    fn a_request_is_told_by_its_parts() {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-key"), "k\"1".parse().unwrap())]);
        let request = super::super::Request {
            method: &Method::PUT,
            host: "a.example",
            path: "/m/1",
            query: Some("a=b".into()),
            headers: &headers,
            id: "r1",
        };
        let question = Question {
            secret: None,
            client_id: "",
            user_name: "",
            fingerprint: "f",
            remote: std::net::IpAddr::from([192, 0, 2, 1]),
            request: Some(&request),
        };
        let text = "{protocol} {method} {host}{path}{query} {request_id} {header.X-Key}{secret}";
        let (plain, json) = render(text, &question);
        assert_eq!(plain.as_deref(), Some("HTTP PUT a.example/m/1?a=b r1 k\"1"));
        assert!(json.ends_with("k\\\"1"), "{json}");
        // A field that is not there is not the same as an empty one.
        assert_eq!(render("{header.x-other}", &question).0, None);
        assert_eq!(render(" {header.x-other}", &question).0, Some(" ".into()));
    }

    #[test]
    fn a_value_never_leaves_its_json_string() {
        let (_, json) = rendered(r#"{"p":"{secret}"}"#, "a\",\"admin\":\"\\\n{client_id}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["p"], "a\",\"admin\":\"\\\n{client_id}");
        assert_eq!(read.as_object().unwrap().len(), 1);
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        for name in ["{sercet}", "{header.}", "{header.x_key}", "{header.x key}"] {
            let text = format!("x {name}");
            let error = text.parse::<Template>().unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("{secret}"),
                "{error}"
            );
        }
    }
}
