//! Clients about whom another service is asked, once they are known here.

use super::{Admission, ClientCredential, Connection, Refusal};
use crate::callout::{Callout, Question};
use crate::credential::Presented;
use crate::secret::Secret;

/// Admits the client with what `callout` says of it.
pub(super) async fn consult(
    callout: &Callout,
    connection: &Connection,
    credential: ClientCredential,
    presented: &Presented,
) -> Result<Admission, Refusal> {
    let secret: &Secret = match &credential {
        ClientCredential::Certificate(device) => device.client_secret(),
        ClientCredential::Presented(secret) => secret,
        ClientCredential::Bearer(token) => token,
        ClientCredential::Unchecked => return Ok(Admission::new(credential)),
    };
    let names = presented.names();
    let question = Question {
        secret,
        client_id: names.map_or("", |names| &names.client_id),
        user_name: names.map_or("", |names| &names.user_name),
        protocol: if names.is_some() { "MQTT" } else { "HTTP" },
        fingerprint: connection.fingerprint().unwrap_or_default(),
        remote: connection.remote().ip().to_canonical(),
    };
    let grant = callout.decide(&question).await?;
    Ok(Admission::new(credential).with_grant(grant))
}
