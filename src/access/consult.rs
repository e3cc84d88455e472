//! Those about whom another service is asked, once they are admitted here.

use super::{Admission, ClientCredential, Connection, Refusal};
use crate::callout::{Callout, Objection, Question, Request};
use crate::credential::{Place, Presented};
use crate::secret::Secret;

/// Admits whoever is admitted already, with what `callout` says.
pub(super) async fn consult(
    callout: &Callout,
    connection: &Connection,
    admission: Admission,
    presented: &Presented,
    request: Option<&Request<'_>>,
) -> Result<Admission, Refusal> {
    let secret = client_secret(&admission)?;
    if secret.is_none() && callout.is_about_clients() {
        return Ok(admission);
    }
    let client_id = presented.names_at(&Place::ClientId).next();
    let question = Question {
        secret,
        client_id: client_id.map(Secret::expose).unwrap_or_default(),
        user_name: user_name(&admission, presented)?,
        fingerprint: connection.fingerprint().unwrap_or_default(),
        remote: connection.remote().ip().to_canonical(),
        request,
    };
    let grant = callout.decide(&question).await?;
    Ok(admission.with_grant(grant))
}

fn client_secret(admission: &Admission) -> Result<Option<&Secret>, Refusal> {
    match admission.credential() {
        ClientCredential::Certificate(device) => {
            let secret = device.client_secret();
            secret.map(Some).map_err(Refusal::UnusableCertificate)
        }
        ClientCredential::Secret(secret) => Ok(Some(secret)),
        ClientCredential::Bearer(_) | ClientCredential::Unchecked => Ok(None),
    }
}

/// The one user name, as presented or as filled in.
fn user_name<'a>(admission: &'a Admission, presented: &'a Presented) -> Result<&'a str, Objection> {
    let mut presented = presented.names_at(&Place::UserName);
    let first = presented.next();
    if presented.any(|other| Some(other) != first) {
        return Err(Objection::Ambiguous);
    }
    let name = first.or(admission.user_name());
    Ok(name.map(Secret::expose).unwrap_or_default())
}
