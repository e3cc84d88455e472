//! What upstreams are told of a client in a signed token: who it is, and how the gateway knows. No
//! secret is among it.
//!
//! A connection keeps the tokens that it has sent, and sends them again for as long as they would say
//! the same and half of their time is left. So many requests cost one signature, and a token's id
//! (`jti`) names the token, not the request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};

use crate::access::{Admission, Connection};
use crate::assertion::Asserter;
use crate::callout::Grant;
use crate::identity::DeviceIdentity;
use crate::route::{ForwardedAssertion, Route};
use crate::token::VerifiedToken;

/// Most tokens that a connection keeps: a device needs one, a client that multiplexes its users some.
const MOST: usize = 16;

/// The tokens of one connection. Without any it takes no room.
#[derive(Debug, Default)]
pub(super) struct Assertions(OnceLock<Box<Mutex<VecDeque<Kept>>>>);

#[derive(Debug)]
struct Kept {
    said: Decision,
    value: HeaderValue,
    renew_at: u64,
}

/// What has been decided on a connection. All that a token says follows from it, but the times.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    /// The route's place in the list of all routes.
    route: usize,
    token: Option<Arc<VerifiedToken>>,
    grant: Option<Arc<Grant>>,
    /// Whether the connection's certificate counts.
    by_certificate: bool,
}

/// A client that has been admitted.
pub(super) struct Client<'a> {
    pub(super) admission: &'a Admission,
    pub(super) connection: &'a Connection,
    /// When, in seconds since the Unix epoch.
    pub(super) now: u64,
}

impl Client<'_> {
    /// Its device, unless the certificate has expired meanwhile.
    fn device(&self) -> Option<&DeviceIdentity> {
        let device = self.connection.device();
        device
            .filter(|device| !device.has_expired(self.now))
            .map(|device| &**device)
    }

    /// `None` if the gateway has verified nothing, but passes on what the client has presented.
    fn decision(&self, route: &Route) -> Option<Decision> {
        let grant = self.admission.grant();
        let decision = Decision {
            route: route.id,
            token: self.admission.token().cloned(),
            grant: grant.filter(|grant| grant.is_confirmed()).cloned(),
            by_certificate: self.device().is_some(),
        };
        let is_any = decision.token.is_some() || decision.grant.is_some();
        (is_any || decision.by_certificate).then_some(decision)
    }
}

impl Assertions {
    /// The token for `client`, one that was signed before or a new one. `None` if there is nothing to
    /// assert, or no signature to be had, which is no yes for those who look for one.
    pub(super) fn of(
        &self,
        asserter: &Asserter,
        route: &Route,
        forwarded: &ForwardedAssertion,
        client: &Client<'_>,
    ) -> Option<HeaderValue> {
        let said = client.decision(route)?;
        let kept = self.0.get_or_init(Box::default);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| client.now < kept.renew_at);
        if let Some(known) = kept.iter().find(|kept| kept.said == said) {
            return Some(known.value.clone());
        }
        let claims = claims(&said, route, forwarded, client);
        let assertion = asserter.sign(claims, client.now, said.end(client))?;
        let mut value = HeaderValue::try_from(assertion.token).ok()?;
        value.set_sensitive(true);
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(Kept {
            said,
            value: value.clone(),
            renew_at: assertion.renew_at,
        });
        Some(value)
    }
}

impl Decision {
    /// The first second at which it would no longer be made, for what it rests on has ended.
    fn end(&self, client: &Client<'_>) -> Option<u64> {
        let certificate = client.device().map(|device| device.not_after() + 1);
        let token = self.token.as_ref().and_then(|token| token.expires());
        let ends = certificate.into_iter().chain(token);
        // What is accepted past its end, within a leeway, has a moment left.
        ends.map(|end| end.max(client.now + 1)).min()
    }

    /// How the client is known (RFC 8176 leaves names like these to those who use them).
    fn methods(&self) -> Vec<&'static str> {
        let methods = [
            (self.by_certificate, "certificate"),
            (self.grant.is_some(), "callout"),
            (self.token.is_some(), "token"),
        ];
        let methods = methods.into_iter().filter(|(is_used, _)| *is_used);
        methods.map(|(_, name)| name).collect()
    }
}

/// The user's own claims first, so that none takes the place of the gateway's.
fn claims(
    said: &Decision,
    route: &Route,
    forwarded: &ForwardedAssertion,
    client: &Client<'_>,
) -> Map<String, Value> {
    let mut claims = Map::new();
    if let Some(token) = &said.token {
        for claim in &forwarded.claims {
            if let Some(value) = claim.path.find(token.claims()) {
                claims.insert(claim.name.clone(), value.clone());
            }
        }
        claims.insert("provider".into(), token.provider().into());
    }
    let client_id = said.grant.as_ref().and_then(|grant| grant.client_id());
    if let Some(client_id) = client_id {
        claims.insert("client_id".into(), client_id.into());
    }
    let device = client.device();
    if let Some(device) = device {
        claims.insert("cnf".into(), json!({"x5t#S256": thumbprint(device)}));
    }
    let subject = match &said.token {
        // A user without a name is not the device that it comes with.
        Some(token) => token.subject(),
        None => client_id.or(device.map(DeviceIdentity::fingerprint)),
    };
    if let Some(subject) = subject {
        claims.insert("sub".into(), subject.into());
    }
    claims.insert("aud".into(), forwarded.audience.as_str().into());
    claims.insert("amr".into(), said.methods().into());
    claims.insert("route".into(), route.name.as_str().into());
    claims
}

/// SHA-256 of the certificate (RFC 8705 §3.1).
fn thumbprint(device: &DeviceIdentity) -> String {
    let hash = digest::digest(&digest::SHA256, device.peer().leaf());
    URL_SAFE_NO_PAD.encode(hash)
}
