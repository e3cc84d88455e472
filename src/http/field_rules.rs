//! An operator's own changes to the fields of requests and answers, and the fields that they do not
//! reach: what the gateway guarantees, it sets or removes itself.

use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue,
    STRICT_TRANSPORT_SECURITY, TRAILER,
};
use hyper::{HeaderMap, Method};

use super::Session;
use super::headers::{is_hop_by_hop, usual};
use crate::identity::DeviceIdentity;
use crate::route::{CertificateField, Facts, FieldChange, FieldRules, Target};

/// Which way a field goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the upstream.
    Request,
    /// To the client.
    Answer,
}

/// Who has written an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    Gateway,
    Upstream,
}

/// Whether no rule may touch the field, in whatever spelling: it frames the message, ends at this
/// hop, or says what the gateway alone knows.
#[must_use]
pub fn is_guarded(name: &HeaderName, direction: Direction) -> bool {
    const BEGINNINGS: [&str; 5] = [
        "client-cert",
        "sec-websocket-",
        "x-forwarded-",
        "x-ssl-client-",
        "proxy-",
    ];
    let name = usual(name.as_str());
    let is = |known: &HeaderName| known.as_str() == name;
    let begins = |beginning: &&str| name.starts_with(*beginning);
    if is_hop_by_hop(&name) || [CONTENT_LENGTH, TRAILER].iter().any(is) || name == "x-request-id" {
        return true;
    }
    match direction {
        Direction::Request => {
            [AUTHORIZATION, EXPECT, FORWARDED, HOST].iter().any(is)
                || name == "x-real-ip"
                || BEGINNINGS.iter().any(begins)
        }
        Direction::Answer => {
            is(&STRICT_TRANSPORT_SECURITY)
                || name.starts_with("access-control-")
                || name.starts_with("sec-websocket-")
        }
    }
}

/// What `rules` come to for a request of `session`. A certificate that has expired meanwhile counts
/// for none.
pub(super) fn changes(
    rules: &FieldRules,
    session: &Session,
    target: Option<&Target<'_>>,
    method: &Method,
    request_id: &HeaderValue,
) -> Vec<FieldChange> {
    let now = session.edge.clock.now();
    let device = session.connection.device();
    let device = device.filter(|device| !device.has_expired(now));
    rules.changes(&Facts {
        target,
        method,
        remote: session.connection.remote().ip().to_canonical(),
        request_id,
        certificate: &|field| of_certificate(device?, field),
    })
}

/// What a certificate says once: of several names, none would be the right one.
fn of_certificate(device: &DeviceIdentity, field: &CertificateField) -> Option<String> {
    let names = device.names();
    let name = match field {
        CertificateField::Fingerprint => device.fingerprint(),
        CertificateField::Serial => &names.serial,
        CertificateField::Subject => {
            return Some(device.describe()?.subject.without_cn().rfc2253());
        }
        CertificateField::Issuer => return Some(device.describe()?.issuer.rfc2253()),
        CertificateField::Dns => only(names.dns.iter())?,
        CertificateField::Uri => only(names.uri.iter())?,
        CertificateField::Other(wanted) => {
            let of_kind = names.other.iter().filter(|(kind, _)| kind == wanted);
            only(of_kind.map(|(_, name)| name))?
        }
    };
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn only<'a>(mut names: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let name = names.next()?;
    names.next().is_none().then_some(name)
}

/// Changes what the upstream gets. What a client says goes in every spelling that some server takes
/// for the field.
pub(super) fn change_request(headers: &mut HeaderMap, changes: Vec<FieldChange>) {
    for change in changes {
        if change.replaces {
            remove_every_spelling(headers, &change.name);
        }
        if let Some(value) = change.value {
            headers.append(change.name, value);
        }
    }
}

fn remove_every_spelling(headers: &mut HeaderMap, name: &HeaderName) {
    let meant = usual(name.as_str());
    let is_it = |spelled: &&HeaderName| usual(spelled.as_str()) == meant;
    let spelled: Vec<HeaderName> = headers.keys().filter(is_it).cloned().collect();
    for name in spelled {
        headers.remove(name);
    }
}

/// Changes what the client gets. What an answer of the gateway itself has to say stays as it is.
pub(super) fn change_answer(headers: &mut HeaderMap, changes: &[FieldChange], author: Author) {
    let said: Vec<HeaderName> = match author {
        Author::Gateway => headers.keys().cloned().collect(),
        Author::Upstream => vec![],
    };
    for change in changes.iter().filter(|change| !said.contains(&change.name)) {
        if change.replaces {
            headers.remove(&change.name);
        }
        if let Some(value) = &change.value {
            headers.append(change.name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(name: &str, direction: Direction) -> bool {
        is_guarded(&name.parse().unwrap(), direction)
    }

    #[test]
    fn what_the_gateway_guarantees_is_out_of_reach() {
        for name in [
            "connection",
            "content-length",
            "transfer-encoding",
            "transfer_encoding",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "x-request-id",
            "sec-websocket-accept",
        ] {
            for direction in [Direction::Request, Direction::Answer] {
                assert!(is(name, direction), "{name} {direction:?}");
            }
        }
        for name in [
            "authorization",
            "proxy-authorization",
            "host",
            "expect",
            "forwarded",
            "x-real-ip",
            "x-forwarded-for",
            "x_forwarded_proto",
            "x-forwarded-client-cert",
            "client-cert",
            "client_cert_chain",
            "x-ssl-client-verify",
        ] {
            assert!(is(name, Direction::Request), "{name}");
        }
        for name in ["strict-transport-security", "access-control-allow-origin"] {
            assert!(is(name, Direction::Answer), "{name}");
        }
    }

    #[test]
    fn everything_else_is_the_operators() {
        for name in ["x-client-id", "cookie", "user-agent", "origin", "x-tenant"] {
            assert!(!is(name, Direction::Request), "{name}");
        }
        for name in [
            "server",
            "set-cookie",
            "vary",
            "cache-control",
            "x-frame-options",
        ] {
            assert!(!is(name, Direction::Answer), "{name}");
        }
    }
}
