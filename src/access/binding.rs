//! [`Binding`]: what a client presents has to agree with what its certificate says, and in what.
//!
//! The default is the specification's: the common name is the client secret. Fleets whose secrets
//! do not fit into a common name, or whose devices are named elsewhere in their certificates, bind
//! other things: a user name, an MQTT client identifier, a header field.

use std::sync::Arc;

use super::{Admission, ClientCredential, Refusal, secret_of_all};
use crate::credential::{Claim, Place, Presented, Source, Value};
use crate::identity::{DeviceIdentity, Template};
use crate::secret::Secret;

/// What has to agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Where the client secret is.
    pub secret: SecretRule,
    /// What else is compared.
    pub rules: Vec<Rule>,
}

/// Where the client secret is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecretRule {
    /// In the certificate's common name.
    #[default]
    CommonName,
    /// Made of what the certificate says.
    Made(Template),
    /// Not in the certificate: the client presents it, and the rules bind it to the certificate.
    Presented,
}

/// What stands at `place` has to be what the certificate gives `template`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where the client says it.
    pub place: Place,
    /// What it has to say.
    pub template: Template,
}

impl Binding {
    /// The places that are compared, besides those of the secret.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.rules.iter().map(|rule| &rule.place)
    }

    /// Whether everything agrees.
    pub(super) fn admit(
        &self,
        device: &Arc<DeviceIdentity>,
        presented: &Presented,
    ) -> Result<Admission, Refusal> {
        for rule in &self.rules {
            self.check(rule, device, presented)?;
        }
        let credential = self.credential(device, presented)?;
        let user_name = self.user_name(device, presented)?;
        Ok(Admission::new(credential).with_user_name(user_name))
    }

    /// Whether what a client has presented so far, with the opening of a WebSocket in which it will
    /// present more, agrees.
    pub(super) fn admit_so_far(
        &self,
        device: &Arc<DeviceIdentity>,
        presented: &Presented,
    ) -> Result<(), Refusal> {
        for rule in &self.rules {
            match rule.place {
                Place::Header(_) | Place::Query(_) => self.check(rule, device, presented)?,
                Place::UserName | Place::ClientId => {}
            }
        }
        match self.credential(device, presented) {
            Err(Refusal::NoCredential) => Ok(()),
            other => other.map(drop),
        }
    }

    fn check(
        &self,
        rule: &Rule,
        device: &DeviceIdentity,
        presented: &Presented,
    ) -> Result<(), Refusal> {
        let source = rule.place.source();
        let mut values = presented.names_at(&rule.place);
        let Some(value) = values.next() else {
            return if self.fills(&rule.place) {
                Ok(())
            } else {
                Err(Refusal::Missing(source))
            };
        };
        // Which of two would the upstream believe? Of user names, which come in the opening of a
        // WebSocket and in its CONNECT, it gets one, if they agree.
        if values.any(|other| rule.place != Place::UserName || other != value) {
            return Err(Refusal::Conflict);
        }
        if rule.template.matches(device, value) {
            Ok(())
        } else {
            Err(Refusal::Mismatch(source))
        }
    }

    /// Whether what is missing at `place` needs not be presented. Where the secret is not in the
    /// certificate, the rules are all that ties the two together.
    fn fills(&self, place: &Place) -> bool {
        *place == Place::UserName && !matches!(self.secret, SecretRule::Presented)
    }

    fn credential(
        &self,
        device: &Arc<DeviceIdentity>,
        presented: &Presented,
    ) -> Result<ClientCredential, Refusal> {
        match &self.secret {
            SecretRule::CommonName => {
                let secret = device
                    .client_secret()
                    .map_err(Refusal::UnusableCertificate)?;
                agree(presented, |claimed| claimed == secret)?;
                Ok(ClientCredential::Certificate(Arc::clone(device)))
            }
            SecretRule::Made(template) if presented.claims().is_empty() => {
                let secret = template.value(device).map(ClientCredential::Secret);
                secret.ok_or(Refusal::Unfillable(Source::Password))
            }
            SecretRule::Made(template) => {
                agree(presented, |claimed| template.matches(device, claimed))?;
                secret_of_all(presented).map(ClientCredential::Secret)
            }
            SecretRule::Presented => secret_of_all(presented).map(ClientCredential::Secret),
        }
    }

    /// The user name that is bound: as it was presented, wherever that was, or else as the certificate
    /// gives it.
    fn user_name(
        &self,
        device: &DeviceIdentity,
        presented: &Presented,
    ) -> Result<Option<Secret>, Refusal> {
        let rule = self.rules.iter().find(|rule| rule.place == Place::UserName);
        let Some(rule) = rule else {
            return Ok(None);
        };
        let value = match presented.names_at(&rule.place).next() {
            Some(name) => Some(name.clone()),
            None => rule.template.value(device),
        };
        value.map(Some).ok_or(Refusal::Unfillable(Source::UserName))
    }
}

/// Every secret that was presented has to pass `is_right`.
fn agree(presented: &Presented, is_right: impl Fn(&Secret) -> bool) -> Result<(), Refusal> {
    let agrees = |claim: &&Claim| match &claim.value {
        Value::Secret(secret) | Value::Opaque(secret) => is_right(secret),
        Value::Token(_) | Value::Malformed => false,
    };
    match presented.claims().iter().find(|claim| !agrees(claim)) {
        Some(claim) => Err(Refusal::Mismatch(claim.source)),
        None => Ok(()),
    }
}
