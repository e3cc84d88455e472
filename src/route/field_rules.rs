//! What an operator changes in the fields of requests and of answers.

use hyper::header::{HeaderName, HeaderValue};

use super::field_template::{CertificateField, Facts, FieldTemplate};

/// Changes, in the order in which they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldRules(Vec<FieldRule>);

/// What happens to one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRule {
    /// Its name.
    pub name: HeaderName,
    /// What is done.
    pub action: FieldAction,
}

/// What can be done with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldAction {
    /// It goes.
    Remove,
    /// It has this value alone, or where that cannot be made, none.
    Set(FieldTemplate),
    /// It has this value besides.
    Add(FieldTemplate),
}

/// A rule as it is for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// The field.
    pub name: HeaderName,
    /// Whether what it says goes.
    pub replaces: bool,
    /// What it says from now on.
    pub value: Option<HeaderValue>,
}

impl FieldRules {
    /// These, one after the other.
    #[must_use]
    pub fn new(rules: Vec<FieldRule>) -> Self {
        Self(rules)
    }

    /// These, after those of `first`.
    #[must_use]
    pub fn after(self, first: &Self) -> Self {
        Self([first.0.clone(), self.0].concat())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &FieldRule> {
        self.0.iter()
    }

    /// What they come to for one request.
    #[must_use]
    pub fn changes(&self, facts: &Facts<'_>) -> Vec<FieldChange> {
        let change = |rule: &FieldRule| FieldChange {
            name: rule.name.clone(),
            replaces: !matches!(rule.action, FieldAction::Add(_)),
            value: rule.template().and_then(|template| template.fill(facts)),
        };
        self.0.iter().map(change).collect()
    }
}

impl FieldRule {
    fn template(&self) -> Option<&FieldTemplate> {
        match &self.action {
            FieldAction::Remove => None,
            FieldAction::Set(template) | FieldAction::Add(template) => Some(template),
        }
    }

    /// What it tells of certificates.
    pub fn certificate_fields(&self) -> impl Iterator<Item = &CertificateField> {
        let template = self.template().into_iter();
        template.flat_map(FieldTemplate::certificate_fields)
    }
}
