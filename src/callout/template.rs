//! Texts with fields of a [`Question`] in braces: `"Client {secret}"`.

use std::str::FromStr;

use thiserror::Error;

use super::Question;

/// A text with fields in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Secret,
    ClientId,
    UserName,
    Protocol,
    Fingerprint,
    Remote,
}

const FIELDS: &[(&str, Field)] = &[
    ("{secret}", Field::Secret),
    ("{client_id}", Field::ClientId),
    ("{username}", Field::UserName),
    ("{protocol}", Field::Protocol),
    ("{fingerprint}", Field::Fingerprint),
    ("{remote}", Field::Remote),
];

/// A word in braces that is no field, where a mistake is likelier than intent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no field {name}; there are {}", names().join(", "))]
pub struct TemplateError {
    /// The word.
    name: String,
}

fn names() -> Vec<&'static str> {
    FIELDS.iter().map(|(name, _)| *name).collect()
}

impl Template {
    /// The text with the fields' values as they are.
    pub(super) fn plain(&self, question: &Question<'_>) -> String {
        self.render(question, str::to_owned)
    }

    /// The text with the fields' values as they stand inside the quotes of a JSON string.
    pub(super) fn json(&self, question: &Question<'_>) -> String {
        self.render(question, |value| {
            let quoted = serde_json::Value::from(value).to_string();
            let inner = quoted
                .strip_prefix('"')
                .and_then(|text| text.strip_suffix('"'));
            inner.unwrap_or_default().to_owned()
        })
    }

    /// Whether it differs between clients.
    #[must_use]
    pub fn names_client(&self, by_certificate: bool) -> bool {
        let names = |field: Field| match field {
            Field::Secret => true,
            Field::Fingerprint => by_certificate,
            Field::ClientId | Field::UserName | Field::Protocol | Field::Remote => false,
        };
        let mut parts = self.0.iter();
        parts.any(|part| matches!(part, Part::Field(field) if names(*field)))
    }

    fn render(&self, question: &Question<'_>, escape: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => escape(&field.of(question)),
        };
        self.0.iter().map(part).collect()
    }
}

impl Field {
    fn of(self, question: &Question<'_>) -> String {
        match self {
            Self::Secret => question.secret.expose().to_owned(),
            Self::ClientId => question.client_id.to_owned(),
            Self::UserName => question.user_name.to_owned(),
            Self::Protocol => question.protocol.to_owned(),
            Self::Fingerprint => question.fingerprint.to_owned(),
            Self::Remote => question.remote.to_string(),
        }
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
            let known = FIELDS.iter().find(|(name, _)| rest.starts_with(name));
            let length = match known {
                Some((name, field)) => {
                    parts.push(Part::Text(std::mem::take(&mut before)));
                    parts.push(Part::Field(*field));
                    name.len()
                }
                None => {
                    refuse_unknown(rest)?;
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

fn refuse_unknown(rest: &str) -> Result<(), TemplateError> {
    let word = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    match word {
        Some((word, _)) if !word.is_empty() && word.bytes().all(is_letter) => Err(TemplateError {
            name: format!("{{{word}}}"),
        }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn rendered(template: &str, secret: &str) -> (String, String) {
        let secret = Secret::new(secret);
        let question = Question {
            secret: &secret,
            client_id: "c1",
            user_name: "",
            protocol: "MQTT",
            fingerprint: "",
            remote: std::net::IpAddr::from([192, 0, 2, 1]),
        };
        let template: Template = template.parse().unwrap();
        (template.plain(&question), template.json(&question))
    }

    #[test]
    fn fields_are_filled_in_and_other_braces_stay() {
        let (plain, _) = rendered(r#"{"a":{"b":"{secret}"},"c":"{client_id}@{remote}"}"#, "s");
        assert_eq!(plain, r#"{"a":{"b":"s"},"c":"c1@192.0.2.1"}"#);
        assert_eq!(rendered("", "s").0, "");
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
        let error = "x {sercet}".parse::<Template>().unwrap_err().to_string();
        assert!(
            error.contains("{sercet}") && error.contains("{secret}"),
            "{error}"
        );
    }
}
