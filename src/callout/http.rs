//! Services that are asked by HTTP, in words that are set.

use serde_json::Value;

use super::address::Address;
use super::template::{Field, Template, Values};
use super::{Grant, Silence};
use crate::fetch::{Answer, HeaderMap, HeaderName, HeaderValue, Inquiry, Method, StatusCode};

/// How a service is asked, and how its answer is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpQuestion {
    /// Where it is.
    pub url: Address,
    /// The method.
    pub method: AskedBy,
    /// The fields.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body; none if absent.
    pub body: Option<Template>,
    /// Statuses that may mean yes.
    pub allow_status: Vec<u16>,
    /// The member of a JSON answer that must be true; none if the status says it all.
    pub allow_field: Option<String>,
    /// The member of a JSON answer that names the client.
    pub id_field: String,
    /// Fields of the answer that the upstream gets.
    pub forward: Vec<HeaderName>,
}

/// The method of questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedBy {
    /// This one.
    Method(Method),
    /// That of the request which is asked about.
    TheSame,
}

impl HttpQuestion {
    /// Everything that the service is told, some of it more than once.
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        let method = match self.method {
            AskedBy::Method(_) => None,
            AskedBy::TheSame => Some(&Field::Method),
        };
        let headers = self.headers.iter().map(|(_, template)| template);
        let templates = headers.chain(&self.body).flat_map(Template::fields);
        templates.chain(self.url.fields()).chain(method)
    }

    /// Everything that the service is told; `None` if a value fits no field or URL.
    pub(super) fn inquiry(&self, values: &Values<'_>) -> Option<Inquiry> {
        let mut headers = HeaderMap::new();
        for (name, template) in &self.headers {
            let Some(text) = template.plain(values) else {
                continue;
            };
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let method = match &self.method {
            AskedBy::Method(method) => method.clone(),
            AskedBy::TheSame => values.get(&Field::Method)?.parse().ok()?,
        };
        let body = self.body.as_ref();
        Some(Inquiry {
            method,
            url: self.url.url(values)?,
            headers,
            body: body.map(|template| template.json(values).into()),
        })
    }

    /// The grant, with the client's name in `id_header`, or `None` for a no. A redirect or a failure
    /// is neither.
    pub(super) fn read(
        &self,
        answer: &Answer,
        id_header: Option<&HeaderName>,
    ) -> Result<Option<Grant>, Silence> {
        let status = answer.status;
        let allows = self.allow_status.contains(&status.as_u16());
        match status {
            _ if allows => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            _ => return Err(Silence::Status(status)),
        }
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(name) = &self.allow_field {
            match document.get(name) {
                Some(Value::Bool(true)) => {}
                Some(Value::Bool(false)) => return Ok(None),
                // protobuf's JSON leaves out what is false.
                None if document.is_object() => return Ok(None),
                Some(_) | None => return Err(Silence::Field(name.clone())),
            }
        }
        let mut grant = Grant::confirmed();
        for name in &self.forward {
            let values = answer.headers.get_all(name).iter();
            grant
                .fields
                .extend(values.map(|value| (name.clone(), value.clone())));
        }
        if let Some(Value::String(id)) = document.get(&self.id_field) {
            grant.identify(id, id_header);
        }
        Ok(Some(grant))
    }
}
