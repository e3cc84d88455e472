//! Clients about whom another service is asked, once they are known here.

use super::{Admission, ClientCredential, Connection, Refusal};
use crate::callout::{Callout, Question};
use crate::credential::{Place, Presented};
use crate::secret::Secret;

/// Admits the client with what `callout` says of it.
pub(super) async fn consult(
    callout: &Callout,
    connection: &Connection,
    admission: Admission,
    presented: &Presented,
) -> Result<Admission, Refusal> {
    let secret: &Secret = match admission.credential() {
        ClientCredential::Certificate(device) => device
            .client_secret()
            .map_err(Refusal::UnusableCertificate)?,
        ClientCredential::Secret(secret) => secret,
        ClientCredential::Bearer(token) => token,
        ClientCredential::Unchecked => return Ok(admission),
    };
    let name = |place| presented.names_at(place).next().map(Secret::expose);
    // An MQTT client has one, be it empty; an HTTP client has none.
    let client_id = name(&Place::ClientId);
    let filled_in = admission.user_name().map(Secret::expose);
    let user_name = name(&Place::UserName).or(filled_in);
    let question = Question {
        secret,
        client_id: client_id.unwrap_or_default(),
        user_name: user_name.unwrap_or_default(),
        protocol: if client_id.is_some() { "MQTT" } else { "HTTP" },
        fingerprint: connection.fingerprint().unwrap_or_default(),
        remote: connection.remote().ip().to_canonical(),
    };
    let grant = callout.decide(&question).await?;
    Ok(admission.with_grant(grant))
}
